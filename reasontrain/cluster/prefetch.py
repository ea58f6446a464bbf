"""Sample one step ahead: while the learner trains on a batch, samplers generate the next one.

The next batch is sampled with the weights from before the update, so it is one step off-policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import ray

from reasontrain.cluster.roles import SeparateSamplers
from reasontrain.data.sampling import Sampling
from reasontrain.types import LostError, Prompt, Rollout, Weights

Request = tuple[Sequence[Prompt], int]
"""Prompts, and the id of their first rollout."""


@dataclass(frozen=True)
class _Pending:
    first_id: int
    refs: list[ray.ObjectRef]


class PrefetchingSampler:
    """A sampler that generates the next step's rollouts in advance.

    A request out of order, for example after a recovery, is sampled on demand.
    """

    def __init__(self, samplers: SeparateSamplers, after: Callable[[int], Request | None]) -> None:
        """Create the sampler.

        Args:
            samplers: The processes that sample.
            after: Maps the id of a step's first rollout to the request of the next step, or to None
                after the last step.
        """
        self.samplers = samplers
        self.after = after
        self._pending: _Pending | None = None

    @property
    def version(self) -> int:
        """The version of the weights that the next request is sampled with."""
        return self.samplers.version

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        """Return the requested rollouts, prefetched ones if possible, and prefetch the next step.

        Args:
            prompts: The encoded prompts.
            sampling: Temperature, truncation and stop criteria.
            num: Rollouts per prompt.
            first_id: The id of the first rollout.

        Returns:
            `len(prompts) * num` rollouts, prompt by prompt.
        """
        pending = self._pending
        self._pending = None
        rollouts = (
            self._collect(pending) if pending is not None and pending.first_id == first_id else None
        )
        if rollouts is None:
            rollouts = self.samplers.sample(prompts, sampling, num=num, first_id=first_id)
        upcoming = self.after(first_id)
        if upcoming is not None:
            next_prompts, next_id = upcoming
            self._pending = _Pending(
                next_id, self.samplers.begin(next_prompts, sampling, num=num, first_id=next_id)
            )
        return rollouts

    def load(self, weights: Weights) -> None:
        """Load new weights once pending rollouts are done.

        A busy sampler does not join the broadcast, and the learner would run into its timeout.
        """
        if self._pending is not None:
            with suppress(LostError):  # `load` finds and restarts a dead sampler
                self.samplers.group.wait(self._pending.refs)
        self.samplers.load(weights)

    def _collect(self, pending: _Pending) -> list[Rollout] | None:
        """The pending rollouts; None if a sampler died while it generated them."""
        try:
            return self.samplers.collect(pending.refs)
        except LostError as error:
            if not self.samplers.group.is_alive(error.rank):
                self.samplers.revive(error)
            return None
