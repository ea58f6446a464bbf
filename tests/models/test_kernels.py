"""The attention kernels that models may use, and masks in which each query sees a key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.masking_utils import causal_mask_function
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from reasontrain import models
from reasontrain.data.sampling import Sampling
from reasontrain.models.attention import measure_attention
from reasontrain.models.kernels import mask_with_own_columns
from reasontrain.sampler.local import LocalSampler
from reasontrain.types import Problem, Prompt
from tests.tiny import policy

WINDOWED = {"mistral": 4, "qwen2": None, "qwen3": None, "llama": None}
"""Architectures, and their sliding windows."""


@pytest.fixture(autouse=True)
def _torch_as_it_comes() -> Iterator[None]:
    """torch's own settings before each test, whatever ran in this process."""
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    models.choose_sdpa_kernels()


def test_a_loaded_model_runs_without_cudnn_attention() -> None:
    models.load(models.ModelSettings(path="testbed:student", device="cpu"))
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_any_policy_runs_without_cudnn_attention_and_so_does_a_measurement() -> None:
    model = policy()
    enabled = []

    original = torch.nn.functional.scaled_dot_product_attention

    def forward(*arguments: Any, **options: Any) -> Tensor:
        enabled.append(torch.backends.cuda.cudnn_sdp_enabled())
        return original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        for where in (
            "torch.nn.functional.scaled_dot_product_attention",
            "reasontrain.models.attention.scaled_dot_product_attention",
        ):
            patch.setattr(where, forward)
        ids = torch.arange(6)[None]
        with measure_attention(model.model, ids > 2, -1):
            model.hidden(ids)
    assert enabled == [False] * 3  # two layers, one of them measured
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert models.choose_sdpa_kernels() == ["flash", "mem_efficient", "math"]


@pytest.mark.parametrize("architecture", WINDOWED)
def test_every_query_sees_a_key_also_in_padding(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = policy(architecture)
    if WINDOWED[architecture] is not None:
        model.model.config.sliding_window = WINDOWED[architecture]
    masks: list[Tensor] = []
    original = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def watched(
        module: object,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **rest: object,
    ) -> object:
        if mask is not None:
            masks.append(mask.expand(len(query), -1, -1, -1))
        return original(module, query, key, value, mask, **rest)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", watched)
    prompts = [
        Prompt(problem=Problem(id=str(length), prompt=""), ids=tuple(range(3, 3 + length)))
        for length in (1, 9, 5)
    ]
    LocalSampler(model, seed=0).sample(prompts, Sampling(max_tokens=4), num=2, first_id=0)
    left = torch.ones(2, 7, dtype=torch.long)
    left[1, :3] = 0
    with torch.no_grad():
        model.hidden(torch.arange(14).view(2, 7), mask=left)
    assert any((mask.shape[0], mask.shape[2]) == (3, 9) for mask in masks)  # a padded prefill
    assert all(bool(mask.any(-1).all()) for mask in masks)
    if WINDOWED[architecture] is not None:
        assert all(int(mask.sum(-1).max()) <= 4 for mask in masks)


def test_the_mask_of_a_static_cache_has_its_queries_behind_an_offset_that_is_a_tensor() -> None:
    masks = [
        mask_with_own_columns(
            batch_size=1,
            q_length=2,
            kv_length=8,
            q_offset=offset,
            mask_function=causal_mask_function,
            attention_mask=torch.tensor([[False, False, False, False, True, True, True, True]]),
            allow_is_causal_skip=False,
        )
        for offset in (3, torch.tensor(3))
    ]
    expected = [[3], [4]]  # padding sees itself alone, and the first token no padding
    for mask in masks:
        assert mask is not None
        assert [row.nonzero().flatten().tolist() for row in mask[0, 0]] == expected
