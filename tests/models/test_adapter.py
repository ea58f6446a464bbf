"""An adapter that peft trained and saved, merged as it is loaded: the same model as peft's own
merging, or a refusal.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from reasontrain import models
from reasontrain.learner.lora import adapt
from reasontrain.learner.weight_export import save_policy
from reasontrain.models import (
    ModelSettings,
    Policy,
    adapter,
    adapter_directory,
    base_of,
    base_settings,
    own_tokenizer,
)
from reasontrain.models.paths import ADAPTER_CONFIG
from reasontrain.models.testbed import TinyShape, build
from reasontrain.plan.shape import shape_of
from reasontrain.types import UserError

SHAPE = TinyShape(
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=2,
    num_key_value_heads=1,
    head_dim=16,
)
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    build(path, SHAPE)
    return path


def trained(base: Path, path: Path, config: LoraConfig | IA3Config) -> Path:
    """An adapter of the model in `base` as peft saves it, its weights far from their start; beside
    it what peft merges it to.
    """
    model = get_peft_model(models.load(ModelSettings(path=str(base))).model, config)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "ia3_" in name:
                parameter.normal_(std=0.3)
    model.save_pretrained(path)
    model.merge_and_unload().save_pretrained(path.with_name(f"{path.name}-merged"))
    models.load(ModelSettings(path=str(base))).save_tokenizer(path.with_name(f"{path.name}-merged"))
    return path


def lora(base: Path, path: Path, *targets: str, **more: object) -> Path:
    return trained(
        base,
        path,
        LoraConfig(r=4, lora_alpha=8, target_modules=list(targets), task_type="CAUSAL_LM", **more),
    )


@torch.no_grad()
def logits(policy: Policy) -> Tensor:
    return policy.model(torch.arange(3, 15)[None], use_cache=False).logits


def settings(base: Path, dtype: models.DType = "float32") -> ModelSettings:
    return ModelSettings(path=str(base), dtype=dtype)


@pytest.mark.parametrize("more", [{}, {"use_rslora": True}, {"use_dora": True}])
def test_it_is_the_model_that_peft_merges(
    base: Path, tmp_path: Path, more: dict[str, object]
) -> None:
    path = lora(base, tmp_path / "a", "q_proj", "down_proj", **more)
    ours = adapter.load(settings(base), path)
    theirs = models.load(settings(tmp_path / "a-merged"))
    assert_close(logits(ours), logits(theirs), rtol=0, atol=1e-5)
    assert (
        logits(ours) - logits(models.load(settings(base)))
    ).abs().max() > 0.1  # it does change the model
    assert not any(p.requires_grad for p in ours.model.parameters())
    assert not ours.model.training


@pytest.mark.parametrize("trainable", [False, True])
def test_a_path_that_names_an_adapter_is_the_merged_model(
    base: Path, tmp_path: Path, trainable: bool
) -> None:
    path = lora(base, tmp_path / "a", "q_proj", "down_proj")
    merged = models.load(settings(tmp_path / "a-merged"))
    whole = ModelSettings(path=str(path), gradient_checkpointing=trainable)
    read = models.load(whole, trainable=trainable, layout="packed")
    assert_close(logits(read), logits(merged), rtol=0, atol=1e-5)
    assert {p.requires_grad for p in read.model.parameters()} == {trainable}
    assert read.model.training == trainable
    assert read.model.is_gradient_checkpointing == trainable
    described = models.describe(whole)
    assert described.num_parameters == read.model.num_parameters()
    assert described.stop_ids == read.stop_ids
    assert models.fingerprint(whole) == models.adapter_fingerprint(settings(base), path)
    assert shape_of(whole, "model") == shape_of(settings(base), "model")


def test_an_adapter_of_an_adapter_adds_to_it(base: Path, tmp_path: Path) -> None:
    """As a run leaves it that trains adapters on a model that is an adapter over its base."""
    first = lora(base, tmp_path / "a", "q_proj")
    model = models.load(settings(first), trainable=True)
    adapt(model, models.Lora(rank=4, targets=("v_proj",)))
    with torch.no_grad():
        for name, parameter in model.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    second = tmp_path / "b"
    second.mkdir()
    save_policy(model, second)
    assert base_of(second) == str(first.absolute())
    assert base_settings(settings(second)).path == str(base)
    assert_close(logits(models.load(settings(second))), logits(model), rtol=0, atol=1e-5)
    before = models.quick_fingerprint(settings(second))
    weights = load_file(first / WEIGHTS)
    save_file({name: tensor + 1 for name, tensor in weights.items()}, first / WEIGHTS)
    assert models.quick_fingerprint(settings(second)) != before


def test_it_is_rounded_once_and_after_merging(base: Path, tmp_path: Path) -> None:
    path = lora(base, tmp_path / "a", "q_proj", "v_proj")
    ours = adapter.load(settings(base, "bfloat16"), path)
    exact = load_file(tmp_path / "a-merged" / "model.safetensors")
    found = ours.model.state_dict()
    assert ours.dtype == torch.bfloat16
    for name, weight in exact.items():
        assert torch.equal(found[name], weight.bfloat16()), name


def test_what_it_belongs_to_and_whose_it_is(base: Path, tmp_path: Path) -> None:
    path = lora(base, tmp_path / "a", "q_proj")
    assert adapter_directory(str(path)) == path
    assert adapter_directory(str(base)) is None
    assert base_of(path) == str(base)
    first = models.adapter_fingerprint(settings(base), path)
    assert first.startswith(models.fingerprint(settings(base)) + " adapter ")
    weights = load_file(path / WEIGHTS)
    name = next(iter(weights))
    save_file(weights | {name: weights[name] + 1}, path / WEIGHTS)
    assert models.adapter_fingerprint(settings(base), path) != first
    assert models.adapter_fingerprint(settings(base, "bfloat16"), path).startswith("bfloat16 ")


def test_its_own_words_win(base: Path, tmp_path: Path) -> None:
    path = lora(base, tmp_path / "a", "q_proj")
    assert own_tokenizer(path) is None
    words = models.load(settings(base)).tokenizer
    words.chat_template = "{{ messages[0]['content'] }}!"
    words.save_pretrained(path)
    assert adapter.load(settings(base), path).tokenizer.chat_template == words.chat_template


def changed(path: Path, **fields: object) -> Path:
    file = path / ADAPTER_CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return path


# peft warns of an adapter on a tied head; that is the adapter which is refused here.
@pytest.mark.filterwarnings("ignore:.*(tie_word_embeddings|save_embedding_layers):UserWarning")
def test_what_cannot_be_merged_is_refused(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "wide"
    build(other, TinyShape(**{**SHAPE.__dict__, "hidden_size": 48}))
    deep = tmp_path / "deep"
    build(deep, TinyShape(**{**SHAPE.__dict__, "num_layers": 3}))
    path = lora(base, tmp_path / "a", "q_proj")
    for wrong, problem in (
        (other, r"2 of another shape \(.*\.0\..*lora_A\.weight \[4, 32\] in place of \[4, 48\]"),
        (deep, r"2 missing \(.*\.2\..*lora_A\.weight, "),
    ):
        with pytest.raises(UserError, match=rf"is that its base model\?\).*{problem}"):
            adapter.load(settings(wrong), path)
    with pytest.raises(UserError, match=r"2 unexpected \(.*\.2\..*lora_A\.weight, "):
        adapter.load(settings(base), lora(deep, tmp_path / "d", "q_proj"))
    kind = IA3Config(
        target_modules=["q_proj", "down_proj"],
        feedforward_modules=["down_proj"],
        task_type="CAUSAL_LM",
    )
    with pytest.raises(
        UserError, match="is an adapter of kind IA3, and only LoRA's are merged here"
    ):
        adapter.load(settings(base), trained(base, tmp_path / "b", kind))
    with pytest.raises(UserError, match=r"changes lm_head, whose weight the model uses twice"):
        adapter.load(settings(base), lora(base, tmp_path / "c", "q_proj", "lm_head"))
    with pytest.raises(UserError, match="does not say which model it adapts"):
        base_of(changed(path, base_model_name_or_path=None))
    (path / WEIGHTS).write_bytes(b"torn")
    with pytest.raises(UserError, match=r"the adapter .* cannot be loaded: Error while deserializ"):
        adapter.load(settings(base), path)
    (path / ADAPTER_CONFIG).write_text("{")
    with pytest.raises(UserError, match=r"adapter_config\.json is no JSON"):
        base_of(path)
