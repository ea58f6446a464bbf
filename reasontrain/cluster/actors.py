"""Ray actors, one class per role: thin wrappers of the single-process implementations."""

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
from reasontrain.metrics.working import current
from reasontrain.models import Policy
from reasontrain.recipe import EngineSettings, Recipe
from reasontrain.sampler import Sampler
from reasontrain.sampler.factory import SleepingSampler, make_sampler
from reasontrain.sampler.unused import UnusedSampler
from reasontrain.tasks.grading import AnswerFormat, Grader, GradeRequest, Verdict
from reasontrain.tasks.own_reward import Call, Outcome, RewardFile
from reasontrain.types import Batch, EngineLostError, Prompt, Rollout, Stats, Weights
from reasontrain.vocab import Head

logger = logging.getLogger(__name__)

VERSIONS = (
    "reasontrain",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "deepspeed",
    "ray",
    "sympy",
)


R = TypeVar("R")


def work(method: Callable[..., R]) -> Callable[..., R]:
    """Decorate a method so that its seconds count as work; the rest of a step is orchestration.

    A process whose sampler's engine has died ends, so that it is restarted as any that dies.
    """

    @wraps(method)
    def counted(self: Worker, *arguments: object) -> R:
        start = time.perf_counter()
        try:
            return method(self, *arguments)
        except EngineLostError as error:
            logger.error(f"{error}; this process ends with it")
            end_process()
            raise
        finally:
            self.work_s += time.perf_counter() - start

    return counted


def end_process() -> None:
    """End this process at once: what its engine left behind may block an orderly end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


class Worker:
    """Base class of all roles: log file, heartbeat, and facts about the process."""

    work_s = 0.0

    def __init__(self, log: Path) -> None:
        """Redirect what this process prints to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        sys.stdout.flush()
        # File descriptors, not sys.stdout: NCCL, CUDA and vLLM print from C++.
        for stream in (1, 2):
            os.dup2(handle, stream)
        os.close(handle)
        _log_to_stderr()
        models.quiet_libraries()

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def ping(self) -> tuple[str, int] | None:
        """Answer a heartbeat with the work under way and how much of it is done."""
        work = current()
        return None if work is None else (work.what, work.done)

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def facts(self) -> dict[str, str]:
        """Host, address, process id and threads, and the seconds of work so far."""
        about = {
            "host": socket.gethostname(),
            "address": ray.util.get_node_ip_address(),
            "pid": str(os.getpid()),
            "threads": str(torch.get_num_threads()),
        }
        return about | {"work_s": f"{self.work_s:.3f}"}


def _log_to_stderr() -> None:
    """Print the package's log messages with time and level to stderr, which is the log file."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    package = logging.getLogger("reasontrain")
    package.addHandler(handler)
    package.setLevel(logging.INFO)


class SamplingWorker(Worker):
    """Base class of all processes that sample."""

    sampler: Sampler

    @work
    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, num: int, first_id: int
    ) -> tuple[int, list[Rollout]]:
        """Sample with the current weights (see `Sampler`).

        Args:
            prompts: the encoded prompts.
            sampling: temperature, truncation and stop criteria.
            num: rollouts per prompt.
            first_id: the id of the first rollout.

        Returns:
            The version of the weights, and `len(prompts) * num` rollouts. Embeddings of soft
            thoughts are handles to Ray's object store.
        """
        with self.whole():
            return self.sampler.version, stored(
                self.sampler.sample(prompts, sampling, num=num, first_id=first_id)
            )

    def whole(self) -> AbstractContextManager[None]:
        """A block in which this process has the full weights."""
        return nullcontext()


def engine_of(recipe: Recipe, device: torch.device) -> EngineSettings:
    """The recipe's sampler engine for processes with this part of a GPU, or none."""
    assert recipe.cluster is not None, "processes are of a cluster"
    if device.type == "cpu":
        return recipe.engine
    return recipe.engine.on_part_of_gpu(
        recipe.cluster.gpus_per_process, colocated=not recipe.cluster.samplers
    )


