"""Image models answer as they are scored: prompts of several lengths decode together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from reasontrain import models
from reasontrain.data.images import draw_shapes
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.data.sampling import Sampling
from reasontrain.models import ModelSettings, Policy
from reasontrain.models.testbed_vision import BUILDERS
from reasontrain.sampler.local import LocalSampler
from reasontrain.types import Problem, Rollout

ONE = Problem(
    id="one", prompt="What is it?", image=draw_shapes([("red", "circle"), ("blue", "square")])
)
TWO = replace(
    ONE,
    id="two",
    prompt="And what do you see here?",
    image=draw_shapes([("green", "triangle"), ("black", "circle")]),
)
OTHER = replace(ONE, id="other", image=TWO.image)


def sharpened(name: str, where: Path) -> Policy:
    """A tiny model whose attention depends on positions by more than rounding."""
    BUILDERS[name](where)
    found = models.load(ModelSettings(path=str(where)))
    with torch.no_grad():
        for key, weight in found.model.named_parameters():
            if "language_model" in key and ("q_proj.weight" in key or "k_proj.weight" in key):
                weight *= 12
    return found


@torch.no_grad()
def scored(policy: Policy, rollout: Rollout) -> torch.Tensor:
    """Log-probs of a response by one forward over the whole."""
    ids = torch.tensor([[*rollout.prompt_ids, *rollout.response_ids]])
    hidden = policy.hidden(
        ids, position=torch.arange(ids.shape[1])[None], images=[rollout.problem.image]
    )
    logp = policy.head.logits(hidden[0]).log_softmax(-1)[len(rollout.prompt_ids) - 1 : -1]
    return logp.gather(1, torch.tensor(rollout.response_ids)[:, None])[:, 0]


@pytest.mark.parametrize("name", BUILDERS)
def test_sampled_log_probs_are_those_of_one_forward(name: str, tmp_path: Path) -> None:
    policy = sharpened(name, tmp_path / name)
    prompts, _ = Encoder(policy.tokenizer, PromptSettings(), policy.context, policy.vision).prompts(
        [ONE, TWO, OTHER]
    )
    assert len(prompts[0].ids) < len(prompts[1].ids)
    assert prompts[0].ids == prompts[2].ids
    sampler = LocalSampler(
        policy, seed=3, max_num_seqs=4
    )  # six rollouts: some wait, and join others under way
    found = sampler.sample(prompts, Sampling(max_tokens=12), num=2, first_id=0)
    for rollout in found:
        assert_close(torch.tensor(rollout.sampled_logp), scored(policy, rollout), rtol=0, atol=1e-4)
    seen = replace(found[4], problem=ONE)
    assert not torch.allclose(
        scored(policy, seen), scored(policy, found[4]), atol=1e-4
    )  # the image is read, not its place
