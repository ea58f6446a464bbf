"""Samplers turn prompts into rollouts: one of our own, and a scripted one for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from reasontrain.data.sampling import Sampling
from reasontrain.types import Prompt, Rollout, Weights


@runtime_checkable
class Sampler(Protocol):
    """Whatever answers prompts with the weights that it was given last."""

    @property
    def version(self) -> int:
        """Of the weights: how many optimiser steps they have seen."""
        ...

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        """`num` rollouts of every prompt, prompt by prompt.

        Rollout g of prompt i has id `first_id + i * num + g` and group `first_id + i * num`. A
        response holds its stop id.
        """

    def load(self, weights: Weights) -> None:
        """Answer with these weights from now on."""
