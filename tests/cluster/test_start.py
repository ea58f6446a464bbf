"""A Ray that this process starts or joins: closed to other users before it starts."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

from reasontrain.cluster import start
from reasontrain.learner.distributed import open_store
from reasontrain.types import UserError


@pytest.fixture(autouse=True)
def fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home without a token, and the usual umask."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    AuthenticationTokenLoader.instance().reset_cache()
    before = os.umask(0o022)
    yield tmp_path
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_token_is_closed_from_the_start_and_kept(fresh_home: Path) -> None:
    start.close_token(create=True)
    token = fresh_home / ".ray" / "auth_token"
    assert (mode(token.parent), mode(token)) == (0o700, 0o600)
    content = token.read_text()
    assert len(content) == 64
    start.close_token(create=True)
    assert token.read_text() == content
    assert list(token.parent.iterdir()) == [token]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_open_token_is_closed_and_its_owner_told(
    fresh_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    elsewhere: bool,
) -> None:
    folder = fresh_home / ("shared" if elsewhere else ".ray")
    folder.mkdir(mode=0o755)
    token = folder / "auth_token"
    token.write_text("known")
    if elsewhere:
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    start.close_token(create=False)
    assert mode(token) == 0o600
    assert mode(folder) == (0o755 if elsewhere else 0o700)
    assert token.read_text() == "known"
    assert caplog.messages == [
        f"{token} could be read by other users, who can run code as you with it; it is closed now. "
        "If others use this machine, delete it, and a new one is made"
    ]


def test_an_empty_token_is_replaced(fresh_home: Path) -> None:
    (fresh_home / ".ray").mkdir()
    (fresh_home / ".ray" / "auth_token").touch()
    start.close_token(create=True)
    assert len((fresh_home / ".ray" / "auth_token").read_text()) == 64


def test_a_folder_that_cannot_be_made_is_a_sentence(fresh_home: Path) -> None:
    (fresh_home / ".ray").touch()
    with pytest.raises(UserError, match=r"\.ray.*RAY_AUTH_TOKEN_PATH names another"):
        start.close_token(create=True)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short temporary folder, as Ray's sockets need it."""
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


def test_the_temporary_folder_is_no_link(fresh_home: Path, temporary: Path) -> None:
    (temporary / f"ray-{os.getuid()}").symlink_to(fresh_home)
    with pytest.raises(UserError, match="is not your folder"):
        start.private_folder()


def test_the_temporary_folder_is_no_other_users(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    (temporary / "ray-4000000000").mkdir()
    with pytest.raises(UserError, match="is not your folder"):
        start.private_folder()


def test_an_open_temporary_folder_is_closed(temporary: Path) -> None:
    folder = temporary / f"ray-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o755)
    assert start.private_folder() == folder
    assert mode(folder) == 0o700


def test_a_temporary_folder_without_room_for_sockets_is_not_used(
    fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "long" * 20)
    assert start.private_folder() == Path(f"/tmp/ray-{os.getuid()}")


def test_variables_of_the_loopback_are_set_for_the_start_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    before = dict(os.environ)
    with start._on_loopback():
        assert os.environ["GLOO_SOCKET_IFNAME"] == os.environ["NCCL_SOCKET_IFNAME"] != "eth7"
        assert os.environ[start.ON_LOOPBACK] == "0"
    assert dict(os.environ) == before


def test_a_cluster_is_not_joined_without_a_token(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match="RAY_ADDRESS=h:1 would be joined without a token"):
        start.check_token("h:1")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    start.check_token("h:1")
    assert "whoever reaches the Ray cluster at h:1 can run code on it" in caplog.text
    monkeypatch.delenv("RAY_AUTH_MODE")
    start.close_token(create=True)
    AuthenticationTokenLoader.instance().reset_cache()
    start.check_token("h:1")


def test_the_store_of_processes_listens_on_its_host_alone() -> None:
    store = open_store("127.0.0.1", 0, first=True, timeout_s=5.0)
    own = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _open(fd)}
    listening = [
        address
        for table in ("tcp", "tcp6")
        for address, inode in _listening(Path("/proc/self/net") / table)
        if f"socket:[{inode}]" in own and address.endswith(f":{store.port:04X}")
    ]
    assert listening == [f"0100007F:{store.port:04X}"]
    other = open_store("127.0.0.1", store.port, first=False, timeout_s=5.0)
    other.set("key", "value")
    assert store.get("key") == b"value"
    with pytest.raises(OSError, match=r"refused|unreachable"):
        socket.create_connection(("127.0.0.2", store.port), timeout=1)


def _open(fd: str) -> bool:
    return Path(f"/proc/self/fd/{fd}").is_symlink()


def _listening(table: Path) -> Iterator[tuple[str, str]]:
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A":
            yield fields[1], fields[9]
