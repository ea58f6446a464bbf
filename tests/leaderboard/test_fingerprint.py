"""Fingerprints: a report and a recipe state the same settings alike."""

from __future__ import annotations

from reasontrain.leaderboard.fingerprint import fingerprint, first_difference, quoted

SUITE = {
    "name": "s",
    "task": {"path": "a.jsonl"},
    "prompt": None,
    "sampling": {"temperature": 0.0, "max_tokens": 120},
}
RECORD = {"suite": "s", "num_samples": 1, "temperature": 0.0}


def with_sampling(**changes: object) -> dict[str, object]:
    return SUITE | {"sampling": SUITE["sampling"] | changes}


def test_environments_differ_by_what_changes_answers():
    own = {"kind": "python", "path": "a.py", "workers": 8, "timeout_s": 60.0}
    one = fingerprint(RECORD, with_sampling(environment=own))
    others = [{"workers": 2, "timeout_s": 1.0}, {"path": "b.py"}, {"kind": "calculator"}]
    assert [
        first_difference(one, fingerprint(RECORD, with_sampling(environment=own | other)))
        for other in others
    ] == [None, "sampling.environment.path", "sampling.environment"]


def test_a_report_and_a_recipe_state_the_same():
    other_suite = SUITE | {
        "task": {"hub": "x/y"},
        "prompt": {"style": "auto", "system": None, "enable_thinking": None},
    }
    assert (
        first_difference(
            fingerprint(RECORD, SUITE), fingerprint(RECORD | {"temperature": 0}, other_suite)
        )
        is None
    )


def test_each_part_of_a_fingerprint_is_compared():
    differing = {
        "sampling.max_tokens": (RECORD, SUITE | {"sampling": {"max_tokens": 240}}),
        "sampling.environment": (RECORD, with_sampling(environment={"kind": "calculator"})),
        "sampling.thought": (RECORD, with_sampling(thought={"max_tokens": 9})),
        "prompt.system": (RECORD, SUITE | {"prompt": {"system": "Be careful."}}),
        "answer_format": (RECORD, SUITE | {"answer_format": "marked"}),
        "limit": (RECORD, SUITE | {"limit": 10}),
        "temperature": (RECORD | {"temperature": 1.0}, SUITE),
        "samples": (RECORD | {"num_samples": 4}, SUITE),
        "data hash": (RECORD | {"problems_sha256": "b"}, SUITE),
        "suite version": (RECORD | {"version": 2}, SUITE),
    }
    own = fingerprint(
        RECORD | {"problems_sha256": "a", "version": 1},
        with_sampling(environment=None, thought=None) | {"limit": None, "answer_format": "any"},
    )
    assert {
        name: first_difference(own, fingerprint(*other)) for name, other in differing.items()
    } == {name: name for name in differing}


def test_what_only_one_of_two_states_is_no_difference():
    assert (
        first_difference(
            fingerprint(RECORD, {}), fingerprint(RECORD | {"problems_sha256": "b"}, SUITE)
        )
        is None
    )


def test_a_prompt_that_differs_is_named_before_the_hash_of_what_it_makes():
    own = fingerprint(
        RECORD | {"problems_sha256": "a"}, SUITE | {"prompt": {"template": "{problem}"}}
    )
    assert first_difference(
        own,
        fingerprint(
            RECORD | {"problems_sha256": "b"}, SUITE | {"prompt": {"template": "Q: {problem}"}}
        ),
    ) == ("prompt.template")


def test_a_long_text_is_cut():
    assert quoted("x" * 41) == f"'{'x' * 40}...'"
    assert quoted("x" * 40) == f"'{'x' * 40}'"
