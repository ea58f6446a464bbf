"""Schedule of a keep ratio over the run."""

from __future__ import annotations

from dataclasses import dataclass

from reasontrain.types import Ratio


@dataclass(frozen=True, kw_only=True)
class LinearSchedule:
    """A ratio that changes linearly from `init` at the first step to `final` at the last.

    The schedule of D3S (arXiv 2509.22115); constant if `final` is None. It depends on progress
    alone, so a resumed run continues it.
    """

    init: Ratio
    final: Ratio | None = None

    def at(self, progress: float) -> float:
        """(1 - p) init + p final, with p the progress clamped to [0, 1]."""
        if self.final is None:
            return self.init
        done = min(max(progress, 0.0), 1.0)
        return (1 - done) * self.init + done * self.final

    @property
    def least(self) -> float:
        """The smallest ratio during the run."""
        return min(self.at(0.0), self.at(1.0))
