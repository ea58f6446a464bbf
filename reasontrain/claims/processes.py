"""Training runs in processes of their own, several at a time, and each of them once: a killed
command goes on.
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
"""Hears how many runs of how many are done."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """What is known of a run: who made it, how long it took in all, and which suites it was asked
    after its last step.
    """

    made: tuple[Provenance, ...] = ()
    seconds: float = 0.0
    suites: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingJob:
    """A run by its recipe, and which of the recipe's suites it is to be asked."""

    recipe: Recipe
    suites: tuple[str, ...]

    @property
    def asked(self) -> Recipe:
        """The recipe with these suites alone."""
        assert self.recipe.evaluate is not None, "a row was checked before it is run"
        suites = tuple(suite for suite in self.recipe.evaluate.suites if suite.name in self.suites)
        return replace(self.recipe, evaluate=replace(self.recipe.evaluate, suites=suites))


class Runs:
    """A folder of runs; beside each lie its recipe, what it printed, and its status."""

    def __init__(self, folder: Path, origin: Provenance, at_once: int) -> None:
        self.folder, self.origin, self.at_once = folder, origin, at_once

    def status(self, name: str) -> Status:
        """What is known of a run; nothing, of one that was never begun."""
        path = self._beside(name, ".json")
        return (
            build(Status, json.loads(path.read_text(encoding="utf-8")), str(path))
            if path.exists()
            else Status()
        )

    def finished(self, job: TrainingJob) -> bool:
        """Whether a run took its last step and was asked these suites."""
        there = RunDirectory(self.folder / job.recipe.name).final.is_dir()
        return there and set(job.suites) <= set(self.status(job.recipe.name).suites)

    def train(self, jobs: Sequence[TrainingJob], done: Done) -> None:
        """Finish all of these runs.

        Raises RunError where one fails; whatever was begun is saved and goes on next time.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        jobs = list(
            {job.recipe.name: job for job in jobs}.values()
        )  # arms that say the same are one run
        waiting, running = [job for job in jobs if not self.finished(job)], list[_Running]()
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
        """Begin a run or go on with it, in a process that holds its lock for as long as it lives,
        whatever becomes of us.
        """
        name = job.recipe.name
        lock = self._beside(name, ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise RunError(
                f"run {name} is being trained by another process; wait for its end and "
                f"give the command again"
            ) from None
        recipe = self._beside(name, ".yaml")
        recipe.write_text(as_yaml(job.asked), encoding="utf-8")
        status = self.status(name)
        if self.origin not in status.made:
            self._write(name, replace(status, made=(*status.made, self.origin)))
        with self._beside(name, ".log").open("a") as log:
            process = subprocess.Popen(
                [*TRAIN, str(recipe)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
                pass_fds=[lock.fileno()],
                start_new_session=True,  # Ctrl-C reaches us alone, and we ask each run to save
            )
        return _Running(job, process, lock, time.monotonic())

    def _end(self, run: _Running) -> None:
        """Write down that a run ended, or say why it failed."""
        run.lock.close()
        name = run.job.recipe.name
        if run.process.returncode:
            log = self._beside(name, ".log")
            last = (
                log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                or ["no word"]
            )[-1]
            raise RunError(f"run {name} failed: {last} (all that it printed: {log})")
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
    """A process at work; the lock is open in both of us."""

    job: TrainingJob
    process: subprocess.Popen[bytes]
    lock: TextIO
    since: float


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM is told like Ctrl-C, so that runs are asked to save."""
    raise KeyboardInterrupt
