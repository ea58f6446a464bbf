"""What stands at a model's path and is no model is named, with what to do about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reasontrain.models import ModelSettings, check_path, describe
from reasontrain.models.paths import readable, sentence
from reasontrain.models.tokenizers import facts_about
from reasontrain.types import UserError
from tests.tiny import policy, tokenizer


def model(place: Path, *others: str) -> Path:
    """A directory with the names of a model's files, and others."""
    place.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors", *others):
        (place / name).write_text("{}")
    return place


def two_ggufs(place: Path) -> Path:
    place.mkdir()
    for name in ("m-Q4_K_M.gguf", "m-Q8_0.gguf"):
        (place / name).write_bytes(b"GGUF")
    return place


def part_of_gguf(place: Path) -> Path:
    place.mkdir()
    (place / "m-00001-of-00002.gguf").write_bytes(b"GGUF")
    return place


def adapter(place: Path) -> Path:
    place.mkdir()
    (place / "adapter_config.json").write_text("{}")
    return place


def adapter_of(place: Path, base: Path) -> Path:
    content = json.dumps({"base_model_name_or_path": str(base)})
    (adapter(place) / "adapter_config.json").write_text(content)
    return place


def adapter_of_nothing(place: Path) -> Path:
    return adapter_of(place, place / "no" / "such")


def adapter_of_itself(place: Path) -> Path:
    return adapter_of(place, place)


def no_tokenizer(place: Path) -> Path:
    (model(place) / "tokenizer.json").unlink()
    return place


def no_vocabulary(place: Path) -> Path:
    (no_tokenizer(place) / "tokenizer_config.json").write_text("{}")
    return place


def run(place: Path) -> Path:
    model(place / "checkpoints" / "step-3")
    model(place / "final")
    return place


def empty(place: Path) -> Path:
    place.mkdir()
    return place


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (two_ggufs, r"holds 2 GGUF files; name one of them, such as .*/m-Q4_K_M\.gguf$"),
        (part_of_gguf, r"m-00001-of-00002\.gguf is one part of a model in several GGUF files"),
        (lambda place: part_of_gguf(place) / "m-00001-of-00002.gguf", r"is one part of a model"),
        (lambda place: model(place) / "model.safetensors", r"is a file; name the directory"),
        (adapter, "does not say which model it adapts"),
        (adapter_of_nothing, r"no model directory .*/no/such$"),
        (adapter_of_itself, "names the adapter itself as its base model"),
        (lambda place: model(place, "adapter_config.json"), "a whole model and an adapter"),
        (no_tokenizer, r"has no tokenizer; copy tokenizer\.json"),
        (no_vocabulary, r"has no tokenizer; copy tokenizer\.json"),
        (run, r"holds no model \(config\.json\); did you mean .*here/final`\?$"),
        (lambda place: run(place) / "checkpoints", r"did you mean .*checkpoints/step-3`\?$"),
        (empty, r"holds no model \(config\.json\)$"),
        (
            lambda place: model(place).with_name("her"),
            r"no model directory .*did you mean `here`\?",
        ),
        (lambda place: place / "no" / "such", "there is no model directory .*/no/such$"),
    ],
)
def test_what_is_no_model_is_named(
    tmp_path: Path, make: Callable[[Path], Path], problem: str
) -> None:
    path = str(make(tmp_path / "here"))
    with pytest.raises(UserError, match=problem):
        describe(ModelSettings(path=path))


@pytest.mark.parametrize("name", ["model", "owner/model", "testbed:teacher", "untrained:student"])
def test_what_may_be_a_model_of_the_hub_passes(name: str) -> None:
    check_path(name)


@pytest.mark.parametrize("files", [["tokenizer.json"], ["vocab.json"], ["tokenizer.model"]])
def test_a_model_directory_passes(tmp_path: Path, files: list[str]) -> None:
    (model(tmp_path, *files) / "tokenizer.json").unlink(missing_ok="tokenizer.json" not in files)
    (tmp_path / files[0]).write_text("{}")
    check_path(str(tmp_path))


@pytest.mark.parametrize(
    "error", [KeyError("q"), AssertionError(), RuntimeError("a\n\n b\nc"), TypeError("t")]
)
def test_an_error_of_a_library_is_one_sentence(error: Exception) -> None:
    with pytest.raises(UserError, match=r"^the model m cannot be loaded: [^\n]+$"), readable("m"):
        raise error
    assert sentence(RuntimeError("a\n\n b\nc")) == "a b"


def test_what_the_hub_does_not_give_is_said_to_be_no_directory_too() -> None:
    problem = "m/n cannot be loaded: it is no directory on this machine"
    with pytest.raises(UserError, match=problem), readable("m/n"):
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files.")


def test_a_configuration_that_no_model_has_is_one_sentence(tmp_path: Path) -> None:
    tiny = policy("llama")
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    whole = json.loads(config.read_text())
    for change in (
        {"num_attention_heads": "four"},
        {"pad_token_id": 10**6},
        {"model_type": "nothing_of_this_name"},
        {"hidden_act": "wish"},
    ):
        config.write_text(json.dumps(whole | change))
        with pytest.raises(UserError, match=rf"^the model {tmp_path} cannot be loaded: [^\n]+$"):
            describe(ModelSettings(path=str(tmp_path)))


def test_a_tokenizer_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    tiny = policy("qwen3")
    tiny.model.config.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    (tmp_path / "vocab.txt").touch()  # a file of another class of tokenizers
    with pytest.raises(UserError, match=r"the tokenizer of .* encodes .* as (nothing|unknown)"):
        describe(ModelSettings(path=str(tmp_path)))


def test_what_a_tokenizer_lacks_is_said() -> None:
    whole = tokenizer()
    assert facts_about(whole, chat=True, samples=True) == []
    bare = tokenizer.__wrapped__()
    bare.pad_token = None
    bare.eos_token = None
    bare.chat_template = None
    facts = facts_about(bare, chat=True, samples=True)
    assert [fact.split(";")[0] for fact in facts] == [
        "the tokenizer has no pad token",
        "the tokenizer has no end-of-text token",
        "the tokenizer has no chat template",
    ]
    assert len(facts_about(bare, chat=False, samples=False)) == 1
