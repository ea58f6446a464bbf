"""Run by `test_measured.py` in a process of its own: by how much resident memory rises while a
learner or a sampler works.

The idle process has imported everything and has used every kernel once, on a tiny model. Prints the
rise of the peak in bytes.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.policy_module import UnshardedModel
from reasontrain.models import ModelSettings, Policy, recompute_activations, testbed
from reasontrain.recipe import Recipe, read_recipe
from reasontrain.sampler.local import LocalSampler
from reasontrain.types import Batch, Problem, Prompt, TokenKind

STEPS, PROMPT, TINY_LENGTH = 2, 16, 32
WORDS = testbed.tokenizer()


def resident(field: str) -> int:
    """VmRSS or VmHWM in bytes."""
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(field)
    )
    return 1024 * int(line.split()[1])


def random_policy(settings: ModelSettings, *, trainable: bool) -> Policy:
    """As `models.load` would have it, with random weights."""
    dtype = torch.float32 if trainable else getattr(torch, settings.dtype)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(settings.path), dtype=dtype)
    model.requires_grad_(trainable)
    if settings.gradient_checkpointing and trainable:
        recompute_activations(model)
    model.generation_config.eos_token_id = None  # so that no response ends early
    return Policy(model.train(trainable), WORDS, getattr(torch, settings.dtype))


def batch(num: int, length: int) -> Batch:
    """A step's rollouts, all of one length."""
    kind_BT = torch.full((num, length), int(TokenKind.RESPONSE))
    kind_BT[:, :PROMPT] = int(TokenKind.PROMPT)
    return Batch(
        ids_BT=torch.randint(3, len(WORDS), (num, length)),
        kind_BT=kind_BT,
        rollout_B=torch.arange(num),
        group_B=torch.arange(num),
        reward_B=torch.ones(num),
        advantage_B=torch.randn(num),
        sampled_rollouts=num,
        sampled_tokens=num * (length - PROMPT),
    ).with_evidence({"old_logp": torch.full((num, length), -3.0)})


def learn(recipe: Recipe, length: int) -> None:
    """Some steps: evidence, selection, one backward for each micro-batch, the optimiser."""
    policy = random_policy(recipe.model, trainable=True)
    teacher = (
        UnshardedModel(random_policy(recipe.teacher, trainable=False)) if recipe.teacher else None
    )
    learner = compose_learner(policy, recipe.learn, steps=STEPS, teacher=teacher)
    for _ in range(STEPS):
        given = learner.observe(
            batch(recipe.learn.rollouts_per_step, length),
            recipe.required_evidence - {"old_logp", "sampled_logp"},
        )
        learner.step(
            given,
            recipe.token_selection(given),
            recipe.objective,
            LOSS_AGGREGATIONS[recipe.loss_aggregation],
        )


def sample(recipe: Recipe, length: int) -> None:
    """The rollouts of one step."""
    assert recipe.sample is not None
    policy = random_policy(recipe.model, trainable=False)
    ids = torch.randint(3, len(WORDS), (recipe.learn.rollouts_per_step, PROMPT)).tolist()
    prompts = [
        Prompt(problem=Problem(id=str(i), prompt="", answer=""), ids=tuple(row))
        for i, row in enumerate(ids)
    ]
    sampling = replace(recipe.sample, max_tokens=length - PROMPT)
    LocalSampler(policy, seed=0, max_num_seqs=recipe.sample.engine.max_num_seqs).sample(
        prompts, sampling, num=1, first_id=0
    )


def tiny(recipe: Recipe) -> Recipe:
    """The same recipe on a model that weighs nothing."""
    path = str(testbed.MODELS / "student")
    return replace(
        recipe,
        model=replace(recipe.model, path=path),
        teacher=replace(recipe.teacher, path=path) if recipe.teacher else None,
        learn=replace(recipe.learn, micro_batch_tokens=TINY_LENGTH, rollouts_per_step=2),
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    work = {"learn": learn, "sample": sample}[sys.argv[1]]
    recipe = read_recipe(Path(sys.argv[2]), sys.argv[4:])
    work(tiny(recipe), TINY_LENGTH)
    idle = resident("VmRSS")
    work(recipe, int(sys.argv[3]))
    print(resident("VmHWM") - idle)
