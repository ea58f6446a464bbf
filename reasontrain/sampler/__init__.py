"""Samplers turn prompts into rollouts with the weights that were loaded last.

`factory.make_sampler` builds the sampler of an engine: the decode loop of this package (`local`) or
vLLM (`vllm`). `offline` replays stored responses, and `scripted` is for tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from reasontrain.data.sampling import Sampling
from reasontrain.types import Prompt, Rollout, Weights


@runtime_checkable
class Sampler(Protocol):
    """A source of rollouts whose weights can be replaced."""

    @property
    def version(self) -> int:
        """Version of the weights: the number of optimiser steps behind them."""
        ...

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        """Sample `num` rollouts of every prompt, prompt by prompt.

        Args:
            prompts: the encoded prompts.
            sampling: temperature, truncation and stop criteria.
            num: rollouts per prompt, which form a group.
            first_id: rollout g of prompt i has id `first_id + i * num + g` and group
                `first_id + i * num`.

        Returns:
            `len(prompts) * num` rollouts. The stop id or the token that completes a stop text is
            the last of a response.

        Raises:
            UserError: a prompt leaves no room for a response.
        """

    def load(self, weights: Weights) -> None:
        """Replace the weights that `sample` uses."""
