"""Attention paid to the prompt, by one more call of a fused kernel: it is that of eager softmax
(ssToken, check 6).
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, MistralConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from reasontrain.models import Importance, Policy
from reasontrain.models.attention import check, mass, measure_attention
from reasontrain.types import UserError
from tests.tiny import SIZES, VOCABULARY, policy, tokenizer

LENGTHS, PROMPTS = (9, 5, 12), (4, 2, 7)
FUSED = ["qwen3", "qwen2", "llama", "gemma", "mistral"]


def sequences() -> list[Tensor]:
    draw = torch.Generator().manual_seed(3)
    return [torch.randint(3, VOCABULARY, (length,), generator=draw) for length in LENGTHS]


@torch.no_grad()
def eager(model: Policy, ids_T: Tensor, num_prompt: int, layer: int) -> Tensor:
    """One sequence alone: the probabilities that transformers' own eager attention returns, summed
    over prompt columns.
    """
    model.model.set_attn_implementation("eager")
    probabilities_HTT = model.model(
        ids_T[None], use_cache=False, output_attentions=True
    ).attentions[layer][0]
    model.model.set_attn_implementation("sdpa")
    assert (probabilities_HTT.triu(1) == 0).all()  # causal, or this test would show nothing
    return probabilities_HTT[..., :num_prompt].sum(-1).mean(0)


@torch.no_grad()
def fused(
    model: Policy,
    ids: Tensor,
    among: Tensor,
    *,
    position: Tensor | None = None,
    cu_seq_lens: tuple[int, ...] | None = None,
    layer: int = -1,
) -> Tensor:
    with measure_attention(model.model, among, layer) as found:
        model.hidden(ids, position=position, cu_seq_lens=cu_seq_lens)
    (found_RT,) = found
    return found_RT


@pytest.mark.parametrize("architecture", FUSED)  # grouped heads: four of queries, two of keys
@pytest.mark.parametrize("layer", [-1, -2])
def test_padded_it_is_eager_softmax(architecture: str, layer: int) -> None:
    model = policy(architecture)
    ids, among = torch.zeros(3, 12, dtype=torch.long), torch.zeros(3, 12, dtype=torch.bool)
    for row, (sequence, num_prompt) in enumerate(zip(sequences(), PROMPTS, strict=True)):
        ids[row, : len(sequence)], among[row, :num_prompt] = sequence, True
    found = fused(model, ids, among, layer=layer)
    for row, (sequence, num_prompt) in enumerate(zip(sequences(), PROMPTS, strict=True)):
        assert_close(
            found[row, : len(sequence)],
            eager(model, sequence, num_prompt, layer),
            rtol=0,
            atol=1e-5,
        )
    assert (found.max() <= 1) & (found.min() >= 0)


@pytest.mark.parametrize("attention", ["sdpa", "varlen"])
@pytest.mark.parametrize("architecture", FUSED)
def test_packed_it_is_that_of_each_sequence_alone(architecture: str, attention: str) -> None:
    model = policy(architecture, attention=attention)
    among = torch.cat(
        [torch.arange(length) < prompt for length, prompt in zip(LENGTHS, PROMPTS, strict=True)]
    )
    position = torch.cat([torch.arange(length) for length in LENGTHS])
    found = fused(
        model,
        torch.cat(sequences())[None],
        among[None],
        position=position[None],
        cu_seq_lens=(0, *itertools.accumulate(LENGTHS)),
    )[0]
    expected = [
        eager(model, ids, prompt, -1) for ids, prompt in zip(sequences(), PROMPTS, strict=True)
    ]
    assert_close(found, torch.cat(expected), rtol=0, atol=1e-5)


def test_a_sliding_window_is_the_kernels_own() -> None:
    torch.manual_seed(0)
    config = MistralConfig(**SIZES, sliding_window=4)
    model = Policy(
        AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").float(), tokenizer()
    )
    ids = sequences()[2]
    found = fused(model, ids[None], (torch.arange(12) < 7)[None])[0]
    assert_close(found, eager(model, ids, 7, -1), rtol=0, atol=1e-5)
    assert found[10] == 0  # sees tokens 7 to 10 alone
    assert found[9] > 0


def test_float32_whatever_autocast_says_and_a_float_mask_is_added() -> None:
    draw = torch.Generator().manual_seed(1)
    query, key = torch.randn(2, 4, 6, 8, generator=draw), torch.randn(2, 2, 6, 8, generator=draw)
    chosen = (torch.arange(6) < 3).float()[None, None, :, None].expand(2, 2, 6, 8)
    score = torch.einsum("rhqd,rhkd->rhqk", query, key.repeat_interleave(2, 1)) * 0.3
    banned = torch.full((6, 6), -torch.inf).triu(1)
    expected = (score + banned).softmax(-1)[..., :3].sum(-1).mean(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(mass(query, key, chosen, None, 0.3), expected, rtol=0, atol=1e-6)
        assert_close(
            mass(query, key, chosen, banned.expand(2, 1, 6, 6), 0.3), expected, rtol=0, atol=1e-6
        )
        assert_close(
            mass(query, key, chosen, (banned == 0).expand(2, 1, 6, 6), 0.3),
            expected,
            rtol=0,
            atol=1e-6,
        )


def test_all_keys_together_have_all_the_attention_and_later_tokens_change_nothing() -> None:
    model, ids = policy(), sequences()[2][None]
    assert_close(
        fused(model, ids, torch.ones_like(ids, dtype=torch.bool)),
        torch.ones(1, 12),
        rtol=0,
        atol=1e-6,
    )
    among = (torch.arange(12) < 4)[None]
    assert_close(
        fused(model, ids[:, :7], among[:, :7]), fused(model, ids, among)[:, :7], rtol=0, atol=1e-6
    )


class Widest(TorchDispatchMode):
    """The most numbers that any tensor had."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        made = result if isinstance(result, tuple | list) else (result,)
        self.most = max(
            [self.most, *(tensor.numel() for tensor in made if isinstance(tensor, Tensor))]
        )
        return result


