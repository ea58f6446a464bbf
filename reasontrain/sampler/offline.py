"""Stored responses as a sampler, so that offline methods run through the same training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reasontrain.data.sampling import Sampling
from reasontrain.types import Prompt, Rollout, Weights


@dataclass
class OfflineSampler:
    """Return each problem's demonstration, or its chosen and rejected response, by problem id.

    Weights are ignored except for their version.
    """

    written: Mapping[str, Sequence[Rollout]]
    version: int = 0

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        """Return the stored responses to these prompts under new ids (see `Sampler`).

        Args:
            prompts: prompts of problems in `written`.
            sampling: ignored.
            num: must equal the number of stored responses per problem.
            first_id: the id of the first rollout.

        Returns:
            `len(prompts) * num` rollouts, prompt by prompt.
        """
        rollouts = []
        for index, prompt in enumerate(prompts):
            group = first_id + index * num
            responses = self.written[prompt.problem.id]
            assert len(responses) == num, (
                f"{prompt.problem.label} has {len(responses)} written responses, not {num}"
            )
            rollouts += [
                replace(response, id=group + offset, group=group)
                for offset, response in enumerate(responses)
            ]
        return rollouts

    def load(self, weights: Weights) -> None:
        """Record the version of the weights."""
        self.version = weights.version
