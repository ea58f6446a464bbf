"""Updates and steps of a pre-trained model with LoRA, compared with TRL's trainers.

Rollouts are written solutions of real problems. Adapters start alike in both contestants, so that
loss and gradient norm must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from reasontrain import models
from reasontrain.algo.advantages import GroupNormalized, NoAdvantage
from reasontrain.algo.objectives import Nll
from reasontrain.bench import peers, pretrained, reasontrain_side
from reasontrain.bench.case import (
    BenchCase,
    BenchMachine,
    Contestant,
    Goal,
    Setting,
    Variant,
    Work,
)
from reasontrain.bench.reasontrain_side import BenchMethod
from reasontrain.bench.step import GROUP, GRPO, OPD, on_policy
from reasontrain.bench.workload import StepWorkload, all_rows_are_tokens
from reasontrain.data.collate import collate
from reasontrain.data.micro_batches import Layout
from reasontrain.data.replies import encode_demonstrations
from reasontrain.learner.lora import adapt, configuration
from reasontrain.models import Lora, ModelSettings, Policy
from reasontrain.types import Batch, Prompt, Rollout, UserError

ROLLOUTS = 8
LORA = Lora()
SFT = BenchMethod(Nll(), "token_mean")
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.03}
"""Allowed difference of losses and gradient norms: rounding through all layers."""

WorkContext = AbstractContextManager[Work]


@dataclass(frozen=True, kw_only=True)
class TunedWorkload(StepWorkload):
    """A pre-trained model with adapters, its teacher, and demonstrations.

    `source` names the file of the demonstrations. Weights are float32 in both contestants;
    `model.dtype` is that of matrix products, and of the teacher.
    """

    model: ModelSettings
    teacher: ModelSettings | None
    demonstrations: tuple[Rollout, ...]
    source: str

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """See `StepWorkload`."""
        return models.describe(self.model).tokenizer

    def settings(self) -> dict[str, Setting]:
        """The size, for the record."""
        lengths = [len(each.prompt_ids) + len(each.response_ids) for each in self.demonstrations]
        return {
            "model": pretrained.label(self.model),
            "dtype": self.model.dtype,
            "problems": self.source,
            "LoRA rank": LORA.rank,
            "rollouts": self.rollouts,
            "tokens": sum(lengths),
            "response tokens": self.tokens,
            "longest": max(lengths),
        }

    def policy(self) -> Policy:
        """See `StepWorkload`."""
        policy = self._base()
        adapt(policy, LORA)
        return policy

    def peer_model(self) -> nn.Module:
        """See `StepWorkload`; a model of peft, as TRL makes it from `peft_config`."""
        from peft import get_peft_model

        model = self._base().model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # as `adapt`, so that A starts with the same numbers
            return get_peft_model(model, configuration(LORA, model.name_or_path))

    def _base(self) -> Policy:
        return all_rows_are_tokens(models.load(self.model, trainable=True, layout="packed"))

    def frozen(self) -> Policy:
        """See `StepWorkload`."""
        assert self.teacher is not None, "only cases with a teacher have one"
        return all_rows_are_tokens(models.load(self.teacher, layout="packed"))

    def lengths(self) -> Int[Tensor, " B"]:
        """See `StepWorkload`."""
        return torch.tensor([len(each.response_ids) for each in self.demonstrations])

    def prompts(self, group: int = 1) -> list[Prompt]:
        """See `StepWorkload`; a prompt's text begins with no BOS that the tokenizer adds."""
        tokenizer = self.tokenizer()
        prompts = []
        for each in self.demonstrations[: self.rollouts // group]:
            ids = list(each.prompt_ids)
            added = tokenizer("")["input_ids"]
            text = tokenizer.decode(ids[len(added) :] if ids[: len(added)] == added else ids)
            if tokenizer(text)["input_ids"] != ids:
                raise UserError(
                    f"TRL would encode the prompt of problem {each.problem.id} to other ids, so "
                    f"the two cannot be compared with this tokenizer; use other problems"
                )
            prompts.append(Prompt(problem=replace(each.problem, prompt=text), ids=each.prompt_ids))
        return prompts

    def batch(self, *, group: int = 1, paired: bool = False) -> Batch:
        """See `StepWorkload`; every other rollout of a group is right."""
        assert not paired, "no case of these is of pairs"
        rollouts = [
            replace(
                each,
                id=index,
                group=index // group,
                problem=self.demonstrations[index // group].problem,
                prompt_ids=self.demonstrations[index // group].prompt_ids,
                reward=float(index % 2),
            )
            for index, each in enumerate(self.demonstrations)
        ]
        return collate(rollouts, advantage=GroupNormalized() if group > 1 else NoAdvantage())


def rows(machine: BenchMachine) -> Sequence[BenchCase]:
    """The cases: fine-tuning, GRPO, and distillation if there is a teacher."""
    workload = tuned_workload(machine, ROLLOUTS)
    cases = [_sft(workload, machine), _grpo(workload, machine)]
    return [*cases, *(_distillation(workload, machine) if workload.teacher else ())]


def tuned_workload(machine: BenchMachine, rollouts: int) -> TunedWorkload:
    """The workload of the first problems; raises UserError if one of them has no solution."""
    model = pretrained.model_of(machine)
    encoder = pretrained.encoder(model)
    problems = pretrained.task(machine, rollouts).problems()[:rollouts]
    demonstrations, num_dropped = encode_demonstrations(encoder, problems)
    if num_dropped:
        raise UserError(
            f"{num_dropped} of the first {rollouts} problems do not fit the context of "
            f"{pretrained.label(model)} with their solutions; use others (--data)"
        )
    teacher = None
    if machine.teacher is not None:
        teacher = pretrained.on_device(machine.teacher, machine.device)
        models.check_same_ids(models.describe(model), models.describe(teacher), "--teacher")
    return TunedWorkload(
        rollouts=rollouts,
        limit=max(len(each.response_ids) for each in demonstrations),
        device=machine.device,
        dtype=getattr(torch, model.dtype),
        model=model,
        teacher=teacher,
        demonstrations=tuple(demonstrations),
        source=pretrained.problem_file(machine).name,
    )


def _sft(workload: TunedWorkload, machine: BenchMachine) -> BenchCase:
    padded = (None, True)
    packed = (1024, False)
    settings = [(1, *packed)] if machine.quick else [(2, *padded), (1, *packed)]
    return _case(
        workload,
        "sft update",
        "fine-tuning on written solutions: log-probs, backward, AdamW",
        _reasontrain(machine, partial(reasontrain_side.update, workload, workload.batch, SFT)),
        Contestant(
            name="TRL SFTTrainer",
            variants=tuple(
                Variant(
                    settings={
                        "per_device_train_batch_size": size,
                        "packing": length is not None,
                    }
                    | ({} if length is None else {"max_length": length}),
                    setup=partial(peers.sft_update, workload, size, length, by_length),
                )
                for size, length, by_length in settings
            ),
        ),
    )


def _grpo(workload: TunedWorkload, machine: BenchMachine) -> BenchCase:
    case = _case(
        workload,
        "grpo update",
        "GRPO from rollouts on: log-probs, clipped ratio, AdamW",
        _reasontrain(
            machine, partial(reasontrain_side.update, workload, partial(on_policy, workload), GRPO)
        ),
        _trainer(
            "TRL GRPOTrainer",
            workload,
            machine,
            partial(peers.grpo_update, workload, GROUP),
        ),
    )
    return replace(
        case,
        work={**case.work, "group": GROUP},
        remark="Rollouts are written solutions, half of them said to be right. TRL computes the "
        "entropy of every token as well, for its log.",
    )


def _distillation(workload: TunedWorkload, machine: BenchMachine) -> list[BenchCase]:
    assert workload.teacher is not None, "distillation has a teacher"
    name = "TRL DistillationTrainer"
    update = _case(
        workload,
        "opd update",
        "distillation from rollouts on: trunk, teacher, reverse KL, AdamW",
        _reasontrain(machine, partial(reasontrain_side.update, workload, workload.batch, OPD)),
        _trainer(name, workload, machine, partial(peers.opd_update, workload)),
    )
    step = _case(
        workload,
        "opd step",
        "a whole step of on-policy distillation: sampling, teacher, reverse KL, AdamW",
        _reasontrain(machine, partial(reasontrain_side.opd_step, workload, OPD)),
        _trainer(name, workload, machine, partial(peers.opd_step, workload)),
    )
    teacher = {"teacher": pretrained.label(workload.teacher)}
    return [
        replace(update, work={**update.work, **teacher}),
        replace(
            step,
            work={**step.work, **teacher},
            tolerance=0.0,
            remark="Both contestants sample from their own model, and each response ends at the "
            "length of a written solution; their numbers of tokens must agree.",
        ),
    ]


def _case(
    workload: TunedWorkload, name: str, description: str, subject: Contestant, peer: Contestant
) -> BenchCase:
    """A case with the goals to take at most TRL's time and memory.

    Args:
        workload: models and rollouts.
        name: name of the case.
        description: the work in words.
        subject: reasontrain.
        peer: TRL.
    """
    return BenchCase(
        name=name,
        description=description,
        work=workload.settings(),
        units=("tokens", float(workload.tokens)),
        subject=subject,
        peer=peer,
        tolerance=TOLERANCE[workload.model.dtype],
        goals=(Goal(of="time", at_most=1.0), Goal(of="memory", at_most=1.0)),
        is_long=True,
    )


def _reasontrain(machine: BenchMachine, setup: Callable[[int, Layout], WorkContext]) -> Contestant:
    settings: list[tuple[int, Layout]] = [(1024, "packed")]
    if not machine.quick:
        settings.append((1024, "padded"))
    return Contestant(
        name="reasontrain",
        variants=tuple(
            Variant(
                settings={"micro_batch_tokens": budget, "layout": layout},
                setup=partial(setup, budget, layout),
            )
            for budget, layout in settings
        ),
    )


def _trainer(
    name: str,
    workload: TunedWorkload,
    machine: BenchMachine,
    setup: Callable[[int], WorkContext],
) -> Contestant:
    """A trainer of TRL, with variants of batch size and gradient accumulation.

    Args:
        name: the trainer.
        workload: models and rollouts.
        machine: a quick run has one variant.
        setup: the work with this many rollouts per forward pass.
    """
    return Contestant(
        name=name,
        variants=tuple(
            Variant(
                settings={
                    "per_device_train_batch_size": size,
                    "gradient_accumulation_steps": workload.rollouts // size,
                },
                setup=partial(setup, size),
            )
            for size in ((2,) if machine.quick else (1, 4))
        ),
    )
