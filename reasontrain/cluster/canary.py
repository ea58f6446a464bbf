"""A check in every step that the samplers have the learner's weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from reasontrain.algo.advantages import NoAdvantage
from reasontrain.data.collate import collate
from reasontrain.data.sampling import Sampling
from reasontrain.learner import Learner
from reasontrain.metrics.step import sampler_mismatch
from reasontrain.recipe import Cluster, Recipe, is_due
from reasontrain.run.directory import RunDirectory
from reasontrain.sampler import Sampler
from reasontrain.types import Batch, Prompt, Rollout, RunError, Stats

logger = logging.getLogger(__name__)

ROLLOUTS = 8
"""The most rollouts of a step that are scored, which bounds the cost."""
PROBE_TOKENS = 32
"""Tokens of a rollout that is sampled for the check alone."""
METRIC = "canary_gap"
FLOORS = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 1e-2}
"""Mean gaps in nats that rounding in a dtype can give to any model; smaller ones are no sign."""


@dataclass
class Canary:
    """Compare log-probs of samplers and learner, in nats, on rollouts of the step.

    Two implementations of one model differ by rounding, and by how much depends on the model: the
    first gap of a run, at version 0 of the weights, is the baseline. Weights that did not arrive
    show as a gap that grows with every step.

    Attributes:
        learner: scores the rollouts.
        sampler: samples rollouts for the check alone where those of the step do not serve: they
            were sampled one step ahead, or with truncation or at another temperature than the
            learner's, whose log-probs are of another law.
        sampling: as the step samples; None if rollouts are written and not sampled.
        temperature: the temperature at which the learner scores.
        every: check every that many steps; 0: never.
        limit: the largest mean gap of any run.
        ratio: the largest mean gap as a multiple of the baseline.
        dtype: the dtype of the models.
        ahead: rollouts of a step were sampled before the last update.
        baseline: the mean gap at the start of the run; None until it is known.
    """

    learner: Learner
    sampler: Sampler
    sampling: Sampling | None
    temperature: float
    every: int
    limit: float
    ratio: float
    dtype: torch.dtype
    ahead: bool = False
    baseline: float | None = None

    def before(self, step: int, prompts: Sequence[Prompt]) -> Stats:
        """Check before a step is sampled, if its rollouts come from older weights.

        Args:
            step: the step, counted from 0.
            prompts: the prompts of the step.

        Returns:
            The gap, or nothing.

        Raises:
            RunError: the samplers have other weights than the learner.
        """
        if not self.ahead or not self._is_due(step):
            return {}
        return self._check(self._probe(prompts))

    def after(self, step: int, prompts: Sequence[Prompt], rollouts: Sequence[Rollout]) -> Stats:
        """Check after a step was sampled (see `before`).

        Args:
            step: the step, counted from 0.
            prompts: the prompts of the step.
            rollouts: its rollouts.
        """
        if self.ahead or not self._is_due(step):
            return {}
        if self.can_use(step, rollouts[:ROLLOUTS]):
            return self._check(rollouts[:ROLLOUTS])
        return self._check(self._probe(prompts))

    def can_use(self, step: int, rollouts: Sequence[Rollout]) -> bool:
        """True if a check is due and the rollouts of the step serve for it.

        They do if they were sampled with the current weights, without truncation, at the
        temperature at which the learner scores, and have tokens alone.
        """
        return (
            not self.ahead
            and self._is_due(step)
            and self.sampling is not None
            and self.sampling.thought is None
            and self.sampling.temperature == self.temperature
            and all(rollout.sampled_logp for rollout in rollouts)
        )

    def observed(self, batch: Batch) -> Stats:
        """Check with the log-probs that the learner measured as evidence.

        Args:
            batch: what is left of the step's rollouts, with `old_logp`.

        Returns:
            The gap, or nothing if no token is left.

        Raises:
            RunError: the samplers have other weights than the learner.
        """
        mismatch = sampler_mismatch(batch)
        if not mismatch:
            return {}
        return self._judge(mismatch["sampler_gap_mean"], int(batch.is_response_BT.sum()))

    def _is_due(self, step: int) -> bool:
        return is_due(self.every, step)

    def _probe(self, prompts: Sequence[Prompt]) -> list[Rollout]:
        """Short rollouts from the whole distribution."""
        plain = Sampling(temperature=self.temperature, max_tokens=PROBE_TOKENS)
        return self.sampler.sample(prompts[:ROLLOUTS], plain, num=1, first_id=0)

    def _check(self, rollouts: Sequence[Rollout]) -> Stats:
        """Compare the two log-probs of these rollouts' tokens."""
        scored = [replace(rollout, reward=0.0) for rollout in rollouts if rollout.response_ids]
        batch = self.learner.observe(
            collate(scored, advantage=NoAdvantage()), frozenset({"old_logp"})
        )
        return self.observed(batch)

    def _judge(self, gap: float, num_tokens: int) -> Stats:
        """Compare the mean gap of these tokens, in nats, with the limit."""
        if self.baseline is None:
            self.baseline = gap
            logger.info(f"samplers and learner differ by {gap:.3g} nats per token at the start")
        limit = min(self.limit, max(self.ratio * self.baseline, FLOORS[self.dtype]))
        if not gap <= limit:  # also true for NaN
            raise RunError(
                f"at version {self.sampler.version} the sampler is not the model that learns: the "
                f"log-probs of {num_tokens} tokens differ by "
                f"{gap:.3g} nats in the mean, more than {limit:.3g} (at the start "
                f"{self.baseline:.3g}; see cluster.canary_ratio and canary_gap)"
            )
        return {METRIC: gap}


def canary_of(
    recipe: Recipe, directory: RunDirectory, learner: Learner, sampler: Sampler
) -> Canary | None:
    """The check of a run; one that is resumed keeps the baseline of its first step.

    None if nothing is sampled, or if the sampler decodes with the learner's own weights.

    Args:
        recipe: without a cluster, the cluster's defaults apply.
        directory: the run directory, with the gaps of earlier steps.
        learner: the run's learner.
        sampler: the run's sampler.
    """
    cluster = recipe.cluster or Cluster()
    is_shared = not cluster.samplers and recipe.engine.capabilities.shares_policy
    if is_shared or not recipe.samples:
        return None
    gaps = (row[METRIC] for row in directory.read_metrics() if METRIC in row)
    return Canary(
        learner,
        sampler,
        recipe.sample,
        temperature=recipe.temperature or 1.0,
        every=cluster.canary_every,
        limit=cluster.canary_gap,
        ratio=cluster.canary_ratio,
        dtype=getattr(torch, recipe.model.dtype),
        ahead=bool(cluster.overlap),
        baseline=next(gaps, None),
    )
