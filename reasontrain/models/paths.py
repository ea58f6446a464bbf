"""Paths of models: shipped and untrained testbed models, directories, and what is not a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from reasontrain.data.hub import hub_or_cache
from reasontrain.models import testbed, testbed_vision
from reasontrain.types import UserError, did_you_mean

TESTBED = "testbed:"
UNTRAINED = "untrained:"
HUB = "huggingface.co"
CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
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
_DEPTH = ("*", "*/*", "*/*/*")
"""Folders in which a model is looked for if the given one holds none.

The last is a folder of the hub's cache: `models--org--name/snapshots/<commit>`.
"""


@contextmanager
def located(path: str) -> Iterator[str]:
    """The directory of `path`: of a shipped testbed model, or the path itself.

    `untrained:NAME` is built in a temporary directory that lasts as long as the context.
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
    if not path.startswith(TESTBED):
        yield path
        return
    directory = testbed.MODELS / path.removeprefix(TESTBED)
    if not (directory / CONFIG).exists():
        shipped = (
            ", ".join(sorted(f"{TESTBED}{p.name}" for p in testbed.MODELS.glob("*") if p.is_dir()))
            or "none"
        )
        raise UserError(f"there is no testbed model {path}; available: {shipped}")
    yield str(directory)


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn a library's error about the model at `path` into a UserError of one sentence.

    The block holds calls of libraries only: whatever they raise is about the model's files.
    """
    is_local = path.startswith((TESTBED, UNTRAINED)) or Path(path).exists()
    try:
        with nullcontext() if is_local else hub_or_cache():
            yield
    except UserError:
        raise
    except Exception as error:
        reason = sentence(error)
        if HUB in reason:
            reason = f"it is no directory on this machine, and the hub does not give it ({reason})"
        raise UserError(f"the model {path} cannot be loaded: {reason}") from error


def sentence(error: Exception) -> str:
    """A library's error on one line: its first two lines that say something, or its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__


def check_path(path: str) -> None:
    """Raise UserError if `path` is a file, a missing directory or a directory without a model.

    What can only be the id of a hub model passes.
    """
    place = Path(path)
    if path.startswith((TESTBED, UNTRAINED)):
        return
    if place.is_file():
        raise UserError(_about_file(place))
    if place.is_dir():
        _check_directory(place)
    elif _is_local(path):
        raise UserError(f"there is no model directory {path}{_neighbour(place)}")


def _about_file(file: Path) -> str:
    """The sentence about a file that stands in place of a directory."""
    if file.suffix.lower() == ".gguf":
        return _about_gguf(file)
    return (
        f"the model {file} is a file; name the directory that holds it, its config.json and its "
        f"tokenizer"
    )


def _about_gguf(file: Path) -> str:
    return (
        f"{file} is a GGUF file, which is not read here: convert it first, for example with "
        f"transformers (`from_pretrained(directory, gguf_file=name)`, then `save_pretrained`), or "
        f"use the model that it was made from"
    )


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
        raise UserError(
            f"{directory} is an adapter without its base model; merge it into its base model "
            f"first, or for a run that continues it, resume that run"
        )
    if not has_config:
        if gguf := sorted(directory.glob("*.gguf")):
            raise UserError(_about_gguf(gguf[0]))
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


def _is_local(path: str) -> bool:
    """True if the path cannot be a hub id, which is `name` or `owner/name`."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or path.endswith("/")
