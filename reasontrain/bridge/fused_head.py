"""Models with TRL's fused LM head: per-token log-probabilities scaled, recorded or scored.

SFT and DPO call `model(..., labels=labels, fused_lm_head=True)` and sum its `log_probs` [B, T - 1],
so a forward hook that scales them is a weight of each token's loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Trainer


def with_first(value: Tensor, like: Tensor) -> Float[Tensor, "R T"]:
    """Numbers of predicted tokens, with 0 for the first token of each row, which nothing predicts.

    Virtual tokens of prompt tuning, which the model puts before a row, are left out.
    """
    num = like.shape[1] - 1
    return nn.functional.pad(value[:, -num:] if num else value[:, :0], (1, 0))


@contextmanager
def scaled_log_probs(models: Sequence[nn.Module], weight: Float[Tensor, "R T"]) -> Iterator[None]:
    """Multiply the log-probabilities that the models return by a weight of each token.

    Args:
        models: the models, without wrappers of DDP or DeepSpeed.
        weight: one number per token, in the shape of `input_ids`.
    """

    def scale(_: nn.Module, __: object, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        log_probs = outputs["log_probs"]
        predicted = nn.functional.pad(weight[:, 1:], (log_probs.shape[1] - weight.shape[1] + 1, 0))
        # where, not a product: 0 x inf would be NaN
        outputs["log_probs"] = torch.where(predicted != 0, predicted * log_probs, 0)
        return outputs

    with _hooked(models, scale):
        yield


@contextmanager
def recorded_log_probs(models: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """The log-probabilities of each call of the models, in the order of the calls."""
    calls: list[Tensor] = []

    def record(_: nn.Module, __: object, outputs: Mapping[str, Tensor]) -> None:
        calls.append(outputs["log_probs"])

    with _hooked(models, record):
        yield calls


@contextmanager
def _hooked(models: Sequence[nn.Module], hook: object) -> Iterator[None]:
    handles = [model.register_forward_hook(hook) for model in models]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def scoring(trainer: Trainer) -> Iterator[None]:
    """Run the trainer's model without gradient and dropout, in the trainer's precision.

    Evaluation mode also switches gradient checkpointing off.
    """
    was_training = trainer.model.training
    trainer.model.eval()
    try:
        with torch.no_grad(), trainer.accelerator.autocast():
            yield
    finally:
        trainer.model.train(was_training)
