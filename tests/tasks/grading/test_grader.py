"""The verifier as a whole: verdicts, hostile answers among ordinary ones, threads, gold answers."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest

from reasontrain.tasks.grading import Grader, GradeRequest, Verdict, check_gold
from reasontrain.types import Problem, UserError
from tests.tasks.grading.corpus import BENCHMARKS, needs_benchmarks, read_lines
from tests.tasks.grading.hostile import SLOW, mixed, ordinary, processes_with


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1, limit_s=20.0) as grader:
        yield grader


def test_verdicts_say_how_they_came_about(grader: Grader) -> None:
    assert grader.grade("3", r"\boxed{3.0}") == Verdict(True, "3.0", "exact")
    assert grader.grade("x+1", r"\boxed{1+x}") == Verdict(True, "1+x", "symbolic")
    assert grader.grade("3", "<think> hm") == Verdict(False, "", "unfinished")
    assert grader.grade("3", "3", unfinished=True) == Verdict(False, "", "unfinished")
    assert grader.grade("3", r"\boxed{3", truncated=True) == Verdict(False, "", "no answer")
    assert grader.grade("3", "") == Verdict(False, "", "no answer")
    assert grader.grade("", r"\boxed{3}") == Verdict(False, "", "no gold")
    assert grader.grade("$", r"\boxed{3}") == Verdict(False, "", "gold unreadable")
    assert grader.grade(r"\frac{1}{2", r"\boxed{3}") == Verdict(False, "", "gold unreadable")
    assert grader.grade("3", r"\boxed{9^{9^9}}") == Verdict(False, "9^{9^9}", "too large")


@pytest.mark.parametrize(
    "gold",
    [
        "$$42$$",
        r"\boxed{42}",
        r"$\boxed{42}$",
        r"Adding the two numbers that we found in the first step gives us \boxed{42}.",
        "42",
    ],
)
def test_gold_cells_as_suites_write_them(grader: Grader, gold: str) -> None:
    assert grader.grade(gold, "The answer is 42.").correct
    assert not grader.grade(gold, "The answer is 43.").correct


@pytest.mark.parametrize(
    "gold",
    [
        "odd $n$",
        "1 : 2",
        "(4:1)",
        r"5 \text{ or more}",
        "no such text: x",
        r"\cancel{12}",
        "12, 13 or 14",
    ],
)
def test_identical_strings_are_equal(grader: Grader, gold: str) -> None:
    assert grader.grade(gold, gold).correct
    assert grader.grade(gold, rf"\boxed{{{gold}}}").correct


@pytest.mark.parametrize(
    ("cell", "answer", "other"),
    [
        ("['5']", "5", "6"),
        (r'["\\frac{1}{2}"]', r"\frac{1}{2}", r"\frac{1}{3}"),
        ("#### 7", "7", "8"),
        ("2+3=<<2+3=5>>5\n#### 5", "5", "3"),
        ("10 * 170 = <<10*170=1700>>1,700\n#### 1,700", "1700", "700"),
    ],
)
def test_gold_cells_of_data_sets(grader: Grader, cell: str, answer: str, other: str) -> None:
    assert grader.grade(cell, rf"\boxed{{{answer}}}").correct
    assert not grader.grade(cell, rf"\boxed{{{other}}}").correct


def test_verdicts_explain_themselves(grader: Grader) -> None:
    verdict = grader.grade(r"so it is \boxed{x = \pm 2}", r"\boxed{-2, 2}")
    assert (verdict.correct, verdict.gold) == (True, r"x = \pm 2")
    assert verdict.rule.startswith("sets, in any order")
    assert grader.grade("3", r"\boxed{4}").rule == "numbers"


@pytest.mark.parametrize(
    ("one", "other"),
    [("5", "5 cm"), ("x = 5", "5"), ("5", "m + n = 5"), ("x = 2+3 = 5", "5"), ("a^2+b = 0", "0")],
)
def test_equivalence_is_symmetric(grader: Grader, one: str, other: str) -> None:
    assert grader.same(one, other) == grader.same(other, one)


def test_no_worker_starts_while_exact_equality_decides() -> None:
    before = children()
    with Grader(num_workers=2) as grader:
        assert [
            verdict.correct
            for verdict in grader.grade_many(
                [GradeRequest("1/2", "0.5"), GradeRequest("2", "3"), GradeRequest("east", "west")]
            )
        ] == [
            True,
            False,
            False,
        ]
        assert children() == before


LIMIT_S, MEMORY = 1.0, 1 << 30
AT_REST_S = 0.05
"""Computing that a hostile answer may cost beside its limit: a text of megabytes is looked through.
"""


def in_one_call(grader: Grader, requests: list[GradeRequest]) -> list[Verdict]:
    return grader.grade_many(requests, answer_format="any")


def from_threads(grader: Grader, requests: list[GradeRequest]) -> list[Verdict]:
    with ThreadPoolExecutor(8) as threads:
        return list(
            threads.map(lambda request: grader.grade(*request, answer_format="any"), requests)
        )


@pytest.mark.parametrize("graded", [in_one_call, from_threads])
def test_hostile_answers_among_ordinary_ones(
    graded: Callable[[Grader, list[GradeRequest]], list[Verdict]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Every ordinary verdict is right; time is that of the ordinary ones and the limits; nothing is
    left behind or run.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRADED_HERE", mark := uuid4().hex)
    spent, verdicts = {}, {}
    for name, answers in (("ordinary", ordinary()), ("mixed", mixed())):
        start, peak_kib = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with Grader(num_workers=2, limit_s=LIMIT_S, memory_bytes=MEMORY) as grader:
            verdicts[name] = graded(grader, [GradeRequest(gold, text) for gold, text, _ in answers])
            workers = processes_with(mark)
            spent[name] = time.process_time() - start + sum(map(cpu_s, workers))
            assert 2 <= len(workers) <= 4
            assert sum(map(peak_bytes, workers)) < MEMORY
        assert processes_with(mark) == []
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib < 200_000
        assert [verdict.correct for verdict in verdicts[name]] == [right for _, _, right in answers]
    known = set(ordinary())
    reason_of = {
        text: verdict.reason
        for (gold, text, right), verdict in zip(mixed(), verdicts["mixed"], strict=True)
        if (gold, text, right) not in known
    }
    assert len(reason_of) == 200
    assert {text: reason_of[text] for text in SLOW} == dict.fromkeys(SLOW, "timeout")
    reasons = Counter(reason_of.values())
    assert not {"memory", "crash"} & reasons.keys()
    asked = reasons["timeout"] + reasons["symbolic"]
    assert (
        spent["mixed"]
        < spent["ordinary"] + asked * LIMIT_S / 4 + reasons["timeout"] * LIMIT_S + 200 * AT_REST_S
    )
    assert list(tmp_path.iterdir()) == []  # no answer was run as code


def test_a_verdict_of_the_machines_making_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with Grader(num_workers=1) as grader:
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", "/bin/false")
            assert grader.grade("x+1", r"\boxed{1+x}") == Verdict(False, "1+x", "crash")
        assert grader.grade("x+1", r"\boxed{1+x}") == Verdict(True, "1+x", "symbolic")


def test_equal_answers_to_a_gold_are_decided_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decided: list[str] = []
    monkeypatch.setattr(
        Grader,
        "_equal",
        lambda self, gold, answer, nouns: (decided.append(answer), (True, "exact", ""))[1],
    )
    with Grader(num_workers=1) as grader:
        found = [
            grader.grade("7", text)
            for text in ("so it is \\boxed{7.0}", "#### 7.0", "The answer is 7.0.", "#### 8.0")
        ]
    assert decided == ["7.0", "8.0"]
    assert found[0] is found[2]


def test_threads_share_a_grader_and_see_the_same_verdicts() -> None:
    pairs = [(f"{i}y+2", rf"\boxed{{2+{i + i % 3}y}}") for i in range(2, 30)]
    with Grader(num_workers=2, limit_s=20.0) as grader, ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda pair: grader.grade(*pair).correct, pairs))
    assert found == [i % 3 == 0 for i in range(2, 30)]


def test_a_thread_that_ends_does_not_take_its_worker_with_it() -> None:
    with Grader(num_workers=1, limit_s=20.0) as grader:
        thread = threading.Thread(target=grader.grade, args=("x+1", "1+x"))
        thread.start()
        thread.join()
        workers = children()
        assert grader.grade("x+2", "2+x").correct
        assert children() == workers


def test_many_are_graded_in_order_and_equal_ones_once(grader: Grader) -> None:
    requests = [GradeRequest("1", "1"), GradeRequest("1", "2"), GradeRequest("1", "1")]
    verdicts = grader.grade_many(iter(requests))
    assert [verdict.correct for verdict in verdicts] == [True, False, True]
    assert verdicts[0] is verdicts[2]


def test_check_gold_names_the_rows(grader: Grader) -> None:
    problems = [
        Problem(id="a/1", prompt="?", answer="5"),
        Problem(id="a/2", prompt="?", answer=r"\frac{1}{2"),
    ]
    check_gold(problems[:1], grader)
    with pytest.raises(
        UserError, match=r"1 of 2 gold answers .* a/2: '\\\\frac\{1\}\{2' \(gold unreadable\)"
    ):
        check_gold(problems, grader)


def test_check_gold_asks_for_answers_only_where_they_are_required(grader: Grader) -> None:
    problems = [
        Problem(id="a/1", prompt="?", answer="5"),
        Problem(id="a/2", prompt="?"),
        Problem(id="a/3", prompt="?", answer=" "),
    ]
    check_gold(problems, grader, required=False)
    with pytest.raises(
        UserError, match=r"^problem a/2 has no gold answer, .* \(2 of 3 problems have none\)"
    ):
        check_gold(problems, grader, required=True)
    broken = [*problems, Problem(id="a/4", prompt="?", answer=r"\frac{1}{2")]
    with pytest.raises(UserError, match=r"1 of 2 gold answers .* a/4"):
        check_gold(broken, grader, required=False)


@pytest.mark.parametrize("gold", ["", " \n"])
def test_nothing_is_right_where_there_is_no_gold(gold: str) -> None:
    before = children()
    with Grader(num_workers=1) as grader:
        assert [grader.grade(gold, text) for text in ("", r"\boxed{}", r"\boxed{x+1}")] == [
            Verdict(False, "", "no gold")
        ] * 3
        assert children() == before


@needs_benchmarks
@pytest.mark.parametrize(
    "suite",
    ["gsm8k_test", "math500", "aime24", "aime25", "aime26", "amc23", "olympiadbench", "minerva"],
)
def test_every_gold_passes_its_own_verifier(grader: Grader, suite: str) -> None:
    rows = read_lines(BENCHMARKS / f"{suite}.jsonl")
    check_gold(
        [Problem(id=row["id"], prompt=row["problem"], answer=row["answer"]) for row in rows], grader
    )


@needs_benchmarks
@pytest.mark.parametrize("suite", ["gsm8k_test", "math500", "aime24"])
def test_worked_solutions_earn_their_gold_and_not_their_neighbours(
    grader: Grader, suite: str
) -> None:
    rows = read_lines(BENCHMARKS / f"{suite}.jsonl")[::3]
    assert all(
        verdict.correct
        for verdict in grader.grade_many(
            [GradeRequest(row["answer"], row["solution"]) for row in rows]
        )
    )
    neighbours = [
        (row["answer"], other["answer"])
        for row, other in pairwise(rows)
        if row["answer"] != other["answer"]
    ]
    shifted = [
        GradeRequest(gold, rf"\boxed{{{other}}}")
        for gold, other in neighbours
        if "=" not in gold + other
    ]  # x=5 would be right for 5
    assert not [
        pair
        for pair, verdict in zip(shifted, grader.grade_many(shifted), strict=True)
        if verdict.correct
    ]


def cpu_s(process: int) -> float:
    """Computing of a process and of those that it has seen end."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(process: int) -> int:
    """The most memory that a process has held."""
    (line,) = (
        line
        for line in Path(f"/proc/{process}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    return int(line.split()[1]) << 10


def children() -> set[str]:
    """Process ids of this process's living children."""
    found = subprocess.run(
        ["ps", "-o", "pid=,comm=", "--ppid", str(os.getpid())], capture_output=True, text=True
    ).stdout
    return {
        line.split()[0]
        for line in found.splitlines()
        if line.split()[1] != "ps" and "defunct" not in line
    }
