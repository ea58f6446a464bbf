"""TRL's trainers on the tiny policy, and the same rollouts in the layout of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor
from torch.testing import assert_close
from transformers import Trainer
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from trl.trainer.distillation_config import DistillationConfig
from trl.trainer.distillation_trainer import DistillationTrainer

from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS, LossAggregation
from reasontrain.algo.objectives import Objective
from reasontrain.algo.token_selection import TokenSelection
from reasontrain.bench.peers import KEEP_ACTIVATIONS, parts
from reasontrain.bridge import (
    DistillationTokenSelection,
    DPOTokenSelection,
    GRPOTokenSelection,
    SFTTokenSelection,
)
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.policy_module import UnshardedModel
from reasontrain.models import Policy
from reasontrain.recipe import LearnSettings
from reasontrain.types import Batch, TokenKind
from tests.tiny import batch, pairs, policy, tokenizer

STUDENT = 1
FROZEN = 6
"""Seeds of the policy, and of teacher and reference."""
Result = tuple[float, dict[str, Tensor]]


class Sft(SFTTokenSelection, SFTTrainer): ...


class Dpo(DPOTokenSelection, DPOTrainer): ...


class Grpo(GRPOTokenSelection, GRPOTrainer): ...


class Distillation(DistillationTokenSelection, DistillationTrainer): ...


def settings(directory: Path, **options: object) -> dict[str, object]:
    return {
        "output_dir": str(directory),
        "use_cpu": True,
        "seed": 0,
        "bf16": False,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
        **KEEP_ACTIVATIONS,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 3,
        **options,
    }


def saved(directory: Path) -> Policy:
    """The policy, with the folder in which TRL looks for what belongs to it."""
    model = policy(seed=STUDENT)
    model.model.save_pretrained(directory)
    model.model.config._name_or_path = str(directory)
    return model


def sft(
    directory: Path, options: Mapping[str, object] = {}, cls: type = Sft, **more: object
) -> Trainer:
    return cls(
        model=saved(directory).model,
        args=SFTConfig(**settings(directory, max_length=None) | options),
        train_dataset=Dataset.from_list(sft_rows(data())),
        processing_class=tokenizer(),
        **more,
    )


def dpo(
    directory: Path, options: Mapping[str, object] = {}, cls: type = Dpo, **more: object
) -> Trainer:
    return cls(
        model=saved(directory).model,
        args=DPOConfig(**settings(directory, beta=0.1) | options),
        train_dataset=Dataset.from_list([{"prompt": "1", "chosen": "2", "rejected": "3"}]),
        processing_class=tokenizer(),
        **{"ref_model": policy(seed=FROZEN).model} | more,
    )


def grpo(
    directory: Path, options: Mapping[str, object] = {}, cls: type = Grpo, **more: object
) -> Trainer:
    return cls(
        model=saved(directory).model,
        reward_funcs=lambda **_: [0.0],
        args=GRPOConfig(
            **settings(directory, num_generations=2, max_completion_length=24, temperature=0.7)
            | options
        ),
        train_dataset=Dataset.from_list([{"prompt": "1"}] * 6),
        processing_class=tokenizer(),
        **more,
    )


def distillation(
    directory: Path, options: Mapping[str, object] = {}, cls: type = Distillation, **more: object
) -> Trainer:
    return cls(
        model=saved(directory).model,
        teacher_model=policy(seed=FROZEN).model,
        args=DistillationConfig(
            **settings(directory, beta=1.0, temperature=1.0, max_completion_length=24) | options
        ),
        train_dataset=Dataset.from_list([{"prompt": "1"}] * 6),
        processing_class=tokenizer(),
        **more,
    )


# ---- rollouts


def data() -> Batch:
    """Six rollouts of many lengths, numbered as the trainers number those of their first step."""
    rollouts = batch()
    return replace(
        rollouts, evidence={}, rollout_B=torch.arange(6), group_B=torch.arange(6) // 2 * 2
    )


def pair_data() -> Batch:
    rollouts = pairs()
    return replace(rollouts, rollout_B=torch.arange(6), group_B=torch.arange(6))


def sft_rows(rollouts: Batch) -> list[dict[str, list[int]]]:
    return [
        {"input_ids": prompt + response, "labels": [-100] * len(prompt) + response}
        for prompt, response in zip(*parts(rollouts), strict=True)
    ]


def dpo_rows(rollouts: Batch) -> list[dict[str, list[int]]]:
    prompts, responses = parts(rollouts)
    return [
        {
            "prompt_ids": prompts[index],
            "chosen_ids": responses[index],
            "rejected_ids": responses[index + 1],
        }
        for index in range(0, len(prompts), 2)
    ]


def generated(rollouts: Batch, *, tool_tokens: bool = False) -> dict[str, Tensor]:
    """The rollouts as TRL's generation leaves them: prompts filled on the left, responses right."""
    sides: dict[str, list[list[int]]] = {"prompt": [], "completion": [], "tool": []}
    for ids_T, kind_T in zip(rollouts.ids_BT, rollouts.kind_BT, strict=True):
        is_completion_T = (kind_T == TokenKind.RESPONSE) | (kind_T == TokenKind.TOOL)
        sides["prompt"].append(ids_T[kind_T == TokenKind.PROMPT].tolist())
        sides["completion"].append(ids_T[is_completion_T].tolist())
        sides["tool"].append((kind_T[is_completion_T] != TokenKind.TOOL).long().tolist())
    result = {"advantages": rollouts.advantage_B}
    for name in ("prompt", "completion"):
        width = max(map(len, sides[name]))
        for key, rows in (("ids", sides[name]), ("mask", [[1] * len(row) for row in sides[name]])):
            result[f"{name}_{key}"] = torch.tensor(
                [filled(row, width, left=name == "prompt") for row in rows]
            )
    if tool_tokens:
        width = result["completion_ids"].shape[1]
        result["tool_mask"] = torch.tensor(
            [filled(row, width, left=False) for row in sides["tool"]]
        )
    return {**result, "num_items_in_batch": rollouts.is_response_BT.sum()}


