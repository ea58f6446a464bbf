"""Evidence that needs the full distribution at a position, without gradients."""

from __future__ import annotations

from collections.abc import Collection

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain.vocab.chunks import ChunkedLogits
from reasontrain.vocab.head import Head, Teacher


@torch.no_grad()
def measure(
    hidden_ND: Float[Tensor, "N D"],
    head: Head,
    ids_N: Int[Tensor, " N"],
    names: Collection[str],
    *,
    temperature: float = 1.0,
    teacher: Teacher | None = None,
    chunk: int | None = None,
    top: int = 16,
) -> dict[str, Float[Tensor, " N"]]:
    """Evidence by name at N positions.

    The teacher's head runs only if a name needs it.

    Args:
        hidden_ND: the student's hidden states that predict `ids_N`.
        head: the student's head.
        ids_N: the token at each position.
        names: any of "logp", "entropy", "kl_reverse", "kl_forward" (nats), and of arXiv 2605.26844
            "compatibility" (in [0, 1]: the teacher's mass on the student's likeliest ids) and
            "disagreement" (nats: KL(teacher || student) over the union of both models' likeliest
            ids, each renormalised there).
        temperature: divides the logits of both models.
        teacher: the teacher's hidden states at the same positions, and its head.
        chunk: positions per matrix product; None chooses by memory.
        top: number of likeliest ids of a model that the last two look at.

    Returns:
        One number per position for every name.

    Raises:
        UserError: a name needs a teacher, and there is none.
    """
    values: dict[str, list[Tensor]] = {name: [] for name in names}
    with torch.autocast(hidden_ND.device.type, enabled=False):
        for distribution in ChunkedLogits(
            hidden_ND, head, ids_N, temperature, teacher, chunk
        ).distributions():
            # Names that need the teacher come first: the Triton kernel that computes divergences
            # returns the student's statistics too, so one pass serves all.
            for name in sorted(values, key=_needs_student_only):
                match name:
                    case "compatibility":
                        values[name].append(distribution.teacher_top_mass(top))
                    case "disagreement":
                        values[name].append(distribution.top_divergence(top))
                    case _:
                        values[name].append(distribution.value(name))
    return {name: torch.cat(blocks) for name, blocks in values.items()}


def _needs_student_only(name: str) -> bool:
    return name in ("logp", "entropy")
