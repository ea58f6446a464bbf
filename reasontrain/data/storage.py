"""Atomic writes of files and directories, and JSON lines."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from reasontrain.types import RunError, UserError

JsonRecord = Mapping[str, object]

WHOLE_BYTES = 64 << 20
SAMPLE_EVERY = 1 << 20
SAMPLE_BYTES = 4 << 10
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of the operating system for a disk, or a share of it, that is full."""
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

    torch and safetensors raise errors of their own. They count if they quote the system's reason,
    or if hardly any space is free: a file that was refused as a whole leaves the space as it was.
    """
    if isinstance(error, OSError):
        return error.errno in FULL
    if not isinstance(error, Exception):
        return False
    quotes = any(reason in str(error) for number in FULL for reason in _reasons(number))
    return quotes or shutil.disk_usage(directory).free < LITTLE_BYTES


def _reasons(number: int) -> tuple[str, str]:
    """The words of an error of the operating system, in C libraries and in Rust."""
    return os.strerror(number), f"(os error {number})"


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of the files below a folder with their names.

    Of a file above 64 MiB only its size, its ends and 4 KiB of every MiB are read: other weights or
    other rows differ there, and 100 GB take seconds.
    """
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            digest.update(f"{file.relative_to(path)} {content_hash(file)}\n".encode())
        return digest.hexdigest()
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size <= WHOLE_BYTES:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{size}\n".encode())
        for place in (*range(0, size, SAMPLE_EVERY), max(size - SAMPLE_BYTES, 0)):
            stream.seek(place)
            digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()


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
