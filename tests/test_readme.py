"""README: its recipe, its method table, its example rule and the table of claims.

`tests/docs` checks what holds for all documents.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
import yaml

from reasontrain.algo.advantages import NoAdvantage
from reasontrain.claims.sweep import ClaimsTable
from reasontrain.data.collate import collate
from reasontrain.recipe import Recipe, Zero, build
from reasontrain.recipe.validation import validation_errors
from reasontrain.types import Problem, Rollout

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXTENDING = (ROOT / "docs/extending.md").read_text()
IMPORTS = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar, Literal
from jaxtyping import Float
from torch import Tensor
from reasontrain.types import Batch, Probability
"""


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_recipe_is_valid_alone_and_with_the_cluster_section() -> None:
    alone, chat, scaled = map(yaml.safe_load, blocks(README, "yaml"))
    assert validation_errors(build(Recipe, chat, "README.md")) == []
    recipe = build(Recipe, alone, "README.md")
    assert recipe.required_evidence == {"entropy", "old_logp", "ref_logp"}
    larger = build(
        Recipe,
        alone | {"cluster": scaled["cluster"], "learn": alone["learn"] | scaled["learn"]},
        "README.md",
    )
    assert validation_errors(larger) == []
    assert larger.learn.zero == Zero(stage=3, offload_optimizer="cpu")


def test_the_method_table_names_recipes() -> None:
    rows = re.findall(r"^\| \[.*?\]\(docs/methods/.*?\| (.*?) \|", README, re.MULTILINE)
    assert len(rows) == 6
    for name in re.findall(r"`([\w./]+)`", " ".join(rows)):
        assert (ROOT / "recipes" / f"{name}.yaml").exists(), name


def test_the_example_rule_runs_and_both_documents_show_the_same() -> None:
    (rule,), (same,) = blocks(README, "python"), blocks(EXTENDING, "python")
    assert rule == same
    names: dict[str, type] = {}
    exec(IMPORTS + rule, names)
    logp = (-0.1, -2.0, -0.5)  # probabilities 0.90, 0.14, 0.61
    rollout = Rollout(
        problem=Problem(id="a", prompt=""),
        id=0,
        group=0,
        prompt_ids=(1, 2),
        response_ids=(3, 4, 5),
        sampled_logp=logp,
    )
    weight_BT = names["Surprise"](below=0.5)(collate([rollout], advantage=NoAdvantage()))
    assert torch.equal(weight_BT, torch.tensor([[0.0, 0, 0, 1, 0]]))


def test_the_table_of_claims_is_what_the_records_say() -> None:
    table = ClaimsTable(ROOT / "recipes/claims.yaml")
    assert table.page.read_text() == table.text()
