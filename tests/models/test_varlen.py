"""Attention by the lengths of packed sequences: numbers of each sequence alone, no S x S tensor.

Its kernel runs on a GPU only; here its shapes are counted on the meta device, and SDPA on one
sequence after the other takes its place.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    DeepseekV3Config,
    Gemma3TextConfig,
    GptOssConfig,
    Lfm2Config,
    Llama4TextConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from reasontrain.data.micro_batches import Layout, build_micro_batch
from reasontrain.models import ModelSettings, Policy, load, recompute_activations
from reasontrain.models import varlen as varlen_module
from reasontrain.models.attention_choice import choose_attention
from reasontrain.models.layouts import relative_difference
from reasontrain.models.varlen import VARLEN, length_arguments, packed_attention, register_varlen
from reasontrain.types import UserError
from tests.peak_bytes import PeakBytes
from tests.tiny import SIZES, VOCABULARY, batch, policy, tokenizer

LENGTHS = (9, 1, 14, 6)
WINDOW = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
EXACT: dict[str, PreTrainedConfig] = {
    "qwen3": Qwen3Config(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=4),
    "gemma3": Gemma3TextConfig(**SIZES, **WINDOW),
    "mixture": Qwen3MoeConfig(
        **SIZES, moe_intermediate_size=24, num_experts=4, num_experts_per_tok=2
    ),
    "latent": DeepseekV3Config(
        **SIZES | {"num_key_value_heads": 4},
        kv_lora_rank=16,
        q_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=12,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=2,
    ),
}
"""Models whose packed rows attend by lengths; one window is shorter than most sequences."""
NOT_EXACT: dict[str, tuple[PreTrainedConfig, str]] = {
    "sinks": (
        GptOssConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
        "its attention is eager",
    ),
    "convolution": (
        Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]),
        "it has layers of type conv",
    ),
    "chunks": (
        Llama4TextConfig(
            **SIZES,
            intermediate_size_mlp=48,
            num_local_experts=2,
            attention_chunk_size=4,
            layer_types=["chunked_attention", "full_attention"],
        ),
        "it has layers of type chunked_attention",
    ),
    "position bias": (
        BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
        "its attention is eager",
    ),
}


def random(config: PreTrainedConfig) -> Policy:
    """A random model with transformers' default attention."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return Policy(model.eval(), tokenizer())


def row(lengths: tuple[int, ...] = LENGTHS) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Ids and positions of one packed row, and where its sequences begin."""
    draw = torch.Generator().manual_seed(3)
    bounds = [0]
    for length in lengths:
        bounds.append(bounds[-1] + length)
    ids_1L = torch.randint(3, VOCABULARY, (1, bounds[-1]), generator=draw)
    position_1L = torch.cat([torch.arange(length) for length in lengths])[None]
    return ids_1L, position_1L, tuple(bounds)


def tensors(*shape: int, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=draw) for _ in range(3)]


class Watch(TorchDispatchMode):
    """The largest tensor that any operation returned, and the number of boolean numbers in all."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self.booleans = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        result = function(*args, **kwargs or {})
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                self.most = max(self.most, each.numel())
                self.booleans += each.numel() if each.dtype == torch.bool else 0
        return result


# ---- the numbers


