"""Attention of packed sequences by their lengths: without a mask and without an S x S tensor.

On a GPU this is torch's `varlen_attn`. Elsewhere, and for dtypes that its kernel lacks, it is
scaled dot-product attention on one sequence after the other, which gives the same numbers.
transformers calls it by the name "varlen". Rows without lengths (padded micro-batches, prefill and
decoding) take the same path as under "sdpa".

Rows that ranks share, each a part of the columns, are exchanged for whole rows of a part of the
heads, which need no mask either: padding stands on the right, and a window is a number.

Shapes: one row of T tokens in several sequences, H query heads, K key heads, H a multiple of K,
d channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from inspect import Parameter, signature
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface

from reasontrain.models.kernels import mask_with_own_columns
from reasontrain.types import UserError

VARLEN = "varlen"
"""The name of this attention in transformers and in recipes."""
OTHER_SOFTMAX = ("softcap", "s_aux", "position_bias")
"""Arguments by which some architectures change the scores before the softmax."""
QUERY_BLOCK = 512
"""Queries of a sliding window that are computed at once where the kernel does not run."""


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Query [R, H, T, d], key and value [R, K, T, d] of whole rows -> output [R, T, H, d]."""


@runtime_checkable
class SequenceGroup(Protocol):
    """The ranks that share rows: each holds as many consecutive columns of them.

    Attributes:
        size: how many they are.
    """

    size: int

    def attention(
        self,
        query: Float[Tensor, "R H t d"],
        key: Float[Tensor, "R K t d"],
        value: Float[Tensor, "R K t _"],
        attend: Attend,
    ) -> Float[Tensor, "R t H _"]:
        """Attention of this rank's t columns to all columns of the rows.

        Args:
            query: queries of this rank's columns, H a multiple of `size`.
            key: keys of its columns; K is a multiple of `size` or divides it.
            value: values of its columns.
            attend: attention of whole rows for some of the heads.
        """
        ...


def head_error(num_heads: int, num_key_heads: int, size: int) -> str | None:
    """The reason why so many ranks cannot share the heads of an attention; None if they can.

    Args:
        num_heads: query heads H.
        num_key_heads: key and value heads K.
        size: the number of ranks.
    """
    if num_heads % size:
        return f"its {num_heads} attention heads do not divide over {size} ranks"
    if num_key_heads % size and size % num_key_heads:
        return f"its {num_key_heads} key-value heads neither divide over {size} ranks nor divide it"
    return None


def register_varlen() -> None:
    """Make `attn_implementation="varlen"` known to transformers."""
    AttentionInterface.register(VARLEN, varlen_attention)
    AttentionMaskInterface.register(VARLEN, mask_without_packing)


def length_arguments(model: PreTrainedModel, cu_seq_lens: Sequence[int]) -> dict[str, object]:
    """The arguments that tell attention where the sequences of a packed row begin.

    Device tensors are built here, once per forward pass, and sizes are Python numbers: no layer
    waits for the device.

    Args:
        model: the model that runs.
        cu_seq_lens: where each sequence begins, in tokens, and the length of the row.

    Returns:
        Keyword arguments of the trunk; none if its attention takes no lengths.
    """
    implementation = str(model.config._attn_implementation)
    passes_on = any(
        parameter.kind is Parameter.VAR_KEYWORD
        for parameter in signature(model.base_model.forward).parameters.values()
    )
    if not (passes_on and (implementation == VARLEN or "flash" in implementation)):
        return {}
    device = model.device
    lengths = tuple(end - start for start, end in pairwise(cu_seq_lens))
    bounds = torch.tensor(cu_seq_lens, dtype=torch.int32).to(device, non_blocking=True)
    arguments: dict[str, object] = {
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }
    if implementation == VARLEN:
        arguments["sequence_lengths"] = lengths
        arguments["attention_mask"] = _no_mask(device)
    return arguments


def group_arguments(model: PreTrainedModel, group: SequenceGroup) -> dict[str, object]:
    """The arguments that tell attention which ranks hold the other columns of the rows."""
    implementation = str(model.config._attn_implementation)
    assert implementation == VARLEN, f"{implementation} attention sees one rank's columns only"
    return {"sequence_group": group, "attention_mask": _no_mask(model.device)}


def _no_mask(device: torch.device) -> Bool[Tensor, "1 1 1 1"]:
    """A placeholder that transformers returns as it is, because it has four dimensions.

    Without a mask it would compare positions on the device and build an S x S mask.
    """
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)


