"""Keyed random numbers against SplitMix64 in plain Python, and their statistics."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers, lists

from reasontrain import rng
from reasontrain.rng import Stream, uniform

PACKAGE = Path(rng.__file__).parent
PASSED_ON = {("_draws.py", "stream"), ("images.py", "stream"), ("order.py", "epoch")}
"""Calls whose second part is a parameter, or an epoch's number (see `Stream`)."""
INCREMENT, MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1
int64 = integers(-(1 << 63), (1 << 63) - 1)


def mix(value: int) -> int:
    """The finaliser of SplitMix64, on unsigned 64-bit numbers."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def expected(key: list[int]) -> float:
    """What `uniform` gives for a key, in plain Python."""
    state = 0
    for part in key:
        state = mix((state * 0xBF58476D1CE4E5B9 + part + INCREMENT) & MASK)
    return (mix((state + INCREMENT) & MASK) >> 11) / 2**53


# seed 0 gives 0xE220A8397B1DCDAF; its upper 53 bits make the number
def test_the_published_first_output_of_splitmix64():
    assert mix(INCREMENT) == 0xE220A8397B1DCDAF
    assert float(uniform()) == (0xE220A8397B1DCDAF >> 11) / 2**53


def test_golden_values():  # a change here changes every run that was ever made
    assert [float(uniform(*key)) for key in ((0,), (1,), (0, 0), (7, 3, 5))] == [
        0.6524484863740322,
        0.36818951565166946,
        0.28176615744540323,
        0.4008901989576157,
    ]


@given(key=lists(int64, max_size=4))
@settings(max_examples=100, deadline=None)
def test_equals_plain_python(key):
    assert float(uniform(*key)) == expected(key)
    assert uniform(*(torch.tensor([part]) for part in key)).flatten().tolist() == [expected(key)]


@given(
    seed=int64, rollouts=lists(integers(0, 1 << 40), min_size=1, max_size=4), width=integers(1, 6)
)
@settings(max_examples=50, deadline=None)
def test_an_entry_depends_on_its_own_key_alone(seed, rollouts, width):
    table = uniform(seed, torch.tensor(rollouts)[:, None], torch.arange(width))
    assert table.tolist() == [[expected([seed, r, t]) for t in range(width)] for r in rollouts]


def test_numbers_are_uniform():
    number_N = uniform(11, torch.arange(300)[:, None], torch.arange(300)).flatten()
    assert number_N.dtype == torch.float64
    assert float(number_N.min()) >= 0
    assert float(number_N.max()) < 1
    count_64 = torch.histc(number_N, bins=64, min=0, max=1)
    chi_square = float(((count_64 - 90_000 / 64) ** 2).sum()) / (90_000 / 64)
    assert 29.0 < chi_square < 113.0  # 63 degrees: one in ten thousand lies outside on either side


def test_low_bits_are_uniform_too():
    bits_N = (uniform(11, torch.arange(90_000)) * 2**53).long()
    share_K = torch.stack([((bits_N >> k) & 1).double().mean() for k in range(53)])
    assert (
        float((share_K - 0.5).abs().max()) < 5 * 0.5 / 300
    )  # five standard deviations of 90,000 coins


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbouring_keys_give_unrelated_streams(axis):
    key = [torch.tensor(3), torch.tensor(4), torch.arange(40_000)]
    other = list(key)
    other[axis] = other[axis] + 1 if axis < 2 else other[axis] + 40_000
    both = torch.stack([uniform(*key), uniform(*other)])
    assert (
        abs(float(torch.corrcoef(both)[0, 1])) < 4 / 200
    )  # four standard deviations at n = 40,000
    lagged = torch.stack([both[0, :-1], both[0, 1:]])
    assert abs(float(torch.corrcoef(lagged)[0, 1])) < 4 / 200


def test_distinct_keys_give_distinct_numbers():
    table = uniform(
        torch.arange(-20, 20)[:, None, None], torch.arange(40)[:, None], torch.arange(40)
    ).flatten()
    shorter = torch.cat(
        [
            uniform(torch.arange(-20, 20)[:, None], torch.arange(40)).flatten(),
            uniform(torch.arange(-20, 20)),
        ]
    )
    number_N = torch.cat([table, shorter, uniform()[None]])
    assert len(number_N.unique()) == len(number_N) == 64_000 + 1_600 + 40 + 1


def test_streams_are_unique_and_none_is_written_elsewhere():
    """A value that two users share would make their numbers dependent."""
    assert len(Stream.__members__) == len(set(Stream))
    # values of the past, which runs and stored results depend on
    assert (Stream.SAMPLED_TOKENS, Stream.SOFT_TOKEN_NOISE) == (0x5A3B_0001, 0x5A3B_0002)
    assert (Stream.RANDOM_TOKENS, Stream.SHUFFLED_WEIGHTS) == (0x5E1E_0001, 0x5E1E_0002)
    assert (Stream.TIP_DRAWS, Stream.ROLLOUT_FILTER) == (0x5E1E_0003, 0x5E1E_0D35)
    sources = {path.name: path.read_text() for path in PACKAGE.rglob("*.py")}
    calls = [
        (name, call.split(",")[1].strip())
        for name, text in sources.items()
        for call in re.findall(r"rng\.(?:uniform|normal)\(([^)]*)", text)
    ]
    assert len(calls) >= 8
    assert [
        (name, key)
        for name, key in calls
        if not key.startswith("Stream.") and (name, key) not in PASSED_ON
    ] == []


def test_a_stream_is_a_key_like_any_number():
    assert uniform(7, Stream.TIP_DRAWS, 3) == uniform(7, 0x5E1E_0003, 3)
