"""Statistics of the policy's distribution and their analytic gradients with respect to the logits.

With p the student and q the teacher:

    d logp        = 1[token] - p
    d H           = -p (log p + H)
    d KL(p || q)  = p (log p - log q - KL(p || q))
    d KL(q || p)  = p - q
    d JSD         = (1 - beta) p (log p - log m - KL(p || m)),  m = (1 - beta) p + beta q
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain.types import UserError
from reasontrain.vocab.ranks import rank_of, top_entropy

LOGP_FLOOR = -1e30
"""Lowest log-probability, in place of -inf: its exp is 0, and 0 times it is 0 rather than NaN."""
NO_TEACHER = (
    "this objective or rule needs a divergence from a teacher, and there is no teacher; name one "
    "under `teacher`"
)


def _log_softmax_(logits_NV: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
    """log softmax, in the memory of the logits."""
    # Safe in place: torch reads a position's maximum and sum before it writes that position.
    return torch.log_softmax(logits_NV, -1, out=logits_NV).clamp_(min=LOGP_FLOOR)


class BufferPool:
    """Named work buffers that are reused from block to block.

    Fresh memory is slow on a CPU: page faults take longer than the arithmetic that fills it. A
    buffer only grows; its content is undefined until it is written.
    """

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    def __call__(self, name: str, like_NV: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
        """A buffer shaped like `like_NV`; overwrites what the last call of this name returned."""
        memory = self._memory.get(name)
        size = like_NV.numel()
        if memory is None or memory.numel() < size:
            memory = self._memory[name] = torch.empty(
                size, dtype=like_NV.dtype, device=like_NV.device
            )
        return memory[:size].view(like_NV.shape)


def union_divergence(
    student_NS: Float[Tensor, "N S"], teacher_NS: Float[Tensor, "N S"], num: int
) -> Float[Tensor, " N"]:
    """KL(teacher || student), in nats, each renormalised over the union of both top-`num` sets.

    The disagreement of TA-OPD (arXiv 2605.26844).

    Args:
        student_NS: the student's logits or log-probabilities: a constant per position cancels.
        teacher_NS: the teacher's, over the same ids.
        num: likeliest ids of each model.

    Returns:
        The divergence at each position, at least 0.
    """
    num = min(num, student_NS.shape[1])
    own_NK = student_NS.topk(num, sorted=False).indices
    other_NK = teacher_NS.topk(num, sorted=False).indices
    # An id that both have is counted once.
    is_double_NK = (other_NK[:, :, None] == own_NK[:, None, :]).any(2)
    union_NK = torch.cat([own_NK, other_NK], 1)
    double_NK = torch.cat([torch.zeros_like(is_double_NK), is_double_NK], 1)
    logp_NK, logq_NK = (
        model_NS.gather(1, union_NK)
        .masked_fill(double_NK, -torch.inf)
        .log_softmax(1)
        .masked_fill(double_NK, LOGP_FLOOR)
        for model_NS in (student_NS, teacher_NS)
    )
    return (logq_NK.exp() * (logq_NK - logp_NK)).sum(1).clamp_(min=0)


def logp_of_shared(logq_NS: Float[Tensor, "N S"], ids_N: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Log-probability of each id, which is at the floor if the model does not have the id."""
    width = logq_NS.shape[1]
    logq_N = logq_NS.gather(1, ids_N.clamp(max=width - 1)[:, None]).squeeze(1)
    return logq_N.masked_fill(ids_N >= width, LOGP_FLOOR)


def jsd_beta(name: str) -> float | None:
    """The beta of a statistic "jsd:<beta>"; None for any other."""
    return float(name.removeprefix("jsd:")) if name.startswith("jsd:") else None


def canonical_name(name: str) -> str:
    """The name under which a statistic is computed.

    The limits of the Jensen-Shannon divergence are divergences of their own: beta 0 is the forward
    KL, beta 1 the reverse (TRL's convention).
    """
    beta = jsd_beta(name)
    return name if beta is None else {0.0: "kl_forward", 1.0: "kl_reverse"}.get(beta, name)


