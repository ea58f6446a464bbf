"""Statements of an answer in a response: `#### 42`, "the answer is", in many languages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from itertools import chain, groupby
from typing import NamedTuple

from reasontrain.tasks.grading.languages import LANGUAGES, Language

MAX_MARKS = 32
"""Statements from the end of a text that are looked at."""
HASHES = "####"

_MARKUP = r"[*_`'\"”»\]]{0,4}"
_SPACE = r"[^\S\n]*"
_COLON = r"[:：=≈→⇒]"
_VALUE = r"(?=[-+−$\\*]{0,4}\d|\\|\$)"
_LETTER = r"(?=[a-h](?![a-z]))"
_DETAILS = (
    r"(?:\s+(?:to|for|in|of|here|then|thus|therefore|we|i|that)\b[^.\n:=]{0,80}?"
    r"|\s*\([^()\n]{0,40}\))?"
)
_ADJECTIVES = r"(?:\s+[^\W\d_]+(?:['’][^\W\d_]+)?){0,3}?"
_LINE_MARK = re.compile(r"^[^\S\n]*a:", re.MULTILINE)
"""`A: 26`, as in GSM8K's own solutions."""
_LINE_START = re.compile(r"[\s#*_>]*(?:[^\W\d_]+\s+){0,2}")
_LINE_END = re.compile(r"(?:\s+[^\W\d_]+)?[*_\s]*\n|[*_]*\s*\n")
_SPACE_AND_VALUE = re.compile(rf"[*_]*[^\S\n]+{_VALUE}")
_FINAL = re.compile(r"[\s#*_>]*(?:(?:the|my|final|correct)\s+){0,2}")
_ENUMERATED = re.compile(r"\(?(?:\d{1,2}|[a-zA-Z]|[ivx]{1,4})[.):]\s+[*_]*[^\W\d_]{2}")


class Mark(NamedTuple):
    """A statement of an answer.

    Attributes:
        start: where it begins.
        end: where the answer begins.
        language: its language; None for GSM8K's mark.
        denied: it says what the answer is not.
    """

    start: int
    end: int
    language: Language | None
    denied: bool = False


def find(text: str) -> list[Mark]:
    """Find the last statements of an answer, in order; at most `MAX_MARKS` per language."""
    # the length must stay the same
    lowered = text.replace("İ", "I").lower()
    marks = _hashes(text)
    for language in _candidates(lowered):
        marks += _of_language(lowered, language)
    if "a:" in lowered:
        line_marks = [match.span() for match in _LINE_MARK.finditer(lowered)][-MAX_MARKS:]
        marks += [Mark(start, end, LANGUAGES["en"]) for start, end in line_marks]
    marks.sort(key=lambda mark: mark.end)
    return [_merged(same) for _, same in groupby(marks, key=lambda mark: mark.end)]


def _merged(marks: Iterable[Mark]) -> Mark:
    """One mark for several at the same place: languages may share a noun."""
    first, *others = marks
    languages = tuple(mark.language for mark in (first, *others) if mark.language)
    return first._replace(language=_union(languages)) if others and languages else first


@cache
def _union(languages: tuple[Language, ...]) -> Language:
    *words, direct = zip(*languages, strict=True)
    return Language._make([*(tuple(dict.fromkeys(chain(*lists))) for lists in words), any(direct)])


def _hashes(text: str) -> list[Mark]:
    """Find GSM8K's marks, in contrast to Markdown headings of the same level."""
    marks: list[Mark] = []
    end = len(text)
    for _ in range(MAX_MARKS):
        start = text.rfind(HASHES, 0, end)
        if start < 0:
            break
        end = start
        if text[start - 1 : start] != "#" and _is_answer(text, start + len(HASHES)):
            marks.append(Mark(start, start + len(HASHES), None))
    return marks


