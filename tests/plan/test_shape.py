"""Parameters by formula are those that the models have, and those that their makers publish."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3MoeConfig

from reasontrain.models import Lora, ModelSettings, describe
from reasontrain.plan.shape import num_adapter, num_parameters, shape_of
from reasontrain.types import UserError
from tests.plan.jobs import QWEN3_4B, QWEN3_8B, shape
from tests.tiny import ARCHITECTURES, SIZES


def test_published_sizes() -> None:
    # Qwen3-4B: 36 (2560 (2 4096 + 2 1024 + 3 9728) + 2 2560 + 2 128) + 2560 + 151936 2560
    assert num_parameters(shape(QWEN3_4B)) == 4_022_468_096
    # Qwen3-8B: 36 (4096 (2 4096 + 2 1024 + 3 12288) + 2 4096 + 2 128) + 4096 + 2 151936 4096
    assert num_parameters(shape(QWEN3_8B)) == 8_190_735_360


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ["qwen3", "qwen2", "llama", "gemma", "mistral"])
def test_a_configuration_is_enough(architecture: str, tied: bool, tmp_path: Path) -> None:
    config = ARCHITECTURES[architecture](**SIZES, tie_word_embeddings=tied)
    config.save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_config(config)
    assert (
        num_parameters(shape_of(ModelSettings(path=str(tmp_path)), "model"))
        == model.num_parameters()
    )


def test_the_testbed_needs_no_shape() -> None:
    settings = ModelSettings(path="testbed:teacher")
    assert num_parameters(shape_of(settings, "model")) == describe(settings).num_parameters


def test_a_stated_shape_comes_before_everything() -> None:
    stated = shape(QWEN3_8B)
    assert shape_of(ModelSettings(path="testbed:teacher", shape=stated), "model") == stated


def test_adapters_by_hand() -> None:
    # 36 layers x rank 16 x (q: 2560 + 4096, v: 2560 + 1024)
    assert num_adapter(shape(QWEN3_4B), Lora(rank=16, targets=("q_proj", "v_proj"))) == 36 * 16 * (
        6656 + 3584
    )


def test_an_adapter_on_nothing_is_named() -> None:
    with pytest.raises(UserError, match="no matrix c_attn"):
        num_adapter(shape(QWEN3_4B), Lora(targets=("c_attn",)))


def test_a_model_of_the_hub_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def from_pretrained(path: str, *, local_files_only: bool, **_: object) -> None:
        asked.append((path, local_files_only))
        raise OSError("it is not in the cache")

    monkeypatch.setattr(AutoConfig, "from_pretrained", from_pretrained)
    with pytest.raises(UserError, match=r"write its sizes under `teacher\.shape`"):
        shape_of(ModelSettings(path="nobody/nothing"), "teacher")
    assert asked == [("nobody/nothing", True)]


def test_an_architecture_of_other_parts_is_refused(tmp_path: Path) -> None:
    sizes = SIZES | {"num_experts": 8, "moe_intermediate_size": 48}
    Qwen3MoeConfig(**sizes).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="a dense decoder of its sizes would have"):
        shape_of(ModelSettings(path=str(tmp_path)), "model")
