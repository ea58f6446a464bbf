"""Memory of one process, by part and by phase; the largest phase decides whether it fits.

State: weights, gradients and AdamW's two moments, with float32 master weights under ZeRO. ZeRO
partitions moments and master weights at stage 1, the gradients too at 2, the weights too at 3
(Rajbhandari et al. 2020, arXiv 1910.02054, figure 1). Activations: `plan.activations`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reasontrain.plan import activations as acts
from reasontrain.plan import engine as engines
from reasontrain.plan import loading
from reasontrain.plan import shape as shapes
from reasontrain.plan.machine import CONTEXT_BYTES, PHASES, STEP_PHASES, MemoryPart, Phase, Place
from reasontrain.plan.roles import FrozenRole, PlannedJob
from reasontrain.plan.vocabulary import chunks, logits_of_sampler
from reasontrain.sampler.local import PREFILL_TOKENS

LIVE_PARAMETERS = 10**9
BUCKET = 5 * 10**8
"""DeepSpeed's defaults.

Parameters gathered at a time under stage 3, and elements of a bucket that is reduced at once.
"""


@dataclass(frozen=True)
class Role:
    """The memory of one process of a role."""

    name: str
    processes: int
    parts: Sequence[MemoryPart]

    def total(self, phase: Phase) -> int:
        """Bytes on the device in this phase."""
        return sum(part.held.get(phase, 0) for part in self.parts if part.place == "device")

    @property
    def phase(self) -> Phase:
        """The phase with the most bytes on the device."""
        return max(PHASES, key=self.total)

    @property
    def peak(self) -> int:
        """Bytes on the device in that phase."""
        return self.total(self.phase)

    @property
    def host(self) -> int:
        """Bytes in main memory, in the phase with the most."""
        held = [part.held for part in self.parts if part.place == "host"]
        return max(sum(part.get(phase, 0) for part in held) for phase in PHASES)


def roles(job: PlannedJob) -> list[Role]:
    """Every role that holds a model."""
    processes = [Role("learner", job.ranks, _present(_learner(job)))]
    if job.cluster.samplers:
        size = job.sampler_bytes * shapes.num_parameters(job.shape)
        weights = MemoryPart("weights", {"load": size, "sample": size})
        engine = job.reserving_engine
        reading = loading.whole(job, job.shape, job.sampler_bytes)
        own = (weights, *reading, *_decoding(job)) if engine is None else engines.alone(job, engine)
        processes.append(Role("sampler", job.cluster.samplers, _present([_context(job), *own])))
    if job.cluster.teachers and job.teacher is not None:
        processes.append(
            Role("teacher", job.cluster.teachers, _present(_teacher(job, job.teacher)))
        )
    return processes


def _present(parts: Iterator[MemoryPart] | Sequence[MemoryPart]) -> list[MemoryPart]:
    return [part for part in parts if part.most]


def _everywhere(size: int) -> dict[Phase, int]:
    return dict.fromkeys(PHASES, size)


def _context(job: PlannedJob) -> MemoryPart:
    return MemoryPart("process", _everywhere(CONTEXT_BYTES if job.on_gpu else 0))


def _learner(job: PlannedJob) -> Iterator[MemoryPart]:
    """All parts that a learner rank holds."""
    yield _context(job)
    yield from loading.learner(job)
    yield from _state(job)
    yield from _frozen_models(job)
    yield from _forward(job)
    if job.samples_here:
        engine = job.reserving_engine
        yield from _decoding(job) if engine is None else engines.colocated(job, engine)


def _state(job: PlannedJob) -> Iterator[MemoryPart]:
    """Weights, gradients and optimiser state, as ZeRO partitions and offloads them."""
    zero = job.zero
    ranks = job.ranks
    wide = job.weight_bytes
    all_weights = wide * job.base + job.trained_bytes * job.trainable
    weights = all_weights
    gradients = job.trained_bytes * job.trainable
    if job.stage >= 3:
        weights = _share(weights, ranks)
    if job.stage >= 2:
        gradients = _share(gradients, ranks)
    yield MemoryPart(
        "weights", _everywhere(weights), _place(zero.offload_parameters if zero else "none")
    )
    if job.stage >= 3:
        gathered = min(all_weights, wide * LIVE_PARAMETERS)
        running: dict[Phase, int] = {"observe": gathered, "loss": gathered, "backward": gathered}
        if job.samples_here:
            running |= {
                "sample": all_weights
                if job.recipe.engine.capabilities.shares_policy
                else wide * shapes.num_table(job.shape)
            }
        yield MemoryPart("weights gathered", running)
    accumulating = gradients if job.work.micro_batches_per_update > 1 else 0
    yield MemoryPart(
        "gradients",
        {
            "loss": accumulating,
            "backward": accumulating,
            "gradients": gradients,
            "update": gradients,
        },
    )
    if zero is not None:
        bucket = min(gradients, job.trained_bytes * BUCKET)
        yield MemoryPart("reduction bucket", {"backward": bucket, "gradients": bucket})
    yield MemoryPart(
        "optimiser",
        dict.fromkeys(STEP_PHASES, optimiser(job)),
        _place(zero.offload_optimizer if zero else "none"),
    )
    yield MemoryPart("optimiser's workspace", {"update": _step_workspace(job)})


def optimiser(job: PlannedJob) -> int:
    """Bytes of a rank's optimiser state: two moments, and master weights if the weights are cast.

    Muon has one moment for each matrix that it updates.
    """
    state = 8 * job.trainable - 4 * job.muon_parameters
    if job.stage >= 1:
        state += 4 * job.trainable  # DeepSpeed clones float32 weights too
    return _share(state, job.ranks) if job.stage >= 1 else state


def _step_workspace(job: PlannedJob) -> int:
    """Bytes of temporary tensors in the optimiser's step.

    The fused AdamW has none. Muon works matrix by matrix, with two temporaries of the largest.
    """
    if not job.muon_parameters:
        return 0
    return 2 * 4 * max(shapes.matrices(job.shape).values())


def _frozen_models(job: PlannedJob) -> Iterator[MemoryPart]:
    """Frozen models on a learner rank, and the teacher's hidden states stored for the step."""
    for model in job.frozen:
        if model is job.teacher and job.cluster.teachers:
            head = model.number_bytes * shapes.num_table(model.shape)
            yield MemoryPart("teacher's head", _everywhere(head))
            continue
        sharded = job.zero is not None and job.zero.frozen == "sharded"
        yield MemoryPart(
            model.role, _everywhere(_share(model.weights, job.ranks) if sharded else model.weights)
        )
        if sharded:
            gathered = min(model.weights, model.number_bytes * LIVE_PARAMETERS)
            yield MemoryPart(f"{model.role} gathered", {"observe": gathered, "loss": gathered})
    if job.teacher is not None and job.observes_teacher:
        states = job.work.rows_per_rank * job.teacher_state_bytes
        yield MemoryPart(
            "teacher's states",
            {
                "observe": states,
                "loss": states,
                "backward": states,
                "gradients": states,
                "update": states,
            },
        )


