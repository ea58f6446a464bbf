"""What every selection rule promises: the rules of the union by default, and variants."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import floats, integers

from reasontrain.algo.evidence import EVIDENCE
from reasontrain.algo.keep_ratio_schedule import LinearSchedule
from reasontrain.algo.token_selection import (
    AdvantageEntropy,
    AllTokens,
    Contrast,
    Eaft,
    FireOpd,
    FirstSegment,
    Paced,
    Prior,
    SelectionRule,
    SelecTkd,
    ShuffledWeights,
    SsToken,
    Stapo,
    Tip,
    TisDpo,
    TokenSelection,
    TopEntropy,
)

RULES: tuple[type[SelectionRule], ...] = get_args(SelectionRule)
"""Every rule: a new one is in all tests below by its name in the union."""
MODES = (
    "soft_or",
    "q3",
    "entropy_sample",
    "entropy_topk",
    "divergence",
    "bottom",
    "teachability",
    "compatibility",
)
NORMALISES_NOTHING = ("entropy_sample", "entropy_topk", "divergence", "compatibility")
SCOPES = ("step", "rollout")


def keeps_a_share(rule: type[SelectionRule]) -> bool:
    """A rule with a `keep_ratio` weighs tokens 0 or 1."""
    return "keep_ratio" in {f.name for f in fields(rule)}


def with_ratio(rule: type[SelectionRule], keep_ratio: float) -> SelectionRule:
    """The rule by default, with this share, fixed where it has a schedule."""
    scheduled = isinstance(rule().keep_ratio, LinearSchedule)
    return rule(keep_ratio=LinearSchedule(init=keep_ratio) if scheduled else keep_ratio)


def every_selector(keep_ratio: float) -> list[TokenSelection]:
    """Every rule that weighs tokens 0 or 1, by default and in its other ways."""
    defaults = [with_ratio(rule, keep_ratio) for rule in RULES if keeps_a_share(rule)]
    tips = [
        Tip(mode=mode, keep_ratio=keep_ratio, stats_scope=stats, top_scope=top)
        for mode in MODES
        for stats in SCOPES
        for top in SCOPES
    ]
    ramp = LinearSchedule(init=keep_ratio)
    d3s = [
        AdvantageEntropy(keep_ratio=ramp, top_scope=top, drop_zero=drop)
        for top in SCOPES
        for drop in (keep_ratio < 1, False)
    ]
    gated = [
        SsToken(keep_ratio=keep_ratio, gamma=gamma, warmup=0.0, gate=0.0)
        for gamma in (0.0, 0.5, 1.0)
    ]
    ranked = SsToken(keep_ratio=keep_ratio, norm="rank", detrend=True)
    shuffled = [
        ShuffledWeights(of=rule)
        for rule in (Tip(keep_ratio=keep_ratio), TopEntropy(keep_ratio=keep_ratio))
    ]
    rules = [AllTokens(), *defaults, *tips, *d3s, *gated, ranked, *shuffled]
    return list(dict.fromkeys(rules))


FRACTIONAL: list[TokenSelection] = [
    *(rule() for rule in RULES if not keeps_a_share(rule) and rule is not AllTokens),
    Prior(mode="flipped", floor=0.1),
    Prior(mode="contrast"),
    Contrast(only_neg=False),
    ShuffledWeights(of=Prior()),
    Eaft(alpha=2.0, divisor=1.0),
    SelecTkd(rejected=0.0),
    FirstSegment(tokens=3),
    Paced(scale="mean_one"),
    FireOpd(drop=0.0, normalise="rollout"),
    TisDpo(mode="rank"),
]
"""Rules whose weights are not 0 and 1, and depend on the evidence's unit."""


