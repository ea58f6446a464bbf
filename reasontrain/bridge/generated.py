"""Selection in trainers that generate: on all rollouts of a generation, before the first update."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.bridge.layout import TrainerTokens
from reasontrain.bridge.selection import LOSS_WEIGHT, Inputs, SelectsTokens
from reasontrain.types import BatchTotals, TokenKind

WEIGHT = "reasontrain_weight"
"""Key of generated rollouts that holds the selection's weight of each token of a completion."""


class SelectsGeneratedTokens(SelectsTokens):
    """Base of the mixins of trainers that generate.

    TRL generates rollouts for one or several optimiser steps at once. Evidence and selection are
    computed once for all of them, like `learn.updates_per_batch` in a recipe, and loss weights for
    each optimiser step.
    """

    @abstractmethod
    def evidence_of(self, rollouts: Inputs) -> Mapping[str, Tensor]:
        """Evidence that the rule reads now, one number per token of a completion."""

    @property
    @abstractmethod
    def micro_batches_per_generation(self) -> int:
        """Number of micro-batches that generated rollouts are cut into."""

    def _generate_and_score_completions(self, inputs: object) -> dict[str, Tensor]:
        """The generated rollouts; in training, with the weight of each token."""
        rollouts: dict[str, Tensor] = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return rollouts
        tokens = _tokens(rollouts)
        num_prompt = rollouts["prompt_ids"].shape[1]
        evidence = {
            name: torch.nn.functional.pad(value, (num_prompt, 0))
            for name, value in self.with_own_evidence(self.evidence_of(rollouts), rollouts).items()
        }
        advantage = [rollouts["advantages"]] if self.has_advantages else None
        _, weight_BT, own = self.select([tokens], [evidence], advantage, self.group_size)
        return {**rollouts, WEIGHT: tokens.from_batch(weight_BT[own], rollouts["completion_ids"])}

    @property
    def group_size(self) -> int:
        """Rollouts of one prompt."""
        return 1

    def _prepare_inputs(self, generation_batch: object) -> dict[str, Tensor]:
        """A micro-batch; in training, with the loss weight of each token."""
        inputs: dict[str, Tensor] = super()._prepare_inputs(generation_batch)
        if not self.model.training:
            return inputs
        number = self.args.gradient_accumulation_steps
        first = self._step // number * number % self.micro_batches_per_generation
        micro_batches = self._buffered_inputs[first : first + number]
        loss_weight = LOSS_AGGREGATIONS[self.aggregation](
            inputs[WEIGHT], self._totals(micro_batches)
        )
        return {**inputs, LOSS_WEIGHT: loss_weight}

    def _totals(self, micro_batches: Sequence[Inputs]) -> BatchTotals:
        """Totals of an optimiser step over all processes."""
        weights = [inputs[WEIGHT] for inputs in micro_batches]
        counts = [
            sum(len(one) for one in weights),
            sum(int(is_trained(inputs).sum()) for inputs in micro_batches),
            sum(int((one != 0).any(1).sum()) for one in weights),
            sum(int((one != 0).sum()) for one in weights),
        ]
        total = self.accelerator.reduce(
            torch.tensor(counts, device=self.accelerator.device), reduction="sum"
        )
        rollouts, response_tokens, kept_rollouts, kept_tokens = total.tolist()
        return BatchTotals(
            rollouts=rollouts,
            response_tokens=response_tokens,
            sampled_rollouts=rollouts,
            sampled_tokens=response_tokens,
            kept_rollouts=kept_rollouts,
            kept_tokens=kept_tokens,
        )

    def scaled(self, loss_weight: Float[Tensor, "R T"]) -> Float[Tensor, "R T"]:
        """Loss weights for a loss whose gradient is averaged over processes."""
        return loss_weight * self.accelerator.num_processes


def is_trained(rollouts: Inputs) -> Tensor:
    """True at the tokens of completions that are trained on; a tool's are not."""
    mask = rollouts["completion_mask"] != 0
    return mask & (rollouts["tool_mask"] != 0) if "tool_mask" in rollouts else mask


def _tokens(rollouts: Inputs) -> TrainerTokens:
    """The tokens of prompts, padded on the left, and of completions, padded on the right."""
    prompt_kind = torch.where(
        rollouts["prompt_mask"] != 0, int(TokenKind.PROMPT), int(TokenKind.PAD)
    )
    kind = torch.where(
        rollouts["completion_mask"] != 0, int(TokenKind.TOOL), int(TokenKind.PAD)
    ).masked_fill(is_trained(rollouts), int(TokenKind.RESPONSE))
    return TrainerTokens.padded(
        torch.cat([rollouts["prompt_ids"], rollouts["completion_ids"]], 1),
        torch.cat([prompt_kind, kind], 1),
    )
