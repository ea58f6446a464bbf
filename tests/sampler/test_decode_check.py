"""A model that the local engine cannot sample is refused by a computation, not by its name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import AutoModelForCausalLM, FalconH1Config, Lfm2Config, PreTrainedConfig

from reasontrain.models import Policy
from reasontrain.sampler.local import LocalSampler
from reasontrain.types import UserError
from tests.tiny import ARCHITECTURES, SIZES, policy, tokenizer

OTHER_STATE: dict[str, PreTrainedConfig] = {
    "lfm2": Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]),
    "falcon_h1": FalconH1Config(
        **SIZES, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1
    ),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_that_sample_correctly_pass(architecture: str, dtype: torch.dtype) -> None:
    model = policy(architecture, checkpointing=True)  # which would drop the cache in training mode
    LocalSampler(Policy(model.model, model.tokenizer, dtype), seed=0)
    assert model.model.training


@pytest.mark.parametrize("architecture", OTHER_STATE)
def test_layers_with_a_state_of_another_kind_are_refused_in_one_sentence(
    architecture: str,
) -> None:
    model = AutoModelForCausalLM.from_config(OTHER_STATE[architecture]).float()
    with pytest.raises(
        UserError, match=rf"^{architecture} cannot be sampled .*; use `engine: {{kind: vllm}}`"
    ) as refusal:
        LocalSampler(Policy(model, tokenizer()), seed=0)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda more: more | {"mask": None}, id="attends to padding"),
        pytest.param(lambda more: more | {"position": None}, id="counts columns"),
        pytest.param(lambda more: more | {"cache": None, "mask": None}, id="forgets the past"),
    ],
)
def test_what_decodes_to_other_hidden_states_is_refused(
    monkeypatch: pytest.MonkeyPatch, wrong: Callable[[dict[str, object]], dict[str, object]]
) -> None:
    model = policy("llama")
    inner = model.hidden

    def hidden(ids: torch.Tensor, **more: object) -> torch.Tensor:
        decodes = ids.shape[1] == 1 and more.get("cache") is not None
        return inner(ids, **(wrong(more) if decodes else more))

    monkeypatch.setattr(model, "hidden", hidden)
    with pytest.raises(UserError, match="decoding with it changes hidden states by"):
        LocalSampler(model, seed=0)
