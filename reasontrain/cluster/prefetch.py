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

    A request out of order, as after a recovery, is sampled when it comes.
    """

    def __init__(self, samplers: SeparateSamplers, after: Callable[[int], Request | None]) -> None:
        """Create it.

        Args:
            samplers: The processes that sample.
            after: The request of the step that follows the one whose first rollout has this id;
                None after the last step.
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
        """Return the requested rollouts, prefetched if possible, and start on the next request.

        Args:
            prompts: the encoded prompts of this step.
            sampling: temperature, truncation and stop criteria, also of the next request.
            num: rollouts per prompt, which form a group; also of the next request.
            first_id: id of the first rollout. It identifies the request: prefetched rollouts are
                used if theirs is the same.

        Returns:
            `len(prompts) * num` rollouts in the order of prompts. Prefetched ones are by the
            weights from before the last update.

        Raises:
            UserError: a prompt leaves no room for a response.
            LostError: a learner rank died while it sent weights to a restarted sampler.
            RunError: a sampler died and no restart is left, or weights changed on their way to it.
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
        """Pending rollouts, or None if a sampler died over them."""
        try:
            return self.samplers.collect(pending.refs)
        except LostError as error:
            if not self.samplers.group.is_alive(error.rank):
                self.samplers.revive(error)
            return None
