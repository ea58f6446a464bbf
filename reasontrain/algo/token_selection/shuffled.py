"""Another rule's weights at random tokens: a control for the choice of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float

from reasontrain.algo._draws import uniform_BT
from reasontrain.algo._top_k import lexsort
from reasontrain.algo.token_selection.rules import SelectionPlugin, SelectionRule, evidence_at
from reasontrain.rng import Stream
from reasontrain.types import Batch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ShuffledWeights:
    """The weights of the rule `of`, permuted at random among the response tokens of each rollout.

    Each step draws a new permutation. Every rollout keeps exactly its multiset of weights,
    fractional ones included.
    """

    of: SelectionRule | SelectionPlugin
    kind: Literal["shuffled"] = "shuffled"

    @property
    def required_evidence(self) -> frozenset[str]:
        """The evidence that the shuffled rule reads."""
        return self.of.required_evidence

    def evidence_at(self, progress: float) -> frozenset[str]:
        """The evidence that the shuffled rule reads at this progress of the run."""
        return evidence_at(self.of, progress)

    def kept_share(self, progress: float) -> float:
        """Fraction of response tokens that the shuffled rule keeps."""
        return self.of.kept_share(progress)

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        among_BT = batch.is_response_BT
        rollout_N = among_BT.nonzero()[:, 0]
        order_N = batch.token_order_BT[among_BT]
        draw_N = uniform_BT(batch, Stream.SHUFFLED_WEIGHTS)[among_BT]
        weight_BT = self.of(batch)
        shuffled_N = torch.empty_like(weight_BT[among_BT])
        shuffled_N[lexsort(rollout_N, draw_N, order_N)] = weight_BT[among_BT][
            lexsort(rollout_N, order_N)
        ]
        return torch.zeros_like(weight_BT).masked_scatter(among_BT, shuffled_N)
