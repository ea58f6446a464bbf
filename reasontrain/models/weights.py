"""Agreement of a model with its files: every weight is there, fits, is expected and is finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypedDict

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from reasontrain.models.paths import readable
from reasontrain.models.quiet import log_once, messages_of_libraries
from reasontrain.types import UserError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Dtypes of weights that are weights."""
NAMED = 4
"""The most keys of one kind that a message names."""


class LoadingReport(TypedDict):
    """Differences between a model and its files, as `output_loading_info` gives them.

    Attributes:
        missing_keys: weights of the model that are in no file, tied ones apart.
        unexpected_keys: weights in the files that the model has not.
        mismatched_keys: weights of another shape: key, shape in the file, shape in the model.
    """

    missing_keys: set[str]
    unexpected_keys: set[str]
    mismatched_keys: set[tuple[str, tuple[int, ...], tuple[int, ...]]]


def load_weights(
    load: Callable[..., tuple[PreTrainedModel, LoadingReport]], name: str
) -> PreTrainedModel:
    """Load a model whose weights agree with its files.

    Args:
        load: `from_pretrained` of a transformers class, with path and options bound.
        name: the model as messages name it.

    Returns:
        The model. What libraries warned about is in the log.

    Raises:
        UserError: the model cannot be read, or weights are missing, unexpected or of another shape.
    """
    with messages_of_libraries() as messages, readable(name):
        # Other shapes are accepted only to be named below; otherwise transformers raises an error
        # that points to a table which it printed before.
        model, report = load(output_loading_info=True, ignore_mismatched_sizes=True)
    check_keys(
        name,
        missing=report["missing_keys"],
        unexpected=report["unexpected_keys"],
        mismatched=report["mismatched_keys"],
    )
    _check_tied(model, name)
    for message in messages:
        log_once(name, message)
    return model


def check_keys(
    name: str,
    *,
    missing: Iterable[str],
    unexpected: Iterable[str],
    mismatched: Iterable[tuple[str, Iterable[int], Iterable[int]]] = (),
) -> None:
    """Raise UserError if the weights in the files are not those of the model.

    Args:
        name: the model as messages name it.
        missing: weights of the model that are in no file; tied ones are left out by transformers.
        unexpected: weights in the files that the model has not.
        mismatched: weights of another shape, with the shape in the files and in the model.
    """
    shapes = {
        key: f"{key} {list(in_files)} in place of {list(in_model)}"
        for key, in_files, in_model in mismatched
    }
    parts = [
        f"{len(keys)} {kind} ({_some(keys)})"
        for kind, keys in (
            ("missing", sorted(missing)),
            ("of another shape", [shapes[key] for key in sorted(shapes)]),
            ("unexpected", sorted(unexpected)),
        )
        if keys
    ]
    if parts:
        raise UserError(
            f"the weights in the files of {name} do not fit the model: {'; '.join(parts)}"
        )


def check_shapes(name: str, in_file: Mapping[str, Tensor], in_model: Mapping[str, Tensor]) -> None:
    """Raise UserError if the tensors of a file are not those that they would replace.

    Args:
        name: the file as messages name it.
        in_file: its tensors.
        in_model: the tensors that they would replace, by the same names.
    """
    check_keys(
        name,
        missing=in_model.keys() - in_file.keys(),
        unexpected=in_file.keys() - in_model.keys(),
        mismatched=[
            (key, in_file[key].shape, in_model[key].shape)
            for key in in_file.keys() & in_model.keys()
            if in_file[key].shape != in_model[key].shape
        ],
    )


def check_not_quantised(model: nn.Module, name: str) -> None:
    """Raise UserError if weights are stored in codes of a quantisation, or in 8 bits."""
    wrong = [key for key, weight in model.named_parameters() if weight.dtype not in DTYPES]
    if wrong:
        raise UserError(
            f"the weights of {name} are quantised ({_some(wrong)}), which is not supported; use "
            f"the model before quantisation"
        )


@torch.no_grad()
def check_finite(model: nn.Module, name: str, wrong: Iterable[str] = ()) -> None:
    """Raise UserError if a weight or buffer holds NaN or infinity.

    Args:
        model: the model.
        name: the model as messages name it.
        wrong: names of weights that were not finite when they were read, of which ranks have parts.
    """
    tensors = [*model.named_parameters(), *model.named_buffers()]
    wrong = [*wrong, *(key for key, tensor in tensors if not is_finite(tensor))]
    if wrong:
        raise UserError(f"weights of {name} are not finite; NaN or infinity is in {_some(wrong)}")


def open_to_readers(directory: Path) -> None:
    """Let everybody read the weight files in a directory who may read the directory.

    safetensors writes files that their owner alone may read, whatever the umask.
    """
    mode = directory.stat().st_mode & 0o666
    for file in directory.glob("*.safetensors"):
        file.chmod(mode)


def is_finite(tensor: Tensor) -> bool:
    """True without NaN or infinity. One pass that needs no memory: NaN is both extremes."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(tensor))


def _check_tied(model: PreTrainedModel, name: str) -> None:
    """Raise UserError if the configuration ties weights that differ in the files.

    transformers then leaves them apart, where other programs, such as vLLM, tie them.
    """
    if not model.config.get_text_config().tie_word_embeddings or not type(model)._tied_weights_keys:
        return
    head = model.get_output_embeddings()
    if head is not None and head.weight is not model.get_input_embeddings().weight:
        raise UserError(_tied_message(name))


def check_tied_files(directory: Path, name: str) -> None:
    """Raise UserError if safetensors files hold a head that is not the embeddings.

    For a model whose configuration ties the two, and for programs that would leave the head out.

    Args:
        directory: the model's files; nothing is checked if it is no directory, but a hub id.
        name: the model as messages name it.
    """
    held: dict[str, Tensor] = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                if key.endswith(("lm_head.weight", "embed_tokens.weight")):
                    held[key.rpartition(".")[0].rpartition(".")[2]] = file.get_tensor(key)
    head = held.get("lm_head")
    embeddings = held.get("embed_tokens")
    if head is not None and embeddings is not None and not torch.equal(head, embeddings):
        raise UserError(_tied_message(name))


def _tied_message(name: str) -> str:
    return (
        f"the configuration of {name} ties its head to its embeddings (tie_word_embeddings), and "
        "its files hold two different matrices; correct tie_word_embeddings in config.json, or "
        "remove the one that is not meant"
    )


def _some(keys: list[str]) -> str:
    """The first of these keys, and how many there are besides."""
    rest = len(keys) - NAMED
    return ", ".join(keys[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