def transfer_device(recipe: Recipe, device: torch.device) -> torch.device:
    """The device from and to which weights are broadcast.

    That of the models, except where processes share GPUs: NCCL refuses two ranks on one GPU, so the
    weights pass through main memory.
    """
    assert recipe.cluster is not None, "processes are of a cluster"
    return torch.device("cpu") if recipe.cluster.gpus_per_process < 1 else device


class LearnerRank(SamplingWorker):
    """One rank of the learner.

    Without sampler processes it also samples, with the weights that it trains.
    """

    def __init__(self, log: Path, recipe: Recipe) -> None:
        super().__init__(log)
        self.recipe = recipe
        self.channel: WeightBroadcast | None = None

    def address(self, host: str) -> str:
        """The address, `host:port`, at which rank 0 will listen."""
        return f"{host}:{free_port(host)}"

    def build(self, place: RankAddress, teacher: ray.actor.ActorHandle | None) -> None:
        """Join the other ranks and load the models."""
        recipe = self.recipe
        device = models.device_of(recipe.model.device)
        if recipe.learn.zero is not None:
            join(place, device)
        self.rank = place.rank
        remote = RemoteTeacher(teacher, device) if teacher is not None else None
        self.learner = make_learner(recipe, remote)
        assert recipe.cluster is not None, "ranks are of a cluster"
        if recipe.cluster.samplers:
            return
        if not recipe.samples:
            self.sampler = UnusedSampler()
            return
        with self.whole():  # the sampler tries the model
            self.sampler = make_sampler(
                engine_of(recipe, device),
                recipe.model,
                seed=recipe.seed,
                policy=self.learner.policy,
                colocated=True,
            )

    @work
    def observe(self, batch: Batch, required_evidence: frozenset[str]) -> Batch | None:
        """See `Learner`; only rank 0 returns a batch, with the evidence of all ranks."""
        self._sleep_sampler()
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
        """Learn from a batch of rollouts (see `Learner`).

        Args:
            batch: the rollouts of all ranks.
            weight_BT: the selection's weight of each token.
            objective: the loss of a token, a response or a pair.
            loss_aggregation: divides the sum of losses by totals of an optimiser step.

        Returns:
            The statistics of the step on this rank.
        """
        self._sleep_sampler()
        return self.learner.step(batch, weight_BT, objective, loss_aggregation)

    def steps_done(self) -> int | None:
        """See `Learner`."""
        return self.learner.steps_done

    def matrix_rate(self) -> float:
        """See `Learner`."""
        return self.learner.matrix_rate()

    def attention(self) -> str:
        """See `Learner`."""
        return self.learner.attention()

    def whole(self) -> AbstractContextManager[None]:
        """Gather the weights from all ranks, if the sampler shares them (see `SamplingWorker`)."""
        if self.recipe.engine.capabilities.shares_policy:
            return self.learner.engine.materialize_policy()
        return nullcontext()

    @work
    def load(self) -> None:
        """Load the weights into this rank's own sampler."""
        self.sampler.load(self.learner.weights())

    def slots(self) -> list[Slot]:
        """Names and shapes of the weights, in the order in which `send` sends them."""
        tensors = self.learner.weights().tensors()
        self.sent_slots = [(name, tuple(tensor.shape)) for name, tensor in tensors]
        return self.sent_slots

    def listen(self, host: str, num_samplers: int, timeout_s: float) -> int:
        """Open a broadcast group to the samplers; return its port."""
        device = transfer_device(self.recipe, self.learner.policy.device)
        self.channel = WeightBroadcast(
            host, 0, 0, 1 + num_samplers, device=device, timeout_s=timeout_s
        )
        return self.channel.port

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def cancel_transfer(self) -> None:
        """End the transfer under way, whose `send` then raises TransferAbortedError."""
        if self.channel is not None:
            self.channel.cancel()

    @work
    def send(self) -> TransferChecksum | None:
        """Send the weights: rank 0 broadcasts, all ranks take part in gathering."""
        weights = self.learner.weights()
        dtype = getattr(torch, self.recipe.model.dtype)
        if self.rank == 0:
            assert self.channel is not None, "listen comes first"
            return self.channel.send(weights.version, weights.tensors(), self.sent_slots, dtype)
        for _ in weights.tensors():  # a collective under ZeRO-3, which every rank must join
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
        """Leave the process group before the process ends."""
        leave()

    def _sleep_sampler(self) -> None:
        """Put a colocated engine to sleep, so that the learner has its memory."""
        if (
            self.recipe.cluster is not None
            and not self.recipe.cluster.samplers
            and isinstance(self.sampler, SleepingSampler)
        ):
            self.sampler.sleep()


