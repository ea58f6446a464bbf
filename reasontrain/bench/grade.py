"""The verifier on one core and on all cores, compared with math-verify in one process.

Answers need algebra; the unit is answers per second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count

from math_verify import parse, verify

from reasontrain.bench.case import BenchCase, BenchMachine, Contestant, Goal, Numbers, Variant, Work
from reasontrain.tasks import Grader, GradeRequest
from reasontrain.tasks.grading.grader import num_cores

PAIRS = (
    (r"\frac{x+N}{2}", r"\frac{x}{2} + \frac{N}{2}"),
    (r"\sqrt{4x+N}", r"2\sqrt{x+\frac{N}{4}}"),
    (r"x^2 - N^2", r"(x-N)(x+N)"),
    (r"\frac{N}{\sqrt{2}}", r"\frac{N\sqrt{2}}{2}"),
    (r"N\pi r^2", r"N\pi r^3"),
    (r"N + \sin x", r"N + \cos x"),
    (r"2^{x+N}", r"2^x \cdot 2^N"),
    (r"\frac{1}{x} + \frac{N}{y}", r"\frac{y+Nx}{xy}"),
)
"""(gold, answer) pairs that only algebra can decide.

Six are equal and two are not, for any number N above one.
"""


def rows(machine: BenchMachine) -> Sequence[BenchCase]:
    """The cases: one worker, and one worker per core."""
    num_answers = 80 if machine.quick else 400
    return [
        _row("one_worker", num_answers, 1, at_most=1.0),
        _row("all_cores", num_answers, num_cores(), at_most=0.6),
    ]


def _row(name: str, num_answers: int, num_workers: int, at_most: float) -> BenchCase:
    return BenchCase(
        name=name,
        description="answers that only algebra decides, none of them seen before",
        work={"answers": num_answers, "workers": num_workers},
        units=("answers", float(num_answers)),
        subject=Contestant(
            name="reasontrain",
            variants=(Variant(settings={}, setup=partial(grader_work, num_answers, num_workers)),),
        ),
        peer=Contestant(
            name="math-verify in one process",
            variants=(Variant(settings={}, setup=partial(math_verify_work, num_answers)),),
        ),
        tolerance=0.0,
        goals=(Goal(of="time", at_most=at_most),),
        remark="The grader also limits time and memory, by processes that can be killed; "
        "math-verify alone does not.",
        memory=False,
    )


def answers(first: int, num_answers: int) -> list[GradeRequest]:
    """Distinct (gold, boxed answer) pairs.

    They differ between values of `first`, so that no verdict comes from a cache.
    """
    turns = ((PAIRS[i % len(PAIRS)], str(first + i // len(PAIRS) + 2)) for i in range(num_answers))
    return [
        GradeRequest(gold.replace("N", n), rf"\boxed{{{answer.replace('N', n)}}}")
        for (gold, answer), n in turns
    ]


@contextmanager
def grader_work(num_answers: int, num_workers: int) -> Iterator[Work]:
    """Grading by workers that are already running, with new answers in every run."""
    runs = count()
    with Grader(num_workers=num_workers) as grader:

        def work() -> Numbers:
            verdicts = grader.grade_many(answers(next(runs) * num_answers, num_answers))
            return {"right": float(sum(verdict.correct for verdict in verdicts))}

        grader.grade_many(answers(10**6, len(PAIRS) * num_workers))
        yield work


@contextmanager
def math_verify_work(num_answers: int) -> Iterator[Work]:
    """Grading as in the README of math-verify, with its own time limits."""
    runs = count()

    def work() -> Numbers:
        requests = answers(next(runs) * num_answers, num_answers)
        return {"right": float(sum(verify(parse(f"${r.gold}$"), parse(r.text)) for r in requests))}

    yield work
