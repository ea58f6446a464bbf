"""An update of a 4B student with an 8B teacher on one GPU, compared with matrix products.

The products have the same number of operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch

from reasontrain.algo.objectives import Distill
from reasontrain.bench import reasontrain_side
from reasontrain.bench.case import BenchCase, BenchMachine, Contestant, Goal, Numbers, Variant, Work
from reasontrain.bench.reasontrain_side import BenchMethod
from reasontrain.bench.workload import QWEN3_4B, QWEN3_8B, Workload
from reasontrain.data.micro_batches import Layout
from reasontrain.plan.flops import head, trunk

ENOUGH_BYTES = 120 * 2**30
"""GPU memory that the case needs.

Student, gradient and AdamW's two moments in float32 are 64 GB, the teacher in bfloat16 is 16 GB;
the rest is activations.
"""
TOKENS_PER_S = 6000
"""Goal: response tokens per second."""
SHARE_OF_RATE = 0.45
"""Goal: share of the rate of bare matrix products."""
SIDE = 8192
"""Rows and columns of the matrices that are multiplied."""


def rows(machine: BenchMachine) -> Sequence[BenchCase]:
    """The case, if the GPU has enough memory for it; none otherwise."""
    if torch.cuda.get_device_properties(machine.device).total_memory < ENOUGH_BYTES:
        return []
    workload = Workload(
        shape=QWEN3_4B,
        teacher=QWEN3_8B,
        rollouts=64,
        limit=2048,
        device=machine.device,
        dtype=torch.bfloat16,
        checkpointing=True,
    )
    return [row(workload, machine)]


def row(workload: Workload, machine: BenchMachine) -> BenchCase:
    """The case, with two goals: tokens per second, as seconds, and the share of the matrix rate.

    The share is the inverse of the time ratio to matrix products with the same number of
    operations.
    """
    operations = flops(workload)
    budgets = (16384,) if machine.quick else (8192, 16384, 32768)
    layouts: tuple[Layout, ...] = ("packed", "padded")
    return BenchCase(
        name="opd update, 4B",
        description="an update of distillation of a 4B student with an 8B teacher; layers are "
        "recomputed in backward",
        work=workload.settings() | {"PFLOP": round(operations / 1e15, 3)},
        units=("tokens", float(workload.tokens)),
        subject=Contestant(
            name="reasontrain",
            variants=tuple(
                Variant(
                    settings={"micro_batch_tokens": budget, "layout": layout},
                    setup=partial(_update, workload, operations, budget, layout),
                )
                for layout in layouts
                for budget in budgets
            ),
        ),
        peer=Contestant(
            name=f"products of {SIDE} x {SIDE} matrices",
            variants=(
                Variant(
                    settings={"dtype": "bfloat16"}, setup=partial(_products, workload, operations)
                ),
            ),
        ),
        tolerance=0.0,
        goals=(
            Goal(of="seconds", at_most=workload.tokens / TOKENS_PER_S),
            Goal(of="time", at_most=1 / SHARE_OF_RATE),
        ),
        remark="Operations are counted as in the report of a run (see `reasontrain.plan.flops`), "
        "including recomputation: the trunks at every token, four times for the student (forward, "
        "recomputed forward, two products of backward) and once for the teacher; the heads at "
        "response tokens, three times and once. The peer is bare matrix products with the same "
        "number of operations, so the inverse of the time ratio is the share of the matrix rate.",
        memory=False,
    )


def flops(workload: Workload) -> float:
    """Floating-point operations of the update, as the remark of the case defines them."""
    length_B = workload.batch().length_B
    num_tokens = int(length_B.sum())
    num_pairs = int(
        (length_B * (length_B + 1) // 2).sum()
    )  # pairs of a query and a key that it attends to
    student = 4 * trunk(workload.shape, num_tokens, num_pairs) + head(
        workload.shape, workload.tokens, 3
    )
    return (
        student
        + trunk(workload.teacher, num_tokens, num_pairs)
        + head(workload.teacher, workload.tokens)
    )


@contextmanager
def _update(workload: Workload, operations: float, budget: int, layout: Layout) -> Iterator[Work]:
    with reasontrain_side.update(
        workload, workload.batch, BenchMethod(Distill(), "token_mean"), budget, layout
    ) as work:

        def counted() -> Numbers:
            work()
            return {"operations": operations}

        yield counted


@contextmanager
def _products(workload: Workload, operations: float) -> Iterator[Work]:
    """Products of square matrices with this total number of operations."""
    left, right = (
        torch.randn(SIDE, SIDE, device=workload.device, dtype=workload.dtype) for _ in range(2)
    )
    number = round(operations / (2 * SIDE**3))

    def work() -> Numbers:
        for _ in range(number):
            torch.mm(left, right)
        return {"operations": operations}

    yield work
