"""Token files as they are read."""

from __future__ import annotations

import numpy as np
import pytest

from reasontrain.algo.token_selection import TopEntropy
from reasontrain.lens.recorded import read_rollouts, recorded_evidence
from reasontrain.lens.steps import view_step
from reasontrain.types import TokenKind, UserError
from tests.lens.conftest import change, words


@pytest.fixture
def path(record):
    return record("run", TopEntropy(), names=("entropy", "kl_reverse")) / "tokens/step-1.jsonl"


def test_a_rollout_has_what_the_file_has(path):
    def edit(i, row):
        changes = {
            1: {"reward": 1.5, "reward_parts": {"style": 0.25, "note": "x"}, "correct": False},
            2: {"correct": None},
        }
        return changes.get(i, {})

    change(path, edit)
    rollouts = read_rollouts(path)
    assert [r.id for r in rollouts] == [100, 101, 102, 103, 104, 105]
    one = rollouts[1]
    assert (one.problem, one.answer, one.group, one.reward, one.correct, one.truncated) == (
        "p0",
        "7",
        100,
        1.5,
        False,
        False,
    )
    assert (rollouts[2].reward, rollouts[2].correct) == (None, None), "nothing judged it"
    assert one.reward_parts == {"style": 0.25}
    assert one.prompt_tokens == 3
    assert one.pieces == [words().decode([i]) for i in range(10, 23)]
    assert one.num_response_tokens == 13
    assert recorded_evidence(path) == {"entropy", "kl_reverse"}


def test_numbers_that_are_not_finite_are_numbers(path):
    def edit(i, row):
        column = ["nan", "inf", "-inf", None, *row["evidence"]["entropy"][4:]]
        return {"evidence": {"entropy": column, "kl_reverse": row["evidence"]["kl_reverse"]}}

    change(path, edit)
    rollouts = read_rollouts(path)
    values = rollouts[0].evidence["entropy"]
    assert np.isnan(values[[0, 3]]).all()
    assert values[1:3].tolist() == [float("inf"), float("-inf")]
    view = view_step(1, rollouts, [TopEntropy()], None)
    assert "entropy" in view.rules[1].reason
    assert view.quadrants[0][:4] == bytes(4)  # no quadrant without a finite number
    assert set(view.quadrants[0][4:]) <= {1, 2, 3, 4}


def test_an_incomplete_last_line_is_left_out(path):
    text = path.read_text()
    path.write_text(text[:-40])
    assert len(read_rollouts(path)) == 5
    path.write_text(text[:40])
    assert read_rollouts(path) == []
    assert recorded_evidence(path) == frozenset()
    assert view_step(1, [], [TopEntropy()], None).rules[1].reason


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": [1]}, '"weight" has 1 entries for 12 tokens'),
        ({"evidence": {"entropy": [1, 2]}}, '"entropy" has 2 entries for 12 tokens'),
        ({"evidence": {"entropy": ["much"] * 12}}, '"entropy" has an entry that is no number'),
        ({"evidence": {"entropy": [[1]] * 12}}, '"entropy" has an entry that is no number'),
        ({"kind": [2] * 11 + [9]}, '"kind" has an entry that is no kind of token'),
        ({"kind": [2.0] * 12}, '"kind" has an entry that is no kind of token'),
        ({"kind": ["2"] * 12}, '"kind" has an entry that is no kind of token'),
        ({"tokens": None}, 'expected a list "tokens", found NoneType'),
    ],
)
def test_a_line_that_does_not_fit_is_named(path, changes, message):
    change(path, lambda i, row: changes if i == 0 else {})
    with pytest.raises(UserError, match=f"step-1.jsonl:1: {message}"):
        read_rollouts(path)


def test_tokens_of_others_are_not_counted(path):
    kinds = [int(TokenKind.RESPONSE)] * 8 + [int(TokenKind.TOOL)] * 3 + [int(TokenKind.SOFT)]
    change(path, lambda i, row: {"kind": kinds, "weight": [1] * 8 + [0] * 4} if i == 0 else {})
    rollouts = read_rollouts(path)
    assert rollouts[0].num_response_tokens == 9
    assert view_step(1, rollouts, [], None).quadrants[0][8:11] == bytes(3)
