"""One training step as verbs, and the loop around it; it cannot tell one process from many, nor rollouts from demonstrations."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from reasontrain import checkpoint
from reasontrain.credit import Credit
from reasontrain.data.collate import collate
from reasontrain.data.order import Order
from reasontrain.data.sampling import Sampling
from reasontrain.learner import AverageFunction, Learner
from reasontrain.objectives import Objective
from reasontrain.recipe import CheckpointSettings
from reasontrain.sampler import Sampler
from reasontrain.selection import Selector
from reasontrain.signals.quadrants import Thresholds, medians, quadrants, recall, shares
from reasontrain.track import TOKENS, Tracker, write_tokens
from reasontrain.types import Batch, Rollout, RunError, Stats

FIXED_THRESHOLDS = Thresholds(entropy=0.3, divergence=0.5)
"""Nats above which a token counts as unsure, and as far from its teacher, in every run alike."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything a run is made of; `loop` only calls it in order."""

    directory: Path
    order: Order
    sampler: Sampler
    sampling: Sampling
    group_size: int
    truncated: Literal["score", "mask", "drop"]
    score: Callable[[Sequence[Rollout]], list[Rollout]]
    credit: Credit
    select: Selector
    needs: frozenset[str]
    reuse_sampled_logp: bool
    learner: Learner
    objective: Objective
    average: AverageFunction
    tracker: Tracker
    evaluate: Callable[[int], None]
    checkpoint: CheckpointSettings
    steps: int
    seed: int


@dataclass
class Clock:
    """Seconds spent in each part of a step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count the time of this block as `time_<part>_s`."""
        start = time.perf_counter()
        yield
        self.seconds[f"time_{part}_s"] = self.seconds.get(f"time_{part}_s", 0.0) + time.perf_counter() - start


def train_step(run: Run, step: int) -> Stats:
    """Sample, score, credit, observe, select, learn, sync: one optimiser step and what was seen in it."""
    clock = Clock()
    with clock("sample"):
        prompts = run.order.at(step)
        first_id = step * len(prompts) * run.group_size
        rollouts = run.sampler.sample(prompts, run.sampling, num=run.group_size, first_id=first_id)
    with clock("score"):
        rollouts = run.score(rollouts)
        batch = _credit(run, rollouts, step)
    with clock("observe"):
        batch = observe(run.learner, batch, run.needs, reuse_sampled_logp=run.reuse_sampled_logp)
        weight_BT = run.select(batch)
    with clock("learn"):
        learned = run.learner.step(batch, weight_BT, run.objective, run.average)
    with clock("sync"):
        run.sampler.load(run.learner.weights())
    if learned["skipped"]:
        write_tokens(run.directory / TOKENS / f"nonfinite-step-{step}.jsonl", batch, weight_BT, rollouts, run.order.tokenizer)
    run.tracker.tokens(step, batch, weight_BT, rollouts, run.order.tokenizer)
    seconds = sum(clock.seconds.values())
    return (
        learned | describe(batch, weight_BT, rollouts) | clock.seconds | {"tokens_per_s": batch.counts().response_rows / seconds}
    )


def _credit(run: Run, rollouts: Sequence[Rollout], step: int) -> Batch:
    """The batch of these rollouts; truncated ones are dropped before credit or masked after it, as the recipe says."""
    if run.truncated == "drop":
        rollouts = [rollout for rollout in rollouts if not rollout.truncated]
    masked = frozenset(r.id for r in rollouts if r.truncated) if run.truncated == "mask" else frozenset()
    progress = step / max(run.steps - 1, 1)
    return collate(rollouts, credit=run.credit, masked=masked, progress=progress, seed=run.seed, step=step)


def observe(learner: Learner, batch: Batch, needs: frozenset[str], *, reuse_sampled_logp: bool) -> Batch:
    """The batch with the evidence that the rule and the objective need, each from where it is cheapest."""
    missing = needs - frozenset(batch.evidence)
    if "old_logp" in missing and reuse_sampled_logp:
        batch = batch.with_evidence({"old_logp": batch.sampled_logp_BT})
        missing -= {"old_logp"}
    return learner.observe(batch, missing) if missing else batch


def describe(batch: Batch, weight_BT: Float[Tensor, "B T"], rollouts: Sequence[Rollout]) -> Stats:
    """What a step looked like: rewards, lengths, evidence, and how selection divides over the quadrants."""
    counts, among_BT = batch.counts(weight_BT), batch.is_response_BT
    stats: Stats = {
        "reward_mean": _mean([r.reward for r in rollouts]),
        "response_tokens_mean": _mean([float(len(r.response_ids)) for r in rollouts]),
        "truncated_share": _mean([float(r.truncated) for r in rollouts]),
        "trained_tokens": float(counts.kept_rows),
        "rollouts": float(counts.rollouts),
    }
    for name, column_BT in batch.evidence.items():
        if among_BT.any():
            stats[f"{name}_mean"] = float(column_BT[among_BT].double().mean())
    if {"entropy", "kl_reverse"} <= batch.evidence.keys() and among_BT.any():
        stats |= _quadrants(batch, weight_BT)
    return stats


def _quadrants(batch: Batch, weight_BT: Float[Tensor, "B T"]) -> Stats:
    """Shares of all and of kept tokens in TIP's quadrants at the step's medians, and the share of each quadrant that was kept.

    Medians force the shares, so `fixed_share_*` gives them at thresholds that do not move.
    """
    columns, among_BT, kept_BT = (batch.entropy_BT, batch.kl_reverse_BT), batch.is_response_BT, weight_BT != 0
    quadrant_BT = quadrants(*columns, among_BT, medians(*columns, among_BT))
    kept_of, fixed = shares(quadrant_BT, kept_BT), shares(quadrants(*columns, among_BT, FIXED_THRESHOLDS), among_BT)
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
    """Ctrl-C and SIGTERM, noticed between two steps; a second signal acts at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Handle both signals inside this block."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
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


def train(run: Run, *, from_step: int, report: Callable[[int, Stats], None]) -> None:
    """Steps `from_step` to the last, evaluations and checkpoints between; saves and raises StoppedError when asked to."""
    with Stop().listening() as stop:
        if from_step == 0:
            run.evaluate(0)
        for step in range(from_step, run.steps):
            stats = train_step(run, step)
            run.tracker.metrics(step, stats)
            report(step, stats)
            done = step + 1
            run.evaluate(done)
            every = run.checkpoint.every
            if stop.signal is not None and done < run.steps:
                where = save(run, done)
                raise StoppedError(
                    f"stopped by {stop.signal.name} after step {step}; saved {where}; the same command goes on from there"
                )
            if done == run.steps or (every and done % every == 0):
                save(run, done)


def save(run: Run, step: int) -> Path:
    """A complete checkpoint after `step` steps."""
    return checkpoint.save(run.directory, step, run.learner.save, keep=run.checkpoint.keep)
