"""Files whose rows bring their responses with them: preference pairs, and rollouts to learn from or
to choose among.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from reasontrain.data.files import Source, Table
from reasontrain.data.offline import OfflineRows, read_pairs, read_rollouts
from reasontrain.types import AtLeastOne, Problem, UserError


@dataclass(frozen=True, kw_only=True)
class _File:
    """Where rows come from (see `Source`), and how many; `images` is the folder that paths of
    images start from, that of the file where it is left out.
    """

    path: str | None = None
    hub: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    limit: AtLeastOne | None = None
    images: str | None = None

    @property
    def folder(self) -> Path:
        """Where images are."""
        return Path(self.images) if self.images is not None else Path(self.path or ".").parent

    def table(self) -> Table:
        """The rows as they stand there."""
        return Source(
            path=self.path,
            hub=self.hub,
            subset=self.subset,
            split=self.split,
            revision=self.revision,
            limit=self.limit,
        ).table()


@dataclass(frozen=True, kw_only=True)
class PairTask(_File):
    """Preference pairs in TRL's format, a pair per row: `prompt`, `chosen`, `rejected` (and `id`,
    `answer`, ids of tokens).
    """

    kind: Literal["pairs"] = "pairs"

    @cached_property
    def rows(self) -> list[OfflineRows]:
        """Every pair, ids unique."""
        return _unique(read_pairs(self.table(), self.folder))

    def problems(self) -> list[Problem]:
        """The problem of every row; raises UserError where the rows cannot be read."""
        return [row.problem for row in self.rows]


@dataclass(frozen=True, kw_only=True)
class RolloutTask(_File):
    """Demonstrations, one per row: `prompt` and `response` (and `id`, `answer`, ids of tokens)."""

    kind: Literal["rollouts"] = "rollouts"

    @cached_property
    def rows(self) -> list[OfflineRows]:
        """Every demonstration, ids unique."""
        return _unique(read_rollouts(self.table(), self.folder))

    def problems(self) -> list[Problem]:
        """The problem of every row; raises UserError where the rows cannot be read."""
        return [row.problem for row in self.rows]


OfflineTask = PairTask | RolloutTask


def _unique(rows: list[OfflineRows]) -> list[OfflineRows]:
    seen: set[str] = set()
    for row in rows:
        if row.problem.id in seen:
            raise UserError(f"id {row.problem.id!r} occurs a second time; ids must be unique")
        seen.add(row.problem.id)
    return rows
