"""The types of a benchmark: cases, contestants, variants and goals.

A case is one piece of work, done by two contestants, each at the best of its own settings.
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
"""Results of a piece of work by name.

Both contestants must give the same, or they did different work.
"""
Work = Callable[[], Numbers]
Setup = Callable[[], AbstractContextManager[Work]]
"""A context that builds what a piece of work needs and yields the work; leaving it cleans up."""
Setting = str | int | float | bool


class NoPeerError(UserError):
    """The peer that a table runs beside is not installed."""


@dataclass(frozen=True, kw_only=True)
class BenchMachine:
    """The machine that cases are measured on, and how thoroughly.

    `quick` searches fewer settings, and some cases do less work. `data` is a folder with benchmark
    files, for the cases that read them.
    """

    device: torch.device
    quick: bool
    threads: AtLeastOne
    data: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One setting of a contestant; its setup is not timed, its work is."""

    settings: Mapping[str, Setting]
    setup: Setup


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """An implementation of the work; its fastest variant enters the case.

    So each contestant has its own best settings.
    """

    name: str
    variants: tuple[Variant, ...]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """An upper bound on a ratio of medians, subject to peer, or on the subject's median seconds."""

    of: Literal["time", "memory", "seconds"]
    at_most: float


@dataclass(frozen=True, kw_only=True)
class BenchCase:
    """One piece of work and its two contestants: the subject, and the peer it is compared with.

    `work` describes the work (shape, batch, lengths, dtype), `units` names and counts what one run
    processes ("tokens", 8192), and `tolerance` bounds the difference between the contestants'
    numbers, relative to the larger. `remark` is what a reader must know to read the ratio, and
    `after` gives what is known only after the measurement. `memory` is false if the work is done
    in other processes, whose memory is not measured.
    """

    name: str
    description: str
    work: Mapping[str, Setting]
    units: tuple[str, float]
    subject: Contestant
    peer: Contestant
    tolerance: float
    goals: tuple[Goal, ...] = ()
    remark: str = ""
    memory: bool = True
    after: Callable[[], str] = str
