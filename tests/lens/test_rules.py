"""Rules computed again from what a run recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from reasontrain.algo.evidence import EVIDENCE
from reasontrain.algo.keep_ratio_schedule import LinearSchedule
from reasontrain.algo.token_selection import (
    AdvantageEntropy,
    AllTokens,
    Contrast,
    Random,
    ShuffledWeights,
    SsToken,
    Tip,
    TopEntropy,
)
from reasontrain.algo.token_selection.rules import SelectionRule
from reasontrain.algo.token_selection.tis_dpo import TisDpo
from reasontrain.lens.recorded import batch_of, read_rollouts
from reasontrain.lens.rules import label, parse_rule, rules_beside, weights
from reasontrain.lens.steps import TRAINED, view_step
from reasontrain.recipe import read_recipe
from reasontrain.types import UserError

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = """
from dataclasses import dataclass

@dataclass(frozen=True, kw_only=True)
class Own:
    keep_ratio: int = 3
    reads: str = "kl_reverse"

    @property
    def required_evidence(self):
        return frozenset({self.reads})
    def kept_share(self, progress):
        return 1.0
    def __call__(self, batch):
        column_BT = batch.evidence[self.reads] if self.reads == "entropy" else batch.kl_reverse_BT
        if self.reads == "entropy":
            raise ValueError("no")
        return column_BT
