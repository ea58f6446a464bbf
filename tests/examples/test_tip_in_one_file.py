"""The one-file TIP selects the package's tokens and gives its loss and gradient norm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from examples import tip_in_one_file as example
from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.learner.factory import make_learner
from reasontrain.recipe import read_recipe
from tests.examples.package_batch import batch_of

RECIPE = Path(__file__).parents[2] / "recipes/tiny/tip.yaml"


def test_selection_loss_and_gradient_norm_are_those_of_the_package() -> None:
    recipe = read_recipe(RECIPE)
    batch = batch_of(recipe.advantage, num_problems=12, group_size=2)
    student, teacher = (
        AutoModelForCausalLM.from_pretrained(example.MODELS / name, dtype=torch.float32)
        for name in ("student", "teacher")
    )

    with torch.no_grad():
        teacher_logp_BTV = example.token_distributions(teacher, batch.ids_BT)
        entropy_BT, kl_BT = example.evidence(
            example.token_distributions(student, batch.ids_BT), teacher_logp_BTV
        )
    weight_BT = example.select(entropy_BT, kl_BT, batch.is_response_BT, example.KEEP_RATIO)
    objective = example.loss(student, teacher_logp_BTV, batch.ids_BT, weight_BT)
    objective.backward()
    norm = torch.nn.utils.clip_grad_norm_(student.parameters(), example.MAX_GRAD_NORM)

    learner = make_learner(recipe)
    batch = learner.observe(batch, recipe.required_evidence)
    for keep_ratio in (0.1, 0.2, example.KEEP_RATIO):
        rule = replace(recipe.token_selection, keep_ratio=keep_ratio)
        package_weight_BT = rule(batch)
        weight_BT = example.select(entropy_BT, kl_BT, batch.is_response_BT, keep_ratio)
        assert torch.equal(weight_BT, package_weight_BT)
    stats = learner.step(
        batch,
        package_weight_BT,
        recipe.objective,
        LOSS_AGGREGATIONS[recipe.loss_aggregation],
    )
    assert objective.item() == pytest.approx(stats["loss"], rel=1e-5)
    assert norm.item() == pytest.approx(stats["grad_norm"], rel=1e-5)


def test_two_steps_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(example, "STEPS", 2)
    monkeypatch.setattr(example, "ROLLOUTS_PER_STEP", 4)
    monkeypatch.setattr(example, "MAX_TOKENS", 60)
    example.main()
    assert capsys.readouterr().out.count("gradient norm") == 2
