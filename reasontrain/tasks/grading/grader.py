"""The one verifier, for reward and for score: extraction, then exact equality, then algebra in a
process that can be killed.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from reasontrain.tasks.grading import exact, extract, limits
from reasontrain.tasks.grading.normalise import normalise, squeezed
from reasontrain.tasks.grading.symbolic import Pool
from reasontrain.tasks.grading.verdict import Verdict
from reasontrain.types import Problem, UserError

MAX_PAIRS = 256
"""Leaf comparisons that one answer may ask of algebra."""
GOLD_WORDS = 12
"""A gold cell of more words than this is a text with an answer in it, not an answer."""
CACHE_SIZE = 50_000
"""Verdicts that are kept, by gold cell and extracted answer: responses differ where answers do not.
"""


class Grader:
    """Grades answers against gold answers; a context manager that ends its worker processes.

    May be used from any thread.

    `limit_s` is the most that algebra may compute for one answer (processor time, so that a busy
    machine turns no slow answer into a wrong one), `memory_bytes` what one worker process may hold
    (address space). Workers start when the first answer needs them. Asked with `last_number`, it
    takes the last formula or number of a response that marks no answer.
    """

    def __init__(
        self, *, num_workers: int | None = None, limit_s: float = 5.0, memory_bytes: int = 2 << 30
    ) -> None:
        self._num_workers = num_workers or num_cores()
        self._limit_s = limit_s
        self._pool = Pool(num_workers=self._num_workers, memory_bytes=memory_bytes)
        self._cache: dict[tuple[str, str], Verdict] = {}
        self._lock = threading.Lock()

    def grade(self, gold: str, prediction: str, *, last_number: bool = True) -> Verdict:
        """The verdict on one response.

        Never raises for what a model wrote, nor where a worker fails: that is "crash".
        """
        if not gold.strip():
            return Verdict(False, "", "no gold")
        extracted = extract.extract(prediction, last_number=last_number)
        if len(extracted) > limits.MAX_EXACT_LENGTH:
            return Verdict(False, extracted[:200], "too large")
        key = (gold, extracted)
        with self._lock:
            known = self._cache.get(key)
        if known is None:
            known = self._grade(gold, extracted)
            if known.reason != "crash":  # of the machine's making, not the answer's
                with self._lock:
                    self._cache[key] = known
                    if len(self._cache) > CACHE_SIZE:
                        self._cache.pop(next(iter(self._cache)))
        return known

    def grade_many(
        self, pairs: Iterable[tuple[str, str]], *, last_number: bool = True
    ) -> list[Verdict]:
        """The verdicts on (gold, prediction) pairs, in order; equal pairs are graded once, and
        algebra runs on every worker.
        """
        pairs = list(pairs)
        with ThreadPoolExecutor(self._num_workers) as threads:
            unique = list(dict.fromkeys(pairs))
            found = threads.map(lambda pair: self.grade(*pair, last_number=last_number), unique)
            verdicts = dict(zip(unique, found, strict=True))
        return [verdicts[pair] for pair in pairs]

    def close(self) -> None:
        """End the worker processes; the grader may be used again afterwards."""
        self._pool.close()

    def __enter__(self) -> Grader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _grade(self, gold: str, extracted: str) -> Verdict:
        wanted = normalise(read_gold(gold))
        if not wanted:
            return Verdict(False, "", "gold unreadable")
        if not extracted:
            return Verdict(False, "", "no answer")
        answer = normalise(extracted)
        if squeezed(answer) == squeezed(normalise(gold)):
            return Verdict(True, extracted, "exact")
        correct, reason = self._equal(wanted, answer)
        return Verdict(correct, extracted, reason)

    def _equal(self, gold: str, answer: str) -> tuple[bool, str]:
        known: dict[tuple[str, str], bool] = {}
        left_s = self._limit_s
        while True:
            same, pairs = exact.compare(gold, answer, known)
            if not pairs:
                return same, "symbolic" if known else "exact"
            if len(pairs) > MAX_PAIRS or any(
                limits.too_large(side) for pair in pairs for side in pair
            ):
                return False, "too large"
            reply = self._pool.equal(pairs, max(left_s, 0.1))
            if isinstance(reply, str):
                return False, reply
            left_s -= reply.spent_s
            known.update(zip(pairs, reply.equal, strict=True))


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def read_gold(gold: str) -> str:
    """The answer in a gold cell: whole, unless it is a text with a box or formula; "" where its
    braces do not balance.
    """
    if not limits.balanced(gold):
        return ""
    boxed = extract.last_boxed(gold)
    is_text = len(gold.split()) > GOLD_WORDS
    return boxed or (extract.extract(gold) if is_text else "") or gold


def check_gold(problems: Sequence[Problem], grader: Grader, *, required: bool = False) -> None:
    """Every gold answer must pass its own verifier, put in a box as a model would; raises UserError
    naming ids and answers.

    A problem without one is passed over, or refused where answers are `required`: where responses
    will be graded.
    """
    golden = [problem for problem in problems if problem.answer.strip()]
    if required and len(golden) < len(problems):
        first = next(problem for problem in problems if not problem.answer.strip())
        raise UserError(
            f"problem {first.id} has no gold answer; responses are graded here "
            f"({len(problems) - len(golden)} of {len(problems)} "
            f"problems have none), so add it or name its column under `columns`"
        )
    verdicts = grader.grade_many(
        [(problem.answer, f"\\boxed{{{problem.answer}}}") for problem in golden]
    )
    failed = [
        (problem, verdict)
        for problem, verdict in zip(golden, verdicts, strict=True)
        if not verdict.correct
    ]
    if failed:
        shown = "; ".join(
            f"{problem.id}: {problem.answer[:80]!r} ({verdict.reason})"
            for problem, verdict in failed[:5]
        )
        more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
        raise UserError(
            f"{len(failed)} of {len(golden)} gold answers do not pass their own verifier: "
            f"{shown}{more}; mend or drop them"
        )
