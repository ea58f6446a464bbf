"""DFT and IW-OPD beside TRL's own trainers: the same model, tokens and teacher give the same loss
and gradient.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from torch.testing import assert_close
from trl import SFTConfig, SFTTrainer

from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import Nll, Objective, SampledDistill
from reasontrain.algo.token_selection import Dft, IwOpd, SelectionRule
from reasontrain.bench.peers import KEEP_ACTIVATIONS
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.policy_module import UnshardedModel
from reasontrain.models import Policy
from reasontrain.recipe import LearnSettings
from reasontrain.types import Batch
from tests.tiny import batch, policy, tokenizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # TRL warns that it is experimental
    from trl.experimental.iw_opd import IWOPDTrainer

TEACHER = 5
"""Seed of the teacher's weights."""
Numbers = tuple[float, dict[str, Tensor]]


def gradients(model: Policy) -> dict[str, Tensor]:
    return {
        name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None
    }


def weighted(data: Batch, rule: SelectionRule, objective: Objective, budget: int) -> Numbers:
    """Loss and gradients of the package, in micro-batches of `budget` tokens."""
    model = policy(seed=4)
    used = compose_learner(
        model,
        LearnSettings(lr=0.05, rollouts_per_step=6, micro_batch_tokens=budget),
        steps=10,
        teacher=UnshardedModel(policy(seed=TEACHER)),
    )
    seen = used.observe(
        replace(data, evidence={}), rule.required_evidence | objective.required_evidence
    )
    stats = used.gradient(seen, rule(seen), objective, LOSS_AGGREGATIONS["token_mean"])
    return stats["loss"], gradients(model)


def assert_same(found: Numbers, expected: Numbers) -> None:
    assert found[0] == pytest.approx(expected[0], abs=2e-6)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_dft_is_that_of_trls_sft_trainer(tmp_path: Path) -> None:
    data = batch(seed=5)
    rows = [
        {"input_ids": ids[:n].tolist(), "completion_mask": among[:n].int().tolist()}
        for ids, among, n in zip(
            data.ids_BT, data.is_response_BT, data.length_B.tolist(), strict=True
        )
    ]
    model = policy(seed=4)
    trainer = SFTTrainer(
        model=model.model,
        args=SFTConfig(
            output_dir=str(tmp_path),
            loss_type="dft",
            use_cpu=True,
            bf16=False,
            **KEEP_ACTIVATIONS,
            report_to="none",
            max_length=None,
            completion_only_loss=True,
            per_device_train_batch_size=len(rows),
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
    )
    (inputs,) = trainer.get_train_dataloader()
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    assert_same(weighted(data, Dft(), Nll(), 40), (float(loss.detach()), gradients(model)))


def iw_opd_of_trl(data: Batch, gamma: float) -> Numbers:
    """TRL's loss of whole sequences, from which it needs logits of student and teacher."""
    model, teacher = policy(seed=4), policy(seed=TEACHER)
    logits_BTV = model.model(data.ids_BT).logits[:, :-1]
    ids_BT = data.ids_BT[:, 1:]
    with torch.no_grad():
        teacher_BTV = teacher.model(data.ids_BT).logits[:, :-1].log_softmax(-1)
    trainer = SimpleNamespace(
        temperature=1.0,
        iw_opd_gamma=gamma,
        iw_opd_epsilon=1e-8,
        model=model.model,
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    loss = IWOPDTrainer._compute_iw_opd_loss(
        trainer,
        logits_BTV,
        ids_BT,
        ids_BT.masked_fill(~data.is_response_BT[:, 1:], -100),
        teacher_BTV.gather(2, ids_BT[:, :, None])[:, :, 0],
    )
    loss.backward()
    return float(loss.detach()), gradients(model)


def test_iw_opd_is_that_of_trls_trainer() -> None:
    data = batch(seed=5)
    found = weighted(data, IwOpd(gamma=0.7), SampledDistill(), 40)
    assert_same(found, iw_opd_of_trl(data, gamma=0.7))