def varlen_attention(  # the signature of transformers' attention functions
    module: nn.Module,
    query: Float[Tensor, "R H T d"],
    key: Float[Tensor, "R K S d"],
    value: Float[Tensor, "R K S _"],
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    cu_seq_lens_q: Tensor | None = None,
    sequence_lengths: tuple[int, ...] | None = None,
    sequence_group: SequenceGroup | None = None,
    **rest: object,
) -> tuple[Float[Tensor, "R T H _"], None]:
    """Causal attention within each sequence of a packed row, or transformers' SDPA.

    Args:
        module: the attention module.
        query: queries of H heads.
        key: keys of K heads.
        value: values of K heads.
        attention_mask: mask of rows without lengths; a packed row has a placeholder.
        scaling: factor before the softmax; None is 1 / sqrt(d).
        sliding_window: the number of tokens that a query sees, itself included; None for all.
        is_causal: False if later tokens are seen; None leaves it to the module.
        cu_seq_lens_q: where each sequence begins, and the length of the row, on the device.
        sequence_lengths: the lengths of the packed sequences; None if the rows are not packed.
        sequence_group: the ranks that hold the other columns of the rows; None if they are whole.
        rest: further arguments of transformers' attention functions.

    Returns:
        The attention's output, and None in the place of its weights.

    Raises:
        UserError: the architecture adds a mask of its own or changes the scores.
    """
    if sequence_group is None and (sequence_lengths is None or cu_seq_lens_q is None):
        options = {"sliding_window": sliding_window, "is_causal": is_causal, **rest}
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
    changed = [option for option in OTHER_SOFTMAX if rest.get(option) is not None]
    if changed:
        raise UserError(f"it changes its attention scores by {', '.join(changed)}")
    if attention_mask is not None and attention_mask.numel() > 1:
        raise UserError("it adds a mask of its own to its attention")
    causal = vars(module).get("is_causal", True) if is_causal is None else is_causal
    if not causal:
        raise UserError("its attention is not causal")

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if sequence_lengths is None or cu_seq_lens_q is None:
            return _padded_attention(query, key, value, scaling=scaling, window=sliding_window)
        return packed_attention(
            query,
            key,
            value,
            cu_seq_lens=cu_seq_lens_q,
            lengths=sequence_lengths,
            scaling=scaling,
            window=sliding_window,
        )

    if sequence_group is None:
        return attend(query, key, value), None
    return sequence_group.attention(query, key, value, attend), None


