"""A model's files hold its weights: all of them, in its shapes, finite, and no others."""

from __future__ import annotations

import ast
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    MixtralConfig,
    PreTrainedConfig,
)

from reasontrain.models import ModelSettings, Policy, load, quiet
from reasontrain.models.quiet import messages_of_libraries, quiet_libraries
from reasontrain.models.weights import check_finite, check_not_quantised
from reasontrain.types import UserError
from tests.test_architecture import sources
from tests.tiny import SIZES, policy, tokenizer

WEIGHTS = "model.safetensors"
O_PROJ = "model.layers.1.self_attn.o_proj.weight"
Edit = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def without(*parts: str) -> Edit:
    return lambda state: {
        name: tensor for name, tensor in state.items() if not any(part in name for part in parts)
    }


def saved(model: Policy, directory: Path, edit: Edit = dict, shards: int = 1) -> str:
    """The model's directory with changed weights, in one file or in some with an index."""
    model.model.save_pretrained(directory)
    model.tokenizer.save_pretrained(directory)
    state = edit(load_file(directory / WEIGHTS))
    (directory / WEIGHTS).unlink()
    names = sorted(state)
    files = {name: f"part-{index % shards}.safetensors" for index, name in enumerate(names)}
    for file in set(files.values()):
        part = {name: state[name] for name in names if files[name] == file}
        save_file(part, directory / (file if shards > 1 else WEIGHTS), metadata={"format": "pt"})
    if shards > 1:
        index = json.dumps({"metadata": {}, "weight_map": files})
        (directory / f"{WEIGHTS}.index.json").write_text(index)
    return str(directory)


def loaded(path: str) -> Policy:
    return load(ModelSettings(path=path))


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (without("lm_head"), r"1 missing \(lm_head\.weight\)"),
        (without(O_PROJ), rf"1 missing \({O_PROJ}\)"),
        (without("layers.1"), r"9 missing \(model\.layers\.1\.input.*\.weight and 5 more\)"),
        (lambda state: state | {"score.weight": torch.ones(2)}, r"1 unexpected \(score\.weight\)"),
        (
            lambda state: state | {O_PROJ: torch.ones(4, 32)},
            rf"1 of another shape \({O_PROJ} \[4, 32\] in place of \[32, 32\]\)",
        ),
        (
            lambda state: {f"own.{name}": tensor for name, tensor in state.items()},
            r"\d+ missing \(lm_head.*\); \d+ unexpected \(own\.lm_head",
        ),
    ],
)
def test_keys_that_do_not_agree_are_named(
    tmp_path: Path, edit: Edit, problem: str, shards: int
) -> None:
    path = saved(policy("llama"), tmp_path, edit, shards)
    with pytest.raises(UserError, match=f"the weights in the files of {path} .*{problem}"):
        loaded(path)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_tied_head_is_not_missing(tmp_path: Path, shards: int) -> None:
    model = policy("llama", tied=True)
    path = saved(model, tmp_path, shards=shards)
    again = loaded(path)
    assert again.head.weight_VD is again.model.get_input_embeddings().weight
    assert torch.equal(again.head.weight_VD, model.head.weight_VD)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_copy_of_a_tied_head_is_tied(tmp_path: Path, shards: int) -> None:
    """As tools write it that save every name of a weight."""

    def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return state | {"lm_head.weight": state["model.embed_tokens.weight"].clone()}

    again = loaded(saved(policy("llama", tied=True), tmp_path, copied, shards))
    assert again.head.weight_VD is again.model.get_input_embeddings().weight


