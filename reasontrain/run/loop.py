"""One training step, and the loop around it.

The loop is the same for one process and for many, for sampled rollouts and for demonstrations.
"""

from __future__ import annotations

import gc
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import Signals
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from reasontrain.algo.advantages import Advantage, NoAdvantage
from reasontrain.algo.correction import Correction, NoCorrection
from reasontrain.algo.custom_evidence import CustomEvidence, with_custom, with_inputs
from reasontrain.algo.evidence import forward_passes
from reasontrain.algo.objectives import Objective
from reasontrain.algo.token_advantage import RolloutAdvantage, TokenAdvantage
from reasontrain.algo.token_selection import (
    AllRollouts,
    AllTokens,
    HasMetrics,
    RolloutFilter,
    TokenSelection,
    unread_evidence,
)
from reasontrain.data.collate import collate, num_sampled_tokens
from reasontrain.data.order import Order
from reasontrain.data.sampling import Sampling
from reasontrain.learner import Learner, LossAggregationFn
from reasontrain.metrics.episodes import episode_numbers
from reasontrain.metrics.rewards import (
    ZERO_STD,
    group_numbers,
    own_reward_numbers,
    part_numbers,
    reward_mean,
)
from reasontrain.metrics.step import sampler_mismatch, step_metrics
from reasontrain.metrics.subsampling import rollout_numbers
from reasontrain.metrics.throughput import Speed
from reasontrain.metrics.timing import Stopwatch, key, start_phase
from reasontrain.recipe import CheckpointSettings, is_due
from reasontrain.run import checkpoint
from reasontrain.run.directory import RunDirectory
from reasontrain.run.owner import Ownership
from reasontrain.run.refill import Refilled, refill
from reasontrain.run.signals import Stop, StopNow
from reasontrain.run.tracking import Tracker, write_tokens
from reasontrain.sampler import Sampler
from reasontrain.sampler.factory import SleepingSampler
from reasontrain.types import (
    Batch,
    LostError,
    Prompt,
    Rollout,
    RunError,
    Stats,
    Truncated,
)

logger = logging.getLogger(__name__)

NO_SIGNAL_STEPS = 3
"""Steps in a row with equal rewards in every group, after which the user is warned."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """The method of a run: how rollouts become a loss.

    Attributes:
        objective: the loss of a token, a response or a pair.
        loss_aggregation: divides the sum of losses.
        advantage: rewards of a group -> advantages.
        token_advantage: advantages of rollouts and evidence -> advantages of tokens.
        correction: weighs advantages by the ratio of the learner to the sampler.
        rollout_filter: drops whole rollouts.
        token_selection: weighs tokens.
        required_evidence: evidence that selection and loss read, with its inputs.
        custom_evidence: evidence that plug-ins compute, by name.
        reuse_sampled_logp: take the sampler's log-probs as `old_logp`.
        truncated: score truncated rollouts, mask them from the loss, or drop them.
        max_response_tokens: most tokens of a sampled response; 0 if none are sampled.
    """

    objective: Objective
    loss_aggregation: LossAggregationFn
    advantage: Advantage = field(default_factory=NoAdvantage)
    token_advantage: TokenAdvantage = field(default_factory=RolloutAdvantage)
    correction: Correction = field(default_factory=NoCorrection)
    rollout_filter: RolloutFilter = field(default_factory=AllRollouts)
    token_selection: TokenSelection = field(default_factory=AllTokens)
    required_evidence: frozenset[str] = frozenset()
    custom_evidence: Mapping[str, CustomEvidence] = field(default_factory=dict)
    reuse_sampled_logp: bool = False
    truncated: Truncated = "score"
    max_response_tokens: int = 0

    def evidence_at(self, progress: float) -> frozenset[str]:
        """The evidence that is read at this progress of the run."""
        others = (
            self.objective.required_evidence
            | self.token_advantage.required_evidence
            | self.correction.required_evidence
            | with_inputs(frozenset(self.custom_evidence), self.custom_evidence)
        )
        return self.required_evidence - unread_evidence(self.token_selection, others, progress)


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The checkpoints of a run, with what they are made from."""

    directory: RunDirectory
    settings: CheckpointSettings
    learner: Learner
    scores: Callable[[str], Mapping[int, float]] = lambda suite: {}

    def save(self, step: int) -> Path:
        """Write a complete checkpoint after `step` steps; return its directory."""
        scores = self.scores(self.settings.best) if self.settings.best else {}
        return checkpoint.save(
            self.directory, step, self.learner.save, keep=self.settings.keep, scores=scores
        )

    def save_before(self, step: int) -> str:
        """Write a checkpoint of the steps before a failed one, if the learner holds just them.

        A step may fail after it was learned from, or between two of its updates: a checkpoint would
        then name weights of the step before that have seen this one, in part or whole.

        Returns:
            What to add to the error message: what was saved, or why nothing was.
        """
        if step and self.learner.steps_done == step:
            return f"; saved {self.save(step)}"
        if step and self.learner.steps_done is None:
            return (
                "; a part of its updates was made, so nothing was saved: the same command resumes "
                "from the last checkpoint, if there is one (see checkpoint.every)"
            )
        return ""


