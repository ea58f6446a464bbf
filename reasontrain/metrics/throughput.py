"""How fast a step was: tokens per second, and operations beside what this machine's matrix products
reach.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reasontrain.metrics.timing import LEARNER_PARTS, ORCHESTRATION, PARTS, key
from reasontrain.types import Batch, Rollout, Stats

MEASURED_S = 0.1
SIZE_CPU, SIZE_GPU = 1024, 8192
"""Of the matrices: they keep a device busy, and one product takes far less than what is measured
for.
"""

Count = Callable[[Sequence[Rollout], Batch, Tensor], Stats]
"""The operations of a step as `tflop_sampled`, `_evidence`, `_learned` and `_recomputed`; nothing
for an unknown architecture.
"""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Says how fast a step was.

    `rate` is what matrix products reach on the learner's devices, in operations per second; `alone`
    says that all of a step is done there, sampling too.
    """

    count: Count
    rate: float
    alone: bool

    def of(self, stats: Stats, step_s: float) -> Stats:
        """Response tokens per second, sampled and trained on, what was left to orchestration, and
        utilisation.

        mfu_update: operations of evidence and learning in the learner's own seconds, as a share of
        `rate`; hfu_update: with those done twice. mfu_step: with those of sampling, in all seconds.
        """
        spent_s = {part: stats[key(part)] for part in PARTS if key(part) in stats}
        found: Stats = {
            key(ORCHESTRATION): step_s - sum(spent_s.values()),
            "time_step_s": step_s,
            "tokens_per_s": stats["sampled_tokens"] / step_s,
            "trained_tokens_per_s": stats["trained_tokens"] / step_s,
        }
        update_s = sum(spent_s[part] for part in LEARNER_PARTS)
        if "tflop_learned" not in stats or not update_s:
            return found
        update = stats["tflop_evidence"] + stats["tflop_learned"]
        found["mfu_update"] = 1e12 * update / update_s / self.rate
        found["hfu_update"] = 1e12 * (update + stats["tflop_recomputed"]) / update_s / self.rate
        if self.alone:
            found["mfu_step"] = 1e12 * (update + stats["tflop_sampled"]) / step_s / self.rate
        return found


@torch.no_grad()
def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of the fastest product of n x n matrices in a tenth of a second, 2 n^3
    each, after one to warm up.
    """
    size = SIZE_GPU if device.type == "cuda" else SIZE_CPU
    draw = torch.Generator(device).manual_seed(0)
    left, right = (
        torch.randn(size, size, generator=draw, device=device).to(dtype) for _ in range(2)
    )
    out = left @ right
    fastest_s, end = float("inf"), time.perf_counter() + MEASURED_S
    while time.perf_counter() < end or fastest_s == float("inf"):
        _finish(device)
        start = time.perf_counter()
        torch.mm(left, right, out=out)
        _finish(device)
        fastest_s = min(fastest_s, time.perf_counter() - start)
    return 2 * size**3 / fastest_s


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
