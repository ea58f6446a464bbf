"""A budget that changes over the run."""

from __future__ import annotations

from dataclasses import dataclass

from reasontrain.types import Ratio


@dataclass(frozen=True, kw_only=True)
class LinearSchedule:
    """A share that goes in a straight line from `init` at the first step to `final` at the last
    (D3S, arXiv 2509.22115).

    Without `final` it stays what it is. It is a function of progress, which a resumed run takes up
    where it was.
    """

    init: Ratio
    final: Ratio | None = None

    def at(self, progress: float) -> float:
        """(1 - p) init + p final, with progress brought to [0, 1]."""
        if self.final is None:
            return self.init
        done = min(max(progress, 0.0), 1.0)
        return (1 - done) * self.init + done * self.final

    @property
    def least(self) -> float:
        """The smallest share that it comes to."""
        return min(self.at(0.0), self.at(1.0))
