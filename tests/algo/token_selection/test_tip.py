"""TIP against a brute-force sort in plain Python, its sheet's planted examples, and the law of its
sampling.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers, sampled_from

from reasontrain import rng
from reasontrain.algo.token_selection import Tip, TopEntropy
from reasontrain.rng import Stream
from reasontrain.types import RunError

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
SCOPES = ("step", "rollout")


def quantile(values: list[float], share: float) -> float:
    """The quantile of sorted values, one number at a time."""
    place = share * (len(values) - 1)
    below, above = values[math.floor(place)], values[math.ceil(place)]
    return below + (above - below) * (place - math.floor(place))


def normaliser(values: list[float], clip: float, tail: float = 0.0):
    """Clip at two quantiles, then min-max, one number at a time."""
    values = sorted(values)
    low, high = quantile(values, tail), quantile(values, clip)
    return lambda v: max(0.0, min(v, high) - low) / (high - low) if high > low else 0.0


def grouped(tokens, scope: str) -> list[list]:
    """The tokens of the step, or of each rollout."""
    if scope == "step":
        return [tokens] if tokens else []
    return [
        [t for t in tokens if t[0][0] == rollout] for rollout in sorted({t[0][0] for t in tokens})
    ]


def brute_force(steps, batch, rule: Tip) -> set[tuple[int, int]]:
    """The tokens that the sheet's section 3 keeps."""
    tokens = [
        (token, {k: float(v[line, place]) for k, v in batch.evidence.items()})
        for token, line, place in steps.tokens(batch)
    ]
    score, then = {}, {}
    for group in grouped(tokens, rule.stats_scope):
        h_of = normaliser([e["entropy"] for _, e in group], rule.clip_quantile)
        d_of = normaliser([e["kl_reverse"] for _, e in group], rule.delta_clip_quantile)
        raw_h, raw_d = (
            normaliser([e[name] for _, e in group], 1.0) for name in ("entropy", "kl_reverse")
        )
        apart_of, like_of = (
            normaliser([e[name] for _, e in group], 0.95, 0.05)
            for name in ("disagreement", "compatibility")
        )
        for (rollout, position), e in group:
            h, d = h_of(e["entropy"]), d_of(e["kl_reverse"])
            u = float(
                rng.uniform(batch.seed, Stream.TIP_DRAWS, batch.step, (rollout << 24) + position)
            )
            score[rollout, position] = {
                "soft_or": h + d - h * d,
                "bottom": -(h + d - h * d),
                "q3": e["kl_forward"] * (1 - h),
                "entropy_sample": math.log(max(e["entropy"], 1e-300)) - math.log(-math.log(u)),
                "entropy_topk": e["entropy"],
                "divergence": e["kl_reverse"],
                "teachability": apart_of(e["disagreement"]) * like_of(e["compatibility"]),
                "compatibility": e["compatibility"],
            }[rule.mode]
            h, d = raw_h(e["entropy"]), raw_d(e["kl_reverse"])
            sign = {"soft_or": 1, "bottom": -1}.get(rule.mode, 0)
            then[rollout, position] = sign * (h + d - h * d)
    kept = set()
    for group in grouped(tokens, rule.top_scope):
        best = sorted((t for t, _ in group), key=lambda t: (-score[t], -then[t], t))
        kept |= set(best[: max(1, math.floor(rule.keep_ratio * len(group) + 1e-9))])
    return kept


@pytest.mark.parametrize("mode", MODES)
@given(
    seed=integers(0, 10_000),
    stats=sampled_from(SCOPES),
    top=sampled_from(SCOPES),
    keep_ratio=sampled_from([0.1, 0.2, 0.5, 0.9]),
)
@settings(max_examples=25, deadline=None)
def test_the_kept_set_equals_a_brute_force_sort(steps, mode, seed, stats, top, keep_ratio):
    batch = steps.random(seed)
    rule = Tip(
        mode=mode,
        keep_ratio=keep_ratio,
        clip_quantile=0.9,
        delta_clip_quantile=0.8,
        stats_scope=stats,
        top_scope=top,
    )
    assert set(steps.chosen(batch, rule(batch))) == brute_force(steps, batch, rule)


@pytest.mark.parametrize("mode", MODES)
@given(seed=integers(0, 10_000), cut=integers(1, 4))
@settings(max_examples=12, deadline=None)
def test_a_cut_step_keeps_the_same_given_the_spans_of_the_whole(steps, mode, seed, cut):
    batch, rule = steps.random(seed), Tip(mode=mode, keep_ratio=0.4)
    parts = [batch.take(torch.arange(0, cut)), batch.take(torch.arange(cut, 5))]
    weight_BT = torch.cat([rule.given(part, rule.spans(batch)) for part in parts])
    torch.testing.assert_close(weight_BT, rule(batch), rtol=0, atol=0)


def kl(p: float, q: float) -> float:
    """KL between (p, 1 - p) and (q, 1 - q)."""
    return sum(a * math.log(a / b) for a, b in ((p, q), (1 - p, 1 - q)))


