"""Rows of claims: what they resolve to, and every way in which one is refused; the shipped table is
fair.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from reasontrain.claims.settings import read_claims, run_of, suite_of
from reasontrain.claims.verdict import check_disjoint
from reasontrain.recipe import RecipeError, as_mapping
from reasontrain.tasks.arithmetic import Arithmetic
from reasontrain.types import UserError

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "recipes/claims.yaml"
ROW = """
paper: P
claim: C
recipe: base.yaml
arms:
  top: {set: {token_selection: {kind: tip, keep_ratio: 0.5}}}
  all: {set: {token_selection: {kind: all}}}
  random: {set: {token_selection: {kind: random, keep_ratio: 0.5}}}
  shuffled: {set: {token_selection: {kind: shuffled, of: {kind: tip, keep_ratio: 0.5}}}}
difference: {of: top, minus: all}
equal_mass: [top, random, shuffled]
rates: [1.0e-3, 3.0e-4]
seeds: [0, 1, 2]
evaluate:
  suites:
    - {name: dev, task: {kind: arithmetic, split: train, num_problems: 40}}
    - {name: held, task: {kind: arithmetic, split: test, num_problems: 40}, num_samples: 2}
development: dev
measure: {kind: accuracy, suite: held}
"""
RECIPE = """
name: base
steps: 2
model: {path: "testbed:student"}
teacher: {path: "testbed:teacher"}
task: {kind: arithmetic}
sample: {max_tokens: 16}
objective: {kind: distill}
loss_aggregation: seq_mean_token_mean
learn: {lr: 1.0, rollouts_per_step: 4}
"""


def table(where: Path, *overrides: str) -> Path:
    """A folder with a recipe and a table of one row, with `key.path=value` changed."""
    (where / "base.yaml").write_text(RECIPE)
    row = yaml.safe_load(ROW)
    for key, _, value in (override.partition("=") for override in overrides):
        *parents, last = key.split(".")
        node = row
        for parent in parents:
            node = node[parent]
        node[last] = yaml.safe_load(value)
    (where / "claims.yaml").write_text(yaml.safe_dump({"rows": {"one": row}}, sort_keys=False))
    return where / "claims.yaml"


def test_an_arm_is_its_recipe_with_the_rows_rate_seed_and_suites(tmp_path: Path):
    row = read_claims(table(tmp_path, "set={steps: 3}"))["one"]
    recipe = run_of(tmp_path, row, "shuffled", rate=3e-4, seed=2, out="x")
    assert (
        recipe.steps,
        recipe.learn.lr,
        recipe.seed,
        recipe.out,
        recipe.token_selection.kind,
    ) == (3, 3e-4, 2, "x", "shuffled")
    assert suite_of(recipe, "held").num_samples == 2


def test_a_run_is_named_by_what_decides_it(tmp_path: Path):
    row = read_claims(table(tmp_path))["one"]
    names = {
        run_of(tmp_path, row, arm, rate=rate, seed=seed, out="x").name
        for arm in row.arms
        for rate in row.rates
        for seed in (0, 1)
    }
    assert len(names) == 4 * 2 * 2
    same = read_claims(
        table(
            tmp_path,
            "arms.all.set.token_selection={kind: tip, mode: soft_or, keep_ratio: 0.5}",
            "claim=D",
        )
    )["one"]
    first, second = (
        run_of(tmp_path, row, arm, rate=1e-3, seed=0, out=out).name
        for arm, out in (("top", "x"), ("top", "y"))
    )
    assert (
        first == second == run_of(tmp_path, same, "all", rate=1e-3, seed=0, out="x").name
    )  # soft_or is the default mode


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["difference.of=tpo"], "one: difference.of: there is no arm 'tpo'; did you mean `top`?"),
        (["difference.minus=top"], "one: difference: an arm is compared with itself, 'top'"),
        (
            ["equal_mass=[top, rest]"],
            "one: equal_mass: there is no arm 'rest'; there is top, all, random, shuffled",
        ),
        (
            ["equal_mass=[top, all]"],
            "one: equal_mass: these arms must keep the same share of the tokens, found top "
            "0.5, all 1",
        ),
        (
            [
                "arms.shuffled.set.token_selection="
                "{kind: shuffled, of: {kind: tip, keep_ratio: 0.2}}"
            ],
            "must keep the same share of the tokens, found top 0.5, random 0.5, shuffled 0.2",
        ),
        (
            ["seeds=[0, 1]"],
            "rows.one.seeds: Tuple should have at least 3 items after validation, not 2",
        ),
        (["seeds=[0, 1, 1]"], "one: seeds: one of 0, 1, 1 is repeated; each value counts once"),
        (["rates=[0.001, 0.001]"], "one: rates: one of 0.001, 0.001 is repeated"),
        (
            ["development=held"],
            "one: development: choose rates on a suite other than the measured one",
        ),
        (
            ["measure.suite=heldout"],
            "one: measure.suite: the recipe of arm 'top' has no suite 'heldout'; did you "
            "mean `held`?",
        ),
        (
            ["development=x"],
            "one: development: the recipe of arm 'top' has no suite 'x'; there is dev, held",
        ),
        (
            ["evaluate=null"],
            "one: development: the recipe of arm 'top' has no suite 'dev'; there is none",
        ),
        (
            ["measure={kind: pass, suite: held, k: 4}"],
            "one: measure.k: 4 needs as many samples, and num_samples of held is 2",
        ),
        (
            ["measure={kind: saving, suite: held}"],
            "one: measure: a saving is read from a curve; set `evaluate.every`",
        ),
        (
            ["arms.top.set={learn.lr: 0.1}"],
            "one: arms.top.set: learn.lr must be the same for every arm; set it in the row",
        ),
        (
            ["arms.top.set={steps: 3}"],
            "one: steps: all arms must spend the same, found top 3, all 2, random 2, shuffled 2",
        ),
        (
            ["arms.all.set={sample.group_size: 2}"],
            "sample.group_size: all arms must spend the same, found top 1, all 2",
        ),
        (["arms.all.recipe=other.yaml"], "one: there is no file"),
        (["arms.all.set={token_selection.kepe: 1}"], "token_selection: `kind` is needed"),
        (["measure.kind=speed"], "no such kind 'speed'"),
        (["arms={top: {}}"], "should have at least 2 items"),
    ],
)
def test_a_wrong_row_is_refused_in_a_sentence(tmp_path: Path, overrides: list[str], fault: str):
    with pytest.raises(RecipeError) as refused:
        read_claims(table(tmp_path, *overrides))
    assert fault in str(refused.value)


def test_a_row_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="has no row 'ome'; did you mean `one`"):
        read_claims(table(tmp_path), ["ome"])


def test_a_suite_that_shares_a_problem_with_the_held_out_ones_is_refused(tmp_path: Path):
    row = read_claims(table(tmp_path))["one"]
    check_disjoint(run_of(tmp_path, row, "top", rate=1e-3, seed=0, out="x"), row)
    shared = {"kind": "arithmetic", "split": "test", "num_problems": 3}
    row = read_claims(
        table(
            tmp_path,
            f"evaluate.suites=[{{name: dev, task: {shared}}}, {{name: held, task: {shared}}}]",
        )
    )["one"]
    with pytest.raises(UserError, match="suites 'dev' and 'held' share 3 problems, such as "):
        check_disjoint(run_of(tmp_path, row, "top", rate=1e-3, seed=0, out="x"), row)


def controls(token_selection: object) -> set[str]:
    """Arms that a rule must be compared with: a rule that keeps no share, but weighs, has its own
    weights shuffled.
    """
    match token_selection:
        case {"kind": "all"}:
            return set()
        case {"keep_ratio": _}:
            return {"random", "shuffled"}
        case _:
            return {"shuffled"}


def test_the_shipped_rows_are_fair():
    """Rows share their problems, and held-out ones are slow to make: suites are compared once."""
    compared = set()
    for name, row in read_claims(TABLE).items():
        recipe = run_of(
            TABLE.parent, row, row.difference.of, rate=row.rates[0], seed=row.seeds[0], out="x"
        )
        chosen, decides = (
            suite_of(recipe, suite) for suite in (row.development, row.measure.suite)
        )
        problems = (chosen.task, chosen.limit, decides.task, decides.limit)
        if problems not in compared:
            check_disjoint(recipe, row)
            assert isinstance(decides.task, Arithmetic)
            assert decides.task.num_problems >= 1000, name
            assert decides.limit is None or decides.limit >= 1000, name
            compared.add(problems)
        assert controls(as_mapping(recipe)["token_selection"]) <= {*row.equal_mass}, name
