"""Model loading, and checks that reject models that cannot be trained or compared correctly."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from reasontrain.data.micro_batches import Layout
from reasontrain.metrics.working import working
from reasontrain.models.adapter_files import adapter_directory, base_of
from reasontrain.models.attention_choice import check_installed, choose_attention
from reasontrain.models.description import Description, class_of
from reasontrain.models.folder import is_hub_id
from reasontrain.models.layouts import check_layout
from reasontrain.models.paths import CONFIG, check_path, located, readable
from reasontrain.models.placement import Placement, placing
from reasontrain.models.policy import Policy
from reasontrain.models.quiet import log_once, messages_of_libraries
from reasontrain.models.settings import ModelSettings
from reasontrain.models.varlen import VARLEN
from reasontrain.models.vision import vision_of
from reasontrain.models.weights import (
    check_finite,
    check_not_quantised,
    check_tied_files,
    load_weights,
)
from reasontrain.types import UserError
from reasontrain.vocab import check_vocabulary

RANDOM = ("drop", "jitter")
"""Parts of the names of settings for random changes in training: dropout and router noise."""


def load(
    settings: ModelSettings,
    *,
    trainable: bool = False,
    layout: Layout | None = None,
    placement: Placement | None = None,
    sequence_parallel: int = 1,
) -> Policy:
    """The policy at `settings.path`.

    Args:
        settings: path and numerics.
        trainable: keep float32 weights, unless they will be the frozen base of adapters; a model
            whose weights do not change has them in `settings.dtype`.
        layout: the layout of the micro-batches that it will see; None if it only samples.
        placement: the place of weights, in a dtype of its own; None: the device of the settings.
        sequence_parallel: the number of ranks that share the rows of those micro-batches.

    Returns:
        The policy.

    Raises:
        UserError: it cannot be loaded, its weights are not all in its files, it computes its logits
            in a way that `Head` does not implement, or sequences of this layout change each other.
    """
    device = device_of(settings.device)
    check_installed(settings.attention)
    check_vocabulary(settings.vocabulary, device)
    check_path(settings.path)
    adapter = adapter_directory(settings.path)
    if placement is None:
        placement = Placement(device, dtype_of_weights(settings, trainable=trainable))
    if adapter is None:
        policy = _whole(settings, placement, trainable)
    else:
        # Imported here: importing peft takes half a second, and most models have no adapter.
        from reasontrain.models.adapter import load as load_adapter

        base = replace(settings, path=base_of(adapter), revision=None)
        policy = load_adapter(base, adapter, trainable=trainable, placement=placement)
    if settings.gradient_checkpointing and trainable:
        recompute_activations(policy.model)
    with placement.whole_in_forward(policy.model):
        about_packing = choose_attention(
            policy, settings.attention, layout, sequence_parallel=sequence_parallel
        )
        if layout is not None:
            check_layout(policy, layout)
    if about_packing is not None:
        log_once(settings.path, about_packing)
    return policy


def _whole(settings: ModelSettings, placement: Placement, trainable: bool) -> Policy:
    """The policy at a path that is no adapter's."""
    with located(settings.path) as path, working(f"loading {settings.path}"):
        model, tokenizer, wrong = _from_pretrained(path, settings, placement)
        vision = vision_of(model.config, tokenizer, path, settings.revision)
    check_not_quantised(model, settings.path)
    model.to(placement.device)  # buffers, and on a CPU weights
    check_finite(model, settings.path, wrong)
    model.requires_grad_(trainable)
    if is_hub_id(settings.path):
        # An adapter that is trained names its base as the recipe does, wherever that was found.
        model.name_or_path = settings.path
    with placement.whole_in_forward(model):
        policy = Policy(
            model.train(trainable),
            tokenizer,
            getattr(torch, settings.dtype),
            vision,
            settings.vocabulary,
        )
        check_head(policy)
    return policy


def recompute_activations(model: PreTrainedModel) -> None:
    """Recompute a model's activations in the backward pass instead of keeping them."""
    # Not reentrant: that needs an input that requires a gradient, and with adapters the embeddings
    # that enter a layer have none.
    # transformers 5.19, which vLLM needs, has only the name that is deprecated in 5.23.
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable({"use_reentrant": False})


