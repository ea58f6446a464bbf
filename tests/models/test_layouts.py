"""A layout in which sequences change each other is refused when the model is loaded for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GptOssConfig,
    Lfm2Config,
    MambaConfig,
    PreTrainedConfig,
)

from reasontrain.data.micro_batches import Layout
from reasontrain.models import ModelSettings, Policy, load
from reasontrain.models.layouts import check_layout, relative_difference
from reasontrain.types import UserError
from tests.tiny import ARCHITECTURES, SIZES, VOCABULARY, policy, tokenizer

MIXING: dict[str, PreTrainedConfig] = {
    "gpt_oss": GptOssConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
    "lfm2": Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]),
    "mamba": MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8),
    "bloom": BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
}
LAYOUTS: tuple[Layout, ...] = ("padded", "packed")


def random(config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> Policy:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    return Policy(model.eval(), tokenizer(), dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layouts_that_separate_sequences_pass(architecture: str, layout: Layout) -> None:
    check_layout(policy(architecture), layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", MIXING)
def test_a_packed_layout_that_mixes_is_refused_and_padding_is_not(
    architecture: str, dtype: torch.dtype
) -> None:
    model = random(MIXING[architecture], dtype)
    check_layout(model, "padded")
    with pytest.raises(UserError, match=f"{architecture} with eager attention mixes packed seq"):
        check_layout(model, "packed")
    assert model.dtype == dtype


def test_a_model_that_sees_padding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one without a causal mask."""
    model = policy("llama")
    inner = model.hidden

    def hidden(ids: torch.Tensor, **more: object) -> torch.Tensor:
        mask = torch.ones(len(ids), 1, ids.shape[1], ids.shape[1], dtype=torch.bool)
        return inner(ids, **more, mask=mask)

    monkeypatch.setattr(model, "hidden", hidden)
    with pytest.raises(UserError, match="padding after a sequence changes its hidden states"):
        check_layout(model, "padded")


def test_a_model_is_checked_for_its_layout_only(tmp_path: Path) -> None:
    model = random(MIXING["gpt_oss"])
    model.model.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    settings = ModelSettings(path=str(tmp_path))
    load(settings)
    load(settings, layout="padded")
    for trainable in (False, True):
        with pytest.raises(UserError, match=r"use `layout: padded`"):
            load(settings, trainable=trainable, layout="packed")


def test_a_difference_is_relative_and_nan_differs_from_everything() -> None:
    exact = torch.tensor([[3.0, 4.0], [0.0, 10.0]])
    # distances 0.5 of 5 and 0.1 of 10
    assert relative_difference(exact + torch.tensor([[0.0, 0.5], [0.1, 0.0]]), exact) == (
        pytest.approx(0.1)
    )
    assert relative_difference(exact * torch.nan, exact) == float("inf")
