"""TRL's trainers, driven one optimiser step at a time.

Nothing is logged, saved or loaded while a step is timed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from tempfile import TemporaryDirectory

import torch
from datasets import Dataset, disable_progress_bars
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, Trainer, TrainingArguments

from reasontrain.bench.case import Numbers, Work
from reasontrain.bench.workload import LEARNING_RATE, StepWorkload
from reasontrain.types import Batch, TokenKind

with warnings.catch_warnings():
    # TRL warns of versions of vLLM, whose use by TRL is not measured.
    warnings.simplefilter("ignore")
    from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
    from trl.trainer.distillation_config import DistillationConfig
    from trl.trainer.distillation_trainer import DistillationTrainer

Inputs = Mapping[str, Tensor] | list[dict[str, object]]
KEEP_ACTIVATIONS = {
    # transformers renamed the setting after 5.19, and the old name warns there
    "activation_checkpointing"
    if "activation_checkpointing" in signature(TrainingArguments).parameters
    else "gradient_checkpointing": False
}
"""The setting of a trainer that recomputes no activations, which TRL does unless told otherwise."""


def update(trainer: Trainer, batches: Sequence[Inputs], num_items: Tensor | int | None) -> Numbers:
    """One optimiser step like that of `Trainer.train`: backward per batch, clipping, AdamW."""
    trainer.current_gradient_accumulation_steps = len(batches)
    loss = sum(float(trainer.training_step(trainer.model, inputs, num_items)) for inputs in batches)
    norm = trainer.accelerator.clip_grad_norm_(
        trainer.model.parameters(), trainer.args.max_grad_norm
    )
    trainer.optimizer.step()
    trainer.model.zero_grad()
    return {"loss": loss, "grad_norm": float(norm)}


@contextmanager
def _settings(workload: StepWorkload, size: int) -> Iterator[dict[str, object]]:
    """Settings of every trainer: `size` rollouts per forward pass, and no work besides the step."""
    disable_progress_bars()
    with TemporaryDirectory() as directory:
        yield {
            "output_dir": directory,
            "per_device_train_batch_size": size,
            "learning_rate": LEARNING_RATE,
            **KEEP_ACTIVATIONS,
            "use_cpu": workload.device.type == "cpu",
            "bf16": workload.dtype == torch.bfloat16,
            "report_to": [],
            "disable_tqdm": True,
            "seed": 0,
        }


class EndAtLength(LogitsProcessor):
    """End each sequence of `generate` after exactly its own number of tokens."""

    def __init__(self, length_B: Int[Tensor, " B"], prompt_width: int, end: int) -> None:
        """`length_B` counts response tokens; `end` is the id of the end token."""
        self.length_B = length_B
        self.prompt_width = prompt_width
        self.end = end

    def __call__(
        self, input_ids: Int[Tensor, "B T"], scores: Float[Tensor, "B V"]
    ) -> Float[Tensor, "B V"]:
        """Force the end token for sequences at their length, and forbid it for all others."""
        last_B = self.length_B == input_ids.shape[1] - self.prompt_width + 1
        scores[:, self.end] = -torch.inf
        scores[last_B] = -torch.inf
        scores[last_B, self.end] = 0.0
        return scores


@contextmanager
def opd_step(workload: StepWorkload, size: int) -> Iterator[Work]:
    """A whole step of `DistillationTrainer`: `generate`, the teacher's forward, and learning."""
    with _distillation(workload, size) as trainer:
        prompts = workload.prompts()
        end_at_length = EndAtLength(
            workload.lengths().to(workload.device),
            max(len(p.ids) for p in prompts),
            workload.tokenizer().eos_token_id,
        )
        trainer.model.generate = partial(
            trainer.model.generate, logits_processor=LogitsProcessorList([end_at_length])
        )
        questions: list[dict[str, object]] = [
            {"prompt": prompt.problem.prompt} for prompt in prompts
        ]

        def work() -> Numbers:
            update(trainer, [questions] * trainer.args.gradient_accumulation_steps, None)
            return {
                "tokens": float(
                    sum(inputs["completion_mask"].sum() for inputs in trainer._buffered_inputs)
                )
            }

        yield work


@contextmanager
def opd_update(workload: StepWorkload, size: int) -> Iterator[Work]:
    """A step of `DistillationTrainer` on given rollouts, instead of those it would generate."""
    with _distillation(workload, size) as trainer:
        rollouts = padded(workload.batch(), workload.device)
        trainer._generate_and_score_completions = lambda _: dict(rollouts)
        yield partial(update, trainer, [[{}]] * trainer.args.gradient_accumulation_steps, None)


@contextmanager
def _distillation(workload: StepWorkload, size: int) -> Iterator[DistillationTrainer]:
    """A `DistillationTrainer` with the reverse KL (beta 1)."""
    with _settings(workload, size) as settings:
        arguments = DistillationConfig(
            **settings,
            gradient_accumulation_steps=workload.rollouts // size,
            beta=1.0,
            temperature=1.0,
            max_completion_length=workload.limit,
            disable_dropout=True,
        )
        trainer = DistillationTrainer(
            model=workload.peer_model(),
            teacher_model=workload.frozen().model,
            args=arguments,
            train_dataset=Dataset.from_list([{"prompt": "1"}] * workload.rollouts),
            processing_class=workload.tokenizer(),
        )
        trainer.create_optimizer()
        yield trainer