class SamplerWorker(SamplingWorker):
    """A sampler process with its own copy of the weights."""

    def __init__(self, log: Path, recipe: Recipe) -> None:
        super().__init__(log)
        policy = None
        if recipe.sample is not None and recipe.sample.thought is not None:
            policy = models.load(recipe.model)
            policy.measure_ids_in_use(recipe.task.problems())  # as every learner does
        engine = engine_of(recipe, models.device_of(recipe.model.device))
        sampler = make_sampler(engine, recipe.model, seed=recipe.seed, policy=policy)
        self.sampler = sampler
        self.device = sampler.device
        self.transfer_device = transfer_device(recipe, sampler.device)
        self.dtype: torch.dtype = getattr(torch, recipe.model.dtype)

    def connect(self, host: str, port: int, rank: int, size: int, timeout_s: float) -> None:
        """Join the learner's broadcast group.

        Args:
            host: the host of learner rank 0.
            port: the port of learner rank 0.
            rank: the rank of this process in the group, from 1.
            size: the number of processes in the group.
            timeout_s: limit of the operations of the store at which they meet, in seconds.
        """
        self.channel = WeightBroadcast(
            host, port, rank, size, device=self.transfer_device, timeout_s=timeout_s
        )

    @work
    def receive(self, version: int, slots: Sequence[Slot]) -> TransferChecksum:
        """Replace the weights by those that the learner broadcasts."""
        self.sampler.load(
            Weights(version, lambda: self.channel.receive(version, slots, self.dtype, self.device))
        )
        return self.channel.checksum


class TeacherWorker(Worker):
    """A frozen model that returns hidden states, never logits."""

    def __init__(self, log: Path, recipe: Recipe) -> None:
        super().__init__(log)
        assert recipe.teacher_model, "the recipe refuses teachers where there is none"
        self.policy: Policy = models.load(recipe.teacher_model, layout=recipe.learn.layout)

    def head(self) -> Head:
        """The head on the CPU, of which learner ranks keep a copy."""
        return self.policy.head.to(torch.device("cpu"))

    @torch.no_grad()
    def hidden(
        self,
        ids_RT: Int[Tensor, "R T"],
        position_RT: Int[Tensor, "R T"],
        cu_seq_lens: tuple[int, ...] | None,
        row_N: Int[Tensor, " N"],
    ) -> Float[Tensor, "N D"]:
        """Hidden states at flattened positions of a micro-batch, on the CPU.

        Args:
            ids_RT: token ids.
            position_RT: the position of each token in its rollout.
            cu_seq_lens: where each sequence of a single row begins, and the length of the row.
            row_N: N flattened positions of the R rows of T tokens.

        Returns:
            Hidden states of D numbers.
        """
        device = self.policy.device
        return (
            self.policy.hidden(
                ids_RT.to(device), position=position_RT.to(device), cu_seq_lens=cu_seq_lens
            )
            .flatten(0, 1)[row_N.to(device)]
            .cpu()
        )


class GraderWorker(Worker):
    """A verifier with its own processes."""

    def __init__(self, log: Path) -> None:
        super().__init__(log)
        self.grader = Grader()

    @work
    def grade_many(
        self, requests: Sequence[GradeRequest], answer_format: AnswerFormat
    ) -> list[Verdict]:
        """See `Grader`."""
        return self.grader.grade_many(requests, answer_format=answer_format)

    @work
    def own_rewards(
        self, file: RewardFile, calls: Sequence[Call], stop_at_failure: bool
    ) -> list[Outcome | None]:
        """See `Grader`."""
        return self.grader.own_rewards(file, calls, stop_at_failure=stop_at_failure)