def _forward(job: PlannedJob) -> Iterator[MemoryPart]:
    """Activations and everything as wide as the vocabulary."""
    shape = job.shape
    mode = job.mode
    work = job.work
    settings = job.recipe.model
    tokens = work.micro_batch_tokens
    rows = work.micro_batch_rows
    layer = layer_bytes(job)
    checkpointing = settings.gradient_checkpointing
    kept = tokens * acts.kept(shape, mode, layer, checkpointing=checkpointing)
    largest = job.weight_bytes * max(shapes.matrices(shape).values()) if job.trainable else 0
    one_layer = tokens * (acts.returning(shape, mode) + (layer if checkpointing else 0)) + largest
    yield MemoryPart("activations", {"loss": kept, "backward": kept})
    yield MemoryPart(
        "one layer's work",
        {"observe": _observing(job), "loss": _teacher_now(job), "backward": one_layer},
    )
    if mode == "autocast":
        linear = 2 * shapes.num_linear(shape)
        trunk = linear * shape.num_layers
        decoding = trunk if job.recipe.engine.capabilities.shares_policy else 0
        cast: dict[Phase, int] = {"observe": trunk, "loss": 0 if checkpointing else trunk}
        yield MemoryPart(
            "weights in bfloat16",
            cast | {"backward": linear if checkpointing else trunk, "sample": decoding},
        )
    yield from _head(job, rows, tokens)


