"""Suggestions: changes that make a recipe fit, found by the same arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from reasontrain.models import Lora
from reasontrain.plan.memory import Role, roles
from reasontrain.plan.roles import PlannedJob
from reasontrain.recipe import Cluster, Recipe, VllmEngine, Zero
from reasontrain.recipe.validation import validation_errors

MAX_RANKS = 1024
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
ROUNDS = 2
"""Passes over the kinds of changes.

After a change another phase may be the fullest, which an earlier kind of change could reduce.
"""


@dataclass(frozen=True)
class Remedy:
    """Overrides of the recipe, and the peak bytes of the fullest process with them."""

    overrides: tuple[str, ...]
    peak: int


Change = tuple[tuple[str, ...], Recipe]
Kind = Callable[[PlannedJob], Iterator[Change]]


def fits(job: PlannedJob) -> bool:
    """True if every process fits into memory."""
    return _fullest(job).peak <= job.memory_bytes


def remedy(job: PlannedJob) -> Remedy | None:
    """The first single change that is enough, in the order of `KINDS`, else a combination.

    None if no combination is enough.
    """
    for kind in KINDS:
        for overrides, changed in _tried(job, kind):
            if fits(changed):
                return Remedy(overrides, _fullest(changed).peak)
    gathered: tuple[str, ...] = ()
    for kind in KINDS * ROUNDS:
        best = job
        added: tuple[str, ...] = ()
        for overrides, changed in _tried(job, kind):
            if _fullest(changed).peak < _fullest(best).peak:
                best = changed
                added = overrides
            if fits(changed):
                break
        job = best
        gathered = _merged(gathered, added)
        if fits(job):
            return Remedy(gathered, _fullest(job).peak)
    return None


def _merged(earlier: tuple[str, ...], later: tuple[str, ...]) -> tuple[str, ...]:
    """The overrides of both, where the later value of a key replaces the earlier one."""
    by_key = {override.partition("=")[0]: override for override in (*earlier, *later)}
    return tuple(by_key.values())


def _fullest(job: PlannedJob) -> Role:
    return max(roles(job), key=lambda role: role.peak)


def _tried(job: PlannedJob, kind: Kind) -> Iterator[tuple[tuple[str, ...], PlannedJob]]:
    """The changes of one kind after which the recipe is still valid."""
    for overrides, recipe in kind(job):
        if not validation_errors(recipe):
            yield overrides, replace(job, recipe=recipe)


def _halves(value: int, least: int) -> Iterator[int]:
    while value > least:
        value = max(least, value // 2)
        yield value


def _fewer_rows(job: PlannedJob) -> Iterator[Change]:
    """Fewer sequences at a time, and so a smaller key-value cache, if the engine reserves none."""
    sample = job.recipe.sample
    if sample is not None and job.reserving_engine is None and _fullest(job).phase == "sample":
        for rows in _halves(job.work.rows_per_sampler, 1):
            fewer = replace(sample, engine=sample.engine.with_max_num_seqs(rows))
            yield (
                (f"sample.engine.kind={sample.engine.kind}", f"sample.engine.max_num_seqs={rows}"),
                replace(job.recipe, sample=fewer),
            )


def _other_engine(job: PlannedJob) -> Iterator[Change]:
    """Other shares of GPU memory for vLLM, largest first; then more GPUs per engine.

    The number of GPUs is doubled repeatedly, within one node.
    """
    sample = job.recipe.sample
    engine = job.recipe.engine
    if sample is None or not isinstance(engine, VllmEngine) or _fullest(job).phase != "sample":
        return
    for share in SHARES:
        resized = replace(sample, engine=replace(engine, gpu_memory_utilization=share))
        yield (
            (f"sample.engine.gpu_memory_utilization={share}",),
            replace(job.recipe, sample=resized),
        )
    gpus = engine.tensor_parallel_size
    while (gpus := 2 * gpus) <= job.machine.gpus_per_node and job.shape.num_heads % gpus == 0:
        wider = replace(sample, engine=replace(engine, tensor_parallel_size=gpus))
        yield (f"sample.engine.tensor_parallel_size={gpus}",), replace(job.recipe, sample=wider)


def _smaller_micro_batches(job: PlannedJob) -> Iterator[Change]:
    """Smaller micro-batches, down to one rollout."""
    for tokens in _halves(job.recipe.learn.micro_batch_tokens, job.work.length):
        yield (
            (f"learn.micro_batch_tokens={tokens}",),
            replace(job.recipe, learn=replace(job.recipe.learn, micro_batch_tokens=tokens)),
        )


def _checkpointing(job: PlannedJob) -> Iterator[Change]:
    """Recomputation of every layer's activations in backward."""
    if not job.recipe.model.gradient_checkpointing:
        model = replace(job.recipe.model, gradient_checkpointing=True)
        yield ("model.gradient_checkpointing=true",), replace(job.recipe, model=model)


