"""Optimisers and schedules: weight decay, Muon's matrices, and the rate at each optimiser step."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reasontrain.recipe import LearnSettings, Muon


def rate(settings: LearnSettings, step: int, steps: int) -> float:
    """The learning rate of optimiser step 0, 1, ..., as a share of its peak.

    A function of the step alone, so that resuming cannot move it. Linear warm-up reaches the peak
    at step `warmup_steps`; the decay ends one step after the last of `steps`, at
    `final_lr_share`, and stays there.
    """
    if step < settings.warmup_steps:
        return (step + 1) / (settings.warmup_steps + 1)
    if settings.schedule == "constant":
        return 1.0
    done = min((step - settings.warmup_steps) / max(steps - settings.warmup_steps, 1), 1.0)
    left = 1 - done if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return settings.final_lr_share + (1 - settings.final_lr_share) * left


def adamw(
    model: nn.Module, settings: LearnSettings, excluded: frozenset[int] = frozenset()
) -> torch.optim.AdamW:
    """AdamW on the trainable parameters, except those whose ids are in `excluded`.

    Vectors (norms and biases) do not decay. The fused kernel passes over each parameter once: on a
    CPU it uses all threads, and on a GPU it needs no temporary copy of the parameters.
    """
    chosen = settings.optimizer
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in excluded]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": chosen.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (chosen.beta1, chosen.beta2)
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=betas,
        eps=chosen.eps,
        fused=True,
    )


def clip_gradients(model: nn.Module, max_norm: float | None) -> Float[Tensor, ""]:
    """Scale gradients of whole weights down to `max_norm`; return their norm before."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    return nn.utils.clip_grad_norm_(parameters, float("inf") if max_norm is None else max_norm)


class Optimizer:
    """One or two torch optimisers that step together, with each parameter group's peak rate."""

    def __init__(self, model: nn.Module, settings: LearnSettings) -> None:
        chosen = settings.optimizer
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        muon = [
            p
            for name, p in named
            if isinstance(chosen, Muon) and p.ndim == 2 and not _is_vocabulary(model, p)
        ]
        self.parts: list[torch.optim.Optimizer] = [
            adamw(model, settings, frozenset(id(p) for p in muon))
        ]
        if isinstance(chosen, Muon) and muon:
            self.parts.append(
                torch.optim.Muon(
                    muon,
                    lr=chosen.matrix_lr,
                    momentum=chosen.momentum,
                    weight_decay=chosen.weight_decay,
                )
            )
        self.peaks = [[group["lr"] for group in part.param_groups] for part in self.parts]

    def step(self, share: float) -> None:
        """One step at this share of the peak rates."""
        for part, peaks in zip(self.parts, self.peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * share
            part.step()

    def zero_grad(self) -> None:
        """Clear the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)


def _is_vocabulary(model: nn.Module, parameter: nn.Parameter) -> bool:
    """True for embedding tables and for the head, which Muon is not meant for."""
    tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    return any(parameter is table or parameter.shape == table.shape for table in tables)
