"""Learning from soft thoughts against plain transformers, one rollout at a time.

Numbers are those of the method's own list of tests: 4 (replay), 5 (fixed actions), 6 (credit), 8
(masks), 9 (hard is plain), 10 (micro-batches), 11 (sigma).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers, sampled_from
from torch import Tensor
from torch.testing import assert_close

from reasontrain import models, rng
from reasontrain.algo.advantages import LeaveOneOut
from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import Objective, Reinforce, SoftReinforce
from reasontrain.data.collate import collate
from reasontrain.data.micro_batches import Layout
from reasontrain.learner.factory import compose_learner, make_learner
from reasontrain.learner.policy_learner import PolicyLearner
from reasontrain.learner.soft_tokens import alarm
from reasontrain.models import ModelSettings, Policy
from reasontrain.recipe import LearnSettings, build
from reasontrain.recipe.settings import Recipe
from reasontrain.rng import Stream
from reasontrain.tasks import Task
from reasontrain.types import Batch, TokenKind
from tests.learner.soft_batch import SEED, batch, changed, ones, rollouts
from tests.tiny import policy

AVERAGE = LOSS_AGGREGATIONS["seq_mean_token_sum"]


def learner(
    model: Policy, *, budget: int = 10_000, layout: Layout = "padded", lr: float = 0.01
) -> PolicyLearner:
    return compose_learner(
        model,
        LearnSettings(lr=lr, rollouts_per_step=9, micro_batch_tokens=budget, layout=layout),
        steps=10,
    )


def learn(
    model: Policy,
    data: Batch,
    weight_BT: Tensor | None = None,
    objective: Objective | None = None,
    **more: object,
) -> tuple[Mapping[str, float], dict[str, Tensor]]:
    """What a step measures, and its gradient."""
    model.model.zero_grad()
    given = ones(data) if weight_BT is None else weight_BT
    stats = learner(model, **more).gradient(data, given, objective or SoftReinforce(), AVERAGE)
    return stats, {
        name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None
    }


def naive(model: Policy, data: Batch) -> tuple[float, dict[str, Tensor]]:
    """-(1 / BG) sum A log pi by autograd over plain logits, of soft tokens as independent normal
    numbers, without prefill.
    """
    model.model.zero_grad()
    embed, total = model.model.get_input_embeddings(), torch.zeros(())
    for row, length in enumerate(data.length_B.tolist()):
        ids, kinds, law = (
            data.ids_BT[row, :length],
            data.kind_BT[row, :length],
            data.soft[int(data.rollout_B[row])],
        )
        embeds = embed(ids)
        embeds = torch.where((kinds == TokenKind.SOFT)[:, None], fill(kinds, law.fed()), embeds)
        logits = model.model(inputs_embeds=embeds[None], use_cache=False).logits[0]
        scale = float((embed(ids[:1]).norm() / embed.weight[ids[0]].norm()).detach())
        mean = scale * (logits / law.tau).softmax(-1) @ embed.weight
        for t in range(1, length):
            if kinds[t] == TokenKind.SOFT:
                health = (embeds[t].detach() - mean[t - 1]).square().sum() / law.sigma**2
                logp = (mean.shape[1] - health) / 2
            elif kinds[t] == TokenKind.RESPONSE:
                logp = logits[t - 1].log_softmax(-1)[ids[t]]
            else:
                continue
            total = total - data.advantage_B[row] * logp / len(data.rollout_B)
    total.backward()
    return float(total.detach()), {
        name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None
    }


def fill(kinds: Tensor, fed: Tensor) -> Tensor:
    """The embeddings at their places, zero elsewhere."""
    filled = torch.zeros(len(kinds), fed.shape[1])
    filled[kinds == TokenKind.SOFT] = fed.float()
    return filled


def assert_close_to(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], share: float = 1e-4
) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert float((found[name] - gradient).norm()) <= share * float(gradient.norm()) + 1e-6, name


# ---- the whole loss, by plain means


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gemma", "mistral"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_loss_and_gradient_are_those_of_plain_logits(
    architecture: str, tied: bool, layout: Layout
) -> None:
    model = policy(architecture, tied=tied, seed=3)
    data = batch(model)
    stats, found = learn(model, data, layout=layout, budget=60)
    loss, expected = naive(model, data)
    assert stats["loss"] == pytest.approx(loss, rel=1e-4)
    assert_close_to(found, expected)


def test_checkpointing_draws_nothing_anew() -> None:
    plain, saving = policy(seed=3), policy(seed=3, checkpointing=True)
    data = batch(plain)
    (stats, found), (other, expected) = learn(saving, data), learn(plain, data)
    assert stats["loss"] == pytest.approx(other["loss"], rel=1e-6)
    assert_close_to(found, expected, 1e-5)


# ---- 4: replay


@pytest.mark.parametrize("kind", ["soft", "fuzzy"])
def test_replay_finds_the_noise_that_was_drawn(kind: str) -> None:
    """The density of every soft row is that of its keyed noise: (D - |eps|^2) / 2."""
    model = policy(seed=3)
    data = batch(model, kind)
    size = model.basis.weight_VD.shape[1]
    for row in range(len(data.rollout_B)):
        soft_T = data.kind_BT[row] == TokenKind.SOFT
        place_T1 = torch.arange(int(soft_T.sum()))[:, None]
        noise = rng.normal(
            SEED,
            Stream.SOFT_TOKEN_NOISE,
            int(data.rollout_B[row]),
            place_T1,
            torch.arange(size)[None],
        )
        weight_BT = torch.zeros(data.ids_BT.shape)
        weight_BT[row] = soft_T.float()
        stats, _ = learn(
            model, replace(data, advantage_B=torch.ones(len(data.rollout_B))), weight_BT
        )
        expected = (size - noise.square().sum(1)) / 2
        assert stats["loss"] * len(data.rollout_B) == pytest.approx(
            -float(expected.sum()), abs=2e-3
        )
        assert stats["soft_health"] == pytest.approx(float(noise.square().mean()), abs=1e-5)


@pytest.mark.parametrize("kind", ["soft", "fuzzy"])
def test_health_is_one_and_a_shift_by_one_position_is_seen(kind: str) -> None:
    """The sheet: 1 +- sqrt(2 / (D n)); an off-by-one replay gives about 1 + 2 / gamma^2 = 19.4 for
    tokens that differ.
    """
    model = policy(seed=3)
    data = batch(
        model, kind, num=12, tau=0.02 if kind == "soft" else 1e-4
    )  # a flat mixture is the same one position on
    num = int((data.kind_BT == TokenKind.SOFT).sum()) * model.basis.weight_VD.shape[1]
    stats, _ = learn(model, data)
    assert stats["soft_health"] == pytest.approx(1, abs=5 * math.sqrt(2 / num))
    assert alarm(dict(stats)) is None
    shifted = data
    for rollout in data.soft:
        shifted = changed(shifted, rollout, lambda fed: fed.roll(1, 0))
    sick, _ = learn(model, shifted)
    assert 5 < sick["soft_health"] < 25
    assert f"soft_health is {sick['soft_health']:.3f}, above 1.05" in (alarm(dict(sick)) or "")


@pytest.mark.parametrize(("health", "warns"), [(1.0, False), (1.04, False), (1.06, True)])
def test_the_alarm_goes_off_at_one_twentieth(health: float, warns: bool) -> None:
    assert (alarm({"soft_health": health}) is not None) == warns


def test_shares_of_rows_with_a_score() -> None:
    model = policy(seed=3)
    assert learn(model, batch(model, "soft"))[0]["soft_scored"] == 1.0
    assert learn(model, batch(model, "fuzzy"))[0]["soft_scored"] < 0.2


# ---- 5: what was fed is a fixed action


def test_no_gradient_reaches_what_was_fed() -> None:
    model = policy(seed=3)
    data = batch(model)
    leaves = {rollout: law.fed().clone().requires_grad_() for rollout, law in data.soft.items()}
    watched = data
    for rollout, leaf in leaves.items():
        watched = changed(watched, rollout, lambda _, leaf=leaf: leaf)
    learn(model, watched)
    assert all(leaf.grad is None for leaf in leaves.values())


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_a_step_of_thought_changes_nothing_before_it(layout: Layout) -> None:
    model = policy(seed=3)
    data = batch(model)
    row = int((data.kind_BT == TokenKind.SOFT).sum(1).argmax())
    soft_T = (data.kind_BT[row] == TokenKind.SOFT).nonzero()[:, 0]
    middle = len(soft_T) // 2
    other = changed(
        data, int(data.rollout_B[row]), lambda fed: torch.cat([fed[:middle], fed[middle:] + 0.01])
    )
    before_BT, after_BT = (ones(data) * 0 for _ in range(2))
    before_BT[row, soft_T[:middle]], after_BT[row, soft_T[middle + 1 :]] = 1.0, 1.0
    (same, one), (again, two) = (
        learn(model, some, before_BT, layout=layout) for some in (data, other)
    )
    assert same["loss"] == pytest.approx(again["loss"], rel=1e-6)
    assert_close_to(one, two, 1e-5)
    assert learn(model, data, after_BT)[0]["loss"] != learn(model, other, after_BT)[0]["loss"]


# ---- 6: credit


def test_advantages_are_those_of_the_others_and_sum_to_zero() -> None:
    """Rewards 0, 10, 100: 0 - 55, 10 - 50, 100 - 5; that is 3 / 2 of (r - 110 / 3)."""
    data = batch(policy(seed=3))
    by_reward = {float(r): float(a) for r, a in zip(data.reward_B, data.advantage_B, strict=True)}
    assert by_reward == pytest.approx({0.0: -55.0, 10.0: -40.0, 100.0: 95.0})
    for group in data.group_B.unique():
        assert float(data.advantage_B[data.group_B == group].sum()) == pytest.approx(0, abs=1e-4)


def test_equal_rewards_teach_nothing_and_larger_ones_more() -> None:
    model = policy(seed=3)
    given = rollouts(model)
    data = collate(given, advantage=LeaveOneOut())
    equal = collate([replace(r, reward=7.0) for r in given], advantage=LeaveOneOut())
    double = collate([replace(r, reward=2 * r.reward) for r in given], advantage=LeaveOneOut())
    assert all(bool((gradient == 0).all()) for gradient in learn(model, equal)[1].values())
    once, twice = learn(model, data)[1], learn(model, double)[1]
    assert_close_to(twice, {name: 2 * gradient for name, gradient in once.items()}, 1e-5)


# ---- 8: masks


def test_prompt_prefill_padding_and_masked_rollouts_have_no_weight() -> None:
    model = policy(seed=3)
    given = rollouts(model)
    data = collate(given, advantage=LeaveOneOut())
    for row, rollout in enumerate(given):
        kinds = [TokenKind.PROMPT] * len(rollout.prompt_ids) + list(rollout.kinds)
        kinds += [TokenKind.PAD] * (data.ids_BT.shape[1] - len(kinds))
        assert data.kind_BT[row].tolist() == kinds
        assert data.is_response_BT[row].tolist() == [
            kind in (TokenKind.SOFT, TokenKind.RESPONSE) for kind in kinds
        ]
    masked = collate(given, advantage=LeaveOneOut(), masked=frozenset({given[0].id}))
    assert not masked.is_response_BT[0].any()
    weight_BT = ones(data)
    weight_BT[0] = 0
    (one, first), (other, second) = learn(model, masked), learn(model, data, weight_BT)
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    assert_close_to(first, second, 1e-5)


def test_the_shadow_is_not_fed() -> None:
    """Its ids may be anything: only what was fed counts."""
    model = policy(seed=3)
    data = batch(model)
    other = replace(data, ids_BT=torch.where(data.kind_BT == TokenKind.SOFT, 7, data.ids_BT))
    (one, first), (two, second) = learn(model, data), learn(model, other)
    assert one == two
    assert all(torch.equal(first[name], second[name]) for name in first)


# ---- 9: hard thoughts


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_hard_thoughts_are_plain_reinforce_bit_for_bit(layout: Layout) -> None:
    model = policy(seed=3)
    data = batch(model, "hard")
    assert data.soft == {}
    assert not (data.kind_BT == TokenKind.SOFT).any()
    (soft, ours), (plain, theirs) = (
        learn(model, data, objective=objective, layout=layout)
        for objective in (SoftReinforce(), Reinforce())
    )
    assert soft == plain
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert soft["loss"] == pytest.approx(naive_tokens(model, data), rel=1e-4)


@torch.no_grad()
def naive_tokens(model: Policy, data: Batch) -> float:
    """-(1 / BG) sum A log p over every token that the policy chose."""
    total = 0.0
    for row, length in enumerate(data.length_B.tolist()):
        logp = (
            model.model(data.ids_BT[row : row + 1, :length], use_cache=False)
            .logits[0]
            .double()
            .log_softmax(-1)
        )
        taken = logp[:-1].gather(1, data.ids_BT[row, 1:length, None])[:, 0]
        total -= float(data.advantage_B[row]) * float(
            taken[data.is_response_BT[row, 1:length]].sum()
        )
    return total / len(data.rollout_B)


# ---- 10: micro-batches


@settings(max_examples=8)
@given(
    budget=integers(1, 200),
    layout=sampled_from(["padded", "packed"]),
    kind=sampled_from(["soft", "fuzzy"]),
)
def test_micro_batches_and_packing_never_change_the_gradient(
    budget: int, layout: Layout, kind: str
) -> None:
    model = policy(seed=3)
    data = batch(model, kind, gamma=0.5)
    (whole, expected), (pack_micro_batches, found) = (
        learn(model, data),
        learn(model, data, budget=budget, layout=layout),
    )
    assert pack_micro_batches["loss"] == pytest.approx(whole["loss"], rel=1e-4)
    assert_close_to(
        found, expected, 2e-4 if kind == "soft" else 1e-2
    )  # at tau 1e-4 rounding of the logits is 1e4 times as large


# ---- what learns


def test_steps_raise_the_density_of_what_earned_more() -> None:
    model = policy(seed=3)
    used, data = learner(model, lr=1e-3), batch(model)
    losses = [used.step(data, ones(data), SoftReinforce(), AVERAGE)["loss"] for _ in range(3)]
    assert losses[2] < losses[1] < losses[0]


def test_evidence_sees_what_was_fed() -> None:
    """Entropy at a row depends on the embeddings before it."""
    model = policy(seed=3)
    data = batch(model)
    rollout = int(data.rollout_B[0])
    first, second = (
        learner(model).observe(some, frozenset({"entropy"})).entropy_BT
        for some in (data, changed(data, rollout, lambda fed: fed + 0.05))
    )
    assert not torch.equal(first[0], second[0])
    assert_close(first[1:], second[1:], rtol=0, atol=1e-5)


# ---- 11: sigma


def recipe(path: str) -> Recipe:
    sample = {
        "group_size": 2,
        "max_tokens": 40,
        "thought": {"kind": "soft", "max_tokens": 8, "max_answer_tokens": 4},
    }
    return build(
        Recipe,
        {
            "name": "soft",
            "steps": 4,
            "model": {"path": path},
            "task": {"kind": "arithmetic"},
            "sample": sample,
            "advantage": {"kind": "leave_one_out"},
            "objective": {"kind": "soft_reinforce"},
            "loss_aggregation": "seq_mean_token_sum",
            "learn": {"lr": 0.05, "rollouts_per_step": 6},
        },
        "test",
    )


def rms_in_use(model: Policy, task: Task) -> float:
    """Root mean square of the embeddings of the ids in prompts and solutions, one at a time."""
    problems = task.problems()
    ids = [
        index
        for problem in [problems[i] for i in range(0, len(problems), len(problems) // 512)]
        for text in (str(problem.prompt), problem.solution)
        for index in model.tokenizer.encode(text, add_special_tokens=False)
    ]
    rows_ND = model.model.get_input_embeddings().weight.detach()[ids].double()
    return float(rows_ND.square().mean().sqrt())


def test_sigma_follows_the_ids_in_use_and_both_figures_are_stored(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Rows that never occur change the mean over all tokens and not the noise."""
    task = recipe("testbed:noisy").task
    problems = [task.problems()[i] for i in range(40)]
    used = models.load(ModelSettings(path="testbed:noisy"))
    used.measure_ids_in_use(problems)
    grown = models.load(ModelSettings(path="testbed:noisy"))
    occurring = {
        index
        for problem in problems
        for text in (str(problem.prompt), problem.solution)
        for index in grown.tokenizer.encode(text, add_special_tokens=False)
    }
    others = [i for i in range(grown.input_space.num_tokens) if i not in occurring]
    assert len(others) > 300
    with torch.no_grad():
        grown.model.get_input_embeddings().weight[others] *= 10
    grown = Policy(grown.model, grown.tokenizer)  # as if loaded with these weights
    before = grown.input_space.rms
    grown.measure_ids_in_use(problems)
    assert grown.input_space.rms == used.input_space.rms < 0.13
    assert grown.input_space.rms_of_all == before > 2
    assert f"over the {len(occurring)} ids in use" in caplog.text
    grown.model.save_pretrained(tmp_path)
    grown.tokenizer.save_pretrained(tmp_path)
    saved = models.load(ModelSettings(path=str(tmp_path)))
    saved.measure_ids_in_use([])  # a run that starts from it keeps the unit of the first
    assert saved.input_space == grown.input_space