@runtime_checkable
class SamplerCheck(Protocol):
    """A check in every step that the sampler has the learner's weights."""

    def before(self, step: int, prompts: Sequence[Prompt]) -> Stats:
        """Check before a step is sampled; raise RunError if the weights differ."""
        ...

    def after(self, step: int, prompts: Sequence[Prompt], rollouts: Sequence[Rollout]) -> Stats:
        """Check after a step was sampled; raise RunError if the weights differ."""
        ...

    def can_use(self, step: int, rollouts: Sequence[Rollout]) -> bool:
        """True if the learner's log-probs of these rollouts make a check (`observed`)."""
        ...

    def observed(self, batch: Batch) -> Stats:
        """Check with `old_logp` of a batch as the learner measured it, in the place of `after`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything a run is made of; `train` only calls it in order."""

    directory: RunDirectory
    owner: Ownership
    order: Order
    sampler: Sampler
    sampling: Sampling
    group_size: int
    refill_rounds: int
    score: Callable[[Sequence[Rollout]], list[Rollout]]
    graded: bool
    own_reward: bool
    check: SamplerCheck | None
    method: Method
    learner: Learner
    tracker: Tracker
    speed: Speed
    evaluate: Callable[[int], None]
    recover: Callable[[LostError], int]
    checkpoints: Checkpoints
    max_nonfinite: int
    steps: int
    schedule_steps: int
    seed: int
    for_teacher: Callable[[Batch, Sequence[Rollout]], Batch] | None = None


