"""Weights that are placed while they are read: all of them, once, one after another."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from reasontrain.models import ModelSettings, Placement, load
from reasontrain.models.placement import SEQUENTIAL
from reasontrain.types import UserError
from tests.tiny import policy


class Recording(Placement):
    """Weights that stay where they are read, as if they were sent elsewhere."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(torch.device("cpu"), dtype)
        self.placed: list[nn.Parameter] = []

    @property
    def is_where_read(self) -> bool:
        return False

    def place(self, parameter: nn.Parameter) -> nn.Parameter:
        assert parameter.dtype == self.dtype
        assert all(parameter is not other for other in self.placed)
        assert os.environ[SEQUENTIAL] == "1"  # nothing is read ahead
        self.placed.append(parameter)
        return parameter


def saved(directory: Path, *, tied: bool = False) -> ModelSettings:
    model = policy("qwen3", tied=tied, seed=1)
    model.model.save_pretrained(directory, max_shard_size="60KB")
    model.tokenizer.save_pretrained(directory)
    assert len(list(directory.glob("*.safetensors"))) > 2
    return ModelSettings(path=str(directory), dtype="bfloat16")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("trainable", [False, True])
def test_every_weight_is_placed_once_in_the_dtype_that_it_keeps(
    tmp_path: Path, tied: bool, trainable: bool
) -> None:
    settings = saved(tmp_path, tied=tied)
    placement = Recording(torch.float32 if trainable else torch.bfloat16)
    placed = load(settings, trainable=trainable, placement=placement).model
    plain = load(settings, trainable=trainable).model
    assert {id(p) for p in placed.parameters()} == {id(p) for p in placement.placed}
    expected = dict(plain.named_parameters())
    for name, parameter in placed.named_parameters():
        assert parameter.dtype == expected[name].dtype, name
        assert torch.equal(parameter, expected[name]), name
        assert parameter.requires_grad == trainable, name
    assert (placed.lm_head.weight is placed.model.embed_tokens.weight) == tied
    assert SEQUENTIAL not in os.environ


def change(directory: Path, name: str, value: torch.Tensor) -> None:
    for file in directory.glob("*.safetensors"):
        tensors = load_file(file)
        if name in tensors:
            save_file(tensors | {name: value}, file, metadata={"format": "pt"})


def test_a_weight_that_is_not_finite_is_named(tmp_path: Path) -> None:
    settings = saved(tmp_path)
    change(tmp_path, "model.layers.1.mlp.up_proj.weight", torch.full((48, 32), torch.nan))
    with pytest.raises(UserError, match=r"not finite.* model\.layers\.1\.mlp\.up_proj\.weight"):
        load(settings, placement=Recording(torch.bfloat16))


class Emptying(Recording):
    """Weights of which nothing is left, as if all of a weight were on another rank."""

    def place(self, parameter: nn.Parameter) -> nn.Parameter:
        parameter.data = parameter.data.new_empty(0)
        return parameter


def test_tied_weights_that_differ_in_the_files_are_refused(tmp_path: Path) -> None:
    """Once they are placed, transformers cannot compare them."""
    settings = saved(tmp_path, tied=True)
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    file = content["weight_map"]["model.embed_tokens.weight"]
    tensors = load_file(tmp_path / file)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    save_file(tensors, tmp_path / file, metadata={"format": "pt"})
    content["weight_map"]["lm_head.weight"] = file
    index.write_text(json.dumps(content))
    with pytest.raises(UserError, match="ties its head to its embeddings"):
        load(settings, placement=Emptying(torch.bfloat16))
