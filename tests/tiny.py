"""Tiny models of every supported architecture, and batches for them: shared by tests of learners,
samplers and the loop.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from reasontrain.algo.advantages import NoAdvantage
from reasontrain.data.collate import collate
from reasontrain.models import Policy, recompute_activations, testbed
from reasontrain.models.varlen import register_varlen
from reasontrain.types import Batch, Problem, Rollout, TeacherPrompt, TokenKind

VOCABULARY = testbed.VOCABULARY_SIZE
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
ARCHITECTURES: dict[str, type[PreTrainedConfig]] = {
    "qwen3": Qwen3Config,
    "qwen2": Qwen2Config,
    "llama": LlamaConfig,
    "gemma": GemmaConfig,
    "gemma2": Gemma2Config,
    "mistral": MistralConfig,
}


tokenizer = cache(testbed.tokenizer)
"""Training it takes a second, and no test changes it."""


def policy(
    architecture: str = "qwen3",
    *,
    tied: bool = False,
    seed: int = 0,
    checkpointing: bool = False,
    vocab_size: int = VOCABULARY,
    attention: str | None = None,
) -> Policy:
    """A random model with logits that are far from uniform, in training mode.

    Its attention is `sdpa`, where the architecture has no scores that it cannot compute.
    """
    register_varlen()
    torch.manual_seed(seed)
    config = ARCHITECTURES[architecture](
        **SIZES | {"vocab_size": vocab_size}, tie_word_embeddings=tied
    )
    model = AutoModelForCausalLM.from_config(
        config,
        attn_implementation=attention or ("eager" if architecture == "gemma2" else "sdpa"),
    ).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    if checkpointing:
        recompute_activations(model)
    return Policy(model.train(), tokenizer())


def batch(*, seed: int = 0, num: int = 6, width: int = 24, vocab_size: int = VOCABULARY) -> Batch:
    """Rollouts of many lengths in groups of two, with rewards, advantages and some evidence."""
    draw = torch.Generator().manual_seed(seed)
    kind_BT = torch.zeros(num, width, dtype=torch.long)
    for row in range(num):
        prompt = int(torch.randint(1, 6, (), generator=draw))
        response = int(torch.randint(1, width - prompt + 1, (), generator=draw))
        kind_BT[row, :prompt] = TokenKind.PROMPT
        kind_BT[row, prompt : prompt + response] = TokenKind.RESPONSE
    ids_BT = torch.randint(3, vocab_size, (num, width), generator=draw) * (kind_BT != TokenKind.PAD)
    return Batch(
        ids_BT=ids_BT,
        kind_BT=kind_BT,
        rollout_B=torch.arange(num) + 10,
        group_B=torch.arange(num) // 2 * 2 + 10,
        reward_B=torch.randint(0, 2, (num,), generator=draw).float(),
        advantage_B=torch.randn(num, generator=draw),
        sampled_rollouts=num,
        sampled_tokens=int((kind_BT == TokenKind.RESPONSE).sum()),
    ).with_evidence(
        {
            "old_logp": -3 - torch.rand(num, width, generator=draw),
            "ref_logp": -3 - torch.rand(num, width, generator=draw),
            "teacher_logp": -3 - torch.rand(num, width, generator=draw),
            "teacher_entropy": 2 * torch.rand(num, width, generator=draw),
        }
    )


def with_teacher_prompts(data: Batch) -> Batch:
    """The batch with prompts of a teacher, some longer than the student's and some shorter.

    One rollout has none, so that the teacher sees that of the student.
    """
    prompts = {}
    for index, rollout in enumerate(data.rollout_B.tolist()[1:]):
        kind_T = data.kind_BT[index + 1]
        replaced = int((kind_T == TokenKind.PROMPT).sum())
        ids = tuple(range(5 + index, 5 + index + (1, 9, 3, 12, 2)[index % 5]))
        prompts[rollout] = TeacherPrompt(ids, replaced)
    return replace(data, teacher_prompts=prompts)


def pairs(num: int = 3, *, seed: int = 0) -> Batch:
    """Pairs of many lengths with contrastive scores at their rejected side."""
    draw = torch.Generator().manual_seed(seed)

    def some(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high, (), generator=draw))
        return tuple(torch.randint(3, VOCABULARY, (length,), generator=draw).tolist())

    rollouts = []
    for index in range(num):
        prompt_ids, problem = some(1, 6), Problem(id=str(index), prompt="")
        for side in range(2):
            ids = some(1, 15)
            logscore = tuple(torch.rand(len(ids), generator=draw).log().tolist())
            rollouts.append(
                Rollout(
                    problem=problem,
                    id=10 + 2 * index + side,
                    group=10 + 2 * index,
                    prompt_ids=prompt_ids,
                    response_ids=ids,
                    evidence={"ce_logscore": logscore} if side else {},
                )
            )
    return collate(rollouts, advantage=NoAdvantage(), paired=True)
