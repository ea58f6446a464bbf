"""Choice of the vocabulary backend: torch blocks, Triton kernels, or full logits as a reference."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from reasontrain.types import UserError, Vocabulary


@runtime_checkable
class BlockDistribution(Protocol):
    """The distribution at N positions, as `analytic` and `triton_backend` both implement it.

    `gradient` overwrites what the values are computed from: read them first.
    """

    def value(self, name: str) -> Float[Tensor, " N"]:
        """A statistic by name (see `types.TokenStats`), in nats and without a gradient."""
        ...

    def teacher_top_mass(self, num: int) -> Float[Tensor, " N"]:
        """The teacher's probability summed over the student's `num` likeliest ids."""
        ...

    def top_divergence(self, num: int) -> Float[Tensor, " N"]:
        """KL(teacher || student) over the union of both models' `num` likeliest ids."""
        ...

    def gradient(self, stat_grads: Mapping[str, Float[Tensor, " N"]]) -> Float[Tensor, "N V"]:
        """d loss / d logits = sum_k stat_grads[k] * d statistic_k / d logits."""
        ...


def check_vocabulary(vocabulary: Vocabulary, device: torch.device) -> None:
    """Raise UserError if `vocabulary` is "triton" and kernels cannot run on this device."""
    if vocabulary == "triton" and (reason := _obstacle(device)) is not None:
        raise UserError(f"model.vocabulary is triton, and {reason}; use auto, torch or full_logits")


def uses_triton(vocabulary: Vocabulary, device: torch.device) -> bool:
    """True for "triton", and for "auto" on a GPU where kernels can be built.

    Raises UserError as `check_vocabulary` does.
    """
    check_vocabulary(vocabulary, device)
    return vocabulary == "triton" or (
        vocabulary == "auto" and device.type == "cuda" and _auto_uses_triton(device)
    )


def _obstacle(device: torch.device) -> str | None:
    """The reason why kernels cannot run on this device, or None."""
    if find_spec("triton") is None:
        return "the package triton is not installed"
    # Imported late: Triton does not exist for every platform.
    from reasontrain.vocab import triton_kernels

    if triton_kernels.INTERPRETED:
        return None
    return _build_error(device) if device.type == "cuda" else "the model is not on a GPU"


@cache
def _build_error(device: torch.device) -> str | None:
    """The error of building and running the smallest kernel on this GPU, or None.

    A C compiler may be missing, for example. Cached, because a failed build takes seconds.
    """
    from reasontrain.vocab.triton_backend import TritonDistribution

    try:
        TritonDistribution(
            torch.zeros(1, 2, device=device), torch.zeros(1, dtype=torch.long, device=device), None
        ).value("logp")
    except Exception as error:  # Triton, compilers and drivers each raise types of their own
        first = (str(error).strip().splitlines() or [""])[0]
        return f"kernels cannot be built ({type(error).__name__}: {first})"
    return None


@cache
def _auto_uses_triton(device: torch.device) -> bool:
    """True if kernels run on this GPU; warns once if Triton is installed but does not work."""
    reason = _obstacle(device)
    if reason is not None and find_spec("triton") is not None:
        warnings.warn(
            f"model.vocabulary: {reason}; using the torch backend, which is slower", stacklevel=2
        )
    return reason is None
