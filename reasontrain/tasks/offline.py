"""Tasks whose rows contain responses: preference pairs and demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Literal

from reasontrain.data.files import (
    BadRows,
    OnBadRow,
    RowError,
    Table,
    files_of,
    read_source,
    refuse,
)
from reasontrain.data.offline import OfflineSample, read_pairs, read_rollouts
from reasontrain.tasks.task import Task
from reasontrain.types import AtLeastOne, Problem

Reader = Callable[..., list[OfflineSample]]
"""`read_rollouts` or `read_pairs`."""


@dataclass(frozen=True, kw_only=True)
class _NamedColumns:
    """Names of columns that differ from the usual ones; dotted for cells of nested objects."""

    prompt: str | None = None
    messages: str | None = None
    answer: str | None = None
    id: str | None = None

    def named(self) -> Iterator[tuple[str, str]]:
        """(part of `reasontrain.data.rows`, column) for each part whose column is set."""
        for part in fields(self):
            column: str | None = self.__dict__[part.name]
            if column is not None:
                yield PARTS.get(part.name, part.name), column


PARTS = {"prompt": "problem", "response": "solution"}


@dataclass(frozen=True, kw_only=True)
class PairColumns(_NamedColumns):
    """Names of a pair's columns that differ from the usual ones."""

    chosen: str | None = None
    rejected: str | None = None


@dataclass(frozen=True, kw_only=True)
class RolloutColumns(_NamedColumns):
    """Names of a demonstration's columns that differ from the usual ones."""

    response: str | None = None


@dataclass(frozen=True, kw_only=True)
class _File(Task):
    """A file or hub data set (see `Source`) with one sample per row.

    Paths of images are relative to the folder `images` (default: the folder of the file). With
    `bad_rows: drop`, rows that cannot be used are dropped and counted instead of refused.
    """

    path: str | None = None
    hub: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    limit: AtLeastOne | None = None
    images: str | None = None
    bad_rows: BadRows = "refuse"

    @property
    def folder(self) -> Path:
        """The folder to which paths of images are relative."""
        return Path(self.images) if self.images is not None else Path(self.path or ".").parent

    def files(self) -> tuple[Path, ...]:
        """See `Task`; the images are not listed."""
        return () if self.path is None else tuple(files_of(self.path))

    def table(self, on_bad_row: OnBadRow) -> Table:
        """The rows of the source; `on_bad_row` gets the error of each line that is no row."""
        return read_source(
            path=self.path,
            hub=self.hub,
            subset=self.subset,
            split=self.split,
            revision=self.revision,
            limit=self.limit,
            on_bad_row=on_bad_row,
        )

    def read(self, reader: Reader, named: Mapping[str, str]) -> list[OfflineSample]:
        """Every sample, read by `reader` with the columns that the user named."""
        unreadable: list[RowError] = []
        table = self.table(refuse if self.bad_rows == "refuse" else unreadable.append)
        return reader(
            table,
            self.folder,
            columns=named,
            bad_rows=self.bad_rows,
            unreadable=unreadable,
        )


@dataclass(frozen=True, kw_only=True)
class PairTask(_File):
    """Preference pairs in TRL's format, one per row: `prompt`, `chosen`, `rejected`.

    `id`, `answer` and token ids are optional columns.
    """

    kind: Literal["pairs"] = "pairs"
    columns: PairColumns = field(default_factory=PairColumns)

    @cached_property
    def samples(self) -> list[OfflineSample]:
        """Every pair, ids unique."""
        return self.read(read_pairs, dict(self.columns.named()))

    def problems(self) -> list[Problem]:
        """The problem of every row; raise UserError if the rows cannot be read."""
        return [sample.problem for sample in self.samples]


@dataclass(frozen=True, kw_only=True)
class RolloutTask(_File):
    """Demonstrations, one per row: a prompt and a response, or a conversation.

    `id`, `answer` and token ids are optional columns.
    """

    kind: Literal["rollouts"] = "rollouts"
    columns: RolloutColumns = field(default_factory=RolloutColumns)

    @cached_property
    def samples(self) -> list[OfflineSample]:
        """Every demonstration, ids unique."""
        return self.read(read_rollouts, dict(self.columns.named()))

    def problems(self) -> list[Problem]:
        """The problem of every row; raise UserError if the rows cannot be read."""
        return [sample.problem for sample in self.samples]


OfflineTask = PairTask | RolloutTask