def _padded_attention(
    query: Float[Tensor, "R H T d"],
    key: Float[Tensor, "R K T d"],
    value: Float[Tensor, "R K T _"],
    *,
    scaling: float | None,
    window: int | None,
) -> Float[Tensor, "R T H _"]:
    """Causal attention of rows that are padded on the right, one sequence each."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    device = query.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        query, key, value = (part.to(dtype) for part in (query, key, value))
    return _alone(query, key, value, scale=scale, window=window).transpose(1, 2)


def packed_attention(
    query: Float[Tensor, "1 H T d"],
    key: Float[Tensor, "1 K T d"],
    value: Float[Tensor, "1 K T _"],
    *,
    cu_seq_lens: Tensor,
    lengths: tuple[int, ...],
    scaling: float | None = None,
    window: int | None = None,
) -> Float[Tensor, "1 T H _"]:
    """Causal attention within each sequence of a row.

    Args:
        query: queries of H heads.
        key: keys of K heads.
        value: values of K heads.
        cu_seq_lens: where each sequence begins, and the length of the row: int32, on the device.
        lengths: the lengths of the sequences in tokens, whose sum is T.
        scaling: factor before the softmax; None is 1 / sqrt(d).
        window: the number of tokens that a query sees, itself included; None for all.

    Returns:
        The output, heads after tokens, in the dtype of autocast or else of the query.
    """
    assert query.shape[2] == sum(lengths), f"{query.shape[2]} tokens, lengths of {sum(lengths)}"
    device = query.device.type
    autocast = device != "meta" and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else query.dtype
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # Kernels want one width. Latent attention has narrower values; zeros change no result.
    width = max(query.shape[-1], value.shape[-1])
    parts = [pad(part.to(dtype), (0, width - part.shape[-1])) for part in (query, key, value)]
    if kernel_runs(parts[0]):
        output = _by_kernel(parts, cu_seq_lens, max(lengths), scale, window)
    else:
        # Split, not sliced: the backward pass of a slice fills a tensor of the whole row.
        sequences = zip(*(part.split(lengths, 2) for part in parts), strict=True)
        alone = [_alone(*sequence, scale=scale, window=window) for sequence in sequences]
        output = torch.cat(alone, 2).transpose(1, 2)
    return output[..., : value.shape[-1]]


def kernel_runs(query: Float[Tensor, "1 H T d"]) -> bool:
    """Return True if torch's kernel for sequences of many lengths takes this query.

    Its shapes are those of the meta device too.
    """
    if query.device.type == "meta":
        return True
    return (
        query.device.type == "cuda"
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= 256
        and _has_kernel(query.device.index)
    )


@cache
def _has_kernel(device_index: int) -> bool:
    """Return True if flash attention is built in and runs on this GPU (Ampere or newer)."""
    return (
        torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(device_index) >= (8, 0)
        and "enable_gqa" in signature(varlen_attn).parameters  # not in torch 2.11
    )


def _by_kernel(
    parts: Sequence[Float[Tensor, "1 _ T d"]],
    cu_seq_lens: Tensor,
    longest: int,
    scale: float,
    window: int | None,
) -> Float[Tensor, "1 T H d"]:
    """Attention of a row by torch's kernel: query, key and value, heads after tokens."""
    query, key, value = (part[0].transpose(0, 1) for part in parts)
    output = varlen_attn(
        query,
        key,
        value,
        cu_seq_lens,
        cu_seq_lens,
        longest,
        longest,
        scale=scale,
        # The kernel counts the tokens before the query's own.
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(output, Tensor), "log-sum-exps were not asked for"
    return output[None]


def _alone(
    query: Float[Tensor, "R H T d"],
    key: Float[Tensor, "R K T d"],
    value: Float[Tensor, "R K T _"],
    *,
    scale: float,
    window: int | None,
) -> Float[Tensor, "R H T _"]:
    """Causal attention of rows that are one sequence each."""
    length = query.shape[2]
    if query.device.type == "cuda":
        # SDPA's kernels for float32 on a GPU take no grouped heads; its fallback stores all scores.
        groups = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
    grouped = query.shape[1] != key.shape[1]
    if window is None or length <= window:
        return scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=grouped
        )
    blocks = []
    masks: dict[tuple[int, int], Tensor] = {}
    for start in range(0, length, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, length)
        first = max(0, start - window + 1)
        shape = (end - start, start - first)
        if shape not in masks:
            # Added, not boolean: autograd would keep a converted copy for every block.
            seen = _band(end - start, end - first, start - first, window, query.device)
            masks[shape] = torch.zeros_like(seen, dtype=query.dtype).masked_fill(~seen, -torch.inf)
        blocks.append(
            scaled_dot_product_attention(
                query[:, :, start:end],
                key[:, :, first:end],
                value[:, :, first:end],
                attn_mask=masks[shape],
                scale=scale,
                enable_gqa=grouped,
            )
        )
    return torch.cat(blocks, 2)


def _band(
    num_queries: int, num_keys: int, offset: int, window: int, device: torch.device
) -> Bool[Tensor, "T S"]:
    """True where a query sees a key: at most `window` tokens, the last of them its own.

    Args:
        num_queries: the number of queries T.
        num_keys: the number of keys S.
        offset: the key of the first query.
        window: the number of tokens that a query sees.
        device: the device of the mask.
    """
    own_T1 = torch.arange(num_queries, device=device)[:, None] + offset
    key_S = torch.arange(num_keys, device=device)
    return (key_S <= own_T1) & (key_S > own_T1 - window)


def mask_without_packing(
    *,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    **options: object,
) -> Bool[Tensor, "B 1 T S"] | None:
    """The mask of rows that are not packed, the same as under "sdpa".

    Args:
        q_length: number of queries T.
        kv_length: number of keys S.
        q_offset: column of the first query; a scalar tensor where the cache is static.
        kv_offset: column of the first key.
        attention_mask: True at columns that are not padding.
        allow_is_causal_skip: False if transformers adds anything to a causal mask.
        options: further arguments of transformers' mask function, by name.

    Raises:
        ValueError: positions restart within a row, and its lengths were not handed over.
    """
    if attention_mask is None and not allow_is_causal_skip and 1 < q_length == kv_length:
        raise ValueError("packed rows need their lengths: pass `cu_seq_lens` to Policy.hidden")
    return mask_with_own_columns(
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        attention_mask=attention_mask,
        allow_is_causal_skip=allow_is_causal_skip,
        **options,
    )
