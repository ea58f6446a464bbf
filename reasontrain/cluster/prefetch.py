"""Sampling one step ahead: while a batch is learned from, the next one is sampled with the weights
from before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import ray

from reasontrain.cluster.roles import SeparateSamplers
from reasontrain.data.sampling import Sampling
from reasontrain.types import LostError, Prompt, Rollout, Weights

Asked = tuple[Sequence[Prompt], int]
"""Prompts, and the id of their first rollout."""


@dataclass(frozen=True)
class _Pending:
    first_id: int
    refs: list[ray.ObjectRef]


class PrefetchingSampler:
    """A sampler that has the next step's rollouts under way; what it is asked out of order, it
    samples then.
    """

    def __init__(self, samplers: SeparateSamplers, after: Callable[[int], Asked | None]) -> None:
        """`after` gives what comes after the step whose first rollout has this id, or None after
        the last.
        """
        self.samplers, self.after = samplers, after
        self._pending: _Pending | None = None

    @property
    def version(self) -> int:
        """The weights that the next request is answered with."""
        return self.samplers.version

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        """What was begun before, where it is what is asked for; and begin what comes after it."""
        pending, self._pending = self._pending, None
        rollouts = (
            self._collect(pending) if pending is not None and pending.first_id == first_id else None
        )
        if rollouts is None:
            rollouts = self.samplers.sample(prompts, sampling, num=num, first_id=first_id)
        upcoming = self.after(first_id)
        if upcoming is not None:
            asked, next_id = upcoming
            self._pending = _Pending(
                next_id, self.samplers.begin(asked, sampling, num=num, first_id=next_id)
            )
        return rollouts

    def load(self, weights: Weights) -> None:
        """New weights, once the rollouts under way are done: the learner's end of the line would
        give up on a busy sampler.
        """
        if self._pending is not None:
            with suppress(LostError):  # who died is found again, and started again, by the load
                self.samplers.group.wait(self._pending.refs)
        self.samplers.load(weights)

    def _collect(self, pending: _Pending) -> list[Rollout] | None:
        """Rollouts under way, or None where a sampler died over them."""
        try:
            return self.samplers.collect(pending.refs)
        except LostError as error:
            if not self.samplers.group.is_alive(error.rank):
                self.samplers.revive(error)
            return None
