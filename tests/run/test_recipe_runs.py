"""Runs built from recipes, with a scripted sampler: at which temperature a policy is scored, where
old log-probs come from, the first ratio, and the rate of every optimiser step.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Lfm2Config

from reasontrain.data.sampling import Sampling
from reasontrain.learner.engine import PlainEngine
from reasontrain.models import Policy
from reasontrain.recipe import Recipe, read_recipe
from reasontrain.run.build import RunContext, run_context
from reasontrain.sampler.scripted import ScriptedSampler
from reasontrain.types import Batch, Prompt, Rollout, Stats, UserError
from tests import tiny

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
    "distillation at temperature 0.7": Case(
        "tip", ["sample.temperature=0.7"], 1.0, None, (1.0, 0.5)
    ),
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
    """A scripted sampler that reports the policy's log-probs of its script, shifted.

    It notes the mean entropy and log-prob of each step's response tokens at `scored`, the
    temperature at which the learner is expected to score them.
    """

    def __init__(self, context: RunContext, recipe: Recipe, scored: float, shift: float) -> None:
        order = context.inputs.order
        assert recipe.sample is not None
        self.policy: Policy = context.learner.policy
        self.temperature = recipe.sample.temperature
        self.scored = scored
        self.shift = shift
        self.entropies: list[float] = []
        self.logps: list[float] = []
        script = {}
        for step in range(recipe.steps):
            for prompt in order.at(step):
                right = order.tokenizer.encode(prompt.problem.solution, add_special_tokens=False)
                wrong = [right[:n] for n in (3, 5, 9)]
                script[prompt.problem.id] = [tuple(ids) for ids in (right, *wrong)]
        super().__init__(script, decode=order.tokenizer.decode)

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        rollouts = super().sample(prompts, sampling, num=num, first_id=first_id)
        scored = [distribution(self.policy, rollout, self.scored) for rollout in rollouts]
        entropy_N = torch.cat([-(logp_NV.exp() * logp_NV).sum(-1) for logp_NV, _ in scored])
        self.entropies.append(float(entropy_N.mean()))
        self.logps.append(float(torch.cat([logp_N for _, logp_N in scored]).mean()))
        reported = []
        for rollout in rollouts:
            _, logp_N = distribution(self.policy, rollout, self.temperature)
            reported.append(replace(rollout, sampled_logp=tuple((logp_N + self.shift).tolist())))
        return reported


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


def trained(case: Case, out: Path) -> tuple[Recipe, list[Stats], list[float]]:
    """Run a case: its recipe, the numbers of each step, and the independent mean of evidence."""
    recipe = read_recipe(
        RECIPES / f"{case.recipe}.yaml",
        [
            f"out={out}",
            f"steps={STEPS}",
            f"learn.rollouts_per_step={ROLLOUTS}",
            f"sample.group_size={GROUP}",
            "evaluate=null",
            "learn.warmup_steps=0",
            "track.tensorboard=false",
            *case.changes,
        ],
    )
    assert recipe.sample is not None
    reports: list[Stats] = []
    with run_context(recipe) as context:
        sampler = TruthfulSampler(
            context, recipe, case.temperature, 0.0 if case.source == "sampler" else SHIFT
        )
        replace(context, rollouts=sampler).run(lambda step, stats: reports.append(stats))
    means = sampler.entropies if case.source is None else sampler.logps
    return recipe, reports, means


def test_a_run_is_what_its_recipe_says(case: Case, tmp_path: Path) -> None:
    recipe, reports, expected = trained(case, tmp_path)
    updates = recipe.learn.updates_per_batch
    evidence = "entropy_mean" if case.source is None else "old_logp_mean"
    for stats, mean in zip(reports, expected, strict=True):
        # Of the policy at the start of the step, at the temperature at which it is scored.
        assert stats[evidence] == pytest.approx(mean, abs=1e-5)
        assert (stats["time_evidence_forward_s"] > 0) == (case.source != "sampler")
        if case.source is None:
            assert "ratio" not in stats
        else:
            first = "ratio_update_1" if updates > 1 else "ratio"
            assert stats[first] == pytest.approx(1, abs=1e-5)
    names = [f"lr_update_{n + 1}" for n in range(updates)] if updates > 1 else ["lr"]
    rates = [stats[name] for stats in reports for name in names]
    assert rates == pytest.approx([recipe.learn.lr * share for share in case.shares])
    assert [stats["optimizer_steps"] for stats in reports] == [
        (step + 1) * updates for step in range(recipe.steps)
    ]


@pytest.mark.parametrize("objective", ["grpo", "gspo"])
def test_in_bfloat16_nothing_is_clipped_while_nothing_has_moved(
    objective: str, tmp_path: Path
) -> None:
    """Sampled as shipped, by the local sampler; the clip bounds of gspo are 3e-4 and 4e-4."""
    overrides = [
        f"out={tmp_path}",
        "steps=1",
        "model.dtype=bfloat16",
        "learn.rollouts_per_step=32",
        "sample.group_size=8",
        "sample.max_tokens=48",
        "evaluate=null",
        "track.tensorboard=false",
        "learn.warmup_steps=0",
        f"objective={{kind: {objective}}}",
        "correction={kind: truncate, cap: 3}",
    ]
    reports: list[Stats] = []
    with run_context(read_recipe(RECIPES / "grpo.yaml", overrides)) as context:
        context.run(lambda step, stats: reports.append(stats))
    (stats,) = reports
    assert stats["clipped"] == 0
    assert stats["ratio"] == pytest.approx(1, abs=1e-6)
    # The sampler computes in bfloat16 too, in other shapes: the gap is there, and in no ratio.
    assert 1e-4 < stats["sampler_gap_mean"] < 0.05
    assert stats["sampler_gap_mean"] < stats["sampler_gap_max"] < 1
    assert stats["correction_weight_mean"] == pytest.approx(1, abs=0.05)
    assert stats["correction_weight_mean"] != 1
    assert stats["correction_truncated_share"] == 0


def test_killed_between_two_updates_a_run_ends_with_the_bits_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is of the step before, so the half-learned batch is sampled again."""
    overrides = [
        f"out={tmp_path}",
        "steps=3",
        "learn.rollouts_per_step=16",
        "learn.updates_per_batch=4",
        "learn.warmup_steps=5",
        "sample.group_size=4",
        "sample.max_tokens=24",
        "sample.refill_rounds=2",
        "evaluate=null",
        "track.tensorboard=false",
        "checkpoint.every=1",
    ]

    def run(name: str) -> None:
        recipe = read_recipe(RECIPES / "grpo.yaml", [*overrides, f"name={name}"])
        with run_context(recipe) as context:
            context.run(lambda step, stats: None)

    run("straight")
    update, calls = PlainEngine.update, []

    def killed(self: PlainEngine, lr_share: float) -> Tensor:
        calls.append(lr_share)
        if len(calls) == 4 + 3:  # the third update of the second batch
            raise SystemExit("kill -9")
        return update(self, lr_share)

    monkeypatch.setattr(PlainEngine, "update", killed)
    with pytest.raises(SystemExit):
        run("killed")
    monkeypatch.setattr(PlainEngine, "update", update)
    run("killed")
    straight, again = (tmp_path / name for name in ("straight", "killed"))
    assert (straight / "final/model.safetensors").read_bytes() == (
        again / "final/model.safetensors"
    ).read_bytes()
    for ours, theirs in zip(metrics(again), metrics(straight), strict=True):
        assert ours == theirs
    assert all(line["trained_tokens"] for line in metrics(straight))
    assert any(line["refill_rounds"] for line in metrics(straight))


