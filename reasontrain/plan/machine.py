"""Assumed sizes and rates of the machine; a plan prints all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from reasontrain.types import AtLeastOne, Positive, UserError

GIB = 2**30
DEFAULT_PROMPT = 512
DEFAULT_RESPONSE = 1024
"""Tokens of prompts and responses if neither the recipe nor the command line states them."""
CONTEXT_BYTES = GIB
"""GPU memory of a process before it holds a tensor; 0 on a CPU.

It holds CUDA's context, cuBLAS workspaces and NCCL's buffers.
"""

HOST_BYTES = 4 * GIB
"""Main memory of a process on a GPU before it holds a tensor: libraries and CUDA's part there."""

StepPhase = Literal["sample", "observe", "loss", "backward", "gradients", "update"]
STEP_PHASES: tuple[StepPhase, ...] = (
    "sample",
    "observe",
    "loss",
    "backward",
    "gradients",
    "update",
)
Phase = Literal["load"] | StepPhase
PHASES: tuple[Phase, ...] = ("load", *STEP_PHASES)
"""Phases whose memory differs: loading, and those of a step.

- `load`: models are read, before there is an optimiser.
- `sample`: decoding.
- `observe`: evidence, without gradients.
- `loss`: a micro-batch at the head.
- `backward`: the start of its backward pass.
- `gradients`: the end of its backward pass.
- `update`: the optimiser's step.
"""

Place = Literal["device", "host", "nvme"]


@dataclass(frozen=True)
class MemoryPart:
    """One item in memory and its bytes in each phase."""

    name: str
    held: Mapping[Phase, int]
    place: Place = "device"

    @property
    def most(self) -> int:
        """Bytes in its largest phase."""
        return max(self.held.values(), default=0)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Sizes and rates, all stated and none measured.

    `tflops` is the rate that matrix products achieve on one GPU; `intra_gb_s` and `inter_gb_s` are
    the rates at which one GPU sends within its node and to other nodes; `hbm_tb_s` is the rate at
    which decoding reads weights and cache. The defaults are round numbers for H100 nodes with
    NVLink and 400 Gbit/s per GPU.
    """

    memory_gib: Positive = 80.0
    gpus_per_node: AtLeastOne = 8
    tflops: Positive = 400.0
    intra_gb_s: Positive = 300.0
    inter_gb_s: Positive = 50.0
    hbm_tb_s: Positive = 3.3
    prompt_tokens: int | None = None
    response_tokens: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value <= 0:
                raise UserError(f"--{name.replace('_', '-')} must be above 0, got {value}")

    @property
    def memory_bytes(self) -> int:
        """Bytes of one GPU."""
        return int(self.memory_gib * GIB)

    def bandwidth(self, num_ranks: int) -> float:
        """Bytes per second of a collective over `num_ranks` GPUs, limited by its slowest link."""
        return 1e9 * (self.intra_gb_s if num_ranks <= self.gpus_per_node else self.inter_gb_s)
