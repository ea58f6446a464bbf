"""A real Slurm of several nodes on one host: its own munge, key, ports, configuration and spool, in
a private folder.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.processes import ROOT, Process, environment, free_ports, until
from tests.integration.rays import NO_SPARE_WORKERS

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
ENDED = frozenset(
    {
        "COMPLETED",
        "FAILED",
        "CANCELLED",
        "TIMEOUT",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "BOOT_FAIL",
        "DEADLINE",
    }
)
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
FirstJobId={control}000
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=0
SlurmctldParameters=preempt_send_user_signal
GresTypes=gpu
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=10
MessageTimeout=60
PlugStackConfig={folder}/none.conf
{nodes}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=all Nodes=ALL Default=YES PreemptMode=OFF
PartitionName=low Nodes=ALL GraceTime=60 PriorityTier=1
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF
"""


@dataclass(frozen=True)
class Job:
    """How a job ended, and what it wrote."""

    state: str
    exit_code: int
    output: str


@dataclass(frozen=True)
class Slurm:
    """Commands of one cluster; jobs run in this repository with this tree's `reasontrain`."""

    folder: Path
    env: Mapping[str, str]

    def sbatch(self, script: str, *args: str, options: tuple[str, ...] = ()) -> str:
        """Submit a script with its arguments, as a person would from the root of the repository;
        the id of the job.
        """
        said = self._run(
            "sbatch", "--parsable", f"--output={self.folder}/job-%A_%a.log", *options, script, *args
        )
        return said.strip().partition(";")[0]

    def wait(self, job: str, limit_s: float = 300) -> Job:
        """A job (an element of an array is `id_index`) when it has ended for good."""
        deadline = time.monotonic() + limit_s
        while (state := self.fact(job, "JobState")) not in ENDED:
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"job {job} is {state} after {limit_s} s and wrote:\n{self.output(job)}"
                )
            time.sleep(0.3)
        code, _, by_signal = self.fact(job, "ExitCode").partition(":")
        return Job(
            state, int(code) or (128 + int(by_signal) if int(by_signal) else 0), self.output(job)
        )

    def fact(self, job: str, name: str) -> str:
        """One field of `scontrol show job`."""
        shown = self._run("scontrol", "show", "job", "--oneliner", job)
        return next(word.partition("=")[2] for word in shown.split() if word.startswith(f"{name}="))

    def output(self, job: str) -> str:
        """What a job has written so far, over all its starts."""
        whole, _, index = job.partition("_")
        path = self.folder / f"job-{whole}_{index or 4294967294}.log"  # Slurm's word for: no array
        return path.read_text(errors="replace") if path.exists() else ""

    def left_behind(self, job: str) -> list[Path]:
        """Folders of tokens and sockets that a job should have removed.

        Clusters that run at the same time in this repository number their jobs apart.
        """
        return [*ROOT.glob(f".ray-{job}-*"), *Path(self.env["RAY_TMPDIR"]).iterdir()]

    def scancel(self, job: str, *options: str) -> None:
        """End a job, or signal it: `--batch --signal=USR1` is the warning its script asks for."""
        self._run("scancel", *options, job)

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout


@contextmanager
def slurm(*, nodes: int = 2, cpus: int = 2, gpus: int = 0) -> Iterator[Slurm]:
    """Start the daemons and end them; nodes claim so many `cpus` and `gpus`, true or not."""
    for command in NEEDED:
        assert shutil.which(command, path=_path()), (
            f"{command} is missing: apt-get install slurm-wlm munge"
        )
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # sockets have short names
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        _configure(folder, nodes, cpus, gpus)
        own = {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "RAY_TMPDIR": str(folder / "ray"),
            "RAY_START_TIMEOUT_S": "120",
            **NO_SPARE_WORKERS,
        }
        env = environment(PATH=f"{environment()['PATH']}:/usr/sbin", **own)
        _daemons(stack, folder, env, nodes)
        cluster = Slurm(folder, env)
        stack.callback(_cancel_all, cluster)
        yield cluster


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin"


def _configure(folder: Path, nodes: int, cpus: int, gpus: int) -> None:
    """The key and the configuration."""
    folder.chmod(0o755)  # munge refuses a socket that others could not reach
    for name in ("munge", "state", "ray"):
        (folder / name).mkdir(mode=0o755)
    key = folder / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    host = socket.gethostname().partition(".")[0]
    control, *ports = free_ports(nodes + 1)
    gres = f"Gres=gpu:{gpus}" if gpus else ""
    lines = [
        f"NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={p} CPUs={cpus} {gres}"
        for i, p in enumerate(ports, 1)
    ]
    text = CONFIGURATION.format(
        host=host, control=control, user=getpass.getuser(), folder=folder, nodes="\n".join(lines)
    )
    (folder / "slurm.conf").write_text(text)
    devices = [folder / f"gpu{i}" for i in range(gpus)]
    for device in devices:
        device.touch()  # Slurm counts the files, and hands out their numbers
    (folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in devices))
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")


def _daemons(stack: ExitStack, folder: Path, env: Mapping[str, str], nodes: int) -> None:
    """munged, slurmctld and one slurmd a node, until all nodes are idle."""
    munge = folder / "munge"
    files = [
        f"--{what}-file={munge / name}"
        for what, name in (("key", "key"), ("pid", "pid"), ("log", "log"), ("seed", "seed"))
    ]
    commands = {
        "munged": ["munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files]
    }
    commands["slurmctld"] = ["slurmctld", "-D", "-i"]
    commands |= {f"slurmd-n{i}": ["slurmd", "-D", "-N", f"n{i}"] for i in range(1, nodes + 1)}
    started: list[Process] = []
    for name, command in commands.items():
        started.append(Process(command, folder / f"{name}.log", env))
        stack.callback(started[-1].end)
        if name == "munged":
            until((munge / "socket").exists, limit_s=20, what="munged", watch=started)

    def idle() -> bool:
        said = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--partition=all", "--format=%t"],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        return said.stdout.split() == ["idle"] * nodes

    until(idle, limit_s=60, what="Slurm's nodes", watch=started)


def _cancel_all(cluster: Slurm) -> None:
    """End what still runs, and wait for it: daemons that end do not end jobs."""
    queue = ["squeue", "--noheader", "--format=%i"]
    subprocess.run(
        ["scancel", f"--user={getpass.getuser()}"], env=cluster.env, check=False, timeout=60
    )
    deadline = time.monotonic() + 40
    while subprocess.run(
        queue, env=cluster.env, capture_output=True, text=True, check=False
    ).stdout.strip():
        if time.monotonic() > deadline:
            break
        time.sleep(0.3)
