"""Budgets over a run (D3S sheet, test 8)."""

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers

from reasontrain.algo.token_selection import LinearSchedule

shares = floats(0.001, 1)


def test_by_hand() -> None:
    """0.25 to 0.75: a quarter of the way is 0.375."""
    ramp = LinearSchedule(init=0.25, final=0.75)
    assert [ramp.at(p) for p in (0.0, 0.25, 0.5, 1.0)] == [0.25, 0.375, 0.5, 0.75]
    assert [ramp.at(p) for p in (-1.0, 2.0)] == [0.25, 0.75]
    assert ramp.least == 0.25
    assert [LinearSchedule(init=0.3).at(p) for p in (0.0, 0.7, 1.0)] == [0.3] * 3


@given(init=shares, final=shares)
def test_both_ends_are_exact_and_between_them_it_goes_one_way(init: float, final: float) -> None:
    ramp = LinearSchedule(init=init, final=final)
    assert (ramp.at(0.0), ramp.at(1.0)) == (init, final)
    values = [ramp.at(i / 20) for i in range(21)]
    assert values == pytest.approx(sorted(values, reverse=init > final), rel=1e-12)
    assert ramp.least == min(init, final)


@given(init=shares, final=shares, steps=integers(2, 50))
def test_it_is_a_function_of_progress_alone(init: float, final: float, steps: int) -> None:
    """So that a run taken up at any step has the budgets that it would have had."""
    straight = [
        LinearSchedule(init=init, final=final).at(step / (steps - 1)) for step in range(steps)
    ]
    assert [
        LinearSchedule(init=init, final=final).at(step / (steps - 1))
        for step in reversed(range(steps))
    ] == straight[::-1]