def _with_zero(job: PlannedJob, overrides: tuple[str, ...], zero: Zero, learners: int) -> Change:
    """The recipe with these ZeRO settings and this many ranks, and the overrides that set them."""
    cluster = replace(job.recipe.cluster or Cluster(), learners=learners)
    if job.recipe.cluster is None or learners != job.ranks:
        overrides = (f"cluster.learners={learners}", *overrides)
    return overrides, replace(
        job.recipe, cluster=cluster, learn=replace(job.recipe.learn, zero=zero)
    )


def _higher_stage(job: PlannedJob) -> Iterator[Change]:
    """Higher ZeRO stages on the existing ranks."""
    if job.ranks > 1:
        for stage in (1, 2, 3):
            if job.zero is None or stage > job.stage:
                zero = replace(job.zero or Zero(), stage=stage)
                yield _with_zero(job, (f"learn.zero.stage={stage}",), zero, job.ranks)


def _adapter(job: PlannedJob) -> Iterator[Change]:
    """An adapter in place of all weights; it learns less, and needs another learning rate."""
    if job.base == 0:
        for rank in (64, 16):
            lora = Lora(rank=rank, alpha=2.0 * rank)
            model = replace(job.recipe.model, lora=lora)
            yield (
                (f"model.lora={{rank: {rank}, alpha: {2 * rank}}}",),
                replace(job.recipe, model=model),
            )


def _offload(job: PlannedJob) -> Iterator[Change]:
    """The optimiser's state in main memory, then the weights too."""
    if not job.on_gpu:
        return
    zero = job.zero if job.zero is not None and job.stage >= 1 else Zero(stage=2)
    stage = () if zero is job.zero else ("learn.zero.stage=2",)
    if zero.offload_optimizer == "none":
        overrides = (*stage, "learn.zero.offload_optimizer=cpu")
        yield _with_zero(job, overrides, replace(zero, offload_optimizer="cpu"), job.ranks)
    if zero.offload_parameters == "none":
        moved = replace(zero, stage=3, offload_optimizer="cpu", offload_parameters="cpu")
        overrides = (
            "learn.zero.stage=3",
            "learn.zero.offload_optimizer=cpu",
            "learn.zero.offload_parameters=cpu",
        )
        yield _with_zero(job, overrides, moved, job.ranks)


def _sharded_frozen(job: PlannedJob) -> Iterator[Change]:
    """Frozen models sharded over the ranks."""
    if job.zero is not None and job.zero.frozen == "whole" and job.ranks > 1 and job.shardable:
        yield _with_zero(
            job, ("learn.zero.frozen=sharded",), replace(job.zero, frozen="sharded"), job.ranks
        )


def _more_ranks(job: PlannedJob) -> Iterator[Change]:
    """More ranks under ZeRO 3, doubled repeatedly; whole frozen models first, then sharded ones."""
    for frozen in ("whole", "sharded") if job.shardable else ("whole",):
        zero = replace(job.zero or Zero(), stage=3, frozen=frozen)
        overrides = (
            "learn.zero.stage=3",
            *(("learn.zero.frozen=sharded",) if frozen == "sharded" else ()),
        )
        ranks = job.ranks
        while (ranks := 2 * ranks) <= MAX_RANKS:
            yield _with_zero(job, overrides, zero, ranks)


KINDS: tuple[Kind, ...] = (
    _fewer_rows,
    _other_engine,
    _smaller_micro_batches,
    _checkpointing,
    _higher_stage,
    _adapter,
    _offload,
    _sharded_frozen,
    _more_ranks,
)