def train_step(run: Run, step: int) -> Stats:
    """Sample a batch of rollouts, learn from it, and return the numbers of the step.

    `step` is an index, from 0: data and random numbers depend on it. All that a person sees counts
    steps from 1, so that the n-th step is the one after which n are done.
    """
    start_s = time.perf_counter()
    number = step + 1
    timer = Stopwatch()
    method = run.method
    prompts = run.order.at(step)
    first_id = step * len(prompts) * run.group_size * (1 + run.refill_rounds)
    checked = run.check.before(step, prompts) if run.check else {}
    with timer("sample"):
        rollouts = run.sampler.sample(prompts, run.sampling, num=run.group_size, first_id=first_id)
    required_evidence = method.evidence_at(progress_at(step, run.schedule_steps))
    # Where the policy's forward pass is needed for evidence, the check reads its log-probs too.
    checks_evidence = (
        run.check is not None
        and "policy" in forward_passes(required_evidence)
        and not ("old_logp" in required_evidence and method.reuse_sampled_logp)
        and run.check.can_use(step, rollouts)
    )
    if checks_evidence:
        required_evidence |= {"old_logp"}
    elif run.check:
        checked |= run.check.after(step, prompts, rollouts)
    if isinstance(run.sampler, SleepingSampler) and not run.refill_rounds:
        run.sampler.sleep()
    with timer("score"):
        rollouts = run.score(rollouts)
    kept = rollouts
    if run.refill_rounds:
        refilled = _refill(run, step, rollouts, first_id, timer)
        rollouts = refilled.sampled
        kept = refilled.kept
        checked |= refilled.metrics
    sampled = make_batch(method, kept, step=step, steps=run.schedule_steps, seed=run.seed)
    if not len(sampled.rollout_B):
        reason = _left_out(method, kept) if kept else "the rewards of each of its groups are equal"
        logger.warning(f"step {number} learns nothing: {reason}")
    batch = method.rollout_filter(sampled)
    if run.for_teacher is not None:
        batch = run.for_teacher(batch, rollouts)
    reuse_sampled_logp = method.reuse_sampled_logp and not checks_evidence
    batch = observe(
        run.learner,
        batch,
        required_evidence - frozenset(method.custom_evidence),
        reuse_sampled_logp=reuse_sampled_logp,
    )
    batch = with_custom(batch, required_evidence, method.custom_evidence)
    if run.check and checks_evidence:
        checked |= run.check.observed(batch)
    weight_BT = token_weights(method, batch)
    batch = with_token_advantages(method, batch)
    learned = run.learner.step(batch, weight_BT, method.objective, method.loss_aggregation)
    with timer("sync"):
        run.sampler.load(run.learner.weights())
    if learned["skipped"]:
        write_tokens(
            run.directory.nonfinite_tokens_at(number),
            batch,
            weight_BT,
            rollouts,
            run.order.tokenizer,
            sampled=sampled,
        )
    run.tracker.tokens(number, batch, weight_BT, rollouts, run.order.tokenizer, sampled=sampled)
    stats = learned | checked | step_metrics(batch, weight_BT, rollouts)
    if not isinstance(method.advantage, NoAdvantage):
        stats |= rollout_numbers(sampled, batch) | group_numbers(rollouts)
    if "old_logp" in required_evidence and not reuse_sampled_logp:
        stats |= sampler_mismatch(batch) | method.correction.metrics(batch)
    # what was sampled took time, whether it has a reward or not
    stats["sampled_tokens"] = float(num_sampled_tokens(rollouts))
    stats |= episode_numbers(rollouts)
    if run.graded:  # demonstrations and pairs have no reward
        stats |= reward_mean(rollouts)
    stats |= part_numbers(rollouts)
    if run.own_reward:
        stats |= own_reward_numbers(rollouts)
    if isinstance(method.token_selection, HasMetrics):
        stats |= method.token_selection.metrics(batch)
    stats |= run.speed.count(rollouts, batch, weight_BT)
    stats |= {key(part): seconds for part, seconds in timer.read().items()}
    return stats | run.speed.of(stats, time.perf_counter() - start_s)


def _refill(
    run: Run, step: int, rollouts: Sequence[Rollout], first_id: int, timer: Stopwatch
) -> Refilled:
    """Sample other prompts in the place of those whose rewards are equal; then the sampler sleeps.

    Args:
        run: the run.
        step: the index of the step, from 0.
        rollouts: those of the step's own prompts, with rewards.
        first_id: the id of the first of them.
        timer: times sampling and scoring.
    """
    num = len(run.order.at(step))

    def sample(number: int, missing: int) -> list[Rollout]:
        prompts = run.order.at(step, number)[:missing]
        start = first_id + number * num * run.group_size
        with timer("sample"):
            more = run.sampler.sample(prompts, run.sampling, num=run.group_size, first_id=start)
        with timer("score"):
            return run.score(more)

    refilled = refill(
        rollouts,
        sample,
        num=num,
        max_rounds=run.refill_rounds,
        truncated=run.method.truncated,
    )
    if isinstance(run.sampler, SleepingSampler):
        run.sampler.sleep()
    return refilled


def progress_at(step: int, steps: int) -> float:
    """Position of a step, counted from 0, in schedules over so many steps, from 0 to 1."""
    return min(step / max(steps - 1, 1), 1.0)


def token_weights(method: Method, batch: Batch) -> Float[Tensor, "B T"]:
    """The weight of each token: the selection rule's, times the loss weight of the data.

    Loss weights do not change a total, except that a token of weight 0 is masked (see `collate`).
    """
    return batch.weighted(method.token_selection(batch))


