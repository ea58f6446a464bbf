"""Models are loaded as trunk and head, or refused with a sentence."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    LlavaConfig,
    MambaConfig,
    MixtralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from reasontrain.models import (
    ModelSettings,
    Policy,
    check_head,
    check_same_ids,
    context_of,
    describe,
    load,
)
from reasontrain.models.loading import no_dropout
from reasontrain.types import UserError
from tests.tiny import ARCHITECTURES, SIZES, policy, tokenizer

SCALED: dict[str, PreTrainedConfig] = {
    "cohere": CohereConfig(**SIZES, logit_scale=0.25),
    "granite": GraniteConfig(**SIZES, logits_scaling=8.0),
}


@pytest.fixture
def saved(tmp_path: Path) -> str:
    model = policy("llama")
    model.model.config.attention_dropout = 0.5
    model.model.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_head_gives_the_logits_of_the_architecture(architecture: str) -> None:
    model = policy(architecture)
    check_head(model)
    assert (model.head.softcap is not None) == (architecture == "gemma2")


@pytest.mark.parametrize("architecture", SCALED)
def test_scaled_logits_are_known(architecture: str) -> None:
    model = Policy(AutoModelForCausalLM.from_config(SCALED[architecture]).float(), tokenizer())
    check_head(model)
    assert model.head.scale == {"cohere": 0.25, "granite": 0.125}[architecture]


def test_a_head_that_is_not_the_architectures_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Policy(AutoModelForCausalLM.from_config(SCALED["granite"]).float(), tokenizer())
    with torch.no_grad():
        model.model.lm_head.weight.mul_(100)
    model.model.config.logits_scaling = (
        4.0  # what the forward pass divides by was fixed when the model was made
    )
    monkeypatch.setattr(
        type(model.model),
        "forward",
        lambda self, input_ids, **_: type("O", (), {"logits": torch.ones(1, 4, 512)}),
    )
    with pytest.raises(
        UserError, match="granite computes its logits in a way that reasontrain does not support"
    ):
        check_head(model)


@pytest.mark.parametrize("written", [True, False])
def test_a_description_knows_the_model_without_its_weights(saved: str, written: bool) -> None:
    generation = Path(saved, "generation_config.json")
    generation.write_text(json.dumps({"eos_token_id": [7, 9]}))
    if not written:
        generation.unlink()
    described, loaded = describe(ModelSettings(path=saved)), load(ModelSettings(path=saved))
    assert described.stop_ids == loaded.stop_ids
    assert ({7, 9} <= described.stop_ids) == written
    assert (described.context, described.num_parameters) == (
        loaded.context,
        loaded.model.num_parameters(),
    )


def test_dropout_is_off_and_a_trained_model_keeps_float32(saved: str) -> None:
    trained, frozen = (
        load(ModelSettings(path=saved, dtype="bfloat16"), trainable=True),
        load(ModelSettings(path=saved, dtype="bfloat16")),
    )
    assert trained.model.config.attention_dropout == 0.0
    assert (trained.model.dtype, frozen.model.dtype) == (torch.float32, torch.bfloat16)
    assert trained.hidden(torch.tensor([[5, 6]])).dtype == torch.bfloat16
    assert (trained.head.weight_VD.dtype, trained.head.matmul_weight_VD.dtype) == (
        torch.float32,
        torch.bfloat16,
    )
    assert all(p.requires_grad for p in trained.model.parameters())
    assert not any(p.requires_grad for p in frozen.model.parameters())


def test_checkpointing_is_for_the_model_that_is_trained(saved: str) -> None:
    settings = ModelSettings(path=saved, gradient_checkpointing=True)

    def layers_that_recompute(policy: Policy) -> int:
        return sum(getattr(m, "gradient_checkpointing", False) for m in policy.model.modules())

    assert layers_that_recompute(load(settings, trainable=True)) > 0
    assert layers_that_recompute(load(settings)) == 0


def test_tokens_without_an_embedding_are_a_line_in_the_log(
    saved: str, caplog: pytest.LogCaptureFixture
) -> None:
    describe(ModelSettings(path=saved))
    assert caplog.messages == []
    wide = tokenizer.__wrapped__()
    wide.add_tokens(["<more>"])
    wide.save_pretrained(saved)
    describe(ModelSettings(path=saved))
    assert caplog.messages == [
        f"{saved}: the tokenizer has tokens without an embedding (1, such as '<more>'); "
        "text with them cannot be used"
    ]


def test_the_context_is_read_under_its_usual_names() -> None:
    assert context_of(GPT2Config(n_positions=77)) == 77
    assert context_of(LlamaConfig(max_position_embeddings=78)) == 78
    assert context_of(LlavaConfig(text_config=LlamaConfig(max_position_embeddings=79))) == 79
    assert context_of(MambaConfig()) == sys.maxsize


def test_longrope_ends_where_it_changes_for_a_whole_batch() -> None:
    factors = [1.0] * 4
    rope = {"rope_type": "longrope", "short_factor": factors, "long_factor": factors}
    config = Phi3Config(
        **SIZES,
        pad_token_id=0,
        original_max_position_embeddings=64,
        rope_parameters=rope
        | {"rope_theta": 1e4, "original_max_position_embeddings": 64, "factor": 4.0},
    )
    assert context_of(config) == 64  # and not 256


def test_dropout_and_router_noise_are_off_in_nested_configurations_too() -> None:
    config = LlavaConfig(text_config=MixtralConfig(attention_dropout=0.1, router_jitter_noise=0.2))
    no_dropout(config)
    assert config.text_config.attention_dropout == config.text_config.router_jitter_noise == 0


@pytest.mark.parametrize("path", ["/nowhere/at/all", "untrained:nobody", "testbed:nobody"])
def test_what_is_no_model_is_named(path: str) -> None:
    with pytest.raises(UserError, match=path):
        load(ModelSettings(path=path))


def test_a_directory_without_weights_is_no_model(saved: str) -> None:
    (Path(saved) / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"the model .* cannot be loaded"):
        load(ModelSettings(path=saved))


def test_other_ids_are_refused_and_padding_rows_are_not() -> None:
    wide = policy("llama", vocab_size=640)
    check_same_ids(policy(), wide, "teacher")
    content = json.loads(tokenizer().backend_tokenizer.to_str())
    ids = content["model"]["vocab"]
    first, second = sorted(ids, key=ids.get)[300:302]
    ids[first], ids[second] = ids[second], ids[first]
    swapped = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)))
    with pytest.raises(
        UserError,
        match=r"the reference and the model must share one vocabulary, "
        r"but id 300 is .* in the reference and",
    ):
        check_same_ids(policy(), Policy(wide.model, swapped), "reference")
