"""ssToken by the sheet's numbers; which tokens it may see, when it trusts the history, and how many
it keeps (checks 2 to 5).
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import floats, integers, sampled_from
from torch import Tensor, tensor
from torch.testing import assert_close

from reasontrain.algo._top_k import num_kept_up
from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.token_selection import ShuffledWeights, SsToken, TopEntropy, unread_evidence
from reasontrain.types import Batch, RunError

HISTORY, NOW = [2.0, 1.0, 0.5, 3.0, 0.1], [1.0, 1.2, 0.4, 2.9, 0.1]
ATTENTION = [0.9, 0.6, 0.5, 0.4, 0.3]
PLAIN = {"warmup": 0.0, "gate": 0.0}


def golden(steps: object, **changes: object) -> Batch:
    """The sheet's sample of five response tokens, after two of the prompt; evidence in float64,
    where its ties are exact.
    """
    nan = float("nan")
    batch = steps.of([[1, 1, 2, 2, 2, 2, 2]])
    columns = {
        "history_logp": [-x for x in HISTORY],
        "old_logp": [-x for x in NOW],
        "attention": ATTENTION,
        "excess_noise": [0.0] * 5,
    }
    evidence = {
        name: tensor([[nan, nan, *values]], dtype=torch.float64) for name, values in columns.items()
    }
    return replace(batch, evidence=evidence, **changes)


def kept(rule: SsToken, batch: Batch) -> set[int]:
    return {place - 2 for place in rule(batch)[0].nonzero()[:, 0].tolist()}


# ---- check 5: the sheet's numbers

GOLDEN = [
    # .95 .3 .375 .325 .2333: (1 + .4 + 2.9) / 3
    (0.5, {0, 2, 3}, 1.4333333),
    # attention alone: (1 + 1.2 + .4) / 3
    (0.0, {0, 1, 2}, 0.8666667),
    # 1 0 .25 .25 .1667: the tie at .25 is whole
    (1.0, {0, 2, 3}, 1.4333333),
]


@pytest.mark.parametrize(("gamma", "expected", "loss"), GOLDEN)
def test_the_numbers_of_the_sheet(steps, gamma: float, expected: set[int], loss: float) -> None:
    batch = golden(steps)
    rule = SsToken(keep_ratio=0.6, gamma=gamma, **PLAIN)
    assert kept(rule, batch) == expected
    weight_BT = rule(batch)
    coefficient_BT = LOSS_AGGREGATIONS["token_mean"](weight_BT, batch.totals(weight_BT))
    assert float((coefficient_BT[0, 2:] * tensor(NOW)).sum()) == pytest.approx(loss, abs=1e-6)


def test_the_scores_of_the_sheet(steps) -> None:
    score = SsToken(gamma=0.5, **PLAIN).score(golden(steps))[0, 2:]
    assert_close(score, tensor([0.95, 0.3, 0.375, 0.325, 0.23333333]).double(), rtol=0, atol=1e-7)


def test_the_flipped_sign_keeps_others(steps) -> None:
    # -REL = -1 .2 -.1 -.1 0: 1, then 4, then the first of the two that tie
    assert kept(SsToken(gamma=1.0, sign="excess", **PLAIN), golden(steps)) == {1, 4, 2}


# ---- check 2: what cannot matter


@given(
    seed=integers(0, 10_000),
    shift=integers(-40, 40),
    norm=sampled_from(["minmax", "rank", "zscore"]),
)
@settings(max_examples=15, deadline=None)
def test_a_constant_on_the_history_of_a_sample_changes_nothing(
    steps, seed: int, shift: int, norm: str
) -> None:
    batch = steps.random(seed)  # evidence in eighths, so that the shift is exact
    rule = SsToken(keep_ratio=0.4, norm=norm, **PLAIN)
    moved_BT = (
        batch.evidence["history_logp"] + shift / 8 * torch.arange(len(batch.rollout_B))[:, None]
    )
    moved = replace(batch, evidence=dict(batch.evidence) | {"history_logp": moved_BT})
    assert steps.chosen(moved, rule(moved)) == steps.chosen(batch, rule(batch))


@given(seed=integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_neither_the_prompt_nor_padding_matters_or_is_chosen(steps, seed: int) -> None:
    batch = steps.random(seed)
    rule = SsToken(keep_ratio=0.5, **PLAIN)
    other = replace(
        batch, evidence={name: column.nan_to_num(-50.0) for name, column in batch.evidence.items()}
    )
    assert steps.chosen(other, rule(other)) == steps.chosen(batch, rule(batch))


# ---- check 3: when which evidence counts


def test_gamma_1_ignores_attention_and_gamma_0_the_history(steps) -> None:
    batch = golden(steps)
    only = {name: batch.evidence[name] for name in ("history_logp", "old_logp")}
    rule = SsToken(gamma=1.0, **PLAIN)
    assert rule.required_evidence == only.keys()
    assert kept(rule, replace(batch, evidence=only)) == {0, 2, 3}
    assert SsToken(gamma=0.0).required_evidence == {"attention"}
    assert kept(SsToken(gamma=0.0), replace(batch, evidence={"attention": batch.attention_BT})) == {
        0,
        1,
        2,
    }


@pytest.mark.parametrize("norm", ["minmax", "rank", "zscore"])
def test_a_history_that_says_nothing_leaves_it_to_attention(steps, norm: str) -> None:
    batch = golden(steps)
    same = replace(batch, evidence=dict(batch.evidence) | {"history_logp": batch.old_logp_BT})
    rule = SsToken(gamma=1.0, warmup=0.0, norm=norm)
    assert "attention" in rule.required_evidence
    assert kept(rule, same) == {0, 1, 2}


def test_the_gate_is_a_width_in_nats_of_each_sample(steps) -> None:
    # REL spans 1.2 nats; a twentieth of it spans .06, and a hundredth .012
    for scale, expected in ((1.0, {0, 2, 3}), (1 / 20, {0, 2, 3}), (1 / 100, {0, 1, 2})):
        batch = golden(steps)
        gain = scale * (batch.old_logp_BT - batch.history_logp_BT)
        batch = replace(
            batch, evidence=dict(batch.evidence) | {"history_logp": batch.old_logp_BT - gain}
        )
        assert kept(SsToken(gamma=1.0, warmup=0.0, gate=0.05), batch) == expected


def test_one_samples_gate_is_not_anothers(steps) -> None:
    batch = steps.of(
        [[2, 2], [2, 2]],
        old_logp=[[0.0, 1.0], [0.0, 0.01]],
        history_logp=[[0.0] * 2] * 2,
        attention=[[0.9, 0.1]] * 2,
        excess_noise=[[0.0] * 2] * 2,
    )
    assert SsToken(keep_ratio=0.5, gamma=1.0, warmup=0.0)(batch).tolist() == [
        [0.0, 1.0],
        [1.0, 0.0],
    ]


@pytest.mark.parametrize(("noise", "expected"), [(1.19, {0, 2, 3}), (1.21, {0, 1, 2})])
def test_the_gate_is_never_below_what_rounding_spans(
    steps, noise: float, expected: set[int]
) -> None:
    """REL spans 1.2 nats."""
    batch = golden(steps)
    noisy = batch.with_evidence({"excess_noise": torch.full(batch.ids_BT.shape, noise)})
    assert kept(SsToken(gamma=1.0, warmup=0.0), noisy) == expected
    assert "excess_noise" not in SsToken(gate=0.0).required_evidence


def test_nothing_of_the_history_is_measured_while_it_does_not_count(steps) -> None:
    rule = SsToken(warmup=0.2)
    names = {"old_logp", "history_logp", "excess_noise"}
    assert rule.required_evidence == names | {"attention"}
    for one in (rule, ShuffledWeights(of=rule)):
        assert unread_evidence(one, frozenset(), 0.19) == names
        assert unread_evidence(one, frozenset({"old_logp"}), 0.19) == names - {"old_logp"}
        assert unread_evidence(one, frozenset(), 0.2) == frozenset()
    early = golden(steps, progress=0.0)
    attention = replace(early, evidence={"attention": early.attention_BT})
    assert kept(rule, attention) == {0, 1, 2}
    assert unread_evidence(TopEntropy(), frozenset(), 0.0) == frozenset()


def test_before_the_end_of_the_warm_up_there_is_attention_alone(steps) -> None:
    rule = SsToken(gamma=1.0, warmup=0.2)
    assert [kept(rule, golden(steps, progress=at)) for at in (0.0, 0.19, 0.2, 1.0)] == [
        {0, 1, 2}
    ] * 2 + [{0, 2, 3}] * 2


# ---- check 4: how many


@given(seed=integers(0, 10_000), keep_ratio=floats(0.01, 1.0))
@settings(max_examples=30, deadline=None)
def test_exactly_the_ceiling_of_each_sample_is_kept_and_none_of_an_empty_one(
    steps, seed: int, keep_ratio: float
) -> None:
    batch = steps.random(seed)
    num_B = SsToken(keep_ratio=keep_ratio, **PLAIN)(batch).sum(1)
    expected = [
        math.ceil(keep_ratio * length - 1e-9) for length in batch.is_response_BT.sum(1).tolist()
    ]
    assert num_B.tolist() == expected


def test_what_is_written_is_what_is_meant() -> None:
    # .07 x 100 is 7.000000000000001 in binary; .6 x 5 is 3; .1 x 1 rounds up; nothing of nothing
    found = [
        int(num_kept_up(keep_ratio, tensor([rows])))
        for keep_ratio, rows in ((0.07, 100), (0.6, 5), (0.1, 1), (0.3, 0), (1.0, 4))
    ]
    assert found == [7, 3, 1, 0, 4]


# ---- options


def test_without_its_trend_attention_prefers_no_position(steps) -> None:
    # left of the line .82 .68 .54 .40 .26: .08 -.08 -.04 0 .04
    assert kept(SsToken(gamma=0.0, detrend=True), golden(steps)) == {0, 3, 4}


def test_ranks_do_not_let_one_outlier_decide(steps) -> None:
    logp = tensor([[9.0, 0.0, 0.1, 0.2, 0.3]]).double()
    batch = replace(
        steps.of([[2] * 5]),
        evidence={
            "old_logp": logp,
            "history_logp": torch.zeros(1, 5).double(),
            "attention": tensor([ATTENTION]).double(),
        },
    )
    weights: dict[str, Tensor] = {
        norm: SsToken(keep_ratio=0.4, norm=norm, **PLAIN)(batch)[0] for norm in ("minmax", "rank")
    }
    assert weights["minmax"].tolist() == [
        1,
        1,
        0,
        0,
        0,
    ]  # 1.9 / 2, then .6 / 2 against .52 / 2 and .33 / 2
    assert weights["rank"].tolist() == [
        1,
        0,
        0,
        0,
        1,
    ]  # then (.75 + .3) / 2 = .525 against .3, .375 and .45


@pytest.mark.parametrize("name", ["old_logp", "history_logp", "attention"])
def test_evidence_that_is_not_finite_stops_the_run(steps, name: str) -> None:
    batch = golden(steps, progress=1.0)
    broken = dict(batch.evidence) | {name: torch.full((1, 7), float("nan"))}
    with pytest.raises(RunError, match=f"evidence '{name}' is NaN"):
        SsToken()(replace(batch, evidence=broken))
