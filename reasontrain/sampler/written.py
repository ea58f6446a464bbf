"""Demonstrations, as a sampler that always answers what is written: so offline methods run through the same loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reasontrain.data.sampling import Sampling
from reasontrain.types import Prompt, Rollout, Weights


@dataclass
class WrittenSampler:
    """Answers each problem with its demonstration, by problem id; weights do not matter to it."""

    demonstrations: Mapping[str, Rollout]
    version: int = 0

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int) -> list[Rollout]:
        """The demonstrations of these prompts under new ids."""
        assert num == 1, "a problem has one demonstration"
        return [replace(self.demonstrations[p.problem.id], id=first_id + i, group=first_id + i) for i, p in enumerate(prompts)]

    def load(self, weights: Weights) -> None:
        """Note the version."""
        self.version = weights.version
