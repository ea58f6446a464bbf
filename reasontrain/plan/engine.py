"""Memory of a sampler engine that reserves a fixed share of every GPU it runs on."""

from __future__ import annotations

from collections.abc import Iterator

from reasontrain.plan import shape as shapes
from reasontrain.plan.machine import CONTEXT_BYTES, PHASES, MemoryPart, Phase
from reasontrain.plan.roles import PlannedJob
from reasontrain.recipe import EngineSettings
from reasontrain.sampler.vllm_weight_transfer import BUFFER_BYTES


def colocated(job: PlannedJob, engine: EngineSettings) -> Iterator[MemoryPart]:
    """The engine beside a learner rank: while the rank learns, only its CUDA context remains."""
    held: dict[Phase, int] = dict.fromkeys(PHASES, CONTEXT_BYTES)
    yield MemoryPart(part_name(engine), held | {"sample": reserved_bytes(job, engine)})


def alone(job: PlannedJob, engine: EngineSettings) -> Iterator[MemoryPart]:
    """The engine on GPUs of its own: its share, and the buffer that receives new weights.

    The sampler's process fills the buffer, so it lies outside the engine's share.
    """
    yield MemoryPart(part_name(engine), {"sample": reserved_bytes(job, engine)})
    yield MemoryPart(
        "buffer for new weights",
        {"sample": max(BUFFER_BYTES, job.sampler_bytes * shapes.num_table(job.shape))},
    )


def part_name(engine: EngineSettings) -> str:
    """Name of the engine's share in memory tables."""
    return f"{engine.capabilities.label}'s share"


def share(job: PlannedJob, engine: EngineSettings) -> float:
    """The fraction of each GPU that the engine reserves."""
    fraction = engine.gpu_memory_share(colocated=job.samples_here)
    assert fraction is not None, f"{engine.kind} reserves no memory"
    return fraction


def reserved_bytes(job: PlannedJob, engine: EngineSettings) -> int:
    """Bytes that the engine reserves on each GPU.

    An engine whose share cannot hold the weights and one rollout does not start. Its bytes are then
    the whole memory of the smallest GPU on which the share would suffice, which exceeds the planned
    machine's.
    """
    fraction = share(job, engine)
    reserved = int(fraction * job.machine.memory_bytes)
    least = least_bytes(job, engine)
    return reserved if least <= reserved else int(least / fraction)


def least_bytes(job: PlannedJob, engine: EngineSettings) -> int:
    """Bytes per GPU of the weights and of the key-value cache of one rollout."""
    cache = job.work.length * 2 * shapes.width_k(job.shape) * job.shape.num_layers
    return job.sampler_bytes * (shapes.num_parameters(job.shape) + cache) // engine.num_gpus
