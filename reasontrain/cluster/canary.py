"""A short rollout scored by learner and sampler: if they disagree, their weights differ."""

from __future__ import annotations

from dataclasses import dataclass

from reasontrain.algo.advantages import NoAdvantage
from reasontrain.data.collate import collate
from reasontrain.data.sampling import Sampling
from reasontrain.learner import Learner
from reasontrain.recipe import is_due
from reasontrain.sampler import Sampler
from reasontrain.types import Prompt, RunError

TOKENS = 16


@dataclass(frozen=True)
class Canary:
    """Compare learner and sampler every `every` versions of the weights.

    `prompt` is sampled at the temperature at which the learner scores. `limit` bounds the mean
    absolute difference of token probabilities.
    """

    learner: Learner
    prompt: Prompt
    temperature: float
    every: int
    limit: float

    def __call__(self, sampler: Sampler) -> None:
        """Raise RunError if the mean difference of token probabilities is above the limit."""
        if not is_due(self.every, sampler.version):
            return
        sampling = Sampling(temperature=self.temperature, max_tokens=TOKENS)
        rollout = sampler.sample([self.prompt], sampling, num=1, first_id=0)
        batch = self.learner.observe(
            collate(rollout, advantage=NoAdvantage()), frozenset({"old_logp"})
        )
        learner_N, sampler_N = (
            column_BT[batch.is_response_BT].exp()
            for column_BT in (batch.old_logp_BT, batch.sampled_logp_BT)
        )
        gap = float((learner_N - sampler_N).abs().mean())
        if not gap <= self.limit:  # also true for NaN
            raise RunError(
                f"after version {sampler.version} the sampler is not the model that "
                f"learns: the probabilities of {len(learner_N)} "
                f"tokens differ by {gap:.3g} in the mean, more than cluster.canary_gap = "
                f"{self.limit:g}"
            )
