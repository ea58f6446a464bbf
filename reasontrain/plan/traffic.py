"""Bytes sent between processes in one step.

With ring algorithms, a gather or a reduce-scatter sends (N - 1) / N of a buffer through every rank,
and an all-reduce twice that (Patarasuk and Yuan 2009). ZeRO 0 and 1 send two such volumes of the
model per optimiser step; ZeRO 2 and 3 scatter gradients once for each micro-batch; ZeRO 2 gathers
weights after the update, ZeRO 3 for every forward and every backward (arXiv 1910.02054, section 7).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from reasontrain.plan import shape as shapes
from reasontrain.plan.activations import number
from reasontrain.plan.roles import FrozenRole, PlannedJob

ID_BYTES = 8
LOGP_BYTES = 4


@dataclass(frozen=True)
class Flow:
    """Bytes of one step, sent through each learner rank or in total through Ray's object store."""

    name: str
    size: int
    through: Literal["each rank", "object store"]


def flows(job: PlannedJob) -> list[Flow]:
    """All transfers of a step; none if there is only one process."""
    return [flow for flow in (*_collectives(job), *_objects(job)) if flow.size]


def collective_bytes(job: PlannedJob) -> int:
    """Bytes through the link of one rank."""
    return sum(flow.size for flow in _collectives(job))


def _collectives(job: PlannedJob) -> Iterator[Flow]:
    """Transfers between learner ranks."""
    ring = (job.ranks - 1) / job.ranks
    gradients = ring * job.weight_bytes * job.trainable
    weights = ring * job.weight_bytes * (job.trainable + job.base)
    micro = job.work.micro_batches_per_rank
    updates = job.recipe.learn.updates_per_batch
    if job.work.sequence_parallel > 1:
        yield Flow("positions exchanged for heads", _exchanged(job), "each rank")
    if job.stage < 2:
        times = "once" if updates == 1 else f"{updates} times"
        yield Flow(f"gradients, reduced {times}", int(2 * gradients * updates), "each rank")
        return
    learned = micro * job.recipe.learn.epochs_per_batch
    yield Flow(
        f"gradients, scattered for {learned} micro-batches", int(gradients * learned), "each rank"
    )
    if job.stage == 2:
        name = "the update" if updates == 1 else f"each of {updates} updates"
        yield Flow(f"weights, gathered after {name}", int(weights * updates), "each rank")
        return
    passes = 2 * learned + micro * job.passes + (1 if job.samples_here else 0)
    yield Flow(f"weights, gathered {passes} times", int(weights * passes), "each rank")
    for model in job.frozen:
        if job.zero is not None and job.zero.frozen == "sharded":
            yield Flow(
                f"{model.role}, gathered {micro} times",
                int(ring * model.weights * micro),
                "each rank",
            )


def _exchanged(job: PlannedJob) -> int:
    """Bytes of the exchanges around attention, by which ranks share sequences.

    Queries, keys, values and the output of every layer, in each forward and each backward; of what
    a rank holds, a part of 1 / `sequence_parallel` stays.
    """
    work = job.work
    size = work.sequence_parallel
    learned = 3 if job.recipe.model.gradient_checkpointing else 2
    passes = job.recipe.learn.epochs_per_batch * learned + job.passes
    runs = [(job.shape, number(job.mode), passes)]
    runs += [
        (model.shape, model.number_bytes, 1)
        for model in job.frozen
        if model is not job.teacher or not job.cluster.teachers
    ]
    per_token = 0
    for shape, wide, times in runs:
        keys = max(shapes.width_k(shape), size * shape.head_dim)  # copied if there are fewer heads
        per_token += times * shape.num_layers * wide * 2 * (shapes.width_q(shape) + keys)
    return work.tokens_per_rank * per_token * (size - 1) // size


def _objects(job: PlannedJob) -> Iterator[Flow]:
    """Transfers through Ray's object store."""
    if job.recipe.cluster is None:
        return
    work = job.work
    if job.cluster.samplers:
        size = job.sampler_bytes * shapes.num_parameters(job.shape)
        yield Flow(
            f"weights to {job.cluster.samplers} samplers",
            size * job.cluster.samplers,
            "object store",
        )
    if job.recipe.sample is not None:
        size = work.rollouts * (work.length * ID_BYTES + work.response_tokens * LOGP_BYTES)
        yield Flow("rollouts", size, "object store")
    if job.cluster.teachers and job.teacher is not None:
        yield Flow("teacher's states", _states(job, job.teacher), "object store")


def _states(job: PlannedJob, teacher: FrozenRole) -> int:
    """Bytes of the teacher's hidden states at all response tokens."""
    return (
        job.work.rollouts
        * job.work.response_tokens
        * teacher.shape.hidden_size
        * teacher.number_bytes
    )
