"""The part of the work under way: its pace, the time left and the count, the innermost first."""

from __future__ import annotations

import pytest

from reasontrain.metrics.working import Work, clock, current, working


@pytest.mark.parametrize(
    ("work", "parts"),
    [
        # 300 tokens in 20 s are 15 a second; the other 900 take 60 s.
        (
            Work("learning", "tokens", total=1200, done=300, start_s=100.0),
            ["learning", "15 tokens/s", "0:01:00 left", "300 of 1,200 tokens"],
        ),
        (
            Work("sampling", "tokens", done=3000, note="2 done", left_s=90.0, start_s=100.0),
            ["sampling", "150 tokens/s", "at most 0:01:30 left", "3,000 tokens", "2 done"],
        ),
        (Work("sampling", "tokens", start_s=100.0), ["sampling", "0:00:20"]),
        (Work("learning", "tokens", total=8, start_s=100.0), ["learning", "0:00:20"]),
        (Work("loading m", start_s=100.0), ["loading m", "0:00:20"]),
    ],
)
def test_a_part_says_what_is_known(work: Work, parts: list[str]) -> None:
    assert work.parts(120.0) == parts


def test_the_innermost_is_current_and_gone_after_an_error() -> None:
    assert current() is None

    def fail() -> None:
        with working("inner") as inner:
            assert current() is inner
            raise RuntimeError

    with working("outer") as outer:
        with pytest.raises(RuntimeError):
            fail()
        assert current() is outer
    assert current() is None


def test_hours_minutes_seconds() -> None:
    assert [clock(s) for s in (0.4, 61.0, 3723.6)] == ["0:00:00", "0:01:01", "1:02:04"]
