"""Step time on 1, 2, 4, ... GPUs from stated rates, and the useful number of GPUs.

A dense forward costs 2 operations per parameter and token, a backward twice that (Kaplan et al.
2020, arXiv 2001.08361), and causal attention adds 2 x width x length per token and layer. For every
token of a wave, decoding reads all weights or is bound by its products, whichever takes longer, and
reads the cache so far (Pope et al. 2022, arXiv 2211.05102), at `DECODE_EFFICIENCY` of the memory's
peak rate; it takes at least as long as its kernels take to be started. No overlap is assumed, so
the time is an upper bound for the stated rates. Every GPU is a learner rank that also samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from reasontrain.models import Shape
from reasontrain.plan import shape as shapes
from reasontrain.plan.flops import head, trunk
from reasontrain.plan.memory import roles
from reasontrain.plan.roles import FrozenRole, PlannedJob
from reasontrain.plan.traffic import collective_bytes

GPUS = tuple(2**power for power in range(11))
WORTH = 0.5
"""Lowest useful efficiency: below it, each GPU is idle for more than half of the time."""
DECODE_EFFICIENCY = 0.6
"""Share of the memory's peak rate at which decoding reads weights and cache: an assumption."""
GRAPH_KERNEL_S = 2e-6
EAGER_KERNEL_S = 6e-6
"""Least seconds of a kernel, replayed from a CUDA graph or started by Python: assumptions."""
UPDATE_BYTES = 28
"""Bytes of AdamW per parameter: it reads four float32 numbers and writes three of them."""


@dataclass(frozen=True)
class Prediction:
    """A step on `gpus` GPUs; `efficiency` is the speed-up over one GPU, divided by `gpus`."""

    gpus: int
    sampling_s: float
    evidence_s: float
    learning_s: float
    communication_s: float
    efficiency: float
    memory_bytes: int

    @property
    def step_s(self) -> float:
        """Seconds of the whole step."""
        return self.sampling_s + self.evidence_s + self.learning_s + self.communication_s


def predictions(job: PlannedJob) -> list[Prediction]:
    """The prediction for each number of GPUs in `GPUS`, up to one rollout for each GPU."""
    steps: list[Prediction] = []
    for gpus in (gpus for gpus in GPUS if gpus <= job.work.rollouts):
        prediction = predict(_on(job, gpus), gpus)
        alone = steps[0].step_s if steps else prediction.step_s
        steps.append(replace(prediction, efficiency=alone / prediction.step_s / gpus))
    return steps


def stops_at(steps: list[Prediction]) -> int | None:
    """The smallest number of GPUs with an efficiency below `WORTH`; None if there is none."""
    return next((prediction.gpus for prediction in steps if prediction.efficiency < WORTH), None)


def _on(job: PlannedJob, gpus: int) -> PlannedJob:
    """The same job with this many learner ranks and no other processes."""
    cluster = replace(job.cluster, learners=gpus, samplers=0, teachers=0, overlap=0)
    sample = job.recipe.sample
    if sample is not None and job.reserving_engine is not None and job.cluster.samplers:
        # the settings were those of an engine that has its GPUs to itself
        sample = replace(sample, engine=sample.engine.on_one_gpu())
    # Groups that share sequences are as large as this number of ranks allows.
    size = math.gcd(job.recipe.learn.sequence_parallel, gpus)
    learn = replace(job.recipe.learn, sequence_parallel=size)
    return replace(job, recipe=replace(job.recipe, cluster=cluster, sample=sample, learn=learn))


