"""The sampler of a run that samples nothing: it learns from written data and does not evaluate."""

from __future__ import annotations

from collections.abc import Sequence

from reasontrain.data.sampling import Sampling
from reasontrain.types import Prompt, Rollout, Weights


class UnusedSampler:
    """A sampler without a model, so that a model that cannot be sampled can still be trained."""

    def __init__(self) -> None:
        self.version = 0

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        """Fail: the run samples nothing.

        Args:
            prompts: the encoded prompts.
            sampling: temperature, truncation and stop criteria.
            num: rollouts per prompt.
            first_id: the id of the first rollout.
        """
        raise AssertionError("a run without `sample` and `evaluate` samples nothing")

    def load(self, weights: Weights) -> None:
        """Note the version of the weights."""
        self.version = weights.version

    def close(self) -> None:
        """Do nothing: there is no engine."""
