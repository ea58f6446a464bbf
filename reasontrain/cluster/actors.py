"""What runs in Ray's processes: one class per role, a thin shell around the same learner, sampler
or grader as in one process.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from pathlib import Path
from typing import TypeVar

import ray
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain import models
from reasontrain.algo.objectives import Objective
from reasontrain.cluster.object_store import stored
from reasontrain.cluster.remote_teacher import RemoteTeacher
from reasontrain.cluster.weight_transfer import Slot, TransferChecksum, WeightBroadcast
from reasontrain.data.sampling import Sampling
from reasontrain.learner import LossAggregationFn
from reasontrain.learner.distributed import RankAddress, free_port, join, leave
from reasontrain.learner.factory import make_learner
from reasontrain.models import Policy
from reasontrain.recipe import Recipe, VllmEngine
from reasontrain.sampler import Sampler
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.vllm import VllmSampler
from reasontrain.tasks.grading import Grader, Verdict
from reasontrain.types import Batch, Prompt, Rollout, Stats, Weights
from reasontrain.vocab import Head

VERSIONS = (
    "reasontrain",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "deepspeed",
    "ray",
    "math-verify",
)


R = TypeVar("R")


def work(method: Callable[..., R]) -> Callable[..., R]:
    """Count the seconds in this method as work: what is left of a step is orchestration."""

    @wraps(method)
    def counted(self: Worker, *arguments: object) -> R:
        start = time.perf_counter()
        try:
            return method(self, *arguments)
        finally:
            self.work_s += time.perf_counter() - start

    return counted


class Worker:
    """What every role has: a log of its own, a sign of life, and facts about where it runs."""

    work_s = 0.0

    def __init__(self, log: Path) -> None:
        """What this process prints from now on goes to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        sys.stdout.flush()
        for stream in (1, 2):
            os.dup2(handle, stream)
        os.close(handle)
        _log_to_stderr()
        models.quiet_libraries()

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def ping(self) -> None:
        """Answers while there is life in the process."""

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def facts(self) -> dict[str, str]:
        """Host, address and process id, and how long it worked until now, in seconds."""
        about = {
            "host": socket.gethostname(),
            "address": ray.util.get_node_ip_address(),
            "pid": str(os.getpid()),
        }
        return about | {"work_s": f"{self.work_s:.3f}"}


def _log_to_stderr() -> None:
    """Let the package's messages of this process reach its log, with time and level."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package = logging.getLogger("reasontrain")
    package.addHandler(handler)
    package.setLevel(logging.INFO)


class SamplingWorker(Worker):
    """What both kinds of samplers have."""

    sampler: Sampler

    @work
    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, num: int, first_id: int
    ) -> tuple[int, list[Rollout]]:
        """The version of the weights, and rollouts by them."""
        with self.whole():
            return self.sampler.version, stored(
                self.sampler.sample(prompts, sampling, num=num, first_id=first_id)
            )

    def whole(self) -> AbstractContextManager[None]:
        """A block in which the weights are whole in this process."""
        return nullcontext()


class LearnerRank(SamplingWorker):
    """One rank of the learner; where there are no sampler processes, it samples with the weights
    that it trains.
    """

    def __init__(self, log: Path, recipe: Recipe) -> None:
        super().__init__(log)
        self.recipe = recipe

    def address(self, host: str) -> str:
        """Where rank 0 will listen."""
        return f"{host}:{free_port(host)}"

    def build(self, place: RankAddress, teacher: ray.actor.ActorHandle | None) -> None:
        """Join the other ranks and load the models."""
        recipe = self.recipe
        if recipe.learn.zero is not None:
            join(place)
        self.rank = place.rank
        remote = RemoteTeacher(teacher) if teacher is not None else None
        self.learner = make_learner(recipe, remote)
        engine = recipe.engine
        assert recipe.cluster is not None, "ranks are of a cluster"
        if recipe.cluster.samplers:
            return
        if isinstance(engine, VllmEngine):
            self.sampler = VllmSampler(recipe.model, engine, seed=recipe.seed, colocated=True)
        else:
            self.sampler = LocalSampler(
                self.learner.policy,
                seed=recipe.seed,
                max_num_seqs=engine.max_num_seqs,
                shared=True,
                cuda_graphs=engine.cuda_graphs,
            )

    @work
    def observe(self, batch: Batch, required_evidence: frozenset[str]) -> Batch | None:
        """See `Learner`; rank 0 alone answers, with the evidence of all ranks."""
        self._rest()
        seen = self.learner.observe(batch, required_evidence)
        return seen if self.rank == 0 else None

    @work
    def step(
        self,
        batch: Batch,
        weight_BT: Float[Tensor, "B T"],
        objective: Objective,
        loss_aggregation: LossAggregationFn,
    ) -> Stats:
        """See `Learner`."""
        self._rest()
        return self.learner.step(batch, weight_BT, objective, loss_aggregation)

    def matrix_rate(self) -> float:
        """See `Learner`."""
        return self.learner.matrix_rate()

    def whole(self) -> AbstractContextManager[None]:
        """Gathered from all ranks, for a sampler that uses the weights as they are."""
        if isinstance(self.sampler, LocalSampler):
            return self.learner.engine.materialize_policy()
        return nullcontext()

    @work
    def load(self) -> None:
        """Let this rank's own sampler have the weights."""
        self.sampler.load(self.learner.weights())

    def slots(self) -> list[Slot]:
        """Names and shapes of the weights."""
        return [(name, tuple(tensor.shape)) for name, tensor in self.learner.weights().tensors()]

    def listen(self, host: str, num_samplers: int, timeout_s: float) -> int:
        """Open a new line to samplers; its port."""
        self.channel = WeightBroadcast(host, 0, 0, 1 + num_samplers, timeout_s)
        return self.channel.port

    @work
    def send(self) -> TransferChecksum | None:
        """Send the weights: rank 0 speaks, the others help to gather."""
        weights, dtype = self.learner.weights(), getattr(torch, self.recipe.model.dtype)
        if self.rank == 0:
            self.channel.connect(self.learner.policy.device)
            return self.channel.send(weights.version, weights.tensors(), dtype)
        for _ in weights.tensors():
            pass
        return None

    def save(self, directory: Path) -> None:
        """See `Learner`."""
        self.learner.save(directory)

    def restore(self, directory: Path) -> None:
        """See `Learner`."""
        self.learner.restore(directory)

    def export(self, directory: Path) -> None:
        """See `Learner`."""
        self.learner.export(directory)

    def leave(self) -> None:
        """Part from the other ranks before the process ends."""
        leave()

    def _rest(self) -> None:
        """Give a colocated engine's memory to the learner."""
        if (
            self.recipe.cluster is not None
            and not self.recipe.cluster.samplers
            and isinstance(self.sampler, VllmSampler)
        ):
            self.sampler.sleep()


