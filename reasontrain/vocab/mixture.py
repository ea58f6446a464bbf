"""Several frozen models at the student's positions: one for each position, or a mixture of all.

With q_j the distributions and w_j the weights of the models that a position has, the teacher is

    q = sum_j w_j q_j        (sum_j w_j = 1 at every position)

A position of one model has that model's distribution. Ids are those that all models share, over
which each q_j is renormalised.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reasontrain.vocab.head import Head, Teacher, accumulation_dtype
from reasontrain.vocab.sampled import SampledTeacher
from reasontrain.vocab.top_k import TopKTeacher


@dataclass(frozen=True, eq=False)
class MixedPart:
    """One model of a mixture, at M of the N positions.

    Attributes:
        hidden_MD: its hidden states.
        head: its head.
        row_M: their positions, increasing, on the CPU.
        log_weight: log of its weight at these positions.
    """

    hidden_MD: Float[Tensor, "M D"]
    head: Head
    row_M: Int[Tensor, " M"]
    log_weight: float = 0.0


@dataclass(frozen=True, eq=False)
class MixedTeacher:
    """A mixture of frozen models at N positions; it takes the place of a `Teacher`.

    Every position has at least one model, and the weights of a position sum to 1. No model receives
    a gradient.
    """

    parts: tuple[MixedPart, ...]
    num_rows: int

    @cached_property
    def width(self) -> int:
        """Number of ids that all models share."""
        return min(part.head.width for part in self.parts)

    def __getitem__(self, rows: Bool[Tensor, " N"]) -> MixedTeacher:
        """The same at a subset of the positions."""
        kept_N = rows.cpu()
        new_N = kept_N.cumsum(0) - 1
        parts = []
        for part in self.parts:
            kept_M = kept_N[part.row_M]
            row_M = new_N[part.row_M[kept_M]]
            hidden_MD = part.hidden_MD[kept_M.to(part.hidden_MD.device)]
            parts.append(replace(part, hidden_MD=hidden_MD, row_M=row_M))
        return MixedTeacher(tuple(parts), int(kept_N.sum()))

    @torch.no_grad()
    def logits(
        self, rows: slice, temperature: float, keep_N: Bool[Tensor, " N"] | None = None
    ) -> Float[Tensor, "C U"]:
        """Log q at some positions, as logits of temperature 1.

        Args:
            rows: the positions.
            temperature: divides the logits of each model before they are mixed.
            keep_N: hidden states outside it are replaced by zeros, so that their content cannot
                overflow.

        Returns:
            The logarithm of the mixture, in new memory.
        """
        first = self.parts[0]
        num = rows.stop - rows.start
        dtype = accumulation_dtype(first.hidden_MD)
        log_q_CU = first.hidden_MD.new_full((num, self.width), -torch.inf, dtype=dtype)
        for part in self.parts:
            ends = torch.tensor([rows.start, rows.stop])
            start, stop = torch.searchsorted(part.row_M, ends).tolist()
            if start == stop:
                continue
            hidden_MD = part.hidden_MD[start:stop]
            row_M = part.row_M[start:stop].to(hidden_MD.device, non_blocking=True)
            if keep_N is not None:
                hidden_MD = hidden_MD.masked_fill(~keep_N[row_M, None], 0)
            raw_MU = part.head.project(hidden_MD)
            part.head.transform_(raw_MU, temperature)
            log_part_MU = torch.log_softmax(raw_MU[:, : self.width], -1).add_(part.log_weight)
            place_M = row_M - rows.start
            log_q_CU[place_M] = torch.logaddexp(log_q_CU[place_M], log_part_MU)
        return log_q_CU


AnyTeacher = Teacher | MixedTeacher | TopKTeacher | SampledTeacher
"""What a policy's distribution can be compared with."""