def test_there_is_no_matrix_of_length_by_length() -> None:
    model, ids = policy(), torch.arange(200).repeat(1, 5)[:, :1000] % VOCABULARY
    with Widest() as widest:
        fused(model, ids, ids < 100)
    assert (
        widest.most <= 1000 * 48
    )  # numbers of the feed-forward part; 1000 x 1000 would be twenty times as many


def test_hidden_states_are_those_of_a_model_that_nobody_watches_and_the_function_is_put_back() -> (
    None
):
    model, ids = policy(), sequences()[0][None]
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    with torch.no_grad(), measure_attention(model.model, ids > 50, -1):
        watched = model.hidden(ids)
    assert torch.equal(watched, model.hidden(ids))
    with pytest.raises(RuntimeError, match="stop"), measure_attention(model.model, ids > 50, -1):
        raise RuntimeError("stop")
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before


def test_other_models_in_the_block_are_not_watched() -> None:
    model, other, ids = policy(), policy("llama"), sequences()[0][None]
    with torch.no_grad(), measure_attention(model.model, ids > 50, -1) as found:
        other.hidden(ids)
    assert found == []


def test_a_flash_kernel_is_called_once_more_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """No such kernel runs here: sdpa stands for it, which gives the same outputs in the same
    places.
    """
    model, ids = policy(), sequences()[2]
    expected = fused(model, ids[None], (torch.arange(12) < 7)[None])
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flash_attention_2", sdpa_attention_forward)
    monkeypatch.setattr(model.model.config, "_attn_implementation_internal", "flash_attention_2")
    assert_close(fused(model, ids[None], (torch.arange(12) < 7)[None]), expected, rtol=0, atol=1e-6)


# ---- what cannot be looked at


def test_eager_attention_is_refused() -> None:
    with pytest.raises(
        UserError,
        match=r"gemma2 uses `eager` attention; set model.attention to sdpa or "
        r"flash_attention_2",
    ):
        check(policy("gemma2"), Importance())


def test_a_layer_that_is_not_there_is_refused() -> None:
    check(policy(), Importance(layer=-2))
    with pytest.raises(UserError, match=r"importance.layer is -3, and the model has 2 layers"):
        check(policy(), Importance(layer=-3))


def test_attention_of_another_kind_is_refused() -> None:
    model = policy()
    for layer in model.model.model.layers:
        layer.self_attn.layer_idx = None  # as a layer that transformers' functions do not compute
    with pytest.raises(
        UserError, match="layer -1 of qwen3 has no attention that transformers' functions compute"
    ):
        check(model, Importance())


@pytest.mark.parametrize("option", ["softcap", "s_aux", "position_bias"])
def test_a_changed_softmax_is_refused(option: str) -> None:
    model = policy("llama")
    attention = model.model.model.layers[-1].self_attn
    plain = attention.forward
    attention.forward = lambda *args, **rest: plain(*args, **rest, **{option: torch.ones(())})
    with pytest.raises(UserError, match=f"llama changes its attention scores by {option}"):
        check(model, Importance())


def test_a_kernel_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reasontrain.models.attention.FUSED", [])
    with pytest.raises(
        UserError, match="no fused kernel on this machine computes the attention of qwen3"
    ):
        check(policy(), Importance())
