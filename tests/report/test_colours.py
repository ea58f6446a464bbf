"""Two evidences, one colour, always readable."""

from __future__ import annotations

import math
from itertools import product

import pytest

from reasontrain.report.colours import (
    DARK,
    DARK_INK,
    ENTROPY_EDGES,
    LEVELS,
    LIGHT,
    LIGHT_INK,
    cell,
    contrast,
    level,
    rules,
    token_class,
)


def test_levels_begin_at_their_edges():
    assert [level(v, ENTROPY_EDGES) for v in (0.0, 0.0999, 0.1, 0.5, 1.4, 50.0)] == [
        0,
        0,
        1,
        2,
        4,
        4,
    ]


def test_class_names_entropy_then_divergence():
    assert token_class(0.5, 4.0) == "c24"
    assert token_class(None, 0.3) == "c02"
    assert token_class(math.inf, None) == "c40"
    assert token_class(0.5, math.nan) == "cx"


def test_corners_are_what_they_are_named_after():
    top = LEVELS - 1
    assert [cell(LIGHT, e, d) for e, d in ((0, 0), (0, top), (top, 0), (top, top))] == list(LIGHT)


def test_contrast_of_black_and_white():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)


@pytest.mark.parametrize(("corners", "ink"), [(LIGHT, LIGHT_INK), (DARK, DARK_INK)])
def test_every_token_can_be_read(corners, ink):
    assert (
        min(contrast(cell(corners, e, d), ink) for e, d in product(range(LEVELS), repeat=2)) >= 4.5
    )


def test_every_class_but_the_paper_has_a_rule():
    assert rules(LIGHT).count("{background:#") == LEVELS**2 - 1
    assert ".c04{background:#f7945c}" in rules(LIGHT)
