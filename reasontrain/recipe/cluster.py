"""Cluster settings: processes of each role, and DeepSpeed's partitioning of the learner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from reasontrain.types import AtLeastOne, NotNegative, Positive, Ratio

Offload = Literal["none", "cpu", "nvme"]


@dataclass(frozen=True, kw_only=True)
class Zero:
    """DeepSpeed's ZeRO (Rajbhandari et al. 2020): partitioning of the learner's state over ranks.

    Attributes:
        stage: 0 partitions nothing, 1 the optimiser's state, 2 the gradients too, 3 the weights
            too.
        offload_optimizer: where a rank's optimiser state is stored; nvme is files under
            `nvme_path`.
        offload_parameters: where a rank's weights are stored, at stage 3.
        nvme_path: directory for offload to nvme.
        frozen: a teacher or a reference is whole on every rank, or sharded over the ranks and
            gathered layer by layer.
        persist_below: at stage 3, tensors with fewer elements stay whole on every rank.
    """

    stage: Literal[0, 1, 2, 3] = 3
    offload_optimizer: Offload = "none"
    offload_parameters: Offload = "none"
    nvme_path: str | None = None
    frozen: Literal["whole", "sharded"] = "whole"
    persist_below: Annotated[int, Ge(0)] = 100_000

    def __post_init__(self) -> None:
        if self.offload_optimizer != "none" and self.stage == 0:
            raise ValueError(
                "offload_optimizer needs stage 1, 2 or 3: at stage 0 nothing of the "
                "optimiser is divided"
            )
        if self.offload_parameters != "none" and self.stage != 3:
            raise ValueError(
                "offload_parameters needs stage 3, which is where ranks hold parts of the weights"
            )
        if "nvme" in (self.offload_optimizer, self.offload_parameters):
            if self.nvme_path is None:
                raise ValueError("offload to nvme needs an `nvme_path`")
            if self.stage != 3:
                raise ValueError("offload to nvme needs stage 3")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Processes of each role, run by Ray; without this section, one process without Ray.

    Attributes:
        learners: learner ranks.
        samplers: sampler processes; 0: the learner ranks sample with the weights they train.
        teachers: teacher processes; 0: the learner ranks hold the teacher.
        graders: grader processes; 0: the driver grades.
        cpus: cores that each process reserves, and the number of its threads. By default it
            reserves one and has the threads of its share of the node: of the node's cores per GPU,
            or without GPUs of its cores per process of the run. The driver's OMP_NUM_THREADS, if
            set, is the number of threads of every process. Each process also takes
            `gpus_per_process` GPUs, unless it grades or `model.device` is cpu; a sampler with vLLM
            takes `tensor_parallel_size` GPUs.
        gpus_per_process: the part of a GPU that a process reserves; below 1, processes share GPUs,
            with one learner rank and `tensor_parallel_size` 1. By default vLLM takes that part of
            the memory it would take, and weights reach the samplers through main memory.
        placement: fill one node after the other, or spread the processes.
        overlap: 1 samples the next batch while this one is learned from, one step behind.
        wait_s: longest wait for resources that other jobs of the cluster hold, in seconds.
        max_restarts: number of restarts of dead processes, in total.
        deadline_s: longest remote call, in seconds.
        heartbeat_s: longest silence of a process, in seconds.
        transfer_s: longest time until the samplers confirm a part of the weights (512 MB), in
            seconds. A sampler that does not is restarted, and the learner goes on.
        canary_every: interval in steps at which trainer and sampler score the same rollouts, unless
            they share their weights; 0: never.
        canary_gap: largest allowed mean difference of their log-probs, in nats.
        canary_ratio: largest allowed mean difference as a multiple of the one at the first step.
    """

    learners: AtLeastOne = 1
    samplers: Annotated[int, Ge(0)] = 0
    teachers: Annotated[int, Ge(0)] = 0
    graders: Annotated[int, Ge(0)] = 0
    cpus: Annotated[float, Ge(0)] | None = None
    gpus_per_process: Ratio = 1.0
    placement: Literal["pack", "spread"] = "pack"
    overlap: Literal[0, 1] = 0
    wait_s: NotNegative = 86400.0
    max_restarts: Annotated[int, Ge(0)] = 3
    deadline_s: Positive = 3600.0
    heartbeat_s: Positive = 60.0
    transfer_s: Positive = 300.0
    canary_every: Annotated[int, Ge(0)] = 1
    canary_gap: NotNegative = 0.2
    canary_ratio: Annotated[float, Ge(1)] = 5.0

    @property
    def reserved_cpus(self) -> float:
        """Cores that each process reserves."""
        return 1.0 if self.cpus is None else self.cpus
