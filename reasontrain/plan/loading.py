"""Bytes that are held while models are read, besides the weights that stay.

Weights go to their places tensor by tensor (`models.placement`). One tensor is in main memory, as
it is in the file and in the dtype that it keeps. Under ZeRO stage 3 it is whole on the device
before a rank keeps its part, and embeddings and head are whole while the model is tried. The pages
of weight files that a process maps are shared by the processes of a node and given back when
memory is short, so they are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from reasontrain.models import Shape, adapter_directory
from reasontrain.plan import shape as shapes
from reasontrain.plan.machine import HOST_BYTES, MemoryPart
from reasontrain.plan.roles import PlannedJob

FILE_BYTES = 2
"""Bytes of a number in the files of most models."""
FLOAT32 = 4


def learner(job: PlannedJob) -> Iterator[MemoryPart]:
    """The parts of a learner rank, which reads one model after another."""
    shares_frozen = job.zero is not None and job.zero.frozen == "sharded"
    models = [
        (model.shape, model.number_bytes, shares_frozen, model.merged)
        for model in job.frozen
        if not (model is job.teacher and job.cluster.teachers)
    ]
    merged = adapter_directory(job.recipe.model.path) is not None
    models.append((job.shape, job.weight_bytes, job.stage >= 3, merged))
    on_device = max(
        _trying(shape, wide) if divided else 0 for shape, wide, divided, merged in models
    )
    on_device = max(
        [on_device, *(FLOAT32 * shapes.num_parameters(s) for s, _, _, merged in models if merged)]
    )
    yield from _reading(job, on_device, max(_tensor(shape, wide) for shape, wide, _, _ in models))


def whole(
    job: PlannedJob, shape: Shape, number_bytes: int, *, merged: bool = False
) -> Iterator[MemoryPart]:
    """The parts of a process that reads one model, whole.

    Args:
        job: the recipe and the machine.
        shape: sizes of the model.
        number_bytes: bytes of a number as it is kept.
        merged: True if it is an adapter, merged in float32.
    """
    on_device = FLOAT32 * shapes.num_parameters(shape) if merged else 0
    yield from _reading(job, on_device, _tensor(shape, number_bytes))


def _reading(job: PlannedJob, on_device: int, tensor: int) -> Iterator[MemoryPart]:
    """Temporary bytes on the device, and the tensor that is read."""
    if not job.on_gpu:
        yield MemoryPart("weights while they are read", {"load": on_device + tensor})
        return
    yield MemoryPart("weights while they are read", {"load": on_device})
    yield MemoryPart("process and tensor that is read", {"load": HOST_BYTES + tensor}, "host")


def _tensor(shape: Shape, number_bytes: int) -> int:
    """Bytes of the largest tensor, from the file and as it is kept."""
    return (FILE_BYTES + number_bytes) * _largest(shape)


def _trying(shape: Shape, number_bytes: int) -> int:
    """Bytes of what is whole on every rank while a divided model is read and tried."""
    ends = shapes.num_table(shape) * (1 if shape.tied else 2)
    return number_bytes * max(_largest(shape), ends + max(shapes.matrices(shape).values()))


def _largest(shape: Shape) -> int:
    """Numbers of the largest tensor."""
    return max(shapes.num_table(shape), *shapes.matrices(shape).values())
