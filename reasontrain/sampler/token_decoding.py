"""What one decode step does with the logits of some rows: a token is chosen for each, and said what
is fed next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain import rng
from reasontrain.data.sampling import Sampling
from reasontrain.models import Policy
from reasontrain.rng import Stream
from reasontrain.sampler.sequence import DecodingSequence, StopCriteria, begin
from reasontrain.sampler.token_choice import choose
from reasontrain.types import Prompt


@dataclass(frozen=True)
class RandomDraws:
    """Random numbers of some rows in one step: functions of (seed, rollout id, place in the
    response).
    """

    uniform_N: Float[Tensor, " N"]
    seed: int
    id_N: Int[Tensor, " N"]
    place_N: Int[Tensor, " N"]

    def normal(self, row_M: Int[Tensor, " M"], size: int) -> Float[Tensor, "M D"]:
        """Normal numbers for some of the rows, one per coordinate."""
        coordinate_1D = torch.arange(size, device=row_M.device)[None]
        return rng.normal(
            self.seed, Stream.SOFT_TOKEN_NOISE, self.id_N[row_M, None], self.place_N[row_M, None], coordinate_1D
        )


@runtime_checkable
class DecodeStrategy(Protocol):
    """How rollouts begin, and what a step does with them.

    `law` is that of every token, where a step does nothing but draw by it, feed what was drawn and
    end rows by `stop_criteria`.
    """

    @property
    def law(self) -> Sampling | None:
        """None where what is fed next needs more than the logits."""
        ...

    @property
    def stop_criteria(self) -> StopCriteria:
        """What ends a response, or the answer in it."""
        ...

    def begin(
        self, prompts: Sequence[Prompt], *, num: int, first_id: int
    ) -> Sequence[DecodingSequence]:
        """`num` rows of every prompt, numbered as `Sampler` says."""
        ...

    def __call__(
        self, rows: Sequence[DecodingSequence], logits_NV: Float[Tensor, "N V"], draws: RandomDraws
    ) -> Tensor:
        """Let every row take a token; what goes into the model next: ids [N, 1] or embeddings [N,
        1, D].
        """
        ...


class TokenDecoding:
    """Every token is drawn by one law, and fed."""

    def __init__(self, policy: Policy, sampling: Sampling, stop_criteria: StopCriteria) -> None:
        self.context, self.sampling, self.law, self.stop_criteria = (
            policy.context,
            sampling,
            sampling,
            stop_criteria,
        )

    def begin(
        self, prompts: Sequence[Prompt], *, num: int, first_id: int
    ) -> list[DecodingSequence]:
        """See `DecodeStrategy`."""
        return begin(
            prompts,
            num=num,
            first_id=first_id,
            max_tokens=self.sampling.max_tokens,
            context=self.context,
        )

    def __call__(
        self, rows: Sequence[DecodingSequence], logits_NV: Float[Tensor, "N V"], draws: RandomDraws
    ) -> Int[Tensor, "N 1"]:
        """See `DecodeStrategy`."""
        ids_N, logp_N = choose(logits_NV, draws.uniform_N, self.sampling)
        for row, token, value in zip(rows, ids_N.tolist(), logp_N.tolist(), strict=True):
            row.take(token, value, self.stop_criteria)
        return ids_N[:, None]
