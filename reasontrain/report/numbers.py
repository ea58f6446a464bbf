"""Numbers as text for readers, and as portable JSON with names for NaN and infinities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Json = object
"""A value returned by `json.loads`; its type is unknown until it is checked."""

Number = int | float
"""A number in JSON's sense."""

MINUS = "\N{MINUS SIGN}"
_NARROW_SPACE = "\N{NARROW NO-BREAK SPACE}"
_SCALES = ((1e12, 1e12, "T"), (1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))


def short(value: Number, digits: int = 3) -> str:
    """About `digits` significant digits: 0.0123, 4.57, 9,120, 12.3k, 1.2e-7, NaN."""
    if not math.isfinite(value):
        return _not_finite(value)
    size = abs(value)
    if size >= 1e15 or 0 < size < 1e-4:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{_plain(float(mantissa), digits)}e{int(exponent)}".replace("-", MINUS)
    for least, scale, letter in _SCALES:
        if size >= least:
            return f"{_plain(value / scale, digits)}{_NARROW_SPACE}{letter}"
    return _plain(value, digits)


def percent(value: Number, decimals: int = 1) -> str:
    """A share as a percentage: 0.4434 -> 44.3 %."""
    return (
        f"{points(value, decimals)}{_NARROW_SPACE}%" if math.isfinite(value) else _not_finite(value)
    )


def points(value: Number, decimals: int = 1) -> str:
    """A share in percentage points, without its unit: 0.4434 -> 44.3."""
    return (
        f"{100 * value:.{decimals}f}".replace("-", MINUS)
        if math.isfinite(value)
        else _not_finite(value)
    )


def signed_points(value: Number, decimals: int = 1) -> str:
    """A share in percentage points with its sign: 0.4434 -> +44.3."""
    return ("+" if value > 0 else "") + points(value, decimals)


def duration(seconds: Number) -> str:
    """A duration in its two largest units: 3725 -> 1 h 2 min."""
    if not math.isfinite(seconds):
        return _not_finite(seconds)
    if seconds < 60:
        return f"{_plain(seconds, 2)}{_NARROW_SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes_left, "min")) if hours else ((minutes, "min"), (rest, "s"))
    return " ".join(f"{amount}{_NARROW_SPACE}{unit}" for amount, unit in parts)


def portable(value: Json) -> Json:
    """Replace each number that JSON cannot represent by its name: "NaN", "-Infinity"."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {name: portable(part) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [portable(part) for part in value]
    return value


def number(value: Json) -> float | None:
    """Convert a JSON number, or the name of one ("nan", "Infinity"); None for any other value."""
    if isinstance(value, str):
        return float(value) if value.lower().lstrip("+-") in ("nan", "inf", "infinity") else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def mean(values: Sequence[Number]) -> float:
    """Mean of the finite values; NaN if there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


def _plain(value: Number, digits: int) -> str:
    """Digits without an exponent and without trailing zeros."""
    exponent = math.floor(math.log10(abs(value))) if value else 0
    text = f"{value:,.{max(0, digits - 1 - exponent)}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text.replace("-", MINUS)


def _not_finite(value: Number) -> str:
    """The name of NaN or an infinity."""
    return "NaN" if math.isnan(value) else "∞" if value > 0 else f"{MINUS}∞"
