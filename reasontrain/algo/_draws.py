"""The random numbers of selection: one per token, a function of (seed, stream, step, rollout id,
position) alone.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from jaxtyping import Float

from reasontrain import rng
from reasontrain.types import Batch

if TYPE_CHECKING:
    from torch import Tensor


class Stream(IntEnum):
    """Who draws; each rule has its own stream, so that a control is independent of what it
    controls.
    """

    RANDOM = 0x5E1E_0001
    SHUFFLED = 0x5E1E_0002
    TIP = 0x5E1E_0003
    KEEP = 0x5E1E_0D35


def uniform_BT(batch: Batch, stream: Stream) -> Float[Tensor, "B T"]:
    """Float64 numbers in [0, 1), the same for a token whatever the layout of the batch (`row_order`
    is rollout and position).
    """
    return rng.uniform(batch.seed, int(stream), batch.step, batch.token_order_BT)


def gumbel_BT(batch: Batch, stream: Stream) -> Float[Tensor, "B T"]:
    """Standard Gumbel numbers: the k largest of log w + g are k draws without replacement in
    proportion to w.
    """
    return -(-uniform_BT(batch, stream).clamp(min=2.0**-54).log()).log()