def filled(row: Sequence[int], width: int, *, left: bool) -> list[int]:
    padding = [0] * (width - len(row))
    return [*padding, *row] if left else [*row, *padding]


def completions(values_BT: Tensor, rollouts: Batch) -> Tensor:
    """Numbers of the tokens of completions in TRL's layout."""
    rows = [
        row[(kind != TokenKind.PROMPT) & (kind != TokenKind.PAD)]
        for row, kind in zip(values_BT, rollouts.kind_BT, strict=True)
    ]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


# ---- one optimiser step


def collated_step(trainer: Trainer, rows: Sequence[Mapping[str, object]], size: int) -> Result:
    """Loss and gradient of an optimiser step of SFT or DPO on these rows."""
    collated = [trainer.data_collator(rows[at : at + size]) for at in range(0, len(rows), size)]
    batches, num_items = trainer.get_batch_samples(
        iter(collated), len(collated), torch.device("cpu")
    )
    return stepped(trainer, batches, num_items)


def generated_step(trainer: Trainer, rollouts: Mapping[str, Tensor]) -> Result:
    """Loss and gradient of an optimiser step of a trainer that would generate these rollouts."""
    with generating(trainer, rollouts):
        return stepped(trainer, [[{}]] * trainer.args.gradient_accumulation_steps, None)


class generating:  # noqa: N801 (a context manager)
    """Give a trainer's class rollouts in the place of generation, below the mixin's override."""

    def __init__(self, trainer: Trainer, rollouts: Mapping[str, Tensor]) -> None:
        self.cls = GRPOTrainer if isinstance(trainer, GRPOTrainer) else DistillationTrainer
        self.original = self.cls._generate_and_score_completions
        self.rollouts = rollouts

    def __enter__(self) -> None:
        self.cls._generate_and_score_completions = lambda _, __: dict(self.rollouts)

    def __exit__(self, *_: object) -> None:
        self.cls._generate_and_score_completions = self.original


def stepped(trainer: Trainer, batches: Sequence[object], num_items: object) -> Result:
    trainer.current_gradient_accumulation_steps = len(batches)
    trainer.model.train()
    trainer.model.zero_grad()
    loss = sum(float(trainer.training_step(trainer.model, one, num_items)) for one in batches)
    return loss, gradients(trainer.model)


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def own_step(
    rollouts: Batch,
    rule: TokenSelection,
    objective: Objective,
    aggregation: LossAggregation,
    *,
    temperature: float = 1.0,
) -> Result:
    """Loss and gradient of this package's learner on the same rollouts."""
    model = policy(seed=STUDENT)
    learner = compose_learner(
        model,
        LearnSettings(lr=0.05, rollouts_per_step=6, micro_batch_tokens=50),
        steps=10,
        temperature=temperature,
        teacher=UnshardedModel(policy(seed=FROZEN)),
        reference=UnshardedModel(policy(seed=FROZEN)),
    )
    names = rule.required_evidence | objective.required_evidence | {"old_logp"}
    seen = learner.observe(rollouts, names.difference(rollouts.evidence))
    stats = learner.gradient(seen, rule(seen), objective, LOSS_AGGREGATIONS[aggregation])
    return stats["loss"], gradients(model.model)


def assert_same(result: Result, expected: Result) -> None:
    assert abs(result[0] - expected[0]) < 1e-6 * max(1, abs(expected[0])), (result[0], expected[0])
    assert result[1].keys() == expected[1].keys()
    assert any(gradient.abs().max() > 1e-4 for gradient in expected[1].values())
    for name, gradient in expected[1].items():
        assert_close(
            result[1][name], gradient, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )
