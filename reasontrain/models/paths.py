"""Paths of models: shipped and untrained testbed models, directories, and what is not a model."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from reasontrain.data.hub import hub_or_cache
from reasontrain.models import testbed, testbed_vision
from reasontrain.models.folder import CONVERTED_VARIABLE, VARIABLE, folder, in_folder, is_hub_id
from reasontrain.models.quiet import log_once
from reasontrain.types import UserError, did_you_mean

TESTBED = "testbed:"
UNTRAINED = "untrained:"
HUB = "huggingface.co"
CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
GGUF = ".gguf"
CONVERTED = "converted"
"""The folder in `out` that GGUF files are converted into, unless the variable names another."""
_TOKENIZER_FILES = (
    "tokenizer.*",
    "vocab*",
    "merges*",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "tokenization*.py",
)
"""Names of the files that hold a vocabulary; a tokenizer in Python may be one without a file."""
_PART = re.compile(r"-\d{5}-of-\d{5}$")
"""The end of the names of parts, as llama.cpp splits a model."""
_DEPTH = ("*", "*/*", "*/*/*")
"""Folders in which a model is looked for if the given one holds none.

The last is a folder of the hub's cache: `models--org--name/snapshots/<commit>`.
"""


@contextmanager
def located(path: str) -> Iterator[str]:
    """The directory of `path`, or the id of a hub model that is not on this machine.

    `untrained:NAME` is built in a temporary directory that lasts as long as the context. A GGUF
    file is converted first, at its first use.
    """
    if path.startswith(UNTRAINED):
        name = path.removeprefix(UNTRAINED)
        builders: dict[str, Callable[[Path], None]] = {
            n: partial(testbed.build, shape=s) for n, s in testbed.SHAPES.items()
        }
        builders |= testbed_vision.BUILDERS
        if name not in builders:
            raise UserError(
                f"there is no testbed shape {path}; available: "
                f"{', '.join(UNTRAINED + n for n in builders)}"
            )
        with TemporaryDirectory() as temporary:
            builders[name](Path(temporary))
            yield temporary
        return
    if path.startswith(TESTBED):
        yield _shipped(path)
        return
    place = on_this_machine(path)
    if (file := gguf_file(place)) is not None:
        # Imported here, because conversion loads models, whose modules import this one.
        from reasontrain.models.gguf import converted

        place = str(converted(file))
    yield place


def _shipped(path: str) -> str:
    """The directory of a shipped testbed model; raises UserError if there is none."""
    directory = testbed.MODELS / path.removeprefix(TESTBED)
    if not (directory / CONFIG).exists():
        shipped = (
            ", ".join(sorted(f"{TESTBED}{p.name}" for p in testbed.MODELS.glob("*") if p.is_dir()))
            or "none"
        )
        raise UserError(f"there is no testbed model {path}; available: {shipped}")
    return str(directory)


def on_this_machine(path: str) -> str:
    """The path, or for a hub model its directory in the folder of models; the log names it."""
    place = in_folder(path)
    if place is None:
        return path
    log_once(path, f"read from {place} ({VARIABLE})", level=logging.INFO)
    return str(place)


def gguf_file(path: str) -> Path | None:
    """The GGUF file that a path names, itself or as the only model in a directory.

    Raises UserError for a directory with several of them, or for one part of a split model.
    """
    place = Path(path)
    if place.is_file() and place.suffix.lower() == GGUF:
        return _not_split(place)
    if not place.is_dir() or any((place / name).is_file() for name in (CONFIG, ADAPTER_CONFIG)):
        return None
    files = sorted(file for file in place.iterdir() if file.suffix.lower() == GGUF)
    if len(files) > 1:
        for file in files:
            _not_split(file)
        raise UserError(
            f"the directory {place} holds {len(files)} GGUF files; name one of them, such as "
            f"{files[0]}"
        )
    return _not_split(files[0]) if files else None


def _not_split(file: Path) -> Path:
    """The file; raises UserError if its name says that it is one part of a model."""
    if _PART.search(file.stem):
        raise UserError(
            f"{file} is one part of a model in several GGUF files; merge them first "
            f"(`llama-gguf-split --merge FIRST OUT`)"
        )
    return file


def converted_folder() -> Path:
    """The folder that GGUF files are converted into."""
    return Path(os.environ.get(CONVERTED_VARIABLE) or Path("out") / CONVERTED)


@contextmanager
def conversions_in(out: Path) -> Iterator[None]:
    """A block in which GGUF files are converted into `<out>/converted`.

    A folder that the user names by the variable stays, and so does that of an outer block. It is
    kept in the environment, so that processes started within the block find it.
    """
    if os.environ.get(CONVERTED_VARIABLE):
        yield
        return
    os.environ[CONVERTED_VARIABLE] = str((out / CONVERTED).absolute())
    try:
        yield
    finally:
        del os.environ[CONVERTED_VARIABLE]


def sources(paths: Iterable[str]) -> dict[str, str]:
    """The directories that models are read from where their paths do not name them."""
    read: dict[str, str] = {}
    for path in paths:
        if path.startswith((TESTBED, UNTRAINED)):
            continue
        with located(path) as place:
            if place != path:
                read[path] = place
    return read


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn a library's error about the model at `path` into a UserError of one sentence.

    The block holds calls of libraries only: whatever they raise is about the model's files.
    """
    is_local = (
        path.startswith((TESTBED, UNTRAINED)) or Path(path).exists() or in_folder(path) is not None
    )
    try:
        with nullcontext() if is_local else hub_or_cache():
            yield
    except UserError:
        raise
    except Exception as error:
        reason = sentence(error)
        if HUB in reason:
            where = f", none below {VARIABLE} ({folder()})" if folder() else ""
            reason = (
                f"it is no directory on this machine{where}, and the hub does not give it "
                f"({reason})"
            )
        raise UserError(f"the model {path} cannot be loaded: {reason}") from error


def sentence(error: Exception) -> str:
    """A library's error on one line: its first two lines that say something, or its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__


def check_path(path: str) -> None:
    """Raise UserError if `path` is a file, a missing directory or a directory without a model.

    What can only be the id of a hub model passes.
    """
    if path.startswith((TESTBED, UNTRAINED)):
        return
    place = Path(on_this_machine(path))
    if gguf_file(str(place)) is not None:
        return
    if place.is_file():
        raise UserError(
            f"the model {place} is a file; name the directory that holds it, its config.json and "
            f"its tokenizer"
        )
    if place.is_dir():
        _check_directory(place)
    elif not is_hub_id(path):
        raise UserError(f"there is no model directory {path}{_neighbour(place)}")


def _check_directory(directory: Path) -> None:
    """Raise UserError if a directory is not that of a whole model with a tokenizer."""
    has_config = (directory / CONFIG).is_file()
    if (directory / ADAPTER_CONFIG).is_file():
        if has_config:
            raise UserError(
                f"the model {directory} holds a whole model and an adapter "
                f"({ADAPTER_CONFIG}), and it is unclear which is meant; move one of them to a "
                f"directory of its own"
            )
        return
    if not has_config:
        raise UserError(f"the directory {directory} holds no model ({CONFIG}){_below(directory)}")
    if not any(file for name in _TOKENIZER_FILES for file in directory.glob(name)):
        raise UserError(
            f"the model {directory} has no tokenizer; copy tokenizer.json and "
            f"tokenizer_config.json from the model that it was made from"
        )


def _below(directory: Path) -> str:
    """A question after models in folders below, the last run's final model first."""
    models = [
        file.parent for depth in _DEPTH for file in sorted(directory.glob(f"{depth}/{CONFIG}"))
    ]
    models.sort(key=lambda place: place.name != "final")
    return f"; did you mean `{models[0]}`?" if models else ""


def _neighbour(place: Path) -> str:
    """A question after the directory beside a missing one whose name is nearest."""
    if not place.parent.is_dir():
        return ""
    return did_you_mean(place.name, (p.name for p in place.parent.iterdir() if p.is_dir()))
