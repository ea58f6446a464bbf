"""`reasontrain bench`: tables of rows, each side timed in turn, a record and a picture of each, and
a page of all records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from reasontrain import models
from reasontrain.bench import page, record
from reasontrain.bench.case import BenchMachine
from reasontrain.bench.measure import measure
from reasontrain.bench.record import PACKAGES, BenchRecord
from reasontrain.bench.tables import rows as tables_of
from reasontrain.data import storage
from reasontrain.evaluation.provenance import origin
from reasontrain.metrics import environment
from reasontrain.types import UserError

QUICK_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What the command line said; no `rows` are all of a table."""

    tables: Sequence[str]
    rows: Sequence[str]
    out: Path
    device: str
    quick: bool
    runs: int
    threads: int
    data: Path | None


def bench(options: BenchOptions) -> None:
    """Measure the tables that were named; each is kept as soon as it is measured."""
    models.quiet_libraries()
    machine = _machine(options)
    runs = min(options.runs, QUICK_RUNS) if options.quick else options.runs
    tables = tables_of(options.tables, machine, options.rows, print)
    made = origin(options.out.parent, (options.out,))
    for name, rows in tables.items():
        measured = []
        for row in rows:
            print(f"{name} {row.name}: {row.description}", flush=True)
            measured.append(
                measure(row, machine, runs=runs, say=lambda text: print(f"  {text}", flush=True))
            )
            print(f"  {page.ratio(measured[-1]).replace('*', '')} of {row.peer.name}", flush=True)
        if measured:
            found = BenchRecord(
                table=name,
                device=_device_name(machine.device),
                origin=made,
                versions=environment.versions(PACKAGES),
                runs=runs,
                quick=machine.quick,
                rows=tuple(measured),
            )
            _keep(options.out, found)
            print("\n".join(["", *page.table(found), ""]))
    print(f"wrote {options.out / 'README.md'}")


def _machine(options: BenchOptions) -> BenchMachine:
    """Where rows are measured; refuses a device that is not there."""
    if options.runs < 1 or options.threads < 1:
        raise UserError(
            f"--runs and --threads must be at least 1, got {options.runs} and {options.threads}"
        )
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; leave it out to measure on the CPU")
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return BenchMachine(
        device=torch.device(device), quick=options.quick, threads=options.threads, data=options.data
    )


def _device_name(device: torch.device) -> str:
    """`cpu`, or the GPU's own name in the letters of a file name."""
    return (
        "cpu"
        if device.type == "cpu"
        else torch.cuda.get_device_name(device).lower().replace(" ", "-")
    )


def _keep(folder: Path, found: BenchRecord) -> None:
    """The record, its picture, and the page of all records beside them."""
    record.write(folder, found)
    storage.replace_text(folder / f"{found.name}.svg", page.picture(found))
    records = record.read_all(folder)
    text = page.markdown(records, {each.name: f"{each.name}.svg" for each in records})
    storage.replace_text(folder / "README.md", text)
