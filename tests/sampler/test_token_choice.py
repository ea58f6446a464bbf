"""The law of the next token against laws worked by hand, and the draw at its edges."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import floats, integers, lists
from torch import Tensor, tensor

from reasontrain import rng
from reasontrain.data.sampling import Sampling
from reasontrain.sampler.token_choice import choose, draw, truncate

LAW = tensor([[0.1, 0.4, 0.2, 0.3]])
LARGEST = 1 - 2.0**-53


def kept(**knobs: float) -> list[float]:
    """What is left of LAW, renormalised."""
    left = truncate(LAW, Sampling(**knobs))[0].double()
    return (left / left.sum()).tolist()


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 9}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 0.65}, [0, 4 / 7, 0, 3 / 7]),  # before each, likeliest first: 0, .4, .7, .9
        ({"top_p": 0.75}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_p": 0.01}, [0, 1, 0, 0]),  # one always stays
        ({"min_p": 0.45}, [0, 4 / 9, 2 / 9, 3 / 9]),  # at least .45 * .4 = .18
        ({"min_p": 1.0}, [0, 1, 0, 0]),
        (
            {"top_k": 3, "top_p": 0.75},
            [0, 4 / 7, 0, 3 / 7],
        ),  # of .4 .3 .2 over .9: before the third .777, not .7
        ({"top_p": 0.95, "min_p": 0.6}, [0, 4 / 7, 0, 3 / 7]),
    ],
)
def test_truncated_laws(knobs: dict[str, float], expected: list[float]) -> None:
    torch.testing.assert_close(
        tensor(kept(**knobs)), tensor(expected, dtype=torch.float32), rtol=0, atol=1e-7
    )


def test_equal_probabilities_rank_by_id() -> None:
    law = torch.full((1, 5), 0.2)
    assert truncate(law, Sampling(top_k=2))[0].nonzero().flatten().tolist() == [0, 1]


@given(
    weights=lists(floats(0, 1), min_size=1, max_size=8),
    top_k=integers(0, 9),
    top_p=floats(0.01, 1),
    min_p=floats(0, 1),
)
def test_truncation_equals_a_loop(
    weights: list[float], top_k: int, top_p: float, min_p: float
) -> None:
    law_V = tensor([w + 1e-3 for w in weights], dtype=torch.float64)
    law_V = (law_V / law_V.sum()).float()
    order = sorted(range(len(law_V)), key=lambda i: (-law_V[i].item(), i))
    order = order[:top_k] if top_k else order
    total, mass, nucleus = math.fsum(law_V[i].item() for i in order), 0.0, []
    for i in order:
        if mass < top_p * total or top_p == 1:
            nucleus.append(i)
        mass += law_V[i].item()
    floor = (min_p * law_V[order[0]]).item()
    expected = [
        law_V[i].item() if i in nucleus and law_V[i].item() >= floor else 0.0
        for i in range(len(law_V))
    ]
    found = truncate(law_V[None], Sampling(top_k=top_k, top_p=top_p, min_p=min_p))[0]
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("law", "uniform", "expected"),
    [
        ([0.0, 0.0, 0.5, 0.5, 0.0], 0.0, 2),  # not the zeros before
        ([0.0, 0.0, 0.5, 0.5, 0.0], LARGEST, 3),  # not the zero after
        ([0.25, 0.0, 0.75], 0.25, 2),  # a boundary belongs to the next id with probability
        ([0.25, 0.0, 0.75], 0.25 - 2.0**-53, 0),
        ([0.0, 0.3, 0.0], LARGEST, 1),  # unnormalised
        ([1e-3, 3e-3], 0.26, 1),
        ([1e-3, 3e-3], 0.24, 0),
    ],
)
def test_draw_at_the_edges(law: list[float], uniform: float, expected: int) -> None:
    assert draw(tensor([law]), tensor([uniform], dtype=torch.float64)).tolist() == [expected]


def chi_square(ids_N: Tensor, law: list[float]) -> float:
    """Pearson's statistic; infinite where something impossible was drawn."""
    count = torch.bincount(ids_N, minlength=len(law)).double()
    expected = tensor(law, dtype=torch.float64) * len(ids_N)
    if (count[expected == 0] > 0).any():
        return math.inf
    seen = expected > 0
    return ((count - expected)[seen] ** 2 / expected[seen]).sum().item()


@pytest.mark.parametrize(
    ("knobs", "law"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        (
            {"temperature": 0.5},
            [1 / 30, 16 / 30, 4 / 30, 9 / 30],
        ),  # squares, over .01 + .16 + .04 + .09
        (
            {"temperature": 0.5, "top_p": 0.8},
            [0, 16 / 25, 0, 9 / 25],
        ),  # temperature first: .533 < .8 <= .833
        ({"top_k": 3}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"min_p": 0.6}, [0, 4 / 7, 0, 3 / 7]),
    ],
)
def test_draws_follow_the_law(knobs: dict[str, float], law: list[float]) -> None:
    num = 50_000
    uniform_N = rng.uniform(11, torch.arange(num), 5)
    ids_N, logp_N = choose(LAW.log().expand(num, -1), uniform_N, Sampling(**knobs))
    assert chi_square(ids_N, law) < 16.27  # the 99.9th percentile at 3 degrees of freedom
    wrong = [law[1], law[0], *law[2:]]
    assert chi_square(ids_N, wrong) > 1000
    temperature = knobs.get("temperature", 1.0)
    untruncated_V = (LAW[0].log() / temperature).log_softmax(0)
    torch.testing.assert_close(logp_N, untruncated_V[ids_N], rtol=0, atol=1e-6)


def test_greedy_is_the_likeliest_at_temperature_one() -> None:
    ids_N, logp_N = choose(LAW.log(), tensor([0.0], dtype=torch.float64), Sampling(temperature=0.0))
    assert ids_N.tolist() == [1]
    torch.testing.assert_close(logp_N, tensor([math.log(0.4)]))
