"""Runs built from recipes, with a scripted sampler: at which temperature a policy is scored, where
old log-probs come from, the first ratio, and the rate of every optimiser step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reasontrain.data.sampling import Sampling
from reasontrain.models import Policy
from reasontrain.recipe import read_recipe
from reasontrain.run.build import RunContext, run_context
from reasontrain.sampler.scripted import ScriptedSampler
from reasontrain.types import Prompt, Rollout, Stats, Weights

RECIPES = Path(__file__).parents[2] / "recipes" / "tiny"
STEPS, ROLLOUTS, GROUP = 2, 8, 4
SHIFT = 0.5
"""Nats by which a sampler lies about log-probs that must not be used."""


@dataclass(frozen=True)
class Case:
    """A recipe with changes, and what is expected of its run."""

    recipe: str
    changes: Sequence[str]
    temperature: float
    source: str | None
    """Of `old_logp`: sampler, learner, or None where nothing reads it."""
    shares: Sequence[float] = field(default=(1.0,) * STEPS)
    """The learning rate of each optimiser step, as a share of its peak."""


CASES = {
    "temperature 0.7": Case("grpo", ["sample.temperature=0.7"], 0.7, "sampler"),
    "top_p 0.9": Case("grpo", ["sample.top_p=0.9"], 1.0, "learner"),
    "old_logp: learner": Case(
        "grpo", ["learn.old_logp=learner", "sample.temperature=0.7"], 0.7, "learner"
    ),
    "distillation at temperature 0.7": Case("tip", ["sample.temperature=0.7"], 1.0, None),
    "warm-up": Case(
        "grpo",
        ["steps=4", "learn.warmup_steps=2", "learn.schedule=linear"],
        1.0,
        "sampler",
        (1 / 3, 2 / 3, 1.0, 0.5),
    ),
    "updates_per_batch 2": Case(
        "grpo",
        ["learn.updates_per_batch=2", "learn.warmup_steps=1", "learn.schedule=linear"],
        1.0,
        "learner",
        (1 / 2, 1.0, 2 / 3, 1 / 3),
    ),
}


class TruthfulSampler(ScriptedSampler):
    """A scripted sampler that reports the policy's log-probs of its script, shifted."""

    def __init__(self, context: RunContext, steps: int, temperature: float, shift: float) -> None:
        order = context.prepared.order
        self.policy: Policy = context.learner.policy
        self.temperature, self.shift = temperature, shift
        self.sampled: list[list[Rollout]] = []
        script = {}
        for step in range(steps):
            for prompt in order.at(step):
                right = order.tokenizer.encode(prompt.problem.solution, add_special_tokens=False)
                wrong = [right[:n] for n in (3, 5, 9)]
                script[prompt.problem.id] = [tuple(ids) for ids in (right, *wrong)]
        super().__init__(script, decode=order.tokenizer.decode)

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        rollouts = [
            replace(
                rollout,
                sampled_logp=tuple(
                    (distribution(self.policy, rollout, self.temperature)[1] + self.shift).tolist()
                ),
            )
            for rollout in super().sample(prompts, sampling, num=num, first_id=first_id)
        ]
        self.sampled.append(rollouts)
        return rollouts

    def load(self, weights: Weights) -> None:
        self.version = weights.version


@torch.no_grad()
def distribution(policy: Policy, rollout: Rollout, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probs over the vocabulary at each response token, and of the token itself."""
    ids_T = torch.tensor([*rollout.prompt_ids, *rollout.response_ids])
    logp_TV = (policy.model(ids_T[None]).logits[0].double() / temperature).log_softmax(-1)
    logp_NV = logp_TV[len(rollout.prompt_ids) - 1 : -1]
    return logp_NV, logp_NV.gather(1, torch.tensor(rollout.response_ids)[:, None])[:, 0]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def trained(
    case: Case, out: Path
) -> Iterator[tuple[RunContext, TruthfulSampler, list[Stats], list[float]]]:
    overrides = [
        f"out={out}",
        f"steps={STEPS}",
        f"learn.rollouts_per_step={ROLLOUTS}",
        f"sample.group_size={GROUP}",
        "evaluate=null",
        "learn.warmup_steps=0",
        "track.tensorboard=false",
        *case.changes,
    ]
    recipe = read_recipe(RECIPES / f"{case.recipe}.yaml", overrides)
    assert recipe.sample is not None
    reports: list[Stats] = []
    expected: list[float] = []
    with run_context(recipe) as context:
        shift = 0.0 if case.source == "sampler" else SHIFT
        sampler = TruthfulSampler(context, recipe.steps, recipe.sample.temperature, shift)

        def report(step: int, stats: Stats) -> None:
            reports.append(stats)

        inner = sampler.sample

        def sample(*given: object, **options: object) -> list[Rollout]:
            rollouts = inner(*given, **options)
            parts = [distribution(sampler.policy, r, case.temperature) for r in rollouts]
            if case.source is None:
                means = torch.cat([-(logp.exp() * logp).sum(-1) for logp, _ in parts])
            else:
                means = torch.cat([logp_N for _, logp_N in parts])
            expected.append(float(means.mean()))
            return rollouts

        sampler.sample = sample
        replace(context, rollouts=sampler).run(report)
        yield context, sampler, reports, expected


def test_a_run_is_what_its_recipe_says(case: Case, tmp_path: Path) -> None:
    ((context, _, reports, expected),) = trained(case, tmp_path)
    recipe = context.prepared.recipe
    evidence = "entropy_mean" if case.source is None else "old_logp_mean"
    for stats, mean in zip(reports, expected, strict=True):
        # Of the policy at the start of the step, at the temperature at which it is scored.
        assert stats[evidence] == pytest.approx(mean, abs=1e-5)
        assert (stats["time_evidence_forward_s"] > 0) == (case.source != "sampler")
        if case.source is None:
            assert "ratio" not in stats
        else:
            first = "ratio_update_1" if recipe.learn.updates_per_batch > 1 else "ratio"
            assert stats[first] == pytest.approx(1, abs=1e-5)
    rates = [
        stats[name]
        for stats in reports
        for name in (
            [f"lr_update_{n + 1}" for n in range(recipe.learn.updates_per_batch)]
            if recipe.learn.updates_per_batch > 1
            else ["lr"]
        )
    ]
    assert rates == pytest.approx([recipe.learn.lr * share for share in case.shares])
    assert [stats["optimizer_steps"] for stats in reports] == [
        (step + 1) * recipe.learn.updates_per_batch for step in range(recipe.steps)
    ]
