import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from reasontrain.objectives import Dpo
from reasontrain.types import Losses, Responses, RowColumns

SCORES = [0.2, 0.9, 0.5]


def pair(*, scores: list[float] = SCORES, logp: torch.Tensor | None = None) -> Responses:
    """A chosen response of two tokens and a rejected one of three, whose log-ratios are [.4, -.1] and [.5, -.2, .1]."""
    delta_N = tensor([0.4, -0.1, 0.5, -0.2, 0.1])
    logp_N = tensor([-1.0, -2.0, -0.5, -3.0, -1.5]) if logp is None else logp
    base_N = logp_N.detach()
    return Responses(
        logp_N=logp_N,
        weight_N=tensor([1.0, 1.0] + [1 - s for s in scores]),
        rollout_N=tensor([0, 0, 1, 1, 1]),
        token_N=tensor([4, 5, 4, 5, 6]),
        num_rollouts=2,
        columns=RowColumns(
            ids_N=torch.zeros(5, dtype=torch.long), advantage_N=torch.zeros(5), evidence={"ref_logp": base_N - delta_N}
        ),
    )


def losses(beta: float, scores: list[float] = SCORES) -> Losses:
    return Dpo(beta=beta)(pair(scores=scores))


def test_worked_numbers() -> None:
    """r_w = .3 beta; r_l = (.8 x .5 - .1 x .2 + .5 x .1) beta = .43 beta."""
    found = losses(0.1)
    assert_close(found.stats["margin"], tensor([-0.013]), rtol=0, atol=1e-7)
    assert_close(found.loss, tensor([0.699668]), rtol=0, atol=1e-6)
    assert_close(losses(1.0).loss, tensor([0.760258]), rtol=0, atol=1e-6)
    assert_close(losses(0.1, [0.0, 0.0, 0.0]).loss, tensor([0.698160]), rtol=0, atol=1e-6)
    assert found.stats["accuracy"].tolist() == [False]
    assert_close(found.stats["chosen_logp"], tensor([-3.0]))
    assert_close(found.stats["rejected_logp"], tensor([-5.0]))


def test_the_gradient_carries_the_weight() -> None:
    logp_N = tensor([-1.0, -2.0, -0.5, -3.0, -1.5], requires_grad=True)
    Dpo(beta=0.1)(pair(logp=logp_N)).loss.sum().backward()
    assert_close(logp_N.grad, tensor([-0.050325, -0.050325, 0.040260, 0.005032, 0.025162]), rtol=0, atol=1e-6)


def test_a_weight_of_zero_takes_the_token_away_even_where_it_overflows() -> None:
    logp_N = tensor([-1.0, -2.0, -0.5, -torch.inf, -1.5], requires_grad=True)
    seen = pair(scores=[0.2, 1.0, 0.5], logp=logp_N)
    found = Dpo(beta=0.1)(seen)
    found.loss.sum().backward()
    assert float(found.loss.detach()) == pytest.approx(0.700668, abs=1e-5)
    assert logp_N.grad is not None
    assert logp_N.grad[3] == 0
    assert logp_N.grad.isfinite().all()


def test_an_unmoved_policy_loses_ln_2_and_has_a_gradient() -> None:
    logp_N = tensor([-1.0, -2.0, -0.5, -3.0, -1.5], requires_grad=True)
    seen = pair(logp=logp_N)
    seen.columns.evidence["ref_logp"].copy_(logp_N.detach())
    found = Dpo(beta=0.1)(seen)
    found.loss.sum().backward()
    assert_close(found.loss.detach(), tensor([0.693147]), rtol=0, atol=1e-6)
    assert_close(logp_N.grad, tensor([-0.05, -0.05, 0.04, 0.005, 0.025]), rtol=0, atol=1e-7)
