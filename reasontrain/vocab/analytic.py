"""Statistics of the policy's distribution at a block of rows, and their gradients with respect to
the logits, in closed form.

With p the student and q the teacher: d logp = 1[token] - p; d H = -p (log p + H); d KL(p||q) = p
(log p - log q - KL); d KL(q||p) = p - q; with m = (1 - beta) p + beta q, d JSD = (1 - beta) p (log
p - log m - KL(p||m)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain.types import UserError

FLOOR = -1e30
"""Log-probabilities stop here: exp gives 0 all the same, and 0 * log 0 is then 0 where -inf would
give NaN.
"""
NO_TEACHER = (
    "this objective or rule asks for a divergence, and no teacher is given; name one under "
    "`teacher`"
)


def _log_softmax_(logits_NV: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
    """In the memory of the logits: row by row, a row is read before it is written."""
    return torch.log_softmax(logits_NV, -1, out=logits_NV).clamp_(min=FLOOR)


class BufferPool:
    """Memory for what a block needs beside its logits, by name, taken up again by the next one: new
    pages cost a CPU more time than what is written to them.
    """

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    def __call__(self, name: str, like_NV: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
        """As large as `like_NV`; what was there under this name is overwritten."""
        memory, size = self._memory.get(name), like_NV.numel()
        if memory is None or memory.numel() < size:
            memory = self._memory[name] = torch.empty(
                size, dtype=like_NV.dtype, device=like_NV.device
            )
        return memory[:size].view(like_NV.shape)


def beta_of(name: str) -> float | None:
    """The beta of a statistic "jsd:<beta>"; None for any other."""
    return float(name.removeprefix("jsd:")) if name.startswith("jsd:") else None


def plain_name(name: str) -> str:
    """The limits of the Jensen-Shannon divergence under their own names: beta 0 is the forward KL,
    beta 1 the reverse (TRL).
    """
    beta = beta_of(name)
    return name if beta is None else {0.0: "kl_forward", 1.0: "kl_reverse"}.get(beta, name)


class Distribution:
    """The student's distribution at N rows, and the teacher's where a divergence is asked for.

    Takes over the memory of the logits. Heads of two widths are compared over the ids they share,
    each renormalised there; logp and entropy use the student's full width. `gradient` uses the
    distribution up: ask for values before. One with the same scratch ends it too.
    """

    def __init__(
        self,
        logits_NV: Float[Tensor, "N V"],
        ids_N: Int[Tensor, " N"],
        teacher: Callable[[], Tensor] | None,
        scratch: BufferPool,
    ) -> None:
        self.logp_NV = _log_softmax_(logits_NV)
        self.ids_N = ids_N
        self._teacher = teacher
        self._scratch = scratch
        self._values: dict[str, Tensor] = {}

    @cached_property
    def p_NV(self) -> Float[Tensor, "N V"]:
        """The student over its full width."""
        return self._exp("p", self.logp_NV)

    @cached_property
    def logq_NS(self) -> Float[Tensor, "N S"]:
        """The teacher over the shared ids."""
        if self._teacher is None:
            raise UserError(NO_TEACHER)
        logits_NU, width = self._teacher(), self.logp_NV.shape[1]
        return _log_softmax_(
            logits_NU if logits_NU.shape[1] <= width else logits_NU[:, :width].clone()
        )

    @cached_property
    def q_NS(self) -> Float[Tensor, "N S"]:
        """The teacher over the shared ids."""
        return self._exp("q", self.logq_NS)

    @cached_property
    def shared_logp_NS(self) -> Float[Tensor, "N S"]:
        """The student over the shared ids."""
        width = self.logq_NS.shape[1]
        return (
            self.logp_NV
            if self.logp_NV.shape[1] == width
            else _log_softmax_(self.logp_NV[:, :width].clone())
        )

    @cached_property
    def shared_p_NS(self) -> Float[Tensor, "N S"]:
        """The student over the shared ids."""
        return (
            self.p_NV
            if self.shared_logp_NS is self.logp_NV
            else self._exp("shared p", self.shared_logp_NS)
        )

    @cached_property
    def reverse_NS(self) -> Float[Tensor, "N S"]:
        """p (log p - log q): the terms of the reverse KL."""
        return self._gap("reverse").mul_(self.shared_p_NS)

    def value(self, name: str) -> Float[Tensor, " N"]:
        """A statistic by name (see `types.TokenStats`), without a gradient."""
        name = plain_name(name)
        if name not in self._values:
            self._values[name] = self._compute(name)
        return self._values[name]

    def _compute(self, name: str) -> Float[Tensor, " N"]:
        match name:
            case "logp":
                return self.logp_NV.gather(1, self.ids_N[:, None]).squeeze(1)
            case "entropy":
                return self._dot(self.p_NV, self.logp_NV).neg_().clamp_(min=0)
            case "kl_reverse":
                return self.reverse_NS.sum(-1).clamp_(min=0)
            case "kl_forward":
                return self._gap("forward").mul_(self.q_NS).sum(-1).neg_().clamp_(min=0)
        beta = beta_of(name)
        assert beta is not None, f"no such statistic: {name}"
        assert 0 < beta < 1, f"beta is a share: {name}"
        logm_NS = self._mixture(beta)
        teacher_N = self._dot(self.q_NS, self.logq_NS - logm_NS)
        student_N = self._dot(self.shared_p_NS, self.shared_logp_NS - logm_NS)
        return (beta * teacher_N + (1 - beta) * student_N).clamp_(min=0)

    def _exp(self, name: str, x_NV: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
        """e^x as 2^(x log2 e), which a CPU has in a third of the time; the product is rounded once,
        as x itself was.
        """
        return torch.mul(x_NV, math.log2(math.e), out=self._scratch(name, x_NV)).exp2_()

    def _gap(self, name: str) -> Float[Tensor, "N S"]:
        """log p - log q, in memory of that name."""
        return torch.sub(self.shared_logp_NS, self.logq_NS, out=self._scratch(name, self.logq_NS))

    def _dot(
        self, left_NV: Float[Tensor, "N V"], right_NV: Float[Tensor, "N V"]
    ) -> Float[Tensor, " N"]:
        """The rows' inner products."""
        return torch.mul(left_NV, right_NV, out=self._scratch("terms", left_NV)).sum(-1)

    def _mixture(self, beta: float) -> Float[Tensor, "N S"]:
        """log m."""
        return torch.logaddexp(
            self.shared_logp_NS + math.log1p(-beta), self.logq_NS + math.log(beta)
        )

    def teacher_mass_on_top(self, num: int) -> Float[Tensor, " N"]:
        """The teacher's probability summed over the `num` ids that the student finds likeliest."""
        num = min(num, self.logq_NS.shape[1])
        return self.q_NS.gather(1, self.shared_logp_NS.topk(num, sorted=False).indices).sum(1)

    def gradient(self, stat_grads: Mapping[str, Float[Tensor, " N"]]) -> Float[Tensor, "N V"]:
        """sum_k slopes[k] * d statistic_k / d logits."""
        by_name: dict[str, Tensor] = {}
        for name, slope_N in stat_grads.items():
            name = plain_name(name)
            by_name[name] = by_name[name] + slope_N if name in by_name else slope_N
        own: dict[str, Tensor] = {
            name: by_name.pop(name)[:, None] for name in ("logp", "entropy") if name in by_name
        }
        if by_name:
            alone = not own and self.shared_logp_NS is self.logp_NV
            slopes_N1 = {name: slope_N[:, None] for name, slope_N in by_name.items()}
            shared_NS = self._shared_gradient(slopes_N1, self.logp_NV if alone else None)
            if alone:
                return shared_NS
        total_NV = self._own_gradient(own)
        if by_name:
            total_NV[:, : shared_NS.shape[1]] += shared_NS
        return total_NV

    def _own_gradient(self, stat_grads: Mapping[str, Tensor]) -> Float[Tensor, "N V"]:
        """Of logp and entropy, over the full width. Overwrites log p."""
        if not stat_grads:
            return self.logp_NV.zero_()
        if "entropy" in stat_grads:
            slope_N1, entropy_N1 = stat_grads["entropy"], self.value("entropy")[:, None]
            total_NV = self.logp_NV.add_(entropy_N1).mul_(-slope_N1)
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
        """Of the divergences, into `out_NS`: p times what each says of an id and of its row, and
        what is no multiple of p.
        """
        factor: Tensor = torch.zeros_like(next(iter(stat_grads.values())))
        for name, slope_N1 in stat_grads.items():
            if name == "kl_reverse":
                factor = factor - slope_N1 * self.value(name)[:, None]
            elif name == "kl_forward":
                factor = factor + slope_N1
            else:
                beta = beta_of(name)
                assert beta is not None
                term_NS = self.shared_logp_NS - self._mixture(beta)
                term_NS.sub_(self._dot(self.shared_p_NS, term_NS)[:, None]).mul_(
                    (1 - beta) * slope_N1
                )
                factor = term_NS.add_(factor)
        total_NS = torch.mul(self.shared_p_NS, factor, out=out_NS)
        if "kl_reverse" in stat_grads:
            total_NS.addcmul_(self.reverse_NS, stat_grads["kl_reverse"])
        if "kl_forward" in stat_grads:
            total_NS.addcmul_(self.q_NS, stat_grads["kl_forward"], value=-1)
        return total_NS
