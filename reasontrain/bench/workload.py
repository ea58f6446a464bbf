"""The workload of a step, the same for both contestants: random models, prompts and rollouts.

The lengths of rollouts are skewed, like real ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import (
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from reasontrain.algo.advantages import GroupNormalized, NoAdvantage
from reasontrain.bench.case import Setting
from reasontrain.data.collate import collate
from reasontrain.models import Policy, Shape, recompute_activations, testbed
from reasontrain.plan.shape import num_parameters, num_table
from reasontrain.types import Batch, Problem, Prompt, Rollout

LEARNING_RATE = 1e-6
"""Small, so that the model of the last run is nearly that of the first."""
SIGMA = 0.8
"""Standard deviation of the logarithm of lengths, which are at most three times their mean."""
REWARDS = 357
"""Seed of the rewards.

With it, every group has right and wrong rollouts, and the half of the rollouts that is kept by
their advantages has half of the tokens.
"""
PROMPT_IDS = testbed.VOCABULARY_SIZE
"""Ids below this are the tokenizer's, including its special ones."""
SHORTEST_PROMPT = 8
LONGEST_PROMPT = 24
QWEN3_06B = Shape(
    hidden_size=1024,
    intermediate_size=3072,
    num_layers=28,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
    vocab_size=151_936,
    tied=True,
    qk_norm=True,
)
QWEN3_4B = replace(QWEN3_06B, hidden_size=2560, intermediate_size=9728, num_layers=36, num_heads=32)
QWEN3_8B = replace(QWEN3_4B, hidden_size=4096, intermediate_size=12_288, tied=False)


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    """The testbed's tokenizer.

    Prompts use only its ids; a model may have more ids after them.
    """
    return testbed.tokenizer()


def all_rows_are_tokens(policy: Policy) -> Policy:
    """The policy with every row of its head as a token.

    A policy gives no probability to rows beyond its tokenizer, and the peers' models do.
    """
    rows = policy.model.get_output_embeddings().weight.shape[0]
    policy.input_space = replace(policy.input_space, num_tokens=rows)
    return policy


def qwen3(shape: Shape, seed: int, device: torch.device, dtype: torch.dtype) -> Qwen3ForCausalLM:
    """A Qwen3 of this shape with random weights.

    Args:
        shape: sizes of the architecture.
        seed: seed of the weights; it gives the same weights on machines of the same kind.
        device: device on which the weights are generated.
        dtype: dtype of the weights.
    """
    config = Qwen3Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=8192,
        tie_word_embeddings=shape.tied,
        pad_token_id=tokenizer().pad_token_id,
        eos_token_id=tokenizer().eos_token_id,
    )
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM._from_config(config, attn_implementation="sdpa", dtype=dtype)


def drawn_lengths(rollouts: int, limit: int) -> Int[Tensor, " B"]:
    """Lengths [B] of responses in tokens: log-normal quantiles in a fixed random order.

    They are cut at `limit`, and their mean is a third of it.
    """
    quantile_B = (torch.arange(rollouts, dtype=torch.float64) + 0.5) / rollouts
    shape_B = torch.exp(SIGMA * torch.special.ndtri(quantile_B))
    scale = 1.0
    for _ in range(50):  # scale until the mean is right despite the cut
        length_B = (scale * shape_B).round().long().clamp(2, limit)
        scale *= limit * rollouts / 3 / int(length_B.sum())
    return length_B[torch.randperm(rollouts, generator=torch.Generator().manual_seed(3))]


@dataclass(frozen=True, kw_only=True)
class StepWorkload(ABC):
    """The models and rollouts of a step, the same for both contestants.

    Attributes:
        rollouts: number of rollouts.
        limit: the most tokens of a response.
        device: device of all models.
        dtype: dtype of matrix products.
    """

    rollouts: int
    limit: int
    device: torch.device
    dtype: torch.dtype

    @property
    def tokens(self) -> int:
        """Number of response tokens."""
        return int(self.lengths().sum())

    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The models' tokenizer, which the caller may change."""

    @abstractmethod
    def policy(self) -> Policy:
        """The model that reasontrain trains."""

    @abstractmethod
    def peer_model(self) -> nn.Module:
        """The model that the peer trains, with the same initial weights."""

    @abstractmethod
    def frozen(self) -> Policy:
        """The teacher."""

    @abstractmethod
    def lengths(self) -> Int[Tensor, " B"]:
        """Lengths of the responses, in tokens."""

    @abstractmethod
    def prompts(self, group: int = 1) -> list[Prompt]:
        """One prompt per group of rollouts, whose text the tokenizer encodes to the same ids."""

    @abstractmethod
    def batch(self, *, group: int = 1, paired: bool = False) -> Batch:
        """The rollouts; groups of more than one have advantages, and pairs have none."""


