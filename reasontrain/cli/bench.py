"""`reasontrain bench`: measure tables of cases, and write records, plots and a page.

Each table has a record and a plot; the page shows all records.
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
from reasontrain.evaluation.provenance import current_provenance
from reasontrain.metrics import environment
from reasontrain.types import UserError

QUICK_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Options of the command line; without `rows`, all cases of a table are measured."""

    tables: Sequence[str]
    rows: Sequence[str]
    out: Path
    device: str
    quick: bool
    runs: int
    threads: int
    data: Path | None


def bench(options: BenchOptions) -> None:
    """Measure tables; each record is written as soon as its table is measured."""
    models.quiet_libraries()
    machine = _machine(options)
    runs = min(options.runs, QUICK_RUNS) if options.quick else options.runs
    tables = tables_of(options.tables, machine, options.rows)
    provenance = current_provenance(options.out.parent, (options.out,))
    for name, rows in tables.items():
        measured = []
        for row in rows:
            print(f"{name} {row.name}: {row.description}", flush=True)
            measured.append(measure(row, machine, runs=runs))
            print(f"  {page.ratio(measured[-1]).replace('*', '')} of {row.peer.name}", flush=True)
        if measured:
            bench_record = BenchRecord(
                table=name,
                device=_device_name(machine.device),
                origin=provenance,
                versions=environment.versions(PACKAGES),
                runs=runs,
                quick=machine.quick,
                rows=tuple(measured),
            )
            _write(options.out, bench_record)
            print("\n".join(["", *page.table(bench_record), ""]))
    print(f"wrote {options.out / 'README.md'}")


def _machine(options: BenchOptions) -> BenchMachine:
    """The machine to measure on; raise UserError if the device is missing."""
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
    """`cpu`, or the GPU's name as part of a file name."""
    return (
        "cpu"
        if device.type == "cpu"
        else torch.cuda.get_device_name(device).lower().replace(" ", "-")
    )


def _write(folder: Path, bench_record: BenchRecord) -> None:
    """Write the record, its plot, and the page of all records in the same folder."""
    record.write(folder, bench_record)
    storage.replace_text(folder / f"{bench_record.name}.svg", page.picture(bench_record))
    records = record.read_all(folder)
    text = page.markdown(records, {each.name: f"{each.name}.svg" for each in records})
    storage.replace_text(folder / "README.md", text)
