"""The nouns of a benchmark: a row is one piece of work, done by two sides, each in the best of its
own ways.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from reasontrain.types import AtLeastOne, UserError

Numbers = Mapping[str, float]
"""What a piece of work gives, by name: the two sides must agree on it, or they did not do the same.
"""
Work = Callable[[], Numbers]
Setup = Callable[[], AbstractContextManager[Work]]
"""Builds what a piece of work needs and gives the work itself; leaving it cleans up."""
Setting = str | int | float | bool


class NoPeerError(UserError):
    """The peer that a table runs beside is not installed."""


@dataclass(frozen=True, kw_only=True)
class BenchMachine:
    """Where and how thoroughly rows are measured; `data` is a folder with benchmark files, for the
    rows that read them.
    """

    device: torch.device
    quick: bool
    threads: AtLeastOne
    data: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way of doing the work, which alone is timed."""

    settings: Mapping[str, Setting]
    ready: Setup


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """Who does the work; of several ways the fastest enters the row, so that each side has its own
    best settings.
    """

    name: str
    ways: tuple[Variant, ...]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What should hold: a ratio of ours to the peer's, by the medians, or our own median time in
    seconds.
    """

    of: Literal["time", "memory", "seconds"]
    at_most: float


@dataclass(frozen=True, kw_only=True)
class BenchCase:
    """One piece of work and its two sides.

    `work` says what it is (shape, batch, lengths, dtype), `units` how many of what one run of it
    gets through ("tokens", 8192), and `tolerance` how far the two sides' numbers may lie apart,
    relative to the larger. `remark` says what a reader must know to read the ratio rightly, and
    `after` what there is to say of it only when it has been measured. `memory` is false where the
    work is done in other processes, whose memory nobody sees here.
    """

    name: str
    what: str
    work: Mapping[str, Setting]
    units: tuple[str, float]
    ours: Contestant
    peer: Contestant
    tolerance: float
    goals: tuple[Goal, ...] = ()
    remark: str = ""
    memory: bool = True
    after: Callable[[], str] = str
