"""Random numbers of selection rules, one per token.

The key is (seed, stream, step, rollout, position).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float

from reasontrain import rng
from reasontrain.rng import Stream
from reasontrain.types import Batch

if TYPE_CHECKING:
    from torch import Tensor


def uniform_BT(batch: Batch, stream: Stream) -> Float[Tensor, "B T"]:
    """Uniform float64 numbers in [0, 1); those of a token do not depend on the layout of the batch.

    The key is (seed, stream, step, rollout and position), see `Batch.token_order_BT`.
    """
    return rng.uniform(batch.seed, stream, batch.step, batch.token_order_BT)


def gumbel_BT(batch: Batch, stream: Stream) -> Float[Tensor, "B T"]:
    """Standard Gumbel numbers g, as float64.

    The k largest log w + g are k draws without replacement in proportion to w.
    """
    return -(-uniform_BT(batch, stream).clamp(min=2.0**-54).log()).log()
