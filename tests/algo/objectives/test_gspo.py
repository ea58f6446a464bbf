import math

import torch
from torch import tensor
from torch.testing import assert_close

from reasontrain.algo.objectives import Gspo
from reasontrain.types import SequenceStats, TokenFields

OLD = [-1.0, -2.0, -3.0, -1.0, -1.0]
MOVED = [0.1, -0.05, 0.1, -0.2, 0.0]
"""Two responses, of three rows and of two: their mean log-ratios are 0.05 and -0.1."""


def responses(advantage: list[float]) -> SequenceStats:
    logp_N = (tensor(OLD) + tensor(MOVED)).requires_grad_()
    columns = TokenFields(
        ids_N=torch.zeros(5, dtype=torch.long),
        advantage_N=tensor(advantage),
        evidence={"old_logp": tensor(OLD)},
    )
    return SequenceStats(
        logp_N=logp_N,
        weight_N=torch.ones(5),
        rollout_N=tensor([0, 0, 0, 1, 1]),
        token_N=tensor([2, 3, 4, 2, 3]),
        num_rollouts=2,
        columns=columns,
    )


def test_every_row_has_the_ratio_of_its_response() -> None:
    seen = responses([2.0, 2.0, 2.0, -1.0, -1.0])
    found = Gspo(clip_low=0.2, clip_high=0.2)(seen)
    up, down = math.exp(0.05), math.exp(-0.1)
    assert_close(found.stats["ratio"], tensor([up, up, up, down, down]))
    assert_close(found.loss.detach(), tensor([-2 * up, -2 * up, -2 * up, down, down]))
    found.loss.sum().backward()
    assert_close(seen.logp_N.grad, tensor([-2 * up, -2 * up, -2 * up, down, down]))


def test_averaged_over_a_response_it_is_the_gradient_of_the_sequence_ratio() -> None:
    seen = responses([2.0, 2.0, 2.0, -1.0, -1.0])
    loss_N = Gspo(clip_low=0.2, clip_high=0.2)(seen).loss
    token_form = torch.autograd.grad(loss_N[:3].mean() + loss_N[3:].mean(), seen.logp_N)[0]
    ratio_N = seen.logp_N - tensor(OLD)
    sequence = -2 * ratio_N[:3].mean().exp() + ratio_N[3:].mean().exp()
    assert_close(token_form, torch.autograd.grad(sequence, seen.logp_N)[0])


# means of log-ratios 0.05 and -0.1: ratios 1.0513 and 0.9048, both inside 0.12 and 0.08 below,
# 0.04 and 0.12 above
def test_the_two_bounds_are_separate() -> None:
    up, down = math.exp(0.05), math.exp(-0.1)
    gain = Gspo(clip_low=0.12, clip_high=0.04)(responses([2.0, 2.0, 2.0, -1.0, -1.0]))
    assert_close(gain.loss.detach(), tensor([-2 * 1.04] * 3 + [down] * 2))
    assert gain.stats["clipped"].tolist() == [True] * 3 + [False] * 2
    loss = Gspo(clip_low=0.08, clip_high=0.12)(responses([2.0, 2.0, 2.0, -1.0, -1.0]))
    assert_close(loss.loss.detach(), tensor([-2 * up] * 3 + [0.92] * 2))
    assert loss.stats["clipped"].tolist() == [False] * 3 + [True] * 2


def test_the_clip_takes_gain_away_and_never_loss() -> None:
    """1.051 is above 1 + 0.02 and 0.905 below 1 - 0.02; at advantages +2 and +2 only the first is
    clipped, to 2.04.
    """
    seen = responses([2.0] * 5)
    found = Gspo(clip_low=0.02, clip_high=0.02)(seen)
    found.loss.sum().backward()
    assert found.stats["clipped"].tolist() == [True, True, True, False, False]
    assert_close(found.loss.detach(), tensor([-2.04] * 3 + [-2 * math.exp(-0.1)] * 2))
    assert seen.logp_N.grad is not None
    assert seen.logp_N.grad[:3].tolist() == [0, 0, 0]
