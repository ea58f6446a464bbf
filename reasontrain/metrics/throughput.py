"""Throughput of a step: tokens per second, and FLOP/s as a share of the machine's matrix rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reasontrain.metrics.timing import LEARNER_PARTS, ORCHESTRATION, PARTS, key
from reasontrain.types import Batch, Rollout, Stats

MEASURED_S = 0.1
"""Seconds that `matrix_rate` measures for beside a small model, whose steps take as long."""
MEASURED_LARGE_S = 2.0
"""The same beside a large model on a CPU: an engine that starts in another process takes cores away
for longer than a tenth of a second, and a rate that is measured meanwhile is too low."""
LARGE = 100_000_000
"""Parameters of a large model."""
SIZE_CPU = 1024
SIZE_GPU = 8192
"""Sizes of the square matrices.

They saturate a device, and one product takes far less than `MEASURED_S`.
"""

Count = Callable[[Sequence[Rollout], Batch, Tensor], Stats]
"""Function that counts the operations of a step.

It returns `tflop_sampled`, `tflop_evidence`, `tflop_learned` and `tflop_recomputed` in 10^12
operations, and nothing for an unknown architecture.
"""


@dataclass(kw_only=True)
class Speed:
    """Throughput metrics of steps.

    Attributes:
        count: counts the operations of a step.
        rate: operations per second that the learner's devices reach: those of matrix products,
            measured at the start, or of the fastest step since, because other work may have slowed
            the measurement. A share of it is therefore 1 at most.
        alone: True if sampling runs on the learner's devices too.
    """

    count: Count
    rate: float
    alone: bool

    def of(self, stats: Stats, step_s: float) -> Stats:
        """Tokens per second, the time of orchestration, and utilisation.

        mfu_update is the rate of evidence and learning in the learner's own seconds, as a share of
        `rate`; hfu_update includes recomputation. mfu_step also includes sampling, and is over the
        full step.

        Args:
            stats: the step's seconds by phase, token counts and operation counts.
            step_s: duration of the step in seconds.
        """
        spent_s = {part: stats[key(part)] for part in PARTS if key(part) in stats}
        metrics: Stats = {
            key(ORCHESTRATION): step_s - sum(spent_s.values()),
            "time_step_s": step_s,
            "tokens_per_s": stats["sampled_tokens"] / step_s,
            "trained_tokens_per_s": stats["trained_tokens"] / step_s,
        }
        update_s = sum(spent_s[part] for part in LEARNER_PARTS)
        if "tflop_learned" not in stats or not update_s:
            return metrics
        update = stats["tflop_evidence"] + stats["tflop_learned"]
        rates = {
            "mfu_update": 1e12 * update / update_s,
            "hfu_update": 1e12 * (update + stats["tflop_recomputed"]) / update_s,
        }
        if self.alone:
            rates["mfu_step"] = 1e12 * (update + stats["tflop_sampled"]) / step_s
        self.rate = max(self.rate, *rates.values())
        return metrics | {name: rate / self.rate for name, rate in rates.items()}


@torch.no_grad()
def matrix_rate(device: torch.device, dtype: torch.dtype, num_parameters: int = 0) -> float:
    """Operations per second of the fastest of many matrix products.

    Matrices are n x n, 2 n^3 operations per product; the first product is a warm-up.

    Args:
        device: where the model lies.
        dtype: of the matrices.
        num_parameters: size of the model; products are repeated for longer beside a large one.
    """
    is_large = device.type == "cpu" and num_parameters >= LARGE
    size = SIZE_GPU if device.type == "cuda" else SIZE_CPU
    draw = torch.Generator(device).manual_seed(0)
    left, right = (
        torch.randn(size, size, generator=draw, device=device).to(dtype) for _ in range(2)
    )
    out = left @ right
    fastest_s = float("inf")
    end = time.perf_counter() + (MEASURED_LARGE_S if is_large else MEASURED_S)
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
