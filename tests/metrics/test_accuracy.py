"""Accuracy, pass@k and their intervals: hand numbers, brute force, and coverage by simulation."""

from __future__ import annotations

from itertools import combinations
from math import comb, exp, lgamma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from reasontrain.metrics.accuracy import (
    Interval,
    accuracy,
    difference,
    estimate,
    majority_per_problem,
    paired_difference,
    pass_at_k,
    pass_per_problem,
    summarise,
    wilson,
)
from reasontrain.types import UserError

TABLE = np.array([[1, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]], dtype=bool)


def test_hand_numbers():
    # accuracy (1 + 3 + 0) / 12
    # pass@2: 1 - C(3,2)/C(4,2) = 1 - 3/6; 1 - C(1,2)/C(4,2) = 1; 0 -> mean 1.5 / 3
    assert accuracy(TABLE) == pytest.approx(1 / 3, abs=1e-15)
    assert pass_per_problem(TABLE, 2).tolist() == pytest.approx([0.5, 1.0, 0.0], abs=1e-15)
    assert pass_at_k(TABLE, 2) == pytest.approx(0.5, abs=1e-15)


def test_majority_by_hand():
    correct_MS = np.array(
        [[1, 0, 0, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=bool
    )
    vote_MS = np.array(
        [[5, 6, 6, 5], [5, 6, 5, 6], [7, 7, 8, 5], [-1, -1, -1, -1], [-1, -1, -1, 5]]
    )
    # two lead and one is right; likewise; 7 leads and is wrong; nobody votes; silence is outvoted
    # by one
    assert majority_per_problem(correct_MS, vote_MS, 4).tolist() == [0.5, 0.5, 0.0, 0.0, 1.0]
    # of the first three: 6 leads; 5 leads; 7 leads; nobody; nobody
    assert majority_per_problem(correct_MS, vote_MS, 3).tolist() == [0.0, 1.0, 0.0, 0.0, 0.0]
    assert majority_per_problem(correct_MS, vote_MS, 1).tolist() == correct_MS[:, 0].tolist()
    assert summarise(correct_MS, [4], vote_MS=vote_MS)["maj@4"].value == 0.4
    with pytest.raises(
        UserError, match="maj@5 needs k between 1 and the number of samples per problem, which is 4"
    ):
        majority_per_problem(correct_MS, vote_MS, 5)


@given(
    arrays(np.int64, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(-1, 3))
)
def test_a_majority_is_the_answer_that_wins_when_ballots_are_drawn_by_lot(vote_MS):
    k = vote_MS.shape[1]
    counts = [
        {answer: row.tolist().count(answer) for answer in set(row.tolist()) - {-1}}
        for row in vote_MS
    ]
    leaders = [
        [answer for answer, times in row.items() if times == max(row.values())] for row in counts
    ]
    expected = [row.count(2) / len(row) if row else 0.0 for row in leaders]  # 2 is the right answer
    assert majority_per_problem(vote_MS == 2, vote_MS, k).tolist() == expected


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=6)), st.data())
def test_pass_at_k_is_the_average_over_all_subsets(correct_MS, data):
    k = data.draw(st.integers(1, correct_MS.shape[1]))
    subsets = [
        correct_MS[:, list(chosen)].any(1) for chosen in combinations(range(correct_MS.shape[1]), k)
    ]
    np.testing.assert_allclose(
        pass_per_problem(correct_MS, k), np.mean(subsets, axis=0), rtol=0, atol=1e-14
    )


def test_pass_at_k_of_many_samples_equals_exact_integers():
    num_samples, num_right, k = 1000, 3, 128
    correct_MS = (np.arange(num_samples) < num_right)[None]
    exact = 1 - comb(num_samples - num_right, k) / comb(num_samples, k)
    assert pass_at_k(correct_MS, k) == pytest.approx(exact, rel=1e-13)


