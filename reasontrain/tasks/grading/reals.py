r"""Sets of real numbers in one form: intervals, unions, inequalities, the line without points.

The ends of intervals are expressions; they are put in order by their values where these are known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from reasontrain.tasks.grading import approximate, scan
from reasontrain.tasks.grading.approximate import Real

INFINITY = r"\infty"
MAX_INTERVALS = 128
_SUBJECTS = "xyzwtuvnmkrspqabcdfghjlo"
"""The letters of inequalities, the likelier unknown first (`m \\ge a` is about m)."""
_NAME = re.compile(
    r"(?:[a-zA-Z]|\\(?!pi|infty|frac|sqrt)[a-zA-Z]+)(?:_\{?\w+\}?)?'*(?:\([a-zA-Z]\))?"
)
_ABSOLUTE = re.compile(r"\|\s*([a-zA-Z])\s*(?:([-+])\s*([^|]+?))?\s*\||\\mid\s*([a-zA-Z])\s*\\mid")
_LINE = re.compile(r"\\mathbb\{R\}(?:\s*[\^_]\s*\{?\s*(?:([+-])|(>|<|\\ge|\\le)\s*0)\s*\}?)?")
_ROUNDED = re.compile(r"-?\d+\.(\d{2,})")
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}


@dataclass(frozen=True)
class Interval:
    """An interval; both ends are the same closed one for a single point."""

    low: str
    high: str
    low_closed: bool = False
    high_closed: bool = False


Region = tuple[Interval, ...]
WHOLE: Region = (Interval(f"-{INFINITY}", INFINITY),)
EMPTY: Region = ()


@dataclass(frozen=True)
class Subset:
    """A set of reals, and the name of its members (`x` of `x > 3`); None if it has none."""

    region: Region
    name: str | None = None


def line(text: str) -> Region | None:
    r"""Read `\mathbb{R}` and its halves; None for anything else."""
    match = _LINE.fullmatch(text)
    if match is None:
        return None
    sign = match[1] or match[2]
    if sign is None:
        return WHOLE
    is_closed = sign in (r"\ge", r"\le")
    if sign in ("+", ">", r"\ge"):
        return (Interval("0", INFINITY, low_closed=is_closed),)
    return (Interval(f"-{INFINITY}", "0", high_closed=is_closed),)


def points(texts: Sequence[str]) -> Region:
    """The set of these numbers."""
    return _sorted(tuple(Interval(text, text, True, True) for text in texts))


def interval(opening: str, low: str, high: str, closing: str) -> Region:
    """One interval with these brackets.

    Args:
        opening: "[" if the lower end belongs to it, "(" if not.
        low: the lower end.
        high: the upper end.
        closing: "]" if the upper end belongs to it, ")" if not.
    """
    return (Interval(low, high, opening == "[", closing == "]"),)


def is_infinite(text: str) -> bool:
    """Return True for infinity with any sign."""
    value = approximate.value(text)
    return value is not None and math.isinf(value)


def union(regions: Sequence[Region]) -> Region:
    """The union, in ascending order if all ends are known numbers."""
    return _sorted(tuple(interval for region in regions for interval in region))


def intersection(one: Region, other: Region) -> Region | None:
    """The intersection; None if the order of the ends is not known."""
    if one == WHOLE:
        return other
    if other == WHOLE:
        return one
    if not (_known(one) and _known(other)):
        return None
    if len(one) * len(other) > MAX_INTERVALS**2:
        return None
    return _sorted(tuple(_common(a, b) for a in one for b in other))


def complement(region: Region) -> Region | None:
    """All other reals; None if the order of the ends is not known."""
    if len(region) > 1 and not _known(region):
        return None
    low = f"-{INFINITY}"
    low_closed = False
    gaps: list[Interval] = []
    for part in region:
        gaps.append(Interval(low, part.low, low_closed, not part.low_closed))
        low = part.high
        low_closed = not part.high_closed
    gaps.append(Interval(low, INFINITY, low_closed, False))
    return _sorted(
        tuple(gap for gap in gaps if not (_at(gap.low) == _at(gap.high) and is_infinite(gap.low)))
    )


def relation(text: str) -> Subset | None:
    r"""Read `x < 3`, `3 > x`, `1 < x \le 2`, `|x - 1| < 2` and `x \ne 1`.

    None for an inequality that is about something else than one name.
    """
    sides, signs = scan.split(text, frozenset(["relation"]))
    tokens = [sign.token for sign in signs]
    if len(sides) == 2:
        return _absolute(sides, tokens[0]) or _one_sided(sides[0], tokens[0], sides[1])
    if len(sides) == 3:
        return _two_sided(sides, tokens)
    return None


def same(gold: Region, answer: Region, equal_ends: Callable[[str, str], bool]) -> bool:
    """Compare interval by interval; the caller compares the expressions at the ends."""
    if len(gold) != len(answer) or len(gold) > MAX_INTERVALS:
        return False
    if _known(gold) and _known(answer):
        return all(_interval_equal(a, b, equal_ends) for a, b in zip(gold, answer, strict=True))
    return all(any(_interval_equal(a, b, equal_ends) for b in answer) for a in gold) and all(
        any(_interval_equal(a, b, equal_ends) for a in gold) for b in answer
    )


def rounds_to(gold: str, answer: str) -> bool:
    """Return True if an answer with more digits rounds to a gold decimal of two or more."""
    match = _ROUNDED.fullmatch(gold)
    if match is None:
        return False
    exact = approximate.value(answer)
    rounded = approximate.value(gold)
    if exact is None or rounded is None or math.isinf(exact):
        return False
    digits = len(match[1])
    if re.fullmatch(rf"-?\d*\.\d{{0,{digits}}}|-?\d+", answer):
        return exact == rounded
    return abs(exact - rounded) * 10**digits <= Fraction(1, 2)


def _interval_equal(
    gold: Interval, answer: Interval, equal_ends: Callable[[str, str], bool]
) -> bool:
    return (
        gold.low_closed == answer.low_closed
        and gold.high_closed == answer.high_closed
        and _end_equal(gold.low, answer.low, equal_ends)
        and _end_equal(gold.high, answer.high, equal_ends)
    )


def _end_equal(gold: str, answer: str, equal_ends: Callable[[str, str], bool]) -> bool:
    if is_infinite(gold) or is_infinite(answer):
        return approximate.value(gold) == approximate.value(answer)
    return rounds_to(gold, answer) or equal_ends(gold, answer)


def _one_sided(left: str, sign: str, right: str) -> Subset | None:
    left_is_name = _is_name(left) and not _contains(right, left)
    right_is_name = _is_name(right) and not _contains(left, right)
    if not left or not right or not (left_is_name or right_is_name):
        return None
    if right_is_name and (not left_is_name or _rank(right) < _rank(left)):
        left, right = right, left
        sign = _FLIPPED[sign]
    if sign == r"\ne":
        region = complement(points([right]))
        return None if region is None else Subset(region, left)
    if sign in ("<", r"\le"):
        return Subset((Interval(f"-{INFINITY}", right, False, sign == r"\le"),), left)
    return Subset((Interval(right, INFINITY, sign == r"\ge", False),), left)


def _two_sided(sides: Sequence[str], signs: Sequence[str]) -> Subset | None:
    if not all(sides) or not _is_name(sides[1]) or r"\ne" in signs:
        return None
    if any(_contains(side, sides[1]) for side in (sides[0], sides[2])):
        return None
    downward = {sign in (">", r"\ge") for sign in signs}
    if len(downward) == 2:
        return None
    low, high = (sides[0], sides[2]) if downward == {False} else (sides[2], sides[0])
    closed = [sign in (r"\le", r"\ge") for sign in signs]
    if downward == {True}:
        closed = closed[::-1]
    return Subset((Interval(low, high, *closed),), sides[1])


def _absolute(sides: Sequence[str], sign: str) -> Subset | None:
    match = _ABSOLUTE.fullmatch(sides[0])
    bound = sides[1]
    if match is None:
        match = _ABSOLUTE.fullmatch(sides[1])
        bound = sides[0]
        sign = _FLIPPED[sign]
    if match is None:
        return None
    name = match[1] or match[4]
    centre = "0" if match[3] is None else match[3] if match[2] == "-" else _negative(match[3])
    radius = approximate.value(bound)
    if radius is None or math.isinf(radius) or _contains(centre, name) or sign == r"\ne":
        return None
    inner_closed = sign in (r"\le", ">")
    inside: Region = _sorted(
        (Interval(_difference(centre, bound), _sum(centre, bound), inner_closed, inner_closed),)
    )
    if radius < 0:
        inside = EMPTY
    if sign in ("<", r"\le"):
        return Subset(inside, name)
    outside = complement(inside)
    return None if outside is None else Subset(outside, name)


def _sum(one: str, other: str) -> str:
    values = approximate.value(one), approximate.value(other)
    if isinstance(values[0], Fraction) and isinstance(values[1], Fraction):
        return str(values[0] + values[1])
    return other if one == "0" else f"{one}+({other})"


def _difference(one: str, other: str) -> str:
    return _sum(one, _negative(other))


def _negative(text: str) -> str:
    value = approximate.value(text)
    if isinstance(value, Fraction):
        return str(-value)
    return f"-{text}" if re.fullmatch(r"\\?[a-zA-Z]+(\{[^{}]*\})*", text) else f"-({text})"


def _is_name(text: str) -> bool:
    return text not in ("e", "i") and _NAME.fullmatch(text) is not None


def _contains(text: str, name: str) -> bool:
    letter = re.match(r"\\?[a-zA-Z]+", name)
    assert letter is not None, "names begin with a letter"
    return re.search(rf"(?<![a-zA-Z\\]){re.escape(letter.group())}(?![a-zA-Z])", text) is not None


def _rank(name: str) -> int:
    rank = _SUBJECTS.find(name[0].lower())
    return len(_SUBJECTS) if rank < 0 else rank


def _at(text: str) -> Real | None:
    return approximate.value(text)


def _known(region: Region) -> bool:
    return all(_at(end) is not None for part in region for end in (part.low, part.high))


def _common(one: Interval, other: Interval) -> Interval:
    low = max((one.low, not one.low_closed), (other.low, not other.low_closed), key=_start)
    high = min((one.high, one.high_closed), (other.high, other.high_closed), key=_start)
    return Interval(low[0], high[0], not low[1], high[1])


def _start(end: tuple[str, bool]) -> tuple[Real, bool]:
    value = _at(end[0])
    assert value is not None, "ends are known"
    return value, end[1]


def _sorted(region: Region) -> Region:
    """Order the intervals, drop empty ones and join those that touch."""
    if not _known(region) or len(region) > MAX_INTERVALS:
        return region
    joined: list[Interval] = []
    for part in sorted(region, key=lambda one: _start((one.low, not one.low_closed))):
        low = _at(part.low)
        high = _at(part.high)
        assert low is not None, "ends are known"
        assert high is not None, "ends are known"
        if low > high or (low == high and not (part.low_closed and part.high_closed)):
            continue
        last = joined[-1] if joined else None
        end = None if last is None else _at(last.high)
        if (
            last is None
            or end is None
            or low > end
            or (low == end and not (last.high_closed or part.low_closed))
        ):
            joined.append(part)
        elif (high, part.high_closed) > (end, last.high_closed):
            joined[-1] = Interval(last.low, part.high, last.low_closed, part.high_closed)
    return tuple(joined)
