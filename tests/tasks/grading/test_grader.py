"""The verifier as a whole: verdicts, hostile answers among ordinary ones, threads, gold answers."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from reasontrain.tasks.grading import Grader, Verdict, check_gold
from reasontrain.types import Problem, UserError

DATA = Path(os.environ.get("REASONTRAIN_DATA", Path(__file__).parents[4] / "shared" / "data"))
BENCHMARKS = DATA / "benchmarks" if (DATA / "benchmarks").is_dir() else DATA
HOSTILE = [
    "9^{9^9}",
    "100000000!",
    "((9!)!)!",
    r"\binom{1000000}{500000}",
    "7" * 1_000_000,
    r"\frac{1}{" * 300 + "2" + "}" * 300,
    "{" * 5000,
    "}" * 5000,
    "\x00\x00",
    "1\x002",
    "__import__('os').abort()",
    "(1).__class__.__mro__[1].__subclasses__()",
    "10**10**10",
    "2^{2^{2^{49}}}",
    "e" * 100_000,
    "\u202e321",
    r"\boxed{" * 20_000,
    r"\begin{pmatrix}" * 500,
    "(" * 3000,
    "1/" * 3000 + "1",
    "1e99999999",
    "-" * 10_000,
    "$" * 50_000,
    r"\prod_{k=1}^{100000} k",
    "(x+1)^{5000}",
    "9" * 5000 + "/" + "9" * 5000,
    "²³" * 1000,
    "<think>" * 9000,
    "a=b=" * 1000,
    r"\pm 1 \pm" * 50,
]
TIMEOUTS = [r"\int_0^{\infty} e^{-x^{x}} dx", r"\sum_{n=1}^{\infty}\frac{\sin(n)}{n^{3/2}}"]


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1, limit_s=20.0) as grader:
        yield grader


def test_verdicts_say_how_they_came_about(grader: Grader) -> None:
    assert grader.grade("3", r"\boxed{3.0}") == Verdict(True, "3.0", "exact")
    assert grader.grade("x+1", r"\boxed{1+x}") == Verdict(True, "1+x", "symbolic")
    assert grader.grade("3", "<think> hm") == Verdict(False, "", "no answer")
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


def test_no_worker_starts_while_exact_equality_decides() -> None:
    before = children()
    with Grader(num_workers=2) as grader:
        assert [verdict.correct for verdict in grader.grade_many([("1/2", "0.5"), ("2", "3"), ("east", "west")])] == [
            True,
            False,
            False,
        ]
        assert children() == before


def test_hostile_answers_leave_ordinary_verdicts_right_and_no_process_behind() -> None:
    before = children()
    ordinary = [(str(i), rf"so \boxed{{{i + i % 2}}}") for i in range(280)] + [
        (f"{i}x+1", rf"\boxed{{1+{i + i % 2}x}}") for i in range(2, 22)
    ]
    hostile = [("3", form) for text in HOSTILE for form in (text, rf"\boxed{{{text}}}")] + [
        ("3", rf"\boxed{{{text}}}") for text in TIMEOUTS
    ]
    mixed: list[tuple[str, str]] = []
    for index, pair in enumerate(ordinary):
        mixed += [pair, hostile[index]] if index < len(hostile) else [pair]
    start = time.monotonic()
    with Grader(num_workers=1, limit_s=3.0) as grader:
        verdicts = dict(zip(mixed, grader.grade_many(mixed), strict=True))
    assert [verdicts[pair].correct for pair in ordinary] == [i % 2 == 0 for i in range(280)] + [i % 2 == 0 for i in range(2, 22)]
    assert not any(verdicts[pair].correct for pair in hostile)
    assert [verdicts[pair].reason for pair in hostile[-2:]] == ["timeout", "timeout"]
    assert children() == before
    assert time.monotonic() - start < 60.0


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
    pairs = [("1", "1"), ("1", "2"), ("1", "1")]
    verdicts = grader.grade_many(iter(pairs))
    assert [verdict.correct for verdict in verdicts] == [True, False, True]
    assert verdicts[0] is verdicts[2]


def test_check_gold_names_the_rows(grader: Grader) -> None:
    problems = [Problem(id="a/1", prompt="?", answer="5"), Problem(id="a/2", prompt="?", answer=r"\frac{1}{2")]
    check_gold(problems[:1], grader)
    with pytest.raises(UserError, match=r"1 of 2 gold answers .* a/2: '\\\\frac\{1\}\{2' \(gold unreadable\)"):
        check_gold(problems, grader)


def test_check_gold_asks_for_answers_only_where_they_are_required(grader: Grader) -> None:
    problems = [
        Problem(id="a/1", prompt="?", answer="5"),
        Problem(id="a/2", prompt="?"),
        Problem(id="a/3", prompt="?", answer=" "),
    ]
    check_gold(problems, grader, required=False)
    with pytest.raises(UserError, match=r"^problem a/2 has no gold answer; .* \(2 of 3 problems have none\)"):
        check_gold(problems, grader, required=True)
    broken = [*problems, Problem(id="a/4", prompt="?", answer=r"\frac{1}{2")]
    with pytest.raises(UserError, match=r"1 of 2 gold answers .* a/4"):
        check_gold(broken, grader, required=False)


@pytest.mark.parametrize("gold", ["", " \n"])
def test_nothing_is_right_where_there_is_no_gold(gold: str) -> None:
    before = children()
    with Grader(num_workers=1) as grader:
        assert [grader.grade(gold, text) for text in ("", r"\boxed{}", r"\boxed{x+1}")] == [Verdict(False, "", "no gold")] * 3
        assert children() == before


@pytest.mark.skipif(not (DATA / "grader_cases.jsonl").is_file(), reason="the data folder is not on this machine")
def test_agreement_on_the_collected_cases(grader: Grader) -> None:
    cases = [case for case in lines(DATA / "grader_cases.jsonl") if "policy" not in case["tags"]]
    verdicts = grader.grade_many([(case["gold"], case["prediction"]) for case in cases])
    agree = [verdict.correct == case["expected"] for verdict, case in zip(verdicts, cases, strict=True)]
    assert sum(agree) / len(cases) > 0.97
    completions = [same for same, case in zip(agree, cases, strict=True) if case["kind"] == "completion"]
    assert sum(completions) / len(completions) > 0.995
    assert not [case["id"] for case, verdict in zip(cases, verdicts, strict=True) if verdict.correct and not case["expected"]]


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the data folder is not on this machine")
@pytest.mark.parametrize("suite", ["gsm8k_test", "math500", "aime24", "aime25", "aime26", "amc23", "olympiadbench", "minerva"])
def test_every_gold_passes_its_own_verifier(grader: Grader, suite: str) -> None:
    rows = lines(BENCHMARKS / f"{suite}.jsonl")
    check_gold([Problem(id=row["id"], prompt=row["problem"], answer=row["answer"]) for row in rows], grader)


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the data folder is not on this machine")
@pytest.mark.parametrize("suite", ["gsm8k_test", "math500", "aime24"])
def test_worked_solutions_earn_their_gold_and_not_their_neighbours(grader: Grader, suite: str) -> None:
    rows = lines(BENCHMARKS / f"{suite}.jsonl")[::3]
    assert all(verdict.correct for verdict in grader.grade_many([(row["answer"], row["solution"]) for row in rows]))
    neighbours = [(row["answer"], other["answer"]) for row, other in pairwise(rows) if row["answer"] != other["answer"]]
    shifted = [(gold, rf"\boxed{{{other}}}") for gold, other in neighbours if "=" not in gold + other]  # x=5 would be right for 5
    assert not [pair for pair, verdict in zip(shifted, grader.grade_many(shifted), strict=True) if verdict.correct]


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def children() -> set[str]:
    """Process ids of this process's living children."""
    found = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(os.getpid())], capture_output=True, text=True).stdout
    return {line.split()[0] for line in found.splitlines() if line.split()[1] != "ps" and "defunct" not in line}
