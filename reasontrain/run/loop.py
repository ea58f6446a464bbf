"""One training step as verbs, and the loop around it; it cannot tell one process from many, nor
rollouts from demonstrations.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reasontrain.algo.advantages import Advantage, NoAdvantage
from reasontrain.algo.objectives import Objective
from reasontrain.algo.token_selection import HasMetrics, RolloutFilter, TokenSelection
from reasontrain.algo.token_selection.scores.quadrants import (
    Thresholds,
    medians,
    quadrants,
    recall,
    shares,
)
from reasontrain.data.collate import collate
from reasontrain.data.order import Order
from reasontrain.data.sampling import Sampling
from reasontrain.learner import Learner, LossAggregationFn
from reasontrain.metrics.subsampling import rollout_numbers, token_numbers
from reasontrain.metrics.throughput import Speed
from reasontrain.metrics.timing import Stopwatch, key
from reasontrain.recipe import CheckpointSettings, is_due
from reasontrain.run import checkpoint
from reasontrain.run.directory import RunDirectory
from reasontrain.run.tracking import Tracker, write_tokens
from reasontrain.sampler import Sampler
from reasontrain.types import Batch, LostError, Rollout, RunError, Stats, TokenKind

FIXED_THRESHOLDS = Thresholds(entropy=0.3, divergence=0.5)
"""Nats above which a token counts as unsure, and as far from its teacher, in every run alike."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything a run is made of; `loop` only calls it in order."""

    directory: RunDirectory
    order: Order
    sampler: Sampler
    sampling: Sampling
    group_size: int
    truncated: Literal["score", "mask", "drop"]
    score: Callable[[Sequence[Rollout]], list[Rollout]]
    advantage: Advantage
    rollout_filter: RolloutFilter
    token_selection: TokenSelection
    required_evidence: frozenset[str]
    reuse_sampled_logp: bool
    learner: Learner
    objective: Objective
    loss_aggregation: LossAggregationFn
    tracker: Tracker
    speed: Speed
    evaluate: Callable[[int], None]
    recover: Callable[[LostError], int]
    checkpoint: CheckpointSettings
    max_nonfinite: int
    steps: int
    seed: int


def train_step(run: Run, step: int) -> Stats:
    """Sample, score, credit, keep, observe, select, learn, sync: one optimiser step and what was
    seen in it.
    """
    begun, timer = time.perf_counter(), Stopwatch()
    with timer("sample"):
        prompts = run.order.at(step)
        first_id = step * len(prompts) * run.group_size
        rollouts = run.sampler.sample(prompts, run.sampling, num=run.group_size, first_id=first_id)
    with timer("score"):
        rollouts = run.score(rollouts)
    sampled = _credit(run, rollouts, step)
    batch = run.rollout_filter(sampled)
    batch = observe(
        run.learner, batch, run.required_evidence, reuse_sampled_logp=run.reuse_sampled_logp
    )
    weight_BT = run.token_selection(batch)
    learned = run.learner.step(batch, weight_BT, run.objective, run.loss_aggregation)
    with timer("sync"):
        run.sampler.load(run.learner.weights())
    if learned["skipped"]:
        write_tokens(
            run.directory.nonfinite_tokens_at(step),
            batch,
            weight_BT,
            rollouts,
            run.order.tokenizer,
        )
    run.tracker.tokens(step, batch, weight_BT, rollouts, run.order.tokenizer)
    stats = learned | describe(batch, weight_BT, rollouts)
    if not isinstance(run.advantage, NoAdvantage):
        stats |= rollout_numbers(sampled, batch)
    if isinstance(run.token_selection, HasMetrics):
        stats |= run.token_selection.metrics(batch)
    stats |= run.speed.count(rollouts, batch, weight_BT)
    stats |= {key(part): seconds for part, seconds in timer.read().items()}
    return stats | run.speed.of(stats, time.perf_counter() - begun)


