"""Settings that change nothing are refused or named, and no shipped recipe has one."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasontrain.recipe import RecipeError, read_recipe, unused_settings

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(set(FOLDER.rglob("*.yaml")) - {FOLDER / "claims.yaml"})


def test_no_shipped_recipe_has_one() -> None:
    assert {
        path.name: lines for path in RECIPES if (lines := unused_settings(read_recipe(path)))
    } == {}


@pytest.mark.parametrize(
    ("stem", "overrides", "line"),
    [
        (
            "sft",
            ["teacher={path: testbed:teacher}"],
            "teacher: all and nll compare with no teacher",
        ),
        ("sft", ["reference={path: x}"], "reference: all and nll compare with no reference"),
        ("prior", ["token_selection={kind: all}"], "unconditional: all and nll read no"),
        ("sft", ["importance={layer: -2}"], "importance: all and nll read no `attention`"),
        ("sft", ["learn.final_lr_share=0.1", "learn.schedule=constant"], "learn.final_lr_share: "),
        ("tip", ["learn.old_logp=learner"], "learn.old_logp: distill has no ratio"),
        ("grpo", ["objective.kl_estimator=k2"], "objective.kl_estimator: `reference_kl` is 0"),
        ("grpo", ["objective.penalised_tokens=all"], "objective.penalised_tokens: the objective"),
        (
            "tip",
            ["sample.group_size=4", "advantage.kind=mean_centred", "token_advantage.kind=gtpo"],
            "token_advantage: distill is no policy gradient",
        ),
        ("tip", ["track.project=mine"], "track.project: `track.service` names no service"),
        ("tip", ["track={tokens_every: 0, tokens_rollouts: 4}"], "track.tokens_rollouts: "),
        ("tip", ["cluster={canary_gap: 1}"], "cluster.canary_every, canary_gap, canary_ratio: "),
        ("sft", ["evaluate=null", "cluster={graders: 2}"], "cluster.graders: nothing is sampled"),
        (
            "tip",
            ["cluster={learners: 2}", "learn.zero={stage: 2, persist_below: 1}"],
            "learn.zero.persist_below: it is for stage 3",
        ),
        (
            "tip",
            ["cluster={learners: 2}", "learn.zero={nvme_path: /x}"],
            "learn.zero.nvme_path: nothing is moved to nvme",
        ),
        (
            "grpo",
            ["task={kind: math, path: x, split: test}"],
            "task.split: it is of a hub data set",
        ),
        (
            "grpo",
            ["evaluate.suites.0.task={kind: math, path: x, subset: a}"],
            "evaluate.suites.0.task.subset: ",
        ),
        (
            "grpo",
            ["evaluate.suites.0.file=x.jsonl"],
            "evaluate.suites.0.file: it is for a `task` of kind math or gsm8k",
        ),
        ("grpo", ["evaluate.suites.0.sha256=a"], "evaluate.suites.0.sha256: it is of the suite's"),
        ("tip", ["sample.temperature=0", "sample.top_k=5"], "sample.top_k: temperature 0 takes"),
        (
            "cdpo",
            ["token_selection={kind: all}", "evidence={}"],
            "stages.4: nothing reads what the stage score",
        ),
    ],
)
def test_it_is_named(stem: str, overrides: list[str], line: str) -> None:
    recipe = read_recipe(FOLDER / "tiny" / f"{stem}.yaml", overrides)
    assert [unused for unused in unused_settings(recipe) if unused.startswith(line)] != []


@pytest.mark.parametrize(
    ("stem", "overrides", "line"),
    [
        (
            "prior",
            ["evidence={uncond_logp: x}"],
            "evidence: uncond_logp is not read from a file, but made before the run",
        ),
        (
            "cdpo",
            ["token_selection={kind: all}"],
            "evidence: neither all nor dpo reads ce_logscore; remove it",
        ),
        (
            "grpo",
            [
                "rollout_filter={kind: random, keep_ratio: {init: 0.05}}",
                "learn.rollouts_per_step=64",
                "learn.updates_per_batch=4",
            ],
            "rollout_filter.keep_ratio: 3 of the 64 rollouts of a step are kept, fewer than its 4 "
            "mini-batches",
        ),
        (
            "grpo",
            [
                "rollout_filter={kind: chain, filters: [{kind: random, scope: group, keep_ratio: "
                "{init: 0.5}}, {kind: random, keep_ratio: {init: 0.1}}]}",
                "learn.rollouts_per_step=64",
                "learn.updates_per_batch=4",
            ],
            "rollout_filter.keep_ratio: 3 of the 64 rollouts of a step are kept",
        ),
    ],
)
def test_it_is_refused(stem: str, overrides: list[str], line: str) -> None:
    with pytest.raises(RecipeError) as error:
        read_recipe(FOLDER / "tiny" / f"{stem}.yaml", overrides)
    assert line in str(error.value)
