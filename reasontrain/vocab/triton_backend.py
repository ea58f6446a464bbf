"""`closed_form.Distribution` by kernels: the same statistics and gradients, reading the logits once
for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain.types import UserError
from reasontrain.vocab import triton_kernels
from reasontrain.vocab.analytic import NO_TEACHER, BufferPool, Distribution, beta_of, plain_name

TILE = 2048
"""Ids at a time; a row's sums depend on it in their last digits."""
_WARPS = 8
_ROW = {"logp": 2, "entropy": 3, "kl_reverse": 6, "kl_forward": 7}
"""Where `kernels.statistics` puts them; the largest logit and log z are 0 and 1, the teacher's 4
and 5.
"""
_SLOPE = {"logp": 0, "entropy": 1, "kl_reverse": 2, "kl_forward": 3}
_MIXED = 4


@runtime_checkable
class Kernel(Protocol):
    """What Triton makes of a function, compiled or interpreted: it is given a grid, then called."""

    def __getitem__(self, grid: tuple[int, int]) -> Callable[..., object]: ...


class TiledDistribution:
    """The student's distribution at N rows, and the teacher's where a divergence is asked for: both
    over the same V ids.

    Keeps the logits, in float32, until `gradient` overwrites the student's.
    """

    def __init__(
        self,
        logits_NV: Float[Tensor, "N V"],
        ids_N: Int[Tensor, " N"],
        teacher: Callable[[], Tensor] | None,
    ) -> None:
        self.logits_NV, self.ids_N = logits_NV, ids_N.contiguous()
        self._teacher = teacher
        self._mixtures: dict[float, Tensor] = {}

    @cached_property
    def teacher_NV(self) -> Float[Tensor, "N V"]:
        """The teacher's logits, made when a divergence is first asked for."""
        if self._teacher is None:
            raise UserError(NO_TEACHER)
        return self._teacher()

    @cached_property
    def _alone_KN(self) -> Float[Tensor, "K N"]:
        """What is known of the student."""
        return self._statistics(None)

    @cached_property
    def _both_KN(self) -> Float[Tensor, "K N"]:
        """What is known of student and teacher."""
        return self._statistics(self.teacher_NV)

    @property
    def _known_KN(self) -> Float[Tensor, "K N"]:
        """What one pass has found already, or one over the student alone."""
        return self._both_KN if "_both_KN" in self.__dict__ else self._alone_KN

    def _statistics(self, teacher_NV: Float[Tensor, "N V"] | None) -> Float[Tensor, "K N"]:
        out_KN = self.logits_NV.new_empty(4 if teacher_NV is None else 8, len(self.ids_N))
        other_NV = self.logits_NV if teacher_NV is None else teacher_NV
        self._launch(
            triton_kernels.statistics,
            1,
            (self.logits_NV, other_NV, self.ids_N, out_KN),
            (),
            {"TEACHER": teacher_NV is not None},
        )
        for row in {3, 6, 7} & {*range(len(out_KN))}:
            out_KN[row].clamp_(min=0)
        return out_KN

    def _launch(
        self,
        kernel: Kernel,
        num_tiles: int,
        tensors: tuple[Tensor, ...],
        numbers: tuple[float, ...],
        flags: Mapping[str, bool],
    ) -> None:
        """One program a row and part of a row; the first two tensors are logits."""
        num_rows, width = self.logits_NV.shape
        assert all(
            tensor_NV.stride(1) == 1 and tensor_NV.dtype == torch.float32
            for tensor_NV in tensors[:2]
        )
        if not num_rows:
            return
        strides = (tensors[0].stride(0), tensors[1].stride(0))
        with torch.cuda.device_of(self.logits_NV):
            kernel[(num_rows, num_tiles)](
                *tensors, *strides, width, num_rows, *numbers, TILE=TILE, num_warps=_WARPS, **flags
            )

    def value(self, name: str) -> Float[Tensor, " N"]:
        """A statistic by name (see `types.TokenStats`), without a gradient."""
        name = plain_name(name)
        beta = beta_of(name)
        if beta is not None:
            student_N, teacher_N = self._mixture(beta)
            return (beta * teacher_N + (1 - beta) * student_N).clamp_(min=0)
        assert name in _ROW, f"no such statistic: {name}"
        return (self._known_KN if name in ("logp", "entropy") else self._both_KN)[_ROW[name]]

    def _mixture(self, beta: float) -> Float[Tensor, "2 N"]:
        """KL(p || m) and KL(q || m), in a second pass: log m needs both sums first."""
        assert 0 < beta < 1, f"beta is a share: {beta}"
        if beta not in self._mixtures:
            found_2N = self.logits_NV.new_empty(2, len(self.ids_N))
            tensors = (self.logits_NV, self.teacher_NV, self._both_KN, found_2N)
            self._launch(
                triton_kernels.mixture, 1, tensors, (math.log1p(-beta), math.log(beta)), {}
            )
            self._mixtures[beta] = found_2N
        return self._mixtures[beta]

    def teacher_mass_on_top(self, num: int) -> Float[Tensor, " N"]:
        """The teacher's probability summed over the `num` ids that the student finds likeliest."""
        top_NK = self.logits_NV.topk(min(num, self.logits_NV.shape[1]), sorted=False).indices
        largest_N, log_z_N = self._both_KN[4], self._both_KN[5]
        return (
            ((self.teacher_NV.gather(1, top_NK) - largest_N[:, None]) - log_z_N[:, None])
            .exp_()
            .sum(1)
        )

    def gradient(self, stat_grads: Mapping[str, Float[Tensor, " N"]]) -> Float[Tensor, "N V"]:
        """sum_k slopes[k] * d statistic_k / d logits, in the memory of the logits.

        The kernel knows one Jensen-Shannon divergence, as objectives do; with two of them
        `closed_form` begins anew.
        """
        betas = {beta for name in stat_grads if (beta := beta_of(plain_name(name))) is not None}
        if len(betas) > 1:
            return Distribution(
                self.logits_NV, self.ids_N, lambda: self.teacher_NV, BufferPool()
            ).gradient(stat_grads)
        if not stat_grads:
            return self.logits_NV.zero_()
        slope_KN = self.logits_NV.new_zeros(5, len(self.ids_N))
        named = set[int]()
        for name, slope_N in stat_grads.items():
            name = plain_name(name)
            beta = beta_of(name)
            row = _MIXED if beta is not None else _SLOPE[name]
            slope_KN[row].add_(slope_N, alpha=1.0 if beta is None else 1 - beta)
            named.add(row)
        compares = bool(named - {0, 1})
        known_KN = self._both_KN if compares else self._known_KN
        beta = next(iter(betas), 0.5)
        self._launch(
            triton_kernels.gradient,
            -(-self.logits_NV.shape[1] // TILE),
            (
                self.logits_NV,
                self.teacher_NV if compares else self.logits_NV,
                self.ids_N,
                known_KN,
                self._mixture(beta) if betas else known_KN,
                slope_KN,
            ),
            (math.log1p(-beta), math.log(beta)),
            {
                flag: row in named
                for row, flag in enumerate(("LOGP", "ENTROPY", "REVERSE", "FORWARD", "JSD"))
            },
        )
        return self.logits_NV
