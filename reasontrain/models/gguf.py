"""GGUF files as models: converted once to a directory that every part of a run can read."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

import torch
from transformers import AutoConfig, AutoTokenizer, GgufConfig, PreTrainedConfig

from reasontrain.data import storage
from reasontrain.metrics.working import working
from reasontrain.models.description import class_of
from reasontrain.models.paths import CONFIG, converted_folder, readable
from reasontrain.models.quiet import log_once, messages_of_libraries
from reasontrain.models.weights import load_weights, open_to_readers
from reasontrain.types import RunError, UserError

logger = logging.getLogger(__name__)

INSTALL = "pip install 'reasontrain[gguf]'"
HASH_DIGITS = 12


def converted(file: Path) -> Path:
    """The directory that a GGUF file is converted to, in the folder of conversions.

    It is named by the content of the file and made at the first call. Weights that are stored in
    blocks of a quantisation become bfloat16; others keep their dtype.

    Raises:
        UserError: the package gguf is not installed, or transformers cannot read the file.
        RunError: the disk is full.
    """
    folder = converted_folder()
    directory = folder / f"{file.stem}-{storage.content_hash(file)[:HASH_DIGITS]}"
    if not (directory / CONFIG).is_file():
        check_installed(file)
        logger.info(
            f"{file}: converting to {directory} ({file.stat().st_size / 1e9:.2f} GB; once, in a "
            f"minute or two)"
        )
        start = time.monotonic()
        with working(f"converting {file}"), _renamed(directory) as temporary:
            _convert(file, temporary)
        logger.info(f"{file}: converted in {time.monotonic() - start:.0f} s")
    log_once(str(file), f"read from {directory}", level=logging.INFO)
    return directory


def configuration(file: Path) -> PreTrainedConfig:
    """The configuration in the head of a GGUF file, without its weights."""
    check_installed(file)
    with messages_of_libraries() as _, readable(str(file)):
        return AutoConfig.from_pretrained(file.parent, gguf_file=file.name)


def check_installed(file: Path) -> None:
    """Raise UserError if the package that reads GGUF files is not installed."""
    if find_spec("gguf") is None:
        raise UserError(f"{file} is a GGUF file, and the package gguf is not installed: {INSTALL}")


def _convert(file: Path, directory: Path) -> None:
    """Write the model and the tokenizer of a file as transformers reads it."""
    source = {"gguf_file": file.name}
    with messages_of_libraries() as messages, readable(str(file)):
        config = AutoConfig.from_pretrained(file.parent, **source)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
        dtype = _dtype(file)
    load = partial(
        class_of(config).from_pretrained,
        file.parent,
        dtype=dtype,
        quantization_config=GgufConfig(dequantize=True),
        **source,
    )
    model = load_weights(load, str(file))
    # The model is whole, and transformers refuses to save one that it takes for a quantised one.
    for owner, name in (
        (model, "hf_quantizer"),
        (model, "quantization_method"),
        (model, "is_quantized"),
        (model.config, "quantization_config"),
    ):
        if name in vars(owner):
            delattr(owner, name)
    with messages_of_libraries() as further:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    open_to_readers(directory)
    for message in (*messages, *further):
        log_once(str(file), message)


def _dtype(file: Path) -> torch.dtype:
    """The dtype that a file was made in; bfloat16 if any of it is in blocks of a quantisation.

    Vectors are float32 in every file, and so are routers of experts.
    """
    from gguf import GGMLQuantizationType, GGUFReader

    dtypes = {
        GGMLQuantizationType.F32: torch.float32,
        GGMLQuantizationType.F16: torch.float16,
        GGMLQuantizationType.BF16: torch.bfloat16,
    }
    kinds = {tensor.tensor_type for tensor in GGUFReader(file).tensors}
    used = {dtypes.get(kind, torch.bfloat16) for kind in kinds}
    return next(
        (dtype for dtype in (torch.bfloat16, torch.float16) if dtype in used), torch.float32
    )


@contextmanager
def _renamed(directory: Path) -> Iterator[Path]:
    """A temporary directory that gets the name `directory` when the block ends well.

    Two processes may convert one file at the same time: the second discards its copy.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    temporary.chmod(0o777 & ~_umask())
    try:
        yield temporary
        if not directory.exists():
            temporary.rename(directory)
    except BaseException as error:
        if storage.is_disk_full(error, directory.parent):
            raise RunError(f"the disk is full: {directory} could not be written") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    """The mask of new files; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
