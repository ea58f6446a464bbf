"""What may stand in a column, and how far its rows lie apart."""

from __future__ import annotations

import json
import shutil

import pytest

from reasontrain.leaderboard.columns import columns
from reasontrain.leaderboard.entries import read_entries
from reasontrain.types import UserError
from tests.leaderboard.conftest import SAMPLING, single, write_answers


def found(*paths, apart=False):
    return columns(read_entries(paths), apart=apart)


def test_differences_are_paired_over_problems(make_run):
    """b is right wherever a is and on 6 of 20 more: b - a = 0.3 with every draw at or above 0; c is
    a with two swapped.
    """
    a = single("1" * 8 + "0" * 12)
    b = single("1" * 14 + "0" * 6)
    c = single("1" * 7 + "01" + "0" * 11)
    (column,) = found(
        *(make_run(name, {10: rows}) for name, rows in zip("abc", (a, b, c), strict=True))
    )
    assert column.differences["b", "a"].value == pytest.approx(0.3)
    assert column.differences["b", "a"].low == pytest.approx(
        0.1
    )  # at least 2 of 20 drawn problems, in 97.5 % of draws
    assert column.differences["a", "b"].high == -column.differences["b", "a"].low
    assert column.differences["a", "c"].value == 0
    assert column.order == ("b", "a", "c")
    assert column.level == ("b",)
    assert column.behind == ("a", "c")


def test_a_difference_of_pass_at_k_counts_problems_not_samples(make_report):
    """pass@2 of two samples is 1 where one of them is right: 2 of 2 against 1 of 2."""
    one, other = [[True, False], [False, True]], [[True, True], [False, False]]
    accuracy, passed = found(make_report("one", {"s": one}), make_report("other", {"s": other}))
    assert (accuracy.metric, passed.metric) == ("accuracy", "pass@2")
    assert accuracy.differences["one", "other"].value == 0
    assert passed.differences["one", "other"].value == 0.5


def test_a_problem_that_did_not_fit_counts_as_wrong(make_run):
    full, cut = make_run("full", {1: single("1110")}), make_run("cut", {1: single("1110")})
    write_answers(cut / "answers/heldout-step-1.jsonl", single("11"))  # the other two were dropped
    (column,) = found(full, cut)
    assert column.differences["full", "cut"].value == pytest.approx(0.25)


def test_rows_without_answers_are_neither_level_nor_behind(make_run):
    a, b = make_run("a", {1: single("1111")}), make_run("b", {1: single("0000")})
    shutil.rmtree(b / "answers")
    (column,) = found(a, b)
    assert column.differences == {}
    assert column.level == ("a",)
    assert column.behind == ()


def test_unlike_fingerprints_are_refused_with_the_difference_named(make_run):
    a, b = (
        make_run("a", {1: single("10")}),
        make_run("b", {1: single("10")}, sampling=SAMPLING | {"max_tokens": 240}),
    )
    with pytest.raises(UserError) as error:
        found(a, b)
    assert str(error.value).startswith(
        "suite heldout cannot be one column: sampling.max_tokens is '120' for a and '240' "
        "for b. Evaluate both with the same "
        "settings"
    )
    assert [column.group.name for column in found(a, b, apart=True)] == [
        "heldout (1)",
        "heldout (2)",
    ]


@pytest.mark.parametrize(
    ("rows", "edit", "fault"),
    [
        ("100", None, "a has 2 problems and b 3"),
        (
            "10",
            {"gold": "5"},
            "a and b have different problems (the gold answer of p0 is '0' and '5')",
        ),
        ("10", {"problem": "q"}, "a and b have different problems (only one has p0)"),
    ],
)
def test_other_problems_are_refused(make_run, rows, edit, fault):
    a, b = make_run("a", {1: single("10")}), make_run("b", {1: single(rows)})
    path = b / "answers/heldout-step-1.jsonl"
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | (edit or {})), *others]) + "\n")
    with pytest.raises(UserError) as error:
        found(a, b)
    assert fault in str(error.value)
