"""A batch of demonstrations, as the package collates it, for the examples to be compared on."""

from __future__ import annotations

import random

from reasontrain import models
from reasontrain.algo.advantages import Advantage
from reasontrain.data.collate import collate
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.data.replies import encode_demonstrations
from reasontrain.models import ModelSettings
from reasontrain.tasks.arithmetic import Arithmetic
from reasontrain.types import Batch, Rollout


def rollouts(*, num_problems: int, group_size: int) -> list[Rollout]:
    """Worked solutions to problems of one to three steps, three steps in ten of them wrong.

    Every rollout of a group ends a little earlier than the one before, so that lengths differ
    within a group too. Rewards are 0 or 1; the last group's are all 1, which earns no advantage.
    """
    tokenizer = models.load(ModelSettings(path="testbed:student")).tokenizer
    encoder = Encoder(tokenizer, PromptSettings(), context=4096)
    problems = Arithmetic(
        max_depth=3, num_problems=num_problems, seed=1, wrong_steps=0.3
    ).problems()
    solutions, _ = encode_demonstrations(encoder, problems)
    rng = random.Random(0)
    return [
        Rollout(
            problem=solution.problem,
            id=index * group_size + member,
            group=index,
            prompt_ids=solution.prompt_ids,
            response_ids=solution.response_ids[: len(solution.response_ids) - member],
            reward=1.0 if index == num_problems - 1 else float(rng.random() < 0.5),
        )
        for index, solution in enumerate(solutions)
        for member in range(group_size)
    ]


def batch_of(advantage: Advantage, *, num_problems: int, group_size: int) -> Batch:
    """The batch that the training loop would collate of these rollouts."""
    return collate(rollouts(num_problems=num_problems, group_size=group_size), advantage=advantage)