@pytest.mark.parametrize("window", [None, 1, 3, 40])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)])
def test_it_is_softmax_over_the_own_sequence(
    window: int | None, heads: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(varlen_module, "QUERY_BLOCK", 4)  # a sequence of 14 has four blocks
    num_heads, num_kv_heads = heads
    length = sum(LENGTHS)
    query, key, value = (
        each[:, : num_heads if index == 0 else num_kv_heads].requires_grad_()
        for index, each in enumerate(tensors(1, 4, length, 8))
    )
    sequence_L = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
    place_L = torch.arange(length)
    seen_LL = (sequence_L[:, None] == sequence_L) & (place_L <= place_L[:, None])
    if window is not None:
        seen_LL &= place_L > place_L[:, None] - window
    groups = num_heads // num_kv_heads
    score = query @ key.repeat_interleave(groups, 1).transpose(2, 3) * 0.3
    expected = score.masked_fill(~seen_LL, -torch.inf).softmax(-1) @ value.repeat_interleave(
        groups, 1
    )
    output = packed_attention(
        query,
        key,
        value,
        cu_seq_lens=torch.tensor(row()[2]),
        lengths=LENGTHS,
        scaling=0.3,
        window=window,
    )
    assert_close(output, expected.transpose(1, 2), rtol=1e-6, atol=1e-6)
    draw = torch.randn(output.shape, generator=torch.Generator().manual_seed(9))
    for computed, exact in zip(
        torch.autograd.grad((output * draw).sum(), (query, key, value)),
        torch.autograd.grad((expected.transpose(1, 2) * draw).sum(), (query, key, value)),
        strict=True,
    ):
        assert_close(computed, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", EXACT)
def test_packed_hidden_states_and_gradients_are_those_of_each_sequence_alone(name: str) -> None:
    model = random(EXACT[name])
    assert choose_attention(model, "auto", "packed") is None
    assert model.model.config._attn_implementation == VARLEN
    ids_1L, position_1L, bounds = row()
    together_LD = model.hidden(ids_1L, position=position_1L, cu_seq_lens=bounds)[0]
    model.model.set_attn_implementation("sdpa")
    alone_LD = torch.cat([model.hidden(ids_1L[:, a:b])[0] for a, b in pairwise(bounds)])
    assert relative_difference(together_LD.detach(), alone_LD.detach()) < 2e-6
    draw = torch.randn(alone_LD.shape, generator=torch.Generator().manual_seed(9))
    weights = [weight for weight in model.model.parameters() if weight.requires_grad]
    for computed, exact in zip(
        torch.autograd.grad((together_LD * draw).sum(), weights, allow_unused=True),
        torch.autograd.grad((alone_LD * draw).sum(), weights, allow_unused=True),
        strict=True,
    ):
        assert (computed is None) == (exact is None)
        if exact is not None:
            assert float((computed - exact).norm()) <= 1e-5 * float(exact.norm()) + 1e-9


def test_rows_without_lengths_are_those_of_sdpa_bit_by_bit() -> None:
    """Padded on either side, decoded with a cache, or shown other columns: as a sampler does."""
    left = torch.ones(2, 7, dtype=torch.long)
    left[1, :3] = 0
    ids = torch.arange(14).view(2, 7)
    hidden = []
    for attention in ("sdpa", VARLEN):
        model = policy("mistral", attention=attention)
        with torch.no_grad():
            hidden.append((model.hidden(ids), model.hidden(ids, mask=left)))
    for one, other in zip(*hidden, strict=True):
        assert torch.equal(one, other)


def test_bfloat16_by_autocast_as_sdpa_has_it() -> None:
    ids_1L, position_1L, bounds = row()
    hidden = []
    for attention in ("sdpa", VARLEN):
        model = policy(attention=attention)
        model.dtype = torch.bfloat16
        with torch.no_grad():
            hidden.append(model.hidden(ids_1L, position=position_1L, cu_seq_lens=bounds)[0])
    assert hidden[1].dtype == torch.bfloat16
    assert_close(hidden[1], hidden[0], rtol=0.02, atol=0.02)


# ---- lengths


def test_lengths_are_where_the_rollouts_of_a_micro_batch_begin() -> None:
    data = batch()
    packed = build_micro_batch(data, [4, 1, 2], "packed")
    assert packed.cu_seq_lens == (*packed.start_K.tolist(), int(data.length_B[[4, 1, 2]].sum()))
    assert build_micro_batch(data, [], "packed").cu_seq_lens == (0, 1)
    assert build_micro_batch(data, [3], "padded").cu_seq_lens == (0, int(data.length_B[3]))
    assert build_micro_batch(data, [4, 1], "padded").cu_seq_lens is None


def test_a_packed_row_without_lengths_is_an_error() -> None:
    ids_1L, position_1L, _ = row()
    with pytest.raises(ValueError, match="packed rows need their lengths"):
        policy(attention=VARLEN).hidden(ids_1L, position=position_1L)


def test_flash_attention_gets_lengths_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """No such kernel runs here: a function in its place records what it is called with."""
    model = policy()
    calls: list[dict[str, Any]] = []
    plain = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def flash(module: Any, query: Tensor, *rest: Any, **options: Any) -> Any:
        calls.append(options)
        return plain(module, query, *rest)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flash_attention_2", flash)
    monkeypatch.setattr(model.model.config, "_attn_implementation_internal", "flash_attention_2")
    ids_1L, position_1L, bounds = row()
    model.hidden(ids_1L, position=position_1L, cu_seq_lens=bounds)
    assert len(calls) == 2
    for call in calls:
        assert call["cu_seq_lens_q"].tolist() == call["cu_seq_lens_k"].tolist() == list(bounds)
        assert call["cu_seq_lens_q"].dtype == torch.int32
        assert call["max_length_q"] == call["max_length_k"] == max(LENGTHS)


# ---- which models


@pytest.mark.parametrize("name", NOT_EXACT)
def test_other_attention_keeps_its_masks_and_one_sentence_says_so(name: str) -> None:
    config, reason = NOT_EXACT[name]
    model = random(config)
    before = model.model.config._attn_implementation
    sentence = choose_attention(model, "auto", "packed")
    assert sentence is not None
    assert reason in sentence
    assert model.model.config._attn_implementation == before
    with pytest.raises(UserError, match=r"model.attention is varlen, and .*use `attention: auto`"):
        choose_attention(model, "varlen", None)
    assert model.model.config._attn_implementation == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"softcap": 30.0}, "it changes its attention scores by softcap"),
        ({"s_aux": torch.ones(4)}, "it changes its attention scores by s_aux"),
        ({"position_bias": torch.zeros(1, 4, 1, 1)}, "changes its attention scores by position_b"),
        ({"is_causal": False}, "its attention is not causal"),
        ({"scaling": None}, None),
    ],
)
def test_a_changed_attention_is_found_by_trying(
    change: dict[str, Any], reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = policy()
    function = ALL_ATTENTION_FUNCTIONS[VARLEN]
    monkeypatch.setitem(
        ALL_ATTENTION_FUNCTIONS,
        VARLEN,
        lambda *tensors, **options: function(*tensors, **options | change),
    )
    sentence = choose_attention(model, "auto", "packed")
    if reason is None:
        assert sentence is None
    else:
        assert sentence is not None
        assert reason in sentence
        assert model.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("in_mask", "in_attention"), [(64, None), (None, 64), (64, 32)])
