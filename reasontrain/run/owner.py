"""Ownership of a directory: one process writes to it at a time, on any number of hosts.

The owner's file is created exclusively and locked. The kernel frees the lock when the process ends
in any way, so on one host an owner is known to be dead at once, whatever its process id is used for
now. Hosts that share a disk may not share locks: the owner of another host is alive as long as it
touches its file.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from reasontrain.run.directory import RunDirectory
from reasontrain.types import RunError, UserError

logger = logging.getLogger(__name__)

BEAT_S = 10.0
"""Seconds between two heartbeats."""
SILENT_S = 120.0
"""Silence after which the owner of another host is dead, in seconds.

NFS clients may see a heartbeat up to a minute late.
"""
POLL_S = 0.5
JOBS = (("Slurm", "SLURM_JOB_ID"), ("Ray", "RAY_JOB_ID"))
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
"""Errors of a file system without locks."""
NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV})
"""Errors of a file system without hard links."""

_handles: set[int] = set()
_held: dict[tuple[int, Path], Ownership] = {}
"""What this process owns, by thread and directory: a stage's run is inside the stage's block."""


def _close_in_child() -> None:
    """Close owners' files in a forked child, which would keep them locked after its parent died."""
    for handle in _handles:
        os.close(handle)
    _handles.clear()


os.register_at_fork(after_in_child=_close_in_child)


@dataclass(frozen=True, kw_only=True)
class OwnerFacts:
    """The facts that an owner states about itself.

    Attributes:
        host: name of the host.
        boot: id of the host's boot, which its containers share.
        pid: process id.
        ticks: start of the process in clock ticks after boot; 0 if unknown.
        since: local date and time.
        job: the scheduler's job, if there is one.
    """

    host: str
    boot: str
    pid: int
    ticks: int
    since: str
    job: str | None = None

    def __str__(self) -> str:
        job = f", {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since}"


class Ownership:
    """A directory that this process owns, with a thread that beats."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle = handle
        self._done = threading.Event()
        self._lost = False
        _handles.add(handle)
        self._beating = threading.Thread(target=self._beat, daemon=True, name="owner")
        self._beating.start()

    def check(self) -> None:
        """Raise RunError if another process has taken the directory, as after a long standstill."""
        if self._lost:
            raise RunError(
                f"{self.path.parent} was taken over by another process ({_facts(self.path)}) while "
                f"this one did not respond; this one stops and writes nothing more"
            )

    def release(self) -> None:
        """Remove the file and its lock."""
        self._done.set()
        self._beating.join()
        if self._is_ours():
            self.path.unlink(missing_ok=True)
        _handles.discard(self._handle)
        os.close(self._handle)

    def _beat(self) -> None:
        while not self._done.wait(BEAT_S):
            with suppress(OSError):  # a disk that is away for a moment
                if not self._is_ours():
                    self._lost = True
                    return
                os.utime(self.path)

    def _is_ours(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._handle))
        except FileNotFoundError:
            return False


@contextmanager
def owned(directory: Path, *, wait: bool = False, remedy: str = "") -> Iterator[Ownership]:
    """Own a directory within the block; folders that are left empty are removed again.

    Blocks of one thread may be nested.

    Args:
        directory: the directory; it need not exist.
        wait: wait for a living owner instead of refusing.
        remedy: what else a user can do about a living owner.

    Raises:
        UserError: another process owns the directory, or it cannot be written.
    """
    key = (threading.get_ident(), directory.absolute())
    if key in _held:
        yield _held[key]
        return
    path = RunDirectory(directory).owner
    missing = [p for p in (directory, *directory.absolute().parents) if not p.exists()]
    with _writable(directory):
        directory.mkdir(parents=True, exist_ok=True)
    try:
        ownership = _held[key] = Ownership(path, _claimed(path, wait=wait, remedy=remedy))
        try:
            yield ownership
        finally:
            del _held[key]
            ownership.release()
    finally:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()


@contextmanager
def _writable(directory: Path) -> Iterator[None]:
    """Turn the system's errors into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{directory} cannot be written ({error.strerror or error}); point `out` elsewhere"
        ) from error


