"""The share of attention that each token pays to the prompt, by one more call of the fused kernel.

softmax(Q K^T) summed over some keys equals the attention's output for values V that are 1 at those
keys and 0 elsewhere. So the kernel itself applies mask, packing, grouped heads and sliding window,
and no S x S matrix of probabilities exists (O(S d) memory).

Shapes: R rows of T tokens in a micro-batch, H query heads, K key heads, d channels of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from reasontrain.models.policy import Policy
from reasontrain.models.settings import Importance
from reasontrain.models.varlen import OTHER_SOFTMAX, VARLEN, packed_attention
from reasontrain.types import UserError

FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
"""torch's kernels that never store all probabilities; `math`, which does, is excluded.

So is cuDNN, which `sdpa_kernel` would turn on again (see `kernels`).
"""
KNOWN = ("sdpa", VARLEN, "flash_attention_2")


@contextmanager
def measure_attention(
    model: PreTrainedModel, among_RT: Bool[Tensor, "R T"], layer: int
) -> Iterator[list[Float[Tensor, "R T"]]]:
    """Measure the attention to the keys `among_RT` in each forward pass of this block.

    Each forward pass appends one tensor to the list: for each position, as a query, the share of
    its attention that goes to those keys, in [0, 1], averaged over the heads of the layer.

    Args:
        model: the model whose forward passes are measured.
        among_RT: True at the keys whose attention counts.
        layer: layer, counted from the last (-1).

    Raises:
        UserError: the model's attention implementation cannot be measured in this way.
    """
    name = str(model.config._attn_implementation)
    architecture = model.config.model_type
    if name not in KNOWN:
        raise UserError(
            f"the evidence `attention` needs a fused attention kernel, and {architecture} uses "
            f"`{name}` attention; set model.attention to sdpa or flash_attention_2 if the "
            f"architecture supports it, or choose a rule that does not need `attention`"
        )
    original = ALL_ATTENTION_FUNCTIONS[name]
    layer_modules = {id(module) for module in _layer(model, layer)}
    shares: list[Tensor] = []

    def measured(  # the signature of transformers' attention functions
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **rest: object,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute the attention, and in the modules of the layer the measured share too.

        Args:
            module: the attention module.
            query: [R, H, T, d].
            key: [R, K, S, d].
            value: [R, K, S, d].
            attention_mask: mask of the kernel; None is causal.
            rest: further arguments of the kernel, such as `scaling`.

        Returns:
            The attention's output, and its weights or None.
        """
        if id(module) in layer_modules:
            # `mass` calls the kernel without them, and its result would not be the model's.
            changed = [option for option in OTHER_SOFTMAX if rest.get(option) is not None]
            if changed:
                raise UserError(
                    f"{architecture} changes its attention scores by {', '.join(changed)}, which "
                    f"the evidence `attention` cannot reproduce; choose a rule that needs none"
                )
            chosen = _indicator(among_RT, key)
            with torch.no_grad():
                if name == VARLEN and rest.get("sequence_lengths") is not None:
                    shares.append(_packed_mass(query, key, chosen, rest))
                elif name in ("sdpa", VARLEN):
                    scaling = rest.get("scaling")
                    assert scaling is None or isinstance(scaling, float), (
                        "scaling is the factor before the softmax"
                    )
                    shares.append(mass(query, key, chosen, attention_mask, scaling))
                else:
                    output, _ = original(
                        module, query, key, chosen.to(value.dtype), attention_mask, **rest
                    )
                    # [R, T, H, d]: flash attention returns heads after tokens.
                    shares.append(output[..., 0].float().mean(2))
        answer: tuple[Tensor, Tensor | None] = original(
            module, query, key, value, attention_mask, **rest
        )
        return answer

    # Replaced under the same name: transformers builds the mask by the implementation's name, and
    # an unknown name would get none.
    ALL_ATTENTION_FUNCTIONS[name] = measured
    try:
        yield shares
    finally:
        ALL_ATTENTION_FUNCTIONS[name] = original


