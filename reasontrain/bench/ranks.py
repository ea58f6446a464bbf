"""Two ranks beside one, with the same work for each: what it costs that they talk."""

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
START_S, STOP_S = 300.0, 20.0


def row(given: Workload, place: BenchMachine) -> BenchCase:
    """An update of distillation; two ranks learn from every rollout twice, once each, so that loss
    and norm are those of one.
    """
    return BenchCase(
        name="two ranks",
        what="an update of distillation by two ranks (gloo) with twice the rollouts, beside one "
        "rank",
        work=given.settings() | {"micro_batch_tokens": BUDGET, "threads of a rank": 1},
        units=("tokens of a rank", float(given.tokens)),
        ours=Contestant(name="two ranks", ways=_ways(given, place, 2)),
        peer=Contestant(name="one rank", ways=_ways(given, place, 1)),
        tolerance=1e-4,
        goals=(Goal(of="time", at_most=1.25),),
        remark="1.25 times the time of one rank for twice the work is 1.6 times the throughput. "
        "It needs two idle cores. Memory "
        "is that of the ranks' processes, and not measured.",
        memory=False,
    )


def _ways(given: Workload, place: BenchMachine, num: int) -> tuple[Variant, ...]:
    stages = STAGES[:1] if place.quick else STAGES
    return tuple(
        Variant(settings={"ranks": num, "zero": stage}, ready=partial(_started, given, num, stage))
        for stage in stages
    )


@contextmanager
def _started(given: Workload, num: int, stage: Stage) -> Iterator[Work]:
    """Processes of their own that learn when they are told to."""
    spawn = multiprocessing.get_context("spawn")
    address = f"127.0.0.1:{distributed.free_port()}"
    pipes, processes = [], []
    try:
        for rank in range(num):
            here, there = spawn.Pipe()
            place = distributed.RankAddress(rank=rank, num_ranks=num, address=address)
            processes.append(
                spawn.Process(target=learn, args=(given, place, stage, there), daemon=True)
            )
            processes[-1].start()
            there.close()
            pipes.append(here)
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
            with suppress(OSError):  # a rank that is gone need not be told
                pipe.send(False)
        for process in processes:
            process.join(STOP_S)
            process.kill()


def _answer(pipe: Connection) -> dict[str, float]:
    """What a rank says; RunError where it is silent or gone."""
    try:
        if pipe.poll(START_S):
            found: dict[str, float] = pipe.recv()
            return found
    except EOFError:
        pass
    raise RunError(f"a rank of the benchmark ended, or said nothing for {START_S:.0f} s")


def learn(given: Workload, place: distributed.RankAddress, stage: Stage, pipe: Connection) -> None:
    """One rank: a step each time it is told, and what it found."""
    torch.set_num_threads(1)
    distributed.join(place)
    settings = LearnSettings(
        lr=LEARNING_RATE,
        rollouts_per_step=given.rollouts,
        micro_batch_tokens=BUDGET,
        zero=Zero(stage=stage),
    )
    learner = compose_learner(
        given.policy(), settings, steps=1 << 20, teacher=UnshardedModel(given.frozen())
    )
    batch = given.batch(copies=place.num_ranks)
    pipe.send({})
    while pipe.recv():
        stats = learner.step(
            batch, batch.is_response_BT.float(), Distill(), LOSS_AGGREGATIONS["token_mean"]
        )
        share = batch.totals().response_tokens / place.num_ranks
        pipe.send(
            {"loss": stats["loss"], "grad_norm": stats["grad_norm"], "tokens of a rank": share}
        )
    distributed.leave()
