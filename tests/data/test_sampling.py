"""The knobs of the next token."""

from __future__ import annotations

import pytest

from reasontrain.data.sampling import Sampling


def test_an_empty_stop_text_is_refused() -> None:
    with pytest.raises(ValueError, match="empty text"):
        Sampling(stop=("</answer>", ""))


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({}, False),
        ({"temperature": 0.3}, False),
        ({"temperature": 0.0}, True),
        ({"top_p": 0.9}, True),
        ({"top_k": 5}, True),
        ({"min_p": 0.1}, True),
    ],
)
def test_what_truncates(knobs: dict[str, float], expected: bool) -> None:
    assert Sampling(**knobs).truncates is expected