def with_token_advantages(method: Method, batch: Batch) -> Batch:
    """The batch with the advantages that its tokens have in the loss, corrected for the sampler.

    Selection and metrics of rollouts go by the advantages of rollouts, which stay as they are.
    """
    of_rollouts = isinstance(method.token_advantage, RolloutAdvantage)
    if of_rollouts and isinstance(method.correction, NoCorrection):
        return batch
    advantage_BT = method.token_advantage(batch) * method.correction(batch)
    return replace(batch, advantage_BT=advantage_BT.to(batch.advantage_B.dtype))


def make_batch(
    method: Method, rollouts: Sequence[Rollout], *, step: int, steps: int, seed: int
) -> Batch:
    """The batch of these rollouts, with advantages.

    A rollout without a reward is treated as if it had not been sampled: it counts neither in its
    group nor in any total.

    Args:
        method: says whether truncated rollouts are dropped before advantages are computed, or
            masked from the loss after it.
        rollouts: all that were sampled.
        step: the step, counted from 0.
        steps: the steps over which `progress` runs from 0 to 1.
        seed: the seed of the run.
    """
    scored = [rollout for rollout in rollouts if rollout.reward is not None]
    sampled_tokens = num_sampled_tokens(scored)
    kept = _kept(method, rollouts)
    masked = (
        frozenset(r.id for r in rollouts if r.truncated)
        if method.truncated == "mask"
        else frozenset()
    )
    batch = collate(
        kept,
        advantage=method.advantage,
        masked=masked,
        paired=method.objective.granularity == "pair",
        progress=progress_at(step, steps),
        seed=seed,
        step=step,
    )
    return replace(
        batch,
        sampled_rollouts=len(scored),
        sampled_tokens=sampled_tokens,
        max_response_tokens=method.max_response_tokens,
    )


