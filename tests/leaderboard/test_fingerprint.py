"""How a suite was asked, whoever says it."""

from __future__ import annotations

from reasontrain.leaderboard.fingerprint import protocol, quoted, unlike

ASKED = {
    "name": "s",
    "task": {"path": "a.jsonl"},
    "prompt": None,
    "sampling": {"temperature": 0.0, "max_tokens": 120},
}
RECORD = {"suite": "s", "num_samples": 1, "temperature": 0.0}


def test_a_report_and_a_recipe_state_the_same():
    theirs = ASKED | {
        "task": {"hub": "x/y"},
        "prompt": {"style": "auto", "system": None, "enable_thinking": None},
    }
    assert unlike(protocol(RECORD, ASKED), protocol(RECORD | {"temperature": 0}, theirs)) is None


def test_each_part_of_a_protocol_is_compared():
    differing = {
        "sampling.max_tokens": (RECORD, ASKED | {"sampling": {"max_tokens": 240}}),
        "prompt.system": (RECORD, ASKED | {"prompt": {"system": "Be careful."}}),
        "last_number": (RECORD, ASKED | {"last_number": False}),
        "limit": (RECORD, ASKED | {"limit": 10}),
        "temperature": (RECORD | {"temperature": 1.0}, ASKED),
        "samples": (RECORD | {"num_samples": 4}, ASKED),
        "data hash": (RECORD | {"problems_sha256": "b"}, ASKED),
        "suite version": (RECORD | {"version": 2}, ASKED),
    }
    ours = protocol(
        RECORD | {"problems_sha256": "a", "version": 1},
        ASKED | {"limit": None, "last_number": True},
    )
    assert {name: unlike(ours, protocol(*other)) for name, other in differing.items()} == {
        name: name for name in differing
    }


def test_what_only_one_of_two_states_is_no_difference():
    assert unlike(protocol(RECORD, {}), protocol(RECORD | {"problems_sha256": "b"}, ASKED)) is None


def test_a_prompt_that_differs_is_named_before_the_hash_of_what_it_makes():
    ours = protocol(
        RECORD | {"problems_sha256": "a"}, ASKED | {"prompt": {"template": "{problem}"}}
    )
    assert unlike(
        ours,
        protocol(
            RECORD | {"problems_sha256": "b"}, ASKED | {"prompt": {"template": "Q: {problem}"}}
        ),
    ) == ("prompt.template")


def test_a_long_text_is_cut():
    assert quoted("x" * 41) == f"'{'x' * 40}...'"
    assert quoted("x" * 40) == f"'{'x' * 40}'"
