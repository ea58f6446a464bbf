"""Token selection in TRL's `GRPOTrainer`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from trl import GRPOTrainer

from reasontrain.bridge.fused_head import scoring
from reasontrain.bridge.generated import SelectsGeneratedTokens
from reasontrain.bridge.selection import LOSS_WEIGHT, Inputs
from reasontrain.types import RunError

_IMAGE_KEYS = frozenset(
    inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters
) - {"self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"}
"""Arguments of TRL's scoring that generated rollouts hold under the same name."""


class GRPOTokenSelection(SelectsGeneratedTokens):
    """The policy gradient at selected tokens, `class Trainer(GRPOTokenSelection, GRPOTrainer)`.

    The loss of each token is TRL's, by `loss_type`, clipping and importance sampling; the division
    that `loss_type` also names is replaced by `aggregation`. The weights enter where TRL's own
    `top_entropy_quantile` does, so the KL penalty of `beta` stays TRL's: over all tokens, divided
    by `loss_type`. Evidence costs one forward pass of the policy without gradient; `old_logp` none
    where TRL has computed it, and `ref_logp` none. Evaluation is TRL's own.
    """

    trainer: ClassVar[type] = GRPOTrainer
    loss_methods: ClassVar[tuple[str, ...]] = ("compute_loss", "_compute_loss")
    measured: ClassVar[frozenset[str]] = frozenset({"old_logp", "entropy"})
    has_advantages: ClassVar[bool] = True

    def measurable(self) -> frozenset[str]:
        """`ref_logp` is measured if there is a KL penalty, for which TRL loads the reference."""
        return self.measured | ({"ref_logp"} if self.beta else set())

    def refusal(self) -> str | None:
        """See `SelectsTokens`."""
        args = self.args
        if self.top_entropy_quantile < 1.0:
            return (
                "top_entropy_quantile selects tokens too; leave it out, and use "
                f'{{"kind": "top_entropy", "keep_ratio": {self.top_entropy_quantile:g}}}'
            )
        if self.importance_sampling_level != "token":
            return (
                f"importance_sampling_level={self.importance_sampling_level!r} gives all tokens of "
                "a rollout one loss, so selected tokens would only scale it; use 'token'"
            )
        if self._entropy_bonus_enabled:
            return "the entropy bonus would be of selected tokens only; leave out entropy_coef"
        if args.steps_per_generation % args.gradient_accumulation_steps:
            return (
                f"steps_per_generation={args.steps_per_generation} is no multiple of "
                f"gradient_accumulation_steps={args.gradient_accumulation_steps}, so an optimiser "
                "step would begin before all its rollouts are generated"
            )
        return None

    @property
    def micro_batches_per_generation(self) -> int:
        """See `SelectsGeneratedTokens`."""
        return self.args.steps_per_generation

    @property
    def group_size(self) -> int:
        """See `SelectsGeneratedTokens`."""
        return self.num_generations

    def evidence_of(self, rollouts: Inputs) -> Mapping[str, Tensor]:
        """See `SelectsGeneratedTokens`."""
        if rollouts["advantages"].dim() > 1:
            raise RunError(
                "the trainer has an advantage for each token, and selection rules read one for "
                "each rollout; use GRPOTrainer's own"
            )
        names = self.evidence_names
        available = {
            "old_logp": rollouts.get("old_per_token_logps"),
            "ref_logp": rollouts.get("ref_per_token_logps"),
        }
        measured = {
            name: value for name, value in available.items() if name in names and value is not None
        }
        if names - measured.keys():
            with scoring(self):
                logp, entropy, _ = self._get_per_token_logps_and_entropies(
                    self.model,
                    torch.cat([rollouts["prompt_ids"], rollouts["completion_ids"]], 1),
                    torch.cat([rollouts["prompt_mask"], rollouts["completion_mask"]], 1),
                    rollouts["completion_ids"].shape[1],
                    batch_size=self.args.per_device_train_batch_size,
                    compute_entropy=True,
                    **{key: rollouts[key] for key in _IMAGE_KEYS & rollouts.keys()},
                )
            scored = {"old_logp": logp, "entropy": entropy}
            measured |= {name: scored[name] for name in names - measured.keys()}
        return measured

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        self._micro_batch = inputs
        self.top_entropy_quantile = 0.0  # TRL then asks `get_high_entropy_mask` for weights
        return super()._compute_loss(model, inputs)

    def get_high_entropy_mask(
        self, entropies: Float[Tensor, "R T"], mask: Tensor, threshold: float
    ) -> Tensor:
        """Factors of the losses of tokens: loss weights times what TRL divides by afterwards."""
        inputs = self._micro_batch
        if LOSS_WEIGHT not in inputs:
            return torch.ones_like(entropies)  # evaluation
        return self.scaled(inputs[LOSS_WEIGHT]) * self._divisor(mask, inputs)

    def _divisor(self, mask: Tensor, inputs: Inputs) -> Tensor:
        """The number that TRL divides the sum of each rollout's losses by, as [R, 1] or [1, 1]."""
        num = len(mask)
        micro_batches = self.current_gradient_accumulation_steps
        match self.loss_type:
            case "grpo" | "sapo":
                return mask.sum(1, keepdim=True).clamp(min=1.0) * num * micro_batches
            case "bnpo":
                return mask.sum().clamp(min=1.0).view(1, 1) * micro_batches
            case "dr_grpo":
                divisor = float(num * self.max_completion_length * micro_batches)
            case "luspo":
                divisor = float(num * micro_batches)
            case _:  # cispo, dapo, vespo
                total = inputs["num_items_in_batch"].clamp(min=1.0)
                share = micro_batches / self.args.steps_per_generation
                return total.view(1, 1) / self.accelerator.num_processes * share
        return torch.full((1, 1), divisor, device=mask.device)
