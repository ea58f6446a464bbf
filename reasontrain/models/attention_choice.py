"""The attention of a model: by the lengths of packed sequences where that is exact.

Decided by trying it, as `layouts` does, since architectures mask and score in ways of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import is_flash_attn_2_available

from reasontrain.data.micro_batches import Layout
from reasontrain.models.layouts import packing_error, tolerance
from reasontrain.models.policy import Policy
from reasontrain.models.quiet import messages_of_libraries
from reasontrain.models.settings import Attention
from reasontrain.models.varlen import VARLEN, head_error
from reasontrain.types import UserError

LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})
"""The kinds of layers, as transformers names them, in which a query sees its last tokens."""


@dataclass
class _Trial:
    """The calls of attention and mask functions in forward passes.

    Attributes:
        calls: the number of layers that attended by lengths.
        windows: the sliding windows that layers handed to attention; None is none.
        masked: those that transformers would build masks for.
    """

    calls: int = 0
    windows: set[int | None] = field(default_factory=set)
    masked: set[int | None] = field(default_factory=set)


def check_installed(attention: Attention) -> None:
    """Raise UserError for an attention kernel that is not installed."""
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise UserError(
            "model.attention is flash_attention_2, and the package flash_attn is not "
            "installed; use sdpa or auto, or install it"
        )


def choose_attention(
    policy: Policy,
    attention: Attention,
    layout: Layout | None,
    *,
    sequence_parallel: int = 1,
) -> str | None:
    """Set the attention of a model that was loaded with transformers' default or as requested.

    "auto" attends by lengths to packed rows if that is exact for this model.

    Args:
        policy: the model.
        attention: the setting of the recipe.
        layout: the layout of the micro-batches that the model will see; None if it only samples.
        sequence_parallel: the number of ranks that share the rows of micro-batches; several need
            attention by lengths in either layout, because no rank builds a mask of whole rows.

    Returns:
        A sentence about packed rows that need a mask; None if there are none.

    Raises:
        UserError: the recipe sets `varlen` or `sequence_parallel`, and attention by lengths is not
            exact for this model, or its heads do not divide over the ranks.
    """
    architecture = policy.model.config.model_type
    if sequence_parallel > 1:
        reason = heads_refusal(policy.model.config, sequence_parallel) or _refusal(policy)
        if reason is not None:
            raise UserError(
                f"learn.sequence_parallel is {sequence_parallel}, and ranks cannot share the "
                f"sequences of {architecture}: {reason}; use `sequence_parallel: 1`"
            )
        return None
    if attention != VARLEN and not (attention == "auto" and layout == "packed"):
        return None
    before = policy.model.config._attn_implementation
    refusal = _refusal(policy)
    if refusal is None:
        return None
    _set(policy, before)
    if attention == VARLEN:
        raise UserError(
            f"model.attention is varlen, and {architecture} cannot attend by the lengths of packed "
            f"sequences: {refusal}; use `attention: auto`"
        )
    return (
        f"each packed micro-batch of L tokens gets a mask of L x L, because {architecture} cannot "
        f"attend by the lengths of packed sequences: {refusal}; `learn.layout: padded` needs none"
    )


def heads_refusal(config: PreTrainedConfig, size: int) -> str | None:
    """The reason why so many ranks cannot share the heads of this model; None if they can."""
    text = config.get_text_config()
    values = text.to_dict()
    num_heads, num_key_heads = (
        values.get(text.attribute_map.get(name, name))
        for name in ("num_attention_heads", "num_key_value_heads")
    )
    if not isinstance(num_heads, int):
        return "its configuration has no single number of attention heads"
    return head_error(num_heads, num_key_heads or num_heads, size)


def _set(policy: Policy, name: str) -> None:
    """Set the attention implementation; transformers leaves it as it is if it cannot be set."""
    with messages_of_libraries():
        policy.model.set_attn_implementation(name)


def _refusal(policy: Policy) -> str | None:
    """Set `varlen`, try it, and return the reason why it is not exact; None if it is."""
    model = policy.model
    if policy.vision is not None:
        return "it sees images"
    if model.config._attn_implementation not in ("sdpa", VARLEN):
        return f"its attention is {model.config._attn_implementation}"
    layer_types = model.config.get_text_config().to_dict().get("layer_types")
    other = sorted(set(layer_types or ()) - LAYER_TYPES)
    if other:
        return f"it has layers of type {', '.join(other)}"
    _set(policy, VARLEN)
    try:
        with _tried() as trial:
            error = packing_error(policy)
    except (UserError, RuntimeError, TypeError, ValueError) as failure:
        return str(failure).splitlines()[0] if str(failure) else type(failure).__name__
    if not trial.calls:
        return "transformers does not compute its attention by exchangeable functions"
    # A mask without a window is built whether a layer uses it or not.
    if trial.windows - {None} != trial.masked - {None}:
        return "its layers do not hand their windows to attention"
    if error > tolerance(policy):
        return f"hidden states change by {error:.2g} of their size"
    return None


@contextmanager
def _tried() -> Iterator[_Trial]:
    """Record what is called in the block for the attention `varlen`."""
    trial = _Trial()
    attention = ALL_ATTENTION_FUNCTIONS[VARLEN]
    build_mask = ALL_MASK_ATTENTION_FUNCTIONS[VARLEN]

    def watched(
        module: nn.Module, *tensors: Tensor | None, **options: object
    ) -> tuple[Tensor, Tensor | None]:
        window = options.get("sliding_window")
        assert window is None or isinstance(window, int), "a window is a number of tokens"
        trial.windows.add(window)
        trial.calls += options.get("sequence_lengths") is not None
        answer: tuple[Tensor, Tensor | None] = attention(module, *tensors, **options)
        return answer

    def mask(**options: object) -> Tensor | None:
        size = options.get("local_size")
        assert size is None or isinstance(size, int), "a window is a number of tokens"
        trial.masked.add(size)
        built: Tensor | None = build_mask(**options)
        return built

    ALL_ATTENTION_FUNCTIONS[VARLEN] = watched
    ALL_MASK_ATTENTION_FUNCTIONS[VARLEN] = mask
    try:
        yield trial
    finally:
        del ALL_ATTENTION_FUNCTIONS[VARLEN]
        del ALL_MASK_ATTENTION_FUNCTIONS[VARLEN]
