"""Which divergence is asked for, and two tokens by hand."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from reasontrain.algo.objectives import Distill
from reasontrain.types import TokenFields
from reasontrain.vocab import Head, Teacher, fused

# p = (3/4, 1/4), q = (1/4, 3/4), so p and q are mirror images: KL(p||q) = KL(q||p) = (3/4 - 1/4) ln
# 3 = ln(3) / 2. beta = 1/2: m = (1/2, 1/2), JSD = KL(p||m) = ln 2 - H(p) = ln 2 - (2 ln 2 - 3/4 ln
# 3) = 3/4 ln 3 - ln 2.
MIRROR = {
    "reverse_kl": math.log(3) / 2,
    "forward_kl": math.log(3) / 2,
    "jsd": 0.75 * math.log(3) - math.log(2),
}
# p = (1/2, 1/2), q = (1/4, 3/4): KL(p||q) = ln 2 - 1/2 ln 3 + ... = 1/2 ln 2 + 1/2 ln(2/3) = ln 2 -
# ln(3)/2; KL(q||p) = 1/4 ln(1/2) + 3/4 ln(3/2) = 3/4 ln 3 - ln 2
SKEW = {"reverse_kl": math.log(2) - math.log(3) / 2, "forward_kl": 0.75 * math.log(3) - math.log(2)}


def loss(objective: Distill, p: float, q: float) -> float:
    student_ND, teacher_ND = (tensor([[x, 1 - x]], dtype=torch.float64).log() for x in (p, q))
    head = Head(torch.eye(2, dtype=torch.float64))
    columns = TokenFields(ids_N=tensor([0]), advantage_N=torch.zeros(1))
    one_N = torch.ones(1, dtype=torch.float64)
    return fused(
        student_ND, head, columns, one_N, objective, teacher=Teacher(teacher_ND, head)
    ).loss.item()


@pytest.mark.parametrize("divergence", MIRROR)
def test_mirror_images(divergence: str):
    assert_close(
        loss(Distill(divergence=divergence), 0.75, 0.25), MIRROR[divergence], rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("divergence", SKEW)
def test_directions_are_told_apart(divergence: str):
    assert_close(
        loss(Distill(divergence=divergence), 0.5, 0.25), SKEW[divergence], rtol=1e-12, atol=0
    )


def test_beta_runs_from_forward_to_reverse():
    assert loss(Distill(divergence="jsd", beta=0.0), 0.5, 0.25) == loss(
        Distill(divergence="forward_kl"), 0.5, 0.25
    )
    assert loss(Distill(divergence="jsd", beta=1.0), 0.5, 0.25) == loss(Distill(), 0.5, 0.25)


def test_beta_weighs_the_teacher():
    # beta = 1/4, p = (1, 0), q = (0, 1) in the limit: m = (3/4, 1/4), 3/4 ln(4/3) + 1/4 ln 4
    expected = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert_close(
        loss(Distill(divergence="jsd", beta=0.25), 1 - 1e-15, 1e-15), expected, rtol=1e-12, atol=0
    )
