"""Parameter counts of a model, by matrix, from its shape alone."""

from __future__ import annotations

import torch
from transformers import AutoConfig, PreTrainedConfig

from reasontrain.models import (
    Lora,
    ModelSettings,
    Shape,
    base_settings,
    class_of,
    gguf_file,
    located,
    on_this_machine,
    readable,
)
from reasontrain.models.gguf import configuration
from reasontrain.plan.known_shapes import known_shape
from reasontrain.types import UserError

TOLERANCE = 0.01
"""Largest relative error of the parameter count by formula.

A model whose own count differs by more has an unsupported architecture.
"""


def shape_of(settings: ModelSettings, key: str) -> Shape:
    """The shape stated in the recipe, that of the configuration at `path`, or a known one.

    `path` is a directory, a testbed model, a GGUF file, or a model in the hub's cache; nothing is
    downloaded or converted. An adapter has the shape of its base model.
    Raises UserError if there is no configuration, or one of another architecture.
    """
    if settings.shape is not None:
        return settings.shape
    settings = base_settings(settings)
    if (file := gguf_file(on_this_machine(settings.path))) is not None:
        return _from_config(configuration(file), settings, key)
    with located(settings.path) as path:
        try:
            config = AutoConfig.from_pretrained(
                path,
                revision=settings.revision,
                local_files_only=True,
                trust_remote_code=settings.trust_remote_code,
            )
        except (OSError, ValueError, KeyError) as error:
            if (known := known_shape(settings.path)) is not None:
                return known
            raise UserError(
                f"{key}: there is no configuration of {settings.path} on this machine, and "
                f"a plan downloads nothing; write its "
                f"sizes under `{key}.shape`, or set `{key}.path` to a directory that holds "
                f"its config.json"
            ) from error
    return _from_config(config, settings, key)


def _from_config(config: PreTrainedConfig, settings: ModelSettings, key: str) -> Shape:
    """The shape of a configuration, checked against a model on the meta device.

    For an image model it is the shape of its language model: the image encoder is small in
    comparison and not counted.
    """
    with torch.device("meta"), readable(settings.path):
        model = class_of(config).from_config(config, trust_remote_code=settings.trust_remote_code)
    decoder = model.get_decoder()
    head = model.get_output_embeddings()
    names = {name.rpartition("self_attn.")[2] for name, _ in decoder.named_parameters()}
    sizes = config.get_text_config().to_dict()
    try:
        heads = sizes["num_attention_heads"]
        shape = Shape(
            hidden_size=sizes["hidden_size"],
            intermediate_size=sizes["intermediate_size"],
            num_layers=sizes["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=sizes.get("num_key_value_heads") or heads,
            head_dim=sizes.get("head_dim") or sizes["hidden_size"] // heads,
            vocab_size=sizes["vocab_size"],
            tied=bool(sizes.get("tie_word_embeddings")),
            qkv_bias="q_proj.bias" in names,
            qk_norm="q_norm.weight" in names,
        )
    except KeyError as error:
        raise UserError(
            f"{key}: {config.model_type} has no {error} in its configuration; a plan knows "
            f"dense decoders"
        ) from error
    true = sum(weight.numel() for weight in {*decoder.parameters(), *head.parameters()})
    counted = num_parameters(shape)
    if abs(counted - true) > TOLERANCE * true:
        raise UserError(
            f"{key}: {config.model_type} has {true:,} parameters, and a dense decoder of "
            f"its sizes would have {counted:,}; a "
            "plan knows the architecture of Llama and Qwen only"
        )
    return shape


def matrices(shape: Shape) -> dict[str, int]:
    """Number of parameters of each matrix of one layer, by the names that adapters target."""
    d = shape.hidden_size
    f = shape.intermediate_size
    q = width_q(shape)
    k = width_k(shape)
    return {
        "q_proj": d * q,
        "k_proj": d * k,
        "v_proj": d * k,
        "o_proj": q * d,
        "gate_proj": d * f,
        "up_proj": d * f,
        "down_proj": f * d,
    }


def width_q(shape: Shape) -> int:
    """Width of the queries of one token, over all heads."""
    return shape.num_heads * shape.head_dim


def width_k(shape: Shape) -> int:
    """Width of the keys of one token, over all heads; its values have the same width."""
    return shape.num_kv_heads * shape.head_dim


def num_layer(shape: Shape) -> int:
    """Parameters of one layer: matrices, two norms, and biases or norms of some architectures."""
    extra = 2 * shape.hidden_size
    extra += 2 * shape.head_dim if shape.qk_norm else 0
    extra += width_q(shape) + 2 * width_k(shape) if shape.qkv_bias else 0
    return num_linear(shape) + extra


def num_linear(shape: Shape) -> int:
    """Parameters in the matrices of one layer."""
    return sum(matrices(shape).values())


def num_table(shape: Shape) -> int:
    """Parameters of a matrix of vocabulary x hidden size: the embedding, or an untied head."""
    return shape.vocab_size * shape.hidden_size


def num_parameters(shape: Shape) -> int:
    """All parameters; a tied head counts once."""
    return (
        shape.num_layers * num_layer(shape)
        + shape.hidden_size
        + num_table(shape) * (1 if shape.tied else 2)
    )


def num_adapter(shape: Shape, lora: Lora) -> int:
    """Parameters of adapters: rank x (inputs + outputs) for every adapted matrix.

    Hu et al. 2021, section 4.1.
    """
    d = shape.hidden_size
    f = shape.intermediate_size
    q = width_q(shape)
    k = width_k(shape)
    ends = {
        "q_proj": d + q,
        "k_proj": d + k,
        "v_proj": d + k,
        "o_proj": q + d,
        "gate_proj": d + f,
        "up_proj": d + f,
        "down_proj": f + d,
    }
    unknown = sorted(set(lora.targets) - ends.keys())
    if unknown:
        raise UserError(
            f"model.lora.targets: a plan knows no matrix {', '.join(unknown)}; there is "
            f"{', '.join(ends)}"
        )
    return shape.num_layers * lora.rank * sum(ends[name] for name in lora.targets)
