"""Several optimiser steps on one batch: mini-batches, ratios, clips, rates, kills."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS, token_mean
from reasontrain.algo.objectives import Dpo, Grpo, Objective
from reasontrain.data.micro_batches import make_mini_batches
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.policy_learner import PolicyLearner, combined
from reasontrain.learner.policy_module import UnshardedModel
from reasontrain.models import Policy
from reasontrain.recipe import LearnSettings
from reasontrain.recipe.learning import AdamW
from reasontrain.types import Batch, Stats
from tests.tiny import batch, pairs, policy

LR = 0.02
TEMPERATURE = 0.7


def learner(model: Policy, **changes: object) -> PolicyLearner:
    """Its epsilon keeps AdamW from making a step of the rounding in a gradient of zero."""
    settings = LearnSettings(
        lr=LR, rollouts_per_step=8, optimizer=AdamW(eps=1e-3), micro_batch_tokens=50
    )
    return compose_learner(
        model,
        replace(settings, **changes),
        steps=3,
        temperature=TEMPERATURE,
        reference=UnshardedModel(policy(seed=6)),
    )


def rollouts(step: int = 0) -> Batch:
    return replace(batch(num=8, seed=step), evidence={}, step=step)


def take_step(used: PolicyLearner, data: Batch) -> Stats:
    seen = used.observe(data, frozenset({"old_logp"}))
    return used.step(seen, data.is_response_BT.float(), Grpo(), token_mean)


def weights(used: PolicyLearner) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in used.policy.model.named_parameters()}


def logp(model: Policy, data: Batch, index: int) -> Tensor:
    """Log-probs of the response of one rollout, by plain transformers without padding."""
    length = int(data.length_B[index])
    ids_T = data.ids_BT[index, :length]
    logits_TV = model.model(ids_T[None]).logits[0] / TEMPERATURE
    logp_T = logits_TV.log_softmax(-1)[:-1].gather(1, ids_T[1:, None])[:, 0]
    return logp_T[data.is_response_BT[index, 1:length]]


# ---- mini-batches


@pytest.mark.parametrize("num", [1, 2, 3, 8, 11])
def test_each_rollout_is_in_one_mini_batch_and_parts_are_nearly_equal(num: int) -> None:
    parts = make_mini_batches(rollouts(), num, micro_batch_tokens=50, layout="packed")
    assert sorted(i for part in parts for i in part.index_M.tolist()) == list(range(8))
    sizes = [len(part.index_M) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    for part in parts:
        fed = [i for micro in part.micro_batches for i in micro.index_K.tolist()]
        assert sorted(fed) == part.index_M.tolist()


def test_pairs_stay_whole() -> None:
    for part in make_mini_batches(pairs(6), 3, micro_batch_tokens=50, layout="padded"):
        assert len(part.index_M) == 4
        assert (part.index_M[1::2] == part.index_M[::2] + 1).all()
        assert (part.index_M[::2] % 2 == 0).all()


def test_rollouts_are_dealt_out_by_seed_and_step_alone() -> None:
    def dealt(seed: int, step: int) -> list[list[int]]:
        data = replace(batch(num=8, seed=17 * step), seed=seed, step=step)
        parts = make_mini_batches(data, 4, micro_batch_tokens=50, layout="padded")
        return [part.index_M.tolist() for part in parts]

    torch.manual_seed(1)
    first = dealt(3, 5)
    torch.manual_seed(2)
    assert dealt(3, 5) == first
    assert dealt(3, 6) != first
    assert dealt(4, 5) != first


# ---- the updates themselves


@pytest.mark.parametrize(("updates", "epochs"), [(4, 1), (4, 2), (2, 2)])
def test_updates_are_those_of_a_plain_loop(updates: int, epochs: int) -> None:
    """Plain transformers, torch's AdamW and the formula of GRPO, mini-batch by mini-batch."""
    data = rollouts()
    stats = take_step(
        used := learner(policy(seed=1), updates_per_batch=updates, epochs_per_batch=epochs), data
    )
    parts = make_mini_batches(data, updates // epochs, micro_batch_tokens=10**6, layout="padded")
    model = policy(seed=1)
    optimizer = torch.optim.AdamW(model.model.parameters(), lr=LR, eps=1e-3, weight_decay=0.0)
    with torch.no_grad():
        old = [logp(model, data, i) for i in range(8)]
    clipped_shares = []
    for number, part in enumerate(parts * epochs, start=1):
        optimizer.zero_grad()
        losses, ratios, clipped = [], [], []
        for i in part.index_M.tolist():
            ratio_T = (logp(model, data, i) - old[i]).exp()
            advantage = data.advantage_B[i]
            plain_T = ratio_T * advantage
            bounded_T = ratio_T.clamp(0.8, 1.2) * advantage
            losses.append(-torch.minimum(plain_T, bounded_T))
            ratios.append(ratio_T.detach())
            clipped.append((bounded_T < plain_T).float())
        loss = torch.cat(losses).mean()  # over the tokens of this mini-batch alone
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.model.parameters(), 1.0)
        optimizer.step()
        clipped_shares.append(float(torch.cat(clipped).mean()))
        assert stats[f"loss_update_{number}"] == pytest.approx(float(loss.detach()), abs=2e-5)
        assert stats[f"ratio_update_{number}"] == pytest.approx(
            float(torch.cat(ratios).mean()), rel=1e-4
        )
        assert stats[f"grad_norm_update_{number}"] == pytest.approx(float(norm.detach()), rel=1e-3)
        assert stats[f"clipped_update_{number}"] == pytest.approx(clipped_shares[-1], abs=1e-6)
    assert stats["clipped_update_1"] == 0
    assert stats["ratio_update_1"] == pytest.approx(1, abs=1e-5)
    assert stats["clipped"] == pytest.approx(sum(clipped_shares) / updates, abs=1e-6)
    assert stats["clipped"] > 0
    for name, parameter in model.model.named_parameters():
        assert_close(weights(used)[name], parameter.detach(), rtol=1e-4, atol=2e-5)