def planted(steps):
    """One token per quadrant, in the order Q1 Q2 Q3 Q4, from the two-token distributions of the
    sheet's test 7.
    """
    student, teacher = (0.5, 0.5, 0.99, 0.99), (0.99, 0.5, 0.01, 0.99)
    pairs = list(zip(student, teacher, strict=True))
    return steps.of(
        [[2, 2, 2, 2]],
        entropy=[[-p * math.log(p) - (1 - p) * math.log(1 - p) for p in student]],
        kl_reverse=[[kl(p, q) for p, q in pairs]],
        kl_forward=[[kl(q, p) for p, q in pairs]],
    )


def kept_places(batch, **knobs) -> list[int]:
    return Tip(**knobs)(batch)[0].nonzero()[:, 0].tolist()


def test_planted_quadrants(steps):
    batch = planted(steps)
    assert kept_places(batch, mode="q3", keep_ratio=0.25) == [2]  # Q3 first
    assert kept_places(batch, mode="soft_or", keep_ratio=0.75) == [0, 1, 2]  # Q4 last
    assert kept_places(batch, mode="bottom", keep_ratio=0.25) == [3]
    assert kept_places(batch, mode="divergence", keep_ratio=0.5) == [0, 2]
    assert kept_places(batch, mode="entropy_topk", keep_ratio=0.5) == [0, 1]
    rule = Tip(mode="entropy_topk")
    score = rule.score(batch, rule.spans(batch))[0]
    assert score[2] == score[3]  # entropy cannot tell Q3 from Q4


@given(seed=integers(0, 10_000), clip=sampled_from([0.9, 1.0]))
@settings(max_examples=20, deadline=None)
def test_soft_or_is_entropy_order_without_divergence_and_the_other_way_round(steps, seed, clip):
    batch = steps.random(seed)
    flat = torch.full_like(batch.entropy_BT, 0.3)
    knobs = {"keep_ratio": 0.4, "clip_quantile": clip, "delta_clip_quantile": 1.0}
    entropy_only = batch.with_evidence({"kl_reverse": flat})
    torch.testing.assert_close(
        Tip(**knobs)(entropy_only), Tip(mode="entropy_topk", **knobs)(batch), rtol=0, atol=0
    )
    divergence_only = batch.with_evidence({"entropy": flat})
    torch.testing.assert_close(
        Tip(**knobs)(divergence_only), Tip(mode="divergence", **knobs)(batch), rtol=0, atol=0
    )


