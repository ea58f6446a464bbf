"""`analytic.AnalyticDistribution` by Triton kernels: the same statistics and gradients.

Values read the logits once, and the gradient reads them once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain.types import UserError
from reasontrain.vocab import triton_kernels
from reasontrain.vocab.analytic import (
    NO_TEACHER,
    AnalyticDistribution,
    BufferPool,
    canonical_name,
    jsd_beta,
    union_divergence,
)
from reasontrain.vocab.ranks import rank_of, top_entropy

TILE = 2048
"""Ids per tile. It sets the order of summation, so sums depend on it in their last digits."""
OPTIONS: Mapping[str, int | bool] = MappingProxyType({"num_warps": 8, "enable_fp_fusion": True})
"""Options of compilation. Fused multiply-add is named because Triton 3.10 changes its default."""
_STAT_INDEX = {"logp": 2, "entropy": 3, "kl_reverse": 6, "kl_forward": 7}
"""Rows of the output of `triton_kernels.statistics`.

Rows 0 and 1 are the largest logit and log z, rows 4 and 5 those of the teacher.
"""
_NON_NEGATIVE = (3, 6, 7)
_GRAD_INDEX = {"logp": 0, "entropy": 1, "kl_reverse": 2, "kl_forward": 3}
"""Rows of the input `grads` of `triton_kernels.gradient`."""
_JSD_GRAD_INDEX = 4


@runtime_checkable
class Kernel(Protocol):
    """A compiled or interpreted Triton function: index it with a grid, then call the result."""

    def __getitem__(self, grid: tuple[int, int]) -> Callable[..., object]: ...


class TritonDistribution:
    """The student's distribution at N positions, and the teacher's if a divergence is needed.

    Both have the same V ids. Keeps the float32 logits until `gradient` overwrites the student's.
    """

    def __init__(
        self,
        logits_NV: Float[Tensor, "N V"],
        ids_N: Int[Tensor, " N"],
        teacher: Callable[[], Tensor] | None,
    ) -> None:
        self.logits_NV = logits_NV
        self.ids_N = ids_N.contiguous()
        self._teacher = teacher
        self._mixtures: dict[float, Tensor] = {}

    @cached_property
    def teacher_NV(self) -> Float[Tensor, "N V"]:
        """The teacher's logits, computed when a divergence is first needed."""
        if self._teacher is None:
            raise UserError(NO_TEACHER)
        return self._teacher()

    @cached_property
    def _student_stats_KN(self) -> Float[Tensor, "K N"]:
        """The four statistics of the student alone."""
        return self._statistics(None)

    @cached_property
    def _both_stats_KN(self) -> Float[Tensor, "K N"]:
        """The eight statistics of student and teacher; the first four are the student's."""
        return self._statistics(self.teacher_NV)

    @cached_property
    def _teacher_stats_KN(self) -> Float[Tensor, "K N"]:
        """The four statistics of the teacher's distribution, as `_student_stats_KN` has them."""
        return self._pass(self.teacher_NV, None)

    @property
    def _stats_KN(self) -> Float[Tensor, "K N"]:
        """At least the student's statistics, without a second pass if both are known."""
        return self._both_stats_KN if "_both_stats_KN" in self.__dict__ else self._student_stats_KN

    def _statistics(self, teacher_NV: Float[Tensor, "N V"] | None) -> Float[Tensor, "K N"]:
        return self._pass(self.logits_NV, teacher_NV)

    def _pass(
        self, logits_NV: Float[Tensor, "N V"], teacher_NV: Float[Tensor, "N V"] | None
    ) -> Float[Tensor, "K N"]:
        """One pass over the logits of a model, and of another one that it is compared with."""
        out_KN = logits_NV.new_empty(4 if teacher_NV is None else 8, len(self.ids_N))
        # Without a teacher the kernel still takes a second pointer, which it never reads.
        other_NV = logits_NV if teacher_NV is None else teacher_NV
        self._launch(
            triton_kernels.statistics,
            1,
            (logits_NV, other_NV, self.ids_N, out_KN),
            (),
            {"TEACHER": teacher_NV is not None},
        )
        for index in {*_NON_NEGATIVE} & {*range(len(out_KN))}:
            out_KN[index].clamp_(min=0)
        return out_KN

    def _launch(
        self,
        kernel: Kernel,
        num_tiles: int,
        tensors: tuple[Tensor, ...],
        numbers: tuple[float, ...],
        flags: Mapping[str, bool],
    ) -> None:
        """Run one program per position and tile; the first two tensors are logits."""
        num_rows, width = self.logits_NV.shape
        # Kernels step through a row with stride 1. Rows may have any stride: blocks are views of a
        # chunk, and a head's output can be wider than its view.
        assert all(
            tensor_NV.stride(1) == 1 and tensor_NV.dtype == torch.float32
            for tensor_NV in tensors[:2]
        )
        if not num_rows:
            return
        strides = (tensors[0].stride(0), tensors[1].stride(0))
        # Triton launches on the current device, which need not be that of the tensors.
        with torch.cuda.device_of(self.logits_NV):
            kernel[(num_rows, num_tiles)](
                *tensors, *strides, width, num_rows, *numbers, TILE=TILE, **OPTIONS, **flags
            )

    def value(self, name: str) -> Float[Tensor, " N"]:
        """A statistic by name (see `types.TokenStats` and `measure`), without a gradient."""
        name = canonical_name(name)
        beta = jsd_beta(name)
        if beta is not None:
            student_N, teacher_N = self._mixture(beta)
            return (beta * teacher_N + (1 - beta) * student_N).clamp_(min=0)
        match name:
            case "rank":
                return rank_of(self.logits_NV, self.ids_N)
            case "entropy_top20":
                return top_entropy(self.logits_NV)
            case "teacher_rank_of_argmax":
                return rank_of(self.teacher_NV, self.logits_NV.argmax(1))
            case "teacher_logp" | "teacher_entropy":
                return self._teacher_stats_KN[_STAT_INDEX[name.removeprefix("teacher_")]]
        assert name in _STAT_INDEX, f"no such statistic: {name}"
        stats_KN = self._stats_KN if name in ("logp", "entropy") else self._both_stats_KN
        return stats_KN[_STAT_INDEX[name]]

    def _mixture(self, beta: float) -> Float[Tensor, "2 N"]:
        """KL(p || m) and KL(q || m), in a second pass: log m needs both log z first."""
        assert 0 < beta < 1, f"beta is between 0 and 1: {beta}"
        if beta not in self._mixtures:
            divergence_2N = self.logits_NV.new_empty(2, len(self.ids_N))
            tensors = (self.logits_NV, self.teacher_NV, self._both_stats_KN, divergence_2N)
            self._launch(
                triton_kernels.mixture, 1, tensors, (math.log1p(-beta), math.log(beta)), {}
            )
            self._mixtures[beta] = divergence_2N
        return self._mixtures[beta]

    def teacher_top_mass(self, num: int) -> Float[Tensor, " N"]:
        """The teacher's probability summed over the student's `num` likeliest ids."""
        top_NK = self.logits_NV.topk(min(num, self.logits_NV.shape[1]), sorted=False).indices
        largest_N = self._both_stats_KN[4]
        log_z_N = self._both_stats_KN[5]
        return (
            ((self.teacher_NV.gather(1, top_NK) - largest_N[:, None]) - log_z_N[:, None])
            .exp_()
            .sum(1)
        )

    def top_divergence(self, num: int) -> Float[Tensor, " N"]:
        """KL(teacher || student) over the union of both models' `num` likeliest ids.

        By torch: it needs 2 num logits of a position after two partial sorts, and no sum over ids.
        """
        return union_divergence(self.logits_NV, self.teacher_NV, num)

    def gradient(self, stat_grads: Mapping[str, Float[Tensor, " N"]]) -> Float[Tensor, "N V"]:
        """d loss / d logits = sum_k stat_grads[k] * d statistic_k / d logits.

        `stat_grads` holds d loss / d statistic by name. The result is in the memory of the logits.
        """
        betas = {
            beta for name in stat_grads if (beta := jsd_beta(canonical_name(name))) is not None
        }
        if len(betas) > 1:
            # The kernel handles one Jensen-Shannon divergence; no objective uses more.
            return AnalyticDistribution(
                self.logits_NV, self.ids_N, lambda: self.teacher_NV, BufferPool()
            ).gradient(stat_grads)
        if not stat_grads:
            return self.logits_NV.zero_()
        grads_KN = self.logits_NV.new_zeros(5, len(self.ids_N))
        used = set[int]()
        for name, grad_N in stat_grads.items():
            name = canonical_name(name)
            beta = jsd_beta(name)
            index = _JSD_GRAD_INDEX if beta is not None else _GRAD_INDEX[name]
            grads_KN[index].add_(grad_N, alpha=1.0 if beta is None else 1 - beta)
            used.add(index)
        needs_teacher = bool(used - {_GRAD_INDEX["logp"], _GRAD_INDEX["entropy"]})
        stats_KN = self._both_stats_KN if needs_teacher else self._stats_KN
        beta = next(iter(betas), 0.5)
        self._launch(
            triton_kernels.gradient,
            -(-self.logits_NV.shape[1] // TILE),
            (
                self.logits_NV,
                self.teacher_NV if needs_teacher else self.logits_NV,
                self.ids_N,
                stats_KN,
                self._mixture(beta) if betas else stats_KN,
                grads_KN,
            ),
            (math.log1p(-beta), math.log(beta)),
            {
                flag: index in used
                for index, flag in enumerate(("LOGP", "ENTROPY", "REVERSE", "FORWARD", "JSD"))
            },
        )
        return self.logits_NV