class AnalyticDistribution:
    """The student's distribution at N positions, and the teacher's if a divergence is needed.

    Takes over the memory of the logits: log p is written over them, and `gradient` over log p. So
    read all values before `gradient`, which may be called once. Buffers come from a pool, so a
    distribution is also dead as soon as another one uses the same pool.

    Two vocabulary sizes are compared over the S ids that both have, each renormalised there; logp
    and entropy use the student's full vocabulary.
    """

    def __init__(
        self,
        logits_NV: Float[Tensor, "N V"],
        ids_N: Int[Tensor, " N"],
        teacher: Callable[[], Tensor] | None,
        buffers: BufferPool,
    ) -> None:
        """Overwrite `logits_NV` with log p.

        Args:
            logits_NV: the student's logits, divided by the temperature.
            ids_N: the token at each position.
            teacher: returns the teacher's logits [N, U], which are overwritten too.
            buffers: the pool of work buffers.
        """
        self.logp_NV = _log_softmax_(logits_NV)
        self.ids_N = ids_N
        self._teacher = teacher
        self._buffers = buffers
        self._values: dict[str, Tensor] = {}

    @cached_property
    def p_NV(self) -> Float[Tensor, "N V"]:
        """The student's probabilities over its full vocabulary."""
        return self._exp("p", self.logp_NV)

    @cached_property
    def logq_NS(self) -> Float[Tensor, "N S"]:
        """The teacher's log-probabilities over the shared ids."""
        if self._teacher is None:
            raise UserError(NO_TEACHER)
        logits_NU = self._teacher()
        width = self.logp_NV.shape[1]
        # A slice of a wider teacher is not contiguous, so it cannot be overwritten in place.
        return _log_softmax_(
            logits_NU if logits_NU.shape[1] <= width else logits_NU[:, :width].clone()
        )

    @cached_property
    def q_NS(self) -> Float[Tensor, "N S"]:
        """The teacher's probabilities over the shared ids."""
        return self._exp("q", self.logq_NS)

    @cached_property
    def shared_logp_NS(self) -> Float[Tensor, "N S"]:
        """The student's log-probabilities over the shared ids; an alias of `logp_NV` if S = V."""
        width = self.logq_NS.shape[1]
        return (
            self.logp_NV
            if self.logp_NV.shape[1] == width
            else _log_softmax_(self.logp_NV[:, :width].clone())
        )

    @cached_property
    def shared_p_NS(self) -> Float[Tensor, "N S"]:
        """The student's probabilities over the shared ids; an alias of `p_NV` if S = V."""
        return (
            self.p_NV
            if self.shared_logp_NS is self.logp_NV
            else self._exp("shared p", self.shared_logp_NS)
        )

    @cached_property
    def gap_NS(self) -> Float[Tensor, "N S"]:
        """log p - log q."""
        return self._log_ratio("gap")

    def value(self, name: str) -> Float[Tensor, " N"]:
        """A statistic by name (see `types.TokenStats` and `measure`), without a gradient."""
        name = canonical_name(name)
        if name not in self._values:
            self._values[name] = self._compute(name)
        return self._values[name]

    def _compute(self, name: str) -> Float[Tensor, " N"]:
        # Entropy and divergences are non-negative; rounding can leave them slightly below zero.
        match name:
            case "logp":
                return self.logp_NV.gather(1, self.ids_N[:, None]).squeeze(1)
            case "entropy":
                return self._dot(self.p_NV, self.logp_NV).neg_().clamp_(min=0)
            case "kl_reverse":
                return self._dot(self.gap_NS, self.shared_p_NS).clamp_(min=0)
            case "kl_forward":
                return self._log_ratio("forward").mul_(self.q_NS).sum(-1).neg_().clamp_(min=0)
            case "rank":
                return rank_of(self.logp_NV, self.ids_N)
            case "entropy_top20":
                return top_entropy(self.logp_NV)
            case "teacher_entropy":
                return self._dot(self.q_NS, self.logq_NS).neg_().clamp_(min=0)
            case "teacher_logp":
                return logp_of_shared(self.logq_NS, self.ids_N)
            case "teacher_rank_of_argmax":
                return rank_of(self.logq_NS, self.shared_logp_NS.argmax(1))
        beta = jsd_beta(name)
        assert beta is not None, f"no such statistic: {name}"
        assert 0 < beta < 1, f"beta is between 0 and 1: {name}"
        logm_NS = self._log_mixture(beta)
        teacher_N = self._dot(self.q_NS, self.logq_NS - logm_NS)
        student_N = self._dot(self.shared_p_NS, self.shared_logp_NS - logm_NS)
        return (beta * teacher_N + (1 - beta) * student_N).clamp_(min=0)

    def _exp(self, name: str, x_NV: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
        """e^x, in the buffer `name`."""
        # As 2^(x log2 e): exp2 takes a third of the time of exp on a CPU. The product is rounded
        # once, with the same relative error that x already carries.
        return torch.mul(x_NV, math.log2(math.e), out=self._buffers(name, x_NV)).exp2_()

    def _log_ratio(self, name: str) -> Float[Tensor, "N S"]:
        """log p - log q, in the buffer `name`."""
        return torch.sub(self.shared_logp_NS, self.logq_NS, out=self._buffers(name, self.logq_NS))

    def _dot(
        self, left_NV: Float[Tensor, "N V"], right_NV: Float[Tensor, "N V"]
    ) -> Float[Tensor, " N"]:
        """The inner product at each position."""
        return torch.mul(left_NV, right_NV, out=self._buffers("terms", left_NV)).sum(-1)

    def _log_mixture(self, beta: float) -> Float[Tensor, "N S"]:
        """log m with m = (1 - beta) p + beta q."""
        return torch.logaddexp(
            self.shared_logp_NS + math.log1p(-beta), self.logq_NS + math.log(beta)
        )

    def teacher_top_mass(self, num: int) -> Float[Tensor, " N"]:
        """The teacher's probability summed over the student's `num` likeliest ids."""
        num = min(num, self.logq_NS.shape[1])
        return self.q_NS.gather(1, self.shared_logp_NS.topk(num, sorted=False).indices).sum(1)

    def top_divergence(self, num: int) -> Float[Tensor, " N"]:
        """KL(teacher || student) over the union of both models' `num` likeliest shared ids."""
        return union_divergence(self.shared_logp_NS, self.logq_NS, num)

    def gradient(self, stat_grads: Mapping[str, Float[Tensor, " N"]]) -> Float[Tensor, "N V"]:
        """d loss / d logits = sum_k stat_grads[k] * d statistic_k / d logits.

        `stat_grads` holds d loss / d statistic by name. The result is in the memory of log p.
        """
        by_name: dict[str, Tensor] = {}
        for name, grad_N in stat_grads.items():
            name = canonical_name(name)
            by_name[name] = by_name[name] + grad_N if name in by_name else grad_N
        own_N1: dict[str, Tensor] = {
            name: by_name.pop(name)[:, None] for name in ("logp", "entropy") if name in by_name
        }
        if by_name:
            # log p may be overwritten by the divergences' part only if no other part reads it.
            only_shared = not own_N1 and self.shared_logp_NS is self.logp_NV
            shared_N1 = {name: grad_N[:, None] for name, grad_N in by_name.items()}
            shared_NS = self._shared_gradient(shared_N1, self.logp_NV if only_shared else None)
            if only_shared:
                return shared_NS
        total_NV = self._own_gradient(own_N1)
        if by_name:
            total_NV[:, : shared_NS.shape[1]] += shared_NS
        return total_NV

    def _own_gradient(self, stat_grads: Mapping[str, Tensor]) -> Float[Tensor, "N V"]:
        """The gradient of logp and entropy, over the full vocabulary, in the memory of log p."""
        if not stat_grads:
            return self.logp_NV.zero_()
        if "entropy" in stat_grads:
            grad_N1 = stat_grads["entropy"]
            entropy_N1 = self.value("entropy")[:, None]
            total_NV = self.logp_NV.add_(entropy_N1).mul_(-grad_N1)
            if "logp" in stat_grads:
                total_NV.sub_(stat_grads["logp"])
            total_NV.mul_(self.p_NV)
        else:
            total_NV = torch.mul(self.p_NV, -stat_grads["logp"], out=self.logp_NV)
        if "logp" in stat_grads:
            total_NV.scatter_add_(1, self.ids_N[:, None], stat_grads["logp"])
        return total_NV

    def _shared_gradient(
        self, stat_grads: Mapping[str, Tensor], out_NS: Tensor | None
    ) -> Float[Tensor, "N S"]:
        """The gradient of the divergences, over the shared ids, in `out_NS` or new memory."""
        # Everything that multiplies p is collected first, so that p is read once; q of the forward
        # KL is added afterwards.
        factor: Tensor = torch.zeros_like(next(iter(stat_grads.values())))
        for name, grad_N1 in stat_grads.items():
            if name == "kl_reverse":
                # The difference before the product: that of two products of p would be rounding
                # where the divergence is large. The gap's memory is not read again.
                divergence_N1 = self.value(name)[:, None]
                factor = self.gap_NS.sub_(divergence_N1).mul_(grad_N1).add_(factor)
            elif name == "kl_forward":
                factor = factor + grad_N1
            else:
                beta = jsd_beta(name)
                assert beta is not None
                term_NS = self.shared_logp_NS - self._log_mixture(beta)
                term_NS.sub_(self._dot(self.shared_p_NS, term_NS)[:, None]).mul_(
                    (1 - beta) * grad_N1
                )
                factor = term_NS.add_(factor)
        total_NS = torch.mul(self.shared_p_NS, factor, out=out_NS)
        if "kl_forward" in stat_grads:
            total_NS.addcmul_(self.q_NS, stat_grads["kl_forward"], value=-1)
        return total_NS
