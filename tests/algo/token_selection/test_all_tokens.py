"""Everything is the response: soft tokens among it, forced, tool and masked ones not."""

from __future__ import annotations

from reasontrain.algo.token_selection import AllTokens


def test_response_and_soft_tokens_are_kept(steps):
    batch = steps.of([[0, 1, 2, 3, 4, 5, 6]])
    assert AllTokens()(batch).tolist() == [[0, 0, 1, 0, 0, 1, 0]]
