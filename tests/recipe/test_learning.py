"""Recipes with several optimiser steps per batch: what goes together, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasontrain.recipe import read_recipe
from reasontrain.run.build import warn_of_rounding
from reasontrain.types import UserError

TINY = Path(__file__).parents[2] / "recipes" / "tiny"


def fault(recipe: str, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        read_recipe(TINY / f"{recipe}.yaml", overrides)
    return str(error.value)


@pytest.mark.parametrize("recipe", ["grpo", "tip", "cdpo", "sstoken"])
def test_ratios_distillation_likelihood_and_pairs_may_take_several(recipe: str) -> None:
    learn = read_recipe(
        TINY / f"{recipe}.yaml", ["learn.updates_per_batch=4", "learn.epochs_per_batch=2"]
    ).learn
    assert learn.mini_batches == 2


AHEAD = "cluster={samplers: 1, overlap: 1}"


@pytest.mark.parametrize(
    ("overrides", "source"),
    [
        ([], "sampler"),
        (["learn.old_logp=learner"], "learner"),
        (["sample.top_p=0.9"], "learner"),
        (["sample.top_k=5"], "learner"),
        (["sample.min_p=0.1"], "learner"),
        (["learn.updates_per_batch=2"], "learner"),
        (["model.dtype=bfloat16"], "learner"),
        (["objective={kind: gspo}"], "learner"),
        (["correction.kind=truncate"], "learner"),
        ([AHEAD, "correction.kind=mask"], "learner"),
        ([AHEAD], "sampler"),
        ([AHEAD, "model.dtype=bfloat16", "objective={kind: gspo}"], "sampler"),
        (["learn.old_logp=sampler", "model.dtype=bfloat16"], "sampler"),
        (["learn.old_logp=sampler", "objective={kind: gspo}"], "sampler"),
    ],
)
def test_old_log_probs_are_the_learners_where_rounding_or_updates_would_count(
    overrides: list[str], source: str
) -> None:
    recipe = read_recipe(TINY / "grpo.yaml", overrides)
    assert recipe.reuses_sampled_logp == (source == "sampler")
    assert ("old_logp" in recipe.measured_evidence) == (source == "learner")


@pytest.mark.parametrize(
    ("overrides", "source"),
    [
        ([], "sampler"),
        (["sample.temperature=0.7"], "learner"),
        (["sample.temperature=0"], "learner"),
        (["sample.thought={tau: 0.7, max_tokens: 20, max_answer_tokens: 20}"], "learner"),
    ],
)
def test_log_probs_of_another_temperature_than_the_policy_is_scored_at_are_not_reused(
    overrides: list[str], source: str
) -> None:
    """Distillation scores at 1, and its rules compare `old_logp` with the teacher there."""
    rule = ["token_selection={kind: iw_opd}", *overrides]
    recipe = read_recipe(TINY / "opd.yaml", rule)
    assert recipe.reuses_sampled_logp == (source == "sampler")
    assert ("old_logp" in recipe.measured_evidence) == (source == "learner")
    if source == "learner":
        message = fault("opd", *rule, "learn.old_logp=sampler")
        assert "learn.old_logp: the sampler's log-probs are those at its temperature" in message


@pytest.mark.parametrize(
    ("overrides", "warns"),
    [
        (["learn.old_logp=sampler", "model.dtype=bfloat16", "objective={kind: gspo}"], True),
        ([AHEAD, "model.dtype=bfloat16", "objective={kind: gspo}"], True),
        (["model.dtype=bfloat16", "objective={kind: gspo}"], False),
        (["learn.old_logp=sampler", "objective={kind: gspo}"], False),
        (["learn.old_logp=sampler", "model.dtype=bfloat16"], False),
    ],
)
def test_narrow_bounds_on_the_samplers_rounding_are_warned_of(
    overrides: list[str], warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_rounding(read_recipe(TINY / "grpo.yaml", overrides))
    assert ("gspo divides by the sampler's log-probs" in caplog.text) == warns


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        (
            "grpo",
            ["learn.updates_per_batch=3"],
            "learn.updates_per_batch: 256 rollouts of a step do not divide into 3 equal",
        ),
        (
            "cdpo",
            ["learn.updates_per_batch=4", "learn.rollouts_per_step=12"],
            "learn.updates_per_batch: 6 pairs of a step do not divide into 4 equal mini-batches",
        ),
        (
            "grpo",
            ["learn.updates_per_batch=4", "learn.epochs_per_batch=3"],
            "learn.updates_per_batch: 4 is not a multiple of learn.epochs_per_batch 3",
        ),
        (
            "grpo",
            ["learn.epochs_per_batch=2"],
            "learn.epochs_per_batch: 2 passes over a batch need as many updates",
        ),
        (
            "grpo",
            ["learn.updates_per_batch=2", "objective={kind: reinforce}"],
            "learn.updates_per_batch: reinforce is right only for rollouts of the weights",
        ),
        (
            "grpo",
            ["learn.old_logp=sampler", "sample.top_p=0.9"],
            "learn.old_logp: with top_p, top_k or min_p the sampler draws from another",
        ),
        (
            "grpo",
            ["learn.old_logp=sampler", "correction.kind=truncate"],
            "learn.old_logp: `correction` compares the learner's log-probs with the sampler's",
        ),
        (
            "tip",
            ["correction.kind=truncate"],
            "correction: distill recomputes its divergence under the current weights",
        ),
        (
            "sft",
            ["correction.kind=mask"],
            "correction: nll learns from written responses, which have no sampler",
        ),
        (
            "soft_tokens",
            ["correction.kind=mask"],
            "correction: `mask` needs old_logp, sampled_logp, which are defined per token",
        ),
        (
            "iw_opd",
            ["correction.kind=mask"],
            "correction: sampled_distill is no policy gradient of rewards",
        ),
        (
            "iw_opd",
            ["sample.temperature=0.7"],
            "objective: sampled_distill needs tokens drawn from the student's own distribution",
        ),
        (
            "iw_opd",
            ["sample.top_k=5"],
            "objective: sampled_distill needs tokens drawn from the student's own distribution",
        ),
        (
            "iw_opd",
            ["sample=null"],
            "objective: sampled_distill needs tokens drawn from the student's own distribution",
        ),
        (
            "iw_opd",
            ["learn.updates_per_batch=2"],
            "objective: after the first update of a batch, the tokens of sampled_distill",
        ),
        (
            "paced",
            ["rollout_filter={kind: random, scope: group, keep_ratio: {init: 0.5}}"],
            "rollout_filter: paced measures how often the answers to a prompt are right, and "
            "random leaves a part",
        ),
        (
            "paced",
            [
                "token_selection={kind: shuffled, of: {kind: paced}}",
                "advantage.kind=mean_centred",
                "rollout_filter.kind=gfpo",
            ],
            "rollout_filter: paced measures how often the answers to a prompt are right, and gfpo",
        ),
        (
            "sft",
            ["loss_aggregation=seq_mean_token_sum_norm"],
            "loss_aggregation: seq_mean_token_sum_norm divides by sample.max_tokens",
        ),
        (
            "grpo",
            ["objective={kind: grpo, reference_kl: 0.1, kl_estimator: exact}"],
            "teacher: the objective grpo needs a teacher; set `teacher.path`",
        ),
        (
            "grpo",
            ["overlong={buffer: 120}"],
            "overlong.buffer: 120 tokens before a limit of sample.max_tokens 120 would punish",
        ),
        (
            "grpo",
            ["sample.refill_rounds=2", AHEAD],
            "sample.refill_rounds: the groups of a step are known when it is sampled",
        ),
        ("tip", ["sample.refill_rounds=2"], "sample.refill_rounds: replaces groups of equal"),
        ("tip", ["token_advantage.kind=gtpo"], "token_advantage: gtpo compares advantages; add"),
        ("tip", ["token_selection.kind=stapo"], "token_selection: stapo compares advantages; add"),
        ("tip", ["rollout_filter.kind=gfpo"], "rollout_filter: gfpo compares advantages; add"),
        ("sft", ["overlong={buffer: 4}"], "overlong: demonstrations have no reward; remove"),
        (
            "sft",
            ["reward_combination={kind: weighted, weights: {tokens: -1}}"],
            "reward_combination: demonstrations have no reward; remove",
        ),
        (
            "grpo",
            ["reward_combination={kind: lexicographic, order: [correct, -tokens, -form]}"],
            "reward_combination: a task of kind arithmetic has no form; it has correct, reward, "
            "tokens",
        ),
        (
            "grpo",
            [
                "task={kind: python, path: r.py, problems_path: p.jsonl}",
                "sample.environment={kind: python, path: e.py, name: E}",
                "reward_combination={kind: weighted, weights: {form: 1}}",
            ],
            "reward_combination: an environment has no form; it has correct, reward, tokens",
        ),
        ("grpo", ["correction={kind: mask, floor: 3}"], "floor 3 is not below cap 3"),
        (
            "soft_tokens",
            ["learn.updates_per_batch=2"],
            "learn.updates_per_batch: soft_reinforce is right only for rollouts of the weights",
        ),
        (
            "grpo",
            ["steps=2", "learn.updates_per_batch=4", "learn.warmup_steps=8"],
            "learn.warmup_steps: 8 must be less than the 8 optimiser steps of the run",
        ),
        (
            "grpo",
            ["learn.updates_per_batch=2", "cluster={learners: 1, samplers: 1, overlap: 1}"],
            "cluster.overlap: rollouts sampled one step ahead are older still",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    recipe: str, overrides: list[str], message: str
) -> None:
    assert message in fault(recipe, *overrides)


def test_warm_up_counts_optimiser_steps() -> None:
    recipe = read_recipe(
        TINY / "grpo.yaml", ["steps=2", "learn.updates_per_batch=4", "learn.warmup_steps=7"]
    )
    assert recipe.learn.warmup_steps == 7
