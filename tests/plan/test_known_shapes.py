"""Shapes that come with the package, by the parameters that the models' pages state."""

from __future__ import annotations

import pytest

from reasontrain.models import ModelSettings
from reasontrain.plan import shape as shapes
from reasontrain.plan.known_shapes import KNOWN
from reasontrain.types import UserError

PARAMETERS = {
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-Math-7B": 7_615_616_512,
    "Qwen/Qwen2.5-14B": 14_770_033_664,
    "Qwen/Qwen2.5-32B-Instruct": 32_763_876_352,
    "Qwen/Qwen2.5-72B": 72_706_203_648,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B-Base": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-14B": 14_768_307_200,
    "Qwen/Qwen3-32B": 32_762_123_264,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.3-70B-Instruct": 70_553_706_496,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 7_615_616_512,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": 8_030_261_248,
}
"""The counts of the safetensors files on the hub, tied matrices once."""


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameters_are_those_of_the_hub(name: str, count: int) -> None:
    shape = shapes.shape_of(ModelSettings(path=name), "model")
    assert shapes.num_parameters(shape) == count


def test_a_plan_needs_sizes_of_models_that_are_not_in_the_table() -> None:
    assert "nobody/nothing" not in KNOWN
    with pytest.raises(UserError, match=r"write its sizes under `teacher\.shape`"):
        shapes.shape_of(ModelSettings(path="nobody/nothing"), "teacher")
