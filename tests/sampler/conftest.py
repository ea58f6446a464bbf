"""Tiny models of real architectures, and a tokenizer with one token per byte."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from torch import Tensor, nn
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.cache_utils import Cache

from reasontrain.models import Policy
from reasontrain.types import Image, Problem, Prompt, Rollout
from tests.tiny import SIZES

END, PAD, NUM_IDS, CONTEXT = 256, 257, 260, 96
SHAPE = SIZES | {
    "vocab_size": NUM_IDS,
    "max_position_embeddings": CONTEXT,
    "eos_token_id": END,
    "pad_token_id": PAD,
    "bos_token_id": None,
    "initializer_range": 0.2,
}
MODELS = {
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE)),
    "qwen2": lambda: Qwen2ForCausalLM(
        Qwen2Config(**{k: v for k, v in SHAPE.items() if k != "head_dim"})
    ),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**SHAPE)),
    "gemma3": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(
            **SHAPE, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
        )
    ),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=8)),
}


class Watched(Policy):
    """A policy that keeps the [B, T] of every forward."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)
        self.shapes: list[tuple[int, int]] = []

    def hidden(
        self,
        ids: Tensor | None = None,
        *,
        embeds: Tensor | None = None,
        position: Tensor | None = None,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        images: Sequence[Image | None] = (),
    ) -> Tensor:
        fed = ids if embeds is None else embeds
        self.shapes.append((fed.shape[0], fed.shape[1]))
        return super().hidden(
            ids, embeds=embeds, position=position, mask=mask, cache=cache, images=images
        )


class Tiny:
    """Makes policies, prompts and tokenizers, and computes what a rollout should hold."""

    END, PAD, THINK, CONTEXT, MODELS = END, PAD, 258, CONTEXT, tuple(MODELS)

    @staticmethod
    def tokenizer() -> PreTrainedTokenizerFast:
        """Id b is byte b; 256 to 259 are special."""
        shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
        hidden = [b for b in range(256) if b not in shown]
        table = {chr(b): b for b in shown} | {chr(256 + n): b for n, b in enumerate(hidden)}
        words = Tokenizer(BPE(table, []))
        words.decoder = decoders.ByteLevel()
        words.add_special_tokens(["<end>", "<pad>", "<think>", "</think>"])
        return PreTrainedTokenizerFast(
            tokenizer_object=words,
            eos_token="<end>",
            pad_token="<pad>",
            clean_up_tokenization_spaces=False,
        )

    @staticmethod
    def policy(name: str = "qwen3", dtype: torch.dtype = torch.float32) -> Watched:
        """A random model whose next token is far from certain and far from uniform."""
        torch.manual_seed(7)
        model = MODELS[name]().eval()
        model.generation_config.eos_token_id, model.generation_config.pad_token_id = END, PAD
        return Watched(model, Tiny.tokenizer(), dtype)

    @staticmethod
    def bias(policy: Policy, value: dict[int, float], others: float = 0.0) -> None:
        """Give the head a bias per id, so that some ids come often and others never."""
        old = policy.model.get_output_embeddings()
        head = nn.Linear(old.in_features, old.out_features)
        head.weight = old.weight
        nn.init.constant_(head.bias, others)
        with torch.no_grad():
            for index, number in value.items():
                head.bias[index] = number
        policy.model.set_output_embeddings(head)

    @staticmethod
    def prompts(*lengths: int) -> list[Prompt]:
        """Random prompts of these lengths."""
        ids = [
            torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(length))
            for length in lengths
        ]
        return [
            Prompt(problem=Problem(id=f"p{len(i)}", prompt=""), ids=tuple(i.tolist())) for i in ids
        ]

    @staticmethod
    @torch.no_grad()
    def logp(policy: Policy, rollout: Rollout, temperature: float = 1.0) -> Tensor:
        """[T, V] log-probs at the response tokens, from plain transformers logits of the whole
        sequence.
        """
        ids = torch.tensor([[*rollout.prompt_ids, *rollout.response_ids]])
        logits = (
            policy.model(input_ids=ids, use_cache=False)
            .logits[0, len(rollout.prompt_ids) - 1 : -1]
            .float()
        )
        return (logits / temperature).log_softmax(-1)


@pytest.fixture
def tiny() -> type[Tiny]:
    """The makers of this file."""
    return Tiny