def name(selector: TokenSelection) -> str:
    """A readable test id."""
    match selector:
        case Tip():
            return f"tip-{selector.mode}-{selector.stats_scope}-{selector.top_scope}"
        case SsToken():
            return f"sstoken-{selector.gamma}-{selector.norm}"
        case Prior():
            return f"prior-{selector.mode}"
        case AdvantageEntropy():
            return f"advantage_entropy-{selector.top_scope}"
        case ShuffledWeights():
            return f"shuffled-{selector.of.kind}"
        case Paced() | FireOpd() | FirstSegment() | SelecTkd() | Eaft() | TisDpo():
            values = {f.name: (getattr(selector, f.name), f.default) for f in fields(selector)}
            changed = [str(value) for value, default in values.values() if value != default]
            return "-".join([selector.kind, *changed])
        case _:
            return selector.kind


PER_ROLLOUT = {
    "all",
    "random",
    "contrast",
    "advantage_entropy-rollout",
    *(f"tip-{mode}-rollout-rollout" for mode in MODES),
    *(f"tip-{mode}-step-rollout" for mode in NORMALISES_NOTHING),
    *(f"sstoken-{gamma}-minmax" for gamma in (0.0, 0.5, 1.0)),
    "sstoken-0.5-rank",
    *(f"prior-{mode}" for mode in ("prior", "flipped", "contrast")),
    "shuffled-prior",
    "dft",
    "eaft",
    "eaft-2.0-1.0",
    "iw_opd",
    "selectkd",
    "selectkd-0.0",
    "first_segment",
    "first_segment-3",
    "tis_dpo",
    "tis_dpo-rank",
}
"""Rules that rank or normalise within each rollout, and so need no other rollout."""


def mixes_units(selector: TokenSelection) -> bool:
    """ssToken adds a share of attention, which has no unit, to excess loss, and its gate is in
    nats.
    """
    return isinstance(selector, SsToken) and selector.gamma == 0.5


def drops_zero(selector: TokenSelection) -> bool:
    """D3S drops tokens without a gradient even where that leaves fewer than its share."""
    return isinstance(selector, AdvantageEntropy) and selector.drop_zero


each = pytest.mark.parametrize("selector", [*every_selector(0.4), *FRACTIONAL], ids=name)
each_at_40_percent = pytest.mark.parametrize("selector", every_selector(0.4), ids=name)
few = settings(max_examples=8, deadline=None)


@pytest.mark.parametrize(
    "selector", [s for s in every_selector(1.0) if not drops_zero(s)], ids=name
)
@given(seed=integers(0, 10_000))
@few
def test_keeping_everything_is_the_response_mask(steps, selector, seed):
    batch = steps.random(seed)
    torch.testing.assert_close(selector(batch), batch.is_response_BT.float(), rtol=0, atol=0)


@each
@given(seed=integers(0, 10_000), left=integers(0, 3), right=integers(0, 3), turn=integers(0, 4))
@few
def test_a_layout_changes_nothing(steps, selector, seed, left, right, turn):
    batch = steps.random(seed)
    other = steps.padded(batch.take(torch.arange(5).roll(turn)), left, right)
    assert steps.chosen(other, selector(other)) == steps.chosen(batch, selector(batch))


@pytest.mark.parametrize(
    "selector", [s for s in every_selector(0.4) if not mixes_units(s)], ids=name
)
@given(seed=integers(0, 10_000), power=integers(-3, 3))
@few
def test_the_unit_of_the_evidence_changes_nothing(steps, selector, seed, power):
    batch = steps.random(seed)  # powers of two, so that no rounding can part or join two scores
    other = steps.scaled(batch, 2.0**power)
    assert steps.chosen(other, selector(other)) == steps.chosen(batch, selector(batch))


def parts(batch, cut):
    """The step in two: rollouts 0 to cut, and the rest."""
    return batch.take(torch.arange(0, cut)), batch.take(torch.arange(cut, 5))


@pytest.mark.parametrize(
    "selector",
    [s for s in [*every_selector(0.4), *FRACTIONAL] if name(s) in PER_ROLLOUT],
    ids=name,
)
@given(seed=integers(0, 10_000), cut=integers(1, 4))
@few
def test_a_rule_that_ranks_within_rollouts_needs_no_other_rollout(steps, selector, seed, cut):
    batch = steps.random(seed)
    torch.testing.assert_close(
        torch.cat([selector(part) for part in parts(batch, cut)]), selector(batch), rtol=0, atol=0
    )


