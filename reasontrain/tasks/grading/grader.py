"""The verifier of rewards and evaluations: extraction, exact equality, then algebra.

Algebra runs in processes that can be killed, because model output can make SymPy run forever.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from types import TracebackType
from typing import NamedTuple

from reasontrain.tasks.grading import exact, extract, limits, words
from reasontrain.tasks.grading.extract import AnswerFormat
from reasontrain.tasks.grading.gold_mark import marked_gold
from reasontrain.tasks.grading.normalise import normalise, squeezed
from reasontrain.tasks.grading.symbolic import Pool
from reasontrain.tasks.grading.verdict import UNFINISHED, Verdict
from reasontrain.tasks.own_reward import Call, Outcome, RewardFile, RewardPool
from reasontrain.types import Problem, UserError, printable

GOLD_CACHE_SIZE = 16_384
MAX_PAIRS = 256
"""The most leaf comparisons that algebra does for one answer."""
GOLD_WORDS = 12
"""A gold cell of more words than this is a text that contains the answer."""
CACHE_SIZE = 50_000
"""The number of cached verdicts, which many responses share."""
_SINGLE_TEXT = re.compile(r"\s*\[\s*(['\"])((?:(?!\1).)+)\1\s*\]\s*", re.DOTALL)


class GradeRequest(NamedTuple):
    """A response to grade.

    Attributes:
        gold: the gold answer.
        text: the response.
        truncated: the response was cut at its length limit.
        unfinished: the chain of thought did not end, so there is no answer.
        problem: the text of the problem, whose nouns may follow a number; "" if it is not at hand.
    """

    gold: str
    text: str
    truncated: bool = False
    unfinished: bool = False
    problem: str = ""


class Grader:
    """Grade responses against gold answers, from any thread.

    It is a context manager that ends its worker processes. A worker starts when an answer first
    needs it.

    Args:
        num_workers: number of worker processes; None means one per core.
        limit_s: processor time in seconds that algebra may take for one answer. It is not wall
            time, so that verdicts do not depend on the load of the machine.
        memory_bytes: address space of one worker.
    """

    def __init__(
        self, *, num_workers: int | None = None, limit_s: float = 5.0, memory_bytes: int = 2 << 30
    ) -> None:
        self._num_workers = num_workers or num_cores()
        self._limit_s = limit_s
        self._pool = Pool(num_workers=self._num_workers, memory_bytes=memory_bytes)
        self._reward_pools: dict[RewardFile, RewardPool] = {}
        self._cache: dict[tuple[str, str, frozenset[str]], Verdict] = {}
        self._lock = threading.Lock()

    def grade(
        self,
        gold: str,
        text: str,
        truncated: bool = False,
        unfinished: bool = False,
        problem: str = "",
        *,
        answer_format: AnswerFormat = "marked",
    ) -> Verdict:
        """Grade one response.

        Args:
            gold: the gold answer.
            text: the response.
            truncated: the response was cut at its length limit.
            unfinished: the chain of thought did not end, so there is no answer.
            problem: the text of the problem, whose nouns may follow a number.
            answer_format: what counts as an answer.

        Returns:
            The verdict; a failure of a worker is the verdict "crash", not an exception.
        """
        if not gold.strip():
            return Verdict(False, "", "no gold")
        if unfinished:
            return Verdict(False, "", UNFINISHED)
        extracted = extract.extract(text, answer_format=answer_format, truncated=truncated)
        if extracted is None:
            return Verdict(False, "", UNFINISHED)
        if len(extracted) > limits.MAX_EXACT_LENGTH:
            return Verdict(False, extracted[:200], "too large")
        # a text that is the gold cell, word for word, needs no extraction
        if answer_format != "boxed" and not truncated and text.strip() == gold.strip():
            return Verdict(True, extracted or text.strip(), "exact", gold, "same text")
        key = (gold, extracted, words.nouns_in(problem, gold, extracted))
        with self._lock:
            verdict = self._cache.get(key)
        if verdict is None:
            verdict = self._grade(*key)
            # a crash is a fault of the machine, and may not happen again
            if verdict.reason != "crash":
                with self._lock:
                    self._cache[key] = verdict
                    if len(self._cache) > CACHE_SIZE:
                        self._cache.pop(next(iter(self._cache)))
        return verdict

    def grade_many(
        self, requests: Iterable[GradeRequest], *, answer_format: AnswerFormat = "marked"
    ) -> list[Verdict]:
        """Grade responses, in order; equal requests are graded once, on all workers."""
        requests = list(requests)
        with ThreadPoolExecutor(self._num_workers) as threads:
            unique = list(dict.fromkeys(requests))
            graded = threads.map(
                lambda request: self.grade(*request, answer_format=answer_format), unique
            )
            verdicts = dict(zip(unique, graded, strict=True))
        return [verdicts[request] for request in requests]

    def same(self, one: str, other: str, problem: str = "") -> bool:
        """Compare two extracted answers as an answer is compared with the gold one.

        The order of the two does not matter. A comparison that fails counts as unequal.

        Args:
            one: an extracted answer.
            other: another one.
            problem: the text of the problem, whose nouns may follow a number.
        """
        if max(len(one), len(other)) > limits.MAX_EXACT_LENGTH:
            return one == other
        nouns = words.nouns_in(problem, one, other)
        sides = sorted((normalise(one), normalise(other)))
        if squeezed(sides[0]) == squeezed(sides[1]):
            return True
        # units and names count on one side only, so both sides take the place of the gold answer
        return any(self._equal(gold, answer, nouns)[0] for gold, answer in (sides, sides[::-1]))

    def load_own_reward(self, file: RewardFile) -> None:
        """Load the user's reward function in a worker; raise UserError if that fails."""
        self._reward_pool(file).load()

    def own_rewards(
        self, file: RewardFile, calls: Sequence[Call], *, stop_at_failure: bool
    ) -> list[Outcome | None]:
        """Call the user's reward function in worker processes; see `RewardPool.score`."""
        return self._reward_pool(file).score(calls, stop_at_failure=stop_at_failure)

    def close(self) -> None:
        """End the worker processes; the grader can still be used and then starts new ones."""
        self._pool.close()
        for pool in self._reward_pools.values():
            pool.close()

    def __enter__(self) -> Grader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _reward_pool(self, file: RewardFile) -> RewardPool:
        with self._lock:
            return self._reward_pools.setdefault(file, RewardPool(file))

    def _grade(self, gold: str, extracted: str, nouns: frozenset[str]) -> Verdict:
        gold_answer = _normal_gold(gold)
        if not gold_answer:
            return Verdict(False, "", "gold unreadable")
        if not extracted:
            return Verdict(False, "", "no answer", gold_answer)
        answer = normalise(extracted)
        if squeezed(answer) == squeezed(normalise(gold)):
            return Verdict(True, extracted, "exact", gold_answer, "same text")
        correct, reason, rule = self._equal(gold_answer, answer, nouns)
        return Verdict(correct, extracted, reason, gold_answer, rule)

    def _equal(self, gold: str, answer: str, nouns: frozenset[str]) -> tuple[bool, str, str]:
        """Compare two normalised answers; return the verdict, its reason and the rule."""
        known: dict[tuple[str, str], bool] = {}
        left_s = self._limit_s
        while True:
            same, pairs, rule = exact.compare(gold, answer, known, nouns)
            if not pairs:
                return same, "symbolic" if known else "exact", rule
            if len(pairs) > MAX_PAIRS or any(
                limits.too_large(side) for pair in pairs for side in pair
            ):
                return False, "too large", rule
            reply = self._pool.equal(pairs, max(left_s, 0.1))
            if isinstance(reply, str):
                return False, reply, rule
            left_s -= reply.spent_s
            known.update(zip(pairs, reply.equal, strict=True))