def test_a_head_that_is_tied_and_differs_is_refused(tmp_path: Path) -> None:
    path = saved(policy("llama"), tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": True}))
    with pytest.raises(UserError, match=r"ties its head .* two different matrices"):
        loaded(path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    path = saved(policy("llama"), tmp_path, shards=3)
    (tmp_path / "part-1.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot be loaded: .*part-1\.safetensors"):
        loaded(path)


EXPERTS: dict[str, PreTrainedConfig] = {
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4),
    "deepseek_v3": DeepseekV3Config(
        **SIZES | {"num_key_value_heads": 4, "head_dim": 8},
        moe_intermediate_size=24,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
    ),
}


@pytest.mark.parametrize("architecture", EXPERTS)
def test_an_expert_that_transformers_joins_with_others_is_missed(
    tmp_path: Path, architecture: str
) -> None:
    model = Policy(AutoModelForCausalLM.from_config(EXPERTS[architecture]).float(), tokenizer())
    path = saved(
        model, tmp_path, without("layers.1.mlp.experts.3.", "layers.1.block_sparse_moe.experts.3.")
    )
    with pytest.raises(UserError, match=r"of another shape \(model\.layers\.1\.mlp\.experts\."):
        loaded(path)


def test_what_transformers_declares_ignorable_is_ignored(tmp_path: Path) -> None:
    """DeepSeek-V3 predicts further tokens by a layer that transformers does not have."""
    model = Policy(AutoModelForCausalLM.from_config(EXPERTS["deepseek_v3"]).float(), tokenizer())
    further = {"model.layers.61.embed_tokens.weight": torch.ones(2, 2)}
    loaded(saved(model, tmp_path, lambda state: state | further))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("key", [O_PROJ, "model.embed_tokens.weight"])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, key: str, value: float) -> None:
    def poison(state: dict[str, Tensor]) -> dict[str, Tensor]:
        state[key][-1, -1] = value  # a token that no check of the model feeds
        return state

    path = saved(policy("llama"), tmp_path, poison)
    with pytest.raises(UserError, match=f"weights of {path} are not finite; .* is in {key}$"):
        loaded(path)


def test_large_finite_weights_pass() -> None:
    model = policy("llama").model
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.finfo(torch.float32).max)  # their sum is not finite
    check_finite(model, "a model")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(dtype: torch.dtype) -> None:
    model = policy("llama").model
    projection = model.model.layers[1].self_attn.o_proj
    projection.weight = torch.nn.Parameter(projection.weight.to(dtype), requires_grad=False)
    with pytest.raises(UserError, match=rf"the weights of m are quantised \({O_PROJ}\)"):
        check_not_quantised(model, "m")


def test_models_are_loaded_with_a_report_only() -> None:
    """Only configurations, tokenizers and processors are read without comparing keys."""
    harmless = {"Config", "Tokenizer", "Processor"}
    calls = [
        (path, ast.unparse(node.func))
        for path, text in sources().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "from_pretrained"
    ]
    assert len(calls) > 5
    assert [call for call in calls if not any(part in call[1] for part in harmless)] == []


# ---- what libraries say


def say_something() -> None:
    logging.getLogger("transformers.modeling_utils").warning("a\n  b")
    warnings.warn("c", stacklevel=1)


def test_messages_of_libraries_are_collected_and_the_loggers_put_back() -> None:
    root = logging.getLogger("transformers")
    before = (list(root.handlers), root.level)
    with messages_of_libraries() as messages:
        say_something()
    assert messages == ["a\n  b", "c"]
    assert (root.handlers, root.level) == before


def test_a_warning_at_load_is_one_line_and_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(policy("llama"), tmp_path)
    plain = AutoModelForCausalLM.from_pretrained

    def warns(*args: object, **options: object) -> object:
        say_something()
        return plain(*args, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", warns)
    for _ in range(2):
        loaded(path)
    lines = [record.getMessage() for record in caplog.records if path in record.getMessage()]
    assert lines == [f"{path}: a b", f"{path}: c"]


@pytest.mark.parametrize("propagate", [False, True], ids=["as usual", "where CI is set"])
def test_warnings_after_loading_are_lines_too(
    propagate: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger("transformers")
    before = (root.handlers, root.level, root.propagate)
    monkeypatch.setattr(quiet, "_logged", set())
    try:
        root.propagate = propagate
        with messages_of_libraries():
            logging.getLogger("transformers.tokenization").warning("while loading")
        quiet_libraries()
        for _ in range(2):
            logging.getLogger("transformers.tokenization").warning("too\nlong, says a test")
        logging.getLogger("transformers.tokenization").info("advice")
    finally:
        root.handlers, root.propagate = before[0], before[2]
        root.setLevel(before[1])
    assert [record.getMessage() for record in caplog.records] == [
        "transformers: too long, says a test"
    ]
