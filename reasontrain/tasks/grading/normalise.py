r"""Normalisation of LaTeX and plain text: dollars, spacing, \dfrac, units, Unicode signs."""

from __future__ import annotations

import re

_SIGNS = {
    "−": "-",
    "–": "-",
    "—": "-",
    "×": r"\times ",
    "·": r"\cdot ",
    "÷": "/",
    "π": r"\pi ",
    "∞": r"\infty ",
    "√": r"\sqrt",
    "°": "",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "±": r"\pm ",
    "²": "^2",
    "³": "^3",
    "½": r"\frac{1}{2}",
    "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}",
    "θ": r"\theta ",
    "α": r"\alpha ",
    "∅": r"\emptyset ",
    "€": "",
    "£": "",
    "¥": "",
    "，": ",",
    "（": "(",
    "）": ")",
    "\xa0": " ",
    "\u202f": " ",
    "\u2009": " ",
    "\u200b": "",
    "\x00": " ",
}
_NEW_ROW = "\x01"
"""A placeholder for the double backslash of a matrix while single ones are replaced."""
_TABLE = str.maketrans(_SIGNS)
_WRAPPER = re.compile(
    r"\\(?:boxed|fbox|framebox|mathbf|mathrm|mathit|boldsymbol|bm|displaystyle|textbf|textit"
    r"|ensuremath|operatorname\*?)\s*\{([^{}]*)\}"
)
_TEXT = re.compile(r"\\(?:text|mbox|hbox|textnormal|textrm|mathrm)\s*\{([^{}]*)\}")
_UNIT_TEXT = re.compile(
    r"(?<=[\d}\])%a-zA-Z.])\s*(?:\\(?:text|mbox|hbox|textnormal|textrm|mathrm)\s*"
    r"\{(?!\s*(?:and|or)\s*\})[^{}]*\}\s*(?:\^\s*\{?\d\}?\s*)?)+$"
)
_UNIT_WORDS = re.compile(
    r"(?<=[\d})])(?:\s+(?!(?:pi|sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp|mod|and|or|inf|infinity|if"
    r"|for|when|where|choose|i)\b)"
    r"[A-Za-z]{2,}|\s*(?:cm|mm|km|kg|ft|mph|hrs?|mins?|lbs?|oz|dollars?|cents?|degrees?)\b)"
    r"[A-Za-z0-9 ^/.,'-]*$"
)
_MODULUS = re.compile(
    r"(?<=[\w})])\s*\(?\s*(?:\\pmod\s*(?:\{[^{}]*\}|\d+)|\(?\\?mod\s*\d+\)?)\s*\)?$"
)
_PERCENT = re.compile(
    r"\s*(?:\\%|%|\\?text\{\s*percent\s*\}|\\text\{\s*%\s*\}|\bpercent\b|\bpct\b)\.?\s*$"
)

LONGEST = 4_000
"""The most characters of an answer that `spelling` compares."""
_SHORT_WORDS = frozenset(["no", "of", "in", "at", "to", "is", "am", "pm", "or", "on"])


def normalise(text: str) -> str:
    """Normalise the spelling of a text, keeping words and single spaces; evaluates nothing."""
    text = text.strip().translate(_TABLE)
    if "\\begin" not in text:
        text = re.sub(r"\\\\(?=[a-zA-Z])", lambda _: "\\", text)
    text = text.replace(r"\\", _NEW_ROW)
    text = re.sub(r"\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])\s*\.?", "", text)
    text = text.replace(r"\$", "").replace("$", "")
    text = re.sub(r"\\[()\[\]](?![a-zA-Z\d]*\{)", "", text)
    text = text.replace("{,}", ",").replace(r"\!", "").replace(r"\cr", _NEW_ROW)
    text = re.sub(r"\\[,;:> ]|~|\\q?quad(?![a-zA-Z])|\\thinspace", " ", text)
    text = re.sub(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree(?:s)?(?![a-zA-Z])", "", text)
    text = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", text)
    text = re.sub(r"\\(?:dots|ldots|cdots)(?![a-zA-Z])", "...", text)
    text = re.sub(r"\\(?:geqslant|geq)(?![a-zA-Z])|>=", r"\\ge ", text)
    text = re.sub(r"\\(?:leqslant|leq)(?![a-zA-Z])|<=", r"\\le ", text)
    text = re.sub(r"\\neq(?![a-zA-Z])|!=", r"\\ne ", text)
    text = re.sub(r"\\gt(?![a-zA-Z])", ">", re.sub(r"\\lt(?![a-zA-Z])", "<", text))
    for _ in range(3):
        text = _WRAPPER.sub(r"\1", text)
    text = re.sub(r"\s+", " ", _arguments(text)).strip().rstrip(".,;:\\" + _NEW_ROW).strip()
    return text.replace(_NEW_ROW, r"\\")


def _arguments(text: str) -> str:
    r"""Add braces around one-character arguments of \frac and \sqrt: `\frac12` -> `\frac{1}{2}`."""
    text = re.sub(r"\\sqrt\s*([a-zA-Z\d])", r"\\sqrt{\1}", text)
    text = re.sub(r"\\frac\s*\{", r"\\frac{", text)
    text = re.sub(r"\\frac\s*([a-zA-Z\d])\s*", r"\\frac{\1}", text)
    return re.sub(
        r"(\\frac\{[^{}]*\})\s*(?:([a-zA-Z\d])|\{)",
        lambda m: f"{m[1]}{{{m[2]}}}" if m[2] else f"{m[1]}{{",
        text,
    )


def without_unit(text: str) -> str:
    """Remove the unit after an expression; a percent sign in any spelling becomes `%`."""
    if _PERCENT.search(text) and not _PERCENT.fullmatch(text):
        return _PERCENT.sub("%", text)
    shorter = _UNIT_TEXT.sub("", _MODULUS.sub("", text))
    return _UNIT_WORDS.sub("", shorter).strip() or text


def words(text: str) -> str | None:
    r"""Return the plain words of an answer (`\text{Evelyn}`, `(C)`, `east`), in lower case.

    A single letter keeps its case and loses its brackets; `(C) Plane` is reduced to the letter. The
    result is None for a formula.
    """
    bare = _TEXT.sub(r"\1", text).strip(" .,")
    if re.fullmatch(r"\(?\s*[A-Za-z]\s*\)?", bare):
        return bare.strip("() ")
    choice = re.match(r"\(([A-Z])\)\s*[A-Za-z]{2}", bare)
    if choice:
        return choice[1]
    plain = re.fullmatch(r"[A-Za-z][A-Za-z '.-]*[A-Za-z.]", bare)
    meant = bare != text.strip(" .,") or all(
        len(word) > 2 or word.lower() in _SHORT_WORDS for word in bare.split()
    )
    return " ".join(bare.lower().split()) if plain and meant else None


def spelling(text: str) -> str:
    """Normalise an answer for comparison as text: without unit and spaces."""
    return squeezed(without_unit(normalise(text[:LONGEST])))


def squeezed(text: str) -> str:
    """Remove spaces and text wrappers."""
    return re.sub(r"\s+", "", _TEXT.sub(r"\1", text))
