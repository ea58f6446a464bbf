"""Fingerprints of models: short texts that identify the weights some result was computed with."""

from __future__ import annotations

import hashlib
from pathlib import Path

from transformers.utils import CONFIG_NAME, cached_file

from reasontrain.data import storage
from reasontrain.models.paths import UNTRAINED, located, readable
from reasontrain.models.settings import ModelSettings

PATTERNS = ("*.safetensors", "*.bin", "config.json", "adapter_config.json")


def fingerprint(settings: ModelSettings) -> str:
    """The dtype and SHA-256 of weights and configuration; for a hub model, its id and commit."""
    with located(settings.path) as path, readable(settings.path):
        if not Path(path).is_dir():
            return f"{settings.dtype} {_commit(path, settings)}"
        digest = hashlib.sha256()
        for file in _files(Path(path)):
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return f"{settings.dtype} {digest.hexdigest()}"


def quick_fingerprint(settings: ModelSettings) -> str:
    """A hash of samples of the weights, for start-up (see `storage.content_hash`)."""
    if settings.path.startswith(UNTRAINED):
        return settings.path  # it is built anew each time
    with located(settings.path) as path, readable(settings.path):
        if not Path(path).is_dir():
            return _commit(path, settings)
        digest = hashlib.sha256()
        for file in _files(Path(path)):
            digest.update(f"{file.name} {storage.content_hash(file)}\n".encode())
        return digest.hexdigest()


def _files(directory: Path) -> list[Path]:
    """Weights and configuration, by name."""
    return sorted({file for pattern in PATTERNS for file in directory.glob(pattern)})


def _commit(path: str, settings: ModelSettings) -> str:
    """The id and commit of a hub model."""
    config = cached_file(path, CONFIG_NAME, revision=settings.revision)
    return f"{path}@{Path(str(config)).parent.name}"
