"""D3S at the learner: GRPO and GSPO on some of the tokens of some of the rollouts, against plain
logits and whatever the cut.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers, sampled_from
from torch import Tensor
from torch.testing import assert_close

from reasontrain.algo.advantages import GroupNormalized
from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import Grpo, Gspo
from reasontrain.algo.token_selection import (
    AdvantageEntropy,
    AllTokens,
    LinearSchedule,
    MaxVariance,
    TopEntropy,
)
from reasontrain.data.micro_batches import Layout
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.policy_learner import PolicyLearner
from reasontrain.models import Policy
from reasontrain.recipe import LearnSettings
from reasontrain.types import Batch
from tests.tiny import batch, policy

OBJECTIVES = {
    "grpo": Grpo(clip_low=0.2, clip_high=0.28),
    "gspo": Gspo(clip_low=0.02, clip_high=0.03),
}
AVERAGES_HERE = ("token_mean", "sampled_token_mean", "seq_mean_token_mean")
TOKENS = AdvantageEntropy(keep_ratio=LinearSchedule(init=0.4))
ROLLOUTS = MaxVariance(keep_ratio=LinearSchedule(init=0.5))
Found = tuple[float, dict[str, Tensor]]


def learner(model: Policy, *, budget: int = 10_000, layout: Layout = "padded") -> PolicyLearner:
    settings = LearnSettings(lr=0.05, rollouts_per_step=8, micro_batch_tokens=budget, layout=layout)
    return compose_learner(model, settings, steps=10, temperature=0.7)


def step(model: Policy, seed: int = 0, *, num: int = 8) -> Batch:
    """Two groups with advantages, and old log-probs that are near the policy's own, so that some
    ratios are clipped.
    """
    data = batch(seed=seed, num=num)
    group_B = torch.arange(num) // (num // 2)
    reward_B = torch.rand(num, generator=torch.Generator().manual_seed(seed))
    data = replace(
        data,
        group_B=group_B,
        reward_B=reward_B,
        advantage_B=GroupNormalized()(reward_B, group_B),
        evidence={},
    )
    now = learner(model).observe(data, frozenset({"old_logp", "entropy"}))
    moved_BT = 0.2 * torch.randn(
        now.ids_BT.shape, generator=torch.Generator().manual_seed(seed + 1)
    )
    return now.with_evidence({"old_logp": now.old_logp_BT + moved_BT})


def run(
    model: Policy,
    data: Batch,
    weight_BT: Tensor,
    objective: Grpo | Gspo,
    loss_aggregation: str,
    **options: object,
) -> Found:
    model.model.zero_grad()
    stats = learner(model, **options).gradient(
        data, weight_BT, objective, LOSS_AGGREGATIONS[loss_aggregation]
    )
    return stats["loss"], {
        name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None
    }


def assert_same(found: Found, expected: Found, *, atol: float = 1e-6) -> None:
    assert found[0] == pytest.approx(expected[0], abs=atol)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert_close(
            found[1][name], gradient, rtol=1e-4, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


def plain(
    model: Policy, data: Batch, weight_BT: Tensor, objective: Grpo | Gspo, loss_aggregation: str
) -> Found:
    """One sequence at a time, with torch's own functions over whole logits; the ratio of a sequence
    is over all its tokens.
    """
    model.model.zero_grad()
    coefficient_BT = LOSS_AGGREGATIONS[loss_aggregation](weight_BT, data.totals(weight_BT))
    total = torch.zeros(())
    for row, length in enumerate(data.length_B.tolist()):
        logits_TV = (
            model.model(data.ids_BT[row : row + 1, :length], use_cache=False).logits[0, :-1] / 0.7
        )
        logp_T = torch.distributions.Categorical(logits=logits_TV).log_prob(
            data.ids_BT[row, 1:length]
        )
        among_T = data.is_response_BT[row, 1:length]
        logp_N, old_N = logp_T[among_T], data.old_logp_BT[row, 1:length][among_T]
        ratio_N = (logp_N - old_N).exp()
        if isinstance(
            objective, Gspo
        ):  # its value is the sequence's, its slope along each log-prob too (GSPO, eq. 14)
            ratio_N = (logp_N - old_N).mean().exp().detach() * (logp_N - logp_N.detach()).exp()
        advantage = data.advantage_B[row]
        low, high = 1 - objective.clip_low, 1 + objective.clip_high
        loss_N = -torch.minimum(advantage * ratio_N, advantage * ratio_N.clip(low, high))
        total = total + (coefficient_BT[row, 1:length][among_T] * loss_N).sum()
    total.backward()
    return float(total.detach()), {
        n: p.grad.clone() for n, p in model.model.named_parameters() if p.grad is not None
    }


each_objective = pytest.mark.parametrize("name", OBJECTIVES)


@each_objective
@pytest.mark.parametrize("loss_aggregation", AVERAGES_HERE)
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_on_some_tokens_of_some_rollouts_it_is_that_of_plain_logits(
    name: str, loss_aggregation: str, layout: Layout
) -> None:
    """D3S sheet, tests 9 and 11: the ratio is of the whole response, and a token that is not kept
    has no gradient of its own.
    """
    model = policy(seed=1)
    data = ROLLOUTS(step(model))
    weight_BT = TOKENS(data)
    assert 0 < int((weight_BT != 0).sum()) < int(data.is_response_BT.sum())
    assert len(data.rollout_B) == 4
    found = run(
        model, data, weight_BT, OBJECTIVES[name], loss_aggregation, budget=40, layout=layout
    )
    assert_same(found, plain(model, data, weight_BT, OBJECTIVES[name], loss_aggregation))


@each_objective
@settings(max_examples=8)
@given(
    seed=integers(0, 10_000),
    budget=integers(1, 200),
    layout=sampled_from(["padded", "packed"]),
    pad=integers(0, 5),
)
def test_micro_batches_padding_and_packing_change_nothing(
    name: str, seed: int, budget: int, layout: Layout, pad: int
) -> None:
    """D3S sheet, test 9: the same rollouts, the same tokens and the same gradient."""
    model = policy(seed=1)
    sampled = step(model, seed)
    wide = replace(
        sampled,
        ids_BT=torch.nn.functional.pad(sampled.ids_BT, (0, pad)),
        kind_BT=torch.nn.functional.pad(sampled.kind_BT, (0, pad)),
        evidence={},
    )
    data = ROLLOUTS(sampled)
    seen = learner(model, budget=budget, layout=layout).observe(
        ROLLOUTS(wide), frozenset({"entropy"})
    )
    weight_BT = TOKENS(data)
    other_BT = TOKENS(seen)
    assert torch.equal(seen.rollout_B, data.rollout_B)
    assert torch.equal(other_BT, torch.nn.functional.pad(weight_BT, (0, pad)))
    seen = seen.with_evidence({"old_logp": torch.nn.functional.pad(data.old_logp_BT, (0, pad))})
    found = run(model, seen, other_BT, OBJECTIVES[name], "token_mean", budget=budget, layout=layout)
    assert_same(found, run(model, data, weight_BT, OBJECTIVES[name], "token_mean"))


@each_objective
@pytest.mark.parametrize(
    "loss_aggregation", ["token_mean", "sampled_token_mean", "response_token_mean"]
)
def test_all_rollouts_and_all_tokens_are_the_plain_objective(
    name: str, loss_aggregation: str
) -> None:
    """D3S sheet, test 7, bit for bit; no token here has |A| H = 0."""
    model = policy(seed=1)
    data = step(model)
    everything = run(model, data, AllTokens()(data), OBJECTIVES[name], loss_aggregation)
    kept = MaxVariance(keep_ratio=LinearSchedule(init=1.0))(data)
    found = run(
        model,
        kept,
        AdvantageEntropy(keep_ratio=LinearSchedule(init=1.0))(kept),
        OBJECTIVES[name],
        loss_aggregation,
    )
    assert found[0] == everything[0]
    assert all(torch.equal(found[1][key], everything[1][key]) for key in everything[1])


@each_objective
def test_a_constant_loss_stays_with_kept_and_shrinks_with_sampled(name: str) -> None:
    """D3S sheet, test 10: ratios of 1 and A = -1 make every loss 1; by the kept it is 1, by the
    sampled the share of tokens.
    """
    model = policy(seed=1)
    data = learner(model).observe(
        replace(step(model), evidence={}), frozenset({"old_logp", "entropy"})
    )
    data = replace(data, advantage_B=torch.full_like(data.advantage_B, -1.0))
    for keep_ratio in (0.1, 0.5, 1.0):
        weight_BT = AdvantageEntropy(keep_ratio=LinearSchedule(init=keep_ratio))(data)
        kept, sampled = (
            run(model, data, weight_BT, OBJECTIVES[name], a)[0]
            for a in ("token_mean", "sampled_token_mean")
        )
        assert kept == pytest.approx(1, abs=1e-5)
        assert sampled == pytest.approx(
            int(keep_ratio * data.sampled_tokens + 1e-6) / data.sampled_tokens, abs=1e-5
        )
    half = data.take(
        torch.arange(4)
    )  # of rollouts that were dropped, the sampled tokens stay in the count
    sampled = run(model, half, half.is_response_BT.float(), OBJECTIVES[name], "sampled_token_mean")[
        0
    ]
    assert sampled == pytest.approx(int(half.is_response_BT.sum()) / data.sampled_tokens, abs=1e-5)


def test_the_ratio_of_a_response_does_not_know_the_selection_and_only_kept_tokens_move_it() -> None:
    """D3S sheet, test 11: cut in two, the parts see one mean log-ratio, and their gradients add up
    to the whole.
    """
    model = policy(seed=1)
    data = step(model)
    mask_BT = torch.rand(data.ids_BT.shape, generator=torch.Generator().manual_seed(3)) < 0.3
    mask_BT[(data.advantage_B > 0)] |= True  # some responses whole, some in part
    parts = [data.is_response_BT & mask_BT, data.is_response_BT & ~mask_BT]
    whole = run(model, data, data.is_response_BT.float(), OBJECTIVES["gspo"], "sampled_token_mean")
    found = [
        run(model, data, part_BT.float(), OBJECTIVES["gspo"], "sampled_token_mean")
        for part_BT in parts
    ]
    assert found[0][0] + found[1][0] == pytest.approx(whole[0], abs=1e-6)
    for key, gradient in whole[1].items():
        assert_close(found[0][1][key] + found[1][1][key], gradient, rtol=1e-4, atol=1e-6)


@each_objective
def test_a_dropped_token_does_nothing_even_where_its_old_log_prob_is_infinite(name: str) -> None:
    model = policy(seed=1)
    data = step(model)
    weight_BT = AdvantageEntropy(keep_ratio=LinearSchedule(init=0.4), top_scope="rollout")(data)
    weight_BT[3:] = 0
    clean = run(model, data, weight_BT, OBJECTIVES[name], "token_mean")
    dropped_BT = torch.zeros_like(data.is_response_BT)
    dropped_BT[3:] = True  # GSPO's ratio reads every token of a response of which one is kept
    if name == "grpo":
        dropped_BT |= weight_BT == 0
    broken = data.with_evidence({"old_logp": torch.where(dropped_BT, -torch.inf, data.old_logp_BT)})
    again = run(model, broken, weight_BT, OBJECTIVES[name], "token_mean")
    assert again[0] == clean[0]
    assert all(torch.equal(again[1][key], clean[1][key]) for key in clean[1])


def test_the_first_ratio_of_a_response_is_one() -> None:
    model = policy(seed=1)
    data = learner(model, budget=40).observe(
        replace(step(model), evidence={}), frozenset({"old_logp"})
    )
    stats = learner(model).gradient(
        data, data.is_response_BT.float(), Gspo(), LOSS_AGGREGATIONS["token_mean"]
    )
    assert stats["ratio"] == pytest.approx(1.0, abs=1e-5)
    assert stats["clipped"] == 0


@each_objective
def test_a_step_of_which_nothing_was_kept_changes_nothing(name: str) -> None:
    """No rollout at all: evidence is of nothing, the weights stay bit for bit, and the schedule
    goes on.
    """
    model = policy(seed=1)
    data = step(model)
    used = learner(model)
    used.step(
        data, data.is_response_BT.float(), OBJECTIVES[name], LOSS_AGGREGATIONS["token_mean"]
    )  # the optimiser has momentum now
    before = {key: value.clone() for key, value in model.model.state_dict().items()}
    nothing = MaxVariance()(replace(data, advantage_B=torch.zeros(8), evidence={}))
    seen = used.observe(nothing, frozenset({"entropy", "old_logp"}))
    stats = used.step(seen, TOKENS(seen), OBJECTIVES[name], LOSS_AGGREGATIONS["token_mean"])
    assert (stats["loss"], stats["grad_norm"], stats["skipped"]) == (0.0, 0.0, 0.0)
    assert all(torch.equal(before[key], value) for key, value in model.model.state_dict().items())
    assert used.steps_done == 2


def test_entropy_is_of_the_policy_before_the_step_at_the_sampling_temperature() -> None:
    model = policy(seed=1)
    data = step(model)
    for row, length in enumerate(data.length_B.tolist()):
        logits_TV = (
            model.model(data.ids_BT[row : row + 1, :length], use_cache=False)
            .logits[0, :-1]
            .double()
            / 0.7
        )
        among_T = data.is_response_BT[row, 1:length]
        expected_N = torch.distributions.Categorical(logits=logits_TV).entropy()[among_T].detach()
        assert_close(
            data.entropy_BT[row, 1:length][among_T].double(), expected_N, rtol=1e-4, atol=2e-5
        )


def test_the_80_20_rule_divided_by_all_is_a_fifth_of_that_divided_by_the_kept() -> None:
    model = policy(seed=1)
    data = step(model)
    weight_BT = TopEntropy(keep_ratio=0.2)(data)
    kept, everything = (
        run(model, data, weight_BT, Grpo(), loss_aggregation)
        for loss_aggregation in ("token_mean", "response_token_mean")
    )
    share = data.totals(weight_BT).kept_tokens / data.totals(weight_BT).response_tokens
    assert share == pytest.approx(0.2, abs=0.02)
    for key, gradient in kept[1].items():
        assert_close(everything[1][key], gradient * share, rtol=1e-4, atol=1e-7)