def test_pass_at_one_is_accuracy():
    assert pass_at_k(TABLE, 1) == pytest.approx(accuracy(TABLE), abs=1e-15)


@pytest.mark.parametrize("k", [0, 5])
def test_k_beyond_the_samples_is_refused(k):
    with pytest.raises(UserError, match="samples per problem, which is 4"):
        pass_at_k(TABLE, k)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_an_empty_table_is_refused(shape):
    with pytest.raises(UserError, match="at least one problem"):
        accuracy(np.zeros(shape, dtype=bool))


def test_intervals_of_no_problem_are_refused():
    for interval in (
        lambda: wilson(0, 0),
        lambda: estimate(np.zeros(0)),
        lambda: paired_difference(np.zeros((1, 0)), np.zeros((1, 0))),
    ):
        with pytest.raises(UserError, match="got none"):
            interval()


def test_wilson_by_hand():
    # 1 of 10: z = 1.95996, z^2/n = 0.384146; middle (0.1 + 0.192073) / 1.384146 = 0.211013 reach
    # sqrt(0.09 * 0.384146 + 0.147568 / 4) / 1.384146 = sqrt(0.0345731 + 0.0368920) / 1.384146 =
    # 0.193136
    interval = wilson(1, 10)
    assert (interval.value, interval.low, interval.high) == pytest.approx(
        (0.1, 0.017876, 0.404150), abs=2e-6
    )


def test_wilson_keeps_an_honest_end_where_nothing_is_right():
    # 0 of 30: high = z^2 / (n + z^2) = 3.841459 / 33.841459
    assert (wilson(0, 30).low, wilson(0, 30).high) == (0.0, pytest.approx(0.1135134, abs=1e-7))
    assert (wilson(30, 30).low, wilson(30, 30).high) == (pytest.approx(0.8864866, abs=1e-7), 1.0)


def test_wilson_covers_95_percent_exactly_counted():
    # The chance that the interval holds p is a finite sum; averaged over p it is nominal within
    # half a point for n = 50.
    num, shares = 50, np.linspace(0.02, 0.98, 193)
    chance = {
        right: comb(num, right) * shares**right * (1 - shares) ** (num - right)
        for right in range(num + 1)
    }
    covered = sum(
        chance[right] * ((wilson(right, num).low <= shares) & (shares <= wilson(right, num).high))
        for right in range(num + 1)
    )
    assert 0.945 < covered.mean() < 0.96
    assert covered.min() > 0.88


def test_an_estimate_of_scores_by_hand():
    # 0, 1/4, 1/2, 1: p = 7/16, v = (49 + 9 + 1 + 81) / 256 / 3 = 0.182292, p (1 - p) = 0.246094;
    # Student's t with 3 degrees is 3.17862 by its expansion, (z / t)^2 = 0.380205: n = 0.246094 * 4
    # / 0.182292 * 0.380205 = 2.05311, z^2 / n = 1.871053 middle (0.4375 + 0.935527) / 2.871053 =
    # 0.478231; reach sqrt(0.246094 * 1.871053 + 3.500840 / 4) / 2.871053 = 0.402425
    interval = estimate(np.array([0.0, 0.25, 0.5, 1.0]))
    assert (interval.value, interval.low, interval.high) == pytest.approx(
        (0.4375, 0.075806, 0.880656), abs=2e-4
    )


def test_an_estimate_of_many_scores_is_its_normal_limit():
    # Scores 0, 1/2, 1 in equal parts: sd of the mean of 3000 = sqrt((1/6) / 3000) = 0.0074536, ends
    # 0.5 -+ 1.96 sd.
    interval = estimate(np.repeat([0.0, 0.5, 1.0], 1000))
    assert interval.value == 0.5
    assert (interval.low, interval.high) == pytest.approx(
        (0.5 - 0.014609, 0.5 + 0.014609), abs=2e-5
    )


