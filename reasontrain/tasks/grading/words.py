r"""Answers in words: texts, choices with their letters, remarks before a value, and hedges."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from reasontrain.tasks.grading import approximate
from reasontrain.tasks.grading.normalise import TEXT
from reasontrain.tasks.grading.nouns import STOP

_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]+")
_LETTERS = re.compile(r"[A-Za-z]")
_CHOICE = re.compile(
    r"(?:(?:option|choice|answer)\s+)?(?:\(\s*([A-J])\s*\)|([A-J])(?=\s*$|\s*[.:)]))[.:)]*"
    r"(?:\s+|(?=\\|\$|[\d(])|$)(.*)",
    re.IGNORECASE | re.DOTALL,
)
"""`(C) 60`, `C. 60`, `C) 60`, `Option C`."""
_BEARING = re.compile(
    r"([NSEW])\s*(\d+(?:\.\d+)?)\s*(?:\^\s*\{?\s*\\circ\s*\}?|°|\\circ)?\s*([NSEW])"
)
"""`N 30^\\circ E`: an angle from one point of the compass towards another."""
_NEXT_CHOICE = re.compile(r"\([A-J]\)|(?<![A-Za-z0-9])[A-J][.):](?:\s|$)")
_LETTER_LIST = re.compile(r"\(?[A-Z]\)?(?:\s*(?:,|;|and|&|\s)\s*(?:and\s*)?\(?[A-Z]\)?)+")
_LETTER_RUN = re.compile(r"[A-J]{2,}")
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)
_IT_IS = re.compile(r"^(?:(?:it|this|that|the answer) is|it's|on)\s+", re.IGNORECASE)
_PROSE = re.compile(r"[A-Za-z][A-Za-z' .-]*")
_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore|then|and|that is|i\.?e\.?)\b[\s,:]*)*"
    r"(?:(?:the|our|my|its?|this|we)\b\s*)?(?:[A-Za-z][A-Za-z' -]{0,60}?\b)?\s*"
    r"(?:\b(?:is|are|was|equals?|gives?|get|have|be|find|answer|approximately|about|exactly"
    r"|roughly)\b|\bans\.|[:=])+[\s:=]*",
    re.IGNORECASE,
)
"""Words before a value that say no more than that it is the answer."""
_HEDGE_WORDS = frozenset(
    [
        *("negative", "unknown", "unsure", "guess", "wrong", "maybe", "perhaps", "possibly"),
        *("probably", "likely", "twice", "half", "double", "triple", "thrice", "minus", "plus"),
        *("incorrect", "false", "not", "isn't", "cannot", "between", "either", "more", "less"),
        *("least", "most", "over", "under", "above", "below", "greater", "fewer", "than", "up"),
        *("nearly", "almost", "neither", "nor", "if", "unless", "except", "or", "and"),
        *("times", "divided"),
        *("to", "from", "of", "per", "by", "with", "without", "no", "remainder", "mod", "modulo"),
    ]
)
"""Words that change or take back the value beside them, so none of them is dropped."""
_STRUCK = re.compile(r"\\(?:[bx]?cancel|sout|st|not)(?![a-zA-Z])")


def is_struck_out(text: str) -> bool:
    r"""Return True for an answer that is crossed out (`\cancel{12}`)."""
    return "\\" in text and _STRUCK.search(text) is not None


def equal(gold: str, answer: str) -> bool | None:
    """Compare answers in words: a text, a choice by its letter or its content, several letters.

    Returns None if these rules do not apply, so that the value must be compared.
    """
    if not _LETTERS.search(gold) and not _LETTERS.search(answer):
        return None
    gold_bare = bare(gold)
    answer_bare = bare(answer)
    letters = _letters(gold_bare), _letters(answer_bare)
    if letters[0] is not None and letters[1] is not None:
        return letters[0] == letters[1]
    bearings = _BEARING.fullmatch(gold_bare), _BEARING.fullmatch(answer_bare)
    if bearings[0] is not None and bearings[1] is not None:
        return bearings[0].groups() == bearings[1].groups()
    gold_choice = choice(gold_bare)
    answer_choice = choice(answer_bare)
    if gold_choice is not None and answer_choice is not None:
        # two choices of one letter are equal, whatever the spellings of their contents, unless
        # these are different numbers
        values = [approximate.value(content) for _, content in (gold_choice, answer_choice)]
        are_exact = all(isinstance(value, Fraction) for value in values)
        return gold_choice[0] == answer_choice[0] and not (are_exact and values[0] != values[1])
    if gold_choice is not None and not gold_choice[1] and len(gold_choice[0]) == 1:
        return False if letters[1] is not None else None
    gold_prose = prose(gold_bare)
    answer_prose = prose(answer_bare)
    if gold_prose is None or answer_prose is None:
        return None
    # `Jim and Kate` in any order
    return sorted(gold_prose.split(" and ")) == sorted(answer_prose.split(" and ")) or None


def content_of_choice(text: str) -> str | None:
    """The content of a choice (`12` of `(B) 12`); None for a bare letter and for anything else."""
    read = choice(bare(text)) if _LETTERS.search(text) else None
    return read[1] if read is not None and read[1] else None


def labels_equation(text: str) -> bool:
    """Return True for a choice whose content is an equation (`(C) x = 6`)."""
    return "=" in text and "=" in (content_of_choice(text) or "").lstrip("= ")


def is_letter(text: str) -> bool:
    """Return True for the bare letter of a choice (`C`, `(C)`)."""
    read = choice(bare(text))
    return read is not None and not read[1]


def bare(text: str) -> str:
    r"""Remove the text wrappers (`\text{east}` -> `east`)."""
    return TEXT.sub(r"\1", text).strip() if "\\text" in text else text


def choice(text: str) -> tuple[str, str] | None:
    """Read `C`, `(C)`, `C. 60`, `Option C` as (letter, content); None for anything else."""
    match = _CHOICE.fullmatch(text.strip())
    if match is None:
        return None
    letter = match[1] or match[2]
    content = match[3].strip()
    # a lower-case letter without brackets is a variable, with content a point of a list
    if letter.islower() or (content and not re.search(r"\w", content)):
        return None
    if _NEXT_CHOICE.search(content):
        return None
    return letter, content


def prose(text: str) -> str | None:
    """Words in lower case without article and final stop; None for a formula or one letter."""
    text = text.strip(" .,!\"'")
    if len(text) < 2 or not _PROSE.fullmatch(text):
        return None
    return " ".join(_ARTICLE.sub("", _IT_IS.sub("", text)).lower().replace("-", " ").split())


def without_lead(text: str) -> str:
    r"""Remove words before a value that only present it (`\text{The answer is } 5`)."""
    if not text.startswith("\\text{"):
        return text
    match = TEXT.match(text)
    if match is None or not text[match.end() :].strip():
        return text
    lead = match[1].strip()
    if lead and not _LEAD.fullmatch(lead):
        return text
    if any(word.strip(",.:") in _HEDGE_WORDS for word in lead.lower().split()):
        return text
    return text[match.end() :].strip(" :=")


@lru_cache(maxsize=4_096)
def problem_words(problem: str) -> frozenset[str]:
    """The lower-case words of a problem that may name what a number counts."""
    return frozenset(
        word
        for word in (match.group().lower() for match in _WORD.finditer(problem[:20_000]))
        if len(word) > 2 and word not in _HEDGE_WORDS and word not in STOP
    )


def nouns_in(problem: str, *texts: str) -> frozenset[str]:
    """The words of a problem that these texts may contain, in any ending.

    Verdicts depend on no other word of the problem.
    """
    starts = {match.group().lower()[:3] for text in texts for match in _WORD.finditer(text)}
    if not problem or not starts:
        return frozenset()
    return frozenset(word for word in problem_words(problem) if word[:3] in starts)


def _letters(text: str) -> frozenset[str] | None:
    """Read `A, C`, `AC` and `A and C` as a set of choices."""
    if _LETTER_RUN.fullmatch(text) and list(text) == sorted(set(text)):
        return frozenset(text)
    if _LETTER_LIST.fullmatch(text):
        return frozenset(re.findall(r"[A-Z]", text))
    return None