def test_a_batch_in_one_update_is_one_update_on_the_batch() -> None:
    stats = take_step(learner(policy(seed=1)), rollouts())
    assert stats["optimizer_steps"] == 1
    assert not [name for name in stats if "_update_" in name]


def test_the_rate_counts_optimiser_steps() -> None:
    """Three batches of two updates: warm-up over two of six, then linear down to zero."""
    used = learner(policy(seed=1), updates_per_batch=2, warmup_steps=2, schedule="linear")
    rates, last, done = [], [], []
    for step in range(3):
        stats = take_step(used, rollouts(step))
        rates += [stats["lr_update_1"], stats["lr_update_2"]]
        last.append(stats["lr"])
        done.append((used.weights().version, stats["optimizer_steps"]))
    expected = [LR * share for share in (1 / 3, 2 / 3, 1.0, 0.75, 0.5, 0.25)]
    assert rates == pytest.approx(expected)
    assert last == rates[1::2]
    assert done == [(1, 2), (2, 4), (3, 6)]


@pytest.mark.parametrize("name", sorted(set(LOSS_AGGREGATIONS) - {"pair_mean"}))
def test_every_denominator_is_of_the_mini_batch(name: str) -> None:
    """Equal copies of one rollout: each mini-batch has the mean of the whole batch."""
    one = rollouts().take(torch.zeros(8, dtype=torch.long))
    data = replace(
        one,
        rollout_B=torch.arange(8),
        sampled_rollouts=16,
        sampled_tokens=16 * int(one.is_response_BT[0].sum()),
    )
    data = data.with_evidence({"old_logp": torch.zeros(data.ids_BT.shape)})
    weight_BT = data.is_response_BT.float()
    whole, split = (
        learner(policy(seed=1), lr=1e-30, updates_per_batch=num).step(
            data, weight_BT, Grpo(), LOSS_AGGREGATIONS[name]
        )
        for num in (1, 4)
    )
    for number in range(1, 5):
        assert split[f"loss_update_{number}"] == pytest.approx(whole["loss"], rel=1e-5)
        assert split[f"grad_norm_update_{number}"] == pytest.approx(whole["grad_norm"], rel=1e-4)


