"""The types of a benchmark: cases, contestants, variants and goals.

A case is one piece of work, done by two contestants, each with its best settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from reasontrain.models import ModelSettings
from reasontrain.types import AtLeastOne, UserError

Numbers = Mapping[str, float]
"""Results of a piece of work by name.

They must agree between contestants; otherwise these did different work.
"""
Work = Callable[[], Numbers]
Setup = Callable[[], AbstractContextManager[Work]]
"""A context manager that sets up a piece of work, yields it, and cleans up."""
Setting = str | int | float | bool


class NoPeerError(UserError):
    """The peer of a table is not installed."""


@dataclass(frozen=True, kw_only=True)
class BenchMachine:
    """The machine that cases are measured on, and the thoroughness of the measurement.

    `quick` searches fewer settings, and some cases do less work. `data` is a folder with benchmark
    files, for the cases that read them, or a file of problems for a pre-trained `model`. A model
    replaces the random weights of the tables that can run it; `teacher` is what it is distilled
    from.
    """

    device: torch.device
    quick: bool
    threads: AtLeastOne
    data: Path | None = None
    model: ModelSettings | None = None
    teacher: ModelSettings | None = None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One setting of a contestant; the work is timed, the setup is not."""

    settings: Mapping[str, Setting]
    setup: Setup


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """An implementation of the work; only its fastest variant is compared.

    Each contestant therefore has its own best settings.
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
    numbers, relative to the larger. `remark` explains how to read the ratio, and `after` returns a
    remark that depends on the measurement. `memory` is false if the work is done in other
    processes, whose memory is not measured. If `is_long`, a run takes so long that
    its warm-up is a small part of it, and the search runs every variant once.
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
    is_long: bool = False
    after: Callable[[], str] = str
