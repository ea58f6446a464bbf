"""Numbers are read exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis.strategies import integers, text

from reasontrain.tasks.grading.number import Number, equal, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-12", Fraction(-12)),
        ("+7", Fraction(7)),
        (".5", Fraction(1, 2)),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("1 000 4/9", Fraction(9004, 9)),
        ("4 4/9", Fraction(40, 9)),
        (r"-1\frac{4}{5}", Fraction(-9, 5)),
        (r"-\frac{3}{4}", Fraction(-3, 4)),
        (r"\frac{-3}{4}", Fraction(-3, 4)),
        ("-3./2", Fraction(-3, 2)),
        ("(1/2)", Fraction(1, 2)),
        ("1.5e3", Fraction(1500)),
        (r"1.5 \times 10^3", Fraction(1500)),
        ("10^{-2}", Fraction(1, 100)),
        ("2e27", Fraction(2 * 10**27)),
    ],
)
def test_reads(text: str, value: Fraction) -> None:
    found = read(text)
    assert found is not None
    assert found.value == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1,23",
        "1,2345",
        "4 4/0",
        "11 6/6",
        "1/0",
        r"\frac{1}{0}",
        "1e99999",
        "10^99999",
        "9" * 5000,
        "1/2/3",
        "12:00",
        "1 2",
    ],
)
def test_reads_nothing_else(text: str) -> None:
    assert read(text) is None


def test_percentages_agree_with_their_share_and_with_the_bare_number() -> None:
    share, percent, bare = (
        Number(Fraction(67, 200), decimal=True),
        Number(Fraction(67, 2), percent=True),
        Number(Fraction(67, 2)),
    )
    assert equal(share, percent)
    assert equal(percent, bare)
    assert not equal(share, bare)


def test_decimals_are_rounded_at_a_millionth_and_integers_never() -> None:
    third = Number(Fraction(1, 3))
    assert equal(third, Number(Fraction("0.3333333"), decimal=True))  # off by 3.3e-8 < 1e-6 / 3
    assert not equal(third, Number(Fraction("0.33333"), decimal=True))  # off by 3.3e-6
    assert not equal(
        Number(Fraction(1, 10**9), decimal=True), Number(Fraction(2, 10**9), decimal=True)
    )  # small numbers: relative
    assert not equal(Number(Fraction(12345678902)), Number(Fraction(12345678901)))


def test_a_decimal_of_few_places_is_no_rounding_of_an_exact_number_near_it() -> None:
    near_one = Number(Fraction(4036082, 4036081))
    for spelling in ("1.00", "1.000000"):
        decimal = read(spelling)
        assert decimal is not None
        assert not equal(near_one, decimal)
        assert not equal(decimal, near_one)
    assert equal(Number(Fraction(2, 3)), Number(Fraction("0.6666667"), decimal=True))
    assert equal(Number(Fraction("2.4999999"), decimal=True), Number(Fraction("2.5"), decimal=True))


@given(top=integers(-(10**9), 10**9), bottom=integers(1, 10**6))
def test_every_spelling_of_a_fraction_is_the_same_number(top: int, bottom: int) -> None:
    sign = "-" if top < 0 else ""
    for spelling in (
        f"{top}/{bottom}",
        rf"\frac{{{top}}}{{{bottom}}}",
        rf"{sign}\frac{{{abs(top)}}}{{{bottom}}}",
    ):
        found = read(spelling)
        assert found is not None
        assert found.value == Fraction(top, bottom)


@given(text(max_size=30))
def test_never_raises(anything: str) -> None:
    read(anything)
