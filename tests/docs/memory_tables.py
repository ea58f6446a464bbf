"""Memory of usual models under usual settings, by the arithmetic of `reasontrain plan`."""

from __future__ import annotations

from collections.abc import Mapping

from reasontrain.plan import GIB, Machine, plan
from reasontrain.recipe import recipe_of

QWEN3 = {
    "Qwen3-0.6B": (1024, 3072, 28, 16, True),
    "Qwen3-1.7B": (2048, 6144, 28, 16, True),
    "Qwen3-4B": (2560, 9728, 36, 32, True),
    "Qwen3-8B": (4096, 12288, 36, 32, False),
    "Qwen3-14B": (5120, 17408, 40, 40, False),
    "Qwen3-32B": (5120, 25600, 64, 64, False),
}
"""Model -> hidden size, intermediate size, layers, heads, tied embeddings, of its config.json."""

SFT = {
    "task": {"kind": "rollouts", "path": "chat.jsonl"},
    "objective": {"kind": "nll"},
}
GRPO = {
    "task": {"kind": "math", "path": "problems.jsonl"},
    "sample": {
        "group_size": 8,
        "max_tokens": 2048,
        "engine": {"kind": "local", "max_num_seqs": 64},
    },
    "advantage": {"kind": "group_normalized"},
    "objective": {"kind": "grpo"},
}
LORA = {"lora": {"rank": 16, "alpha": 32}}
SHARDED = {"zero": {"stage": 3}}
OFFLOADED = {"zero": {"stage": 3, "offload_optimizer": "cpu"}}

COLUMNS: Mapping[str, tuple[dict, dict, dict, int]] = {
    "SFT, LoRA, 1 GPU": (SFT, LORA, {}, 1),
    "SFT, all weights, 1 GPU": (SFT, {}, {}, 1),
    "GRPO, LoRA, 1 GPU": (GRPO, LORA, {}, 1),
    "GRPO, all weights, 1 GPU": (GRPO, {}, {}, 1),
    "GRPO, ZeRO-3, 8 GPUs": (GRPO, {}, SHARDED, 8),
    "the same, optimiser in main memory": (GRPO, {}, OFFLOADED, 8),
    "GRPO, ZeRO-3, 32 GPUs": (GRPO, {}, SHARDED, 32),
}
"""Column -> the recipe's sections, settings of the model and of `learn`, and learner ranks."""


def peak_gib(model: str, column: str) -> float:
    """The highest memory peak of a process, in GiB."""
    hidden, intermediate, layers, heads, tied = QWEN3[model]
    sections, of_model, of_learn, ranks = COLUMNS[column]
    shape = {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tied": tied,
        "qk_norm": True,
    }
    content = {
        "name": "memory",
        "steps": 10,
        "model": {
            "path": f"Qwen/{model}",
            "dtype": "bfloat16",
            "gradient_checkpointing": True,
            "shape": shape,
            **of_model,
        },
        "loss_aggregation": "token_mean",
        "learn": {
            "lr": 1e-6,
            "rollouts_per_step": 128,
            "layout": "packed",
            "micro_batch_tokens": 8192,
            **of_learn,
        },
        **sections,
        **({"cluster": {"learners": ranks}} if ranks > 1 else {}),
    }
    estimate = plan(
        recipe_of(content, [], "memory table"), Machine(prompt_tokens=512, response_tokens=2048)
    )
    return max(role.peak for role in estimate.roles) / GIB


def memory_table() -> str:
    """GiB of the fullest GPU, models by settings."""
    rows = [
        f"| model | {' | '.join(COLUMNS)} |",
        f"| --- | {' | '.join('---:' for _ in COLUMNS)} |",
    ]
    for model in QWEN3:
        cells = (f"{peak_gib(model, column):.0f}" for column in COLUMNS)
        rows.append(f"| `{model}` | {' | '.join(cells)} |")
    return "\n".join(rows)
