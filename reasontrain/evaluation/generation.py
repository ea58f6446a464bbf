"""Who answers a suite: anything that gives replies to places.

Here samplers do, in parts of fixed composition.

Which rows decode together decides roundings, and a rounding may decide between two tokens. So a
suite is asked in parts that depend on the suite alone, `at_once` prompts each, whoever samples them
and however often it was interrupted: a part of which any answer is missing is sampled again as that
same part, and its replies are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from reasontrain.data.sampling import Sampling
from reasontrain.evaluation.answers import ProblemSample, Reply
from reasontrain.sampler import Sampler
from reasontrain.types import Prompt, Rollout

AnswerFn = Callable[[AbstractSet[ProblemSample]], Iterator[Mapping[ProblemSample, Reply]]]
"""Replies to these places as they come, each at least once; others may be among them."""


@dataclass(frozen=True, kw_only=True)
class PromptChunk:
    """Prompts that are sampled together, `num` times each; `start` is the number of the first in
    the suite.
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
    def places(self) -> list[ProblemSample]:
        """What is asked, in the order in which samplers answer."""
        return [
            (self.start + i, sample) for i in range(len(self.prompts)) for sample in range(self.num)
        ]


Sample = Callable[[Sequence[PromptChunk]], Iterator[tuple[PromptChunk, Sequence[Rollout]]]]
"""The rollouts of each of these parts, in any order."""


def parts(
    prompts: Sequence[Prompt], sampling: Sampling, *, num: int, at_once: int
) -> list[PromptChunk]:
    """A suite in parts."""
    starts = range(0, len(prompts), at_once)
    return [
        PromptChunk(
            start=start, prompts=prompts[start : start + at_once], sampling=sampling, num=num
        )
        for start in starts
    ]


def sampled(whole: Sequence[PromptChunk], sample: Sample) -> AnswerFn:
    """Answers by sampling every part in which something is missing."""

    def respond(missing: AbstractSet[ProblemSample]) -> Iterator[Mapping[ProblemSample, Reply]]:
        for part, rollouts in sample(
            [part for part in whole if not missing.isdisjoint(part.places)]
        ):
            yield {
                place: reply(rollout) for place, rollout in zip(part.places, rollouts, strict=True)
            }

    return respond


def by(sampler: Sampler) -> Sample:
    """One sampler, part after part."""
    return lambda asked: (
        (part, sampler.sample(part.prompts, part.sampling, num=part.num, first_id=part.first_id))
        for part in asked
    )


def reply(rollout: Rollout) -> Reply:
    """What a rollout says."""
    return Reply(
        text=rollout.text, truncated=rollout.truncated, num_tokens=len(rollout.response_ids)
    )
