"""DPO in the learner: against TRL, against plain logits, and what may change neither loss nor
gradient.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis.strategies import integers, sampled_from
from torch import Tensor
from torch.testing import assert_close
from trl import DPOConfig, DPOTrainer

from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import Dpo
from reasontrain.algo.token_selection import Contrast
from reasontrain.bench.peers import KEEP_ACTIVATIONS
from reasontrain.data.micro_batches import Layout
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.lora import adapt
from reasontrain.learner.policy_learner import PolicyLearner
from reasontrain.learner.policy_module import UnshardedModel
from reasontrain.models import Lora, Policy
from reasontrain.recipe import LearnSettings
from reasontrain.types import Batch
from tests.tiny import pairs, policy

LOSSES = {
    "sequence": Dpo(),
    "position": Dpo(aggregation="position"),
    "released": Dpo(aggregation="position", padded_length=40),
}
NEEDS = frozenset({"ref_logp"})


def learner(
    model: Policy,
    *,
    reference: Policy | None = None,
    budget: int = 10_000,
    layout: Layout = "padded",
) -> PolicyLearner:
    chosen = LearnSettings(lr=0.05, rollouts_per_step=6, micro_batch_tokens=budget, layout=layout)
    return compose_learner(
        model, chosen, steps=10, reference=None if reference is None else UnshardedModel(reference)
    )


def run(
    model: Policy,
    data: Batch,
    objective: Dpo | None = None,
    weight_BT: Tensor | None = None,
    **options: object,
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradient of a step; the reference is measured unless the batch holds it."""
    used = learner(model, **{"reference": policy("qwen3", seed=6)} | options)
    model.model.zero_grad()
    seen = data if "ref_logp" in data.evidence else used.observe(data, NEEDS)
    chosen_BT = Contrast()(seen) if weight_BT is None else weight_BT
    stats = used.gradient(seen, chosen_BT, objective or Dpo(), LOSS_AGGREGATIONS["pair_mean"])
    return stats["loss"], {
        name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None
    }


