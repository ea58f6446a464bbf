"""Colours of tokens by evidence: blue for entropy, orange for divergence, purple for both.

The edges of levels are fixed, in nats, so that pages can be compared: ln 2 = 0.69 is a uniform
choice between two tokens, ln 4 = 1.39 among four.
"""

from __future__ import annotations

import bisect
import math

Rgb = tuple[int, int, int]

ENTROPY_EDGES = (0.1, 0.3, 0.7, 1.4)
DIVERGENCE_EDGES = (0.05, 0.2, 0.8, 3.2)
LEVELS = len(ENTROPY_EDGES) + 1

# Corners: (neither, only divergence, only entropy, both); then the text colours.
LIGHT: tuple[Rgb, Rgb, Rgb, Rgb] = (
    (255, 255, 255),
    (247, 148, 92),
    (112, 190, 236),
    (176, 128, 226),
)
DARK: tuple[Rgb, Rgb, Rgb, Rgb] = ((27, 28, 32), (158, 66, 20), (14, 94, 140), (104, 58, 168))
LIGHT_INK: Rgb = (24, 24, 28)
DARK_INK: Rgb = (236, 236, 240)


def level(value: float, edges: tuple[float, ...]) -> int:
    """The number of edges that a value reaches."""
    return bisect.bisect_right(edges, value)


def token_class(entropy: float | None, divergence: float | None) -> str:
    """CSS class of a token: "c" + entropy level + divergence level; "cx" if one of them is NaN."""
    if any(value is not None and math.isnan(value) for value in (entropy, divergence)):
        return "cx"
    return f"c{level(entropy or 0.0, ENTROPY_EDGES)}{level(divergence or 0.0, DIVERGENCE_EDGES)}"


def cell(corners: tuple[Rgb, Rgb, Rgb, Rgb], entropy: int, divergence: int) -> Rgb:
    """Colour of a pair of levels, mixed from the four corners."""
    e = entropy / (LEVELS - 1)
    d = divergence / (LEVELS - 1)
    shares = ((1 - e) * (1 - d), (1 - e) * d, e * (1 - d), e * d)
    red, green, blue = (
        round(sum(share * corner[i] for share, corner in zip(shares, corners, strict=True)))
        for i in range(3)
    )
    return red, green, blue


def rules(corners: tuple[Rgb, Rgb, Rgb, Rgb]) -> str:
    """CSS rules of all pairs of levels except (0, 0), which keeps the background of the page."""
    pairs = [(e, d) for e in range(LEVELS) for d in range(LEVELS) if e or d]
    return "".join(f".c{e}{d}{{background:#{bytes(cell(corners, e, d)).hex()}}}" for e, d in pairs)


def contrast(one: Rgb, other: Rgb) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2; text needs 4.5)."""
    bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _luminance(colour: Rgb) -> float:
    linear = [
        c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4
        for c in colour
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
