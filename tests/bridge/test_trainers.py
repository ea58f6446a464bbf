"""Token selection in TRL's trainers: the loss and gradient of this package's learner on the same
rollouts, whatever the layout and the number of micro-batches.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from trl import DPOTrainer, GRPOTrainer, SFTTrainer

from reasontrain.algo import objectives
from reasontrain.algo.loss_aggregation import LossAggregation
from reasontrain.algo.token_selection import (
    AdvantageEntropy,
    AllTokens,
    Contrast,
    FireOpd,
    Prior,
    Random,
    Rho1,
    ShuffledWeights,
    Tip,
    TokenSelection,
    TopEntropy,
)
from reasontrain.bridge.generated import WEIGHT
from reasontrain.types import TokenKind
from tests.bridge import trainers
from tests.bridge.trainers import assert_same, data, own_step, pair_data
from tests.tiny import policy

HALF = TopEntropy(keep_ratio=0.5)
RULES: list[tuple[TokenSelection, LossAggregation]] = [
    (Random(keep_ratio=0.5), "token_mean"),
    (HALF, "seq_mean_token_mean"),
    (ShuffledWeights(of=HALF), "response_token_mean"),
]
named = [f"{rule.kind}, {name}" for rule, name in RULES]


@pytest.mark.parametrize("options", [{}, {"padding_free": True}], ids=["padded", "flattened"])
@pytest.mark.parametrize(("rule", "aggregation"), RULES, ids=named)
def test_sft(
    rule: TokenSelection, aggregation: LossAggregation, options: dict[str, object], tmp_path: Path
) -> None:
    trainer = trainers.sft(tmp_path, options, token_selection=rule, aggregation=aggregation)
    result = trainers.collated_step(trainer, trainers.sft_rows(data()), 2)
    assert_same(result, own_step(data(), rule, objectives.Nll(), aggregation))


def test_sft_on_packed_sequences(tmp_path: Path) -> None:
    options = {"packing": True, "max_length": 40}
    trainer = trainers.sft(tmp_path, options, token_selection=HALF)
    packed = list(trainer.train_dataset)
    assert max(len(row["seq_lengths"]) for row in packed) > 1
    result = trainers.collated_step(trainer, packed, 1)
    assert_same(result, own_step(data(), HALF, objectives.Nll(), "token_mean"))


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_adapters(kind: str, tmp_path: Path) -> None:
    """All tokens are TRL's own loss; DPO's reference is the policy with its adapters off."""
    options = {"gradient_accumulation_steps": 1, "per_device_train_batch_size": 6}
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    build, cls, rows, aggregation = {
        "sft": (trainers.sft, SFTTrainer, trainers.sft_rows(data()), "token_mean"),
        "dpo": (trainers.dpo, DPOTrainer, trainers.dpo_rows(pair_data()), "pair_mean"),
    }[kind]
    more = {"peft_config": lora} | ({"ref_model": None} if kind == "dpo" else {})
    trainer = build(tmp_path, options, token_selection=AllTokens(), aggregation=aggregation, **more)
    result = trainers.collated_step(trainer, rows, 6)
    peer = build(tmp_path, options, cls=cls, **more)
    assert_same(result, trainers.collated_step(peer, rows, 6))


def test_sft_with_a_reference(tmp_path: Path) -> None:
    rule = Rho1(keep_ratio=0.4)
    trainer = trainers.sft(
        tmp_path, token_selection=rule, reference_model=policy(seed=trainers.FROZEN).model
    )
    # TRL gives only the trained model its fused head
    result = trainers.collated_step(trainer, trainers.sft_rows(data()), 2)
    assert_same(result, own_step(data(), rule, objectives.Nll(), "token_mean"))


def test_sft_with_evidence_of_the_user(tmp_path: Path) -> None:
    logp_BT = -torch.rand(data().ids_BT.shape, generator=torch.Generator().manual_seed(3))
    rollouts = data().with_evidence({"uncond_logp": logp_BT})
    by_id = {int(ids.sum()): logp for ids, logp in zip(rollouts.ids_BT, logp_BT, strict=True)}

    def uncond_logp(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        ids = inputs["input_ids"] * inputs["attention_mask"]
        return torch.stack([by_id[int(row.sum())][: ids.shape[1]] for row in ids])

    trainer = trainers.sft(
        tmp_path,
        token_selection={"kind": "prior"},
        aggregation="response_token_mean",
        evidence={"uncond_logp": uncond_logp},
    )
    result = trainers.collated_step(trainer, trainers.sft_rows(data()), 2)
    assert_same(result, own_step(rollouts, Prior(), objectives.Nll(), "response_token_mean"))


@pytest.mark.parametrize("rule", [Random(keep_ratio=0.5), HALF, Rho1()], ids=lambda r: r.kind)
def test_dpo(rule: TokenSelection, tmp_path: Path) -> None:
    trainer = trainers.dpo(tmp_path, token_selection=rule)
    # two pairs and one: the mean is over pairs, not over micro-batches
    result = trainers.collated_step(trainer, trainers.dpo_rows(pair_data()), 2)
    assert_same(result, own_step(pair_data(), rule, objectives.Dpo(), "pair_mean"))


def test_dpo_with_the_weights_of_cdpo(tmp_path: Path) -> None:
    rollouts = pair_data()

    def logscore(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        width = inputs["input_ids"].shape[1]
        rows = [
            rollouts.ce_logscore_BT[[ids.tolist() for ids in rollouts.ids_BT[:, :width]].index(row)]
            for row in (inputs["input_ids"] * inputs["attention_mask"]).tolist()
        ]
        return torch.stack([row[:width] for row in rows])

    trainer = trainers.dpo(
        tmp_path,
        {"per_device_train_batch_size": 1},
        token_selection={"kind": "contrast"},
        evidence={"ce_logscore": logscore},
    )
    result = trainers.collated_step(trainer, trainers.dpo_rows(rollouts), 1)
    assert_same(result, own_step(rollouts, Contrast(), objectives.Dpo(), "pair_mean"))


@pytest.mark.parametrize(
    ("rule", "aggregation"),
    [*RULES, (AdvantageEntropy(), "token_mean")],
    ids=[*named, "advantage_entropy"],
)
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo"])
def test_grpo(
    rule: TokenSelection, aggregation: LossAggregation, loss_type: str, tmp_path: Path
) -> None:
    trainer = trainers.grpo(
        tmp_path, {"loss_type": loss_type}, token_selection=rule, aggregation=aggregation
    )
    result = trainers.generated_step(trainer, trainers.generated(data()))
    expected = own_step(data(), rule, objectives.Grpo(), aggregation, temperature=0.7)
    assert_same(result, expected)


def test_grpo_with_tool_tokens(tmp_path: Path) -> None:
    rollouts = data()
    kind_BT = rollouts.kind_BT.clone()
    kind_BT[:, 8:10].masked_fill_(kind_BT[:, 8:10] == TokenKind.RESPONSE, int(TokenKind.TOOL))
    rollouts = replace(rollouts, kind_BT=kind_BT)
    trainer = trainers.grpo(tmp_path, token_selection=HALF)
    result = trainers.generated_step(trainer, trainers.generated(rollouts, tool_tokens=True))
    expected = own_step(rollouts, HALF, objectives.Grpo(), "token_mean", temperature=0.7)
    assert_same(result, expected)


@pytest.mark.parametrize(
    ("loss_type", "aggregation", "factor"),
    [
        ("grpo", "seq_mean_token_mean", 1),
        ("sapo", "seq_mean_token_mean", 1),
        ("bnpo", "token_mean", 1),
        ("dapo", "token_mean", 1),
        ("cispo", "token_mean", 1),
        ("vespo", "token_mean", 1),
        ("luspo", "seq_mean_token_sum", 1),
        ("dr_grpo", "seq_mean_token_sum", 24),
    ],
)
def test_all_tokens_are_trls_own_loss(
    loss_type: str, aggregation: LossAggregation, factor: int, tmp_path: Path
) -> None:
    """In one micro-batch, where TRL's means are of the whole step; TRL divides dr_grpo's sums by
    the greatest length too.
    """
    options = {
        "loss_type": loss_type,
        "beta": 0.0,
        "per_device_train_batch_size": 6,
        "gradient_accumulation_steps": 1,
    }
    rollouts = data()
    draw = torch.Generator().manual_seed(1)
    old_BT = -3 + 0.2 * torch.randn(rollouts.ids_BT.shape, generator=draw)
    inputs = trainers.generated(rollouts) | {
        "old_per_token_logps": trainers.completions(old_BT, rollouts)
    }
    trainer = trainers.grpo(tmp_path, options, token_selection=AllTokens(), aggregation=aggregation)
    result = trainers.generated_step(trainer, inputs)
    peer = trainers.grpo(tmp_path, options, cls=GRPOTrainer)
    loss, gradient = trainers.generated_step(peer, inputs)
    assert_same(result, (factor * loss, {name: factor * one for name, one in gradient.items()}))


def test_the_kl_penalty_stays_over_all_tokens(tmp_path: Path) -> None:
    """The gradient is that of selected policy losses, plus that of the penalty at all tokens."""
    rollouts = data()
    draw = torch.Generator().manual_seed(1)
    ref_BT = -3 + 0.2 * torch.randn(rollouts.ids_BT.shape, generator=draw)
    inputs = trainers.generated(rollouts) | {
        "ref_per_token_logps": trainers.completions(ref_BT, rollouts)
    }
    options = {"beta": 0.1, "use_bias_correction_kl": False, "loss_type": "dapo"}
    trainer = trainers.grpo(tmp_path, options, token_selection=HALF)
    result = trainers.generated_step(trainer, inputs)
    with_ref = rollouts.with_evidence({"ref_logp": ref_BT})

    def own(rule: TokenSelection, reference_kl: float) -> trainers.Result:
        objective = objectives.Grpo(reference_kl=reference_kl)
        return own_step(with_ref, rule, objective, "token_mean", temperature=0.7)

    selected, penalised, plain = own(HALF, 0.0), own(AllTokens(), 0.1), own(AllTokens(), 0.0)
    expected = {
        name: one + penalised[1][name] - plain[1][name] for name, one in selected[1].items()
    }
    assert_same(result, (selected[0] + penalised[0] - plain[0], expected))


@pytest.mark.parametrize("rule", [HALF, Random(keep_ratio=0.5)], ids=lambda r: r.kind)
def test_several_optimiser_steps_of_one_generation(rule: TokenSelection, tmp_path: Path) -> None:
    """Each divides by its own rollouts; both halves together are the rollouts of the generation."""
    options = {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 3,
        "steps_per_generation": 6,
    }
    trainer = trainers.grpo(tmp_path, options, token_selection=rule, aggregation="token_mean")
    with trainers.generating(trainer, trainers.generated(data())):
        halves = [trainers.stepped(trainer, [[{}]] * 3, None) for _ in range(2)]
    weights = [inputs[WEIGHT] for inputs in trainer._buffered_inputs]
    kept = [sum(int((one != 0).sum()) for one in weights[at : at + 3]) for at in (0, 3)]
    share = [number / sum(kept) for number in kept]
    gradient = {
        name: share[0] * one + share[1] * halves[1][1][name] for name, one in halves[0][1].items()
    }
    result = share[0] * halves[0][0] + share[1] * halves[1][0], gradient
    expected = own_step(data(), rule, objectives.Grpo(), "token_mean", temperature=0.7)
    assert_same(result, expected)


@pytest.mark.parametrize(
    ("rule", "aggregation"),
    [
        (Tip(), "seq_mean_token_mean"),
        (Tip(mode="q3", top_scope="step"), "token_mean"),
        (FireOpd(), "token_mean"),
        (Tip(mode="teachability", top_scope="step", keep_ratio=0.3), "token_mean"),
        *RULES,
    ],
    ids=["soft_or", "q3", "fire_opd", "teachability", *named],
)
def test_distillation(rule: TokenSelection, aggregation: LossAggregation, tmp_path: Path) -> None:
    trainer = trainers.distillation(tmp_path, token_selection=rule, aggregation=aggregation)
    result = trainers.generated_step(trainer, trainers.generated(data()))
    assert_same(result, own_step(data(), rule, objectives.Distill(), aggregation))


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_other_divergences_with_tool_tokens(beta: float, tmp_path: Path) -> None:
    rollouts = data()
    kind_BT = rollouts.kind_BT.clone()
    kind_BT[:, 8:10].masked_fill_(kind_BT[:, 8:10] == TokenKind.RESPONSE, int(TokenKind.TOOL))
    rollouts = replace(rollouts, kind_BT=kind_BT)
    trainer = trainers.distillation(tmp_path, {"beta": beta}, token_selection=Tip())
    result = trainers.generated_step(trainer, trainers.generated(rollouts, tool_tokens=True))
    objective = objectives.Distill(divergence="jsd", beta=beta)
    assert_same(result, own_step(rollouts, Tip(), objective, "token_mean"))
