"""Runs that are killed at seeded moments: `python -m tests.killed RECIPE OUT KILLS...` in a folder.

Each attempt is a child forked after the imports, which runs the command and dies by SIGKILL at one
of its events: a file that is opened for writing, a folder that is made, renamed or removed, or an
optimiser step. Attempts follow each other until one ends by itself. A kill is `N` (its N-th event)
or `saving:N` (the N-th event while a checkpoint is written); a line of JSON per attempt says where
it died.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from torch import Tensor

from reasontrain.cli import main
from reasontrain.cli import train as _imported  # noqa: F401, everything that a run imports
from reasontrain.learner.engine import PlainEngine
from reasontrain.stages import run as _stages  # noqa: F401

FILE_EVENTS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link")
SAVING = ".partial-"
"""Part of the names of checkpoints that are being written."""
LOG = Path("killed.jsonl")


class Moment:
    """Counts events and kills this process at one of them."""

    def __init__(self, kill: str | None, root: Path) -> None:
        kind, _, number = (kill or "0").rpartition(":")
        self.only_saving = kind == "saving"
        self.left = int(number)
        self.root = str(root.absolute())
        self.count = 0

    def audit(self, event: str, arguments: tuple[object, ...]) -> None:
        """A hook for `sys.addaudithook`."""
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE
        if (writes or event in FILE_EVENTS) and isinstance(arguments[0], str | os.PathLike):
            path = os.path.abspath(os.fspath(arguments[0]))
            if path.startswith(self.root):
                self.note(f"{event} {path.removeprefix(self.root)}")

    def note(self, what: str) -> None:
        """Count an event; this may be the last."""
        if self.only_saving and SAVING not in what:
            return
        self.count += 1
        if self.count == self.left:
            handle = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(handle, (json.dumps({"died": what}) + "\n").encode())
            os.kill(os.getpid(), signal.SIGKILL)


def attempt(command: list[str], kill: str | None, root: Path) -> int:
    """Run the command in a child; return its exit code, negative for a signal."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    moment = Moment(kill, root)
    update = PlainEngine.update

    def counted(self: PlainEngine, lr_share: float) -> Tensor:
        moment.note("update")
        return update(self, lr_share)

    PlainEngine.update = counted  # type: ignore[method-assign]
    sys.addaudithook(moment.audit)
    code = 70
    try:
        code = main(command)
        with LOG.open("a") as log:
            log.write(json.dumps({"events": moment.count, "code": code}) + "\n")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(recipe: str, out: str, kills: list[str]) -> int:
    """Attempt until one ends by itself; return its exit code."""
    command = ["train", recipe, f"out={out}"]
    for kill in [*kills, None]:
        code = attempt(command, kill, Path(out))
        if code != -signal.SIGKILL:
            return code
    raise AssertionError("the last attempt is not killed")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2], sys.argv[3:]))