def _from_pretrained(
    path: str, settings: ModelSettings, placement: Placement
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[str]]:
    """The model without dropout, its tokenizer, and the names of weights that are not finite.

    Only what was placed is examined, because no rank has all of it afterwards.
    """
    source = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
    with messages_of_libraries() as messages, readable(settings.path):
        config = AutoConfig.from_pretrained(path, **source)
        tokenizer = AutoTokenizer.from_pretrained(path, **source)
    for message in messages:
        log_once(settings.path, message)
    no_dropout(config)
    # Attention by lengths is set once the model is there to try it with.
    attention = None if settings.attention in ("auto", VARLEN) else settings.attention
    load_model = partial(
        class_of(config).from_pretrained,
        path,
        config=config,
        attn_implementation=attention,
        dtype=placement.dtype,
        **source,
    )
    with placing(placement) as placed:
        model = load_weights(load_model, settings.path)
    if not placement.is_where_read and config.get_text_config().tie_word_embeddings:
        # transformers compares tied weights when both are read and their values are elsewhere.
        check_tied_files(_files(path, settings), settings.path)
    return model, tokenizer, placed.not_finite(model)


def _files(path: str, settings: ModelSettings) -> Path:
    """The directory of a model that was loaded: the path, or a place in the hub's cache."""
    if Path(path).is_dir():
        return Path(path)
    return Path(str(cached_file(path, CONFIG, revision=settings.revision))).parent


def dtype_of_weights(settings: ModelSettings, *, trainable: bool) -> torch.dtype:
    """The dtype in which weights are kept; see `load`."""
    changes = trainable and settings.lora is None
    dtype: torch.dtype = torch.float32 if changes else getattr(torch, settings.dtype)
    return dtype


def device_of(name: str) -> torch.device:
    """The device of a setting; "auto" is the GPU if there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("model.device is `cuda`, and no CUDA GPU is visible; use `auto` or `cpu`")
    return torch.device(
        "cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu"
    )


def no_dropout(config: PreTrainedConfig) -> None:
    """Turn every dropout off: evidence and loss must see the same logits."""
    for name, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            no_dropout(value)
        elif isinstance(value, float) and any(part in name for part in RANDOM):
            setattr(config, name, 0.0)


@torch.no_grad()
def check_head(policy: Policy) -> None:
    """Raise UserError if the model's logits are not what `Head` computes from its hidden states.

    This catches transforms of the logits that `Head` does not implement, and a trunk whose last
    hidden state is not the input of the head.
    """
    ids = torch.arange(4, device=policy.device)[None]
    among = slice(policy.input_space.num_tokens)
    expected = policy.model(input_ids=ids, use_cache=False).logits[0, :, among].float()
    computed = policy.head.logits(policy.hidden(ids)[0])[:, among]
    # In bfloat16 the two differ by the rounding of the model's own logits.
    tolerance = 1e-3 if policy.dtype == torch.float32 else 0.1
    if not torch.allclose(
        computed, expected, rtol=tolerance, atol=tolerance * max(1.0, float(expected.abs().max()))
    ):
        raise UserError(
            f"{policy.model.config.model_type} computes its logits in a way that reasontrain does "
            f"not support: they differ from head(hidden) by up to "
            f"{float((computed - expected).abs().max()):.3g}"
        )


def check_same_ids(student: Policy | Description, other: Policy | Description, role: str) -> None:
    """Raise UserError if a teacher or reference has another vocabulary than the model.

    Only tokens are compared: the number of padding rows of the heads may differ.
    """
    student_tokens, other_tokens = (
        {index: token for token, index in p.tokenizer.get_vocab().items()} for p in (student, other)
    )
    for index in sorted(student_tokens.keys() | other_tokens.keys()):
        if student_tokens.get(index) != other_tokens.get(index):
            raise UserError(
                f"the {role} and the model must share one vocabulary, but id {index} is "
                f"{other_tokens.get(index)!r} in the {role} and "
                f"{student_tokens.get(index)!r} in the model"
            )
