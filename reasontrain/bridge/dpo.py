"""Token weights in TRL's `DPOTrainer`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor
from trl import DPOTrainer

from reasontrain.algo.loss_aggregation import LossAggregation
from reasontrain.bridge.fused_head import (
    recorded_log_probs,
    scaled_log_probs,
    scoring,
    with_first,
)
from reasontrain.bridge.layout import TrainerTokens
from reasontrain.bridge.selection import LOSS_WEIGHT, Inputs, SelectsTokens
from reasontrain.types import TokenKind

PAIR_SHARE = "reasontrain_pair_share"
"""Key of a micro-batch that holds its share of the step's pairs."""


class DPOTokenSelection(SelectsTokens):
    """DPO with a weight of each token, `class Trainer(DPOTokenSelection, DPOTrainer)`.

    A response's reward is beta sum_t w_t log(pi / pi_ref), as in `algo.objectives.Dpo` (cDPO, arXiv
    2411.19943), for every `loss_type` that compares sums over responses. TRL's metrics `rewards/*`
    and `logps/*` are of the weighted sums. The loss is a mean over the pairs of the optimiser step.
    Evidence costs one forward pass of the policy, and one of the reference for `ref_logp`.
    """

    trainer: ClassVar[type] = DPOTrainer
    loss_methods: ClassVar[tuple[str, ...]] = ("compute_loss", "_compute_loss")
    aggregations: ClassVar[tuple[LossAggregation, ...]] = ("pair_mean",)
    measured: ClassVar[frozenset[str]] = frozenset({"old_logp", "entropy", "ref_logp"})
    paired: ClassVar[bool] = True
    loss_is_scaled_for_ga = True
    """A micro-batch's loss has its share of the step's pairs, so `Trainer` must not divide."""

    def refusal(self) -> str | None:
        """See `SelectsTokens`."""
        if self.args.precompute_ref_log_probs:
            return (
                "precompute_ref_log_probs stores sums over responses, and weights are of tokens; "
                "set it to False"
            )
        if self.args.use_weighting:
            return "use_weighting (WPO) weighs pairs by the same log-probabilities; set it to False"
        if "sft" in self.loss_types:
            return "the loss type 'sft' divides by all tokens of the chosen response; leave it out"
        return None

    def get_batch_samples(
        self, epoch_iterator: Iterator[Inputs], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | int | None]:
        """The micro-batches of an optimiser step, with the weight of each token."""
        micro_batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if micro_batches:
            prepared = [self._prepare_inputs(inputs) for inputs in micro_batches]
            tokens = [_tokens(inputs) for inputs in prepared]
            batch, weight_BT, own = self.select(
                tokens, [self._evidence(inputs) for inputs in prepared]
            )
            parts = self.split(weight_BT[own], tokens)
            num_rollouts = len(batch.rollout_B) / self.accelerator.num_processes
            micro_batches = [
                {
                    **inputs,
                    LOSS_WEIGHT: one.from_batch(part_KT, inputs["input_ids"]),
                    PAIR_SHARE: torch.tensor(one.num_rollouts / num_rollouts),
                }
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
        """The micro-batch's part of the mean over pairs; in evaluation, TRL's loss."""
        weight = inputs.pop(LOSS_WEIGHT, None)
        if weight is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        share = inputs.pop(PAIR_SHARE)
        models = {self.accelerator.unwrap_model(model), self._reference()}
        with scaled_log_probs(list(models), weight):
            loss = super().compute_loss(model, inputs, False, num_items_in_batch)
        return loss * share.to(loss)

    def _reference(self) -> torch.nn.Module:
        """The module that scores the reference: the policy itself if adapters are switched off."""
        return self.accelerator.unwrap_model(
            self.model if self.ref_model is None else self.ref_model
        )

    def _evidence(self, inputs: Inputs) -> Mapping[str, Tensor]:
        """The evidence of a micro-batch that the rule reads now."""
        names = self.evidence_names
        measured: dict[str, Tensor] = {}
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        if names & {"old_logp", "entropy"}:
            model_inputs = {key: one for key, one in inputs.items() if key != "completion_mask"}
            with scoring(self):
                outputs = self.model(
                    **model_inputs, labels=labels, use_cache=False, fused_lm_head=True
                )
            measured |= {"old_logp": outputs.log_probs, "entropy": outputs.entropy}
        if "ref_logp" in names:
            with scoring(self), recorded_log_probs([self._reference()]) as calls:
                self.compute_ref_log_probs(
                    self.model if self.ref_model is None else self.ref_model, inputs
                )
            (measured["ref_logp"],) = calls
        return self.with_own_evidence(
            {name: with_first(value, labels) for name, value in measured.items() if name in names},
            inputs,
        )


def _tokens(inputs: Inputs) -> TrainerTokens:
    """The tokens of a collated micro-batch of pairs."""
    kind = torch.where(
        inputs["completion_mask"] != 0, int(TokenKind.RESPONSE), int(TokenKind.PROMPT)
    )
    kind[:, 0] = int(TokenKind.PROMPT)  # nothing predicts it
    kind = kind.masked_fill(inputs["attention_mask"] == 0, int(TokenKind.PAD))
    return TrainerTokens.pairs(inputs["input_ids"], kind)