def test_a_window_that_mask_and_attention_do_not_share_is_found(
    in_mask: int | None, in_attention: int | None
) -> None:
    """Windows longer than what is tried: only comparing the settings can find them."""
    kind = "full_attention" if in_mask is None else "sliding_attention"
    model = random(
        Qwen3Config(
            **SIZES, use_sliding_window=True, sliding_window=in_mask, layer_types=[kind] * 2
        )
    )
    assert choose_attention(model, "auto", "packed") is None
    for layer in model.model.model.layers:
        layer.self_attn.sliding_window = in_attention
    sentence = choose_attention(model, "auto", "packed")
    assert sentence is not None
    assert "do not hand their windows to attention" in sentence


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("name", NOT_EXACT)
def test_ranks_share_no_sequence_whose_masks_would_be_dropped(name: str, layout: Layout) -> None:
    config, reason = NOT_EXACT[name]
    with pytest.raises(
        UserError, match=rf"sequence_parallel is 2, .*: {reason}; use `sequence_parallel: 1`"
    ):
        choose_attention(random(config), "auto", layout, sequence_parallel=2)


@pytest.mark.parametrize(
    ("heads", "key_heads", "size", "reason"),
    [
        (4, 2, 2, None),
        (4, 2, 4, None),  # two ranks get the same key-value head
        (4, 1, 2, None),
        (4, 2, 3, "its 4 attention heads do not divide over 3 ranks"),
        (6, 3, 2, "its 3 key-value heads neither divide over 2 ranks nor divide it"),
    ],
)
def test_heads_that_do_not_divide_over_the_ranks_are_refused(
    heads: int, key_heads: int, size: int, reason: str | None
) -> None:
    sizes = SIZES | {"num_attention_heads": heads, "num_key_value_heads": key_heads}
    model = random(Qwen3Config(**sizes))
    if reason is None:
        assert choose_attention(model, "auto", "padded", sequence_parallel=size) is None
        assert model.model.config._attn_implementation == VARLEN
    else:
        with pytest.raises(UserError, match=f"sequences of qwen3: {reason}; use"):
            choose_attention(model, "auto", "padded", sequence_parallel=size)


