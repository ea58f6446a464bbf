"""Decode step: choose a token for each sequence from its logits; return the next model input."""

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
from reasontrain.sampler.sequence import SequenceState, start_sequences
from reasontrain.sampler.stop_criteria import StopCriteria
from reasontrain.sampler.token_choice import choose, to_host
from reasontrain.types import Prompt


@dataclass(frozen=True)
class RandomDraws:
    """Random numbers of N sequences in one step.

    They are functions of (seed, rollout id, index in the response), so that batching cannot change
    them.
    """

    uniform_N: Float[Tensor, " N"]
    seed: int
    id_N: Int[Tensor, " N"]
    place_N: Int[Tensor, " N"]

    def normal(self, row_M: Int[Tensor, " M"], size: int) -> Float[Tensor, "M D"]:
        """Standard normal numbers [M, D] of the sequences at indices `row_M`."""
        coordinate_1D = torch.arange(size, device=row_M.device)[None]
        return rng.normal(
            self.seed,
            Stream.SOFT_TOKEN_NOISE,
            self.id_N[row_M, None],
            self.place_N[row_M, None],
            coordinate_1D,
        )


@runtime_checkable
class DecodeStrategy(Protocol):
    """Decoding strategy: starts sequences and performs one decode step on them."""

    @property
    def multi_step_sampling(self) -> Sampling | None:
        """The sampling settings, if a step only draws a token and feeds it back; otherwise None.

        With settings, several steps can run without host synchronisation. None means that the next
        model input depends on more than the drawn token.
        """
        ...

    @property
    def stop_criteria(self) -> StopCriteria:
        """The criteria that end a response, or the answer in it."""
        ...

    def start(
        self, prompts: Sequence[Prompt], *, num: int, first_id: int
    ) -> Sequence[SequenceState]:
        """Start `num` sequences of every prompt, with ids as in `Sampler.sample`."""
        ...

    def __call__(
        self,
        sequences: Sequence[SequenceState],
        logits_NV: Float[Tensor, "N V"],
        draws: RandomDraws,
    ) -> Tensor:
        """Append a token to every sequence.

        Args:
            sequences: N sequences; those that are done ignore their token.
            logits_NV: logits of the next token; may be modified in place.
            draws: random numbers of these sequences in this step.

        Returns:
            The next model input: ids [N, 1] or input embeddings [N, 1, D].
        """
        ...


class TokenDecoding:
    """Draw every token with the same settings, and feed it back."""

    def __init__(self, policy: Policy, sampling: Sampling, stop_criteria: StopCriteria) -> None:
        self.context = policy.context
        self.sampling = sampling
        self.multi_step_sampling = sampling
        self.stop_criteria = stop_criteria

    def start(self, prompts: Sequence[Prompt], *, num: int, first_id: int) -> list[SequenceState]:
        """See `DecodeStrategy`."""
        return start_sequences(
            prompts,
            num=num,
            first_id=first_id,
            max_tokens=self.sampling.max_tokens,
            context=self.context,
        )

    def __call__(
        self,
        sequences: Sequence[SequenceState],
        logits_NV: Float[Tensor, "N V"],
        draws: RandomDraws,
    ) -> Int[Tensor, "N 1"]:
        """See `DecodeStrategy`."""
        ids_N, logp_N = choose(logits_NV, draws.uniform_N, self.sampling)
        ids, logps = to_host(ids_N[:, None], logp_N[:, None])
        for sequence, (token,), (logp,) in zip(sequences, ids, logps, strict=True):
            sequence.append(token, logp, self.stop_criteria)
        return ids_N[:, None]