def test_an_estimate_of_verdicts_is_wilsons_and_equal_scores_count_as_verdicts():
    assert estimate(np.array([0.0, 0.0, 1.0])) == wilson(1, 3)
    assert estimate(np.zeros(30)).high == wilson(0, 30).high
    assert estimate(np.full(30, 0.5)) == wilson(15, 30)
    # one problem that scores 1/2: z^2 = 3.841459, middle 1/2, reach sqrt(3.841459 / 4 + 3.841459^2
    # / 4) / 4.841459 = 0.445379
    assert estimate(np.array([0.5])).low == pytest.approx(0.054621, abs=1e-6)


@given(
    arrays(np.float64, st.integers(1, 40), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
)
def test_an_estimate_lies_in_the_unit_interval_around_its_value_and_turns_with_it(score_M):
    here, there = estimate(score_M), estimate(1 - score_M)
    assert 0.0 <= here.low <= here.value <= here.high <= 1.0
    assert (here.low, here.high) == pytest.approx((1 - there.high, 1 - there.low), abs=1e-12)


def within(num_runs: int) -> float:
    """Three standard errors of a coverage of 95 % that is counted in so many runs: 1.03 points for
    4,000, 2.9 for 500.
    """
    return 3 * (0.95 * 0.05 / num_runs) ** 0.5


def beta_binomial(right: int, num: int, a: float, b: float) -> float:
    """The chance of so many right samples of a problem whose chance is drawn from Beta(a, b)."""
    log = (
        lgamma(right + a)
        + lgamma(num - right + b)
        - lgamma(num + a + b)
        + lgamma(a + b)
        - lgamma(a)
        - lgamma(b)
    )
    return comb(num, right) * exp(log)


@pytest.mark.parametrize("num_problems", [30, 500, 1319])
@pytest.mark.parametrize("metric", ["mean@4", "mean@16", "pass@4", "maj@16"])
def test_estimates_cover_at_their_nominal_rate(metric: str, num_problems: int):
    # The chances of a suite's problems are spread over Beta(1/2, b): most are hard or easy, and 5/7
    # to 1/5 is right on average. Over ten such b, because with 30 problems a majority takes so few
    # values that one b alone covers 91 % and another 97 %. A majority of 16 samples that say one
    # right or one wrong thing is right with more than 8, and by half with 8. Percentiles of the
    # bootstrap cover 93.3 to 94.4 % here with 30 problems.
    rng, held = np.random.default_rng(0), 0
    num_samples = 4 if metric == "mean@4" else 16
    score_C = {
        "mean@4": np.arange(5) / 4,
        "mean@16": np.arange(17) / 16,
        "pass@4": np.array([1 - comb(16 - c, 4) / comb(16, 4) for c in range(17)]),
        "maj@16": np.array([0.0] * 8 + [0.5] + [1.0] * 8),
    }[metric]
    for b in np.arange(1, 11) / 5:
        true = sum(
            beta_binomial(c, num_samples, 0.5, b) * score_C[c] for c in range(num_samples + 1)
        )
        for _ in range(400):
            interval = estimate(
                score_C[rng.binomial(num_samples, rng.beta(0.5, b, size=num_problems))]
            )
            held += interval.low <= true <= interval.high
    assert abs(held / 4000 - 0.95) <= within(4000)


def test_summary_names_every_metric():
    votes = {"vote_MS": np.zeros_like(TABLE, dtype=int)}
    assert list(summarise(TABLE)) == ["accuracy"]
    assert list(summarise(TABLE, (1, 2, 4))) == ["accuracy", "pass@2", "pass@4"]
    assert list(summarise(TABLE, (1, 4), **votes)) == ["accuracy", "pass@4", "maj@4"]
    assert summarise(TABLE, (4,))["pass@4"] == wilson(2, 3)


def test_difference_is_newcombes():
    # Newcombe 1998, table II (a), method 10: 56/70 - 48/80 = 0.2, interval 0.0524 to 0.3339
    interval = difference(wilson(56, 70), wilson(48, 80))
    assert (interval.value, interval.low, interval.high) == pytest.approx(
        (0.2, 0.0524, 0.3339), abs=5e-5
    )


def test_pairing_removes_what_the_arms_share():
    # The treated arm gains 0.1 on every problem, however hard: no resample can change the
    # difference.
    score_M = np.random.default_rng(0).random(50)
    interval = paired_difference(score_M[None] + 0.1, score_M[None])
    assert (interval.value, interval.low, interval.high) == pytest.approx(
        (0.1, 0.1, 0.1), abs=1e-12
    )


def test_spread_between_seeds_widens_the_interval_without_bias():
    # All problems alike, seeds at -1, 0, 1: s^2 = 1, variance of the mean of three = 1/3. Draws of
    # 2 of 3 seeds have variance (2/3) / 2 = 1/3 and take -1 (1/9), -1/2 (2/9), 0 (3/9), 1/2, 1: the
    # 2.5 and 97.5 percentiles are -1 and 1.
    treated_RM = np.array([-1.0, 0.0, 1.0])[:, None].repeat(20, axis=1)
    assert paired_difference(treated_RM, np.zeros((1, 20))) == Interval(0.0, -1.0, 1.0)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 4))
