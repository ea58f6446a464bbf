"""What every selector promises, whatever its rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers

from reasontrain.algo.evidence import EVIDENCE
from reasontrain.algo.token_selection import (
    AdvantageEntropy,
    AllTokens,
    LinearSchedule,
    Prior,
    Random,
    ShuffledWeights,
    SsToken,
    Tip,
    TokenSelection,
    TopEntropy,
)

MODES = ("soft_or", "q3", "entropy_sample", "entropy_topk", "divergence", "bottom", "teachability")
SCOPES = ("step", "rollout")


def every_selector(keep_ratio: float) -> list[TokenSelection]:
    """Each rule in each of its ways."""
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
    rules = [
        AllTokens(),
        Random(keep_ratio=keep_ratio),
        TopEntropy(keep_ratio=keep_ratio),
        *tips,
        *d3s,
        *gated,
        ranked,
    ]
    return [
        *rules,
        ShuffledWeights(of=tips[0]),
        ShuffledWeights(of=TopEntropy(keep_ratio=keep_ratio)),
    ]


FRACTIONAL: list[TokenSelection] = [
    Prior(),
    Prior(mode="flipped", floor=0.1),
    Prior(mode="contrast"),
    ShuffledWeights(of=Prior()),
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
        case _:
            return selector.kind


def mixes_units(selector: TokenSelection) -> bool:
    """ssToken adds a share of attention, which has no unit, to excess loss, and its gate is in
    nats.
    """
    return isinstance(selector, SsToken) and selector.gamma == 0.5


each = pytest.mark.parametrize("selector", [*every_selector(0.4), *FRACTIONAL], ids=name)
each_at_40_percent = pytest.mark.parametrize("selector", every_selector(0.4), ids=name)
few = settings(max_examples=8, deadline=None)


@pytest.mark.parametrize("selector", every_selector(1.0), ids=name)
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


@pytest.mark.parametrize(
    "selector", [s for s in [*every_selector(0.4), *FRACTIONAL] if s.scope == "rollout"], ids=name
)
@given(seed=integers(0, 10_000), cut=integers(1, 4))
@few
def test_a_rule_of_rollout_scope_needs_no_other_rollout(steps, selector, seed, cut):
    batch = steps.random(seed)
    parts = [batch.take(torch.arange(0, cut)), batch.take(torch.arange(cut, 5))]
    torch.testing.assert_close(
        torch.cat([selector(part) for part in parts]), selector(batch), rtol=0, atol=0
    )


def test_scope_is_rollout_exactly_where_no_other_rollout_is_read():
    told = {name(s): s.scope for s in every_selector(0.4)}
    alone = {
        "all",
        "random",
        "advantage_entropy-rollout",
        *(f"tip-{mode}-rollout-rollout" for mode in MODES),
    }
    alone |= {"sstoken-0.0-minmax", "sstoken-0.5-minmax", "sstoken-1.0-minmax", "sstoken-0.5-rank"}
    alone |= {
        f"tip-{mode}-step-rollout" for mode in ("entropy_sample", "divergence", "teachability")
    }  # these normalise nothing
    assert {rule for rule, scope in told.items() if scope == "rollout"} == alone


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


@each
def test_a_step_without_a_response_keeps_nothing(steps, selector):
    nothing = [[float("nan")] * 3] * 2
    evidence = dict.fromkeys(EVIDENCE.keys() - {"ce_logscore"}, nothing)
    batch = steps.of([[1, 1, 0], [1, 4, 3]], **evidence)
    torch.testing.assert_close(selector(batch), torch.zeros(2, 3), rtol=0, atol=0)
