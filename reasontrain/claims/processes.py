"""Training runs in separate processes, several at a time, each of them once.

If the command is killed, the next one resumes the runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TextIO

from reasontrain.data import storage
from reasontrain.evaluation.provenance import Provenance
from reasontrain.recipe import Recipe, as_mapping, as_yaml, build
from reasontrain.run.directory import RunDirectory
from reasontrain.types import RunError

TRAIN = (sys.executable, "-m", "reasontrain.cli", "train")
WAIT_S = 0.1
Done = Callable[[int, int], None]
"""Receives the number of finished runs and the total number of runs."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """Facts about a run: provenances, total seconds, and suites that it was evaluated on."""

    provenances: tuple[Provenance, ...] = ()
    seconds: float = 0.0
    suites: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingJob:
    """A run, given by its recipe and the suites of the recipe to evaluate on."""

    recipe: Recipe
    suites: tuple[str, ...]

    @property
    def recipe_with_suites(self) -> Recipe:
        """The recipe with only these suites."""
        assert self.recipe.evaluate is not None, "a row was checked before it is run"
        suites = tuple(suite for suite in self.recipe.evaluate.suites if suite.name in self.suites)
        return replace(self.recipe, evaluate=replace(self.recipe.evaluate, suites=suites))


class Runs:
    """A folder of runs, each with files for its recipe, its log and its status."""

    def __init__(self, folder: Path, origin: Provenance, at_once: int) -> None:
        """Open the folder; at most `at_once` runs train at a time, with provenance `origin`."""
        self.folder = folder
        self.origin = origin
        self.at_once = at_once

    def status(self, name: str) -> Status:
        """The status of a run; an empty one if it never started."""
        path = self._beside(name, ".json")
        return (
            build(Status, json.loads(path.read_text(encoding="utf-8")), str(path))
            if path.exists()
            else Status()
        )

    def finished(self, job: TrainingJob) -> bool:
        """True if the run took its last step and was evaluated on these suites."""
        is_trained = RunDirectory(self.folder / job.recipe.name).final.is_dir()
        return is_trained and set(job.suites) <= set(self.status(job.recipe.name).suites)

    def train(self, jobs: Sequence[TrainingJob], done: Done) -> None:
        """Finish all of these runs.

        Raises RunError if one fails; the others save a checkpoint and resume next time.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        # Arms with equal settings are one run.
        jobs = list({job.recipe.name: job for job in jobs}.values())
        waiting = [job for job in jobs if not self.finished(job)]
        running: list[_Running] = []
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            while waiting or running:
                for job in waiting[: self.at_once - len(running)]:
                    waiting.remove(job)
                    running.append(self._start(job))
                for run in [run for run in running if run.process.poll() is not None]:
                    self._end(run)
                    running.remove(run)
                    done(len(jobs) - len(waiting) - len(running), len(jobs))
                time.sleep(WAIT_S)
        finally:
            for run in running:
                run.process.terminate()
            for run in running:
                run.process.wait()
                run.lock.close()
            signal.signal(signal.SIGTERM, before)

    def _start(self, job: TrainingJob) -> _Running:
        """Start or resume a run, in a process that holds the run's lock until it ends.

        The process inherits the lock, which therefore outlives this process if this process is
        killed.
        """
        name = job.recipe.name
        lock = self._beside(name, ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise RunError(
                f"run {name} is being trained by another process; wait until it ends, then repeat "
                f"the command"
            ) from None
        recipe = self._beside(name, ".yaml")
        recipe.write_text(as_yaml(job.recipe_with_suites), encoding="utf-8")
        status = self.status(name)
        if self.origin not in status.provenances:
            self._write(name, replace(status, provenances=(*status.provenances, self.origin)))
        with self._beside(name, ".log").open("a") as log:
            process = subprocess.Popen(
                [*TRAIN, str(recipe)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
                pass_fds=[lock.fileno()],
                # Ctrl-C then reaches only this process, which terminates the runs so that they
                # save.
                start_new_session=True,
            )
        return _Running(job, process, lock, time.monotonic())

    def _end(self, run: _Running) -> None:
        """Record that a run ended; raise RunError if it failed."""
        run.lock.close()
        name = run.job.recipe.name
        if run.process.returncode:
            log = self._beside(name, ".log")
            last = (
                log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                or ["it printed nothing"]
            )[-1]
            raise RunError(f"run {name} failed: {last} (its log: {log})")
        status = self.status(name)
        seconds = status.seconds + time.monotonic() - run.since
        self._write(
            name,
            replace(
                status,
                seconds=round(seconds, 1),
                suites=tuple(sorted({*status.suites, *run.job.suites})),
            ),
        )

    def _write(self, name: str, status: Status) -> None:
        storage.replace_text(self._beside(name, ".json"), json.dumps(as_mapping(status), indent=1))

    def _beside(self, name: str, ending: str) -> Path:
        return self.folder / f"{name}{ending}"


@dataclass(frozen=True)
class _Running:
    """A running process; the lock is open in both processes."""

    job: TrainingJob
    process: subprocess.Popen[bytes]
    lock: TextIO
    since: float


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM like Ctrl-C, so that runs are terminated and save."""
    raise KeyboardInterrupt