def test_sigma_is_that_of_the_weights_that_training_began_with(tmp_path: Path) -> None:
    first = make_learner(recipe("testbed:noisy"))
    weight_VD = first.policy.model.get_input_embeddings().weight
    began = rms_in_use(first.policy, recipe("testbed:noisy").task)
    assert first.policy.input_space.rms == pytest.approx(began, rel=1e-6)
    data = batch(first.policy, gamma=0.5)
    assert next(iter(data.soft.values())).sigma == pytest.approx(0.5 * began, rel=1e-6)
    for _ in range(2):
        first.step(data, ones(data), SoftReinforce(), AVERAGE)
    assert abs(rms_in_use(first.policy, recipe("testbed:noisy").task) - began) > 1e-4  # it moved
    first.save(tmp_path / "checkpoint")
    first.export(tmp_path / "final")

    resumed = make_learner(recipe("testbed:noisy"))
    resumed.restore(tmp_path / "checkpoint")
    assert torch.equal(resumed.policy.model.get_input_embeddings().weight, weight_VD)
    others = [make_learner(recipe(str(tmp_path / name))) for name in ("checkpoint", "final")]
    evaluated = models.load(ModelSettings(path=str(tmp_path / "final")))
    for found in (resumed.policy, *(other.policy for other in others), evaluated):
        assert next(iter(batch(found, gamma=0.5).soft.values())).sigma == pytest.approx(
            0.5 * began, rel=1e-6
        )


def test_padding_rows_of_the_embedding_count_for_nothing() -> None:
    model = policy(vocab_size=520)
    weight_VD = model.model.get_input_embeddings().weight
    with torch.no_grad():
        weight_VD[512:] = 1e3
    found = Policy(model.model, model.tokenizer).input_space
    assert (found.num_tokens, found.scale) == (512, pytest.approx(1.0))
    assert found.rms == pytest.approx(
        float(weight_VD[:512].detach().square().mean().sqrt()), rel=1e-5
    )


def test_models_that_scale_their_embeddings_are_measured() -> None:
    """Gemma multiplies by sqrt(D) = sqrt(32)."""
    model = policy("gemma")
    assert model.input_space.scale == pytest.approx(math.sqrt(32), rel=1e-5)
    embedded = model.embed(torch.arange(512)[None])
    assert model.input_space.rms == pytest.approx(
        float(embedded.detach().square().mean().sqrt()), rel=1e-5
    )
    assert_close(
        model.basis.mix(torch.eye(512)[:5]), embedded[0, :5].detach(), rtol=1e-5, atol=1e-6
    )
