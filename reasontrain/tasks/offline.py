"""Tasks whose rows contain responses: preference pairs and demonstrations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from reasontrain.data.files import Source, Table
from reasontrain.data.offline import OfflineSample, read_pairs, read_rollouts
from reasontrain.tasks.task import Task
from reasontrain.types import AtLeastOne, Problem, UserError


@dataclass(frozen=True, kw_only=True)
class _File(Task):
    """A file or hub data set (see `Source`) with one sample per row.

    Paths of images are relative to the folder `images` (default: the folder of the file).
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
        """The folder to which paths of images are relative."""
        return Path(self.images) if self.images is not None else Path(self.path or ".").parent

    def files(self) -> tuple[Path, ...]:
        """See `Task`; the images are not listed."""
        return () if self.path is None else (Path(self.path),)

    def table(self) -> Table:
        """The rows of the source."""
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
    """Preference pairs in TRL's format, one per row: `prompt`, `chosen`, `rejected`.

    `id`, `answer` and token ids are optional columns.
    """

    kind: Literal["pairs"] = "pairs"

    @cached_property
    def samples(self) -> list[OfflineSample]:
        """Every pair, ids unique."""
        return _unique(read_pairs(self.table(), self.folder))

    def problems(self) -> list[Problem]:
        """The problem of every row; raise UserError if the rows cannot be read."""
        return [sample.problem for sample in self.samples]


@dataclass(frozen=True, kw_only=True)
class RolloutTask(_File):
    """Demonstrations, one per row: `prompt`, `response`, optionally `id`, `answer`, token ids."""

    kind: Literal["rollouts"] = "rollouts"

    @cached_property
    def samples(self) -> list[OfflineSample]:
        """Every demonstration, ids unique."""
        return _unique(read_rollouts(self.table(), self.folder))

    def problems(self) -> list[Problem]:
        """The problem of every row; raise UserError if the rows cannot be read."""
        return [sample.problem for sample in self.samples]


OfflineTask = PairTask | RolloutTask


def _unique(samples: list[OfflineSample]) -> list[OfflineSample]:
    seen: set[str] = set()
    for sample in samples:
        if sample.problem.id in seen:
            raise UserError(f"id {sample.problem.id!r} occurs more than once; ids must be unique")
        seen.add(sample.problem.id)
    return samples
