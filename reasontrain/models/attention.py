"""How much of its attention each token pays to the prompt, from one more call of the fused kernel
that the model uses.

Softmax(Q K^T) summed over some columns is the attention's output where V is 1 at those columns and
0 elsewhere: so the mask, packing, grouped heads and sliding window are the kernel's own, and no S x
S matrix of probabilities exists (O(S d) memory).
"""

from __future__ import annotations

from collections.abc import Iterator
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
from reasontrain.types import UserError

FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
"""Kernels of torch that never hold all probabilities at once."""
KNOWN = ("sdpa", "flash_attention_2")
OTHER_SOFTMAX = ("softcap", "s_aux", "position_bias")
"""What some architectures do to the scores before the softmax, and the kernels here do not."""


@contextmanager
def watching(
    model: PreTrainedModel, among_RT: Bool[Tensor, "R T"], layer: int
) -> Iterator[list[Float[Tensor, "R T"]]]:
    """The share of its attention that each position pays to the keys `among_RT`, appended by every
    forward in this block.

    The mean over the heads of one layer, at the token's own position (as a query), in [0, 1]. The
    function that computes attention is wrapped under its own name: a new name would have no mask.
    Raises UserError where the model's attention is of a kind that cannot tell.
    """
    name, architecture = str(model.config._attn_implementation), model.config.model_type
    if name not in KNOWN:
        raise UserError(
            f"the evidence `attention` is one more call of a fused kernel, and "
            f"{architecture} has `{name}` attention here; "
            f"set model.attention to {' or '.join(KNOWN)} where the architecture knows it, "
            f"or choose a rule that needs none"
        )
    original = ALL_ATTENTION_FUNCTIONS[name]
    watched_ids = {id(module) for module in _layer(model, layer)}
    found: list[Tensor] = []

    def watched(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **rest: object,
    ) -> tuple[Tensor, Tensor | None]:
        if id(module) in watched_ids:
            changed = [option for option in OTHER_SOFTMAX if rest.get(option) is not None]
            if changed:
                raise UserError(
                    f"{architecture} changes its attention by {', '.join(changed)}, and "
                    f"the evidence `attention` "
                    "would not see it; choose a rule that needs none"
                )
            chosen = _indicator(among_RT, key)
            with torch.no_grad():
                if name == "sdpa":
                    scaling = rest.get("scaling")
                    assert scaling is None or isinstance(scaling, float), (
                        "transformers gives the factor before the softmax"
                    )
                    found.append(mass(query, key, chosen, attention_mask, scaling))
                else:
                    output, _ = original(
                        module, query, key, chosen.to(value.dtype), attention_mask, **rest
                    )
                    found.append(output[..., 0].float().mean(2))
        answer: tuple[Tensor, Tensor | None] = original(
            module, query, key, value, attention_mask, **rest
        )
        return answer

    ALL_ATTENTION_FUNCTIONS[name] = watched
    try:
        yield found
    finally:
        ALL_ATTENTION_FUNCTIONS[name] = original


def mass(
    query: Float[Tensor, "R H T d"],
    key: Float[Tensor, "R K T d"],
    chosen: Float[Tensor, "R K T d"],
    mask: Tensor | None,
    scaling: float | None,
) -> Float[Tensor, "R T"]:
    """The mean over heads of softmax(q k^T) @ chosen, in float32 and by a fused kernel; without a
    mask it is causal.
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


def check(policy: Policy, importance: Importance) -> None:
    """Raise UserError where the attention of this model cannot be looked at in this way, by looking
    at that of four tokens.
    """
    ids = torch.arange(4, device=policy.device)[None]
    architecture, layers = (
        policy.model.config.model_type,
        policy.model.config.get_text_config().num_hidden_layers,
    )
    if -importance.layer > layers:
        raise UserError(
            f"importance.layer is {importance.layer}, and the model has {layers} layers"
        )
    try:
        with (
            torch.no_grad(),
            watching(
                policy.model, torch.ones_like(ids, dtype=torch.bool), importance.layer
            ) as found,
        ):
            policy.hidden(ids)
    except RuntimeError as error:
        raise UserError(
            f"no fused kernel computes the attention of {architecture} here, so the "
            f"evidence `attention` cannot "
            f"be had ({str(error).splitlines()[0]}); choose a rule that needs none"
        ) from error
    if not found:
        raise UserError(
            f"layer {importance.layer} of {architecture} has no attention that "
            f"transformers' functions compute, so "
            "the evidence `attention` cannot be had; choose another importance.layer or a "
            "rule that needs none"
        )


def _layer(model: PreTrainedModel, layer: int) -> list[nn.Module]:
    """The modules that say they belong to this layer."""
    index = model.config.get_text_config().num_hidden_layers + layer
    return [module for module in model.modules() if vars(module).get("layer_idx") == index]


def _indicator(
    among_RT: Bool[Tensor, "R T"], key: Float[Tensor, "R K T d"]
) -> Float[Tensor, "R K T d"]:
    """1 at the chosen keys, in every channel: kernels want values as wide as keys."""
    wide = among_RT.to(key)[:, None, :, None].expand(-1, 1, -1, key.shape[-1]).contiguous()
    return wide.expand(-1, key.shape[1], -1, -1)
