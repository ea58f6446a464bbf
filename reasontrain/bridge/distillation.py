"""Token selection in TRL's `DistillationTrainer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from trl.trainer import distillation_trainer
from trl.trainer.distillation_trainer import DistillationTrainer
from trl.trainer.utils import (
    maybe_gather_lm_head_ctx,
    split_pixel_values_by_grid,
    split_tensor_dict,
    unsplit_pixel_values_by_grid,
)

from reasontrain import vocab
from reasontrain.algo.evidence import EVIDENCE, statistics
from reasontrain.bridge.fused_head import scoring
from reasontrain.bridge.generated import SelectsGeneratedTokens, is_trained
from reasontrain.bridge.selection import LOSS_WEIGHT, Inputs

_STATISTICS = statistics(EVIDENCE, "policy", "teacher")
"""Evidence -> the statistic of both models' next-token distributions that measures it."""


_Divergence = Callable[..., tuple[Tensor, Tensor]]


class DistillationTokenSelection(SelectsGeneratedTokens):
    """Distillation at selected tokens: a class of the mixin and `DistillationTrainer`.

    The divergence of each token is TRL's, by `beta` and `temperature`; the mean over tokens is
    replaced by `aggregation`. Evidence is measured from the hidden states that TRL's loss compares,
    at the same temperature, in one more forward pass of student and teacher without gradient.
    """

    trainer: ClassVar[type] = DistillationTrainer
    loss_methods: ClassVar[tuple[str, ...]] = ("compute_loss", "_compute_loss")
    measured: ClassVar[frozenset[str]] = frozenset(_STATISTICS)

    def refusal(self) -> str | None:
        """See `SelectsTokens`."""
        return None if self.teacher_model is not None else "there is no teacher_model"

    @property
    def micro_batches_per_generation(self) -> int:
        """See `SelectsGeneratedTokens`."""
        return self.args.gradient_accumulation_steps

    def evidence_of(self, rollouts: Inputs) -> Mapping[str, Tensor]:
        """See `SelectsGeneratedTokens`."""
        names = self.evidence_names
        if not names:
            return {}
        student = self.accelerator.unwrap_model(self.model)
        number = self.micro_batches_per_generation
        parts: list[Mapping[str, Tensor]] = []
        for chunk in split_tensor_dict(split_pixel_values_by_grid(dict(rollouts)), number):
            inputs = unsplit_pixel_values_by_grid(chunk)
            recorder = _Recorder(inputs, names)
            with scoring(self), _divergence(recorder):
                self._forward_redirection(
                    self.model, student, super()._compute_loss, student, inputs, None
                )
            parts.append(recorder.evidence)
        return {name: torch.cat([part[name] for part in parts]) for name in names}

    def _compute_loss(
        self, unwrapped_student: torch.nn.Module, inputs: dict[str, Tensor], num_items: object
    ) -> tuple[Tensor, Tensor, Tensor]:
        if LOSS_WEIGHT not in inputs:
            return super()._compute_loss(unwrapped_student, inputs, num_items)  # evaluation
        weighted = _Weighted(inputs, self.scaled(inputs[LOSS_WEIGHT]))
        with _divergence(weighted):
            return super()._compute_loss(unwrapped_student, inputs, 1)


class _AtTokens:
    """A stand-in for TRL's function, which knows the tokens of the micro-batch."""

    original: _Divergence

    def __init__(self, inputs: Inputs) -> None:
        self.ids_N = inputs["completion_ids"].reshape(-1)
        self.shape = inputs["completion_ids"].shape
        self.trained_N = is_trained(inputs).reshape(-1)

    def at(self, values_N: Tensor, num: int) -> Tensor:
        """The values at the positions that TRL compares: trained ones alone on a GPU, else all."""
        return values_N if num == len(values_N) else values_N[self.trained_N]


class _Weighted(_AtTokens):
    """Multiplies the divergence of each token by its loss weight."""

    def __init__(self, inputs: Inputs, loss_weight: Float[Tensor, "R T"]) -> None:
        super().__init__(inputs)
        self.loss_weight_N = loss_weight.reshape(-1)

    def apply(self, hidden_ND: Tensor, *rest: Tensor | float | None) -> tuple[Tensor, Tensor]:
        divergence_K, entropy_K = self.original(hidden_ND, *rest)
        weight_K = self.at(self.loss_weight_N, len(hidden_ND)).to(divergence_K)
        # where, not a product: 0 x inf would be NaN
        return torch.where(weight_K != 0, weight_K * divergence_K, 0), entropy_K


class _Recorder(_AtTokens):
    """Measures evidence at the tokens of the micro-batch."""

    def __init__(self, inputs: Inputs, names: frozenset[str]) -> None:
        super().__init__(inputs)
        self.names = names
        self.evidence: Mapping[str, Float[Tensor, "R T"]] = {}

    def apply(
        self,
        student_hidden: Float[Tensor, "N D"],
        student_weight: Tensor,
        student_bias: Tensor | None,
        teacher_hidden: Tensor,
        teacher_weight: Tensor,
        teacher_bias: Tensor | None,
        beta: float,
        temperature: float,
        student_scale: float,
        student_softcap: float | None,
        teacher_scale: float,
        teacher_softcap: float | None,
    ) -> tuple[Tensor, Tensor]:
        """Measure evidence, and return zeros in the place of divergences and entropies."""
        with (
            maybe_gather_lm_head_ctx(student_weight, student_bias),
            maybe_gather_lm_head_ctx(teacher_weight, teacher_bias),
        ):
            head = vocab.Head(student_weight, student_bias, student_scale, student_softcap)
            other = vocab.Head(teacher_weight, teacher_bias, teacher_scale, teacher_softcap)
            measured = vocab.measure(
                student_hidden,
                head,
                self.at(self.ids_N, len(student_hidden)),
                {_STATISTICS[name] for name in self.names},
                temperature=temperature,
                teacher=vocab.Teacher(teacher_hidden, other),
            )
        self.evidence = {name: self._placed(measured[_STATISTICS[name]]) for name in self.names}
        nothing = student_hidden.new_zeros(len(student_hidden))
        return nothing, nothing

    def _placed(self, values: Tensor) -> Float[Tensor, "R T"]:
        """Values at the compared positions in the shape of the completions."""
        if len(values) != len(self.trained_N):
            values = values.new_zeros(len(self.trained_N)).masked_scatter(self.trained_N, values)
        return values.view(self.shape)


@contextmanager
def _divergence(replacement: _Weighted | _Recorder) -> Iterator[None]:
    """Let TRL's loss call this for the divergences of N tokens.

    Its loss is one function, which sums them without weights.
    """
    original = distillation_trainer.ChunkedDivergenceFunction
    replacement.original = original.apply
    distillation_trainer.ChunkedDivergenceFunction = replacement
    try:
        yield
    finally:
        distillation_trainer.ChunkedDivergenceFunction = original
