"""The answer that a statement gives: its sentence or list, alternatives, corrections, denials."""

from __future__ import annotations

import re
from typing import NamedTuple

from reasontrain.tasks.grading import formulas
from reasontrain.tasks.grading.languages import ALTERNATIVES, LANGUAGES, ORS, TOTALS, Language
from reasontrain.tasks.grading.marks import Mark, alternatives, is_alphabetic
from reasontrain.tasks.grading.value import (
    HEDGE,
    NEW_VALUE,
    NOISE,
    STARTS_WITH_VALUE,
    VALUE,
    value_in,
    whole_words,
)

LONGEST = 2_000
"""Characters after a mark in which its answer ends."""
MAX_WORDS = 12
"""An answer of more words that has no value at its start is prose."""

_BOLD = re.compile(r"(?<![\w)])\*\*|\*\*(?![\w(-])")
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)|[。！？।؟۔]")
_LINE_END = re.compile(r"\n")
_ABBREVIATION = re.compile(
    r"(?:\b(?:[ap]\.m|i\.e|e\.g|rs|no|nr|st|approx|ca|vs|fig|eq|ft|in|hrs?|mins?|secs?|oz|lbs?|mr"
    r"|mrs|dr|sq|yrs?)|\.[a-z])$",
    re.IGNORECASE,
)
_CHOICE = re.compile(r"\(?[A-J]$")
_PHRASE = re.compile(
    rf"[.)]\s+(?:{VALUE}[^.!?\n]{{0,60}}(?:[.!?]|\n|$)"
    r"|(?!(?:This|It|That|So|Because|Therefore|We|I|Since|Hence|Thus|Here|The)\b)"
    r"[^\s.!?][^.!?\n]{0,60}?[.\s]*(?:\n|$))"
)
"""The text of a choice after its letter."""
_RULES = re.compile(r"(?:\s*(?:[-_=*]{3,}\s*\n|\$?\\f?boxed\s*\{\s*\}\$?))+")
"""Horizontal rules, and boxes that were left empty."""
_TAG = re.compile(r"</?(?:b|strong|em|i|u|p|br|span|div|center|code)\s*/?>", re.IGNORECASE)
_ANNOUNCEMENT = re.compile(r"[^\d$\\\n]{1,60}[:：]\s*")
_LIST = re.compile(r"[\s:*_]*\n\s*(?P<first>(?:[-*•]|\d{1,2}[.)]|\(?[a-h]\))\s+)")
_ITEM = re.compile(r"\s*(?:[-*•]|\d{1,2}[.)]|\(?[a-h]\))\s+(.+)")
_TOTAL = re.compile(rf"[\s*_-]*{alternatives(TOTALS)}\b[^:：=\n]{{0,40}}[:：=]+(.+)", re.IGNORECASE)
_ALTERNATIVE = re.compile(
    rf"[\s.!?*,$()\\\]]*(?:{alternatives((*ORS, *ALTERNATIVES))}|it (?:could|might|may))"
    rf"(?![^\W\d_])(?:\W*\b(?:{HEDGE}|{alternatives(ALTERNATIVES)})\b)*[\s,:*(]*(?={VALUE})",
    re.IGNORECASE,
)
_SOFT = re.compile(
    r"[\s.!?*,;(—-]*(?:(?:wait|hmm|hold on|let me|actually)\b|no[,.:;!])", re.IGNORECASE
)
_CONFIRMED = re.compile(
    r"\b(?:correct|right|yes|confirm\w*|verified|match(?:es)?)\b", re.IGNORECASE
)
_HARD = re.compile(
    r"[\s.!?*,;(—-]*(?:(?:wait|no)\W+)*(?:oops|sorry|correction|scratch that|i (?:made|was|forgot)"
    r"|i mean|(?:that|this|which)(?:'s| is| was) (?:wrong|incorrect|not right|a mistake))\b",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"(?:given|found|shown|stated|written|right|correct|incorrect|wrong|reasonable|consistent|valid"
    r"|unique|clear|below|above|as|in|based|for|to be|what|therefore|positive|negative|not|also"
    r"|indeed"
    r"|an? (?:integer|number|whole|fraction|decimal|positive|negative)|obvious|the same|close|near"
    r"|(?:less|more|greater|fewer|smaller|larger) than|at (?:least|most)|between"
    r"|[a-z]{3,}ed(?: (?:by|with|in|to|from|as|above|below|using|for|at|of|on))?)\b(?!\s*\()",
    re.IGNORECASE,
)
"""Beginnings of what is said about an answer, or of a bound, which replaces no answer before it."""
_SIGNED = re.compile(r"(?:positive|negative)\s+[\d$\\]", re.IGNORECASE)
_TWICE = re.compile(r"(.+?),? or \1")


class Claim(NamedTuple):
    """What a statement gives.

    Attributes:
        text: the answer.
        is_answer: False if it reads like a remark about an answer, or says what it is not.
    """

    text: str
    is_answer: bool


