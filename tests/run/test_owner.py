"""One owner per directory: living ones are named, dead ones replaced, on one host and on many."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reasontrain.run import owner
from reasontrain.run.directory import RunDirectory
from reasontrain.run.owner import owned
from reasontrain.types import RunError, UserError

HOLD = """
import sys, time
from pathlib import Path
from reasontrain.run.owner import owned
with owned(Path(sys.argv[1])):
    print("owned", flush=True)
    time.sleep(60)
"""


@contextmanager
def other_process(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns the directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "owned\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def forge(directory: Path, *, silent_s: float = 0.0, **changes: object) -> Path:
    """The file of an owner that this host has no lock of, last heard of some seconds ago."""
    directory.mkdir(parents=True, exist_ok=True)
    path = RunDirectory(directory).owner
    facts = {
        "host": "node-7",
        "boot": "another",
        "pid": 4242,
        "ticks": 17,
        "since": "2026-01-31 12:00:00",
        "job": "Slurm job 99",
    }
    path.write_text(json.dumps(facts | changes))
    now = time.time()
    os.utime(path, (now - silent_s, now - silent_s))
    return path


def test_a_second_process_is_refused_and_takes_over_once_the_first_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "out" / "run"
    with other_process(run) as process:
        before = sorted(run.iterdir())
        with (
            pytest.raises(UserError, match=f"in use by process {process.pid} on .*; wait until"),
            owned(run),
        ):
            pass
        assert sorted(run.iterdir()) == before == [RunDirectory(run).owner]
        process.kill()
        process.wait()
        with owned(run):
            assert json.loads(RunDirectory(run).owner.read_text())["pid"] == os.getpid()
    assert len(caplog.messages) == 1
    assert f"its last owner (process {process.pid} on " in caplog.messages[0]
    # The folder is empty, but the process that made it was not this one.
    assert list(run.iterdir()) == []


def test_a_job_of_a_scheduler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "31")
    with owned(tmp_path / "run"), pytest.raises(UserError, match="Slurm job 31"):
        elsewhere(tmp_path / "run")


def elsewhere(directory: Path) -> None:
    """Own a directory in another thread, which counts as another owner."""
    errors: list[BaseException] = []

    def own() -> None:
        try:
            with owned(directory):
                pass
        except UserError as error:
            errors.append(error)

    thread = threading.Thread(target=own)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def test_blocks_are_nested_and_empty_folders_removed(tmp_path: Path) -> None:
    run = tmp_path / "out" / "run"
    with owned(run) as outer:
        assert RunDirectory(run).is_empty()
        with owned(run) as inner:
            assert inner is outer
        assert RunDirectory(run).owner.exists()
    assert not (tmp_path / "out").exists()
    with owned(run):
        (run / "kept").touch()
    assert [path.name for path in run.iterdir()] == ["kept"]


def test_the_owner_of_another_host_is_alive_as_long_as_it_beats(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = forge(tmp_path / "run", silent_s=30)
    content = path.read_bytes()
    with (
        pytest.raises(UserError, match=r"process 4242 on node-7, Slurm job 99, since .* 30 s ago"),
        owned(tmp_path / "run"),
    ):
        pass
    assert path.read_bytes() == content
    assert sorted(path.parent.iterdir()) == [path]
    forge(tmp_path / "run", silent_s=owner.SILENT_S + 1)
    with owned(tmp_path / "run"):
        pass
    assert [message for message in caplog.messages if "takes over" in message] == [
        f"{tmp_path / 'run'}: its last owner (process 4242 on node-7, Slurm job 99, since "
        "2026-01-31 12:00:00) is dead; this process takes over"
    ]


@pytest.mark.parametrize("locks", [True, False])
def test_a_process_id_in_use_again_is_not_the_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    """The parent of this process lives and has the forged owner's id, but started later."""
    if not locks:
        monkeypatch.setattr(fcntl, "flock", no_locks)
    pid = os.getppid()
    boot = owner._boot()
    forge(tmp_path / "run", pid=pid, ticks=owner._ticks(pid) + 1, boot=boot)
    with owned(tmp_path / "run"):
        assert json.loads(RunDirectory(tmp_path / "run").owner.read_text())["pid"] == os.getpid()
    if not locks:
        forge(tmp_path / "run", pid=pid, ticks=owner._ticks(pid), boot=boot)
        with pytest.raises(UserError, match=f"process {pid}"), owned(tmp_path / "run"):
            pass


def no_locks(handle: int, operation: int) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_without_hard_links_the_file_is_exclusive_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with owned(tmp_path / "run"), pytest.raises(UserError, match="in use by process"):
        elsewhere(tmp_path / "run")


def test_a_damaged_file_is_that_of_a_dead_owner_once_it_is_silent(tmp_path: Path) -> None:
    path = forge(tmp_path / "run")
    path.write_text("{")
    with pytest.raises(UserError, match="an unknown process"), owned(tmp_path / "run"):
        pass
    os.utime(path, (0, 0))
    with owned(tmp_path / "run"):
        pass


def test_a_heartbeat_shows_life_and_notices_a_theft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "BEAT_S", 0.01)
    with owned(tmp_path / "run") as ownership:
        path = RunDirectory(tmp_path / "run").owner
        os.utime(path, (0, 0))
        wait(lambda: path.stat().st_mtime > 0)
        ownership.check()
        path.unlink()
        forge(tmp_path / "run")
        wait(lambda: ownership._lost)
        with pytest.raises(RunError, match=r"taken over by another process .process 4242"):
            ownership.check()
    assert json.loads(path.read_text())["host"] == "node-7"


def wait(condition: object) -> None:
    assert callable(condition)
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_forked_child_does_not_keep_the_directory_of_a_killed_owner(tmp_path: Path) -> None:
    script = HOLD.replace(
        'print("owned", flush=True)',
        "import os\n    if os.fork() == 0:\n        print(os.getpid(), flush=True)",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        with owned(tmp_path / "run"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="point `out` elsewhere"), owned(tmp_path / "file" / "run"):
        pass


def test_waiting_names_the_owner_and_ends_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "POLL_S", 0.01)
    path = forge(tmp_path / "run")

    def end(seconds: float) -> None:
        path.unlink(missing_ok=True)

    monkeypatch.setattr(time, "sleep", end)
    with owned(tmp_path / "run", wait=True):
        pass
    assert len(caplog.messages) == 1
    assert "process 4242 on node-7" in caplog.messages[0]
