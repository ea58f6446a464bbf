"""Accuracy, pass@k and their intervals: hand numbers, brute force, and coverage by simulation."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from reasontrain.evaluation.metrics import (
    Interval,
    accuracy,
    bootstrap,
    difference,
    estimate,
    majority_per_problem,
    mean_at_k,
    mean_per_problem,
    paired_difference,
    pass_at_k,
    pass_per_problem,
    summarise,
    wilson,
)
from reasontrain.types import UserError

TABLE = np.array([[1, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]], dtype=bool)


def test_hand_numbers():
    # accuracy (1 + 3 + 0) / 12; mean@2 (1 + 2 + 0) / 6
    # pass@2: 1 - C(3,2)/C(4,2) = 1 - 3/6; 1 - C(1,2)/C(4,2) = 1; 0 -> mean 1.5 / 3
    assert accuracy(TABLE) == pytest.approx(1 / 3, abs=1e-15)
    assert mean_at_k(TABLE, 2) == pytest.approx(1 / 2, abs=1e-15)
    assert pass_per_problem(TABLE, 2).tolist() == pytest.approx([0.5, 1.0, 0.0], abs=1e-15)
    assert pass_at_k(TABLE, 2) == pytest.approx(0.5, abs=1e-15)


def test_majority_by_hand():
    correct_MS = np.array([[1, 0, 0, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=bool)
    vote_MS = np.array([[5, 6, 6, 5], [5, 6, 5, 6], [7, 7, 8, 5], [-1, -1, -1, -1], [-1, -1, -1, 5]])
    # two lead and one is right; likewise; 7 leads and is wrong; nobody votes; silence is outvoted by one
    assert majority_per_problem(correct_MS, vote_MS, 4).tolist() == [0.5, 0.5, 0.0, 0.0, 1.0]
    # of the first three: 6 leads; 5 leads; 7 leads; nobody; nobody
    assert majority_per_problem(correct_MS, vote_MS, 3).tolist() == [0.0, 1.0, 0.0, 0.0, 0.0]
    assert majority_per_problem(correct_MS, vote_MS, 1).tolist() == correct_MS[:, 0].tolist()
    assert summarise(correct_MS, [4], vote_MS=vote_MS)["maj@4"].value == 0.4
    with pytest.raises(UserError, match="maj@5 needs k between 1 and the number of samples per problem, which is 4"):
        majority_per_problem(correct_MS, vote_MS, 5)


@given(arrays(np.int64, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(-1, 3)))
def test_a_majority_is_the_answer_that_wins_when_ballots_are_drawn_by_lot(vote_MS):
    k = vote_MS.shape[1]
    counts = [{answer: row.tolist().count(answer) for answer in set(row.tolist()) - {-1}} for row in vote_MS]
    leaders = [[answer for answer, times in row.items() if times == max(row.values())] for row in counts]
    expected = [row.count(2) / len(row) if row else 0.0 for row in leaders]  # 2 is the right answer
    assert majority_per_problem(vote_MS == 2, vote_MS, k).tolist() == expected


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=6)), st.data())
def test_pass_at_k_is_the_average_over_all_subsets(correct_MS, data):
    k = data.draw(st.integers(1, correct_MS.shape[1]))
    subsets = [correct_MS[:, list(chosen)].any(1) for chosen in combinations(range(correct_MS.shape[1]), k)]
    np.testing.assert_allclose(pass_per_problem(correct_MS, k), np.mean(subsets, axis=0), rtol=0, atol=1e-14)


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
        lambda: bootstrap(np.zeros(0)),
        lambda: paired_difference(np.zeros((1, 0)), np.zeros((1, 0))),
    ):
        with pytest.raises(UserError, match="found none"):
            interval()


def test_wilson_by_hand():
    # 1 of 10: z = 1.95996, z^2/n = 0.384146; middle (0.1 + 0.192073) / 1.384146 = 0.211013
    # reach sqrt(0.09 * 0.384146 + 0.147568 / 4) / 1.384146 = sqrt(0.0345731 + 0.0368920) / 1.384146 = 0.193136
    interval = wilson(1, 10)
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.1, 0.017876, 0.404150), abs=2e-6)


def test_wilson_keeps_an_honest_end_where_nothing_is_right():
    # 0 of 30: high = z^2 / (n + z^2) = 3.841459 / 33.841459
    assert (wilson(0, 30).low, wilson(0, 30).high) == (0.0, pytest.approx(0.1135134, abs=1e-7))
    assert (wilson(30, 30).low, wilson(30, 30).high) == (pytest.approx(0.8864866, abs=1e-7), 1.0)


def test_wilson_covers_95_percent_exactly_counted():
    # The chance that the interval holds p is a finite sum; averaged over p it is nominal within half a point for n = 50.
    num, shares = 50, np.linspace(0.02, 0.98, 193)
    chance = {right: comb(num, right) * shares**right * (1 - shares) ** (num - right) for right in range(num + 1)}
    covered = sum(
        chance[right] * ((wilson(right, num).low <= shares) & (shares <= wilson(right, num).high)) for right in range(num + 1)
    )
    assert 0.945 < covered.mean() < 0.96
    assert covered.min() > 0.88


def test_bootstrap_equals_its_normal_limit():
    # Scores 0, 1/2, 1 in equal parts: sd of the mean of 3000 = sqrt((1/6) / 3000) = 0.0074536, ends 0.5 -+ 1.96 sd.
    interval = bootstrap(np.repeat([0.0, 0.5, 1.0], 1000), num_draws=40_000)
    assert interval.value == 0.5
    assert (interval.low, interval.high) == pytest.approx((0.5 - 0.014609, 0.5 + 0.014609), abs=3e-4)


def test_bootstrap_is_a_function_of_its_seed():
    score_M = np.linspace(0, 1, 37)
    assert bootstrap(score_M, seed=3) == bootstrap(score_M, seed=3)
    assert bootstrap(score_M, seed=3) != bootstrap(score_M, seed=4)


def test_bootstrap_covers_95_percent():
    # 1000 suites of 100 problems whose difficulty is spread over Beta(1/2, 1/2), 4 samples each; the true accuracy is 1/2.
    # A true coverage of 94.5 % has a standard error of 0.7 points here.
    rng, held = np.random.default_rng(0), 0
    for _ in range(1000):
        correct_MS = rng.random((100, 4)) < rng.beta(0.5, 0.5, size=(100, 1))
        interval = bootstrap(mean_per_problem(correct_MS), num_draws=1000)
        held += interval.low <= 0.5 <= interval.high
    assert 0.93 <= held / 1000 <= 0.965


def test_estimate_uses_wilson_for_verdicts_and_the_bootstrap_for_means():
    verdict_M = np.array([0.0, 0.0, 1.0])
    assert estimate(verdict_M) == wilson(1, 3)
    assert estimate(np.zeros(30)).high == wilson(0, 30).high
    assert estimate(np.array([0.0, 0.5, 1.0])) == bootstrap(np.array([0.0, 0.5, 1.0]))


def test_summary_names_every_metric():
    summary = summarise(TABLE, (2, 4))
    assert list(summary) == ["accuracy", "mean@2", "mean@4", "pass@2", "pass@4"]
    assert summary["pass@4"] == wilson(2, 3)
    assert summary["mean@4"] == summary["accuracy"]


def test_difference_is_newcombes():
    # Newcombe 1998, table II (a), method 10: 56/70 - 48/80 = 0.2, interval 0.0524 to 0.3339
    interval = difference(wilson(56, 70), wilson(48, 80))
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_pairing_removes_what_the_arms_share():
    # The treated arm gains 0.1 on every problem, however hard: no resample can change the difference.
    score_M = np.random.default_rng(0).random(50)
    interval = paired_difference(score_M[None] + 0.1, score_M[None])
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.1, 0.1, 0.1), abs=1e-12)


def test_spread_between_seeds_widens_the_interval_without_bias():
    # All problems alike, seeds at -1, 0, 1: s^2 = 1, variance of the mean of three = 1/3. Draws of 2 of 3 seeds have variance
    # (2/3) / 2 = 1/3 and take -1 (1/9), -1/2 (2/9), 0 (3/9), 1/2, 1: the 2.5 and 97.5 percentiles are -1 and 1.
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


@pytest.mark.parametrize(("num_seeds", "seed_sd"), [(1, 0.0), (5, 0.0), (8, 0.03)])
def test_paired_difference_covers_95_percent(num_seeds, seed_sd):
    # 400 comparisons of 200 shared problems; the arms differ by 0.05, a training seed moves all its problems by N(0, seed_sd).
    rng, held = np.random.default_rng(1), 0
    for _ in range(400):
        easy_M = rng.uniform(0.3, 0.6, size=200)
        move_AR1 = rng.normal(0, seed_sd, size=(2, num_seeds, 1)) + np.array([0.05, 0.0])[:, None, None]
        score_ARM = (rng.random((2, num_seeds, 200)) < easy_M + move_AR1).astype(float)
        interval = paired_difference(score_ARM[0], score_ARM[1], num_draws=500)
        held += interval.low <= 0.05 <= interval.high
    assert 0.925 <= held / 400 <= 0.985
