"""Contrastive scores by hand, their identities, and that no chunk changes them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import floats, integers
from torch import Tensor, tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from reasontrain.vocab import Head, Teacher, contrast, measure

POSITIVE, NEGATIVE = tensor([0.5, 0.3, 0.2]), tensor([0.2, 0.3, 0.5])


def scores(
    positive_NV: Tensor,
    negative_NV: Tensor,
    beta: float,
    plausible: float = 0.0,
    ids_N: Tensor | None = None,
) -> Tensor:
    """s of each id in turn (or of `ids`), from logits that are hidden states behind an identity
    head.
    """
    width = positive_NV.shape[1]
    if ids_N is None:
        ids_N = torch.arange(width)
        positive_NV, negative_NV = (
            logits.expand(width, width).contiguous() for logits in (positive_NV, negative_NV)
        )
    eye = Head(torch.eye(width, dtype=positive_NV.dtype))
    return contrast(
        positive_NV, eye, ids_N, Teacher(negative_NV, eye), beta=beta, plausible=plausible
    ).exp()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        (1.0, [0.766871, 0.184049, 0.049080]),
        (0.5, [0.649573, 0.246496, 0.103932]),
        (0.0, [0.5, 0.3, 0.2]),
    ],
)
def test_worked_numbers(beta: float, expected: list[float]) -> None:
    """With beta 1, p^2 / q = [1.25, .3, .08] and Z = 1.63."""
    found = scores(POSITIVE.log()[None], NEGATIVE.log()[None], beta)
    assert_close(found, tensor(expected), rtol=0, atol=1e-6)


@given(seed=integers(0, 10_000), beta=floats(0, 3))
def test_scores_are_a_distribution_and_the_models_own_constants_do_not_matter(
    seed: int, beta: float
) -> None:
    positive, negative = normal(1, 9, seed=seed), normal(1, 9, seed=seed + 1)
    found = scores(positive, negative, beta)
    assert_close(found.sum(), torch.ones((), dtype=found.dtype), rtol=0, atol=1e-9)
    assert_close(scores(positive + 7.0, negative - 3.0, beta), found, rtol=0, atol=1e-9)


@given(seed=integers(0, 10_000), beta=floats(0, 3))
def test_without_a_difference_or_without_a_scale_the_score_is_the_probability(
    seed: int, beta: float
) -> None:
    positive, negative = normal(1, 9, seed=seed), normal(1, 9, seed=seed + 1)
    p = positive.softmax(-1)[0]
    assert_close(scores(positive, positive, beta), p, rtol=0, atol=1e-9)
    assert_close(scores(positive, negative, 0.0), p, rtol=0, atol=1e-9)


def test_a_mask_of_plausibility_takes_the_unlikely_out() -> None:
    """At 0.5 of the likeliest (.25) only .5 and .3 take part: 1.25 / 1.55 and .3 / 1.55."""
    found = scores(POSITIVE.log()[None], NEGATIVE.log()[None], 1.0, plausible=0.5)
    assert_close(found, tensor([0.806452, 0.193548, 0.0]), rtol=0, atol=1e-6)


def test_a_token_that_a_model_thinks_impossible_has_a_finite_score() -> None:
    never = tensor([[0.0, -torch.inf, 0.0]])
    plain = tensor([[0.0, 0.0, 0.0]])
    for positive, negative in ((never, plain), (plain, never), (never, never)):
        eye = Head(torch.eye(3))
        hidden = [h.nan_to_num(neginf=-1e30) for h in (positive, negative)]
        found = contrast(hidden[0], eye, tensor([1]), Teacher(hidden[1], eye))
        assert found.isfinite().all()


@pytest.mark.parametrize("chunk", [1, 4, None])
def test_chunks_change_nothing_and_it_is_the_plain_softmax(chunk: int | None) -> None:
    hidden_ND, other_ND, weight_VD, other_VD = (
        normal(9, 4),
        normal(9, 3, seed=1),
        normal(20, 4, seed=2),
        normal(20, 3, seed=3),
    )
    ids_N = torch.arange(9)
    found = contrast(
        hidden_ND,
        Head(weight_VD, scale=0.5),
        ids_N,
        Teacher(other_ND, Head(other_VD)),
        beta=0.7,
        chunk=chunk,
    )
    plain_NV = (1.7 * 0.5 * hidden_ND @ weight_VD.T - 0.7 * other_ND @ other_VD.T).log_softmax(-1)
    assert_close(found, plain_NV.gather(1, ids_N[:, None])[:, 0], rtol=1e-9, atol=1e-9)


class Largest(TorchDispatchMode):
    """Notes the most numbers that any tensor held."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for item in result if isinstance(result, tuple | list) else (result,):
            if isinstance(item, Tensor):
                self.numel = max(self.numel, item.numel())
        return result


def test_nothing_is_as_large_as_rows_by_vocabulary() -> None:
    hidden_ND, weight_VD = normal(64, 4).float(), normal(500, 4, seed=1).float()
    with Largest() as largest:
        contrast(
            hidden_ND,
            Head(weight_VD),
            torch.zeros(64, dtype=torch.long),
            Teacher(hidden_ND, Head(weight_VD)),
            chunk=8,
        )
    assert largest.numel == 8 * 500  # one chunk, and not 64 x 500


def test_bfloat16_states_are_combined_in_float32() -> None:
    """Both heads' logits in bfloat16 would be a multiple of 1/8 at 16 to 32."""
    hidden_ND = (8 * normal(50, 16)).bfloat16()
    weight_VD = normal(30, 16, seed=1).bfloat16()
    other_ND = (8 * normal(50, 16, seed=2)).bfloat16()
    ids_N = torch.arange(50) % 30
    found = contrast(hidden_ND, Head(weight_VD), ids_N, Teacher(other_ND, Head(weight_VD)))
    exact = contrast(
        hidden_ND.double(),
        Head(weight_VD.double()),
        ids_N,
        Teacher(other_ND.double(), Head(weight_VD.double())),
    )
    assert_close(found.double(), exact, rtol=1e-5, atol=1e-4)
    assert found.dtype == torch.float32
    assert not measure(hidden_ND, Head(weight_VD), ids_N, ["logp"])["logp"].requires_grad
