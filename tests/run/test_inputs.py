"""What of a run's inputs changed: each role by its parts, without what another change explains."""

from __future__ import annotations

import pytest

from reasontrain.run.inputs import ENCODED, Inputs, _changes

RECORDED: Inputs = {
    "data": {"rows.jsonl": "1", ENCODED: "2"},
    "reward": {"score.py": "3"},
    "tokenizer": {"model": "4"},
    "template": {"model": "5"},
    "suites": {"aime": "6", "gone": "7"},
}


@pytest.mark.parametrize(
    ("now", "changes"),
    [
        ({}, {}),
        ({"data": {"rows.jsonl": "x", ENCODED: "x"}}, {"data": ["rows.jsonl"]}),
        ({"data": {"rows.jsonl": "1", ENCODED: "x"}}, {"data": [ENCODED]}),
        ({"data": {"moved.jsonl": "1", ENCODED: "2"}}, {"data": ["moved.jsonl", "rows.jsonl"]}),
        ({"reward": {"score.py": "3", "new.py": "8"}}, {"reward": ["new.py"]}),
        ({"reward": {}}, {"reward": ["score.py"]}),
        # The ids differ because of the tokenizer or the template, which is named alone.
        (
            {"tokenizer": {"model": "x"}, "data": {"rows.jsonl": "1", ENCODED: "x"}},
            {"tokenizer": ["model"]},
        ),
        (
            {"template": {"model": "x"}, "data": {"rows.jsonl": "1", ENCODED: "x"}},
            {"template": ["model"]},
        ),
        (
            {"template": {"model": "x"}, "data": {"rows.jsonl": "x", ENCODED: "x"}},
            {"template": ["model"], "data": ["rows.jsonl"]},
        ),
        # Suites come and go; one that is in both must be the same.
        ({"suites": {"aime": "6", "new": "9"}}, {}),
        ({"suites": {"aime": "x"}}, {"suites": ["aime"]}),
        ({"history": {"earlier": "9"}}, {"history": ["earlier"]}),
    ],
)
def test_changed_parts_are_named_by_role(now: Inputs, changes: dict[str, list[str]]) -> None:
    assert _changes(RECORDED, {**RECORDED, **now}) == changes