def assert_same(
    found: tuple[float, dict[str, Tensor]],
    expected: tuple[float, dict[str, Tensor]],
    atol: float = 1e-6,
) -> None:
    assert found[0] == pytest.approx(expected[0], abs=atol, rel=0)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert_close(
            found[1][name], gradient, rtol=1e-4, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


def everything(data: Batch) -> Tensor:
    return data.is_response_BT.float()


def sides(batch: Batch) -> Tensor:
    """Indices of all rollouts, the pairs in another order."""
    return torch.arange(len(batch.rollout_B)).view(-1, 2).flip(0).flatten()


# ---- against others


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_scores_of_zero_give_the_loss_and_gradient_of_trl(beta: float, tmp_path: Path) -> None:
    model, reference, data = policy("qwen3", seed=1), policy("qwen3", seed=6), pairs()
    unscored = replace(data, evidence={"ce_logscore": torch.full(data.ids_BT.shape, -1e30)})
    found = run(model, unscored, Dpo(beta=beta))
    trainer = DPOTrainer(
        model=model.model,
        ref_model=reference.model,
        args=DPOConfig(
            output_dir=str(tmp_path),
            beta=beta,
            loss_type="sigmoid",
            use_cpu=True,
            bf16=False,
            **KEEP_ACTIVATIONS,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=model.tokenizer,
    )
    order = torch.cat(
        [torch.arange(0, 6, 2), torch.arange(1, 6, 2)]
    )  # TRL has all chosen ones first
    inputs = {
        "input_ids": data.ids_BT[order],
        "attention_mask": (data.kind_BT[order] != 0).long(),
        "completion_mask": data.is_response_BT[order].long(),
    }
    model.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, inputs, False)
    loss.backward()
    gradients = {
        name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None
    }
    assert_same(
        found, (float(loss.detach()), gradients), atol=1e-5 * beta
    )  # sums of 1e2 nats, rounded at 1e-5, times beta
    assert float(torch.cat([g.flatten() for g in gradients.values()]).abs().max()) > 1e-3


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_are_those_of_plain_logits(name: str) -> None:
    model, reference, data = policy("qwen3", seed=1), policy("qwen3", seed=6), pairs()
    found = run(model, data, LOSSES[name])
    weight_BT = (
        torch.where(torch.arange(6)[:, None] % 2 == 0, 1.0, -torch.expm1(data.ce_logscore_BT))
        * data.is_response_BT
    )
    weight_BT = torch.where(data.is_response_BT, weight_BT, 0.0)
    model.model.zero_grad()
    losses = []
    for pair in range(3):
        rewards_2T = []
        for row in (2 * pair, 2 * pair + 1):
            length = int(data.length_B[row])
            ids_1T = data.ids_BT[row : row + 1, :length]
            delta_T = logp(model, ids_1T) - logp(reference, ids_1T).detach()
            reward_T = torch.zeros(40)
            reward_T[1:length] = 0.1 * (weight_BT[row, 1:length].nan_to_num() * delta_T)
            rewards_2T.append(reward_T)
        difference_T = rewards_2T[0] - rewards_2T[1]
        either_T = torch.zeros(40, dtype=torch.bool)
        either_T[: data.ids_BT.shape[1]] = (
            data.is_response_BT[2 * pair] | data.is_response_BT[2 * pair + 1]
        )
        loss_T = -torch.nn.functional.logsigmoid(difference_T)
        match name:
            case "sequence":
                losses.append(-torch.nn.functional.logsigmoid(difference_T.sum()))
            case "position":
                losses.append(loss_T[either_T].mean())
            case _:
                losses.append(loss_T[1:].mean())
    loss = torch.stack(losses).mean()
    loss.backward()
    gradients = {
        key: p.grad.clone() for key, p in model.model.named_parameters() if p.grad is not None
    }
    assert_same(found, (float(loss.detach()), gradients), atol=3e-6)


def logp(model: Policy, ids_1T: Tensor) -> Tensor:
    logp_TV = model.model(ids_1T, use_cache=False).logits[0].log_softmax(-1)
    return logp_TV[:-1].gather(1, ids_1T[0, 1:, None])[:, 0]


# ---- what changes nothing


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=8)
@given(
    seed=integers(0, 10_000),
    budget=integers(1, 200),
    layout=sampled_from(["padded", "packed"]),
    pad=integers(0, 5),
)
def test_micro_batches_padding_packing_and_order_never_change_the_gradient(
    name: str, seed: int, budget: int, layout: Layout, pad: int
) -> None:
    model, data = policy(seed=1), pairs(seed=seed)
    other = data.take(sides(data))

    def wide(column: Tensor, value: float = 0.0) -> Tensor:
        return torch.nn.functional.pad(column, (0, pad), value=value)

    other = replace(
        other,
        ids_BT=wide(other.ids_BT),
        kind_BT=wide(other.kind_BT),
        pair_B=torch.arange(6),
        evidence={key: wide(column) for key, column in other.evidence.items()},
    )
    assert_same(
        run(model, other, LOSSES[name], budget=budget, layout=layout),
        run(model, data, LOSSES[name]),
    )


@pytest.mark.parametrize("name", LOSSES)
def test_a_longer_partner_elsewhere_changes_no_pair(name: str) -> None:
    model, data = policy(seed=1), pairs(4, seed=3)
    losses = []
    for index in (torch.tensor([0, 1]), torch.tensor([0, 1, 6, 7])):
        part = data.take(index)
        losses.append(run(model, replace(part, pair_B=torch.arange(len(index))), LOSSES[name]))
    other = run(
        model, replace(data.take(torch.tensor([6, 7])), pair_B=torch.arange(2)), LOSSES[name]
    )
    mean = {key: (losses[0][1][key] + other[1][key]) / 2 for key in other[1]}
    assert_same(losses[1], ((losses[0][0] + other[0]) / 2, mean))


def test_scores_at_prompt_positions_have_no_effect() -> None:
    model, data = policy(seed=1), pairs()
    strange = data.with_evidence(
        {"ce_logscore": torch.where(data.is_response_BT, data.ce_logscore_BT, torch.nan)}
    )
    assert_same(run(model, strange), run(model, data), atol=0)


# ---- what the weights do


def test_an_unmoved_policy_loses_ln_2_and_has_a_gradient_whatever_the_scores() -> None:
    for seed in range(3):
        model = policy(seed=6)
        loss, gradients = run(model, pairs(seed=seed))
        assert loss == pytest.approx(0.693147, abs=2e-6)
        assert max(float(g.abs().max()) for g in gradients.values()) > 1e-3


