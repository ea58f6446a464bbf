"""How a suite was asked, whoever says it."""

from __future__ import annotations

from reasontrain.leaderboard.protocol import protocol, unlike

ASKED = {"name": "s", "task": {"path": "a.jsonl"}, "prompt": None, "sampling": {"temperature": 0.0, "max_tokens": 120}}
RECORD = {"suite": "s", "num_samples": 1, "temperature": 0.0}


def test_a_report_and_a_recipe_state_the_same():
    theirs = ASKED | {"task": {"hub": "x/y"}, "prompt": {"style": "auto", "system": None, "enable_thinking": None}}
    assert unlike(protocol(RECORD, ASKED), protocol(RECORD | {"temperature": 0}, theirs)) is None


def test_each_part_of_a_protocol_is_compared():
    differing = {
        "sampling.max_tokens": (RECORD, ASKED | {"sampling": {"max_tokens": 240}}),
        "prompt.system": (RECORD, ASKED | {"prompt": {"system": "Be careful."}}),
        "limit": (RECORD, ASKED | {"limit": 10}),
        "temperature": (RECORD | {"temperature": 1.0}, ASKED),
        "samples": (RECORD | {"num_samples": 4}, ASKED),
        "data hash": (RECORD | {"data_hash": "b"}, ASKED),
        "suite version": (RECORD | {"suite_version": 2}, ASKED),
    }
    ours = protocol(RECORD | {"data_hash": "a", "suite_version": 1}, ASKED | {"limit": None})
    assert {name: unlike(ours, protocol(*other)) for name, other in differing.items()} == {name: name for name in differing}


def test_a_version_that_the_suite_alone_states_is_the_suite_version():
    ours, theirs = protocol(RECORD, ASKED | {"version": 1}), protocol(RECORD | {"suite_version": 2}, ASKED | {"version": 1})
    assert ours["suite version"] == "1"
    assert unlike(ours, theirs) == "suite version"
    assert "version" not in theirs


def test_what_only_one_of_two_states_is_no_difference():
    assert unlike(protocol(RECORD, {}), protocol(RECORD | {"data_hash": "b"}, ASKED)) is None
