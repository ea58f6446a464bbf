"""What algebra is not asked about."""

from __future__ import annotations

import pytest

from reasontrain.tasks.grading.limits import balanced, too_large

LARGE = [
    "9^{9^9}",
    "9^9^9",
    "10**10**10",
    "2^{2^{2^{49}}}",
    "100000000!",
    "((9!)!)!",
    "((n!)!)!",
    "2^{(3^{9})}",
    "2^{-3^9}",
    r"\binom{1000000}{500000}",
    r"2^{99999}",
    "(x+1)^{5000}",
]
SMALL = [
    r"2^{2005}+1",
    "2004!",
    r"\binom{2026}{1013}",
    r"e^{x^2}",
    r"\frac{\sqrt{\sqrt{11}+\sqrt{194}}}{15+2\sqrt{33}}",
    "(x+1)^{10}",
    "x^{n!}",
    "3(5)^{1/2} + 2(10)^{1/2}",
    "2^{3} + 4^{5}",
    r"\frac{n!}{k!(n-k)!}",
]


@pytest.mark.parametrize(
    "text", [*LARGE, "7" * 101, "x" * 1001, r"\frac{1}{" * 20 + "2" + "}" * 20]
)
def test_large(text: str) -> None:
    assert too_large(text)


@pytest.mark.parametrize("text", SMALL)
def test_small(text: str) -> None:
    assert not too_large(text)


def test_balanced_counts_no_escaped_brace() -> None:
    assert balanced(r"\{1, 2")
    assert balanced("{1}")
    assert not balanced("{1")
    assert not balanced("}{")