@given(seed=integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_unclipped_entropy_over_the_step_is_top_entropy(steps, seed):
    batch = steps.random(seed)
    tip = Tip(mode="entropy_topk", keep_ratio=0.3, clip_quantile=1.0, top_scope="step")
    torch.testing.assert_close(tip(batch), TopEntropy(keep_ratio=0.3)(batch), rtol=0, atol=0)


def test_one_outlier_hides_q3_unless_divergence_is_clipped(steps):
    # 100 tokens: 90 solved (h 0.1, d 0), 6 unsure (h 1, d 0), 3 confident and wrong (h 0, d 2), 1
    # outlier (h 0, d 40). Unclipped d^ of Q3 is 2/40 = 0.05 < h^ 0.1 of the solved, so the 10 kept
    # are 6 + outlier + 3 solved. The 0.97 quantile of d is 2 (place 96.03, between the first two of
    # the four wrong ones), so clipped d^ of Q3 is 1.
    entropy = [0.1] * 90 + [1.0] * 6 + [0.0] * 4
    divergence = [0.0] * 96 + [2.0] * 3 + [40.0]
    batch = steps.of([[2] * 100], entropy=[entropy], kl_reverse=[divergence])
    assert kept_places(batch, keep_ratio=0.1, clip_quantile=1.0, delta_clip_quantile=0.97) == list(
        range(90, 100)
    )
    assert kept_places(batch, keep_ratio=0.1, clip_quantile=1.0, delta_clip_quantile=1.0) == [
        0,
        1,
        2,
        *range(90, 96),
        99,
    ]


@pytest.mark.parametrize(
    ("mode", "column"),
    [
        ("soft_or", "kl_reverse"),
        ("q3", "kl_forward"),
        ("entropy_sample", "entropy"),
        ("teachability", "disagreement"),
        ("teachability", "compatibility"),
        ("compatibility", "compatibility"),
    ],
)
def test_broken_evidence_stops_the_run(steps, mode, column):
    batch = steps.random(3)
    broken_BT = batch.evidence[column].masked_fill(batch.is_response_BT, torch.nan)
    with pytest.raises(RunError, match=f"'{column}' is NaN or infinite"):
        Tip(mode=mode)(batch.with_evidence({column: broken_BT}))


# D = [0, 4, 1, 2, 3]: Q05 = 0.2, Q95 = 3.8; C = [1, 0, .9, .5, .8]: Q05 = 0.1, Q95 = 0.98. So D~ =
# [0, 1, 2/9, 1/2, 7/9] and C~ = [1, 0, .909091, .454545, .795455].
def test_teachability_is_disagreement_times_compatibility(steps):
    batch = steps.of(
        [[2] * 5],
        disagreement=[[0.0, 4.0, 1.0, 2.0, 3.0]],
        compatibility=[[1.0, 0.0, 0.9, 0.5, 0.8]],
    )
    rule = Tip(mode="teachability", keep_ratio=0.2)
    assert rule.score(batch, rule.spans(batch))[0].tolist() == pytest.approx(
        [0, 0, 0.202020, 0.227273, 0.618687], abs=1e-6
    )
    # Mass, disagreement and their product each rank another token first.
    assert kept_places(batch, mode="teachability", keep_ratio=0.2) == [4]
    assert kept_places(batch, mode="compatibility", keep_ratio=0.2) == [0]
    assert int(batch.disagreement_BT.argmax()) == 1
    # Solved tokens, where the models agree, are never teachable; without a width nothing is.
    assert set(kept_places(batch, mode="teachability", keep_ratio=0.6)) == {2, 3, 4}
    flat = batch.with_evidence({"disagreement": torch.ones(1, 5)})
    assert rule.score(flat, rule.spans(flat)).tolist() == [[0.0] * 5]


@pytest.mark.parametrize("keep_ratio", [0.005, 0.01, 0.05])
def test_small_budgets_keep_the_largest_of_clipped_values(steps, keep_ratio):
    """The largest come last, where ties by position would leave them out."""
    entropy = [i / 1000 for i in range(1000)]
    batch = steps.of([[2] * 1000], entropy=[entropy], kl_reverse=[[0.0] * 1000])
    num = int(1000 * keep_ratio)
    for mode in ("entropy_topk", "soft_or"):
        for scope in SCOPES:
            kept = kept_places(batch, mode=mode, keep_ratio=keep_ratio, top_scope=scope)
            assert kept == list(range(1000 - num, 1000)), mode


# --- entropy_sample ---


def sampled_share(
    steps, entropy: list[float], keep_ratio: float, num_rollouts: int = 6000
) -> torch.Tensor:
    """How often each position is drawn, over many rollouts that are alike."""
    batch = steps.of([[2] * len(entropy)] * num_rollouts, entropy=[entropy] * num_rollouts)
    return Tip(mode="entropy_sample", keep_ratio=keep_ratio)(batch).double().mean(0)


def exact_inclusion(weight: list[float], num: int) -> list[float]:
    """The chance of each item to be among `num` draws without replacement in proportion to weight,
    by listing all orders.
    """
    chance = [0.0] * len(weight)
    for order in permutations(range(len(weight)), num):
        left, probability = sum(weight), 1.0
        for i in order:
            probability, left = probability * weight[i] / left, left - weight[i]
        for i in order:
            chance[i] += probability
    return chance


@pytest.mark.parametrize("num", [1, 2, 3])
def test_sampling_follows_the_law_of_draws_without_replacement(steps, num):
    weight = [0.5, 1.0, 1.5, 3.0]
    expected = exact_inclusion(weight, num)
    if num == 1:  # proportional to weight: 1/12, 2/12, 3/12, 6/12
        assert expected == pytest.approx([1 / 12, 2 / 12, 3 / 12, 6 / 12])
    share = sampled_share(steps, weight, keep_ratio=num / 4)
    assert share.tolist() == sorted(share.tolist())  # inclusion rises with entropy
    for found, p in zip(
        share.tolist(), expected, strict=True
    ):  # four standard deviations of a binomial share
        assert abs(found - p) < 4 * math.sqrt(p * (1 - p) / 6000)


def test_equal_entropy_gives_equal_inclusion(steps):
    # share 3/8 each; squared deviations over n p (1 - p), summed, times 7/8, are chi-square with 7
    # degrees: 99.9 % below 24.3
    share = sampled_share(steps, [0.2] * 8, keep_ratio=3 / 8)
    p = 3 / 8
    assert float(((share - p) ** 2).sum()) * 6000 / (p * (1 - p)) * 7 / 8 < 24.3


def test_tokens_without_entropy_are_drawn_last_and_uniformly(steps):
    # two positive weights (one the smallest float32) and three zeros or rounding errors, four
    # draws: both, then 2 of 3
    share = sampled_share(steps, [0.0, 1.4e-45, -1e-9, 2.0, 0.0], keep_ratio=0.8)
    assert share[1] == share[3] == 1
    torch.testing.assert_close(
        share[[0, 2, 4]], torch.full((3,), 2 / 3, dtype=torch.float64), rtol=0, atol=0.025
    )  # four deviations


def test_sampling_is_fixed_by_seed_and_step(steps):
    batch = steps.of([[2] * 60], entropy=[[1.0] * 60])
    rule = Tip(mode="entropy_sample", keep_ratio=0.5)
    first, again, *others = (
        rule(b) for b in (batch, replace(batch), replace(batch, seed=8), replace(batch, step=4))
    )
    assert torch.equal(first, again)
    assert all(not torch.equal(first, other) for other in others)
