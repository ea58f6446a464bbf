"""Adapters: what they leave alone, and that merged, saved or restored they say the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from safetensors import safe_open
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, Qwen3NextConfig

from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import Nll
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.lora import ADAPTER_FOLDER, adapt, is_adapted
from reasontrain.learner.policy_learner import PolicyLearner
from reasontrain.models import Lora, ModelSettings, Policy, load
from reasontrain.models.adapter import load as load_adapter
from reasontrain.recipe import LearnSettings
from reasontrain.types import UserError
from tests.tiny import SIZES, batch, policy
from tests.tiny import tokenizer as base_tokenizer


def adapted(architecture: str = "qwen3", *, tied: bool = False, seed: int = 1) -> Policy:
    model = policy(architecture, tied=tied, seed=seed)
    adapt(model, Lora(rank=4, alpha=8.0))
    return model


def learner(model: Policy) -> PolicyLearner:
    return compose_learner(
        model, LearnSettings(lr=0.05, rollouts_per_step=6, schedule="linear"), steps=10
    )


def step(used: PolicyLearner, seed: int = 0) -> float:
    data = batch(seed=seed)
    return used.step(data, data.is_response_BT.float(), Nll(), LOSS_AGGREGATIONS["token_mean"])[
        "loss"
    ]


@torch.no_grad()
def logits(model: torch.nn.Module) -> Tensor:
    return model.eval()(torch.arange(3, 15)[None], use_cache=False).logits


def test_a_fresh_adapter_changes_nothing_and_is_the_same_every_time() -> None:
    torch.manual_seed(7)  # whatever came before
    first = adapted()
    torch.manual_seed(8)
    second = adapted()
    assert torch.equal(logits(first.model), logits(policy(seed=1).model))
    for (name, a), (_, b) in zip(
        first.model.named_parameters(), second.model.named_parameters(), strict=True
    ):
        assert torch.equal(a, b), name
    assert is_adapted(first.model)
    assert not is_adapted(policy().model)


@pytest.mark.parametrize("tied", [False, True])
def test_learning_moves_the_adapters_and_nothing_else(tied: bool) -> None:
    model = adapted(tied=tied)
    before = {name: p.detach().clone() for name, p in model.model.named_parameters()}
    used = learner(model)
    losses = [step(used) for _ in range(8)]
    assert losses[-1] < 0.95 * losses[0]
    for name, p in model.model.named_parameters():
        assert p.requires_grad == ("lora_" in name)
        assert torch.equal(before[name], p) != p.requires_grad, name
    trainable = sum(p.numel() for p in model.model.parameters() if p.requires_grad)
    # rank 4 times (in + out) of q, k and v, o, gate, up and down, in two layers 32 wide: 4 heads of
    # 8, 2 for keys, 48 inside
    assert trainable == 2 * 4 * ((32 + 32) + 2 * (32 + 16) + (32 + 32) + 3 * (32 + 48))


def narrow(tmp_path: Path, *, lora: Lora | None = None, weights: torch.dtype) -> Policy:
    """A model that computes in bfloat16, from files with numbers that bfloat16 rounds."""
    if not (tmp_path / "base").exists():
        base = policy(seed=1)
        base.model.save_pretrained(tmp_path / "base")
        base.tokenizer.save_pretrained(tmp_path / "base")
    settings = ModelSettings(path=str(tmp_path / "base"), dtype="bfloat16", lora=lora)
    model = load(settings, trainable=True)
    assert {p.dtype for p in model.model.parameters()} == {weights}
    adapt(model, Lora(rank=4, alpha=8.0))
    return model


def test_a_base_in_bfloat16_has_adapters_in_float32_with_the_same_start(tmp_path: Path) -> None:
    wide = narrow(tmp_path, weights=torch.float32)
    model = narrow(tmp_path, lora=Lora(), weights=torch.bfloat16)
    expected = dict(wide.model.named_parameters())
    for name, parameter in model.model.named_parameters():
        is_adapter = "lora_" in name
        assert parameter.requires_grad == is_adapter, name
        assert parameter.dtype == (torch.float32 if is_adapter else torch.bfloat16), name
        assert torch.equal(parameter, expected[name].to(parameter.dtype)), name
    first, second = (
        [step(used, seed) for seed in range(6)] for used in (learner(model), learner(wide))
    )
    assert_close(first, second, rtol=0.02, atol=0)
    assert first[-1] < first[0]


def test_a_base_in_bfloat16_goes_on_bit_for_bit_and_is_merged_in_float32(tmp_path: Path) -> None:
    def begun() -> PolicyLearner:
        return learner(narrow(tmp_path, lora=Lora(), weights=torch.bfloat16))

    straight = begun()
    expected = [step(straight, seed) for seed in range(4)]
    first = begun()
    losses = [step(first, seed) for seed in range(2)]
    saved = tmp_path / "saved"
    saved.mkdir()
    first.save(saved)
    second = begun()
    second.restore(saved)
    losses += [step(second, seed) for seed in (2, 3)]
    assert losses == expected
    for file in saved.rglob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            assert all(".lora_" in name for name in tensors.keys()), file  # noqa: SIM118
    final = tmp_path / "final"
    final.mkdir()
    second.export(final)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
    adapted = PeftModel.from_pretrained(base.float(), final / ADAPTER_FOLDER)
    merged = dict(adapted.merge_and_unload().named_parameters())
    for name, tensor in second.weights().tensors():
        assert torch.equal(tensor.float(), merged[name]), name


def test_targets_that_the_model_does_not_have_are_refused_by_name() -> None:
    with pytest.raises(
        UserError, match=r"no matrix called dense, query; it has down_proj, .*v_proj"
    ):
        adapt(policy(), Lora(targets=("q_proj", "query", "dense")))


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_the_head_is_refused(target: str) -> None:
    with pytest.raises(
        (ValueError, ValidationError), match=f"an adapter on {target} is not supported"
    ):
        ModelSettings(path="testbed:student", lora=Lora(targets=("q_proj", target)))


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2", "gemma2"])
@pytest.mark.parametrize("tied", [False, True])
def test_merged_and_exported_it_says_what_the_adapted_model_says(
    architecture: str, tied: bool, tmp_path: Path
) -> None:
    model = adapted(architecture, tied=tied)
    used = learner(model)
    for seed in range(3):
        step(used, seed)
    wanted = logits(model.model)
    plain = policy(architecture, tied=tied, seed=1).model
    assert (logits(plain) - wanted).abs().max() > 0.05
    names = dict(used.weights().tensors()).keys()
    assert names == {name for name, _ in plain.named_parameters()}
    used.export(tmp_path)
    assert_close(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")),
        wanted,
        rtol=1e-4,
        atol=2e-5,
    )


def test_an_adapter_that_was_saved_goes_on_bit_for_bit_and_loads_on_its_base(
    tmp_path: Path,
) -> None:
    straight = learner(adapted())
    expected = [step(straight, seed) for seed in range(4)]
    first = learner(adapted())
    losses = [step(first, seed) for seed in range(2)]
    first.save(tmp_path)
    loaded = policy(seed=1).model
    loaded.load_adapter(str(tmp_path))
    assert_close(logits(loaded), logits(first.policy.model), rtol=0, atol=1e-6)
    assert not (tmp_path / "model.safetensors").exists()
    second = learner(adapted())
    second.restore(tmp_path)
    losses += [step(second, seed) for seed in (2, 3)]
    assert losses == expected
    for (name, a), (_, b) in zip(
        straight.weights().tensors(), second.weights().tensors(), strict=True
    ):
        assert torch.equal(a, b), name


def test_the_final_model_is_merged_and_has_its_adapters_beside_it(tmp_path: Path) -> None:
    base = policy(seed=1)
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    settings = ModelSettings(path=str(tmp_path / "base"))
    model = load(settings, trainable=True)
    adapt(model, Lora(rank=4, alpha=8.0))
    used = learner(model)
    step(used)
    final = tmp_path / "final"
    final.mkdir()
    used.export(final)
    merged = load(replace(settings, path=str(final)))
    assert_close(logits(merged.model), logits(model.model), rtol=0, atol=1e-5)
    again = load_adapter(settings, final / ADAPTER_FOLDER)
    assert_close(logits(again.model), logits(model.model), rtol=0, atol=1e-5)
    for file in final.rglob("*.safetensors"):
        assert file.stat().st_mode & 0o777 == final.stat().st_mode & 0o666, file


def test_targets_inside_fused_experts_are_refused_before_the_first_step() -> None:
    """peft would adapt the experts, whose merged weights have no name in the model."""
    config = Qwen3NextConfig(
        **SIZES,
        moe_intermediate_size=24,
        num_experts=4,
        num_experts_per_tok=2,
        shared_expert_intermediate_size=24,
        layer_types=["full_attention", "full_attention"],
    )
    model = Policy(AutoModelForCausalLM.from_config(config).float(), base_tokenizer())
    with pytest.raises(
        UserError,
        match=r"down_proj, gate_proj, up_proj are parts of the fused experts of qwen3_next.*"
        r"targets: \[k_proj, o_proj, q_proj, v_proj\]",
    ):
        adapt(model, Lora(rank=4))


@pytest.mark.parametrize(
    ("lora", "problem"),
    [
        (Lora(rank=2, alpha=8.0), r"down_proj\.lora_A\.\S* \(192 elements, here 96\)"),
        (
            Lora(rank=4, alpha=8.0, targets=("q_proj",)),
            r"down_proj\.lora_A\.\S* \(\d+ elements, here none\)",
        ),
    ],
)
def test_adapters_that_are_not_the_models_are_not_restored(
    tmp_path: Path, lora: Lora, problem: str
) -> None:
    first = learner(adapted())
    first.save(tmp_path)
    other = policy(seed=1)
    adapt(other, lora)
    second = learner(other)
    with pytest.raises(UserError, match=problem):
        second.restore(tmp_path)
