"""Evidence that needs the full distribution at a position, without gradients."""

from __future__ import annotations

from collections.abc import Collection

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain.vocab.analytic import LOGP_FLOOR
from reasontrain.vocab.chunks import ChunkedLogits
from reasontrain.vocab.head import Head
from reasontrain.vocab.mixture import AnyTeacher
from reasontrain.vocab.ranks import STUDENT_STATISTICS
from reasontrain.vocab.top_k import TopKTeacher


@torch.no_grad()
def measure(
    hidden_ND: Float[Tensor, "N D"],
    head: Head,
    ids_N: Int[Tensor, " N"],
    names: Collection[str],
    *,
    temperature: float = 1.0,
    teacher: AnyTeacher | None = None,
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
            ids, each renormalised there); "rank" of the token in the student's distribution, from
            1; "entropy_top20" of the student's 20 likeliest ids, renormalised; "teacher_entropy",
            "teacher_logp" of the token, and "teacher_rank_of_argmax": the rank that the teacher
            gives to the student's likeliest id. Ranks count the ids that are likelier.
        temperature: divides the logits of both models.
        teacher: the teacher's hidden states at the same positions, and its head, or its
            log-probabilities of a few ids there (see `top_k`).
        chunk: positions per matrix product; None chooses by memory.
        top: number of likeliest ids of a model that "compatibility" and "disagreement" look at.

    Returns:
        One number per position for every name.

    Raises:
        UserError: a name needs a teacher, and there is none; or the teacher's probabilities of all
            ids, and it gives a few.
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
    return name in STUDENT_STATISTICS


@torch.no_grad()
def top_k(
    hidden_ND: Float[Tensor, "N D"], head: Head, num: int, *, chunk: int | None = None
) -> TopKTeacher:
    """The `num` likeliest ids at N positions with their log-probabilities, likeliest first.

    Args:
        hidden_ND: hidden states.
        head: the model's head.
        num: number of ids; all, if the model has fewer.
        chunk: positions per matrix product; None chooses by memory.

    Returns:
        The ids, and the log of the mass of all others: at the floor if there are none.
    """
    num = min(num, head.num_tokens or head.width)
    ids_N = torch.zeros(len(hidden_ND), dtype=torch.long, device=hidden_ND.device)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    with torch.autocast(hidden_ND.device.type, enabled=False):
        for part in ChunkedLogits(hidden_ND, head, ids_N, 1.0, chunk=chunk).chunks():
            for block in part.blocks():
                logp_NV = block.analytic.logp_NV
                logq_NK, id_NK = logp_NV.topk(num)
                rest_N = logp_NV.scatter_(1, id_NK, -torch.inf).logsumexp(1)
                parts.append((id_NK, logq_NK, rest_N.clamp_(min=LOGP_FLOOR)))
    id_NK, logq_NK, rest_N = (torch.cat(column) for column in zip(*parts, strict=True))
    return TopKTeacher(id_NK, logq_NK, rest_N, width=head.num_tokens or head.width)
