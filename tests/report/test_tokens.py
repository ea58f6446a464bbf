"""Rollouts as the page shows them."""

from __future__ import annotations

import json

import pytest

from reasontrain.report.tokens import MAX_TOKENS, Token, show_tokens
from reasontrain.types import UserError


def row(**changes: object) -> dict[str, object]:
    """Prompt, forced, two of its own (one kept), padding."""
    return {
        "rollout": 7,
        "problem": "p",
        "prompt": "1+1?",
        "answer": "2",
        "reward": 1.0,
        "tokens": ["Q", "F", "x", "\n", "pad"],
        "kind": [1, 3, 2, 2, 0],
        "weight": [0, 0, 0.5, 0, 0],
        "evidence": {"entropy": [0, 0, 0.75, "nan", 0], "kl_reverse": [0, 0, 0.01, 2.0, 0]},
        **changes,
    }


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_tokens_colours_and_numbers(tmp_path):
    page = show_tokens(3, write(tmp_path / "step-3.jsonl", [row()]), 4)
    assert page is not None
    assert page.rollouts[0].tokens == (
        Token("F", "cf", "not chosen by the policy"),
        Token("x", "c30 k", "entropy 0.75 · kl_reverse 0.01 · weight 0.5 · kept"),
        Token("⏎\n", "cx", "entropy NaN · kl_reverse 2 · weight 0"),
    )
    assert page.rollouts[0].kept == "1 of 2 tokens kept (50\u202f%)"
    assert (page.entropy, page.divergence) == (True, "kl_reverse")


def test_tokens_of_a_tool_are_shown_apart_and_are_not_counted(tmp_path):
    tool = row(kind=[1, 4, 2, 2, 0])
    page = show_tokens(3, write(tmp_path / "step-3.jsonl", [tool]), 4)
    assert page is not None
    assert page.rollouts[0].tokens[0] == Token("F", "ct", "written by the environment or a tool")
    assert page.rollouts[0].kept == "1 of 2 tokens kept (50\u202f%)"


def test_what_nothing_judged_has_no_reward(tmp_path):
    """Demonstrations are recorded with the reward 0 of their rollouts; so are dropped failures."""
    rows = [
        row(rollout=0, reward=0.0, correct=None),
        row(rollout=1, reward=0.0, correct=False),
        row(rollout=2, reward=None, correct=False),
    ]
    page = show_tokens(3, write(tmp_path / "step-3.jsonl", rows), 4)
    assert page is not None
    assert {r.id: r.reward for r in page.rollouts} == {"0": None, "1": 0.0, "2": None}


def test_masked_tokens_are_the_policys_and_left_out(tmp_path):
    page = show_tokens(3, write(tmp_path / "s.jsonl", [row(kind=[1, 6, 2, 2, 0])]), 4)
    assert page is not None
    assert page.rollouts[0].tokens[0] == Token("F", "cf", "left out of training")


def test_without_a_teacher_there_is_no_divergence(tmp_path):
    page = show_tokens(
        3, write(tmp_path / "s.jsonl", [row(evidence={"entropy": [0, 0, 1.5, 0, 0]})]), 4
    )
    assert page is not None
    assert page.divergence is None
    assert page.rollouts[0].tokens[1] == Token("x", "c40 k", "entropy 1.5 · weight 0.5 · kept")


def test_a_soft_step_is_shown_by_its_shadow_and_says_so(tmp_path):
    page = show_tokens(3, write(tmp_path / "s.jsonl", [row(kind=[1, 3, 5, 2, 0], evidence={})]), 4)
    assert page is not None
    assert page.rollouts[0].tokens[1].text == "x"
    assert (
        page.rollouts[0].tokens[1].numbers == "most likely token of a soft step · weight 0.5 · kept"
    )
    assert page.rollouts[0].kept == "1 of 2 tokens kept (50\u202f%)"


def test_good_and_bad_rollouts_in_turn(tmp_path):
    rewards = [0.0, 0.0, 0.0, 1.0, 1.0]
    page = show_tokens(
        1, write(tmp_path / "s.jsonl", [row(rollout=i, reward=r) for i, r in enumerate(rewards)]), 4
    )
    assert page is not None
    assert [r.id for r in page.rollouts] == ["3", "0", "4", "1"]


def test_long_rollouts_are_cut_and_say_so(tmp_path):
    num = MAX_TOKENS + 5
    long = row(tokens=["a"] * num, kind=[2] * num, weight=[1] * num, evidence={})
    page = show_tokens(1, write(tmp_path / "s.jsonl", [long]), 1)
    assert page is not None
    assert (len(page.rollouts[0].tokens), page.rollouts[0].cut) == (MAX_TOKENS, 5)


def test_an_empty_file_shows_nothing(tmp_path):
    assert show_tokens(1, write(tmp_path / "s.jsonl", []), 4) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": [1]}, '"weight" has 1 entries for 5 tokens'),
        ({"evidence": {"entropy": [1, 2]}}, '"entropy" has 2 entries for 5 tokens'),
        ({"tokens": None}, 'expected a list "tokens", found NoneType'),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path, changes, message):
    with pytest.raises(UserError, match=f"s.jsonl:1: {message}"):
        show_tokens(1, write(tmp_path / "s.jsonl", [row(**changes)]), 4)