def _is_answer(text: str, start: int) -> bool:
    """Return True if an answer follows four hashes, False for the words of a heading."""
    end = text.find("\n", start)
    line = text[start : end if end >= 0 else len(text)].strip(" \t\r*_#:")
    is_last = end < 0 or not text[end:].strip()
    if not line or line.startswith(HASHES) or HASHES in line:
        return False
    enumerated = _ENUMERATED.match(line)
    if enumerated:
        return is_last and not line[0].isdigit()
    if re.match(r"[^\W\d_]{2}", line):
        is_stated = any(_of_language(f"{line}\n".lower(), one) for one in _candidates(line.lower()))
        is_only = is_last and text.count(HASHES) == 1
        return is_only and len(line.split()) <= 4 and not is_stated
    return True


def _candidates(lowered: str) -> list[Language]:
    """Return the languages that have a noun in a text, each once, in the order of the table."""
    nouns = _ASCII_NOUNS if lowered.isascii() else _NOUNS
    codes = {code for noun, code in nouns if noun in lowered}
    return [language for code, language in LANGUAGES.items() if code in codes] if codes else []


_NOUNS = [(noun, code) for code, language in LANGUAGES.items() for noun in language.nouns]
_ASCII_NOUNS = [(noun, code) for noun, code in _NOUNS if noun.isascii()]


def _of_language(lowered: str, language: Language) -> list[Mark]:
    noun, tail = _patterns(language)
    marks = []
    for start, end in [match.span() for match in noun.finditer(lowered)][-MAX_MARKS:]:
        rest = tail.match(lowered, end)
        if rest:
            marks.append(Mark(start, rest.end(), language, rest["denied"] is not None))
        elif heading := _heading_end(lowered, start, end):
            marks.append(Mark(start, heading, language))
    return marks


def _heading_end(lowered: str, start: int, end: int) -> int | None:
    """Return the end of "Final Answer" at the start of a line, if the answer comes next."""
    line_start = lowered.rfind("\n", 0, start) + 1
    for before, after in ((_LINE_START, _LINE_END), (_FINAL, _SPACE_AND_VALUE)):
        heading = after.match(lowered, end)
        if heading and before.fullmatch(lowered, line_start, start):
            return heading.end()
    return None


@cache
def _patterns(language: Language) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Compile the pattern of a language's nouns, and of what follows them up to the answer."""
    nouns = alternatives(language.nouns)
    is_spaced = is_alphabetic(language.nouns[0])
    before = r"(?<![^\W\d_])" if is_spaced else ""
    after = r"(?![^\W\d_])" if is_spaced else ""
    copulas = [
        rf"{_MARKUP}{_SPACE}{_MARKUP}(?:{_COLON}|\|\s)",
        rf"{_MARKUP}{_SPACE}[—–-]\s+{_VALUE}",
    ]
    between = r"\s+" if is_spaced else r"\s*"
    denials = alternatives(language.denials or ("\0",))
    copulas.append(rf"{_MARKUP}{between}(?P<denied>{denials}){after}")
    if language.copulas:
        copula = alternatives(language.copulas)
        copulas.append(rf"{_MARKUP}{between}{copula}{after}(?:{_MARKUP}{_SPACE}{_COLON})?")
    english = language is LANGUAGES["en"]
    details = _DETAILS if english else (_ADJECTIVES if is_spaced else "")
    tail = rf"{details}(?:{'|'.join(copulas)})"
    if language.direct:
        tail = rf"{tail}|{_MARKUP}{_SPACE}(?:{_VALUE}{'' if is_spaced else '|' + _LETTER})"
    return re.compile(rf"{before}{nouns}{after}"), re.compile(tail)


def alternatives(words: tuple[str, ...]) -> str:
    """A pattern of any of some words, the longest first."""
    ordered = sorted(words, key=len, reverse=True)
    return f"(?:{'|'.join(re.escape(word) for word in ordered)})"


def is_alphabetic(word: str) -> bool:
    """Return True for a script that separates words by spaces, False for Chinese, Thai and others.

    Korean counts among the others: its particles are glued to the word.
    """
    return not re.search(r"[\u0e00-\u0e7f\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]", word)
