"""TRL's trainers, driven one optimiser step at a time on given data: nothing is logged, saved or
loaded while it is timed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from tempfile import TemporaryDirectory

import torch
from datasets import Dataset, disable_progress_bars
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, Trainer
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from trl.trainer.distillation_config import DistillationConfig
from trl.trainer.distillation_trainer import DistillationTrainer

from reasontrain.bench.case import Numbers, Work
from reasontrain.bench.workload import LEARNING_RATE, Workload, tokenizer
from reasontrain.types import Batch, TokenKind

Inputs = Mapping[str, Tensor] | list[dict[str, object]]


def update(trainer: Trainer, batches: Sequence[Inputs], num_items: Tensor | int | None) -> Numbers:
    """One optimiser step as `Trainer.train` makes it: a forward and a backward for each batch, the
    norm, clipping, AdamW.
    """
    trainer.current_gradient_accumulation_steps = len(batches)
    loss = sum(float(trainer.training_step(trainer.model, inputs, num_items)) for inputs in batches)
    norm = trainer.accelerator.clip_grad_norm_(
        trainer.model.parameters(), trainer.args.max_grad_norm
    )
    trainer.optimizer.step()
    trainer.model.zero_grad()
    return {"loss": loss, "grad_norm": float(norm)}


@contextmanager
def _settings(given: Workload, size: int) -> Iterator[dict[str, object]]:
    """What all trainers are told: `size` rollouts in a forward, no checkpointing, nothing but the
    step.
    """
    disable_progress_bars()
    with TemporaryDirectory() as directory:
        yield {
            "output_dir": directory,
            "per_device_train_batch_size": size,
            "learning_rate": LEARNING_RATE,
            "activation_checkpointing": False,
            "use_cpu": given.device.type == "cpu",
            "bf16": given.dtype == torch.bfloat16,
            "report_to": [],
            "disable_tqdm": True,
            "seed": 0,
        }


class Until(LogitsProcessor):
    """Ends each row after the number of tokens that is written for it, and not before."""

    def __init__(self, length_B: Int[Tensor, " B"], prompt_width: int, end: int) -> None:
        self.length_B, self.prompt_width, self.end = length_B, prompt_width, end

    def __call__(
        self, input_ids: Int[Tensor, "B T"], scores: Float[Tensor, "B V"]
    ) -> Float[Tensor, "B V"]:
        """No row may end but those whose last token this is, and they must."""
        last_B = self.length_B == input_ids.shape[1] - self.prompt_width + 1
        scores[:, self.end] = -torch.inf
        scores[last_B] = -torch.inf
        scores[last_B, self.end] = 0.0
        return scores


@contextmanager
def opd_step(given: Workload, size: int) -> Iterator[Work]:
    """A whole step of `DistillationTrainer`: it samples by `generate`, asks the teacher and learns."""
    with _distillation(given, size) as trainer:
        prompts = given.prompts()
        until = Until(
            given.lengths().to(given.device),
            max(len(p.ids) for p in prompts),
            tokenizer().eos_token_id,
        )
        trainer.model.generate = partial(
            trainer.model.generate, logits_processor=LogitsProcessorList([until])
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
def opd_update(given: Workload, size: int) -> Iterator[Work]:
    """The same from rollouts on, which enter where `generate` would have left them."""
    with _distillation(given, size) as trainer:
        rollouts = padded(given.batch(), given.device)
        trainer._generate_and_score_completions = lambda _: dict(rollouts)
        yield partial(update, trainer, [[{}]] * trainer.args.gradient_accumulation_steps, None)


@contextmanager
def _distillation(given: Workload, size: int) -> Iterator[DistillationTrainer]:
    """beta 1 is the reverse KL."""
    with _settings(given, size) as settings:
        arguments = DistillationConfig(
            **settings,
            gradient_accumulation_steps=given.rollouts // size,
            beta=1.0,
            temperature=1.0,
            max_completion_length=given.limit,
            disable_dropout=True,
        )
        trainer = DistillationTrainer(
            model=given.policy().model,
            teacher_model=given.frozen().model,
            args=arguments,
            train_dataset=Dataset.from_list([{"prompt": "1"}] * given.rollouts),
            processing_class=tokenizer(),
        )
        trainer.create_optimizer()
        yield trainer


@contextmanager
def grpo_update(given: Workload, group: int, size: int) -> Iterator[Work]:
    """GRPO from rollouts on; `dapo` divides by all tokens of the step."""
    with _settings(given, size) as settings:
        arguments = GRPOConfig(
            **settings,
            gradient_accumulation_steps=given.rollouts // size,
            num_generations=group,
            max_completion_length=given.limit,
            loss_type="dapo",
            beta=0.0,
        )
        trainer = GRPOTrainer(
            model=given.policy().model,
            reward_funcs=_unasked,
            args=arguments,
            train_dataset=Dataset.from_list([{"prompt": "1"}] * given.rollouts),
            processing_class=tokenizer(),
        )
        trainer.create_optimizer()
        rollouts = padded(given.batch(group=group), given.device)
        trainer._generate_and_score_completions = lambda _: dict(rollouts)
        yield partial(update, trainer, [[{}]] * trainer.args.gradient_accumulation_steps, None)


def _unasked(prompts: object, completions: object) -> list[float]:
    """TRL wants a reward, which rollouts that are given have already."""
    raise AssertionError("rollouts are given with their advantages")


@contextmanager
def dpo_update(given: Workload, reference_logp: float, size: int) -> Iterator[Work]:
    """DPO with the reference's log-probs given, `size` pairs in a forward; TRL 1.16 pads pairs and
    has no packing for them.
    """
    batch = given.batch(group=2, paired=True)
    prompts, responses = parts(batch)
    pairs = [
        {
            "prompt_ids": prompts[index],
            "chosen_ids": responses[index],
            "rejected_ids": responses[index + 1],
            "ref_chosen_logps": reference_logp * len(responses[index]),
            "ref_rejected_logps": reference_logp * len(responses[index + 1]),
        }
        for index in range(0, given.rollouts, 2)
    ]
    with _settings(given, size) as settings:
        model = given.policy().model
        trainer = DPOTrainer(
            model=model,
            ref_model=given.frozen().model,
            args=DPOConfig(**settings, gradient_accumulation_steps=len(pairs) // size, beta=0.1),
            train_dataset=Dataset.from_list([{"prompt": "1", "chosen": "2", "rejected": "3"}]),
            processing_class=tokenizer(),
        )
        trainer.ref_model, trainer.precompute_ref_logps = None, True
        trainer.create_optimizer()
        batches = [
            trainer.data_collator(pairs[start : start + size])
            for start in range(0, len(pairs), size)
        ]
        yield partial(update, trainer, batches, None)


@contextmanager
def sft_update(given: Workload, size: int, packed: int, by_length: bool) -> Iterator[Work]:
    """Fine-tuning on the same responses; packed into rows of so many tokens (0: padded)."""
    prompts, responses = parts(given.batch())
    rows = [
        {"input_ids": prompt + response, "completion_mask": [0] * len(prompt) + [1] * len(response)}
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    with _settings(given, size) as settings:
        arguments = SFTConfig(
            **settings,
            packing=packed > 0,
            max_length=packed or None,
            train_sampling_strategy="group_by_length" if by_length else "random",
            completion_only_loss=True,
            # as many as there are: what is left of an epoch is one step
            gradient_accumulation_steps=given.rollouts,
        )
        trainer = SFTTrainer(
            model=given.policy().model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer(),
        )
        trainer.create_optimizer()
        loader = trainer.get_train_dataloader()
        batches, num_items = trainer.get_batch_samples(
            iter(loader), len(loader), trainer.args.device
        )
        yield lambda: update(trainer, [dict(inputs) for inputs in batches], num_items)


def padded(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """Prompts filled on the left and responses on the right, as TRL's generation leaves them."""
    prompts, responses = parts(batch)
    sides = (("prompt", prompts, True), ("completion", responses, False))
    found: dict[str, Tensor] = {"advantages": batch.advantage_B.to(device)}
    for name, rows, left in sides:
        width = max(map(len, rows))
        for what, fill in (("ids", None), ("mask", 1)):
            lines = []
            for row in rows:
                body, rest = row if fill is None else [fill] * len(row), [0] * (width - len(row))
                lines.append(rest + body if left else body + rest)
            found[f"{name}_{what}"] = torch.tensor(lines, device=device)
    found["num_items_in_batch"] = found["completion_mask"].sum()
    return found


def parts(batch: Batch) -> tuple[list[list[int]], list[list[int]]]:
    """The ids of each prompt, and of each response."""
    sides = []
    for kind in (TokenKind.PROMPT, TokenKind.RESPONSE):
        sides.append(
            [
                ids_T[kind_T == kind].tolist()
                for ids_T, kind_T in zip(batch.ids_BT, batch.kind_BT, strict=True)
            ]
        )
    return sides[0], sides[1]
