"""What a recipe says about size: how many processes of each role, and how DeepSpeed divides the
state of the learner's ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from reasontrain.types import AtLeastOne, NotNegative, Positive

Offload = Literal["none", "cpu", "nvme"]


@dataclass(frozen=True, kw_only=True)
class Zero:
    """DeepSpeed's ZeRO (Rajbhandari et al. 2020): what the learner's ranks divide among them
    instead of holding it each.

    Stage 0 divides nothing, 1 the optimiser's state, 2 the gradients too, 3 the weights too.
    `offload_*` moves a rank's part to main memory or to files under `nvme_path`. `frozen` says how
    a teacher or a reference lies: whole on every rank, or sharded over them and gathered layer by
    layer. At stage 3, tensors of fewer than `persist_below` numbers stay whole on every rank.
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
    """Processes of each role, run by Ray; a recipe without this section runs in one process,
    without Ray.

    `learners` ranks learn together; `samplers`, `teachers` and `graders` are processes of their
    own, and 0 of them means that the learner ranks sample with the very weights they train and hold
    the teacher, and that the driver grades. Every process takes `cpus` cores, and one GPU unless it
    grades or `model.device` says cpu; a sampler with vLLM takes `tensor_parallel_size` GPUs.
    `overlap: 1` samples the next batch while this one is learned from, one step behind. A remote
    call that takes longer than `deadline_s`, or a process that is silent for `heartbeat_s`, ends
    the wait; dead processes are started again, `max_restarts` times in all. Where samplers have
    weights of their own, trainer and sampler score one rollout every `canary_every` steps (0:
    never).
    """

    learners: AtLeastOne = 1
    samplers: Annotated[int, Ge(0)] = 0
    teachers: Annotated[int, Ge(0)] = 0
    graders: Annotated[int, Ge(0)] = 0
    cpus: Annotated[float, Ge(0)] = 1.0
    placement: Literal["pack", "spread"] = "pack"
    overlap: Literal[0, 1] = 0
    max_restarts: Annotated[int, Ge(0)] = 3
    deadline_s: Positive = 3600.0
    heartbeat_s: Positive = 60.0
    canary_every: Annotated[int, Ge(0)] = 1
    canary_gap: NotNegative = 0.01