def test_a_loaded_model_chooses_by_its_layout(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = policy()
    model.model.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    settings = {"path": str(tmp_path), "device": "cpu"}
    chosen = {
        (attention, layout): load(
            ModelSettings(**settings, attention=attention), layout=layout
        ).model.config._attn_implementation
        for attention in ("auto", "sdpa", "varlen")
        for layout in ("padded", "packed", None)
    }
    assert chosen == {
        ("auto", "padded"): "sdpa",
        ("auto", "packed"): VARLEN,
        ("auto", None): "sdpa",
        ("sdpa", "padded"): "sdpa",
        ("sdpa", "packed"): "sdpa",
        ("sdpa", None): "sdpa",
        ("varlen", "padded"): VARLEN,
        ("varlen", "packed"): VARLEN,
        ("varlen", None): VARLEN,
    }
    assert "L x L" not in caplog.text
    # what is exported is as any other model: the name is ours, and other programs do not know it
    load(ModelSettings(**settings), layout="packed").model.save_pretrained(tmp_path / "again")
    assert VARLEN not in (tmp_path / "again" / "config.json").read_text()


# ---- what it costs


def test_no_tensor_has_the_square_of_the_tokens() -> None:
    """2,000 tokens in two sequences: a mask would have 4,000,000 numbers."""
    model = policy(attention=VARLEN)
    model.model.config.max_position_embeddings = 2000
    ids_1L, position_1L, bounds = row((1200, 800))
    with Watch() as watch, torch.enable_grad():
        model.hidden(ids_1L, position=position_1L, cu_seq_lens=bounds).sum().backward()
    assert watch.most <= 2000 * 48  # numbers of the feed-forward part
    assert watch.booleans == 1  # the placeholder of a mask


def test_on_a_gpu_16384_tokens_have_no_mask_and_no_copy_of_keys() -> None:
    """Shapes on the meta device, which takes the kernel's path; keys repeat in no tensor."""
    register_varlen()
    length = 16_384
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Qwen3Config(**SIZES), attn_implementation=VARLEN)
        ids_1L = torch.zeros(1, length, dtype=torch.long)
    arguments = length_arguments(model, (0, 6000, length))
    with PeakBytes() as peak, Watch() as watch:
        hidden = model.model(input_ids=ids_1L, position_ids=ids_1L, **arguments).last_hidden_state
        hidden.sum().backward()
    assert watch.most <= length * 48
    assert watch.booleans == 0
    assert (length, 2, 8) in peak.shapes  # keys as the kernel gets them
    assert peak.most < 100 * 2**20  # 88.5 MiB; a mask alone has 256


@pytest.mark.parametrize("checkpointing", [False, True])
def test_packing_costs_no_more_memory_than_padding(checkpointing: bool) -> None:
    """8 sequences of 2,048 tokens, forward and backward: at most 1.15 times the bytes."""
    length = 512 if checkpointing else 2048  # computed twice
    peaks = {}
    for packed in (False, True):
        model = policy(attention=VARLEN if packed else "sdpa")
        if checkpointing:
            recompute_activations(model.model)
        ids = torch.arange(8 * length).remainder(VOCABULARY).view(8, length)
        position = torch.arange(length).expand(8, length)
        bounds = tuple(range(0, 8 * length + 1, length))
        with PeakBytes() as peak:
            if packed:
                hidden = model.hidden(
                    ids.view(1, -1), position=position.reshape(1, -1), cu_seq_lens=bounds
                )
            else:
                hidden = model.hidden(ids, position=position)
            hidden.sum().backward()
        peaks[packed] = peak.most
    assert peaks[True] <= 1.15 * peaks[False]


def test_the_kernel_is_called_as_torch_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU in bfloat16: heads after tokens, keys not repeated, a window without the query."""
    calls: list[dict[str, Any]] = []

    def kernel(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Tensor:
        calls.append({"shapes": (query.shape, key.shape, value.shape), "rest": rest, **options})
        return query

    monkeypatch.setattr(varlen_module, "varlen_attn", kernel)
    monkeypatch.setattr(varlen_module, "kernel_runs", lambda query: True)
    query, key, value = tensors(1, 4, 30, 8)
    bounds = torch.tensor(row()[2], dtype=torch.int32)
    for window in (None, 5):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = packed_attention(
                query,
                key[:, :2],
                value[:, :2, :, :6],
                cu_seq_lens=bounds,
                lengths=LENGTHS,
                window=window,
            )
        assert output.shape == (1, 30, 4, 6)  # as wide as values
        assert output.dtype == torch.bfloat16  # torch's kernel is unknown to autocast
    assert [call["window_size"] for call in calls] == [(-1, 0), (4, 0)]
    for call in calls:
        assert call["shapes"] == ((30, 4, 8), (30, 2, 8), (30, 2, 8))
        assert call["rest"] == (bounds, bounds, 14, 14)
        assert call["enable_gqa"]
        assert call["scale"] == 8**-0.5
