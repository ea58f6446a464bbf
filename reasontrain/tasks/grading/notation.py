r"""Numbers in a notation of their own: base, residue, ratio, quotient with remainder, infinity.

`1101_2`, `3 \pmod 7`, `1:2:3`, `12 R 5` and `-\infty`.
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from reasontrain.tasks.grading import number
from reasontrain.tasks.grading.lexicon import words_in

MAX_BASE = 36
MAX_PARTS = 12
"""The most parts of a ratio."""
_WORDS = {"binary": 2, "octal": 8, "decimal": 10, "hexadecimal": 16, "hex": 16}
_WORDS |= {
    word: value
    for value, word in enumerate(
        words_in(
            "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
            " sixteen"
        ),
        start=2,
    )
}
_DIGITS = (
    r"[-+]?\(?\s*([-+]?[\x02\x03 ]*[0-9A-Za-z]{1,300}(?:\.[0-9A-Za-z]{1,300})?)[\x02\x03 ]*\)?"
)
_SUBSCRIPT = re.compile(
    rf"{_DIGITS}\s*_\s*(?:\{{[\s\x02\x03(]*(?:base\s*)?(\w{{1,9}})[\s\x02\x03)]*\}}"
    r"|\x02\s*(?:base\s*)?(\w{1,9})\s*\x03|(\d{1,2})|\((\d{1,2})\))"
)
_IN_BASE = re.compile(
    rf"{_DIGITS}\s*\(?\s*(?:in |to )?(?:the )?(?:base[\s-]*(\w{{1,9}})|(binary|octal|hexadecimal))"
    r"\s*\)?",
    re.IGNORECASE,
)
_MAY_BE_BASED = re.compile(r"_|^0[a-zA-Z]|base|binary|octal|hexa", re.IGNORECASE)
_PREFIXED = re.compile(r"0(?:[bB]([01]+)|[oO]([0-7]+)|[xX]([0-9a-fA-F]+))")
_MODULUS = re.compile(
    r"(?:[a-zA-Z]\w?\s*(?:\\equiv(?![a-zA-Z])|≡|=)\s*)?(.+?)"
    r"\s*(?:\\pmod\s*(?:\{([^{}]*)\}|(\w+))|\(\s*\\?(?:[bp]?mod|modulo)\s*([^()]+?)\s*\)"
    r"|\\?(?<![a-zA-Z])(?:b?mod|modulo)(?![a-zA-Z])\s*(?:\{([^{}]*)\}|([^\s()]+)))"
)
_REMAINDER = re.compile(
    r"([-+]?\d[\d,]*)\s*(?:,?\s*(?:with |and )?(?:a )?(?:remainder|rem|余|余数|reste|rest|resto)\.?"
    r"(?:\s*(?:of|is|is:|:|=))?|[rR]\.?|\.\.\.|\\ldots|……)\s*(\d[\d,]*)"
)
_RATIO = re.compile(r"\s*(?:\\colon(?![a-zA-Z])|\\?:|：|∶|\bto\b)\s*")
_INFINITY = re.compile(
    r"([-+]?)\s*(?:\\infty|∞|infinity|inf|\\infin|oo|positive infinity)|(negative|minus) infinity"
)


class Based(NamedTuple):
    """Digits in a base, in upper case and without leading zeros."""

    digits: str
    base: int

    @property
    def value(self) -> Fraction | None:
        """The value; None if a digit does not exist in the base."""
        whole, _, part = self.digits.lstrip("-").partition(".")
        try:
            size = Fraction(int(whole + part, self.base), self.base ** len(part))
        except ValueError:
            return None
        return -size if self.digits.startswith("-") else size


class Residue(NamedTuple):
    """An expression modulo a number, as texts."""

    value: str
    modulus: str


class Ratio(NamedTuple):
    """The parts of a ratio, as texts."""

    parts: tuple[str, ...]


class Division(NamedTuple):
    """A quotient with a remainder."""

    quotient: int
    remainder: int


class Infinity(NamedTuple):
    """Infinity with its sign, 1 or -1."""

    sign: int


def plain_digits(text: str) -> str:
    """Return digits without marks, leading zeros and a plus sign, in upper case."""
    bare = re.sub(r"[\s\x02\x03(){}+]", "", text).upper()
    sign = "-" if bare.startswith("-") else ""
    return sign + (bare.lstrip("-").lstrip("0") or "0")


def read_based(text: str) -> Based | None:
    r"""Read `1101_2`, `152A_{11}`, `(1101)_{two}`, `1101 base 2` and `0b1101`."""
    if not _MAY_BE_BASED.search(text):
        return None
    text = re.sub(r"\\overline\s*\{(\w+)\}|\[(\w+)\](?=_)", r"\1\2", text)
    spaced = " ".join(text.replace("\x02", " ").replace("\x03", " ").split())
    match = _SUBSCRIPT.fullmatch(text) or _IN_BASE.fullmatch(spaced)
    if match is None:
        prefixed = _PREFIXED.fullmatch(text)
        if prefixed is None:
            return None
        base, digits = next(
            (base, part)
            for base, part in zip((2, 8, 16), prefixed.groups(), strict=True)
            if part is not None
        )
        return Based(plain_digits(digits), base)
    digits, *bases = match.groups()
    if text.startswith("-") and not digits.startswith("-"):
        digits = "-" + digits
    name = next(part for part in bases if part is not None).lower()
    base = int(name) if name.isdecimal() else _WORDS.get(name, 0)
    # `a_2` and `x_5` are names
    if not 2 <= base <= MAX_BASE or not any(char.isdigit() for char in digits):
        return None
    return Based(plain_digits(digits), base)


def same_based(gold: Based, answer: Based) -> bool:
    """Return True for the same digits in the same base, or the same value in two bases."""
    if gold.base == answer.base:
        return gold.digits == answer.digits or (
            gold.value is not None and gold.value == answer.value
        )
    return gold.value is not None and gold.value == answer.value


def read_residue(text: str) -> Residue | None:
    r"""Read `3 \pmod 7`, `x \equiv 3 \pmod{7}` and `3 (mod 7)`."""
    if "mod" not in text or len(text) > 200:
        return None
    match = _MODULUS.fullmatch(text.replace("\x02", " ").replace("\x03", " ").strip())
    if match is None:
        return None
    value, *moduli = match.groups()
    modulus = next(part for part in moduli if part is not None)
    return Residue(value.strip().removesuffix("\\").strip(), modulus.strip())


def same_modulus(gold: Residue, answer: Residue) -> bool:
    """Return True for the same modulus."""
    return re.sub(r"\s", "", gold.modulus) == re.sub(r"\s", "", answer.modulus)


def reduced(residue: Residue) -> Fraction | None:
    """Return the value reduced by the modulus; None if one is not a number."""
    value = number.read(residue.value)
    modulus = number.read(residue.modulus)
    if value is None or modulus is None or modulus.value <= 0:
        return None
    return value.value % modulus.value


def read_ratio(text: str) -> Ratio | None:
    """Read `1:2:3`, `3 to 4` and `\\sqrt{2} : 1`."""
    if not (":" in text or "colon" in text or "to" in text or "：" in text or "∶" in text):
        return None
    text = text.replace("\x02", " ").replace("\x03", " ")
    parts = [part.strip() for part in _RATIO.split(text)]
    if not 2 <= len(parts) <= MAX_PARTS or any(_is_no_part(part) for part in parts):
        return None
    return Ratio(tuple(parts))


def _is_no_part(part: str) -> bool:
    """Return True for a part that is empty, or has words, relations or lists."""
    return not part or re.search(r"[=<>,;\x02\x03|]|(?<![\\a-zA-Z])[a-zA-Z]{2,}", part) is not None


def same_ratio(gold: Ratio, answer: Ratio) -> bool | None:
    """Return True for proportional parts; None if only algebra can decide."""
    if len(gold.parts) != len(answer.parts):
        return False
    golds = [number.read(part) for part in gold.parts]
    answers = [number.read(part) for part in answer.parts]
    if None in golds or None in answers:
        return None
    products = [
        (one.value * other_answer.value, other.value * answer_.value)
        for (one, other), (answer_, other_answer) in zip(
            pairwise(value for value in golds if value is not None),
            pairwise(value for value in answers if value is not None),
            strict=True,
        )
    ]
    zeros = [
        (g.value == 0) == (a.value == 0) for g, a in zip(golds, answers, strict=True) if g and a
    ]
    return all(left == right for left, right in products) and all(zeros)


def quotient(ratio: Ratio) -> str | None:
    """Return the fraction that a ratio of two parts equals."""
    if len(ratio.parts) != 2:
        return None
    top, bottom = ratio.parts
    return rf"\frac{{{top}}}{{{bottom}}}"


def read_division(text: str) -> Division | None:
    """Read `12 R 5` and `12 remainder 5`."""
    match = _REMAINDER.fullmatch(text.replace("\x02", " ").replace("\x03", " ").strip())
    if match is None or len(text) > 100:
        return None
    whole, rest = (int(part.replace(",", "")) for part in match.groups())
    return Division(whole, rest)


def read_infinity(text: str) -> Infinity | None:
    r"""Read `\infty`, `+\infty` and `-∞`."""
    match = _INFINITY.fullmatch(text.replace("\x02", "").replace("\x03", "").strip().lower())
    return match and Infinity(-1 if match[1] == "-" or match[2] else 1)
