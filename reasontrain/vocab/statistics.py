"""Evidence that needs the whole distribution at a row, without any gradient."""

from __future__ import annotations

from collections.abc import Collection

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain.vocab.chunks import Scan
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
    """Numbers per row, by name: "logp", "entropy", "kl_reverse", "kl_forward" in nats, and
    "teachability" in [0, 1].

    Teachability is the teacher's mass on the student's `top` likeliest ids (arXiv 2605.26844). The
    teacher's head runs only where a name needs it. Raises UserError where one does and there is no
    teacher.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    with torch.autocast(hidden_ND.device.type, enabled=False):
        for distribution in Scan(
            hidden_ND, head, ids_N, temperature, teacher, chunk
        ).distributions():
            for name in sorted(found, key=_of_student):
                is_mass = name == "teachability"
                found[name].append(
                    distribution.teacher_mass_on_top(top) if is_mass else distribution.value(name)
                )
    return {name: torch.cat(values) for name, values in found.items()}


def _of_student(name: str) -> bool:
    """What needs no teacher comes last: kernels find it in the pass that divergences take."""
    return name in ("logp", "entropy")
