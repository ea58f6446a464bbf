"""Answers to a suite by sampling, in chunks of fixed composition.

An answer function maps (problem, sample) keys to replies. Rounding errors depend on the sequences
that decode together, and a rounding error may decide between two tokens. A suite is therefore
sampled in chunks of `chunk_size` prompts that depend only on the suite, not on the process that
samples them or on interruptions. A chunk with a missing answer is sampled again as a whole, which
reproduces its other replies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from reasontrain.data.collate import num_sampled_tokens
from reasontrain.data.sampling import Sampling
from reasontrain.evaluation.answers import ProblemSample, Reply
from reasontrain.sampler import Sampler
from reasontrain.types import Prompt, Rollout

AnswerFn = Callable[[AbstractSet[ProblemSample]], Iterator[Mapping[ProblemSample, Reply]]]
"""Yield replies to these keys as they arrive, each at least once; may yield other keys as well."""


@dataclass(frozen=True, kw_only=True)
class PromptChunk:
    """Prompts that are sampled together, `num` times each.

    `start` is the index of the first one in the suite.
    """

    start: int
    prompts: Sequence[Prompt]
    sampling: Sampling
    num: int

    @property
    def first_id(self) -> int:
        """The id of its first rollout."""
        return self.start * self.num

    @property
    def keys(self) -> list[ProblemSample]:
        """The keys of its rollouts, in the order in which samplers return them."""
        return [
            (self.start + i, sample) for i in range(len(self.prompts)) for sample in range(self.num)
        ]


SampleFn = Callable[[Sequence[PromptChunk]], Iterator[tuple[PromptChunk, Sequence[Rollout]]]]
"""Yield each of these chunks with its rollouts, in any order."""


def chunk_prompts(
    prompts: Sequence[Prompt], sampling: Sampling, *, num: int, chunk_size: int
) -> list[PromptChunk]:
    """Divide a suite's prompts into chunks.

    Args:
        prompts: the prompts of the suite, in order.
        sampling: temperature, truncation and stop criteria.
        num: samples per prompt.
        chunk_size: prompts per chunk.

    Returns:
        The chunks, in order; the last one may be smaller.
    """
    starts = range(0, len(prompts), chunk_size)
    return [
        PromptChunk(
            start=start, prompts=prompts[start : start + chunk_size], sampling=sampling, num=num
        )
        for start in starts
    ]


def answer_by_sampling(chunks: Sequence[PromptChunk], sample: SampleFn) -> AnswerFn:
    """Return an answer function that samples every chunk in which an answer is missing."""

    def answer(missing: AbstractSet[ProblemSample]) -> Iterator[Mapping[ProblemSample, Reply]]:
        incomplete = [chunk for chunk in chunks if not missing.isdisjoint(chunk.keys)]
        for chunk, rollouts in sample(incomplete):
            yield {
                key: reply_of(rollout) for key, rollout in zip(chunk.keys, rollouts, strict=True)
            }

    return answer


def sample_with(sampler: Sampler) -> SampleFn:
    """Return a function that samples the chunks in order with one sampler."""
    return lambda chunks: (
        (
            chunk,
            sampler.sample(chunk.prompts, chunk.sampling, num=chunk.num, first_id=chunk.first_id),
        )
        for chunk in chunks
    )


def reply_of(rollout: Rollout) -> Reply:
    """Convert a rollout to a reply."""
    return Reply(
        text=rollout.text,
        truncated=rollout.truncated,
        num_tokens=num_sampled_tokens([rollout]),
        unfinished=rollout.unfinished,
        answer_start=rollout.answer_start,
        episode=rollout.episode,
    )
