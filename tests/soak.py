"""Runs that lose processes, each to a `kill -9` at a seeded moment; their final weights are those
of an undisturbed run.

`python -m tests.soak --runs 20` kills a learner rank, a sampler, a grader, the driver and the Ray
head, so often each, in runs of their own. A learner, sampler or grader is replaced within the run;
after the death of the driver or the head the same command is given again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPLACED = ("learner", "sampler", "grader")
"""Processes that a run replaces when they die."""
BEGUN_AGAIN = ("driver", "head")
"""Processes whose death ends the run, which the same command then continues."""
KINDS = (*REPLACED, *BEGUN_AGAIN)
STEPS = 12
OVERRIDES = (
    f"steps={STEPS}",
    "evaluate=null",
    "learn.rollouts_per_step=32",
    "task.num_problems=300",
    "checkpoint.every=2",
    "cluster.learners=2",
    "learn.zero.stage=2",
    "cluster.samplers=1",
    "cluster.graders=1",
    "track.tensorboard=false",
)
LIMIT_S = 400.0


def command(out: Path, name: str) -> list[str]:
    """The run, as it is typed."""
    return [
        sys.executable,
        "-m",
        "reasontrain.cli",
        "train",
        str(ROOT / "recipes/tiny/tip.yaml"),
        f"out={out}",
        f"name={name}",
        *OVERRIDES,
    ]


def begin(out: Path, name: str) -> subprocess.Popen[str]:
    """Start it in a session of its own."""
    environment = os.environ | {
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("RAY_ADDRESS", None)
    with (out / f"{name}.log").open("a") as log:
        return subprocess.Popen(
            command(out, name),
            env=environment,
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
            cwd=out,
        )


def steps_done(run: Path) -> int:
    """Lines that the run has written."""
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def fingerprint(run: Path) -> str:
    """Of the final weights."""
    return hashlib.sha256((run / "final" / "model.safetensors").read_bytes()).hexdigest()


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [below for child in task.read_text().split() for below in descendants(int(child))]
    return found


def victim(kind: str, run: Path, driver: int, draw: random.Random) -> int:
    """The process to be killed."""
    if kind == "driver":
        return driver
    if kind == "head":
        return next(
            pid
            for pid in descendants(driver)
            if "gcs_server" in Path(f"/proc/{pid}/cmdline").read_text()
        )
    rank = draw.randrange(2) if kind == "learner" else 0
    return int(json.loads((run / "logs" / f"{kind}-{rank}.json").read_text())["pid"])


def end(pids: list[int]) -> None:
    """What is left of a run that was killed."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def disturbed(
    kinds: Sequence[str], out: Path, name: str, draw: random.Random
) -> tuple[int, float, float]:
    """Do one run in which a process of each of these kinds dies, one after the other.

    Each death comes at a moment of its own part of the run, after at least one whole step since the
    death before it: by then what died has been replaced.

    Args:
        kinds: Of `KINDS`, in the order of their deaths.
        out: The folder of the run's directory and of its log.
        name: The run's name.
        draw: Chooses the moments, and the rank where there are several.

    Returns:
        The step of the last death, the seconds from it to the end, and those of the whole run.

    Raises:
        AssertionError: The run ended too early, hangs, or failed.
    """
    started = time.monotonic()
    process, run = begin(out, name), out / name
    part, after = (STEPS - 1) // len(kinds), -1
    for number, kind in enumerate(kinds):
        at = max(after, number * part + draw.randrange(part))
        while steps_done(run) <= at:
            assert process.poll() is None, (
                f"{name} ended before its {kind} was killed; see {out / name}.log"
            )
            assert time.monotonic() - started < LIMIT_S * len(kinds), f"{name} hangs"
            time.sleep(0.02)
        time.sleep(draw.random())
        after = steps_done(run) + 1
        _kill(kind, process, run, draw)
        killed = time.monotonic()
        if kind in BEGUN_AGAIN:
            process = begin(out, name)
    code = process.wait(LIMIT_S)
    assert code == 0, (
        f"{name}: exit code {code} after its {', '.join(kinds)} died; see {out / name}.log"
    )
    return at, time.monotonic() - killed, time.monotonic() - started


def _kill(kind: str, process: subprocess.Popen[str], run: Path, draw: random.Random) -> None:
    """Kill one process of a run; with its driver or head, all of them."""
    everything = descendants(process.pid)
    os.kill(victim(kind, run, process.pid, draw), signal.SIGKILL)
    if kind in REPLACED:
        return
    if kind == "head":
        try:
            process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{run.name}: without its head the run neither ended nor said so"
            ) from None
    end(everything)
    process.wait()


def main() -> int:
    """Print a line for each run and one for each kind; exit code 1 where any run differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first run, which is its seed"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "soak")
    options = parser.parse_args()
    out: Path = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "undisturbed" / "final").exists():
        assert begin(out, "undisturbed").wait(LIMIT_S) == 0, (
            f"the undisturbed run failed; see {out / 'undisturbed.log'}"
        )
    wanted, failures = fingerprint(out / "undisturbed"), 0
    for kind in options.kinds:
        passed, after = 0, []
        for number in range(options.first, options.first + options.runs):
            name = f"{kind}-{number}"
            try:
                draw = random.Random(f"{kind} {number}")
                at, after_s, total_s = disturbed([kind], out, name, draw)
                same = fingerprint(out / name) == wanted
                passed += same
                after.append(after_s)
                print(
                    f"{name}: killed after step {at}, {after_s:.0f} s to the end, "
                    f"{total_s:.0f} s in all, "
                    f"weights {'equal' if same else 'DIFFER'}",
                    flush=True,
                )
            except AssertionError as error:
                print(f"{name}: {error}", flush=True)
        failures += options.runs - passed
        print(
            f"{kind}: {passed} of {options.runs} finished with the undisturbed run's weights",
            flush=True,
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