class SamplerWorker(SamplingWorker):
    """A sampler with weights of its own."""

    def __init__(self, log: Path, recipe: Recipe) -> None:
        super().__init__(log)
        engine = recipe.engine
        if isinstance(engine, VllmEngine):
            self.sampler = VllmSampler(recipe.model, engine, seed=recipe.seed)
            self.device = torch.device("cuda", 0)
        else:
            policy = models.load(recipe.model)
            self.sampler = LocalSampler(
                policy,
                seed=recipe.seed,
                max_num_seqs=engine.max_num_seqs,
                cuda_graphs=engine.cuda_graphs,
            )
            self.device = policy.device
        self.dtype: torch.dtype = getattr(torch, recipe.model.dtype)

    def connect(self, host: str, port: int, rank: int, size: int, timeout_s: float) -> None:
        """Take the other end of the learner's line."""
        self.channel = WeightBroadcast(host, port, rank, size, timeout_s)

    @work
    def receive(self, version: int, slots: Sequence[Slot]) -> TransferChecksum:
        """Replace the weights by what comes over the line."""
        self.channel.connect(self.device)
        self.sampler.load(
            Weights(version, lambda: self.channel.receive(version, slots, self.dtype, self.device))
        )
        return self.channel.receipt


class TeacherWorker(Worker):
    """A frozen model that answers with hidden states, never with logits."""

    def __init__(self, log: Path, recipe: Recipe) -> None:
        super().__init__(log)
        assert recipe.teacher is not None, "the recipe refuses teachers where there is none"
        self.policy: Policy = models.load(recipe.teacher)

    def head(self) -> Head:
        """The head, for learner ranks to keep."""
        return self.policy.head.to(torch.device("cpu"))

    @torch.no_grad()
    def hidden(
        self, ids_RT: Int[Tensor, "R T"], position_RT: Int[Tensor, "R T"], row_N: Int[Tensor, " N"]
    ) -> Float[Tensor, "N D"]:
        """Hidden states at flat rows."""
        device = self.policy.device
        return (
            self.policy.hidden(ids_RT.to(device), position=position_RT.to(device))
            .flatten(0, 1)[row_N.to(device)]
            .cpu()
        )


class GraderWorker(Worker):
    """A verifier with its own processes."""

    def __init__(self, log: Path) -> None:
        super().__init__(log)
        self.grader = Grader()

    @work
    def grade_many(self, pairs: Sequence[tuple[str, str]], last_number: bool) -> list[Verdict]:
        """See `Grader`."""
        return self.grader.grade_many(pairs, last_number=last_number)
