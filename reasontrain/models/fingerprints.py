"""Fingerprints of models: short texts that identify the weights some result was computed with."""

from __future__ import annotations

import hashlib
from pathlib import Path

from transformers.utils import CONFIG_NAME, cached_file

from reasontrain.models.paths import located, readable
from reasontrain.models.settings import ModelSettings

PATTERNS = ("*.safetensors", "*.bin", "config.json", "adapter_config.json")


def fingerprint(settings: ModelSettings) -> str:
    """The dtype and SHA-256 of weights and configuration; for a hub model, its id and commit."""
    with located(settings.path) as path, readable(settings.path):
        if not Path(path).is_dir():
            config = cached_file(path, CONFIG_NAME, revision=settings.revision)
            return f"{settings.dtype} {path}@{Path(str(config)).parent.name}"
        digest = hashlib.sha256()
        for file in sorted({file for pattern in PATTERNS for file in Path(path).glob(pattern)}):
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return f"{settings.dtype} {digest.hexdigest()}"
