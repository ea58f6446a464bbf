"""What somebody wrote, as a sampler that always answers the same: so offline methods run through
the same loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reasontrain.data.sampling import Sampling
from reasontrain.types import Prompt, Rollout, Weights


@dataclass
class OfflineSampler:
    """Answers each problem with its demonstration, or its chosen and its rejected response, by
    problem id.

    Weights do not matter to it.
    """

    written: Mapping[str, Sequence[Rollout]]
    version: int = 0

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        """What is written for these prompts, under new ids."""
        found = []
        for index, prompt in enumerate(prompts):
            group, responses = first_id + index * num, self.written[prompt.problem.id]
            assert len(responses) == num, (
                f"problem {prompt.problem.id} has {len(responses)} written responses, not {num}"
            )
            found += [
                replace(response, id=group + place, group=group)
                for place, response in enumerate(responses)
            ]
        return found

    def load(self, weights: Weights) -> None:
        """Note the version."""
        self.version = weights.version
