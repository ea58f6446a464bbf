"""`reasontrain bench`: measure tables of cases, and write records, plots and a page.

Each table has a record and a plot; the page shows all records.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from reasontrain import models
from reasontrain.bench import page, pretrained, record
from reasontrain.bench.case import BenchMachine
from reasontrain.bench.measure import Measured, measure
from reasontrain.bench.record import PACKAGES, BenchRecord
from reasontrain.bench.tables import rows as tables_of
from reasontrain.data import storage
from reasontrain.evaluation.provenance import current_provenance
from reasontrain.metrics import environment
from reasontrain.models import DType, ModelSettings
from reasontrain.types import UserError

QUICK_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Options of the command line; without `rows`, all cases of a table are measured.

    Each case is measured once per number of `threads`.
    """

    tables: Sequence[str]
    rows: Sequence[str]
    out: Path
    device: str
    quick: bool
    runs: int
    threads: Sequence[int]
    data: Path | None
    model: str | None = None
    teacher: str | None = None
    dtype: DType | None = None


def bench(options: BenchOptions) -> None:
    """Measure tables; the record of a table is written again after each of its rows."""
    models.quiet_libraries()
    machine = _machine(options)
    runs = min(options.runs, QUICK_RUNS) if options.quick else options.runs
    tables = tables_of(options.tables, machine, options.rows)
    provenance = current_provenance(options.out.parent, (options.out,))
    for name, rows in tables.items():
        measured: list[Measured] = []
        for row, threads in itertools.product(rows, options.threads):
            print(f"{name} {row.name}: {row.description}", flush=True)
            with warnings.catch_warnings():
                # libraries warn about one another, which no option of the benchmark can answer
                warnings.simplefilter("ignore")
                measured.append(measure(row, replace(machine, threads=threads), runs=runs))
            print(
                f"  {page.ratio(measured[-1]).replace('*', '')} of {row.peer.name}, with "
                f"{page.num_threads(measured[-1])}",
                flush=True,
            )
            bench_record = BenchRecord(
                table=name,
                device=_device_name(machine.device),
                origin=provenance,
                versions=environment.versions(PACKAGES),
                runs=runs,
                quick=machine.quick,
                rows=tuple(measured),
                model=None if machine.model is None else pretrained.label(machine.model),
                dtype=None if machine.model is None else machine.model.dtype,
            )
            _write(options.out, bench_record)
        if measured:
            print("\n".join(["", *page.table(bench_record), ""]))
    print(f"wrote {options.out / 'README.md'}")


def _machine(options: BenchOptions) -> BenchMachine:
    """The machine to measure on; raise UserError if the device is missing."""
    if options.runs < 1 or min(options.threads) < 1:
        raise UserError(
            f"--runs and --threads must be at least 1, got {options.runs} and "
            f"{min(options.threads)}"
        )
    if options.model is None:
        if options.teacher is not None or options.dtype is not None:
            option = "--dtype" if options.teacher is None else "--teacher"
            raise UserError(f"{option} is for a pre-trained model; give --model too")
        if options.data is not None and not options.data.is_dir():
            raise UserError(f"--data {options.data} is no folder; a file of problems needs --model")
    elif options.data is not None and not options.data.exists():
        raise UserError(f"--data {options.data} does not exist")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; leave it out to measure on the CPU")
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return BenchMachine(
        device=torch.device(device),
        quick=options.quick,
        threads=options.threads[0],
        data=options.data,
        model=_settings(options.model, options.dtype),
        teacher=_settings(options.teacher, options.dtype),
    )


def _settings(path: str | None, dtype: DType | None) -> ModelSettings | None:
    return None if path is None else ModelSettings(path=path, dtype=dtype or "float32")


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