def _kept(method: Method, rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The rollouts that have a reward and, if truncated ones are dropped, ended by themselves.

    A rollout that becomes the last of its group stays only without an advantage: one that compares
    a group has nothing to compare it with.
    """
    left = [
        rollout
        for rollout in rollouts
        if rollout.reward is not None and not (method.truncated == "drop" and rollout.truncated)
    ]
    if isinstance(method.advantage, NoAdvantage):
        return left
    before = Counter(rollout.group for rollout in rollouts)
    size = Counter(rollout.group for rollout in left)
    # a group of one from the start is an error of the recipe, which the advantage reports
    return [r for r in left if size[r.group] > 1 or before[r.group] == 1]


def _left_out(method: Method, rollouts: Sequence[Rollout]) -> str:
    """The reasons for which none of these rollouts is left, with their numbers."""
    missing = sum(rollout.reward is None for rollout in rollouts)
    truncated = sum(rollout.truncated and rollout.reward is not None for rollout in rollouts)
    if method.truncated != "drop":
        truncated = 0
    alone = len(rollouts) - missing - truncated
    reasons = {
        "without a reward": missing,
        "truncated": truncated,
        "with nothing left in their group to be compared with": alone,
    }
    listed = ", ".join(f"{number} {reason}" for reason, number in reasons.items() if number)
    return f"none of its {len(rollouts)} rollouts is left ({listed})"


def observe(
    learner: Learner, batch: Batch, required_evidence: frozenset[str], *, reuse_sampled_logp: bool
) -> Batch:
    """The batch with all required evidence: stored, taken from the sampler, or measured.

    Args:
        learner: measures what is missing.
        batch: the rollouts, with stored evidence.
        required_evidence: the names that selection and objective read.
        reuse_sampled_logp: take the sampler's log-probs as `old_logp`, which costs nothing.
    """
    missing = required_evidence - frozenset(batch.evidence)
    if "old_logp" in missing and reuse_sampled_logp:
        batch = batch.with_evidence({"old_logp": batch.sampled_logp_BT})
        missing -= {"old_logp"}
    return learner.observe(batch, missing) if missing else batch


class RewardWatch:
    """Warns once if rewards have given no signal for several steps."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._warned = False

    def note(self, number: int, stats: Stats) -> None:
        """Take note of a step, counted from 1.

        A step without any reward, or without advantages, says nothing.
        """
        if ZERO_STD not in stats:
            return
        self._in_a_row = self._in_a_row + 1 if stats[ZERO_STD] == 1 else 0
        if self._in_a_row == NO_SIGNAL_STEPS and not self._warned:
            self._warned = True
            logger.warning(
                f"rewards were equal within every group in the last {NO_SIGNAL_STEPS} steps (mean "
                f"{stats['reward_mean']:.4g} in step {number}), so advantages were 0 and nothing "
                "was learned from them; see whether the reward distinguishes responses, and "
                "whether problems are too hard or too easy (see the metric reward_zero_std_share)"
            )


class StoppedError(RunError):
    """Raised after a signal, when the run has saved a checkpoint and ended."""


def train(
    run: Run, *, from_step: int, report: Callable[[int, Stats], None], finish: Callable[[], None]
) -> None:
    """Run all steps from `from_step` on, with checkpoints and evaluations, and finish.

    Args:
        run: the run.
        from_step: the number of steps done already.
        report: called after each step, with the number of steps done and the numbers of the step.
        finish: called after the last step; it is repeated if a process is lost meanwhile.

    Raises:
        StoppedError: after a signal, with a checkpoint saved.
        RunError: if a step cannot be taken, with the steps before it saved.
    """
    limit_s = run.checkpoints.settings.stop_within_s
    with (
        Stop(limit_s=limit_s, limit_key="checkpoint.stop_within_s").listening() as stop,
        _objects_of_the_start_uncollected(),
    ):
        done = from_step
        finished = False
        watch = RewardWatch()
        while not finished:
            try:
                with stop.at_once():
                    run.evaluate(done)
                if done < run.steps:
                    start_phase(logger, f"training from step {done + 1} of {run.steps}")
                while done < run.steps:
                    done = _advance(run, done, stop, watch, report)
                finish()
                finished = True
            except LostError as error:
                done = run.recover(error)
                run.tracker.rewind(done)


@contextmanager
def _objects_of_the_start_uncollected() -> Iterator[None]:
    """Spare the objects that exist now the garbage collector.

    Modules, models and data live as long as the run, and looking at all of them took 0.3 s of some
    steps.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _advance(
    run: Run,
    step: int,
    stop: Stop,
    watch: RewardWatch,
    report: Callable[[int, Stats], None],
) -> int:
    """Take a step, track it, save and evaluate if due; return the number of steps done.

    Args:
        run: the run.
        step: the index of the step, from 0.
        stop: the signal that asked the run to stop, if any.
        watch: sees the rewards of every step.
        report: called with the number of steps done and the numbers of the step.
    """
    stats = _step_or_save(run, step)
    run.owner.check()
    done = step + 1
    run.tracker.metrics(done, stats)
    report(done, stats)
    watch.note(done, stats)
    stopped = stop.signal
    if stopped or is_due(run.checkpoints.settings.every, done) or done == run.steps:
        # Before the evaluation, which may take long.
        path = run.checkpoints.save(done)
    if stopped:
        raise _stopped(stopped, done, path)
    if stats["nonfinite_in_a_row"] >= run.max_nonfinite:
        raise RunError(
            f"the gradient was not finite in {run.max_nonfinite} optimiser steps in a row (the "
            f"last in step {done}); lower learn.lr, or look at their rollouts in "
            f"{run.directory.nonfinite_tokens_at('*')}"
        )
    try:
        with stop.at_once():
            run.evaluate(done)
    except StopNow:
        assert stop.signal is not None, "a signal raised it"
        raise _stopped(stop.signal, done, run.checkpoints.save(done)) from None
    return done


def _stopped(number: Signals, done: int, saved: Path) -> StoppedError:
    return StoppedError(
        f"stopped by {number.name} after step {done}; saved {saved}; the same command goes on from "
        f"there"
    )


def _step_or_save(run: Run, step: int) -> Stats:
    """Take a step; if it cannot be taken, save the steps before it and raise the reason."""
    try:
        return train_step(run, step)
    except LostError:
        raise  # The learner may be what was lost.
    except RunError as error:
        raise RunError(f"{error}{run.checkpoints.save_before(step)}") from error
    except torch.OutOfMemoryError as error:
        saved = run.checkpoints.save_before(step)
        raise RunError(
            f"the GPU ran out of memory in step {step + 1}; lower learn.micro_batch_tokens, "
            f"sample.engine.max_num_seqs or "
            f"sample.max_tokens, or set model.gradient_checkpointing{saved}"
        ) from error