def mass(
    query: Float[Tensor, "R H T d"],
    key: Float[Tensor, "R K T d"],
    chosen: Float[Tensor, "R K T d"],
    mask: Tensor | None,
    scaling: float | None,
) -> Float[Tensor, "R T"]:
    """The mean over heads of softmax(q k^T) @ chosen, in float32 and by a fused kernel.

    Args:
        query: queries of H heads.
        key: keys of K heads, H a multiple of K.
        chosen: values that are 1 at the counted keys and 0 elsewhere.
        mask: boolean or additive mask; None is causal.
        scaling: factor before the softmax; None is 1 / sqrt(d).

    Returns:
        The share of attention at each position, in [0, 1].
    """
    groups = query.shape[1] // key.shape[1]
    key, chosen = (each.float().repeat_interleave(groups, 1) for each in (key, chosen))
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.float()
    with torch.autocast(query.device.type, enabled=False), sdpa_kernel(FUSED):
        output = scaled_dot_product_attention(
            query.float(),
            key,
            chosen,
            attn_mask=mask,
            is_causal=mask is None and query.shape[2] > 1,
            scale=scaling,
        )
    return output[..., 0].mean(1).clamp(0, 1)


def _packed_mass(
    query: Float[Tensor, "1 H T d"],
    key: Float[Tensor, "1 K T d"],
    chosen: Float[Tensor, "1 K T d"],
    options: Mapping[str, object],
) -> Float[Tensor, "1 T"]:
    """`mass` in a row of packed sequences.

    Args:
        query: queries of H heads.
        key: keys of K heads.
        chosen: values that are 1 at the counted keys and 0 elsewhere.
        options: the arguments of the attention function, by name.

    Returns:
        The share of attention at each position, in [0, 1].
    """
    cu_seq_lens = options["cu_seq_lens_q"]
    lengths = options["sequence_lengths"]
    scaling = options.get("scaling")
    window = options.get("sliding_window")
    assert isinstance(cu_seq_lens, Tensor), "lengths come on the device too"
    assert isinstance(lengths, tuple), "lengths are numbers of tokens"
    assert scaling is None or isinstance(scaling, float), "scaling is the factor before the softmax"
    assert window is None or isinstance(window, int), "a window is a number of tokens"
    with torch.autocast(query.device.type, enabled=False), sdpa_kernel(FUSED):
        output = packed_attention(
            query.float(),
            key.float(),
            chosen.float(),
            cu_seq_lens=cu_seq_lens,
            lengths=lengths,
            scaling=scaling,
            window=window,
        )
    return output[..., 0].mean(2).clamp(0, 1)


def check(policy: Policy, importance: Importance) -> None:
    """Raise UserError if the attention of this model cannot be measured, by trying four tokens."""
    ids = torch.arange(4, device=policy.device)[None]
    architecture = policy.model.config.model_type
    num_layers = policy.model.config.get_text_config().num_hidden_layers
    if -importance.layer > num_layers:
        raise UserError(
            f"importance.layer is {importance.layer}, and the model has {num_layers} layers"
        )
    try:
        with (
            torch.no_grad(),
            measure_attention(
                policy.model, torch.ones_like(ids, dtype=torch.bool), importance.layer
            ) as shares,
        ):
            policy.hidden(ids)
    except RuntimeError as error:
        raise UserError(
            f"no fused kernel on this machine computes the attention of {architecture} "
            f"({str(error).splitlines()[0]}); choose a rule that does not need `attention`"
        ) from error
    if not shares:
        raise UserError(
            f"layer {importance.layer} of {architecture} has no attention that transformers' "
            f"functions compute; choose another importance.layer, or a rule that does not need "
            f"`attention`"
        )


def _layer(model: PreTrainedModel, layer: int) -> list[nn.Module]:
    """The attention modules of this layer: those with its `layer_idx`."""
    index = model.config.get_text_config().num_hidden_layers + layer
    return [module for module in model.modules() if vars(module).get("layer_idx") == index]


def _indicator(
    among_RT: Bool[Tensor, "R T"], key: Float[Tensor, "R K T d"]
) -> Float[Tensor, "R K T d"]:
    """1 at the chosen keys and 0 elsewhere, in each of the d channels that kernels require."""
    wide = among_RT.to(key)[:, None, :, None].expand(-1, 1, -1, key.shape[-1]).contiguous()
    return wide.expand(-1, key.shape[1], -1, -1)
