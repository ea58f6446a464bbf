"""Run by `test_measured.py` in a process of its own: how much resident memory rises while a learner or a sampler works.

The idle process has imported everything and has used every kernel once, on a tiny model. Prints the rise of the peak in bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from reasontrain import testbed
from reasontrain.learner.local import LocalLearner
from reasontrain.models import ModelSettings, Policy
from reasontrain.recipe import Recipe, read_recipe
from reasontrain.reduce import AVERAGES
from reasontrain.sampler.local import LocalSampler
from reasontrain.types import Batch, Kind, Problem, Prompt

STEPS = 2
PROMPT = 16


def resident(field: str) -> int:
    """VmRSS or VmHWM in bytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def random_policy(settings: ModelSettings, *, trainable: bool) -> Policy:
    """As `models.load` would have it, with random weights."""
    config = AutoConfig.from_pretrained(settings.path)
    dtype = torch.float32 if trainable else getattr(torch, settings.dtype)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.requires_grad_(trainable)
    if settings.gradient_checkpointing and trainable:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.generation_config.eos_token_id = None
    return Policy(model.train(trainable), WORDS, getattr(torch, settings.dtype))


def batch(recipe: Recipe, length: int, vocab_size: int) -> Batch:
    """A step's rollouts, all of one length."""
    num = recipe.learn.rollouts_per_step
    kind_BT = torch.full((num, length), int(Kind.RESPONSE))
    kind_BT[:, :PROMPT] = int(Kind.PROMPT)
    return Batch(
        ids_BT=torch.randint(3, vocab_size, (num, length)),
        kind_BT=kind_BT,
        rollout_B=torch.arange(num),
        group_B=torch.arange(num),
        reward_B=torch.ones(num),
        advantage_B=torch.randn(num),
        sampled_rollouts=num,
        sampled_rows=num * (length - PROMPT),
    ).with_evidence({"old_logp": torch.full((num, length), -3.0)})


def learn(recipe: Recipe, length: int) -> None:
    """Some steps: evidence, selection, one backward for each micro-batch, the optimiser."""
    policy = random_policy(recipe.model, trainable=True)
    teacher = random_policy(recipe.teacher, trainable=False) if recipe.teacher else None
    learner = LocalLearner(policy, recipe.learn, steps=STEPS, teacher=teacher)
    for _ in range(STEPS):
        given = batch(recipe, length, policy.model.config.vocab_size)
        given = learner.observe(given, recipe.needs - {"old_logp", "sampled_logp"})
        learner.step(given, recipe.select(given), recipe.objective, AVERAGES[recipe.average])


def sample(recipe: Recipe, length: int) -> None:
    """All rollouts of one step, none of which ends early."""
    assert recipe.sample is not None
    policy = random_policy(recipe.model, trainable=False)
    prompts = [
        Prompt(problem=Problem(id=str(i), prompt="", answer=""), ids=tuple(torch.randint(3, 500, (PROMPT,)).tolist()))
        for i in range(recipe.learn.rollouts_per_step)
    ]
    LocalSampler(policy, seed=0, max_rows=recipe.sample.max_rows).sample(prompts, recipe.sample, num=1, first_id=0)


WORDS = testbed.tokenizer()

if __name__ == "__main__":
    torch.set_num_threads(1)
    what, path, length, overrides = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    work = {"learn": learn, "sample": sample}[what]
    tiny = read_recipe(path, [*overrides, "model.path=testbed:student", "learn.micro_batch_tokens=1", "learn.rollouts_per_step=2"])
    tiny_path = str(testbed.MODELS / "student")
    from dataclasses import replace

    tiny = replace(tiny, model=replace(tiny.model, path=tiny_path), teacher=tiny.teacher and replace(tiny.teacher, path=tiny_path))
    work(tiny, 2 * PROMPT)
    idle = resident("VmRSS")
    work(read_recipe(path, overrides), length)
    print(resident("VmHWM") - idle)
