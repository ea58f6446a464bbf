"""Direct preference optimisation, with a weight for every token."""

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
    """-log sigmoid(r_chosen - r_rejected) with r = beta sum_t w_t log(pi / pi_ref) (DPO, arXiv
    2305.18290, eq. 7).

    Weights of one are DPO itself; a weight of 1 - s on the rejected side is cDPO (arXiv
    2411.19943). Sums are over response rows, without a length in the denominator.

    `aggregation: position` is the loss of cDPO's released code: no sum before the sigmoid, but the
    tokens of both sides at one position t of the padded sequence set against each other, -log
    sigmoid(beta [w_t log(pi / pi_ref)(chosen, t) - the same of rejected]), where a side that has no
    response token there counts 0. With `padded_length` L the mean is over positions 1 to L - 1,
    prompt and padding included, as released; there the loss is ln 2 without a gradient. The release
    pads to the longest of a batch, which would let micro-batches change the gradient; here L is
    fixed. Without it the mean of a pair is over positions where either side has a response token.
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
        """One loss per pair; statistics: the margin of sums, how often the chosen side wins, and
        both unweighted log-probs.
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
        """The mean over positions of -log sigmoid of what is set against each other there."""
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
