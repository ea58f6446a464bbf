"""Maximum likelihood: supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from reasontrain.types import Losses, RowColumns, Rows


@dataclass(frozen=True, kw_only=True)
class Nll:
    """-log p(token), in nats; `nll` is its mean over the rows that have a weight, whatever the weight."""

    unit: ClassVar[Literal["row"]] = "row"
    teacher: ClassVar[bool] = False
    follows_sampler: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    kind: Literal["nll"] = "nll"

    def __call__(self, policy: Rows, batch: RowColumns) -> Losses:
        """One loss per row."""
        return Losses(loss=-policy.logp_N, stats={"nll": -policy.logp_N})