def predict(job: PlannedJob, gpus: int) -> Prediction:
    """The step of a recipe on its own processes.

    Args:
        job: the recipe, with the sizes of its models and the rates of the machine.
        gpus: learner ranks.

    Returns:
        Seconds by part; an efficiency of 1, which takes several predictions to know.
    """
    machine = job.machine
    learn = job.recipe.learn
    work = job.work
    rate = 1e12 * machine.tflops
    update = (
        UPDATE_BYTES * job.trainable / (gpus if job.stage >= 1 else 1) / (1e12 * machine.hbm_tb_s)
    )
    processes = job.cluster.samplers or gpus
    return Prediction(
        gpus=gpus,
        sampling_s=sampling_s(
            job,
            rollouts=-(-work.rollouts // processes),
            prompts=-(-work.prompts // processes),
            rows=work.rows_per_sampler,
            response_tokens=work.response_tokens,
        )
        if job.recipe.sample
        else 0.0,
        evidence_s=_evidence(job) / rate,
        learning_s=learn.epochs_per_batch * _learning(job) / rate
        + learn.updates_per_batch * update,
        communication_s=collective_bytes(job) / machine.bandwidth(gpus),
        efficiency=1.0,
        memory_bytes=roles(job)[0].peak,
    )


def sampling_s(
    job: PlannedJob, *, rollouts: int, prompts: int, rows: int, response_tokens: int
) -> float:
    """Seconds in which one process reads its prompts and decodes its responses.

    Args:
        job: the recipe, with the sizes of its models and the rates of the machine.
        rollouts: responses of the process.
        prompts: different prompts among them.
        rows: responses that decode together.
        response_tokens: tokens of each response.
    """
    if not rollouts:
        return 0.0
    shape = job.shape
    machine = job.machine
    engine = job.recipe.engine
    rate = 1e12 * machine.tflops * engine.num_gpus
    memory = 1e12 * machine.hbm_tb_s * DECODE_EFFICIENCY * engine.num_gpus
    parameters = shapes.num_parameters(shape)
    waves = -(-rollouts // rows)
    prompt_tokens = job.work.prompt_tokens
    columns = prompt_tokens + response_tokens / 2
    cache = rows * columns * 2 * shapes.width_k(shape) * job.sampler_bytes * shape.num_layers
    token = (
        max(job.sampler_bytes * parameters / memory, 2 * parameters * rows / rate) + cache / memory
    )
    return (
        waves * response_tokens * max(token, _started_s(job))
        + prompts * prompt_tokens * _forward(shape, prompt_tokens) / rate
    )


def _started_s(job: PlannedJob) -> float:
    """Least seconds of a decode step on a GPU: the time in which its kernels can be started."""
    engine = job.recipe.engine
    kernel_s = EAGER_KERNEL_S if engine.is_eager else GRAPH_KERNEL_S
    return job.shape.num_layers * engine.capabilities.kernels_per_layer * kernel_s


def _forward(shape: Shape, length: int) -> float:
    """Operations per token of one pass through the trunk.

    A token attends to half of its sequence on average.
    """
    return trunk(shape, 1, length / 2)


def _evidence(job: PlannedJob) -> float:
    """Operations of a rank before the loss, including frozen models."""
    work = job.work
    tokens = work.tokens_per_rank
    rows = work.rows_per_rank
    total = job.passes * (tokens * _forward(job.shape, work.length) + head(job.shape, rows))
    frozen = [model for model in (job.reference, job.history) if model is not None]
    total += sum(_compared(model, tokens, rows, work.length) for model in frozen)
    if job.observes_teacher or job.recipe.objective.needs_teacher:
        taught = sum(_compared(model, tokens, rows, work.length) for model in job.teachers)
        total += job.teacher_share * taught
    return work.rollouts_kept_share * total


def _compared(model: FrozenRole, tokens: int, rows: int, length: int) -> float:
    return tokens * _forward(model.shape, length) + head(model.shape, rows)


def _learning(job: PlannedJob) -> float:
    """Operations of a rank's forward and backward in one pass over the batch.

    The head runs at the kept tokens only.
    """
    work = job.work
    backward = 2 if job.trains_head else 1  # frozen weights have no gradient
    passes = 1 + backward + (1 if job.recipe.model.gradient_checkpointing else 0)
    trunk = work.tokens_per_rank * _forward(job.shape, work.length) * passes
    products = head(job.shape, 1, 3 if job.trains_head else 2)
    if job.recipe.objective.needs_teacher:
        products += job.teacher_share * sum(head(model.shape, 1) for model in job.teachers)
    return work.rollouts_kept_share * (trunk + work.rows_per_rank * work.kept_share * products)
