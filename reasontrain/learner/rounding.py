"""Rounding noise of excess loss: the same log-probs once more in float32, and how far they differ.

ssToken compares the policy with an earlier version of itself. Early on the two differ by less than
bfloat16 rounds, and a rule that ranks the difference would rank rounding.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

from reasontrain.algo.token_selection.scores.excess_loss import width
from reasontrain.models import Policy

logger = logging.getLogger(__name__)

EXCESS_NOISE = "excess_noise"
EXCESS_LOSS = frozenset({"old_logp", "history_logp"})
"""The evidence whose difference is the excess loss."""
SHARE = 0.99
"""Share of the rollouts whose span of rounding noise is at most the measured one."""
MARGIN = 1.1
"""Factor of that span: REL of a rollout that is noise and little else may span more than noise."""
_PRODUCTS = (
    torch.nn.functional.linear,
    torch.nn.functional.embedding,
    # DeepSpeed puts a function of its own in place of `linear`, which calls these.
    torch.matmul,
    torch.Tensor.matmul,
    torch.addmm,
)


class _Float32Products(TorchFunctionMode):
    """Products with bfloat16 weights in float32.

    The weights may be stored in bfloat16, as they are with ZeRO; nearly everything else in a trunk
    follows the dtype of its input. Casts are left alone, because ranks cast what they exchange: an
    adapter in bfloat16 still rounds its input.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if func in _PRODUCTS:
            args = tuple(_wide(value) for value in args)
            kwargs = {name: _wide(value) for name, value in kwargs.items()}
        return func(*args, **kwargs)


def _wide(value: object) -> object:
    is_narrow = isinstance(value, Tensor) and value.dtype == torch.bfloat16
    return value.float() if isinstance(value, Tensor) and is_narrow else value


@contextmanager
def full_precision(policies: Sequence[Policy]) -> Iterator[None]:
    """A block in which these models compute in float32, from the weights that they have."""
    dtypes = [policy.dtype for policy in policies]
    for policy in policies:
        policy.dtype = torch.float32
    try:
        with _Float32Products():
            yield
    finally:
        for policy, dtype in zip(policies, dtypes, strict=True):
            policy.dtype = dtype


def can_measure(policies: Sequence[Policy]) -> bool:
    """False, with a warning, for an attention kernel that does not compute in float32."""
    kernels = {str(policy.model.config._attn_implementation) for policy in policies}
    if "flash_attention_2" not in kernels:
        return True
    logger.warning(
        "the rounding noise of excess loss cannot be measured with flash_attention_2, which has no "
        "float32: token_selection.gate stays as it is, and in bfloat16 it may pass rounding; use "
        "model.attention: sdpa"
    )
    return False


def span_of_noise(
    rounded: Mapping[str, Float[Tensor, "B T"]],
    exact: Mapping[str, Float[Tensor, "B T"]],
    among_BT: Bool[Tensor, "B T"],
) -> float:
    """Span of the rounding noise of log p - log p_history: a quantile over rollouts, in nats.

    Args:
        rounded: `old_logp` and `history_logp` as the run computes them.
        exact: the same in float32.
        among_BT: response tokens.
    """
    gain_BT, exact_gain_BT = (
        one["old_logp"].double() - one["history_logp"].double() for one in (rounded, exact)
    )
    has_B = among_BT.any(1)
    sorted_B = width(gain_BT - exact_gain_BT, among_BT)[has_B, 0].sort().values
    # The next larger rollout, not one in between: of fewer than 100 rollouts that is the widest.
    return MARGIN * float(sorted_B[math.ceil(SHARE * (len(sorted_B) - 1))])