def test_pairs_are_learned_from_in_several_updates() -> None:
    used = learner(policy(seed=1), updates_per_batch=3)
    data = used.observe(pairs(6), frozenset({"ref_logp"}))
    objective: Objective = Dpo()
    before = weights(used)
    stats = used.step(data, data.is_response_BT.float(), objective, LOSS_AGGREGATIONS["pair_mean"])
    assert all(stats[f"grad_norm_update_{number}"] > 0 for number in (1, 2, 3))
    assert any(not torch.equal(before[name], tensor) for name, tensor in weights(used).items())


def test_more_updates_than_rollouts_leave_some_without_any() -> None:
    used = learner(policy(seed=1), updates_per_batch=4)
    data = replace(batch(num=2), evidence={})
    stats = take_step(used, data)
    norms = [stats[f"grad_norm_update_{number}"] for number in (1, 2, 3, 4)]
    assert sum(norm == 0 for norm in norms) == 2
    assert stats["ratio"] == pytest.approx(1, abs=0.2)  # a mean of the two that have one


def test_numbers_of_a_batch_are_combined() -> None:
    updates: list[Stats] = [
        {"loss": 1.0, "ratio": 1.0, "lr": 0.1, "skipped": 0.0, "nonfinite_in_a_row": 0.0},
        {"loss": 9.0, "lr": 0.3, "skipped": 1.0, "nonfinite_in_a_row": 1.0},
        {"loss": 0.0, "lr": 0.3, "skipped": 0.0, "nonfinite_in_a_row": 1.0},
        {"loss": 3.0, "lr": 0.2, "skipped": 0.0, "nonfinite_in_a_row": 0.0},
    ]
    # the second was skipped and the third had no loss: neither has a part in the mean of losses
    assert combined(updates, [True, True, False, True]) == {
        "loss": 2.0,
        "ratio": 1.0,
        "lr": 0.2,
        "skipped": 1.0,
        "empty_updates": 1.0,
        "nonfinite_in_a_row": 1.0,
        "loss_update_1": 1.0,
        "ratio_update_1": 1.0,
        "lr_update_1": 0.1,
        "loss_update_2": 9.0,
        "lr_update_2": 0.3,
        "loss_update_3": 0.0,
        "lr_update_3": 0.3,
        "loss_update_4": 3.0,
        "lr_update_4": 0.2,
    }


# ---- checkpoints


def test_resumed_between_batches_or_killed_inside_one_it_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(seed: int) -> PolicyLearner:
        return learner(policy(seed=seed), updates_per_batch=4, epochs_per_batch=2)

    straight = begin(1)
    expected = [take_step(straight, rollouts(step))["loss"] for step in range(3)]

    used = begin(1)
    take_step(used, rollouts(0))
    used.save(tmp_path)
    inner, calls = used.engine.update, []

    def killed(share: float) -> float:
        calls.append(share)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return inner(share)

    monkeypatch.setattr(used.engine, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        take_step(used, rollouts(1))
    assert used.steps_done is None  # two of four updates are of no step
    with pytest.raises(AssertionError, match="between two updates"):
        used.weights()

    again = begin(2)
    again.restore(tmp_path)
    assert again.steps_done == 1
    assert [take_step(again, rollouts(step))["loss"] for step in (1, 2)] == expected[1:]
    for name, tensor in weights(straight).items():
        assert torch.equal(weights(again)[name], tensor), name
