"""An update of a 4B student with an 8B teacher on one GPU, beside matrix products of as many
operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch

from reasontrain.algo.objectives import Distill
from reasontrain.bench import reasontrain_side
from reasontrain.bench.case import BenchCase, BenchMachine, Contestant, Goal, Numbers, Variant, Work
from reasontrain.bench.reasontrain_side import Method
from reasontrain.bench.workload import QWEN3_4B, QWEN3_8B, Workload
from reasontrain.data.micro_batches import Layout
from reasontrain.plan.flops import head, trunk

ENOUGH_BYTES = 120 * 2**30
"""Student, gradient and AdamW's two moments in float32 are 64 GB, the teacher in bfloat16 16 GB;
the rest is activations.
"""
TOKENS_PER_S, SHARE_OF_RATE = 6000, 0.45
SIDE = 8192


def rows(place: BenchMachine) -> Sequence[BenchCase]:
    """One row, where the GPU has enough memory; none elsewhere."""
    if torch.cuda.get_device_properties(place.device).total_memory < ENOUGH_BYTES:
        return []
    given = Workload(
        shape=QWEN3_4B,
        teacher=QWEN3_8B,
        rollouts=64,
        limit=2048,
        device=place.device,
        dtype=torch.bfloat16,
        checkpointing=True,
    )
    return [row(given, place)]


def row(given: Workload, place: BenchMachine) -> BenchCase:
    """Tokens per second as seconds, and the share of the matrix rate as the time beside bare
    products of as many operations.
    """
    operations = flops(given)
    budgets = (16384,) if place.quick else (8192, 16384, 32768)
    layouts: tuple[Layout, ...] = ("packed", "padded")
    return BenchCase(
        name="opd update, 4B",
        what="an update of distillation of a 4B student with an 8B teacher, layers recomputed "
        "in backward",
        work=given.settings() | {"PFLOP": round(operations / 1e15, 3)},
        units=("tokens", float(given.tokens)),
        ours=Contestant(
            name="reasontrain",
            ways=tuple(
                Variant(
                    settings={"micro_batch_tokens": budget, "layout": layout},
                    ready=partial(_update, given, operations, budget, layout),
                )
                for layout in layouts
                for budget in budgets
            ),
        ),
        peer=Contestant(
            name=f"products of {SIDE} x {SIDE} matrices",
            ways=(
                Variant(
                    settings={"dtype": "bfloat16"}, ready=partial(_products, given, operations)
                ),
            ),
        ),
        tolerance=0.0,
        goals=(
            Goal(of="seconds", at_most=given.tokens / TOKENS_PER_S),
            Goal(of="time", at_most=1 / SHARE_OF_RATE),
        ),
        remark="Operations are counted as in every run's report (see `reasontrain.plan.flops`), "
        "with those that are done "
        "twice: of the trunks at every token, the student's four times (forward, that "
        "again, two products of backward) and the "
        "teacher's once; of the heads at response tokens, three times and once. The time "
        "is beside bare matrix products of as "
        "many operations: its inverse is the share of the matrix rate.",
        memory=False,
    )


def flops(given: Workload) -> float:
    """As the row's remark defines it."""
    length_B = given.batch().length_B
    every, seen = int(length_B.sum()), int((length_B * (length_B + 1) // 2).sum())
    student = 4 * trunk(given.shape, every, seen) + head(given.shape, given.tokens, 3)
    return student + trunk(given.teacher, every, seen) + head(given.teacher, given.tokens)


@contextmanager
def _update(given: Workload, operations: float, budget: int, layout: Layout) -> Iterator[Work]:
    with reasontrain_side.update(
        given, given.batch, Method(Distill(), "token_mean"), budget, layout
    ) as work:

        def counted() -> Numbers:
            work()
            return {"operations": operations}

        yield counted


@contextmanager
def _products(given: Workload, operations: float) -> Iterator[Work]:
    """As many square products as have these operations."""
    left, right = (
        torch.randn(SIDE, SIDE, device=given.device, dtype=given.dtype) for _ in range(2)
    )
    number = round(operations / (2 * SIDE**3))

    def work() -> Numbers:
        for _ in range(number):
            torch.mm(left, right)
        return {"operations": operations}

    yield work
