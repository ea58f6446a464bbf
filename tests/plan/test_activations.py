"""What autograd keeps, counted by its own hooks on tiny models, equals the table of
`plan.activations` to the byte.
"""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from reasontrain.models import ModelSettings, Policy, recompute_activations
from reasontrain.plan.activations import Mode, kept, per_layer, residual
from reasontrain.plan.shape import num_linear, shape_of
from tests.tiny import ARCHITECTURES, tokenizer

ROLLOUTS, LENGTH = 2, 16
SIZES = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
}


def counted(
    architecture: str, mode: Mode, attention: str, checkpointing: bool, where: str
) -> tuple[int, int]:
    """Bytes that autograd keeps of one forward, and what the table says."""
    config = ARCHITECTURES[architecture](**SIZES, tie_word_embeddings=False)
    config.save_pretrained(where)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).float().train()
    if mode == "bfloat16":
        model.to(torch.bfloat16)
    if checkpointing:
        recompute_activations(model)
    policy = Policy(model, tokenizer(), torch.float32 if mode == "float32" else torch.bfloat16)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.numel() > 1:
            found[storage.data_ptr()] = storage  # kept alive, so that no address comes twice
        return tensor

    ids = torch.randint(0, SIZES["vocab_size"], (ROLLOUTS, LENGTH))
    position = torch.arange(LENGTH)[None].expand(ROLLOUTS, LENGTH)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        policy.hidden(ids, position=position)
    shape = shape_of(ModelSettings(path=where), "model")
    layer = per_layer(shape, mode, eager_length=LENGTH if attention == "eager" else 0)
    table = ROLLOUTS * LENGTH * kept(shape, mode, layer, checkpointing=checkpointing)
    if mode == "autocast" and not checkpointing:
        table += 2 * SIZES["num_hidden_layers"] * num_linear(shape)
    return sum(storage.nbytes() for storage in found.values()), table


@pytest.mark.parametrize("mode", ["float32", "autocast", "bfloat16"])
@pytest.mark.parametrize("architecture", ["qwen3", "qwen2", "llama", "mistral"])
def test_every_kept_tensor_is_in_the_table(architecture: str, mode: Mode, tmp_path: object) -> None:
    found, table = counted(architecture, mode, "sdpa", False, str(tmp_path))
    assert found == table


@pytest.mark.parametrize("mode", ["float32", "autocast", "bfloat16"])
def test_eager_attention_keeps_its_probabilities(mode: Mode, tmp_path: object) -> None:
    found, table = counted("qwen3", mode, "eager", False, str(tmp_path))
    assert found == table


@pytest.mark.parametrize("mode", ["float32", "autocast", "bfloat16"])
def test_checkpointing_keeps_the_inputs_of_layers(mode: Mode, tmp_path: object) -> None:
    found, table = counted("qwen3", mode, "sdpa", True, str(tmp_path))
    rotary = (
        ROLLOUTS * LENGTH * 2 * residual(mode) * SIZES["head_dim"]
    )  # checkpoints hold them past autograd's hooks
    assert found + rotary == table
