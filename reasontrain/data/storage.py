"""Files that are written as a whole or not at all, locks on directories, and JSON lines."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from reasontrain.types import RunError, UserError

JsonRecord = Mapping[str, object]

LITTLE_BYTES = 1 << 20
"""Less free space than this counts as a full disk, in bytes."""


@contextmanager
def whole(directory: Path) -> Iterator[None]:
    """A new directory that is removed again if writing into it fails; a full disk becomes one
    sentence.
    """
    directory.mkdir(parents=True)
    try:
        yield
    except BaseException as error:
        full = is_disk_full(error, directory.parent)  # asked before there is room again
        shutil.rmtree(directory, ignore_errors=True)
        if full:
            raise RunError(
                f"the disk is full: {directory} could not be written; earlier checkpoints "
                f"are intact"
            ) from error
        raise


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Runs that need the same directory wait for the one that makes it; the lock lies beside it."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory.parent / f".{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_disk_full(error: BaseException, directory: Path) -> bool:
    """Whether writing into a directory failed for want of room; torch and safetensors say so in
    errors of their own.
    """
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return isinstance(error, Exception) and shutil.disk_usage(directory).free < LITTLE_BYTES


def replace_text(path: Path, text: str) -> None:
    """Write a small file as a whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def append(path: Path, record: JsonRecord) -> None:
    """Add one line to a JSONL file, handed to the system when this returns."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json_line(record))


def json_line(record: JsonRecord) -> str:
    """A record as one line of a JSONL file; a number that is not finite becomes its name."""
    return (
        json.dumps({key: _plain(value) for key, value in record.items()}, ensure_ascii=False) + "\n"
    )


def json_lines(path: Path) -> Iterator[tuple[Mapping[str, object], str]]:
    """Each line's object and where it stands; an error at a line that is no JSON object, with the
    last line marked as such.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                if not line.endswith("\n"):
                    raise TornLineError(where) from error
                raise UserError(
                    f"{where}: expected one JSON object per line ({error.msg})"
                ) from error
            if not isinstance(row, dict):
                raise UserError(f"{where}: expected a JSON object, found {type(row).__name__}")
            yield row, where


class TornLineError(UserError):
    """The last line of a file was cut short, as when a run is killed while it writes."""


def _plain(value: object) -> object:
    """JSON has no NaN or infinity: they are written by name."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