def _credit(run: Run, rollouts: Sequence[Rollout], step: int) -> Batch:
    """The batch of these rollouts; truncated ones are dropped before credit or masked after it, as
    the recipe says.
    """
    sampled_tokens = sum(len(rollout.response_ids) for rollout in rollouts)
    kept = (
        _without_truncated(rollouts, alone=isinstance(run.advantage, NoAdvantage))
        if run.truncated == "drop"
        else rollouts
    )
    masked = (
        frozenset(r.id for r in rollouts if r.truncated) if run.truncated == "mask" else frozenset()
    )
    progress = step / max(run.steps - 1, 1)
    paired = run.objective.granularity == "pair"
    batch = collate(
        kept,
        advantage=run.advantage,
        masked=masked,
        paired=paired,
        progress=progress,
        seed=run.seed,
        step=step,
    )
    return replace(batch, sampled_rollouts=len(rollouts), sampled_tokens=sampled_tokens)


def _without_truncated(rollouts: Sequence[Rollout], *, alone: bool) -> list[Rollout]:
    """The rollouts that came to their end; where credit compares a group, one that is left `alone`
    goes as well.
    """
    left = [rollout for rollout in rollouts if not rollout.truncated]
    size = Counter(rollout.group for rollout in left)
    return [rollout for rollout in left if alone or size[rollout.group] > 1]


def observe(
    learner: Learner, batch: Batch, required_evidence: frozenset[str], *, reuse_sampled_logp: bool
) -> Batch:
    """The batch with the evidence that the rule and the objective need, each from where it is
    cheapest.
    """
    missing = required_evidence - frozenset(batch.evidence)
    if "old_logp" in missing and reuse_sampled_logp:
        batch = batch.with_evidence({"old_logp": batch.sampled_logp_BT})
        missing -= {"old_logp"}
    return learner.observe(batch, missing) if missing else batch


def describe(batch: Batch, weight_BT: Float[Tensor, "B T"], rollouts: Sequence[Rollout]) -> Stats:
    """What a step looked like: rewards, lengths, evidence, and how selection divides over the
    quadrants.
    """
    totals, among_BT = batch.totals(weight_BT), batch.is_response_BT
    stats: Stats = {
        "reward_mean": _mean([r.reward for r in rollouts]),
        "response_tokens_mean": _mean([float(len(r.response_ids)) for r in rollouts]),
        "truncated_share": _mean([float(r.truncated) for r in rollouts]),
        "trained_tokens": float(totals.kept_tokens),
        "rollouts": float(totals.rollouts),
        **token_numbers(batch, weight_BT),
    }
    thoughts = [r.kinds.index(TokenKind.FORCED) for r in rollouts if TokenKind.FORCED in r.kinds]
    if thoughts:
        stats["thought_tokens_mean"] = _mean([float(length) for length in thoughts])
        stats["concluded_share"] = _mean([float(r.concluded) for r in rollouts])
    for name, column_BT in batch.evidence.items():
        if among_BT.any():
            stats[f"{name}_mean"] = float(column_BT[among_BT].double().nanmean())
    stats |= _kept_by_place(among_BT, weight_BT)
    if {"entropy", "kl_reverse"} <= batch.evidence.keys() and among_BT.any():
        stats |= _quadrants(batch, weight_BT)
    return stats


def _kept_by_place(among_BT: Bool[Tensor, "B T"], weight_BT: Float[Tensor, "B T"]) -> Stats:
    """The share that is kept of the first, the middle and the last third of each response: a rule
    may only like beginnings.
    """
    place_BT = (among_BT.cumsum(1) - 1) * 3 // among_BT.sum(1, keepdim=True).clamp(min=1)
    thirds = {
        name: among_BT & (place_BT == third)
        for third, name in enumerate(("first", "middle", "last"))
    }
    return {
        f"kept_of_{name}_third": float((weight_BT != 0)[part_BT].double().mean())
        for name, part_BT in thirds.items()
        if part_BT.any()
    }


