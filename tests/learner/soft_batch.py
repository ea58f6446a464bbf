"""Rollouts that thought softly, sampled from the very model that learns from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from reasontrain.algo.advantages import LeaveOneOut
from reasontrain.data.collate import collate
from reasontrain.data.thought import FuzzyThought, HardThought, SoftThought, Thought
from reasontrain.models import Policy
from reasontrain.recipe.sampling import SampleSettings
from reasontrain.sampler.local import LocalSampler
from reasontrain.types import Batch, Problem, Prompt, Rollout, SoftEmbeddings

ENDING = {"max_tokens": 9, "max_answer_tokens": 5, "stop_text": "e", "early": "1", "late": "+ 1"}
THOUGHTS = {
    "hard": HardThought(**ENDING),
    "soft": SoftThought(**ENDING),
    "fuzzy": FuzzyThought(**ENDING),
}
SEED = 5


def rollouts(
    policy: Policy, kind: str = "soft", *, num: int = 3, groups: int = 3, **changes: float
) -> list[Rollout]:
    """Groups of `num` with rewards of 0, 10 and 100."""
    thought: Thought = replace(THOUGHTS[kind], **changes)
    prompts = [
        Prompt(problem=Problem(id=str(i), prompt=""), ids=tuple(range(40, 43 + 2 * i)))
        for i in range(groups)
    ]
    sampling = SampleSettings(max_tokens=40, thought=thought)
    found = LocalSampler(policy, seed=SEED).sample(prompts, sampling, num=num, first_id=20)
    return [replace(r, reward=(0.0, 10.0, 100.0)[r.id % 3]) for r in found]


def batch(policy: Policy, kind: str = "soft", **more: float) -> Batch:
    """A batch of them."""
    return collate(rollouts(policy, kind, **more), advantage=LeaveOneOut())


def changed(data: Batch, rollout: int, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch in which one rollout was fed something else."""
    law = data.soft[rollout]
    other = SoftEmbeddings(tau=law.tau, sigma=law.sigma, fed=lambda: change(law.fed().clone()))
    return replace(data, soft={**data.soft, rollout: other})


def ones(data: Batch) -> Tensor:
    """Every row that the policy chose."""
    return torch.where(data.is_response_BT, 1.0, 0.0)
