"""What the documents say is so: commands parse, the recipe is one, the example rule runs, links
lead somewhere.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

from reasontrain.algo.advantages import NoAdvantage
from reasontrain.claims.sweep import ClaimsTable
from reasontrain.cli.arguments import parser
from reasontrain.data.collate import collate
from reasontrain.recipe import Recipe, Zero, build
from reasontrain.recipe.validation import validation_errors
from reasontrain.types import Problem, Rollout

ROOT = Path(__file__).parents[1]
README, GUIDE = ((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))
COMMANDS = re.findall(r"^reasontrain [^|\n]*$", README, re.MULTILINE)
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


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_parses(command: str) -> None:
    options = parser().parse_args(shlex.split(re.split("[#>]", command)[0])[1:])
    assert callable(options.run)
    for path in re.findall(r"recipes/\S+\.yaml", command):
        assert (ROOT / path).exists()


def test_there_are_commands_to_parse() -> None:
    assert len(COMMANDS) == 9


def test_the_recipe_of_the_readme_is_one() -> None:
    block, scaled = map(yaml.safe_load, blocks(README, "yaml"))
    recipe = build(Recipe, block, "README.md")
    assert recipe.required_evidence == {"entropy", "old_logp", "ref_logp"}
    larger = build(
        Recipe,
        block | {"cluster": scaled["cluster"], "learn": block["learn"] | scaled["learn"]},
        "README.md",
    )
    assert validation_errors(larger) == []
    assert larger.learn.zero == Zero(stage=3, offload_optimizer="cpu")


def test_the_example_rule_runs_and_both_documents_show_the_same() -> None:
    (rule,), (same,) = blocks(README, "python"), blocks(GUIDE, "python")
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


@pytest.mark.parametrize("text", [README, GUIDE], ids=["README", "CONTRIBUTING"])
def test_links_and_named_files_exist(text: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    named = re.findall(r"`((?:tests|reasontrain|recipes)/[\w/.]+\.\w+)`", text)
    for path in links + named:
        assert (ROOT / path).exists(), path


def test_the_table_of_claims_is_what_the_records_say() -> None:
    table = ClaimsTable(ROOT / "recipes/claims.yaml")
    assert table.page.read_text() == table.text()
