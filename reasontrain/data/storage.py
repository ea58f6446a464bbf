"""Atomic writes of files and directories, and JSON lines."""

from __future__ import annotations

import errno
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
    """Create a directory that is removed again if the block fails.

    Raises RunError, in one sentence, if the disk is full.
    """
    directory.mkdir(parents=True)
    try:
        yield
    except BaseException as error:
        full = is_disk_full(error, directory.parent)  # checked before rmtree frees space
        shutil.rmtree(directory, ignore_errors=True)
        if full:
            raise RunError(
                f"the disk is full: {directory} could not be written; earlier checkpoints "
                f"are intact"
            ) from error
        raise


def is_disk_full(error: BaseException, directory: Path) -> bool:
    """True if writing into a directory failed because the disk is full.

    torch and safetensors raise errors of their own, so free space decides for errors other than
    OSError.
    """
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return isinstance(error, Exception) and shutil.disk_usage(directory).free < LITTLE_BYTES


def replace_text(path: Path, text: str) -> None:
    """Write a small file of text atomically."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a small file atomically."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def append(path: Path, record: JsonRecord) -> None:
    """Append one line to a JSONL file and flush it to the operating system."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json_line(record))


def json_line(record: JsonRecord) -> str:
    """A record as one line of a JSONL file; non-finite numbers become strings."""
    return (
        json.dumps({key: _plain(value) for key, value in record.items()}, ensure_ascii=False) + "\n"
    )


def json_lines(path: Path) -> Iterator[tuple[Mapping[str, object], str]]:
    """Yield each line's object and its place (`path:line`).

    Raises UserError at a line that is not a JSON object; TornLineError if it is the last one and
    has no end.
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
    """The last line of a file is incomplete, as when a run is killed while it writes."""


def _plain(value: object) -> object:
    """A non-finite number as its name, since JSON has none; anything else unchanged."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