def layer_bytes(job: PlannedJob) -> int:
    """Bytes per token that autograd keeps of one layer of the policy."""
    settings = job.recipe.model
    return acts.per_layer(
        job.shape,
        job.mode,
        eager_length=job.work.length if settings.attention == "eager" else 0,
        lora_rank=settings.lora.rank if settings.lora else 0,
        lora_targets=len(settings.lora.targets) if settings.lora else 0,
    )


def _observing(job: PlannedJob) -> int:
    """Bytes of a forward pass without gradients of the widest model that measures evidence."""
    tokens = job.work.micro_batch_tokens
    widths = [tokens * acts.passing(job.shape, job.mode)] if job.observes_student else []
    widths += [tokens * _passing(model) for model in _looking(job)]
    return max(widths, default=0)


def _looking(job: PlannedJob) -> list[FrozenRole]:
    """Frozen models that run in the learner's process before the loss."""
    teachers = job.teachers if job.observes_teacher and not job.cluster.teachers else ()
    return [*teachers] + [model for model in (job.reference, job.history) if model is not None]


def _teacher_now(job: PlannedJob) -> int:
    """Bytes of the teacher's forward pass at the loss; 0 if evidence needed it before."""
    if (
        job.teacher is None
        or job.observes_teacher
        or job.cluster.teachers
        or not job.recipe.objective.needs_teacher
    ):
        return 0
    return job.work.micro_batch_tokens * max(map(_passing, job.teachers))


def _passing(model: FrozenRole) -> int:
    return acts.passing(model.shape, "float32" if model.number_bytes == 4 else "bfloat16")


def _head(job: PlannedJob, rows: int, tokens: int) -> Iterator[MemoryPart]:
    """Hidden states at the head, the gradients of the head, and the live vocabulary chunk."""
    shape = job.shape
    wide = acts.number(job.mode)
    d = shape.hidden_size
    table = shapes.num_table(shape)
    states = (tokens + rows) * d * wide
    dstates = rows * d * 4
    # The gradient of the kept positions, and of the states of all tokens that it is scattered to.
    spread = (tokens + rows) * d * wide
    yield MemoryPart(
        "states at the head",
        {"observe": states, "loss": states + dstates, "backward": states + dstates + spread},
    )
    if job.trains_head:
        added = 4 * table if shape.tied else 0
        cast = job.weight_bytes * table if job.weight_bytes != 4 else 0
        yield MemoryPart(
            "head's gradient dW",
            {"loss": 4 * table, "backward": 4 * table + cast, "gradients": added},
        )
        yield MemoryPart("embedding's gradient dE", {"gradients": job.weight_bytes * table})
    yield MemoryPart("vocabulary chunks", chunks(job, rows))


def _decoding(job: PlannedJob) -> Iterator[MemoryPart]:
    """The sampler's cache at its largest, and the workspace of one token or prompt.

    One layer of the cache exists twice while sequences are joined.
    """
    work = job.work
    shape = job.shape
    wide = job.sampler_bytes
    columns = work.length
    layer = work.rows_per_sampler * columns * 2 * shapes.width_k(shape) * wide
    yield MemoryPart("key-value cache", {"sample": layer * shape.num_layers})
    yield MemoryPart("cache while rows are joined", {"sample": layer})
    mode: acts.Mode = "float32" if wide == 4 else "bfloat16"
    prefill = min(PREFILL_TOKENS, work.rows_per_sampler * work.prompt_tokens) * acts.passing(
        shape, mode
    )
    yield MemoryPart(
        "decoding",
        {"sample": max(prefill, logits_of_sampler(shape.vocab_size, work.rows_per_sampler))},
    )


def _teacher(job: PlannedJob, teacher: FrozenRole) -> Iterator[MemoryPart]:
    """The parts of a process that holds the teacher only."""
    tokens = job.work.rollouts_per_micro_batch * job.work.length  # whole sequences
    yield _context(job)
    yield MemoryPart("weights", _everywhere(teacher.weights))
    yield from loading.whole(job, teacher.shape, teacher.number_bytes, merged=teacher.merged)
    states = tokens * teacher.shape.hidden_size * teacher.number_bytes
    yield MemoryPart("one layer's work", {"observe": tokens * _passing(teacher)})
    yield MemoryPart("states", {"observe": 2 * states})


def _place(offload: str) -> Place:
    return {"none": "device", "cpu": "host", "nvme": "nvme"}[offload]  # type: ignore[return-value]


def _share(total: int, ranks: int) -> int:
    return -(-total // ranks)
