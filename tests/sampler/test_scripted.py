"""The sampler that tests use in place of a model."""

from __future__ import annotations

import pytest

from reasontrain.data.sampling import Sampling
from reasontrain.sampler import Sampler
from reasontrain.sampler.scripted import ScriptedSampler
from reasontrain.types import Weights


def test_it_says_what_it_was_told(tiny: type) -> None:
    prompts = tiny.prompts(3, 5)
    sampler: Sampler = ScriptedSampler(
        {"p3": [(1, 2), (3,)], "p5": [(4, 5, 6, 7)]}, decode=str, logp=-0.5
    )
    rollouts = sampler.sample(prompts, Sampling(max_tokens=3), num=3, first_id=10)
    assert [(r.id, r.group, r.response_ids, r.truncated) for r in rollouts] == [
        (10, 10, (1, 2), False),
        (11, 10, (3,), False),
        (12, 10, (1, 2), False),
        (13, 13, (4, 5, 6), True),
        (14, 13, (4, 5, 6), True),
        (15, 13, (4, 5, 6), True),
    ]
    assert rollouts[0].sampled_logp == (-0.5, -0.5)
    assert rollouts[0].text == "(1, 2)"
    assert rollouts[3].prompt_ids == prompts[1].ids
    assert sampler.sample(prompts[:1], Sampling(), num=1, first_id=0)[0].response_ids == (
        3,
    )  # the script goes on


def test_weights_move_its_version_only() -> None:
    sampler = ScriptedSampler({}, decode=str)
    sampler.load(Weights(version=7, tensors=lambda: iter([])))
    assert sampler.version == 7


def test_a_problem_without_a_script_is_our_mistake(tiny: type) -> None:
    with pytest.raises(AssertionError, match="no response to problem p3"):
        ScriptedSampler({}, decode=str).sample(tiny.prompts(3), Sampling(), num=1, first_id=0)
