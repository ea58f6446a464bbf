"""A run that is killed by SIGKILL at any moment ends with the weights of one that was not."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from reasontrain.models.testbed import TinyShape, build
from tests.stages.test_run import LEARN, RECIPE, write_solutions

ROOT = Path(__file__).resolve().parents[2]
TWO_UPDATES = LEARN.replace("}", ", updates_per_batch: 2}")
WITH_STAGES = RECIPE.replace(f"learn: {LEARN}\ntrack", f"learn: {TWO_UPDATES}\ntrack")
SAMPLED = f"""
name: run
steps: 6
model: {{path: ../model}}
task: {{kind: arithmetic, num_problems: 50}}
sample: {{max_tokens: 8, group_size: 2}}
advantage: {{kind: group_normalized}}
objective: {{kind: grpo}}
loss_aggregation: token_mean
learn: {TWO_UPDATES}
evaluate:
  every: 3
  suites: [{{name: heldout, limit: 4, sampling: {{max_tokens: 4}}}}]
"""
SAVES = "checkpoint: {every: 1, keep: 1}\ntrack: {tensorboard: false, tokens_every: 2}\n"
RECIPES = {
    "stages": WITH_STAGES.replace("track: {tokens_every: 2}\n", SAVES),
    "sampled": SAMPLED + SAVES,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipes, a tiny model and solutions beside it."""
    where = tmp_path_factory.mktemp("killed")
    width = {"hidden_size": 32, "intermediate_size": 48, "head_dim": 16}
    build(
        where / "model",
        TinyShape(**width, num_layers=1, num_heads=2, num_key_value_heads=1, seed=1),
    )
    work = where / "work"
    work.mkdir()
    write_solutions(work / "solutions.jsonl")
    for name, text in RECIPES.items():
        assert "every: 1" in text
        assert "updates_per_batch: 2" in text
        (work / f"{name}.yaml").write_text(text)
    return work


def train(place: Path, recipe: str, out: str, kills: list[str]) -> list[dict[str, object]]:
    """Run a recipe with these kills; the record of each attempt."""
    log = place / "killed.jsonl"
    log.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.killed", f"{recipe}.yaml", out, *kills],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in log.read_text().splitlines()]


def weights(out: Path) -> dict[str, str]:
    """Hashes of the final weights, of the run and of each of its stages."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("final/*.safetensors")
    }


def assert_same_bits(place: Path, recipe: str, chains: list[list[str]]) -> list[str]:
    """Run once without a kill, and once with each chain of kills.

    Returns:
        The moments at which processes died.
    """
    expected = weights(place / f"straight-{recipe}")
    assert len(expected) == (3 if recipe == "stages" else 1)
    moments: list[str] = []
    for number, kills in enumerate(chains):
        out = f"killed-{recipe}-{number}"
        *deaths, end = train(place, recipe, out, kills)
        assert (len(deaths), end["code"]) == (len(kills), 0)
        assert weights(place / out) == expected, (kills, deaths)
        moments += [str(death["died"]) for death in deaths]
    assert any(".partial-" in moment for moment in moments), moments
    return moments


def num_events(place: Path, recipe: str) -> int:
    """Events of the run without a kill."""
    (straight,) = train(place, recipe, f"straight-{recipe}", [])
    events = straight["events"]
    assert isinstance(events, int)
    return events


def test_killed_twice_it_ends_with_the_same_bits(place: Path) -> None:
    """In a stage, and while a checkpoint is saved."""
    assert num_events(place, "stages") > 100
    assert_same_bits(place, "stages", [["40", "saving:9"]])


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_at_ten_moments_it_ends_with_the_same_bits(place: Path, recipe: str) -> None:
    """One in each tenth of the run, and one more while a checkpoint is saved."""
    draw = random.Random(recipe)
    events = num_events(place, recipe)
    chains = [[str(int(events * (tenth + draw.random()) / 10) + 1)] for tenth in range(10)]
    chains[5].append(f"saving:{draw.randint(1, 8)}")
    print(recipe, events, *assert_same_bits(place, recipe, chains), sep="\n")