def test_swapping_the_arms_changes_the_sign_of_the_value(seed, num_treated, num_control):
    rng = np.random.default_rng(seed)
    treated_RM, control_QM = rng.random((num_treated, 9)), rng.random((num_control, 9))
    forth = paired_difference(treated_RM, control_QM, num_draws=200)
    back = paired_difference(control_QM, treated_RM, num_draws=200)
    assert forth.value == pytest.approx(-back.value, abs=1e-15)
    assert forth.low <= forth.high


@pytest.mark.parametrize(
    ("num_problems", "num_samples", "num_runs"),
    [(30, 1, 3000), (30, 16, 3000), (500, 1, 600), (1319, 1, 600)],
)
def test_a_paired_difference_covers_at_its_nominal_rate(
    num_problems: int, num_samples: int, num_runs: int
):
    # Chances spread over Beta(1/2, 1/2); the treated run solves a share `gain` of what the other
    # fails: 1/2 of it on average. Over three gains, as verdicts of 30 problems differ in so few
    # ways that one alone covers 93.5 % and another 95 %. Without a gain runs agree on most
    # problems, and the interval of 30 verdicts covers 96 to 97 %: that is left out here.
    rng, held = np.random.default_rng(0), 0
    for gain in np.repeat([0.1, 0.2, 0.3], num_runs // 3):
        control_M = rng.beta(0.5, 0.5, size=num_problems)
        chance_AM = np.stack([control_M + gain * (1 - control_M), control_M])
        score_AM = rng.binomial(num_samples, chance_AM) / num_samples
        interval = paired_difference(score_AM[:1], score_AM[1:], num_draws=1000)
        held += interval.low <= gain / 2 <= interval.high
    assert abs(held / num_runs - 0.95) <= within(num_runs)


@pytest.mark.parametrize(("num_seeds", "seed_sd"), [(1, 0.0), (5, 0.0), (8, 0.03)])
def test_paired_difference_covers_95_percent(num_seeds, seed_sd):
    # 400 comparisons of 200 shared problems; the arms differ by 0.05, a training seed moves all its
    # problems by N(0, seed_sd).
    rng, held = np.random.default_rng(1), 0
    for _ in range(400):
        easy_M = rng.uniform(0.3, 0.6, size=200)
        move_AR1 = (
            rng.normal(0, seed_sd, size=(2, num_seeds, 1)) + np.array([0.05, 0.0])[:, None, None]
        )
        score_ARM = (rng.random((2, num_seeds, 200)) < easy_M + move_AR1).astype(float)
        interval = paired_difference(score_ARM[0], score_ARM[1], num_draws=500)
        held += interval.low <= 0.05 <= interval.high
    assert 0.925 <= held / 400 <= 0.985
