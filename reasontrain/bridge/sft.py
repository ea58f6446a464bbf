"""Token selection in TRL's `SFTTrainer`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl import SFTTrainer
from trl.trainer.utils import add_fused_lm_head

from reasontrain.bridge.fused_head import scaled_log_probs, scoring, with_first
from reasontrain.bridge.layout import TrainerTokens
from reasontrain.bridge.selection import LOSS_WEIGHT, Inputs, SelectsTokens
from reasontrain.types import TokenKind

IGNORED = -100
"""The label of a token that is not trained on."""


class SFTTokenSelection(SelectsTokens):
    """Maximum likelihood on selected tokens, `class Trainer(SFTTokenSelection, SFTTrainer)`.

    The micro-batches of an optimiser step are read together before the first backward pass, so the
    rule sees the whole step and gradient accumulation changes nothing. Evidence costs one forward
    pass of the policy without gradient, and one of `reference_model` for a rule that reads
    `ref_logp`; rules without evidence cost none. Evaluation is TRL's own.
    """

    trainer: ClassVar[type] = SFTTrainer
    loss_methods: ClassVar[tuple[str, ...]] = ("compute_loss",)
    measured: ClassVar[frozenset[str]] = frozenset({"old_logp", "entropy"})
    loss_is_scaled_for_ga = True
    """Loss weights are of the whole optimiser step: `Trainer` must not divide by micro-batches."""

    def __init__(
        self, *args: object, reference_model: PreTrainedModel | None = None, **kwargs: object
    ) -> None:
        """See `SelectsTokens`.

        Args:
            args: arguments of TRL's trainer.
            reference_model: the model of `ref_logp` (Rho-1's reference, tuned on clean data), in
                the policy's vocabulary.
            kwargs: arguments of the mixin and of TRL's trainer.
        """
        self.reference_model = reference_model
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        if reference_model is not None:
            add_fused_lm_head(reference_model)
            self.reference_model = reference_model.eval().to(self.accelerator.device)

    def measurable(self) -> frozenset[str]:
        """`ref_logp` is measured if there is a reference."""
        return self.measured | ({"ref_logp"} if self.reference_model is not None else set())

    def refusal(self) -> str | None:
        """See `SelectsTokens`."""
        args = self.args
        if args.loss_type != "nll":
            return (
                f"loss_type={args.loss_type!r} weighs tokens itself; use loss_type='nll', or TRL's "
                "trainer alone"
            )
        if args.label_smoothing_factor or self.compute_loss_func is not None:
            return (
                "label_smoothing_factor and compute_loss_func replace the loss of each token; "
                "leave them out"
            )
        if args.packing and args.packing_strategy == "wrapped":
            return (
                "packing_strategy='wrapped' cuts sequences anywhere, so a rule cannot tell them "
                "apart; use packing_strategy='bfd'"
            )
        parallel = self.accelerator.parallelism_config
        if parallel is not None and (parallel.cp_enabled or parallel.sp_enabled):
            return "context and sequence parallelism cut sequences; give each process whole ones"
        return None

    def get_batch_samples(
        self, epoch_iterator: Iterator[Inputs], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | int | None]:
        """The micro-batches of an optimiser step, with the loss weight of each token."""
        micro_batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if micro_batches:
            prepared = [self._prepare_inputs(inputs) for inputs in micro_batches]
            tokens = [_tokens(inputs) for inputs in prepared]
            batch, weight_BT, own = self.select(
                tokens, [self._evidence(inputs) for inputs in prepared]
            )
            loss_weight_BT = self.aggregated(batch, weight_BT)[own]
            if not self.args.average_tokens_across_devices:
                # compute_loss multiplies by the number of processes only with this setting
                loss_weight_BT = loss_weight_BT * self.accelerator.num_processes
            parts = self.split(loss_weight_BT, tokens)
            micro_batches = [
                {**inputs, LOSS_WEIGHT: one.from_batch(part_KT, inputs["labels"])}
                for inputs, one, part_KT in zip(micro_batches, tokens, parts, strict=True)
            ]
        return micro_batches, num_items

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> object:
        """The sum of loss weight x loss over the tokens of a micro-batch; in evaluation, TRL's."""
        loss_weight = inputs.pop(LOSS_WEIGHT, None)
        if loss_weight is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        with scaled_log_probs([self.accelerator.unwrap_model(model)], loss_weight):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch=1)

    def _evidence(self, inputs: Inputs) -> Mapping[str, Tensor]:
        """The evidence of a micro-batch that the rule reads now."""
        names = self.evidence_names
        measured: dict[str, Tensor] = {}
        model_inputs = {**inputs, "use_cache": False, "fused_lm_head": True}
        if names & {"old_logp", "entropy"}:
            with scoring(self):
                outputs = self.model(**model_inputs)
            measured |= {"old_logp": outputs.log_probs, "entropy": outputs.entropy}
        if "ref_logp" in names:
            assert self.reference_model is not None, "measurable() has no ref_logp without it"
            with scoring(self):
                measured["ref_logp"] = self.reference_model(**model_inputs).log_probs
        return self.with_own_evidence(
            {
                name: with_first(value, inputs["labels"])
                for name, value in measured.items()
                if name in names
            },
            inputs,
        )


def _tokens(inputs: Inputs) -> TrainerTokens:
    """The tokens of a collated micro-batch: padded, or flattened with their positions."""
    is_trained = inputs["labels"] != IGNORED
    kind = torch.where(is_trained, int(TokenKind.RESPONSE), int(TokenKind.PROMPT))
    if "attention_mask" not in inputs:
        position = inputs["position_ids"]
        kind = kind.masked_fill(position == 0, int(TokenKind.PROMPT))
        return TrainerTokens.flattened(
            inputs["input_ids"].reshape(-1), kind.reshape(-1), position.reshape(-1)
        )
    kind[:, 0] = int(TokenKind.PROMPT)  # nothing predicts it
    kind = kind.masked_fill(inputs["attention_mask"] == 0, int(TokenKind.PAD))
    return TrainerTokens.padded(inputs["input_ids"], kind)
