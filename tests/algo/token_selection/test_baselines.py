"""Baselines beside the six methods, by hand: DFT, EAFT, IW-OPD, SelecTKD, first segment, PACED,
FiRe-OPD and TIS-DPO.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reasontrain.algo.token_selection import (
    Dft,
    Eaft,
    FireOpd,
    FirstSegment,
    IwOpd,
    Paced,
    SelecTkd,
    TisDpo,
)
from reasontrain.types import Batch, RunError, TokenKind

P, R, T = int(TokenKind.PROMPT), int(TokenKind.RESPONSE), int(TokenKind.TOOL)
NAN = math.nan
LEAST = torch.finfo(torch.float32).tiny


def same(weight_BT: Tensor, expected: list[list[float]]) -> None:
    assert_close(weight_BT.double(), torch.tensor(expected).double(), rtol=1e-6, atol=0)


def test_dft_weighs_by_probability(steps):
    batch = steps.of([[P, R, R, R]], old_logp=[[NAN, math.log(0.5), math.log(0.25), -200.0]])
    # e^-200 is 0 in float32; the token keeps a weight, and with it its place in the mean
    same(Dft()(batch), [[0, 0.5, 0.25, LEAST]])
    assert batch.totals(Dft()(batch)).kept_tokens == 3


def test_eaft_weighs_by_the_entropy_of_the_likeliest(steps):
    batch = steps.of([[P, R, R, R]], entropy_top20=[[NAN, 1.5, 3.0, 0.0]])
    same(Eaft()(batch), [[0, 0.5, 1.0, LEAST]])
    same(Eaft(alpha=2.0)(batch), [[0, 0.25, 1.0, LEAST]])
    same(Eaft(divisor=1.0)(batch), [[0, 1.5, 3.0, LEAST]])
    same(Eaft(alpha=0.0)(batch), [[0, 1.0, 1.0, 1.0]])


def test_iw_opd_falls_as_the_prefix_strays(steps):
    # |A| is 1, 0, 3, 0 in the first response, of 4 in all; before each token lie 0, 1, 1, 4
    batch = steps.of(
        [[P, R, R, R, R], [P, R, T, R, 0]],
        teacher_logp=[[NAN, -1.0, -2.0, -1.0, -4.0], [NAN, -2.0, NAN, -2.0, NAN]],
        old_logp=[[NAN, -2.0, -2.0, -4.0, -4.0], [NAN, -2.0, NAN, -2.0, NAN]],
    )
    expected = [[0, 1.5, 1.375, 1.375, 1.0], [0, 1.5, 0, 1.5, 0]]
    same(IwOpd()(batch), expected)
    same(IwOpd(gamma=0.0)(batch), [[0, 1, 1, 1, 1], [0, 1, 0, 1, 0]])
    swapped = {"teacher_logp": batch.old_logp_BT, "old_logp": batch.teacher_logp_BT}
    same(IwOpd()(batch.with_evidence(swapped)), expected)


def test_selectkd_weighs_what_the_teacher_rejects_little(steps):
    batch = steps.of([[P, R, R, R, T]], teacher_rank_of_argmax=[[NAN, 1.0, 5.0, 6.0, NAN]])
    same(SelecTkd()(batch), [[0, 1, 1, 0.01, 0]])
    same(SelecTkd(top=1, rejected=0.0)(batch), [[0, 1, 0, 0, 0]])
    assert SelecTkd().metrics(batch) == {"accepted_share": pytest.approx(2 / 3)}


def test_the_first_segment_counts_tokens_of_the_response(steps):
    batch = steps.of([[P, P, R, T, R, R], [P, R, 0, 0, 0, 0]])
    same(FirstSegment(tokens=2)(batch), [[0, 0, 1, 0, 1, 0], [0, 1, 0, 0, 0, 0]])


def graded(steps, *, rewards: list[float], verdicts: list[bool] | None) -> Batch:
    """Six rollouts of one token, four of one prompt and two of another."""
    return replace(
        steps.of([[P, R]] * 6),
        group_B=torch.tensor([7, 7, 7, 7, 3, 3]),
        reward_B=torch.tensor(rewards),
        correct_B=None if verdicts is None else torch.tensor(verdicts),
    )


def test_paced_weighs_prompts_that_are_solved_sometimes(steps):
    # one of four is right, so r (1 - r) = 3/16; two of two are, so it is 0
    verdicts = [True, False, False, False, True, True]
    batch = graded(steps, rewards=[5.0] * 6, verdicts=verdicts)
    same(Paced()(batch), [[0, 3 / 16]] * 4 + [[0, 0]] * 2)
    same(Paced(alpha=2.0, beta=0.5)(batch), [[0, 0.75**0.5 / 16]] * 4 + [[0, 0]] * 2)
    # the mean over six tokens is 1/8, and 3/16 of it 1.5
    same(Paced(scale="mean_one")(batch), [[0, 1.5]] * 4 + [[0, 0]] * 2)
    assert Paced().metrics(batch) == {
        "solve_rate_mean": pytest.approx(0.5),
        "between_share": pytest.approx(2 / 3),
    }
    rewards = [1.0, 0.0, 0.0, 0.0, 0.5, 0.0]
    # without verdicts rewards count: 1/4 as above, and 1/4 of the other prompt's
    same(Paced()(graded(steps, rewards=rewards, verdicts=None)), [[0, 3 / 16]] * 6)
    with pytest.raises(RunError, match=r"rewards from 0 to 1, and a rollout has reward 2;"):
        Paced()(graded(steps, rewards=[2.0] * 6, verdicts=None))


def fire_step(steps) -> Batch:
    """Five rollouts of one token, the last of which the teacher finds least likely."""
    return steps.of(
        [[P, R]] * 5,
        teacher_logp=[[NAN, -1.0], [NAN, -2.0], [NAN, -3.0], [NAN, -4.0], [NAN, -5.0]],
        teacher_entropy=[[NAN, 0.0], [NAN, 1.0], [NAN, 2.0], [NAN, 1.0], [NAN, 99.0]],
        entropy=[[NAN, 1.0], [NAN, 2.0], [NAN, 0.0], [NAN, 2.0], [NAN, 99.0]],
    )


def test_fire_opd_drops_rollouts_and_weighs_tokens(steps):
    batch = fire_step(steps)
    # The 20 % quantile of -1 to -5 is -4.2, so the last goes, and its entropies with it. Shares of
    # the maximum: H_T 0, 1/2, 1, 1/2 and H 1/2, 1, 0, 1; products 2 x 3/2, 3/2 x 2, 1 x 1 and
    # 3/2 x 2, whose mean is 5/2.
    same(FireOpd()(batch), [[0, 1.2], [0, 1.2], [0, 0.4], [0, 1.2], [0, 0]])
    same(FireOpd(normalise="rollout")(batch), [[0, 1]] * 4 + [[0, 0]])
    # alpha alone: 2, 3/2, 1, 3/2, of mean 3/2
    same(FireOpd(beta=0.0)(batch), [[0, 4 / 3], [0, 1], [0, 2 / 3], [0, 1], [0, 0]])
    assert (FireOpd(drop=0.0)(batch)[:, 1] > 0).all()


def test_fire_opd_ranks_rollouts_by_the_mean_and_not_the_sum(steps):
    batch = steps.of(
        [[P, R, R, R], [P, R, 0, 0]],
        teacher_logp=[[NAN, -1.0, -1.0, -1.0], [NAN, -2.0, NAN, NAN]],
        teacher_entropy=[[0.0] * 4] * 2,
        entropy=[[0.0] * 4] * 2,
    )
    assert FireOpd(drop=0.5).remaining(batch).tolist() == [True, False]


def test_tis_dpo_weighs_both_sides_of_a_pair(steps):
    batch = steps.of([[P, R, R, R], [P, R, R, R]], log_ratio=[[NAN, 0.5, -9.0, 9.0]] * 2)
    # clipped to 1/2, -1/2 and 3/2; the sign of the rejected side is the opposite
    exponents = [[0.5, -0.5, 1.5], [-0.5, 0.5, -1.5]]
    same(TisDpo()(batch), [[0, *map(math.exp, side)] for side in exponents])
    twice = [[0, *(math.exp(2 * value) for value in side)] for side in exponents]
    same(TisDpo(mu=2.0)(batch), twice)
    # ranks are 1/2, 0 and 1 of the chosen, and the opposite of the rejected side
    ranks = [[0, 1.0, 0.7, 1.3], [0, 1.0, 1.3, 0.7]]
    same(TisDpo(mode="rank")(batch), ranks)
    single = steps.of([[P, R], [P, R]], log_ratio=[[NAN, 2.0], [NAN, 2.0]])
    same(TisDpo(mode="rank")(single), [[0, 1.0], [0, 1.0]])


@pytest.mark.parametrize(
    "rule",
    [FireOpd(), FireOpd(normalise="rollout"), Paced(scale="mean_one")],
    ids=["step", "rollout", "paced"],
)
def test_a_stated_mean_of_one(steps, rule):
    for seed in range(5):
        batch = steps.random(seed)
        weight_BT = rule(batch).double()
        kept_BT = (
            batch.is_response_BT & rule.remaining(batch)[:, None]
            if isinstance(rule, FireOpd)
            else batch.is_response_BT
        )
        if weight_BT.any():
            assert float(weight_BT[kept_BT].mean()) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        (Dft(), "old_logp"),
        (Eaft(), "entropy_top20"),
        (IwOpd(), "teacher_logp"),
        (IwOpd(), "old_logp"),
        (SelecTkd(), "teacher_rank_of_argmax"),
        (TisDpo(), "log_ratio"),
        (FireOpd(), "teacher_logp"),
        (FireOpd(), "entropy"),
        (FireOpd(), "teacher_entropy"),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_evidence_that_is_not_finite_ends_the_run(steps, rule, name):
    batch = steps.random(1)
    broken_BT = batch.evidence[name].clone()
    broken_BT[batch.is_response_BT] = torch.inf
    with pytest.raises(RunError, match=f"evidence '{name}' is NaN or infinite"):
        rule(batch.with_evidence({name: broken_BT}))
