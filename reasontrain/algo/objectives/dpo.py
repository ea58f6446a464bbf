"""Direct preference optimisation with a weight for each token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float

from reasontrain.types import Losses, Positive, RunError, SequenceStats

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Dpo:
    """-log sigmoid(r_chosen - r_rejected) with r = beta sum_t w_t log(pi / pi_ref).

    DPO, arXiv 2305.18290, eq. 7. With all weights 1 it is DPO itself; with weights 1 - s on the
    rejected response it is cDPO (arXiv 2411.19943). Sums are over response tokens and are not
    divided by the length.

    `aggregation: position` is the loss of cDPO's released code. It does not sum before the sigmoid,
    but compares the tokens of both responses at each position t of the padded sequence: -log
    sigmoid(beta [w_t log(pi / pi_ref)(chosen, t) - w_t log(pi / pi_ref)(rejected, t)]), where a
    response without a token at t contributes 0. With `padded_length` L the mean is over positions 1
    to L - 1, prompt and padding included, as released; at prompt and padding the loss is ln 2
    without a gradient. The release pads to the longest sequence of a batch, so micro-batches would
    change the gradient; a fixed L avoids that. Without `padded_length` the mean of a pair is over
    positions where either response has a token.
    """

    granularity: ClassVar[Literal["pair"]] = "pair"
    needs_teacher: ClassVar[bool] = False
    score_at_sampling_temperature: ClassVar[bool] = False
    required_evidence: ClassVar[frozenset[str]] = frozenset({"ref_logp"})
    kind: Literal["dpo"] = "dpo"
    beta: Positive = 0.1
    aggregation: Literal["sequence", "position"] = "sequence"
    padded_length: Annotated[int, Ge(2)] | None = None

    def __post_init__(self) -> None:
        if self.padded_length is not None and self.aggregation == "sequence":
            raise ValueError(
                "padded_length is for `aggregation: position`; a sum over a response knows "
                "no padding"
            )

    def __call__(self, seen: SequenceStats) -> Losses:
        """One loss per pair.

        Metrics: the margin between the two sums, the share of pairs with a positive margin, and the
        unweighted log-probs of both responses.
        """
        delta_N = torch.where(seen.weight_N != 0, seen.logp_N - seen.columns.ref_logp_N, 0)
        reward_N = self.beta * seen.weight_N * delta_N
        reward_P2 = seen.sums(reward_N).view(-1, 2)
        margin_P = reward_P2[:, 0] - reward_P2[:, 1]
        loss_P = (
            -torch.nn.functional.logsigmoid(margin_P)
            if self.aggregation == "sequence"
            else self._by_position(seen, reward_N)
        )
        logp_P2 = seen.sums(seen.logp_N.detach()).view(-1, 2)
        stats = {
            "margin": margin_P,
            "accuracy": margin_P > 0,
            "chosen_logp": logp_P2[:, 0],
            "rejected_logp": logp_P2[:, 1],
        }
        return Losses(loss=loss_P, stats=stats)

    def _by_position(
        self, seen: SequenceStats, reward_N: Float[Tensor, " N"]
    ) -> Float[Tensor, " P"]:
        """Mean over positions of -log sigmoid of the difference at that position."""
        width = int(seen.token_N.max()) + 1 if len(seen.token_N) else 1
        if self.padded_length is not None and width > self.padded_length:
            raise RunError(
                f"a pair has {width} tokens, more than objective.padded_length "
                f"{self.padded_length}; raise it, or drop such pairs"
            )
        place_N = seen.rollout_N // 2 * width + seen.token_N
        nothing = reward_N.new_zeros(seen.num_rollouts // 2 * width)
        signed_N = torch.where(seen.rollout_N % 2 == 0, reward_N, -reward_N)
        margin_PT = nothing.index_add(0, place_N, signed_N).view(-1, width)
        known_PT = nothing.index_fill(0, place_N, 1.0).view(-1, width)
        sum_P = -(known_PT * torch.nn.functional.logsigmoid(margin_PT)).sum(1)
        num_P = known_PT.sum(1)
        if self.padded_length is None:
            return sum_P / num_P.clamp(min=1)
        num = self.padded_length - 1
        return (
            sum_P - (num - num_P) * torch.nn.functional.logsigmoid(torch.zeros_like(sum_P))
        ) / num
