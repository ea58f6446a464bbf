"""Memory of a vLLM engine: the share of each GPU that it reserves, however much of it is used."""

from __future__ import annotations

from collections.abc import Iterator

from reasontrain.plan import shape as shapes
from reasontrain.plan.machine import CONTEXT_BYTES, PHASES, MemoryPart, Phase
from reasontrain.plan.roles import PlannedJob
from reasontrain.recipe import VllmEngine
from reasontrain.sampler.vllm_engine import ALONE, SHARED
from reasontrain.sampler.vllm_weight_transfer import BUFFER_BYTES

NAME = "vLLM's share"


def colocated(job: PlannedJob, engine: VllmEngine) -> Iterator[MemoryPart]:
    """Beside a learner rank: asleep while the rank learns, except for the CUDA context."""
    held: dict[Phase, int] = dict.fromkeys(PHASES, CONTEXT_BYTES)
    yield MemoryPart(NAME, held | {"sample": taken(job, engine)})


def alone(job: PlannedJob, engine: VllmEngine) -> Iterator[MemoryPart]:
    """On GPUs of its own: the share, and the buffer that weights come in, which the sampler's
    process fills.
    """
    yield MemoryPart(NAME, {"sample": taken(job, engine)})
    yield MemoryPart(
        "buffer for new weights",
        {"sample": max(BUFFER_BYTES, job.sampler_bytes * shapes.num_table(job.shape))},
    )


def share(job: PlannedJob, engine: VllmEngine) -> float:
    """The share of each GPU."""
    return engine.gpu_memory_utilization or (SHARED if job.samples_here else ALONE)


def taken(job: PlannedJob, engine: VllmEngine) -> int:
    """Bytes of each GPU.

    An engine whose share cannot hold the weights and one rollout does not start. It counts as the
    whole of the smallest GPU on which that share would be enough, so that it never fits.
    """
    part = share(job, engine)
    reserved = int(part * job.machine.memory_bytes)
    least = least_bytes(job, engine)
    return reserved if least <= reserved else int(least / part)


def least_bytes(job: PlannedJob, engine: VllmEngine) -> int:
    """The weights and the keys and values of one rollout, divided among the engine's GPUs."""
    cache = job.work.length * 2 * shapes.width_k(job.shape) * job.shape.num_layers
    return (
        job.sampler_bytes
        * (shapes.num_parameters(job.shape) + cache)
        // engine.tensor_parallel_size
    )
