"""Weights are rounded once per call of the sampler, not at every token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    GptOssConfig,
    MixtralConfig,
    PreTrainedConfig,
)

from reasontrain.data.sampling import Sampling
from reasontrain.learner.lora import adapt
from reasontrain.models import Lora, Policy
from reasontrain.sampler.decode_weights import rounded_weights
from reasontrain.sampler.local import LocalSampler
from tests.tiny import SIZES, tokenizer

ATEN = torch.ops.aten
CONVERSIONS = {
    ATEN._to_copy.default,
    ATEN.to.dtype,
    ATEN.to.dtype_layout,
    ATEN.to.device,
    ATEN.to.other,
}


class Conversions(TorchDispatchMode):
    """Shows every conversion of a tensor to `converted`."""

    def __torch_dispatch__(
        self,
        function: Callable[..., object],
        types: Sequence[type],
        arguments: tuple[object, ...] = (),
        options: Mapping[str, object] | None = None,
    ) -> object:
        result = function(*arguments, **(options or {}))
        # inference mode shows `to` itself, and not what it consists of
        if function in CONVERSIONS:
            source = arguments[0]
            assert isinstance(source, Tensor)
            assert isinstance(result, Tensor)
            self.converted(source, result)
        return result

    def converted(self, source: Tensor, result: Tensor) -> None:
        raise NotImplementedError


class WeightCasts(Conversions):
    """Conversions of tensors with the shape of a weight, by (shape, from, to)."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.shapes = {tuple(weight.shape) for weight in weights}
        self.count: Counter[tuple[tuple[int, ...], torch.dtype, torch.dtype]] = Counter()

    def converted(self, source: Tensor, result: Tensor) -> None:
        if tuple(source.shape) in self.shapes and source.dtype != result.dtype:
            self.count[tuple(source.shape), source.dtype, result.dtype] += 1


class Rounded(Conversions):
    """The number of times that any of these tensors, or a view of one, is rounded."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self.addresses = {tensor.data_ptr() for tensor in tensors}
        self.num = 0

    def converted(self, source: Tensor, result: Tensor) -> None:
        self.num += source.data_ptr() in self.addresses and result.dtype == torch.bfloat16


@pytest.mark.parametrize("max_tokens", [1, 9])
@pytest.mark.parametrize("trained", ["all", "adapters", "nothing"])
def test_each_weight_is_rounded_once_however_many_tokens_follow(
    tiny: type, max_tokens: int, trained: str
) -> None:
    policy = tiny.policy(dtype=torch.bfloat16)
    policy.model.requires_grad_(trained != "nothing")
    if trained == "adapters":
        adapt(policy, Lora(rank=3))
    linear = [
        module.weight
        for module in policy.model.modules()
        if isinstance(module, nn.Linear) and module is not policy.model.get_output_embeddings()
    ]
    sampler = LocalSampler(policy, seed=0, shared=True)
    sampling = Sampling(max_tokens=max_tokens)
    with rounded_weights(policy):
        pass  # which weights are rounded is tried once per model
    with WeightCasts(linear) as casts:
        sampler.sample(tiny.prompts(3, 5), sampling, num=2, first_id=0)
    expected = Counter((tuple(weight.shape), torch.float32, torch.bfloat16) for weight in linear)
    assert casts.count == expected
    head = policy.head.weight_VD
    with WeightCasts([head]) as casts:
        sampler.sample(tiny.prompts(3, 5), sampling, num=2, first_id=0)
    assert casts.count == {(tuple(head.shape), torch.float32, torch.bfloat16): 1}


@pytest.mark.parametrize(
    "config",
    [
        MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
        GptOssConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
        DeepseekV3Config(
            **SIZES | {"num_key_value_heads": 4},
            kv_lora_rank=16,
            q_lora_rank=16,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=8,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=1,
            topk_group=1,
            first_k_dense_replace=1,
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_so_are_weights_outside_of_linear_layers(tiny: type, config: PreTrainedConfig) -> None:
    """Routers of mixtures are no linear layers, and autocast rounds them as well."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    policy = Policy(model, tokenizer(), torch.bfloat16)
    ids = torch.arange(12).view(2, 6)
    output = model.get_output_embeddings().weight
    with torch.no_grad():
        expected = policy.hidden(ids)
        with rounded_weights(policy):
            original = [p for p in model.parameters() if p.dtype == torch.float32]
            with Rounded([p for p in original if p is not output]) as rounded:
                assert torch.equal(policy.hidden(ids), expected)
    assert rounded.num == 0


def test_the_policy_has_its_own_weights_again_also_after_a_failure(tiny: type) -> None:
    policy = tiny.policy(dtype=torch.bfloat16)
    before = dict(policy.model.named_parameters())
    with rounded_weights(policy):
        assert {p.dtype for p in policy.model.parameters()} == {torch.float32, torch.bfloat16}
    assert dict(policy.model.named_parameters()).keys() == before.keys()
    with pytest.raises(KeyError), rounded_weights(policy):
        policy.model.state_dict()["no such weight"]
    after = dict(policy.model.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is parameter for name, parameter in before.items())
    exact = tiny.policy()
    with rounded_weights(exact):
        assert {p.dtype for p in exact.model.parameters()} == {torch.float32}


def test_rounded_once_or_at_every_token_the_hidden_states_are_the_same(tiny: type) -> None:
    policy = tiny.policy(dtype=torch.bfloat16)
    ids = torch.arange(12).view(2, 6)
    with torch.no_grad():
        expected = policy.hidden(ids)
        with rounded_weights(policy):
            assert torch.equal(policy.hidden(ids), expected)
