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
    """Numbers per row, by name: "logp", "entropy", "kl_reverse", "kl_forward" in nats, and "teachability" in [0, 1].

    Teachability is the teacher's mass on the student's `top` likeliest ids (arXiv 2605.26844). The teacher's head runs only
    where a name needs it. Raises UserError where one does and there is no teacher.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    scan = Scan(hidden_ND, head, ids_N, temperature, teacher, chunk)
    with torch.autocast(hidden_ND.device.type, enabled=False):
        for part in scan.chunks():
            for block in part.blocks():
                for name, values in found.items():
                    is_mass = name == "teachability"
                    values.append(block.distribution.teacher_mass_on_top(top) if is_mass else block.distribution.value(name))
    return {name: torch.cat(values) for name, values in found.items()}