def read(text: str, mark: Mark) -> Claim:
    """Read the answer after a mark."""
    window = text[mark.end : mark.end + LONGEST]
    language = mark.language or LANGUAGES["en"]
    if mark.language is None:
        line = window[: _end(window, _LINE_END)]
        return Claim(value_in(line, language), True)
    listed = _list(window, language) if "\n" in window else None
    if listed:
        return Claim(listed, True)
    body = _without_layout(window)
    end = _sentence_end(body)
    if _ANNOUNCEMENT.fullmatch(body, 0, end):
        # "as follows:", with the answer on the next lines
        window = body[end:]
        listed = _list(window, language)
        if listed:
            return Claim(listed, True)
        body = _without_layout(window)
        end = _sentence_end(body)
    sentence = body[:end]
    rest = body[end:]
    retracted = _retraction(rest, language) if rest else None
    if retracted is not None:
        return Claim(retracted, True)
    if mark.denied:
        affirmed = _affirmed(sentence, rest, language)
        if affirmed is None:
            return Claim(f"not {value_in(sentence, language)}", False)
        return Claim(value_in(affirmed, language), True)
    claim = value_in(sentence, language)
    if rest and (other := alternative(rest, 0, language)):
        claim = f"{claim} or {other}"
    if twice := _TWICE.fullmatch(claim):
        claim = twice[1]
    return Claim(claim, _is_answer(claim))


def alternative(text: str, start: int, language: Language = LANGUAGES["en"]) -> str:
    """Return the value that a hedge puts beside the one before `start`; "" without a hedge."""
    hedge = _ALTERNATIVE.match(text, start)
    if hedge is None:
        return ""
    other = text[hedge.end() : hedge.end() + LONGEST]
    return value_in(other[: _sentence_end(other)], language)


def _without_layout(window: str) -> str:
    """Remove blank lines, rules, empty boxes and markup before an answer, and markup within."""
    body = window.lstrip(NOISE)
    if rules := _RULES.match(body):
        body = body[rules.end() :].lstrip(NOISE)
    if "<" in body:
        body = _TAG.sub("", body).lstrip(NOISE)
    return _BOLD.sub("", body) if "**" in body else body


def _sentence_end(body: str) -> int:
    return _end(body, _SENTENCE_END)


def _end(body: str, pattern: re.Pattern[str]) -> int:
    """Return the end of the first sentence or line that is outside of formulas."""
    spans = formulas.find(body)
    for match in pattern.finditer(body):
        start = match.start()
        if any(span.start < start < span.end for span in spans):
            continue
        head = body[:start]
        if match.group() == "\n":
            if head.count("\\begin") <= head.count("\\end"):
                return start
        elif match.group() == ".":
            following = body[match.end() :].lstrip()[:1]
            abbreviated = _ABBREVIATION.search(head[-8:])
            if abbreviated and (following.islower() or following.isdigit()):
                continue
            if _CHOICE.fullmatch(head) and _PHRASE.match(body, start):
                continue
            return start + (1 if abbreviated else 0)
        elif match.group() == "!" and not body[match.end() :].lstrip(" ")[:1].isalpha():
            # a factorial
            continue
        else:
            return start
    return len(body)


def _list(window: str, language: Language) -> str | None:
    """Return the total of a list that follows a mark, or its items; None without a list."""
    listed = _LIST.match(window)
    if listed is None:
        return None
    items = []
    for line in window[listed.start("first") :].splitlines():
        if not line.strip():
            continue
        total = _TOTAL.match(line)
        if total:
            return value_in(total[1], language)
        item = _ITEM.match(line)
        if item is None:
            break
        items.append(value_in(_BOLD.sub("", item[1]), language))
    return ", ".join(items)


def _retraction(rest: str, language: Language) -> str | None:
    """Return the value that replaces the one before; "" if it is only taken back, else None."""
    hard = _HARD.match(rest)
    if not hard and not _SOFT.match(rest):
        return None
    new = list(NEW_VALUE.finditer(rest))
    if new and (hard or not _CONFIRMED.search(rest, new[-1].end())):
        body = rest[new[-1].end() :]
        return value_in(body[: _sentence_end(body)], language)
    return "" if hard else None


def _affirmed(sentence: str, rest: str, language: Language) -> str | None:
    """Return what is put in the place of a denied answer (not 12 but 15); None if nothing is.

    Args:
        sentence: the sentence after "is not".
        rest: the text after it, which may affirm (`It is 15.`).
        language: the language of the statement.
    """
    if language.affirmations:
        words = whole_words(language.affirmations, is_alphabetic(language.nouns[0]))
        if match := re.search(rf"\S\W*{words}\s*(.+)", sentence, re.IGNORECASE):
            return match[1]
    following = rest.lstrip(" .!*\n")
    new = NEW_VALUE.match(following)
    if new is None:
        return None
    body = following[new.end() :]
    return body[: _sentence_end(body)]


def _is_answer(claim: str) -> bool:
    if not claim:
        return False
    if STARTS_WITH_VALUE.match(claim):
        return True
    is_aside = _ASIDE.match(claim) and not _SIGNED.match(claim)
    return not is_aside and len(claim.split()) <= MAX_WORDS
