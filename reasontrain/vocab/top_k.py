"""Divergences from a teacher of which only K ids and the rest of its mass are known.

With p the student and q the teacher, both over the ids that they share, and A the K ids of a
position, `tail` decides what is compared:

    bucket       P = (p_i for i in A, 1 - sum_A p),   Q = (q_i for i in A, 1 - sum_A q)
    renormalise  P = (p_i / sum_A p for i in A),      Q = (q_i / sum_A q for i in A)

KL(P || Q), KL(Q || P) and the Jensen-Shannon divergence of P and Q take the place of those of p and
q. In a bucket all other ids are one more category of both models, so that by the data-processing
inequality each divergence is at most that of p and q, and equal to it if A is the vocabulary.
Renormalised divergences are no bound: what the student does outside of A costs nothing.

Gradients with respect to the student's logits z, with D the divergence and c(j) the category of j:

    bucket       dKL(P || Q)/dz_j = p_j (log P_c(j) - log Q_c(j) - D)
                 dKL(Q || P)/dz_j = p_j - Q_c(j) p_j / P_c(j)
                 dJSD/dz_j = (1 - beta) p_j (log P_c(j) - log M_c(j) - KL(P || M))
    renormalise  the same with P_j in place of p_j for j in A, and 0 for all others
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reasontrain.types import Tail, UserError
from reasontrain.vocab.analytic import LOGP_FLOOR, AnalyticDistribution, BufferPool, jsd_beta
from reasontrain.vocab.ranks import STUDENT_STATISTICS

NEEDS_ALL = (
    "this rule needs the teacher's probabilities of all ids, and the teacher gives those of a few; "
    "use a teacher of kind weights, or another rule"
)


@dataclass(frozen=True, eq=False)
class TopKTeacher:
    """A frozen model at the student's positions, by the log-probabilities of K ids at each.

    Attributes:
        ids_NK: the ids of each position, without repetition; -1 fills up a position with fewer.
        logq_NK: log q of these ids, in nats; anything at an id of -1.
        log_rest_N: log of the mass of all other ids.
        tail: the treatment of all other ids.
        width: number of the teacher's ids, if the student may have more.
    """

    ids_NK: Int[Tensor, "N K"]
    logq_NK: Float[Tensor, "N K"]
    log_rest_N: Float[Tensor, " N"]
    tail: Tail = "bucket"
    width: int | None = None

    def __getitem__(self, rows: slice | Bool[Tensor, " N"]) -> TopKTeacher:
        """The same at a subset of the positions."""
        return replace(
            self,
            ids_NK=self.ids_NK[rows],
            logq_NK=self.logq_NK[rows],
            log_rest_N=self.log_rest_N[rows],
        )

    def to(self, device: torch.device) -> TopKTeacher:
        """The same on another device."""
        return replace(
            self,
            ids_NK=self.ids_NK.to(device),
            logq_NK=self.logq_NK.to(device),
            log_rest_N=self.log_rest_N.to(device),
        )

    def valid_NK(self, num_tokens: int) -> Bool[Tensor, "N K"]:
        """True at ids that the student, which has `num_tokens`, has too."""
        return (self.ids_NK >= 0) & (self.ids_NK < num_tokens)

    def log_categories(
        self, num_tokens: int, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "N C"], Bool[Tensor, " N"]]:
        """Log Q of the K ids, and of the rest if it is a bucket (C = K + 1).

        Ids that the student does not have belong to the rest.

        Args:
            num_tokens: number of ids that both models have.
            dtype: dtype of the result.

        Returns:
            Log Q, whose exp sums to 1 at each position and is 0 at an id that does not count; and
            True at positions whose K ids are the whole vocabulary, so that there is no rest.
        """
        valid_NK = self.valid_NK(num_tokens)
        is_whole_N = valid_NK.sum(1) == num_tokens
        logq_NK = self.logq_NK.to(dtype)
        kept_NK = logq_NK.masked_fill(~valid_NK, -torch.inf)
        if self.tail == "renormalise":
            return _normalised(kept_NK), is_whole_N
        dropped_NK = logq_NK.masked_fill(valid_NK | (self.ids_NK < 0), -torch.inf)
        rest_N = torch.logaddexp(self.log_rest_N.to(dtype), dropped_NK.logsumexp(1))
        rest_N = rest_N.masked_fill(is_whole_N, -torch.inf)
        return _normalised(torch.cat([kept_NK, rest_N[:, None]], 1)), is_whole_N


def _normalised(log_NC: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    """Log softmax, with the floor in place of -inf; all floor where there is nothing."""
    total_N1 = log_NC.logsumexp(1, keepdim=True).clamp(min=LOGP_FLOOR)
    return (log_NC - total_N1).clamp(min=LOGP_FLOOR)


class TopKDistribution(AnalyticDistribution):
    """The student's distribution at N positions, compared with K ids of a teacher."""

    def __init__(
        self,
        logits_NV: Float[Tensor, "N V"],
        ids_N: Int[Tensor, " N"],
        teacher: TopKTeacher,
        buffers: BufferPool,
        num_tokens: int | None = None,
    ) -> None:
        """Overwrite `logits_NV` with log p.

        Args:
            logits_NV: the student's logits, divided by the temperature.
            ids_N: the token at each position.
            teacher: the teacher at these positions.
            buffers: the pool of work buffers.
            num_tokens: ids of the student that are tokens; None: all.
        """
        super().__init__(logits_NV, ids_N, None, buffers)
        self.top_k = teacher
        width = logits_NV.shape[1]
        self._num_shared = min(width, num_tokens or width, teacher.width or width)

    @cached_property
    def shared_logp_NS(self) -> Float[Tensor, "N S"]:
        """The student's log-probabilities over the ids that the teacher has too."""
        width = self.top_k.width
        if width is None or width >= self.logp_NV.shape[1]:
            return self.logp_NV
        return torch.log_softmax(self.logp_NV[:, :width], -1).clamp_(min=LOGP_FLOOR)

    @cached_property
    def _valid_NK(self) -> Bool[Tensor, "N K"]:
        return self.top_k.valid_NK(self._num_shared)

    @cached_property
    def _place_NK(self) -> tuple[Int[Tensor, "N K"], Int[Tensor, "N K"]]:
        """For each entry an id and the entry to write there.

        An entry that does not count stands for the first of its position that does, so that a
        write in any order leaves the same.
        """
        first_N1 = self._valid_NK.int().argmax(1, keepdim=True)
        entry_NK = torch.arange(self._valid_NK.shape[1], device=first_N1.device)
        entry_NK = torch.where(self._valid_NK, entry_NK, first_N1)
        return self.top_k.ids_NK.clamp(min=0).gather(1, entry_NK), entry_NK

    def _write_(
        self, out_NS: Float[Tensor, "N S"], value_NK: Float[Tensor, "N K"]
    ) -> Float[Tensor, "N S"]:
        """`out_NS` with these values at the ids that count; nothing changes at a position of none.

        The id of such a position is not the student's own, so it is set to 0 for the write.
        """
        id_NK, entry_NK = self._place_NK
        has_any_N1 = self._valid_NK.any(1, keepdim=True)
        id_NK = id_NK.masked_fill(~has_any_N1, 0)
        value_NK = torch.where(has_any_N1, value_NK.gather(1, entry_NK), out_NS.gather(1, id_NK))
        return out_NS.scatter_(1, id_NK, value_NK)

    @cached_property
    def log_Q_NC(self) -> Float[Tensor, "N C"]:
        """The teacher's log-probabilities of the categories."""
        return self._teacher_categories[0]

    @cached_property
    def _teacher_categories(self) -> tuple[Float[Tensor, "N C"], Bool[Tensor, " N"]]:
        return self.top_k.log_categories(self._num_shared, self.logp_NV.dtype)

    @cached_property
    def log_P_NC(self) -> Float[Tensor, "N C"]:
        """The student's log-probabilities of the categories."""
        logp_NS = self.shared_logp_NS
        id_NK = self.top_k.ids_NK.clamp(0, logp_NS.shape[1] - 1)
        logp_NK = logp_NS.gather(1, id_NK).masked_fill(~self._valid_NK, -torch.inf)
        if self.top_k.tail == "renormalise":
            return _normalised(logp_NK)
        # The rest is summed and not 1 minus the others, of which rounding would leave nothing.
        outside_NS = self._buffers("outside", logp_NS).copy_(logp_NS)
        self._write_(outside_NS, torch.full_like(logp_NK, -torch.inf))
        rest_N = outside_NS.logsumexp(1).masked_fill(self._teacher_categories[1], -torch.inf)
        return torch.cat([logp_NK, rest_N[:, None]], 1).clamp_(min=LOGP_FLOOR)

    @cached_property
    def P_NC(self) -> Float[Tensor, "N C"]:
        """The student's probabilities of the categories."""
        return self.log_P_NC.exp()

    def _compute(self, name: str) -> Float[Tensor, " N"]:
        if name in STUDENT_STATISTICS:
            return super()._compute(name)
        if name == "teacher_rank_of_argmax":
            return self._rank_of_argmax()
        if name in ("teacher_entropy", "teacher_logp"):
            raise UserError(NEEDS_ALL)
        if name == "kl_reverse":
            return (self.P_NC * (self.log_P_NC - self.log_Q_NC)).sum(1).clamp_(min=0)
        if name == "kl_forward":
            return (self.log_Q_NC.exp() * (self.log_Q_NC - self.log_P_NC)).sum(1).clamp_(min=0)
        beta = jsd_beta(name)
        assert beta is not None, f"no such statistic: {name}"
        log_M_NC = self._log_M_NC(beta)
        teacher_N = (self.log_Q_NC.exp() * (self.log_Q_NC - log_M_NC)).sum(1)
        student_N = (self.P_NC * (self.log_P_NC - log_M_NC)).sum(1)
        return (beta * teacher_N + (1 - beta) * student_N).clamp_(min=0)

    def _rank_of_argmax(self) -> Float[Tensor, " N"]:
        """Rank of the student's likeliest shared id among the teacher's K; K + 1 if it is none."""
        best_N1 = self.shared_logp_NS[:, : self._num_shared].argmax(1, keepdim=True)
        logq_NK = self.top_k.logq_NK.masked_fill(~self._valid_NK, -torch.inf)
        own_N1 = logq_NK.masked_fill(self.top_k.ids_NK != best_N1, -torch.inf).amax(1, keepdim=True)
        return (logq_NK > own_N1).sum(1).to(self.logp_NV.dtype) + 1

    def _log_M_NC(self, beta: float) -> Float[Tensor, "N C"]:
        """Log M with M = (1 - beta) P + beta Q."""
        return torch.logaddexp(self.log_P_NC + math.log1p(-beta), self.log_Q_NC + math.log(beta))

    def teacher_top_mass(self, num: int) -> Float[Tensor, " N"]:
        """Refused: the student's likeliest ids need not be among the K."""
        raise UserError(NEEDS_ALL)

    def top_divergence(self, num: int) -> Float[Tensor, " N"]:
        """Refused: the student's likeliest ids need not be among the K."""
        raise UserError(NEEDS_ALL)

    def _shared_gradient(
        self, stat_grads: Mapping[str, Tensor], out_NS: Tensor | None
    ) -> Float[Tensor, "N S"]:
        """The gradient of the divergences, over the shared ids, in `out_NS` or new memory."""
        factor_NC = torch.zeros_like(self.log_P_NC)
        for name, grad_N1 in stat_grads.items():
            if name == "kl_reverse":
                gap_NC = self.log_P_NC - self.log_Q_NC
                factor_NC += grad_N1 * (gap_NC - self.value(name)[:, None])
            elif name == "kl_forward":
                factor_NC += grad_N1
            else:
                beta = jsd_beta(name)
                assert beta is not None
                gap_NC = self.log_P_NC - self._log_M_NC(beta)
                mean_N1 = (self.P_NC * gap_NC).sum(1, keepdim=True)
                factor_NC += (1 - beta) * grad_N1 * (gap_NC - mean_N1)
        num_ids = self._valid_NK.shape[1]
        gradient_NK = (self.P_NC * factor_NC)[:, :num_ids]
        forward_N1 = stat_grads.get("kl_forward")
        if forward_N1 is not None:
            gradient_NK = gradient_NK - forward_N1 * self.log_Q_NC[:, :num_ids].exp()
        logp_NS = self.shared_logp_NS
        if self.top_k.tail == "renormalise":
            total_NS = torch.zeros_like(logp_NS) if out_NS is None else out_NS.zero_()
            return self._write_(total_NS, gradient_NK)
        if forward_N1 is None:
            total_NS = torch.mul(self.shared_p_NS, factor_NC[:, -1:], out=out_NS)
        else:
            # p_j Q / P of the rest as one exp: P may be too small to divide by.
            gap_N1 = self.log_Q_NC[:, -1:] - self.log_P_NC[:, -1:]
            share_NS = torch.add(logp_NS, gap_N1, out=self._buffers("outside", logp_NS)).exp_()
            total_NS = torch.mul(self.shared_p_NS, factor_NC[:, -1:], out=out_NS)
            total_NS.sub_(share_NS.mul_(forward_N1))
        return self._write_(total_NS, gradient_NK)
