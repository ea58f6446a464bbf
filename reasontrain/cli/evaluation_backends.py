"""Backends of `reasontrain evaluate`: a model with local weights, or a model behind an endpoint.

A backend maps (problem, sample) keys to replies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

from reasontrain import models
from reasontrain.endpoint import Endpoint
from reasontrain.evaluation.candidate import Candidate
from reasontrain.evaluation.endpoint_generation import (
    EndpointRequests,
    TextRequests,
    TokenRequests,
)
from reasontrain.evaluation.generation import (
    AnswerFn,
    SampleFn,
    answer_by_sampling,
    chunk_prompts,
    sample_with,
)
from reasontrain.models import Description, ModelSettings
from reasontrain.run.datasets import SuiteProblems, encode_prompts
from reasontrain.types import Problem, Prompt


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
        chunks = chunk_prompts(
            encoded.prompts, suite.sampling, num=suite.num_samples, chunk_size=chunk_size
        )
        return PreparedSuite(
            problems=[prompt.problem for prompt in encoded.prompts],
            dropped=encoded.dropped,
            fingerprint={
                "prompts_sha256": _hash_of(encoded.prompts, self.description),
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

    def __init__(self, endpoint: Endpoint, *, seed: int, tokenizer: str | None) -> None:
        """Prepare to send requests.

        Args:
            endpoint: the model and its server.
            seed: the seed from which those of the requests are drawn.
            tokenizer: the model with the server's tokenizer, to send and receive token ids; None
                sends texts.
        """
        self.endpoint = endpoint
        self.seed = seed
        self.tokenizer = tokenizer
        self.name = endpoint.model

    def facts(self) -> Mapping[str, str]:
        """See `EvaluationBackend`."""
        tokenizer = {"tokenizer": self.tokenizer} if self.tokenizer else {}
        return {**self.endpoint.facts(), **tokenizer}

    def prepare(self, suite_problems: SuiteProblems) -> PreparedSuite:
        """See `EvaluationBackend`."""
        return (
            self._prepare_tokens(suite_problems)
            if self.tokenizer
            else self._prepare_texts(suite_problems)
        )

    @cached_property
    def description(self) -> Description:
        """The description of the model that `tokenizer` names."""
        assert self.tokenizer is not None, "texts need no description"
        return models.describe(ModelSettings(path=self.tokenizer))

    def _prepare_texts(self, suite_problems: SuiteProblems) -> PreparedSuite:
        """Prepare texts; no problems are dropped, because only the server can count tokens."""
        suite = suite_problems.suite
        requests = TextRequests(
            endpoint=self.endpoint,
            problems=suite_problems.problems,
            prompt=suite_problems.prompt,
            sampling=suite.sampling,
            num=suite.num_samples,
            seed=self.seed,
        )
        # a plain prompt is known as it is, and the server's template cannot open a thought in it
        return _prepared(requests, suite_problems.problems, infer_thoughts=not requests.is_plain)

    def _prepare_tokens(self, suite_problems: SuiteProblems) -> PreparedSuite:
        """Prepare token ids."""
        suite = suite_problems.suite
        encoded = encode_prompts(suite_problems, self.description)
        requests = TokenRequests(
            endpoint=self.endpoint,
            prompts=encoded.prompts,
            description=self.description,
            sampling=suite.sampling,
            num=suite.num_samples,
            seed=self.seed,
        )
        prepared = _prepared(requests, [prompt.problem for prompt in encoded.prompts])
        return replace(
            prepared,
            dropped=encoded.dropped,
            fingerprint={"prompts_sha256": _hash_of(encoded.prompts, self.description)},
        )


def _prepared(
    requests: EndpointRequests, problems: Sequence[Problem], *, infer_thoughts: bool = False
) -> PreparedSuite:
    """A suite whose answers come from these requests."""
    return PreparedSuite(
        problems=problems,
        dropped=0,
        fingerprint={},
        make_answer_fn=lambda: requests.answer,
        infer_thoughts=infer_thoughts,
    )


def _hash_of(prompts: Sequence[Prompt], description: Description) -> str:
    """The hash of prompts and end tokens.

    It is of ids, not of texts, because they change with the tokenizer and its chat template.
    """
    content = json.dumps([[prompt.ids for prompt in prompts], sorted(description.stop_ids)])
    return hashlib.sha256(content.encode()).hexdigest()
