"""Start a Ray for this process alone, or join one, so that no other user can reach either.

Anyone who can talk to a Ray can run code as its user. Ray 2.60 creates its token readable by all
users, makes its session folders writable by all, and listens on every address of the machine.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from reasontrain.types import UserError

logger = logging.getLogger(__name__)

ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's variable that, set to 0, makes 127.0.0.1 the address of a node and of all its servers.

Its name is from the systems where this is the default. Ray replaces `_node_ip_address="127.0.0.1"`
by the machine's outer address, and servers of a node with an outer address listen on all addresses.
"""
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Variables that name the network interface of gloo's and NCCL's connections."""
MOST_TEMPORARY = 30
"""Longest temporary folder in characters: paths of Ray's sockets, inside it, are limited to 107."""


def start(
    num_cpus: int, system_config: Mapping[str, object], options: Mapping[str, object]
) -> None:
    """Start a Ray on this machine: on loopback, with a token and a folder of this user alone.

    Args:
        num_cpus: Logical CPUs.
        system_config: Ray's internal settings.
        options: Other arguments of `ray.init`.
    """
    close_token(create=True)
    os.environ["RAY_AUTH_MODE"] = "token"
    Config.initialize("")  # Ray read the variable when it was imported
    AuthenticationTokenLoader.instance().reset_cache()
    with _on_loopback():
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            # Ray opens the folder that it gets to all users; the one around it stays closed.
            _temp_dir=str(private_folder() / "local"),
            _system_config=dict(system_config),
            **options,
        )


def check_token(address: str) -> None:
    """Raise UserError if this process would join a cluster without a token.

    `RAY_AUTH_MODE=disabled` is the user's own decision, and is only logged.
    """
    close_token(create=False)
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if mode == "disabled":
        logger.warning(
            f"RAY_AUTH_MODE=disabled: whoever reaches the Ray cluster at {address} can run code on "
            "it as its user"
        )
    elif mode != "token" and not AuthenticationTokenLoader.instance().has_token(
        ignore_auth_mode=True
    ):
        raise UserError(
            f"the Ray cluster at RAY_ADDRESS={address} would be joined without a token, and then "
            f"whoever reaches it can run code on it: start it with launch/ray.sh, copy the head's "
            f"{token_file()} to this machine and set RAY_AUTH_MODE=token (or disabled, in a "
            "network that only you reach)"
        )


def token_file() -> Path:
    """The file of Ray's token."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(path) if path else Path.home() / ".ray" / "auth_token"


def close_token(*, create: bool) -> None:
    """Make Ray's token and its folder accessible to this user alone.

    Args:
        create: Make a token if there is none.

    Raises:
        UserError: The folder or the file is another user's, or cannot be written.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    token = token_file()
    try:
        if not os.environ.get("RAY_AUTH_TOKEN_PATH"):  # a file elsewhere: its folder may be shared
            if create:
                token.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if token.parent.is_dir():
                token.parent.chmod(0o700)
        if create and not (token.is_file() and token.stat().st_size):
            _write_token(token)
        if token.is_file() and stat.S_IMODE(token.stat().st_mode) & 0o077:
            token.chmod(0o600)
            logger.warning(
                f"{token} could be read by other users, who can run code as you with it; it is "
                "closed now. If others use this machine, delete it, and a new one is made"
            )
    except OSError as error:
        raise UserError(
            f"{error.filename or token}: {error.strerror}; Ray's token must be a file that you "
            "alone can read (RAY_AUTH_TOKEN_PATH names another)"
        ) from None


def _write_token(token: Path) -> None:
    """Write a new token, complete and closed from its first moment; keep one made meanwhile."""
    handle, name = tempfile.mkstemp(dir=token.parent, prefix=".auth_token-")  # with mode 0600
    with os.fdopen(handle, "w") as stream:
        stream.write(secrets.token_hex(32))
    try:
        if token.exists():  # empty
            os.replace(name, token)
        else:
            os.link(name, token)
    except FileExistsError:
        pass
    finally:
        Path(name).unlink(missing_ok=True)


def private_folder() -> Path:
    """The temporary folder of this user's Rays, which no other user can enter.

    Raises:
        UserError: Another user has made a folder of this name.
    """
    temporary = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(temporary) > MOST_TEMPORARY:
        temporary = "/tmp"
    folder = Path(temporary) / f"ray-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()  # a link would lead elsewhere
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise UserError(f"{folder} is not your folder; set RAY_TMPDIR to a folder that is")
    folder.chmod(0o700)
    return folder


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Give Rays that start within the block the address 127.0.0.1, here and in their processes."""
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    # gloo and NCCL would listen on the address of the host's name.
    interface = {} if loopback is None else dict.fromkeys(INTERFACES, loopback)
    changed = {ON_LOOPBACK: "0", **interface}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    constant = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = constant
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
