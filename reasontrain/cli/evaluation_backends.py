"""Backends of `reasontrain evaluate`: a model with local weights, or a model behind an endpoint.

A backend maps (problem, sample) keys to replies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

from reasontrain.evaluation.candidate import Candidate
from reasontrain.evaluation.endpoint_client import Endpoint
from reasontrain.evaluation.endpoint_generation import EndpointRequests
from reasontrain.evaluation.generation import (
    AnswerFn,
    SampleFn,
    answer_by_sampling,
    chunk_prompts,
    sample_with,
)
from reasontrain.models import Description
from reasontrain.run.datasets import SuiteProblems, encode_prompts
from reasontrain.types import Problem


@dataclass(frozen=True, kw_only=True)
class PreparedSuite:
    """A suite prepared for a backend, with nothing loaded yet.

    Attributes:
        problems: the problems whose prompts fit the model.
        dropped: the number of problems whose prompts do not fit.
        fingerprint: facts besides the suite that change answers.
        make_answer_fn: loads the model if necessary, and returns the answer function.
        infer_thoughts: prompts are unknown, so replies show if they begin inside a thought.
    """

    problems: Sequence[Problem]
    dropped: int
    fingerprint: Mapping[str, str | int]
    make_answer_fn: Callable[[], AnswerFn]
    infer_thoughts: bool = False


@runtime_checkable
class EvaluationBackend(Protocol):
    """A model that answers suites."""

    @property
    def name(self) -> str:
        """The model as the user named it."""
        ...

    def facts(self) -> Mapping[str, str]:
        """The facts for reports; all of them change answers."""
        ...

    def prepare(self, suite_problems: SuiteProblems) -> PreparedSuite:
        """Prepare a suite without loading the model."""
        ...


class ModelBackend:
    """A model with local weights, sampled in this process or by several Ray processes."""

    def __init__(
        self, candidate: Candidate, *, seed: int, workers: int, logs: Path, exit_stack: ExitStack
    ) -> None:
        """Prepare to load the model.

        Args:
            candidate: the model and its engine.
            seed: seed of the sampler.
            workers: number of Ray processes; 0 samples in this process.
            logs: folder for the logs of the processes.
            exit_stack: ends the engine or the processes when it closes.
        """
        self.candidate = candidate
        self.seed = seed
        self.workers = workers
        self.logs = logs
        self.exit_stack = exit_stack
        self.name = candidate.name

    def facts(self) -> Mapping[str, str]:
        """See `EvaluationBackend`."""
        return self.candidate.facts()

    def prepare(self, suite_problems: SuiteProblems) -> PreparedSuite:
        """See `EvaluationBackend`."""
        suite = suite_problems.suite
        encoded = encode_prompts(suite_problems, self.description)
        chunk_size = self.candidate.chunk_size
        # token ids, not texts: they change with the tokenizer and its chat template
        content = json.dumps(
            [[prompt.ids for prompt in encoded.prompts], sorted(self.description.stop_ids)]
        )
        chunks = chunk_prompts(
            encoded.prompts, suite.sampling, num=suite.num_samples, chunk_size=chunk_size
        )
        return PreparedSuite(
            problems=[prompt.problem for prompt in encoded.prompts],
            dropped=encoded.dropped,
            fingerprint={
                "prompts_sha256": hashlib.sha256(content.encode()).hexdigest(),
                "chunk_size": chunk_size,
            },
            make_answer_fn=lambda: answer_by_sampling(chunks, self.sample),
        )

    @cached_property
    def description(self) -> Description:
        """The description of the model, read without loading its weights."""
        return self.candidate.describe()

    @cached_property
    def sample(self) -> SampleFn:
        """The sampler, loaded at the first use and kept for all suites."""
        if not self.workers:
            sampler = self.exit_stack.enter_context(closing(self.candidate.sampler(self.seed)))
            return sample_with(sampler)
        # a local import, because importing Ray is slow and few evaluations need it
        from reasontrain.cluster.work_queue import parallel_sampler

        group = parallel_sampler(
            self.candidate, seed=self.seed, workers=self.workers, logs=self.logs
        )
        return self.exit_stack.enter_context(group)


class EndpointBackend:
    """A model behind an endpoint, with one request per answer."""

    def __init__(self, endpoint: Endpoint, *, seed: int) -> None:
        self.endpoint = endpoint
        self.seed = seed
        self.name = endpoint.model

    def facts(self) -> Mapping[str, str]:
        """See `EvaluationBackend`."""
        return self.endpoint.facts()

    def prepare(self, suite_problems: SuiteProblems) -> PreparedSuite:
        """See `EvaluationBackend`.

        No problems are dropped, because only the server can count prompt tokens.
        """
        suite = suite_problems.suite
        requests = EndpointRequests(
            endpoint=self.endpoint,
            problems=suite_problems.problems,
            prompt=suite_problems.prompt,
            sampling=suite.sampling,
            num=suite.num_samples,
            seed=self.seed,
        )
        return PreparedSuite(
            problems=suite_problems.problems,
            dropped=0,
            fingerprint={},
            make_answer_fn=lambda: requests.answer,
            infer_thoughts=True,
        )
