r"""Times of day and dates, as kinds of answers of their own: `4:30 \text{ p.m.}`, `May 12`."""

from __future__ import annotations

import re
from typing import NamedTuple

_TIME = re.compile(
    r"(?:at |it is |um |à )?(\d{1,2})"
    r"(?:\s*(?:\\colon|:|h|時|时|點|点)\s*(\d{2})?(?:\s*:\s*(\d{2}))?\s*(?:分|uhr)?)?"
    r"\s*(?:o'?\s*clock)?\s*(?:in the |at )?\(?"
    r"(a\.?\s*m\b\.?|p\.?\s*m\b\.?|morning|afternoon|evening|night|noon|midnight)?\)?"
)
_WORDED = {"noon": 12 * 3600, "midday": 12 * 3600, "midnight": 0}
_CHINESE = re.compile(
    r"(上午|早上|凌晨|下午|晚上|中午)\s*(\d{1,2})\s*(?:[:：点點时時])\s*(\d{2})?\s*分?"
)
_MONTHS = (
    "january jan janvier enero januar",
    "february feb février febrero februar",
    "march mar mars marzo märz",
    "april apr avril abril",
    "may mai mayo",
    "june jun juin junio juni",
    "july jul juillet julio juli",
    "august aug août agosto",
    "september sep sept septembre septiembre",
    "october oct octobre octubre oktober",
    "november nov novembre noviembre",
    "december dec décembre diciembre dezember",
)
_MONTH = {name: number for number, names in enumerate(_MONTHS, 1) for name in names.split()}
_NAME = "|".join(sorted(_MONTH, key=len, reverse=True))
_ORDINAL = r"(\d{1,2})(?:\s*\^?\s*\{?\s*(?:st|nd|rd|th)\b\}?)?\.?"
_YEAR = r"(?:\s*,?\s*(?:of |de )?(\d{4}))?"
_WEEKDAY = r"(?:(?:on )?(?:mon|tues|wednes|thurs|fri|satur|sun)day,?\s+)?"
_MONTH_FIRST = re.compile(rf"{_WEEKDAY}({_NAME})\b\.?\s*(?:the )?{_ORDINAL}{_YEAR}")
_DAY_FIRST = re.compile(
    rf"{_WEEKDAY}(?:the )?{_ORDINAL}\s*(?:day )?(?:of |de )?({_NAME})\b\.?{_YEAR}"
)
_NUMERIC = re.compile(r"(\d{4})-(\d{2})-(\d{2})|(\d{4})\s*年\s*(\d{1,2})\s*月\s*(\d{1,2})\s*[日号]")
_NUMERIC_DAY = re.compile(r"(\d{1,2})\s*月\s*(\d{1,2})\s*[日号]")
_MAY_BE_TIME = re.compile(
    r"[:時时點点]|colon|[ap]\.? ?m\b|clock|uhr|noon|mid|morning|evening|night"
)
_MAY_BE_DATE = re.compile(rf"\b(?:{_NAME})\b|\d-\d|月")
_MARKS = str.maketrans("\x02\x03{}", "    ")


class Time(NamedTuple):
    """A time of day.

    Attributes:
        seconds: seconds since midnight.
        has_half: the text says which half of the day is meant, by a mark or an hour above 12.
    """

    seconds: int
    has_half: bool


class Date(NamedTuple):
    """A day of a month, and its year if it is stated."""

    month: int
    day: int
    year: int | None


def read_time(text: str) -> Time | None:
    """Read a flat text as a time of day; None for any other text.

    `4:30` alone is a time too, although it may also be a ratio.
    """
    text = " ".join(text.translate(_MARKS).lower().split()).rstrip(". ")
    if not _MAY_BE_TIME.search(text):
        return None
    if text in _WORDED:
        return Time(_WORDED[text], has_half=True)
    chinese = _CHINESE.fullmatch(text)
    if chinese:
        half, hour_text, minute_text = chinese.groups()
        second_text = None
        mark = "p" if half in ("下午", "晚上", "中午") else "a"
    else:
        match = _TIME.fullmatch(text)
        if match is None or match.group().isdigit():
            return None
        hour_text, minute_text, second_text, half = match.groups()
        half = half or ""
        # `3h` and `3h20` are durations
        is_duration = minute_text is None or "h" in text.replace("uhr", "")
        if not half and is_duration and not any(word in text for word in ("clock", "点", "點")):
            return None
        mark = "p" if half[:1] in ("p", "e") or half in ("afternoon", "night", "noon") else half[:1]
    hour = int(hour_text)
    minute = int(minute_text or 0)
    second = int(second_text or 0)
    if hour > 24 or minute > 59 or second > 59 or (mark and hour > 12 and half[:1] in ("a", "m")):
        return None
    if mark:
        hour = hour % 12 + 12 * (mark == "p") if hour <= 12 else hour
    has_half = bool(mark) or hour > 12 or hour == 0 or hour_text.startswith("0")
    return Time((hour % 24) * 3600 + minute * 60 + second, has_half)


def same_time(gold: Time, answer: Time) -> bool:
    """Return True for the same time of day.

    A gold answer that leaves the half of the day open equals both; an answer must not.
    """
    if gold.has_half and not answer.has_half:
        return False
    if answer.has_half == gold.has_half:
        return gold.seconds == answer.seconds
    return gold.seconds % 43200 == answer.seconds % 43200


def read_date(text: str) -> Date | None:
    """Read a flat text as a date; None for any other text."""
    text = " ".join(text.translate(_MARKS).lower().split()).rstrip(". ").replace("^ ", "^")
    if not _MAY_BE_DATE.search(text):
        return None
    year: str | None = None
    if match := _MONTH_FIRST.fullmatch(text):
        name, day_text, year = match.groups()
        month = _MONTH[name]
    elif match := _DAY_FIRST.fullmatch(text):
        day_text, name, year = match.groups()
        month = _MONTH[name]
    elif match := _NUMERIC.fullmatch(text):
        year, month_text, day_text = (part for part in match.groups() if part)
        month = int(month_text)
    elif match := _NUMERIC_DAY.fullmatch(text):
        month_text, day_text = match.groups()
        month = int(month_text)
    else:
        return None
    day = int(day_text)
    if not (1 <= day <= 31 and 1 <= month <= 12):
        return None
    return Date(month, day, int(year) if year else None)


def same_date(gold: Date, answer: Date) -> bool:
    """Return True for the same day; a year that the gold answer does not state may be added."""
    return gold[:2] == answer[:2] and gold.year in (None, answer.year)
