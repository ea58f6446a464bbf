"""Processes that a test starts: each in a group of its own, ended by that group's id and never by a
name.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    """This tree first, this Python's commands first, no Ray or Slurm of anybody else's, no colours,
    one thread.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "SLURM_", "SBATCH_", "PYTEST_"))
    }
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "NO_COLOR": "1",
        **more,
    }


class Process:
    """A command in the background, its output in a file."""

    def __init__(
        self, command: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path | None = None
    ) -> None:
        self.log = log
        with log.open("wb") as stream:
            self.popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self.popen.poll() is not None

    def end(self, grace_s: float = 20) -> None:
        """Ask the command to end, then kill what is left of its group."""
        if not self.ended:
            self.popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(grace_s)
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


def until(
    true: Callable[[], bool], *, limit_s: float, what: str, watch: Sequence[Process] = ()
) -> None:
    """Wait for a fact; an AssertionError with the logs of the processes where it does not come
    about.
    """
    deadline = time.monotonic() + limit_s
    while not true():
        late = time.monotonic() > deadline
        ended = [process for process in watch if process.ended]
        if late or ended:
            said = "\n".join(
                f"{p.log.name}:\n{p.log.read_text(errors='replace')[-3000:]}"
                for p in (ended or watch)
            )
            raise AssertionError(
                f"{what}: "
                f"{'not within ' + str(limit_s) + ' s' if late else 'a process ended'}\n{said}"
            )
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, and that nobody is given who asks for any port.

    A port of the system's range may be another process's before a server listens on it, and Ray
    gives 10002 to 19999 to its workers.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports: list[int] = []
    above_ray = range(20_000, min(first, 32_000))
    for port in random.SystemRandom().sample(above_ray or range(3_000, 10_000), 500):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
        if len(ports) == count:
            break
    return ports
