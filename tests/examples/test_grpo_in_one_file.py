"""The one-file GRPO gives the package's advantages, loss and gradient norm on the same batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from examples import grpo_in_one_file as example
from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.learner.factory import make_learner
from reasontrain.recipe import read_recipe
from tests.examples.package_batch import batch_of

RECIPE = Path(__file__).parents[2] / "recipes/tiny/grpo.yaml"


def test_loss_and_gradient_norm_are_those_of_the_package() -> None:
    recipe = read_recipe(RECIPE)
    batch = batch_of(recipe.advantage, num_problems=4, group_size=4)
    model = AutoModelForCausalLM.from_pretrained(example.MODEL, dtype=torch.float32)

    advantage_B = example.advantages(batch.reward_B, group_size=4)
    assert_close(advantage_B, batch.advantage_B, rtol=1e-5, atol=0.0)
    assert not advantage_B[-4:].any(), "a group whose rewards all agree earns nothing"

    # Old log-probs at a distance, so that ratios leave [0.8, 1.2] and the clip acts.
    with torch.no_grad():
        logp_BT = example.token_logps(model, batch.ids_BT)
    old_logp_BT = logp_BT + 0.3 * torch.randn(
        logp_BT.shape, generator=torch.Generator().manual_seed(0)
    )

    ratio_N = (logp_BT - old_logp_BT)[batch.is_response_BT].exp()
    assert ((ratio_N - 1).abs() > example.CLIP_LOW).double().mean() > 0.1

    objective = example.loss(model, batch.ids_BT, batch.is_response_BT, advantage_B, old_logp_BT)
    objective.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), example.MAX_GRAD_NORM)

    batch = batch.with_evidence({"old_logp": old_logp_BT})
    stats = make_learner(recipe).step(
        batch,
        recipe.token_selection(batch),
        recipe.objective,
        LOSS_AGGREGATIONS[recipe.loss_aggregation],
    )
    assert objective.item() == pytest.approx(stats["loss"], rel=1e-5)
    assert norm.item() == pytest.approx(stats["grad_norm"], rel=1e-5)


def test_two_steps_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(example, "STEPS", 2)
    monkeypatch.setattr(example, "PROBLEMS_PER_STEP", 2)
    monkeypatch.setattr(example, "GROUP_SIZE", 4)
    monkeypatch.setattr(example, "MAX_TOKENS", 60)
    example.main()
    assert capsys.readouterr().out.count("gradient norm") == 2