@contextmanager
def grpo_update(workload: StepWorkload, group: int, size: int) -> Iterator[Work]:
    """A GRPO step on given rollouts; loss type `dapo` divides by all tokens of the step."""
    with _settings(workload, size) as settings:
        arguments = GRPOConfig(
            **settings,
            gradient_accumulation_steps=workload.rollouts // size,
            num_generations=group,
            max_completion_length=workload.limit,
            loss_type="dapo",
            beta=0.0,
        )
        trainer = GRPOTrainer(
            model=workload.peer_model(),
            reward_funcs=_no_reward,
            args=arguments,
            train_dataset=Dataset.from_list([{"prompt": "1"}] * workload.rollouts),
            processing_class=workload.tokenizer(),
        )
        trainer.create_optimizer()
        rollouts = padded(workload.batch(group=group), workload.device)
        trainer._generate_and_score_completions = lambda _: dict(rollouts)
        yield partial(update, trainer, [[{}]] * trainer.args.gradient_accumulation_steps, None)


def _no_reward(prompts: object, completions: object) -> list[float]:
    """A placeholder for the reward function that TRL requires; rollouts have advantages already."""
    raise AssertionError("rollouts come with their advantages")


@contextmanager
def dpo_update(workload: StepWorkload, reference_logp: float, size: int) -> Iterator[Work]:
    """A DPO step with given log-probs of the reference, `size` pairs per forward pass.

    TRL 1.16 pads pairs and cannot pack them.
    """
    batch = workload.batch(group=2, paired=True)
    prompts, responses = parts(batch)
    pairs = [
        {
            "prompt_ids": prompts[index],
            "chosen_ids": responses[index],
            "rejected_ids": responses[index + 1],
            "ref_chosen_logps": reference_logp * len(responses[index]),
            "ref_rejected_logps": reference_logp * len(responses[index + 1]),
        }
        for index in range(0, workload.rollouts, 2)
    ]
    with _settings(workload, size) as settings:
        model = workload.peer_model()
        trainer = DPOTrainer(
            model=model,
            ref_model=workload.frozen().model,
            args=DPOConfig(**settings, gradient_accumulation_steps=len(pairs) // size, beta=0.1),
            train_dataset=Dataset.from_list([{"prompt": "1", "chosen": "2", "rejected": "3"}]),
            processing_class=workload.tokenizer(),
        )
        trainer.ref_model = None
        trainer.precompute_ref_logps = True
        trainer.create_optimizer()
        batches = [
            trainer.data_collator(pairs[start : start + size])
            for start in range(0, len(pairs), size)
        ]
        yield partial(update, trainer, batches, None)


@contextmanager
def sft_update(
    workload: StepWorkload, size: int, packed_length: int | None, by_length: bool
) -> Iterator[Work]:
    """A fine-tuning step on the responses of the workload.

    Args:
        workload: sizes, model and responses.
        size: sequences per forward pass.
        packed_length: tokens of a packed sequence; None pads instead.
        by_length: batch responses of similar lengths together.
    """
    prompts, responses = parts(workload.batch())
    rows = [
        {"input_ids": prompt + response, "completion_mask": [0] * len(prompt) + [1] * len(response)}
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    with _settings(workload, size) as settings:
        arguments = SFTConfig(
            **settings,
            packing=packed_length is not None,
            max_length=packed_length,
            train_sampling_strategy="group_by_length" if by_length else "random",
            completion_only_loss=True,
            # TRL then takes the whole epoch as one step, independent of the number of packed
            # batches.
            gradient_accumulation_steps=workload.rollouts,
        )
        trainer = SFTTrainer(
            model=workload.peer_model(),
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=workload.tokenizer(),
        )
        trainer.create_optimizer()
        loader = trainer.get_train_dataloader()
        batches, num_items = trainer.get_batch_samples(
            iter(loader), len(loader), trainer.args.device
        )
        yield lambda: update(trainer, [dict(inputs) for inputs in batches], num_items)


def padded(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """A batch in TRL's layout: prompts padded on the left, responses on the right."""
    prompts, responses = parts(batch)
    sides = (("prompt", prompts, True), ("completion", responses, False))
    inputs: dict[str, Tensor] = {"advantages": batch.advantage_B.to(device)}
    for name, rows, left in sides:
        width = max(map(len, rows))
        for field, values in (("ids", rows), ("mask", [[1] * len(row) for row in rows])):
            lines = []
            for row in values:
                padding = [0] * (width - len(row))
                lines.append(padding + row if left else row + padding)
            inputs[f"{name}_{field}"] = torch.tensor(lines, device=device)
    inputs["num_items_in_batch"] = inputs["completion_mask"].sum()
    return inputs


def parts(batch: Batch) -> tuple[list[list[int]], list[list[int]]]:
    """The ids of each prompt, and those of each response."""
    sides = []
    for kind in (TokenKind.PROMPT, TokenKind.RESPONSE):
        sides.append(
            [
                ids_T[kind_T == kind].tolist()
                for ids_T, kind_T in zip(batch.ids_BT, batch.kind_BT, strict=True)
            ]
        )
    return sides[0], sides[1]
