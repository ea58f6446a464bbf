"""The canary is silent where trainer and sampler are one model, and stops the run where they are
not.
"""

from __future__ import annotations

import pytest
import torch

from reasontrain.cluster.canary import Canary
from reasontrain.learner.factory import compose_learner
from reasontrain.models import Policy
from reasontrain.recipe import LearnSettings
from reasontrain.sampler.local import LocalSampler
from reasontrain.types import Problem, Prompt, RunError, Weights
from tests import tiny

PROMPT = Prompt(problem=Problem(id="a", prompt=""), ids=(5, 6, 7))


def sure(seed: int) -> Policy:
    """A model that is sure of what it says: of near-uniform ones no two differ by 0.01."""
    policy = tiny.policy(seed=seed)
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.mul_(8)
    return policy


def canary(
    *, seed: int = 0, every: int = 1, temperature: float = 0.7
) -> tuple[Canary, LocalSampler]:
    """A learner with the model of seed 0, and a sampler with that of `seed`."""
    learner = compose_learner(
        sure(0), LearnSettings(lr=1e-3, rollouts_per_step=1), steps=1, temperature=temperature
    )
    sampler = LocalSampler(sure(seed), seed=0, max_num_seqs=8)
    return Canary(learner, PROMPT, temperature, every, 0.01), sampler


def test_the_same_model_passes() -> None:
    sing, sampler = canary()
    sing(sampler)


def test_another_model_stops_the_run() -> None:
    sing, sampler = canary(seed=1)
    with pytest.raises(RunError) as error:
        sing(sampler)
    text = str(error.value)
    assert text.startswith(
        "after version 0 the sampler is not the model that learns: the probabilities of "
    )
    assert text.endswith("more than cluster.canary_gap = 0.01")


def test_another_temperature_is_another_model() -> None:
    sing, sampler = canary(temperature=0.7)
    cold = Canary(sing.learner, PROMPT, 0.3, 1, 0.01)
    with pytest.raises(RunError, match="not the model that learns"):
        cold(sampler)


@pytest.mark.parametrize(
    ("every", "version", "sings"), [(0, 0, False), (3, 2, False), (3, 3, True), (1, 5, True)]
)
def test_it_sings_as_often_as_it_is_told(every: int, version: int, sings: bool) -> None:
    sing, sampler = canary(seed=1, every=every)
    sampler.load(Weights(version, lambda: iter(sure(1).model.named_parameters())))
    if not sings:
        sing(sampler)
        return
    with pytest.raises(RunError, match=f"after version {version} the sampler is not"):
        sing(sampler)
