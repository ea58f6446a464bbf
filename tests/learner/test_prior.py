"""PRIOR's weighted loss through the learner: plain maximum likelihood where weights are equal, and
unmoved by any cut.
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
from trl import SFTConfig, SFTTrainer

from reasontrain.algo.advantages import NoAdvantage
from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import Nll
from reasontrain.algo.token_selection import AllTokens, Prior, TokenSelection
from reasontrain.bench.peers import KEEP_ACTIVATIONS
from reasontrain.data.collate import collate
from reasontrain.data.micro_batches import Layout
from reasontrain.learner.factory import compose_learner
from reasontrain.models import Policy
from reasontrain.recipe import LearnSettings
from reasontrain.types import Batch, Problem, Rollout, TokenKind
from tests.tiny import batch, policy, tokenizer


def scored(seed: int = 0) -> Batch:
    """Demonstrations with the log-probs of a reference, from nearly sure to nearly impossible."""
    data = batch(seed=seed)
    draw = torch.Generator().manual_seed(seed + 1)
    column_BT = -6 * torch.rand(data.ids_BT.shape, generator=draw) ** 3
    return replace(data, evidence={"uncond_logp": torch.where(data.is_response_BT, column_BT, 0.0)})


def run(
    data: Batch,
    rule: TokenSelection,
    *,
    budget: int = 10_000,
    layout: Layout = "padded",
    model: Policy | None = None,
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Loss and gradient of one step."""
    model = policy() if model is None else model
    chosen = LearnSettings(lr=0.1, rollouts_per_step=6, micro_batch_tokens=budget, layout=layout)
    stats = compose_learner(model, chosen, steps=1).gradient(
        data, rule(data), Nll(), LOSS_AGGREGATIONS["response_token_mean"]
    )
    return stats, {
        name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None
    }


def assert_same(
    ours: tuple[dict[str, float], dict[str, Tensor]],
    theirs: tuple[dict[str, float], dict[str, Tensor]],
) -> None:
    assert ours[0]["loss"] == pytest.approx(theirs[0]["loss"], abs=1e-6)
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        assert_close(
            ours[1][name], gradient, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_alpha_zero_and_a_constant_column_are_plain_fine_tuning() -> None:
    data = scored()
    plain = run(data, AllTokens())
    constant = data.with_evidence(
        {"uncond_logp": -0.2 - 0.1 * data.rollout_B[:, None] * torch.ones(data.ids_BT.shape)}
    )
    assert_same(run(data, Prior(alpha=0.0)), plain)
    assert_same(run(constant, Prior()), plain)
    assert abs(run(data, Prior())[0]["loss"] - plain[0]["loss"]) > 0.01


def test_the_loss_is_the_weighted_sum_over_target_tokens_and_the_plain_one_is_reported() -> None:
    model, data = policy(), scored()
    model.model.requires_grad_(False)
    expected, plain, num = 0.0, 0.0, 0
    for row, length in enumerate(data.length_B.tolist()):
        logp_TV = (
            model.model(data.ids_BT[row : row + 1, :length], use_cache=False)
            .logits[0]
            .double()
            .log_softmax(-1)
        )
        among_T = data.is_response_BT[row, 1:length]
        nll_K = -logp_TV[:-1].gather(1, data.ids_BT[row, 1:length, None])[:, 0][among_T]
        raw_K = 1 - data.evidence["uncond_logp"][row, 1:length][among_T].double().exp()
        expected += float((len(raw_K) * raw_K / raw_K.sum() * nll_K).sum())
        plain, num = plain + float(nll_K.sum()), num + len(raw_K)
    stats, _ = run(data, Prior())
    assert stats["loss"] == pytest.approx(expected / num, abs=2e-6)
    assert stats["nll"] == pytest.approx(plain / num, abs=2e-6)


@settings(max_examples=8)
@given(
    seed=integers(0, 10_000),
    budget=integers(1, 200),
    layout=sampled_from(["padded", "packed"]),
    pad=integers(0, 5),
)
def test_packing_micro_batches_and_padding_change_nothing(
    seed: int, budget: int, layout: Layout, pad: int
) -> None:
    data = scored(seed)
    wide = replace(
        data,
        ids_BT=torch.nn.functional.pad(data.ids_BT, (0, pad)),
        kind_BT=torch.nn.functional.pad(data.kind_BT, (0, pad)),
        evidence={"uncond_logp": torch.nn.functional.pad(data.evidence["uncond_logp"], (0, pad))},
    )
    whole, pack_micro_batches = run(data, Prior()), run(wide, Prior(), budget=budget, layout=layout)
    assert pack_micro_batches[0]["loss"] == pytest.approx(whole[0]["loss"], abs=1e-6)
    for name, gradient in whole[1].items():
        assert_close(pack_micro_batches[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_a_row_of_weight_zero_meets_no_loss_and_certainty_everywhere_is_plain() -> None:
    data = scored()
    certain = data.with_evidence({"uncond_logp": torch.zeros(data.ids_BT.shape)})
    assert_same(run(certain, Prior()), run(data, AllTokens()))


def test_stored_evidence_joins_the_batch_at_the_column_of_its_token() -> None:
    def rollout(prompt: int, *values: float) -> Rollout:
        ids = {"prompt_ids": (1,) * prompt, "response_ids": (5,) * len(values)}
        return Rollout(
            problem=Problem(id="p", prompt=""),
            id=prompt,
            group=prompt,
            evidence={"uncond_logp": values},
            **ids,
        )

    rollouts = [rollout(1, -0.5, -1.5), rollout(3, -2.5)]
    made = collate(rollouts, advantage=NoAdvantage())
    assert made.uncond_logp_BT.tolist() == [[0, -0.5, -1.5, 0], [0, 0, 0, -2.5]]
    assert (made.kind_BT[made.uncond_logp_BT != 0] == TokenKind.RESPONSE).all()
    short = replace(rollouts[0], response_ids=(5,))
    with pytest.raises(AssertionError, match="one number per response token"):
        collate([short], advantage=NoAdvantage())


def test_loss_and_gradient_are_those_of_trls_sft_trainer_on_the_same_batch(tmp_path: Path) -> None:
    """TRL 1.16's `nll` over completions, which the plain objective must equal; PRIOR at alpha 0 as
    well.
    """
    model, data = policy("qwen3", tied=True, seed=4), scored(5)
    rows = [
        {"input_ids": ids[:n].tolist(), "completion_mask": among[:n].int().tolist()}
        for ids, among, n in zip(
            data.ids_BT, data.is_response_BT, data.length_B.tolist(), strict=True
        )
    ]
    arguments = SFTConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        **KEEP_ACTIVATIONS,
        report_to="none",
        max_length=None,
        completion_only_loss=True,
        per_device_train_batch_size=len(rows),
    )
    theirs = policy("qwen3", tied=True, seed=4)
    trainer = SFTTrainer(
        model=theirs.model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
    )
    assert arguments.loss_type == "nll"
    (given,) = trainer.get_train_dataloader()
    assert int((given["labels"] != -100).sum()) == data.totals().response_tokens
    loss = trainer.compute_loss(trainer.model, given)
    loss.backward()
    expected = {
        name.removeprefix("module."): p.grad
        for name, p in trainer.model.named_parameters()
        if p.grad is not None
    }
    for rule in (AllTokens(), Prior(alpha=0.0)):
        model.model.zero_grad()
        assert_same(run(data, rule, model=model), ({"loss": float(loss.detach())}, expected))
