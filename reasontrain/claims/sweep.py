"""`reasontrain claims`: runs of a table of claims, one record per row, and the table as a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reasontrain.claims.page import markdown, with_table
from reasontrain.claims.processes import Runs, TrainingJob
from reasontrain.claims.settings import ClaimRow, Saving, read_claims, run_of
from reasontrain.claims.verdict import (
    ClaimRecord,
    RunProvenance,
    SweptRate,
    check_disjoint,
    chosen,
    development,
    judge,
)
from reasontrain.data import storage
from reasontrain.evaluation.provenance import current_provenance
from reasontrain.recipe import Recipe, as_mapping, build, read_yaml
from reasontrain.run.directory import RunDirectory
from reasontrain.run.progress import progress
from reasontrain.types import UserError


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Options of the command line; empty `rows` select the rows without a current record."""

    table: Path
    rows: Sequence[str]
    out: Path
    at_once: int
    dry: bool


class ClaimsTable:
    """A file of claims, with its records and its page in the same folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = path.parent / "records"
        self.page = path.parent / "README.md"

    def record(self, name: str, row: ClaimRow) -> ClaimRecord | None:
        """The record of a row; None if it does not exist, or if the row or its recipes changed."""
        path = self.records / f"{name}.json"
        if not path.exists():
            return None
        record = build(ClaimRecord, read_yaml(path), str(path))
        first_runs = {
            arm: run_of(
                self.path.parent, row, arm, rate=row.rates[0], seed=row.seeds[0], out="-"
            ).name
            for arm in row.arms
        }
        return record if record.row == row and record.first_runs == first_runs else None

    def write(self, record: ClaimRecord) -> None:
        """Write a record to its file and update the page."""
        self.records.mkdir(exist_ok=True)
        text = json.dumps(as_mapping(record), indent=1, ensure_ascii=False)
        storage.replace_text(self.records / f"{record.name}.json", text + "\n")
        self.write_page()

    def write_page(self) -> None:
        """Write the page with the table of the current records."""
        storage.replace_text(self.page, self.text())

    def text(self) -> str:
        """The page with the table of the current records, as text."""
        by_name = {name: self.record(name, row) for name, row in read_claims(self.path).items()}
        records = [record for record in by_name.values() if record is not None]
        return with_table(
            self.page,
            markdown(records, [name for name, record in by_name.items() if record is None]),
        )


def claims(options: SweepOptions) -> None:
    """Test the named rows; without names, the rows that have no current record."""
    if options.at_once < 1:
        raise UserError(f"--jobs must be at least 1, got {options.at_once}")
    table = ClaimsTable(options.table)
    table.text()  # fails early, before hours of work, if the page has no markers
    rows = read_claims(options.table, options.rows)
    runs = Runs(
        options.out,
        current_provenance(options.table.parent, (table.records, table.page)),
        options.at_once,
    )
    for name, row in rows.items():
        if not options.rows and table.record(name, row):
            print(f"{name}: has a current record")
        elif options.dry:
            print(f"{name}: {_estimate(runs, _sweep(options, row))}")
        else:
            record = _test(name, row, options, runs)
            table.write(record)
            print(f"{name}: {record.verdict}")
    if not options.dry:
        table.write_page()
        print(f"table: {table.page}")


Sweep = Mapping[str, Mapping[float, Sequence[Recipe]]]
"""The runs of a row: arm -> rate -> one recipe per seed."""


def _sweep(options: SweepOptions, row: ClaimRow) -> Sweep:
    """Every run of a row."""
    folder = options.table.parent
    out = str(options.out)
    return {
        arm: {
            rate: [run_of(folder, row, arm, rate=rate, seed=seed, out=out) for seed in row.seeds]
            for rate in row.rates
        }
        for arm in row.arms
    }


def _test(name: str, row: ClaimRow, options: SweepOptions, runs: Runs) -> ClaimRecord:
    """Run the sweep, choose each arm's rate on the development suite, then measure held out."""
    sweep = _sweep(options, row)
    check_disjoint(sweep[row.difference.of][row.rates[0]][0], row)
    suites = (
        (row.development, row.measure.suite)
        if isinstance(row.measure, Saving)
        else (row.development,)
    )  # a saving is read from curves of both suites
    _train(f"{name}, sweep", [TrainingJob(recipe, suites) for recipe in _all(sweep)], runs)
    swept = {
        arm: tuple(
            SweptRate(rate=rate, development=development(options.out, each, row.development))
            for rate, each in rates.items()
        )
        for arm, rates in sweep.items()
    }
    at_rate = {arm: rates[chosen(swept[arm])] for arm, rates in sweep.items()}
    _train(
        f"{name}, held out",
        [TrainingJob(r, (row.measure.suite,)) for each in at_rate.values() for r in each],
        runs,
    )
    seconds = sum(runs.status(run).seconds for run in {recipe.name for recipe in _all(sweep)})
    return judge(
        name,
        row,
        options.out,
        recipes=at_rate,
        sweeps=swept,
        first_runs={arm: rates[row.rates[0]][0].name for arm, rates in sweep.items()},
        minutes=round(seconds / 60 / options.at_once, 1),
        at_once=options.at_once,
        provenances=_provenances(runs, options.out, _all(sweep)),
    )


def _train(label: str, jobs: Sequence[TrainingJob], runs: Runs) -> None:
    with progress(label, len(jobs)) as advance:
        runs.train(jobs, lambda done, total: advance(done, _left(runs, jobs)))


def _all(sweep: Sweep) -> list[Recipe]:
    return [recipe for rates in sweep.values() for each in rates.values() for recipe in each]


def _left(runs: Runs, jobs: Sequence[TrainingJob]) -> str:
    """The remaining time, from the mean time of finished runs; "" if all are finished."""
    finished = {job.recipe.name: runs.finished(job) for job in jobs}
    seconds = [runs.status(name).seconds for name, is_finished in finished.items() if is_finished]
    num_left = len(finished) - len(seconds)
    mean = sum(seconds) / max(len(seconds), 1)
    return f"about {mean * num_left / runs.at_once / 60:.0f} min left" if num_left else ""


def _estimate(runs: Runs, sweep: Sweep) -> str:
    """The number of runs of a row, and their time, estimated from finished runs."""
    names = {recipe.name for recipe in _all(sweep)}
    seconds = [status.seconds for name in names if (status := runs.status(name)).suites]
    took = "the time is unknown, since none is finished"
    if seconds:
        took = (
            f"about {sum(seconds) / len(seconds) * len(names) / runs.at_once / 60:.0f} min, "
            f"{runs.at_once} at a time"
        )
    return f"{len(names)} runs, {len(seconds)} of them finished; {took}"


def _provenances(runs: Runs, out: Path, recipes: Sequence[Recipe]) -> tuple[RunProvenance, ...]:
    """The distinct provenances of these runs."""
    distinct: list[RunProvenance] = []
    for recipe in recipes:
        facts = RunDirectory(out / recipe.name).read_environment()
        for source in runs.status(recipe.name).provenances:
            provenance = RunProvenance(
                origin=source, device=facts["device"], versions=facts["versions"]
            )
            if provenance not in distinct:
                distinct.append(provenance)
    return tuple(distinct)
