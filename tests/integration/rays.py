"""Ray clusters on this host with token authentication, each on its own ports and in its own folder;
other Rays are left alone.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from reasontrain.cluster import placement
from tests.integration.processes import ROOT, Process, environment, free_ports, until

NO_SPARE_WORKERS = {
    f"RAY_{name}": str(int(value)) for name, value in placement.NO_SPARE_WORKERS.items()
}
"""The setting of the clusters that runs start themselves, for those that they join."""


@dataclass(frozen=True)
class RayCluster:
    """A running cluster; `env` holds its addresses and its token, as a user's shell would."""

    folder: Path
    env: Mapping[str, str]

    def run(
        self, *command: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command of a user of this cluster; what it says on both streams is in `stdout`."""
        return subprocess.run(
            command,
            env={**self.env, **(env or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )

    def submit(
        self, *words: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`ray job submit WORDS`."""
        return self.run("ray", "job", "submit", *words, cwd=cwd, env=env)


@contextmanager
def ray_cluster(*, cpus: int = 2, nodes: Sequence[Mapping[str, str]] = ()) -> Iterator[RayCluster]:
    """A head, and one more node for each of `nodes`, which are changes to its environment."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets have short names
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        env = environment(
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN_PATH=str(token),
            RAY_JOB_STOP_WAIT_TIME_S="60",
            **NO_SPARE_WORKERS,
        )
        (port,) = free_ports(1)
        address = folder / "0" / "ray_current_cluster"
        head = ("--head", "--port=0", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}")
        started = [_node(stack, folder, 0, head, cpus, env)]
        until(
            lambda: address.exists() and address.read_text() != "",
            limit_s=60,
            what="Ray's head",
            watch=started,
        )
        env |= {
            "RAY_ADDRESS": address.read_text(),
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}",
        }
        for i, more in enumerate(nodes, 1):
            started.append(
                _node(
                    stack, folder, i, (f"--address={address.read_text()}",), cpus, {**env, **more}
                )
            )
        until(
            lambda: all(_said_started(process) for process in started),
            limit_s=60,
            what="Ray's nodes",
            watch=started,
        )
        yield RayCluster(folder, env)


def _node(
    stack: ExitStack,
    folder: Path,
    number: int,
    how: Sequence[str],
    cpus: int,
    env: Mapping[str, str],
) -> Process:
    own = (
        f"--temp-dir={folder / str(number)}",
        f"--num-cpus={cpus}",
        "--num-gpus=0",
        "--dashboard-agent-listen-port=0",
    )
    command = [
        "ray",
        "start",
        *how,
        *own,
        "--object-store-memory=200000000",
        "--log-color=false",
        "--block",
    ]
    process = Process(command, folder / f"node-{number}.log", env, cwd=ROOT)
    stack.callback(process.end)
    return process


def _said_started(process: Process) -> bool:
    return "Ray runtime started" in process.log.read_text(errors="replace")
