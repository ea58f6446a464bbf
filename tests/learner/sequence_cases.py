"""What every rank of a test of sequence parallelism does; the parent compares its numbers with
those of one process.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import AutoModelForCausalLM, MistralConfig, Qwen3Config

from reasontrain.algo.advantages import NoAdvantage
from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import Distill, Grpo, Nll, TokenObjective
from reasontrain.algo.token_selection import Tip
from reasontrain.data.collate import collate
from reasontrain.data.micro_batches import Layout, MicroBatch
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.policy_learner import PolicyLearner
from reasontrain.learner.policy_module import FrozenModel, HeadComputation, UnshardedModel
from reasontrain.models import Policy
from reasontrain.models.varlen import register_varlen
from reasontrain.recipe import LearnSettings, Zero
from reasontrain.recipe.learning import AdamW
from reasontrain.types import Batch, Problem, Rollout
from tests.peak_bytes import PeakBytes
from tests.tiny import SIZES, VOCABULARY, batch, policy, tokenizer

STEPS = 4
STAGES = (1, 2, 3)
LAYOUTS: tuple[Layout, ...] = ("padded", "packed")
SIZE = 2
RULE = Tip(keep_ratio=0.5)
METHODS: dict[str, tuple[TokenObjective, frozenset[str]]] = {
    "sft": (Nll(), frozenset()),
    "grpo": (Grpo(), frozenset({"old_logp", "ref_logp"})),
    "tip": (Distill(), RULE.required_evidence),
}
LENGTH = 4096
"""Tokens of the sequence whose activations are counted."""
LONG = 16_384
ZERO = Zero(stage=1)

Numbers = dict[str, object]


def frozen(architecture: str, seed: int, zero: Zero | None) -> FrozenModel:
    """A model that is compared with; at stage 3 no rank holds it whole."""
    model = policy(architecture, seed=seed, attention="varlen")
    model.model.requires_grad_(False)
    if zero is None or zero.stage < 3:
        return UnshardedModel(model)
    from reasontrain.learner.zero import ShardedModel

    return ShardedModel(model, zero, settings(zero, "padded"))


def settings(zero: Zero | None, layout: Layout, size: int = SIZE) -> LearnSettings:
    """Of one process without `zero`, else of a rank of `size` that share sequences."""
    return LearnSettings(
        lr=0.003,
        rollouts_per_step=6,
        optimizer=AdamW(eps=1e-3, weight_decay=0.1),
        micro_batch_tokens=60,
        layout=layout,
        zero=zero,
        sequence_parallel=1 if zero is None else size,
    )


def step(used: PolicyLearner, data: Batch, method: str) -> Numbers:
    """One step of a method, and what it makes."""
    objective, names = METHODS[method]
    seen = used.observe(replace(data, evidence={}), names)
    weight_BT = RULE(seen) if method == "tip" else data.is_response_BT.float()
    stats = used.step(seen, weight_BT, objective, LOSS_AGGREGATIONS["seq_mean_token_mean"])
    return {
        "evidence": dict(seen.evidence),
        "weight": weight_BT,
        "loss": stats["loss"],
        "grad_norm": stats["grad_norm"],
    }


# ---- cases: what one rank does and answers; without `zero`, the one process that it must equal


def methods(zero: Zero | None, layout: Layout) -> dict[str, list[Numbers]]:
    """Four steps of each method, of rows whose width no number of ranks divides.

    Ranks at stage 3 recompute activations.
    """
    checkpointing = zero is not None and zero.stage == 3
    used = compose_learner(
        policy("qwen3", seed=1, attention="varlen", checkpointing=checkpointing),
        settings(zero, layout),
        steps=20,
        teacher=frozen("llama", 5, zero),
        reference=frozen("qwen3", 6, zero),
    )
    return {
        method: [step(used, batch(seed=seed, width=21), method) for seed in range(STEPS)]
        for method in METHODS
    }


def windows(zero: Zero | None, layout: Layout) -> dict[str, list[Numbers]]:
    """A model whose queries see five tokens, with fewer key-value heads than ranks."""
    register_varlen()
    torch.manual_seed(3)
    sizes = SIZES | {"num_key_value_heads": 1, "sliding_window": 5}
    model = AutoModelForCausalLM.from_config(MistralConfig(**sizes), attn_implementation="varlen")
    used = compose_learner(
        Policy(model.float().train(), tokenizer()), settings(zero, layout), steps=20
    )
    return {"sft": [step(used, batch(seed=seed, width=21), "sft") for seed in range(2)]}


def long_policy(length: int, num_layers: int) -> Policy:
    """A small model with two heads of eight dimensions that reads sequences of this length."""
    register_varlen()
    torch.manual_seed(4)
    sizes = SIZES | {
        "num_attention_heads": 2,
        "num_hidden_layers": num_layers,
        "max_position_embeddings": length,
    }
    model = AutoModelForCausalLM.from_config(Qwen3Config(**sizes), attn_implementation="varlen")
    return Policy(model.float().train(), tokenizer())


def one_sequence(length: int) -> Batch:
    """A batch of one demonstration of this many tokens."""
    ids = torch.randint(3, VOCABULARY, (length,), generator=torch.Generator().manual_seed(5))
    prompt_ids, response_ids = ids[:8].tolist(), ids[8:].tolist()
    rollout = Rollout(
        problem=Problem(id="long", prompt=""),
        id=0,
        group=0,
        prompt_ids=tuple(prompt_ids),
        response_ids=tuple(response_ids),
    )
    return collate([rollout], advantage=NoAdvantage())


def activations(zero: Zero | None, layout: Layout) -> dict[str, float]:
    """Bytes of a forward of one sequence: the most that are alive, and those kept for backward."""
    used = compose_learner(
        long_policy(LENGTH, 2),
        replace(settings(zero, layout), micro_batch_tokens=LENGTH),
        steps=1,
    )
    forward = used.engine.forward
    counted: dict[str, float] = {}

    def watched(
        micro: MicroBatch, position_N: Int[Tensor, " N"], compute: HeadComputation
    ) -> Mapping[str, Tensor]:
        with PeakBytes() as count:
            result = forward(micro, position_N, compute)
        counted.update(most=count.most, kept=count.alive, loss=float(result["loss"].detach()))
        return result

    used.engine.forward = watched  # type: ignore[method-assign]
    data = one_sequence(LENGTH)
    stats = used.gradient(data, data.is_response_BT.float(), Nll(), LOSS_AGGREGATIONS["token_mean"])
    return counted | {"total": stats["loss"]}


def long(zero: Zero | None) -> dict[str, float | list[float]]:
    """Two steps on one sequence of 16,384 tokens."""
    model = long_policy(LONG, 1)
    used = compose_learner(
        model, replace(settings(zero, "padded"), lr=0.01, micro_batch_tokens=LONG), steps=10
    )
    data = one_sequence(LONG)
    return {
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
        "loss": [float(step(used, data, "sft")["loss"]) for _ in range(2)],
    }


def cases() -> dict[str, Callable[[], object]]:
    """All of them, for two ranks."""
    found: dict[str, Callable[[], object]] = {}
    for layout in LAYOUTS:
        for stage in STAGES:
            zero = Zero(stage=stage, persist_below=0)
            found[f"methods-{stage}-{layout}"] = partial(methods, zero, layout)
        found[f"windows-{layout}"] = partial(windows, ZERO, layout)
        found[f"activations-{layout}"] = partial(activations, ZERO, layout)
    return found | {"long": partial(long, ZERO)}


def work(rank: int, world: int, address: str, out: Path) -> None:
    """Every case on this rank; one that fails ends them."""
    from reasontrain.learner.distributed import RankAddress, join, leave

    join(RankAddress(rank, world, address, timeout_s=120.0), torch.device("cpu"))
    for name, case in cases().items():
        try:
            answer = case()
        except Exception:
            (out / f"failed-{rank}.txt").write_text(
                f"{name}: {traceback.format_exc()}", encoding="utf-8"
            )
            raise
        torch.save(answer, out / f"{name}.{rank}.pt")
    leave()