def metrics(directory: Path) -> list[dict[str, float]]:
    """Lines of metrics.jsonl, without what depends on the clock."""
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {
            name: value
            for name, value in json.loads(line).items()
            if not name.startswith(("time_", "mfu_", "hfu_", "memory_")) and "per_s" not in name
        }
        for line in lines
    ]


def test_a_model_that_cannot_be_sampled_is_trained_on_written_data(tmp_path: Path) -> None:
    config = Lfm2Config(**tiny.SIZES, layer_types=["conv", "full_attention"], pad_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    overrides = [
        f"out={tmp_path}",
        f"model.path={tmp_path / 'model'}",
        "steps=1",
        "learn.rollouts_per_step=4",
        "learn.warmup_steps=0",
        "track.tensorboard=false",
    ]
    recipe = read_recipe(RECIPES / "sft.yaml", [*overrides, "evaluate=null"])
    reports: list[Stats] = []
    with run_context(recipe) as context:
        context.run(lambda step, stats: reports.append(stats))
    assert reports[0]["grad_norm"] > 0
    assert "reward_mean" not in reports[0], "written responses are not graded"
    evaluated = read_recipe(RECIPES / "sft.yaml", [*overrides, "name=evaluated"])
    with (
        pytest.raises(UserError, match="lfm2 cannot be sampled with the local engine"),
        run_context(evaluated),
    ):
        raise AssertionError("refused before the first step")
    assert not (tmp_path / "evaluated").exists()


@dataclass
class Spy:
    """A check that notes what it is given."""

    serves: bool
    calls: list[str] = field(default_factory=list)

    def before(self, step: int, prompts: Sequence[Prompt]) -> Stats:
        return {}

    def after(self, step: int, prompts: Sequence[Prompt], rollouts: Sequence[Rollout]) -> Stats:
        self.calls.append("after")
        return {}

    def can_use(self, step: int, rollouts: Sequence[Rollout]) -> bool:
        return self.serves

    def observed(self, batch: Batch) -> Stats:
        difference_N = (batch.old_logp_BT - batch.sampled_logp_BT)[batch.is_response_BT]
        # rounding of another order of sums shows that the learner measured them
        assert 0 < difference_N.abs().max() < 1e-4
        self.calls.append("observed")
        return {}


@pytest.mark.parametrize(
    ("recipe", "serves", "call"),
    [
        ("tip", True, "observed"),  # entropy takes a pass of the policy
        ("tip", False, "after"),
        ("grpo", True, "after"),  # the sampler's log-probs serve as old ones: there is no such pass
    ],
)
def test_a_check_of_the_sampler_shares_the_pass_that_measures_evidence(
    recipe: str, serves: bool, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(serves)
    monkeypatch.setattr("reasontrain.run.build.canary_of", lambda *_: spy)
    overrides = [
        f"out={tmp_path}",
        "steps=1",
        "learn.rollouts_per_step=8",
        "sample.max_tokens=16",
        "evaluate=null",
        "track.tensorboard=false",
        "learn.warmup_steps=0",
    ]
    reports: list[Stats] = []
    with run_context(read_recipe(RECIPES / f"{recipe}.yaml", overrides)) as context:
        context.run(lambda step, stats: reports.append(stats))
    (stats,) = reports
    assert spy.calls == [call]
    assert ("sampler_kl" in stats) == (call == "observed")