"""
RULES = [kind() for kind in get_args(SelectionRule)]
RULES += [Tip(mode="entropy_sample"), Tip(top_scope="step"), ShuffledWeights(of=Random())]


@pytest.mark.parametrize("rule", RULES, ids=label)
def test_a_rule_keeps_offline_what_it_kept_in_training(record, rule):
    """Random draws, schedules, ranks over the step and pairs included; prompts differ in length."""
    paired = isinstance(rule, Contrast | TisDpo)
    run = record("run", rule, steps=(1, 6), paired=paired, recipe="dpo" if paired else "tip")
    recipe = read_recipe(run / "recipe.yaml")
    for step in (1, 6):
        rollouts = read_rollouts(run / f"tokens/step-{step}.jsonl")
        trained, again = view_step(step, rollouts, [rule], recipe).rules
        assert (trained.name, again.name, again.reason) == (TRAINED, label(rule), "")
        assert trained.kept > 0
        for one, other in zip(trained.weight, again.weight, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-4)  # files have five decimals
            assert ((one != 0) == (other != 0)).all()
        assert again.overlap == 1


def test_dropped_rollouts_take_no_part(record):
    """They have no evidence: ranks over the step are those of the others."""
    run = record("run", TopEntropy(), dropped=(1, 4))
    rollouts = read_rollouts(run / "tokens/step-1.jsonl")
    view = view_step(1, rollouts, [TopEntropy()], None)
    assert view.rules[1].overlap == 1
    assert [weight.any() for weight in view.rules[1].weight] == [
        weight.any() for weight in view.rules[0].weight
    ]
    assert not view.rules[1].weight[1].any()
    assert len(view.rules[1].weight[4]) == len(rollouts[4].kinds)


def test_missing_evidence_and_a_rule_that_fails_are_reasons(record):
    run = record("run", TopEntropy())
    batch = batch_of(read_rollouts(run / "tokens/step-1.jsonl"))
    assert weights(Tip(), batch) == "the run did not record kl_reverse"
    assert weights(SsToken(), batch).startswith("the run did not record attention")
    batch.evidence["entropy"][0, -3:] = float("nan")
    batch.evidence["entropy"][1, 5] = float("nan")
    assert "entropy" in weights(TopEntropy(), batch)
    nothing = batch_of([])
    assert weights(TopEntropy(), nothing) == "every recorded rollout was dropped"


def ranked(rules):
    """Those of the rules that the test names by hand; later ones join the default too."""
    return [
        rule for rule in rules if isinstance(rule, Tip | Random | TopEntropy | AdvantageEntropy)
    ]


def test_without_a_choice_every_rule_with_evidence_is_shown_at_the_runs_ratio():
    recipe = read_recipe(ROOT / "recipes/tiny/tip.yaml", ["token_selection.keep_ratio=0.3"])
    recorded = frozenset({"entropy", "kl_reverse", "sampled_logp"})
    shown = rules_beside(recipe, recorded)
    assert all(rule.required_evidence <= recorded for rule in shown)
    assert ranked(shown) == [
        recipe.token_selection,
        Random(keep_ratio=0.3),
        TopEntropy(keep_ratio=0.3),
    ]
    with_advantages = read_recipe(ROOT / "recipes/tiny/grpo.yaml")
    assert ranked(rules_beside(with_advantages, frozenset({"entropy"}))) == [
        Random(),
        TopEntropy(),
        AdvantageEntropy(),
    ]
    schedule = read_recipe(
        ROOT / "recipes/tiny/grpo.yaml",
        ["token_selection={kind: advantage_entropy, keep_ratio: {init: 0.1, final: 0.4}}"],
    )
    assert ranked(rules_beside(schedule, frozenset({"entropy"}))) == [
        AdvantageEntropy(keep_ratio=LinearSchedule(init=0.1, final=0.4)),
        Random(keep_ratio=0.4),
        TopEntropy(keep_ratio=0.4),
    ]
    assert ranked(rules_beside(None, frozenset())) == [Random()]


def test_rules_that_read_what_no_rollout_has_are_left_out():
    """Advantages, verdicts and pairs are no evidence, but rules read them."""
    everything = frozenset(EVIDENCE)
    kinds = {
        name: {rule.kind for rule in rules_beside(recipe, everything)}
        for name, recipe in {
            name: read_recipe(ROOT / f"recipes/tiny/{name}.yaml")
            for name in ("grpo", "tip", "dft", "dpo")
        }.items()
    }
    of_advantages = {"advantage_entropy", "stapo", "clip_cov"}
    of_pairs = {"contrast", "tis_dpo"}
    special = {name: kind & (of_advantages | of_pairs | {"paced"}) for name, kind in kinds.items()}
    assert special == {
        "grpo": of_advantages | {"paced"},
        "tip": {"paced"},
        "dft": set(),
        "dpo": of_pairs,
    }


def test_a_rule_of_a_plugin_is_computed_or_says_what_it_lacks(record, tmp_path):
    (tmp_path / "own.py").write_text(PLUGIN)
    rule = parse_rule(f"{{kind: '{tmp_path}/own.py:Own', keep_ratio: 3}}")
    run = record("run", TopEntropy())
    batch = batch_of(read_rollouts(run / "tokens/step-1.jsonl"))
    assert weights(rule, batch) == "the run did not record kl_reverse"
    fails = parse_rule(f"{{kind: '{tmp_path}/own.py:Own', reads: entropy}}")
    reason = weights(fails, batch)
    assert "own.py, line 17: Own raised ValueError: no" in reason
    assert "Traceback" not in reason
    recipe = replace(read_recipe(ROOT / "recipes/tiny/tip.yaml"), token_selection=rule)
    assert Random() in rules_beside(recipe, frozenset({"entropy"})), "3 is no ratio"


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Tip(), "tip"),
        (Tip(mode="q3", keep_ratio=0.2), "tip mode=q3 keep_ratio=0.2"),
        (AdvantageEntropy(), "advantage_entropy"),
        (
            AdvantageEntropy(keep_ratio=LinearSchedule(init=0.3)),
            "advantage_entropy keep_ratio=0.3",
        ),
        (
            AdvantageEntropy(keep_ratio=LinearSchedule(init=0.3, final=0.6)),
            "advantage_entropy keep_ratio=0.3→0.6",
        ),
        (ShuffledWeights(of=Tip(mode="q3")), "shuffled of=tip mode=q3"),
    ],
)
def test_a_name_states_what_differs_from_the_defaults(rule, text):
    assert label(rule) == text


def test_two_rules_of_one_name_are_told_apart(record):
    run = record("run", TopEntropy())
    rollouts = read_rollouts(run / "tokens/step-1.jsonl")
    view = view_step(1, rollouts, [TopEntropy(), TopEntropy(), AllTokens()], None)
    assert [rule.name for rule in view.rules] == [
        TRAINED,
        "top_entropy",
        "top_entropy #2",
        "all",
    ]


def test_a_rule_is_written_as_in_a_recipe():
    assert parse_rule("top_entropy") == TopEntropy()
    assert parse_rule("{kind: tip, mode: q3, keep_ratio: 0.2}") == Tip(mode="q3", keep_ratio=0.2)
    shuffled = parse_rule("{kind: shuffled, of: {kind: random, keep_ratio: 0.1}}")
    assert shuffled == ShuffledWeights(of=Random(keep_ratio=0.1))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("top_entrop", "top_entropy"),
        ("{kind: tip, keep_ratio: 2}", "keep_ratio"),
        ("{kind: tip, keep: 0.2}", "keep"),
        ("{kind: tip", "is not YAML"),
        ("[tip]", "expected the kind of a rule"),
        ("0.5", "expected the kind of a rule"),
        ("", "expected the kind of a rule"),
        ("{keep_ratio: 0.2}", "kind"),
    ],
)
def test_a_wrong_rule_is_one_clear_error(text, reason):
    with pytest.raises(UserError, match=reason) as raised:
        parse_rule(text)
    assert "--rule" in str(raised.value)
