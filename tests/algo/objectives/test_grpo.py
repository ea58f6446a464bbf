"""Clipping and the reference penalty by hand, and parity with TRL's formula of both."""

import math

import torch
from torch import Tensor, tensor
from torch.testing import assert_close

from reasontrain.algo.objectives import Grpo
from reasontrain.types import Losses, TokenFields, TokenStats


def run(
    objective: Grpo, logp: list[float], advantage: list[float], **evidence: list[float]
) -> tuple[Losses, Tensor]:
    """The losses, and the slope of their sum along each log-prob."""
    logp_N = tensor(logp).requires_grad_()
    columns = {name: tensor(values) for name, values in evidence.items()}
    batch = TokenFields(
        ids_N=torch.zeros(len(logp), dtype=torch.long),
        advantage_N=tensor(advantage),
        evidence=columns,
    )
    losses = objective(TokenStats({"logp": logp_N}.__getitem__), batch)
    return losses, torch.autograd.grad(losses.loss.sum(), logp_N)[0]


# ratio = e^0.5 = 1.6487, clipped at 1.2; advantage +2 -> -min(3.297, 2.4)
def test_gain_is_clipped_above():
    losses, slope_N = run(Grpo(), [-0.5], [2.0], old_logp=[-1.0])
    assert_close(losses.loss, tensor([-2.4]))
    assert slope_N.tolist() == [0.0]
    assert losses.stats["clipped"].tolist() == [True]
    assert_close(losses.stats["ratio"], tensor([math.exp(0.5)]))


# ratio = e^-0.5 = 0.6065, clipped at 0.8; advantage -2 -> -min(-1.213, -1.6)
def test_gain_is_clipped_below():
    losses, slope_N = run(Grpo(), [-1.0], [-2.0], old_logp=[-0.5])
    assert_close(losses.loss, tensor([1.6]))
    assert slope_N.tolist() == [0.0]


# ratio 1.6487 at -2 -> 3.297; 0.6065 at +2 -> -1.213; slope = loss
def test_a_loss_is_never_clipped_away():
    losses, slope_N = run(Grpo(), [-0.5, -1.0], [-2.0, 2.0], old_logp=[-1.0, -0.5])
    expected_N = tensor([2 * math.exp(0.5), -2 * math.exp(-0.5)])
    assert_close(losses.loss, expected_N)
    assert_close(slope_N, expected_N)
    assert losses.stats["clipped"].tolist() == [False, False]


# ratio e^0.25 = 1.2840: inside 1.28 no, so 1.28 * 1; e^-0.25 = 0.7788: above 0.7, kept
def test_the_two_bounds_are_separate():
    losses, _ = run(
        Grpo(clip_low=0.3, clip_high=0.28), [-0.75, -1.0], [1.0, -1.0], old_logp=[-1.0, -0.75]
    )
    assert_close(losses.loss, tensor([-1.28, math.exp(-0.25)]))


# r = e^(-1 - -2) = e: k3 = e - 1 - 1 = 0.71828; slope 1 - e; the policy term -1 * 3, slope -3
def test_reference_penalty():
    losses, slope_N = run(Grpo(reference_kl=0.1), [-2.0], [3.0], old_logp=[-2.0], ref_logp=[-1.0])
    assert_close(losses.loss, tensor([-3 + 0.1 * (math.e - 2)]))
    assert_close(slope_N, tensor([-3 + 0.1 * (1 - math.e)]))
    assert_close(losses.stats["reference_kl"], tensor([math.e - 2]))


# r = e^2 = 7.389 at A -2: loss 14.778, bounded by 3 * 2; at A +2 the bound is clip_high's
def test_dual_clip_bounds_the_loss_of_a_negative_advantage():
    objective = Grpo(dual_clip=3.0)
    losses, slope_N = run(objective, [-1.0, -1.0, -1.0], [-2.0, 2.0, -2.0], old_logp=[-3, -3, -1.5])
    assert_close(losses.loss, tensor([6.0, -2.4, 2 * math.exp(0.5)]))
    assert_close(slope_N, tensor([0.0, 0.0, 2 * math.exp(0.5)]))
    assert losses.stats["clipped"].tolist() == [True, True, False]


# log r = 7 is clamped to 2; log p_ref / p = -9 to -2: k3 = e^-2 - 1 + 2 = 1.1353
def test_a_clamp_of_log_ratios_bounds_ratio_and_penalty():
    objective = Grpo(max_log_ratio=2.0, reference_kl=0.1)
    losses, slope_N = run(objective, [-1.0], [-1.0], old_logp=[-8.0], ref_logp=[-10.0])
    assert_close(losses.loss, tensor([math.exp(2) + 0.1 * (math.exp(-2) + 1)]))
    assert slope_N.tolist() == [0.0]


def test_needs():
    assert Grpo().required_evidence == {"old_logp"}
    assert Grpo(reference_kl=0.1).required_evidence == {"old_logp", "ref_logp"}
