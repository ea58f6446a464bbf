"""Whoever `reasontrain evaluate` asks: weights, here or in several processes, or a model behind an
address.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

from reasontrain.evaluation.candidate import Candidate
from reasontrain.evaluation.endpoint_client import Endpoint
from reasontrain.evaluation.endpoint_generation import EndpointRequests
from reasontrain.evaluation.generation import AnswerFn, Sample, by, parts, sampled
from reasontrain.models import Description
from reasontrain.run.datasets import EncodedTask, encoded
from reasontrain.types import Problem


@dataclass(frozen=True, kw_only=True)
class EncodedProblems:
    """A suite as it is put to somebody: problems that can be asked, how many cannot, and what
    beside the suite says how.

    `ready` loads what answers take.
    """

    problems: Sequence[Problem]
    dropped: int
    facts: Mapping[str, str | int]
    ready: Callable[[], AnswerFn]


@runtime_checkable
class EvaluationBackend(Protocol):
    """Somebody who can be asked suites."""

    @property
    def name(self) -> str:
        """As the user says it."""
        ...

    def facts(self) -> Mapping[str, str]:
        """What a report says of it; all of it changes answers."""
        ...

    def put(self, posed: EncodedTask) -> EncodedProblems:
        """A suite as it is put to this one; nothing is loaded yet."""
        ...


class ModelBackend:
    """A model whose weights are at hand, asked in parts of fixed composition by this process or by
    `workers` of Ray's.
    """

    def __init__(
        self,
        candidate: Candidate,
        *,
        seed: int,
        workers: int,
        logs: Path,
        until: ExitStack,
    ) -> None:
        """Processes, if there are any, end with `until`; what they print is in `logs`."""
        self.candidate = candidate
        self.seed = seed
        self.workers = workers
        self.logs = logs
        self.until = until
        self.name = candidate.name

    def facts(self) -> Mapping[str, str]:
        """See `EvaluationBackend`."""
        return self.candidate.facts()

    def put(self, posed: EncodedTask) -> EncodedProblems:
        """See `EvaluationBackend`; the hash is of prompts as ids and of the ids that end responses:
        a tokenizer and its template.
        """
        asked, suite = encoded(posed, self.described), posed.suite
        at_once = self.candidate.at_once
        said = json.dumps(
            [[prompt.ids for prompt in asked.prompts], sorted(self.described.stop_ids)]
        )
        whole = parts(asked.prompts, suite.sampling, num=suite.num_samples, at_once=at_once)
        return EncodedProblems(
            problems=[prompt.problem for prompt in asked.prompts],
            dropped=asked.dropped,
            facts={"prompts_sha256": hashlib.sha256(said.encode()).hexdigest(), "at_once": at_once},
            ready=lambda: sampled(whole, self.sample),
        )

    @cached_property
    def described(self) -> Description:
        """The model without its weights."""
        return self.candidate.describe()

    @cached_property
    def sample(self) -> Sample:
        """Who samples, loaded when it is first needed and kept for the suites that follow."""
        if not self.workers:
            return by(self.candidate.sampler(self.seed))
        from reasontrain.cluster.work_queue import side_by_side  # Ray is for those who ask for it

        group = side_by_side(self.candidate, seed=self.seed, workers=self.workers, logs=self.logs)
        return self.until.enter_context(group)


class EndpointBackend:
    """A model behind an address, asked answer by answer."""

    def __init__(self, endpoint: Endpoint, *, seed: int) -> None:
        self.endpoint, self.seed, self.name = endpoint, seed, endpoint.model

    def facts(self) -> Mapping[str, str]:
        """See `EvaluationBackend`."""
        return self.endpoint.facts()

    def put(self, posed: EncodedTask) -> EncodedProblems:
        """See `EvaluationBackend`; nobody here can tell which prompts are too long for the model:
        the server refuses them.
        """
        suite = posed.suite
        requests = EndpointRequests(
            endpoint=self.endpoint,
            problems=posed.problems,
            prompt=posed.prompt,
            sampling=suite.sampling,
            num=suite.num_samples,
            seed=self.seed,
        )
        return EncodedProblems(
            problems=posed.problems, dropped=0, facts={}, ready=lambda: requests.respond
        )
