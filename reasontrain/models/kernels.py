"""Torch's attention kernels: the ones that models may use, and masks that all of them accept."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask


def choose_sdpa_kernels() -> list[str]:
    """Set up scaled dot-product attention in this process; return the kernels it may choose.

    cuDNN is off: on Hopper torch prefers it, its backward pass gives NaN for some lengths with a
    mask (pytorch/pytorch#196678, huggingface/trl#7181), and it plans anew for every shape, which
    decoding changes with every token. Called before any forward pass, and again at no cost.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)
    AttentionMaskInterface.register("sdpa", mask_with_own_columns)
    enabled = {
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "mem_efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "cudnn": torch.backends.cuda.cudnn_sdp_enabled(),
        "math": torch.backends.cuda.math_sdp_enabled(),
    }
    return [name for name, is_enabled in enabled.items() if is_enabled]


def mask_with_own_columns(
    *,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    **options: object,
) -> Bool[Tensor, "B 1 T S"] | None:
    """The mask that transformers builds for torch's attention, in which each token sees itself.

    Padding on the left sees no token otherwise, and a softmax over nothing is NaN or garbage in
    some kernels. No token sees padding, so no other output changes.

    Args:
        q_length: number of queries T.
        kv_length: number of keys S.
        q_offset: column of the first query; a scalar tensor where the cache is static.
        kv_offset: column of the first key.
        options: further arguments of transformers' mask function, by name.

    Returns:
        True where a query sees a key; None for a causal mask that the kernel applies itself.
    """
    mask_B1TS: Tensor | None = sdpa_mask(
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        **options,
    )
    # One query is the newest token of a sequence, which is never padding.
    if mask_B1TS is None or q_length == 1:
        return mask_B1TS
    device = mask_B1TS.device
    query_T = torch.arange(q_length, device=device) + q_offset
    key_S = torch.arange(kv_length, device=device) + kv_offset
    return mask_B1TS | (query_T[:, None] == key_S)
