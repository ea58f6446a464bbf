"""Work of a pre-trained model on real problems: the models, the problems, and near ties.

A random model gives every contestant the same amount of work; a pre-trained one shows that they
also compute the same thing, on its own prompts and texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from reasontrain import models
from reasontrain.bench.case import BenchMachine
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.evaluation.suites import DATA_VARIABLE, data_folder
from reasontrain.models import DType, ModelSettings, Policy
from reasontrain.models.folder import is_hub_id
from reasontrain.tasks.gsm8k import Gsm8k
from reasontrain.types import Prompt, UserError

GSM8K = "gsm8k_train.jsonl"
NEAR_TIE: Mapping[DType, float] = {"float32": 1e-4, "bfloat16": 0.5}
"""Logits this close may swap ranks between two implementations that compute in a dtype.

The gap itself is measured in float32. A bfloat16 number has eight bits: a logit of 20 to 40 is
rounded to 1/8 or 1/4, and so are the hidden states below it.
"""


def problem_file(machine: BenchMachine) -> Path:
    """The file with the problems: `--data`, or GSM8K's in that folder or in `$REASONTRAIN_DATA`.

    Raises UserError if there is none.
    """
    if machine.data is not None and machine.data.is_file():
        return machine.data
    folder = data_folder(machine.data)
    if folder is None:
        raise UserError(
            f"--model measures on real problems; give --data the folder with {GSM8K}, or a JSONL "
            f"file of problems (or set {DATA_VARIABLE})"
        )
    path = folder / GSM8K
    if not path.exists():
        raise UserError(f"{folder} has no {GSM8K}; give --data that folder, or a JSONL file")
    return path


def task(machine: BenchMachine, least: int) -> Gsm8k:
    """The task with the problems; raises UserError if they are fewer than `least`."""
    path = problem_file(machine)
    result = Gsm8k(path=str(path))
    if len(result.problems()) < least:
        raise UserError(f"{path} has {len(result.problems())} problems, and {least} are measured")
    return result


def model_of(machine: BenchMachine) -> ModelSettings:
    """The pre-trained model on the machine's device; raises UserError for a LoRA adapter."""
    assert machine.model is not None, "these tables need a model"
    if models.adapter_directory(machine.model.path) is not None:
        raise UserError(
            f"--model {machine.model.path} is a LoRA adapter, which the other contestants load in "
            f"their own ways; name its base model, or `final/` of its run"
        )
    return on_device(machine.model, machine.device)


def on_device(model: ModelSettings, device: torch.device) -> ModelSettings:
    """The same model on this device; a GPU of any index is `cuda`."""
    return replace(model, device="cpu" if device.type == "cpu" else "cuda")


def label(model: ModelSettings) -> str:
    """The name of a model in records: its id, or the name of its directory."""
    path = model.path
    return path if is_hub_id(path) or ":" in path else Path(path).name


def encoder(model: ModelSettings) -> Encoder:
    """An encoder of problems for this model, in the style that its tokenizer supports."""
    description = models.describe(model)
    return Encoder(
        description.tokenizer,
        PromptSettings(),
        description.context,
        description.vision,
        stop_ids=description.stop_ids,
    )


@dataclass(frozen=True, kw_only=True)
class Parting:
    """The first token at which two responses differ.

    Attributes:
        index: index of the token in both responses.
        gap: how far the logit of the less likely of the two tokens is below the largest logit, by
            the model in float32.
    """

    index: int
    gap: float


def parting(
    policy: Policy, prompt: Prompt, first: Sequence[int], second: Sequence[int]
) -> Parting | None:
    """The first difference of two greedy responses to a prompt; None if they are equal.

    Args:
        policy: the model, in float32.
        prompt: the encoded prompt.
        first: the ids of one response.
        second: the ids of the other, as many.
    """
    pairs = zip(first, second, strict=True)
    index = next((index for index, (a, b) in enumerate(pairs) if a != b), None)
    if index is None:
        return None
    ids = torch.tensor([[*prompt.ids, *first[:index]]], device=policy.device)
    with torch.inference_mode():
        logit_V = policy.head.logits(policy.hidden(ids)[:, -1])[0].float()
    lower = logit_V[[first[index], second[index]]].min()
    return Parting(index=index, gap=float(logit_V.max() - lower))
