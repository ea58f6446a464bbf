"""One line of an examination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "slow", "broken", "absent"]
"""`absent`: an optional part is not installed, or this machine has no such device."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check.

    Attributes:
        name: what was tried.
        status: how it went.
        detail: versions, sizes, rates or the error.
        mend: what to do about it; "" if nothing has to be done.
        seconds: the time that the check took.
    """

    name: str
    status: Status
    detail: str
    mend: str = ""
    seconds: float = 0.0

    def line(self) -> str:
        """The finding as one line."""
        mend = f"; {self.mend}" if self.mend else ""
        return f"{self.status:<7}{self.name:<22}{self.detail}{mend}"