@dataclass(frozen=True, kw_only=True)
class Workload(StepWorkload):
    """A step of random models of these shapes, on random rollouts of skewed lengths.

    Trained weights are float32; `dtype` is the dtype of computations in trunk and head, for both
    contestants.
    """

    shape: Shape
    teacher: Shape
    checkpointing: bool = False

    def settings(self) -> dict[str, Setting]:
        """The size, for the record."""
        shape = self.shape
        return {
            "model": f"{shape.num_layers} layers of {shape.hidden_size}, {shape.vocab_size:,} ids",
            "head's share of parameters": round(num_table(shape) / num_parameters(shape), 2),
            "rollouts": self.rollouts,
            "response tokens": self.tokens,
            "longest response": int(self.lengths().max()),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def policy(self) -> Policy:
        """The model to train, with the same initial weights for both contestants."""
        model = qwen3(self.shape, 1, self.device, torch.float32).train()
        if self.checkpointing:
            recompute_activations(model)
        return all_rows_are_tokens(Policy(model, tokenizer(), self.dtype))

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """See `StepWorkload`."""
        return tokenizer()

    def peer_model(self) -> nn.Module:
        """See `StepWorkload`."""
        model: nn.Module = self.policy().model
        return model

    def frozen(self) -> Policy:
        """A frozen model of the teacher's shape."""
        model = qwen3(self.teacher, 2, self.device, self.dtype)
        return all_rows_are_tokens(
            Policy(model.requires_grad_(False).eval(), tokenizer(), self.dtype)
        )

    def lengths(self) -> Int[Tensor, " B"]:
        """Lengths of the responses, in tokens."""
        return drawn_lengths(self.rollouts, self.limit)

    def prompts(self, group: int = 1) -> list[Prompt]:
        """Prompts of digits, one token each, whose text encodes to the same ids."""
        draw = torch.Generator().manual_seed(4)
        prompts = []
        for index in range(self.rollouts // group):
            length = int(torch.randint(SHORTEST_PROMPT, LONGEST_PROMPT + 1, (), generator=draw))
            text = "".join(map(str, torch.randint(10, (length,), generator=draw).tolist()))
            prompts.append(
                Prompt(
                    problem=Problem(id=str(index), prompt=text),
                    ids=tuple(tokenizer()(text)["input_ids"]),
                )
            )
        return prompts

    def batch(self, *, group: int = 1, paired: bool = False, copies: int = 1) -> Batch:
        """A batch of rollouts of `lengths` with random ids, each `copies` times.

        Groups of more than one have advantages; pairs have none.
        """
        draw = torch.Generator().manual_seed(5)
        prompts = self.prompts(group)
        reward = torch.randint(
            2, (self.rollouts,), generator=torch.Generator().manual_seed(REWARDS)
        ).tolist()
        rollouts = [
            Rollout(
                problem=prompts[index // group].problem,
                id=index,
                group=index // group,
                prompt_ids=prompts[index // group].ids,
                response_ids=tuple(
                    torch.randint(
                        PROMPT_IDS, self.shape.vocab_size, (length,), generator=draw
                    ).tolist()
                ),
                reward=float(reward[index]),
            )
            for index, length in enumerate(self.lengths().tolist())
        ]
        copied = [
            replace(rollout, id=rollout.id + self.rollouts * copy)
            for copy in range(copies)
            for rollout in rollouts
        ]
        return collate(
            copied,
            advantage=GroupNormalized() if group > 1 and not paired else NoAdvantage(),
            paired=paired,
        )


def constant(batch: Batch, value: float) -> Float[Tensor, "B T"]:
    """An evidence field [B, T] with the same value everywhere."""
    return torch.full(batch.ids_BT.shape, value)
