"""A GGUF file is a model like any other: it is converted once, and the rest of a run reads that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from reasontrain import models
from reasontrain.models import ModelSettings, Policy, describe, load, quiet
from reasontrain.models import gguf as conversion
from reasontrain.models.paths import conversions_in, converted_folder, gguf_file, located
from reasontrain.plan.shape import shape_of
from reasontrain.types import UserError
from tests.tiny import policy

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed (extra `dev`)")

VOCABULARY = 320
END = 257
"""The first id that is no text: an end of text, as are the ids that follow."""


@pytest.fixture(scope="module")
def model() -> Policy:
    return policy("qwen2", vocab_size=VOCABULARY)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "_logged", set())
    monkeypatch.setenv("REASONTRAIN_CONVERTED", str(tmp_path / "converted"))


def write(policy: Policy, file: Path, *, kind: str = "F32") -> Path:
    """A file with this model, and a tokenizer of single bytes.

    Its matrices have the dtype `kind`; vectors are float32, as in every such file.
    """
    config = policy.model.config
    arch = gguf.MODEL_ARCH.QWEN2
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    readable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in readable]
    tokens = [chr(byte) for byte in readable] + [chr(256 + n) for n in range(len(others))]
    tokens += ["ab", "<|endoftext|>", *(f"<|{n}|>" for n in range(VOCABULARY - END - 1))]
    writer.add_token_list(tokens)
    writer.add_token_types([1] * END + [3] * (VOCABULARY - END))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(END)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    kinds = gguf.GGMLQuantizationType
    for name, weight in policy.model.state_dict().items():
        array = weight.float().numpy()
        to = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if array.ndim == 1:
            writer.add_tensor(to, array)
        else:
            # Blocks hold 32 values; other widths stay float16, as llama.cpp writes them.
            dtype = kinds[kind] if array.shape[1] % 32 == 0 else min(kinds[kind], kinds.F16)
            writer.add_tensor(to, gguf.quants.quantize(array, dtype), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@torch.no_grad()
def logits(policy: Policy) -> torch.Tensor:
    return policy.model(torch.arange(3, 15)[None], use_cache=False).logits


def test_it_is_the_model_in_the_file_and_converted_once(
    model: Policy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(model, tmp_path / "tiny.gguf")
    settings = ModelSettings(path=str(file))
    described = describe(settings)
    assert described.num_parameters == model.model.num_parameters()
    assert END in described.stop_ids
    read = load(settings, trainable=True, layout="packed")
    assert_close(logits(read), logits(model), rtol=0, atol=1e-5)
    assert all(parameter.requires_grad for parameter in read.model.parameters())
    text = "12 + 30 = ?"
    assert read.tokenizer.decode(read.tokenizer(text)["input_ids"]) == text
    (directory,) = (tmp_path / "converted").iterdir()
    assert directory.stat().st_mode & 0o777 == 0o777 & ~conversion._umask()
    lines = [record.getMessage() for record in caplog.records if "reasontrain" in record.name]
    assert [line.removeprefix(f"{file}: ").split(" ")[0] for line in lines] == [
        "converting",
        "converted",
        "read",
    ]
    assert lines[-1].endswith(f"read from {directory}")
    # A file of the same name with other weights is another model.
    before = models.quick_fingerprint(settings)
    write(policy("qwen2", vocab_size=VOCABULARY, seed=1), file)
    assert models.quick_fingerprint(settings) != before
    assert len(list((tmp_path / "converted").iterdir())) == 2


@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [
        ("F32", torch.float32, 1e-6),
        ("F16", torch.float16, 1e-3),
        ("BF16", torch.bfloat16, 5e-3),
        ("Q8_0", torch.bfloat16, 5e-3),
    ],
)
def test_the_dtype_of_the_file_is_kept_and_blocks_become_bfloat16(
    model: Policy, tmp_path: Path, kind: str, dtype: torch.dtype, tolerance: float
) -> None:
    file = write(model, tmp_path / "tiny.gguf", kind=kind)
    with located(str(file)) as path:
        read = load(ModelSettings(path=path))
        assert models.describe(ModelSettings(path=path)).config.dtype == dtype
    for name, weight in model.model.state_dict().items():
        assert_close(read.model.state_dict()[name], weight, rtol=tolerance, atol=tolerance)


def test_a_directory_with_one_file_is_that_model(model: Policy, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    file = write(model, tmp_path / "here" / "tiny.gguf")
    assert gguf_file(str(tmp_path / "here")) == file
    assert describe(ModelSettings(path=str(tmp_path / "here"))).context == 256
    shape = shape_of(ModelSettings(path=str(file)), "model")
    assert (shape.hidden_size, shape.num_layers, shape.tied) == (32, 2, False)


def test_a_plan_converts_nothing(model: Policy, tmp_path: Path) -> None:
    shape_of(ModelSettings(path=str(write(model, tmp_path / "tiny.gguf"))), "model")
    assert not (tmp_path / "converted").exists()


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "torn.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"^the model .*torn\.gguf cannot be loaded: [^\n]+$"):
        describe(ModelSettings(path=str(tmp_path / "torn.gguf")))
    assert list((tmp_path / "converted").iterdir()) == []


def test_without_the_package_one_sentence_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(conversion, "find_spec", lambda name: None)
    problem = r"m\.gguf is a GGUF file, and the package gguf is not installed: pip install"
    for reads in (describe, lambda settings: shape_of(settings, "model")):
        with pytest.raises(UserError, match=problem):
            reads(ModelSettings(path=str(tmp_path / "m.gguf")))


def test_conversions_lie_beside_the_run_unless_the_user_names_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with conversions_in(tmp_path / "runs"):
        assert converted_folder() == tmp_path / "converted"
    monkeypatch.delenv("REASONTRAIN_CONVERTED")
    with conversions_in(tmp_path / "runs"):
        assert converted_folder() == tmp_path / "runs" / "converted"
    assert "REASONTRAIN_CONVERTED" not in os.environ
    assert converted_folder() == Path("out/converted")
