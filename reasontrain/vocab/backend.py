"""By what the vocabulary is computed: blocks in torch, Triton's kernels, or whole logits, the plain
twin of both.
"""

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
class Statistics(Protocol):
    """A block's distribution: what `closed_form` and `tiled` both give. `gradient` uses it up."""

    def value(self, name: str) -> Float[Tensor, " N"]:
        """A statistic by name (see `types.TokenStats`), without a gradient."""
        ...

    def teacher_mass_on_top(self, num: int) -> Float[Tensor, " N"]:
        """The teacher's probability summed over the `num` ids that the student finds likeliest."""
        ...

    def gradient(self, stat_grads: Mapping[str, Float[Tensor, " N"]]) -> Float[Tensor, "N V"]:
        """sum_k slopes[k] * d statistic_k / d logits."""
        ...


def check_vocabulary(vocabulary: Vocabulary, device: torch.device) -> None:
    """Raise UserError where kernels are asked for and cannot run."""
    if vocabulary == "triton" and (why := _missing(device)) is not None:
        raise UserError(f"model.vocabulary is triton, and {why}; use auto, torch or full_logits")


def has_kernels(vocabulary: Vocabulary, device: torch.device) -> bool:
    """Whether Triton computes: where it is asked for, and of itself on a GPU for which it can build
    kernels.

    Raises UserError as `check_vocabulary` does.
    """
    check_vocabulary(vocabulary, device)
    return vocabulary == "triton" or (
        vocabulary == "auto" and device.type == "cuda" and _works(device)
    )


def _missing(device: torch.device) -> str | None:
    """Why kernels cannot run, or None."""
    if find_spec("triton") is None:
        return "the package triton is not installed"
    from reasontrain.vocab import triton_kernels  # Triton is not everywhere

    if triton_kernels.INTERPRETED:
        return None
    return _broken(device) if device.type == "cuda" else "the model is not on a GPU"


@cache
def _broken(device: torch.device) -> str | None:
    """Why the smallest kernel cannot be built on this GPU (a C compiler may be missing), or None."""
    from reasontrain.vocab.triton_backend import TiledDistribution

    try:
        TiledDistribution(
            torch.zeros(1, 2, device=device), torch.zeros(1, dtype=torch.long, device=device), None
        ).value("logp")
    except Exception as error:  # Triton, compilers and drivers each raise their own
        first = (str(error).strip().splitlines() or [""])[0]
        return f"a kernel cannot be built here ({type(error).__name__}: {first})"
    return None


@cache
def _works(device: torch.device) -> bool:
    """Whether `auto` takes kernels on this GPU; where Triton is there and fails, that is said once."""
    why = _missing(device)
    if why is not None and find_spec("triton") is not None:
        warnings.warn(f"model.vocabulary: {why}, so torch computes, which is slower", stacklevel=2)
    return why is None