@pytest.mark.parametrize(
    "selector",
    [s for s in [*every_selector(0.4), *FRACTIONAL] if name(s) not in PER_ROLLOUT],
    ids=name,
)
def test_any_other_rule_compares_rollouts(steps, selector):
    if isinstance(selector, Tip):  # at 0.98 few tokens are clipped, and small steps rarely differ
        selector = replace(selector, clip_quantile=0.5)
    batches = (steps.random(seed) for seed in range(100))
    if isinstance(selector, Stapo):  # few tokens are spurious, and none without a reward
        selector = replace(selector, max_probability=0.9, entropy_quantile=0.5)
        batches = (replace(batch, advantage_B=-batch.advantage_B) for batch in batches)
    assert any(
        not torch.equal(torch.cat([selector(part) for part in parts(batch, 2)]), selector(batch))
        for batch in batches
    )


@each
@given(seed=integers(0, 10_000), progress=floats(0, 1))
@few
def test_no_more_is_kept_than_the_stated_share(steps, selector, seed, progress):
    batch = replace(steps.random(seed), progress=progress)
    share, length_B = selector.kept_share(progress), batch.is_response_BT.sum(1)
    kept = int((selector(batch) != 0).sum())
    # one token more of each rollout, which rounding up and the least of one token may add
    assert kept <= share * int(length_B.sum()) + int((length_B > 0).sum())
    if selector in every_selector(0.4) and not drops_zero(selector):
        assert kept >= share * int(length_B.sum()) - int((length_B > 0).sum())


def test_a_rule_that_keeps_a_share_states_it():
    """Rho-1, say, whose share a plan must know."""
    for rule in RULES:
        if keeps_a_share(rule):
            assert with_ratio(rule, 0.25).kept_share(0.5) == 0.25, rule
    ramp = AdvantageEntropy(keep_ratio=LinearSchedule(init=0.1, final=0.5))
    assert (ramp.kept_share(0.0), ramp.kept_share(1.0)) == (0.1, 0.5)
    assert ShuffledWeights(of=ramp).kept_share(1.0) == 0.5


@each
def test_the_stated_needs_are_enough_and_are_all_needed(steps, selector):
    assert selector.required_evidence <= EVIDENCE.keys()
    batch = steps.random(1)
    needed = {column: batch.evidence[column] for column in selector.required_evidence}
    enough = replace(batch, evidence=needed)
    torch.testing.assert_close(selector(enough), selector(batch), rtol=0, atol=0)
    for missing in selector.required_evidence:
        less = replace(
            batch,
            progress=1.0,  # no rule reads all of its evidence in a warm-up
            evidence={column: values for column, values in needed.items() if column != missing},
        )
        with pytest.raises(LookupError, match=missing):
            selector(less)


@each_at_40_percent
def test_weights_are_float32_zeros_and_ones_without_a_graph(steps, selector):
    batch = steps.random(2)
    batch = replace(
        batch,
        evidence={
            column: values.clone().requires_grad_() for column, values in batch.evidence.items()
        },
    )
    weight_BT = selector(batch)
    assert weight_BT.dtype == torch.float32
    assert not weight_BT.requires_grad
    assert set(weight_BT.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("selector", FRACTIONAL, ids=name)
def test_fractional_weights_are_not_negative_and_have_no_graph(steps, selector):
    batch = steps.random(2)
    learnt = {column: values.clone().requires_grad_() for column, values in batch.evidence.items()}
    weight_BT = selector(replace(batch, evidence=learnt))
    assert weight_BT.dtype == torch.float32
    assert not weight_BT.requires_grad
    assert weight_BT.isfinite().all()
    assert (weight_BT >= 0).all()
    assert not weight_BT[~batch.is_response_BT].any()


@each
def test_a_step_without_a_response_keeps_nothing(steps, selector):
    nothing = [[float("nan")] * 3] * 2
    batch = steps.of([[1, 1, 0], [1, 4, 3]], **dict.fromkeys(EVIDENCE, nothing))
    torch.testing.assert_close(selector(batch), torch.zeros(2, 3), rtol=0, atol=0)
