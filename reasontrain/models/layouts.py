"""Short computations that decide if a model's hidden states depend on the layout of a batch.

Names of layers would not tell: an architecture may separate sequences by anything, and each release
of transformers changes what it derives from positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from reasontrain.data.micro_batches import Layout
from reasontrain.models.policy import Policy
from reasontrain.types import UserError

LENGTHS = (7, 5)
"""Lengths of the two sequences that are tried together and alone."""
EXACT = 2e-5
"""The largest relative difference of hidden states by rounding, in float32.

Rounding causes 1e-7 to 1e-6; a short convolution with untrained weights mixes sequences by 1e-4.
"""
ROUNDED = 0.05
"""The same in bfloat16, whose rounding error is 0.004 an operation."""


@torch.no_grad()
def check_layout(policy: Policy, layout: Layout) -> None:
    """Raise UserError if sequences in this layout change each other's hidden states.

    Packed, the second of two sequences is compared with itself alone; padded, a padded one is.
    """
    first_T, second_T = example_ids(policy, LENGTHS)
    config = policy.model.config
    with in_float32(policy):
        if layout == "packed":
            error = packing_error(policy)
        else:
            padded_T = pad(second_T, (0, len(first_T) - len(second_T)))
            rows_BT = torch.stack([first_T, padded_T])
            position_BT = torch.arange(len(first_T), device=policy.device).expand_as(rows_BT)
            together_BTD = policy.hidden(rows_BT, position=position_BT)
            error = relative_difference(
                together_BTD[1, : len(second_T)],
                _hidden(policy, second_T, torch.arange(len(second_T))),
            )
    if error <= tolerance(policy):
        return
    if layout == "packed":
        raise UserError(
            f"learn.layout is packed, and {config.model_type} with "
            f"{config._attn_implementation} attention mixes packed sequences (hidden states "
            f"change by {error:.2g} of their size); use `layout: padded`"
        )
    raise UserError(
        f"{config.model_type} cannot be trained in batches: padding after a sequence changes its "
        f"hidden states (by {error:.2g} of their size), so they are not those of the sequence alone"
    )


@torch.no_grad()
def packing_error(policy: Policy) -> float:
    """The relative difference of hidden states of a sequence packed behind another and alone."""
    ids = example_ids(policy, LENGTHS)
    positions = [torch.arange(len(ids_T)) for ids_T in ids]
    with in_float32(policy):
        together_TD = policy.hidden(
            torch.cat(ids)[None],
            position=torch.cat(positions)[None].to(policy.device),
            cu_seq_lens=(0, LENGTHS[0], sum(LENGTHS)),
        )[0]
        return relative_difference(together_TD[LENGTHS[0] :], _hidden(policy, ids[1], positions[1]))


@contextmanager
def in_float32(policy: Policy) -> Iterator[None]:
    """A block in which the policy computes in float32 if its weights and kernels allow it.

    Rounding to bfloat16 would hide a small mixture, such as that of a short convolution.
    """
    dtype = policy.dtype
    flash = "flash" in str(policy.model.config._attn_implementation)
    if policy.model.dtype == torch.float32 and not flash:
        policy.dtype = torch.float32
    try:
        yield
    finally:
        policy.dtype = dtype


def tolerance(policy: Policy) -> float:
    """The relative difference that rounding may cause between two ways to one hidden state."""
    flash = "flash" in str(policy.model.config._attn_implementation)
    return ROUNDED if policy.model.dtype != torch.float32 or flash else EXACT


def relative_difference(computed_ND: Float[Tensor, "N D"], exact_ND: Float[Tensor, "N D"]) -> float:
    """The largest distance of two hidden states of one position, relative to their size."""
    exact_ND = exact_ND.float()
    distance_N = (computed_ND.float() - exact_ND).norm(dim=-1)
    worst = float((distance_N / exact_ND.norm(dim=-1).clamp(min=1e-12)).max())
    return worst if worst == worst else float("inf")  # NaN is unlike everything


def example_ids(policy: Policy, lengths: tuple[int, ...]) -> list[Int[Tensor, " T"]]:
    """Sequences of different tokens, of these lengths."""
    ids = torch.arange(sum(lengths), device=policy.device) % policy.input_space.num_tokens
    return list(ids.split(list(lengths)))


def _hidden(
    policy: Policy, ids_T: Int[Tensor, " T"], position_T: Int[Tensor, " T"]
) -> Float[Tensor, "T D"]:
    """The hidden states of one row."""
    return policy.hidden(ids_T[None], position=position_T[None].to(policy.device))[0]