def test_scores_of_one_leave_the_rejected_side_alone() -> None:
    """The same gradient as a pair whose rejected response is another one of the same length."""
    model, data = policy(seed=1), pairs()
    chosen_BT = everything(data) * (torch.arange(6)[:, None] % 2 == 0)
    other = replace(
        data,
        ids_BT=torch.where(
            chosen_BT.bool() | ~data.is_response_BT, data.ids_BT, data.ids_BT % 50 + 3
        ),
    )
    found = run(model, data, weight_BT=chosen_BT)
    assert_same(run(model, other, weight_BT=chosen_BT), found)
    used = learner(policy(seed=1), reference=policy("qwen3", seed=6))
    seen = used.observe(data, NEEDS)
    margin_P = 0.1 * torch.stack([(sum_of(model, seen, row)) for row in (0, 2, 4)])
    assert found[0] == pytest.approx(
        float(-torch.nn.functional.logsigmoid(margin_P).mean()), abs=1e-6
    )


def sum_of(model: Policy, seen: Batch, row: int) -> Tensor:
    length = int(seen.length_B[row])
    delta_T = (
        logp(model, seen.ids_BT[row : row + 1, :length]).detach() - seen.ref_logp_BT[row, 1:length]
    )
    return delta_T[seen.is_response_BT[row, 1:length]].sum()


def test_the_first_score_moves_the_last_prompt_tokens_row_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of an unmoved policy, so that the margin is 0 whatever the weights, the slope along a row is
    its own weight's alone.
    """
    model, data = policy(seed=6), pairs(1, seed=4)
    start = int((data.kind_BT[1] == 1).sum())  # column of the first response token
    found = []
    for score in (0.2, 0.7):
        logscore_BT = data.ce_logscore_BT.clone()
        logscore_BT[1, start] = torch.tensor(score).log()
        stat_grads: list[Tensor] = []
        hidden = type(model).hidden

        def watched(
            self: Policy, *args: object, hidden=hidden, stat_grads=stat_grads, **options: object
        ) -> Tensor:
            states = hidden(self, *args, **options)
            if states.requires_grad:
                states.register_hook(stat_grads.append)
            return states

        monkeypatch.setattr(type(model), "hidden", watched)
        run(model, data.with_evidence({"ce_logscore": logscore_BT}))
        monkeypatch.setattr(type(model), "hidden", hidden)
        (slope_2TD,) = stat_grads
        found.append(slope_2TD)
    changed = ((found[0] - found[1]).abs().sum(-1) > 1e-7).nonzero().tolist()
    assert changed == [[1, start - 1]]


# ---- the reference


def test_stored_log_probs_adapters_switched_off_and_a_copy_are_one_reference() -> None:
    """At step 0, and after the adapters have moved: all three are the model that the adapters were
    put on.
    """
    data = pairs()
    for moved in (False, True):
        results = []
        for way in ("copy", "off", "stored"):
            model = policy(seed=1)
            adapt(model, Lora(rank=4, alpha=8.0))
            if moved:
                draw = torch.Generator().manual_seed(0)
                for name, parameter in model.model.named_parameters():
                    if "lora_B" in name:
                        parameter.data = 0.1 * torch.randn(parameter.shape, generator=draw)
            reference = policy(seed=1) if way == "copy" else None
            given = (
                data
                if way != "stored"
                else learner(model, reference=policy(seed=1)).observe(data, NEEDS)
            )
            results.append(run(model, given, reference=reference))
            assert all("lora_" in name for name in results[-1][1])
        assert_same(results[1], results[0])
        assert_same(results[2], results[0])
        assert (abs(results[0][0] - 0.693147) < 2e-6) is not moved


def test_adapters_are_on_again_after_the_reference_was_asked() -> None:
    model, data = policy(seed=1), pairs()
    adapt(model, Lora(rank=4, alpha=8.0))
    used = learner(model)
    before = used.observe(data, frozenset({"old_logp"}))
    for name, parameter in model.model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.1
    used.observe(data, NEEDS)
    after = used.observe(data, frozenset({"old_logp"}))
    assert not torch.allclose(before.old_logp_BT, after.old_logp_BT)
    assert torch.equal(used.observe(data, NEEDS | {"old_logp"}).old_logp_BT, after.old_logp_BT)
    assert all(p.requires_grad == ("lora_" in name) for name, p in model.model.named_parameters())
