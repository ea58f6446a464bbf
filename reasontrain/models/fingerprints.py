"""Fingerprints of models: short texts that identify the weights some result was computed with."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from transformers.utils import CONFIG_NAME, cached_file

from reasontrain.data import storage
from reasontrain.models.adapter_files import adapter_directory, base_of
from reasontrain.models.paths import UNTRAINED, located, readable
from reasontrain.models.settings import ModelSettings

PATTERNS = ("*.safetensors", "*.bin", "config.json", "adapter_config.json")


def fingerprint(settings: ModelSettings) -> str:
    """The dtype and SHA-256 of weights and configuration; for a hub model, its id and commit."""
    if (adapter := adapter_directory(settings.path)) is not None:
        base = replace(settings, path=base_of(adapter), revision=None)
        return adapter_fingerprint(base, adapter)
    with located(settings.path) as path, readable(settings.path):
        if not Path(path).is_dir():
            return f"{settings.dtype} {_commit(path, settings)}"
        return f"{settings.dtype} {_digest(Path(path))}"


def adapter_fingerprint(base: ModelSettings, adapter: Path) -> str:
    """The base model's fingerprint and the adapter's, whose dtype is the base's."""
    return f"{fingerprint(base)} adapter {_digest(adapter)}"


def quick_fingerprint(settings: ModelSettings) -> str:
    """A hash of samples of the weights, for start-up (see `storage.content_hash`)."""
    if settings.path.startswith(UNTRAINED):
        return settings.path  # it is built anew each time
    if (adapter := adapter_directory(settings.path)) is not None:
        base = replace(settings, path=base_of(adapter), revision=None)
        return f"{quick_fingerprint(base)} adapter {_quick_digest(adapter)}"
    with located(settings.path) as path, readable(settings.path):
        return _quick_digest(Path(path)) if Path(path).is_dir() else _commit(path, settings)


def _digest(directory: Path) -> str:
    """SHA-256 of weights and configuration."""
    digest = hashlib.sha256()
    for file in _files(directory):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _quick_digest(directory: Path) -> str:
    """SHA-256 of samples of weights and configuration."""
    digest = hashlib.sha256()
    for file in _files(directory):
        digest.update(f"{file.name} {storage.content_hash(file)}\n".encode())
    return digest.hexdigest()


def _files(directory: Path) -> list[Path]:
    """Weights and configuration, by name."""
    return sorted({file for pattern in PATTERNS for file in directory.glob(pattern)})


def _commit(path: str, settings: ModelSettings) -> str:
    """The id and commit of a hub model."""
    config = cached_file(path, CONFIG_NAME, revision=settings.revision)
    return f"{path}@{Path(str(config)).parent.name}"
