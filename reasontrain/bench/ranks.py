"""Two ranks compared with one, at the same work per rank: the cost of communication."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Literal

import torch

from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import Distill
from reasontrain.bench.case import BenchCase, BenchMachine, Contestant, Goal, Numbers, Variant, Work
from reasontrain.bench.workload import LEARNING_RATE, Workload
from reasontrain.learner import distributed
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.policy_module import UnshardedModel
from reasontrain.recipe import LearnSettings, Zero
from reasontrain.types import RunError

Stage = Literal[0, 1, 2, 3]
BUDGET = 512
STAGES: tuple[Stage, ...] = (0, 2, 3)
START_S = 300.0
"""Seconds to wait for a message of a rank; before the first one, it imports DeepSpeed."""
STOP_S = 20.0


def row(workload: Workload, machine: BenchMachine) -> BenchCase:
    """An update of distillation, in which each rank learns from a copy of every rollout.

    Loss and gradient norm therefore equal those of one rank.
    """
    return BenchCase(
        name="two ranks",
        description="an update of distillation by two ranks (gloo) with twice the rollouts, "
        "beside one rank",
        work=workload.settings() | {"micro_batch_tokens": BUDGET, "threads of a rank": 1},
        units=("tokens of a rank", float(workload.tokens)),
        subject=Contestant(name="two ranks", variants=_variants(workload, machine, 2)),
        peer=Contestant(name="one rank", variants=_variants(workload, machine, 1)),
        tolerance=1e-4,
        goals=(Goal(of="time", at_most=1.25),),
        remark="1.25 times the time of one rank for twice the work is 1.6 times the throughput. "
        "It needs two idle cores. Memory "
        "is that of the ranks' processes, and not measured.",
        memory=False,
    )


def _variants(workload: Workload, machine: BenchMachine, num: int) -> tuple[Variant, ...]:
    stages = STAGES[:1] if machine.quick else STAGES
    return tuple(
        Variant(
            settings={"ranks": num, "zero": stage},
            setup=partial(_running_ranks, workload, num, stage),
        )
        for stage in stages
    )


@contextmanager
def _running_ranks(workload: Workload, num: int, stage: Stage) -> Iterator[Work]:
    """The ranks as processes that wait for a message before each step."""
    spawn = multiprocessing.get_context("spawn")
    address = f"127.0.0.1:{distributed.free_port()}"
    pipes: list[Connection] = []
    processes = []
    try:
        for rank in range(num):
            driver_pipe, rank_pipe = spawn.Pipe()
            rank_address = distributed.RankAddress(rank=rank, num_ranks=num, address=address)
            processes.append(
                spawn.Process(
                    target=learn, args=(workload, rank_address, stage, rank_pipe), daemon=True
                )
            )
            processes[-1].start()
            rank_pipe.close()
            pipes.append(driver_pipe)
        for pipe in pipes:
            _answer(pipe)

        def work() -> Numbers:
            for pipe in pipes:
                pipe.send(True)
            first, *_ = [_answer(pipe) for pipe in pipes]
            return first

        yield work
    finally:
        for pipe in pipes:
            with suppress(OSError):  # the rank may have ended already
                pipe.send(False)
        for process in processes:
            process.join(STOP_S)
            process.kill()


def _answer(pipe: Connection) -> dict[str, float]:
    """The next message of a rank; raise RunError if the rank ended or sends none in `START_S`."""
    try:
        if pipe.poll(START_S):
            answer: dict[str, float] = pipe.recv()
            return answer
    except EOFError:
        pass
    raise RunError(f"a rank of the benchmark ended, or did not answer for {START_S:.0f} s")


def learn(
    workload: Workload, rank_address: distributed.RankAddress, stage: Stage, pipe: Connection
) -> None:
    """Run one rank: a learner step per True message, until the message is False.

    Args:
        workload: sizes, models and batch; the same on every rank.
        rank_address: the rank, the number of ranks, and the address of their process group.
        stage: the ZeRO stage.
        pipe: connection to the driver; each step sends its loss, gradient norm and tokens.
    """
    torch.set_num_threads(1)
    distributed.join(rank_address, workload.device)
    settings = LearnSettings(
        lr=LEARNING_RATE,
        rollouts_per_step=workload.rollouts,
        micro_batch_tokens=BUDGET,
        zero=Zero(stage=stage),
    )
    learner = compose_learner(
        workload.policy(), settings, steps=1 << 20, teacher=UnshardedModel(workload.frozen())
    )
    batch = workload.batch(copies=rank_address.num_ranks)
    pipe.send({})
    while pipe.recv():
        stats = learner.step(
            batch, batch.is_response_BT.float(), Distill(), LOSS_AGGREGATIONS["token_mean"]
        )
        tokens_per_rank = batch.totals().response_tokens / rank_address.num_ranks
        pipe.send(
            {
                "loss": stats["loss"],
                "grad_norm": stats["grad_norm"],
                "tokens of a rank": tokens_per_rank,
            }
        )
    distributed.leave()