def num_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@lru_cache(maxsize=GOLD_CACHE_SIZE)
def _normal_gold(cell: str) -> str:
    return normalise(read_gold(cell))


def read_gold(gold: str) -> str:
    """Return the answer in a gold cell: its box, or its formula if it is a text, or all of it.

    GSM8K's mark comes first, and a list with one text (`['5']`) is that text. Returns "" if the
    braces of the cell are not balanced.
    """
    single = _SINGLE_TEXT.fullmatch(gold)
    if single is not None:
        gold = single[2]
    marked = marked_gold(gold)
    if marked is not None:
        return marked
    if not limits.balanced(gold):
        return ""
    boxed = extract.last_boxed(gold)
    is_text = len(gold.split()) > GOLD_WORDS
    return boxed or (extract.extract(gold, answer_format="any") if is_text else "") or gold


def check_gold(problems: Sequence[Problem], grader: Grader, *, required: bool = False) -> None:
    """Check that every gold answer passes the verifier, when put into a box like a model's answer.

    Raises UserError with ids and answers if not. Problems without a gold answer are skipped, or
    refused if answers are `required` because responses will be graded.
    """
    golden = [problem for problem in problems if problem.answer.strip()]
    if required and len(golden) < len(problems):
        first = next(problem for problem in problems if not problem.answer.strip())
        raise UserError(
            f"{first.label} has no gold answer, which grading needs "
            f"({len(problems) - len(golden)} of {len(problems)} problems have none); add it, or "
            "name its column under `columns`"
        )
    verdicts = grader.grade_many(
        [
            GradeRequest(problem.answer, f"\\boxed{{{problem.answer}}}", problem=problem.text)
            for problem in golden
        ]
    )
    failed = [
        (problem, verdict)
        for problem, verdict in zip(golden, verdicts, strict=True)
        if not verdict.correct
    ]
    if failed:
        shown = "; ".join(
            f"{printable(problem.id)}: {problem.answer[:80]!r} ({verdict.reason})"
            for problem, verdict in failed[:5]
        )
        more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
        raise UserError(
            f"{len(failed)} of {len(golden)} gold answers do not pass the verifier: "
            f"{shown}{more}; correct them, or drop their problems"
        )