def _quadrants(batch: Batch, weight_BT: Float[Tensor, "B T"]) -> Stats:
    """Shares of all and of kept tokens in TIP's quadrants at the step's medians, and the share of
    each quadrant that was kept.

    Medians force the shares, so `fixed_share_*` gives them at thresholds that do not move.
    """
    columns, among_BT, kept_BT = (
        (batch.entropy_BT, batch.kl_reverse_BT),
        batch.is_response_BT,
        weight_BT != 0,
    )
    quadrant_BT = quadrants(*columns, among_BT, medians(*columns, among_BT))
    kept_of, fixed = (
        shares(quadrant_BT, kept_BT),
        shares(quadrants(*columns, among_BT, FIXED_THRESHOLDS), among_BT),
    )
    stats: Stats = {}
    for quadrant, share in shares(quadrant_BT, among_BT).items():
        stats[f"share_{quadrant.name}"] = share
        stats[f"fixed_share_{quadrant.name}"] = fixed[quadrant]
        stats[f"share_of_kept_{quadrant.name}"] = kept_of[quadrant]
        stats[f"kept_{quadrant.name}"] = recall(quadrant_BT, kept_BT, quadrant) or 0.0
    return stats


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)


class Stop:
    """Ctrl-C, SIGTERM and SIGUSR1 (schedulers warn by either), noticed between two steps; a second
    signal acts at once.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Handle these signals inside this block."""
        before = {
            number: signal.signal(number, self._note)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        }
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


class StoppedError(RunError):
    """The run was asked to stop and did, with a checkpoint."""


def train(
    run: Run, *, from_step: int, report: Callable[[int, Stats], None], finish: Callable[[], None]
) -> None:
    """Steps `from_step` to the last, checkpoints and evaluations between, and `finish`; nothing
    that was finished is lost.

    Raises StoppedError, having saved, when asked to stop; RunError, having saved the steps before,
    when a step cannot be taken.
    """
    with Stop().listening() as stop:
        done, finished = from_step, False
        while not finished:
            try:
                run.evaluate(done)
                while done < run.steps:
                    done = _advance(run, done, stop, report)
                finish()
                finished = True
            except LostError as error:
                done = run.recover(error)
                run.tracker.rewind(done)


def _advance(run: Run, step: int, stop: Stop, report: Callable[[int, Stats], None]) -> int:
    """One step with all that follows it: what was measured, a checkpoint, an evaluation; the number
    of steps done.
    """
    stats = _step_or_save(run, step)
    run.tracker.metrics(step, stats)
    report(step, stats)
    done = step + 1
    stopped = stop.signal if done < run.steps else None
    if stopped or is_due(run.checkpoint.every, done) or done == run.steps:
        where = save(run, done)  # before the evaluation, which may take long
    if stopped:
        raise StoppedError(
            f"stopped by {stopped.name} after step {step}; saved {where}; the same command "
            f"goes on from there"
        )
    if stats["nonfinite_in_a_row"] >= run.max_nonfinite:
        raise RunError(
            f"the gradient was not finite in {run.max_nonfinite} steps in a row (the last "
            f"is step {step}); lower "
            f"learn.lr, or look at their rollouts in "
            f"{run.directory.nonfinite_tokens_at('*')}"
        )
    run.evaluate(done)
    return done


def _step_or_save(run: Run, step: int) -> Stats:
    """One step; when it cannot be taken, a checkpoint of the steps before it and the reason."""
    try:
        return train_step(run, step)
    except LostError:
        raise  # there is nobody to save
    except RunError:
        _save_before(run, step)
        raise
    except torch.OutOfMemoryError as error:
        _save_before(run, step)
        raise RunError(
            f"the GPU ran out of memory in step {step}; lower learn.micro_batch_tokens, "
            f"sample.engine.max_num_seqs or "
            "sample.max_tokens, or set model.gradient_checkpointing"
        ) from error


def _save_before(run: Run, step: int) -> None:
    """A checkpoint of the steps before this one, where the learner holds just them: a step may fail
    after it was learned from.
    """
    if step and run.learner.weights().version == step:
        save(run, step)


def save(run: Run, step: int) -> Path:
    """A complete checkpoint after `step` steps."""
    settings = run.checkpoint
    scores = run.tracker.scores(settings.best) if settings.best else {}
    return checkpoint.save(run.directory, step, run.learner.save, keep=settings.keep, scores=scores)