def _claimed(path: Path, *, wait: bool, remedy: str) -> int:
    """Create and lock the owner's file, and return its descriptor."""
    waiting = False
    while True:
        with _writable(path.parent):
            handle = _created(path)
        if handle is not None:
            return handle
        alive = _living(path)
        if alive is None:
            continue
        if not wait:
            raise UserError(f"{path.parent} is in use by {alive}; wait until it ends{remedy}")
        if not waiting:
            logger.info(f"{path.parent} is in use by {alive}; waiting until it ends")
            waiting = True
        time.sleep(POLL_S)


def _created(path: Path) -> int | None:
    """Create the file, complete and locked, if there is none; return its descriptor."""
    own = OwnerFacts(
        host=socket.gethostname(),
        boot=_boot(),
        pid=os.getpid(),
        ticks=_ticks(os.getpid()),
        since=datetime.now().isoformat(" ", "seconds"),
        job=_job(),
    )
    part = path.with_name(f".{path.name}.{own.host}-{own.pid}-{threading.get_ident()}")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        _lock(handle)
        os.write(handle, (json.dumps(asdict(own), indent=1) + "\n").encode())
        try:
            os.link(part, path)  # fails if it exists: exclusive, and never half written
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            part.replace(path)
    except FileExistsError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    finally:
        part.unlink(missing_ok=True)
    return handle


def _living(path: Path) -> OwnerFacts | str | None:
    """The living owner of a file; None after the file of a dead one has been removed."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    except PermissionError:
        return f"{_facts(path)} (its file belongs to another user)"
    try:
        facts = _facts(path)
        locked = _lock(handle)
        if locked is False:
            return facts
        same_kernel = isinstance(facts, OwnerFacts) and facts.boot == _boot()
        if same_kernel:
            assert isinstance(facts, OwnerFacts)
            if locked is None and facts.ticks and _ticks(facts.pid) == facts.ticks:
                return facts
        elif (silence_s := _silence_s(path, handle)) < SILENT_S:
            left_s = SILENT_S - silence_s
            return f"{facts}, last heard of {silence_s:.0f} s ago (dead after {left_s:.0f} s more)"
        _remove(path, handle, facts)
        return None
    finally:
        os.close(handle)


def _remove(path: Path, handle: int, facts: OwnerFacts | str) -> None:
    """Remove the file of a dead owner, unless another process has just done so."""
    tomb = path.with_name(f".{path.name}.dead-{socket.gethostname()}-{os.getpid()}")
    try:
        path.rename(tomb)
    except FileNotFoundError:
        return
    if os.path.samestat(os.stat(tomb), os.fstat(handle)):
        logger.info(f"{path.parent}: its last owner ({facts}) is dead; this process takes over")
    else:  # the file of a new owner, which was faster
        with suppress(FileExistsError):
            os.link(tomb, path)
    tomb.unlink()


def _facts(path: Path) -> OwnerFacts | str:
    """The content of the file, or a few words if it has none."""
    try:
        return OwnerFacts(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return f"an unknown process ({path.name} cannot be read)"


def _lock(handle: int) -> bool | None:
    """True if this process has the lock now, False if another has it, None without locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


def _silence_s(path: Path, handle: int) -> float:
    """Seconds since the last heartbeat, by the clock of the disk, whatever the hosts' clocks say.

    A heartbeat in the future is as far from now as one in the past.
    """
    probe = path.with_name(f".{path.name}.now-{socket.gethostname()}-{os.getpid()}")
    probe.touch()
    now_s = probe.stat().st_mtime
    probe.unlink()
    return abs(now_s - os.fstat(handle).st_mtime)


def _boot() -> str:
    """The id of this boot; the host's name where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return socket.gethostname()


def _ticks(pid: int) -> int:
    """The start of a process, in clock ticks after boot; 0 if it does not run or is not known."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    # The second field is the command in parentheses, which may contain anything.
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] == "Z" else int(fields[19])


def _job() -> str | None:
    """The job of a scheduler that this process belongs to."""
    names = [f"{name} job {os.environ[key]}" for name, key in JOBS if key in os.environ]
    return ", ".join(names) or None
