"""Random numbers that depend on their key alone, not on batch layout or number of ranks."""

from __future__ import annotations

from enum import IntEnum, unique
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from torch import Tensor


@unique
class Stream(IntEnum):
    """Streams of keyed random numbers, one per user: the part of a key after the seed.

    Distinct streams keep two users independent. Changing a value changes every run that draws from
    the stream. Two users have older keys without a stream here: `data.order` puts the number of an
    epoch in its place, and the rounds of `tasks.images` count on from IMAGE_ROUNDS.
    """

    IMAGE_SPLIT = 0x91C7
    IMAGE_ROUNDS = 0x91C8
    MINI_BATCHES = 0x0D0A_0001
    SAMPLED_TOKENS = 0x5A3B_0001
    SOFT_TOKEN_NOISE = 0x5A3B_0002
    ENDPOINT_SEEDS = 0x5A3B_0003
    VLLM_SEEDS = 0x5A3B_0004
    VLLM_TURN_SEEDS = 0x5A3B_0005
    ENVIRONMENT_SEEDS = 0x5A3B_0006
    RANDOM_TOKENS = 0x5E1E_0001
    SHUFFLED_WEIGHTS = 0x5E1E_0002
    TIP_DRAWS = 0x5E1E_0003
    CLIP_COV = 0x5E1E_0C0F
    ROLLOUT_FILTER = 0x5E1E_0D35
    REFILL = 0x0D0A_0002


def _signed(value: int) -> int:
    """The int64 with the same bits as this unsigned number."""
    return value - (1 << 64) if value >= 1 << 63 else value


_INCREMENT, _FIRST, _SECOND = (
    _signed(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def _shift(value: Int[Tensor, "*S"], bits: int) -> Int[Tensor, "*S"]:
    """Shift right, filling with zeros (torch's shift repeats the sign)."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Int[Tensor, "*S"]) -> Int[Tensor, "*S"]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014); int64 products wrap."""
    value = (value ^ _shift(value, 30)) * _FIRST
    value = (value ^ _shift(value, 27)) * _SECOND
    return value ^ _shift(value, 31)


def uniform(*key: int | Int[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Uniform float64 numbers in [0, 1) with 53 random bits, one per element of the broadcast keys.

    `uniform(seed, rollout_B1, position_1T)` returns a [B, T] tensor whose entries each depend on
    their own three numbers only.
    """
    state = torch.zeros((), dtype=torch.int64)
    for part in key:
        part = torch.as_tensor(part, dtype=torch.int64)
        state = _mix(state * _FIRST + part + _INCREMENT)
    return _shift(_mix(state + _INCREMENT), 11).double() * 2.0**-53


def normal(*key: int | Int[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Standard normal float64 numbers, one per element of the broadcast keys.

    They are the inverse normal distribution function of `uniform`.
    """
    return torch.special.ndtri(uniform(*key).clamp(min=2.0**-54))
