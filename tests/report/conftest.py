"""A synthetic run directory, with everything in it that a real one may have."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

PIECES = [
    "<think>",
    "\n",
    "12",
    " + ",
    "7",
    " = ",
    "19",
    "\n",
    "so",
    " the",
    " answer",
    " is",
    " 19",
    "</think>",
    "\n",
    "19",
    "<|im_end|>",
]


def metrics_row(step: int, num_steps: int, rng: random.Random) -> dict[str, float]:
    """One step of a run that goes well."""
    done = step / num_steps
    share = {"Q1": 0.31 - 0.08 * done, "Q2": 0.18, "Q3": 0.12 - 0.06 * done}
    share["Q4"] = 1 - sum(share.values())
    kept = {"Q1": 0.93, "Q2": 0.42, "Q3": 0.81, "Q4": 0.14}
    return {
        "step": step,
        "loss": 0.9 * math.exp(-2.5 * done) + 0.08 + 0.05 * rng.random(),
        "grad_norm": 1.5 * math.exp(-done) + rng.expovariate(6),
        "reward_mean": 0.17 + 0.3 * done + 0.07 * (rng.random() - 0.5),
        "entropy_mean": 0.55 - 0.2 * done + 0.02 * rng.random(),
        "kl_reverse_mean": 0.7 * math.exp(-2 * done) + 0.03 * rng.random(),
        "kept_share": 0.5,
        **{f"share_{q}": value for q, value in share.items()},
        **{f"kept_{q}": value for q, value in kept.items()},
        "tokens_per_s": 4000 + 300 * rng.random(),
        "trained_tokens_per_s": 2000.0,
        "time_sample_s": 0.5,
        "time_score_s": 0.02,
        "time_evidence_forward_s": 0.09,
        "time_frozen_forward_s": 0.12,
        "time_trunk_forward_s": 0.1,
        "time_trunk_backward_s": 0.2,
        "time_vocabulary_s": 0.08,
        "time_optimizer_s": 0.02,
        "time_wait_s": 0.0,
        "time_sync_s": 0.01,
        "time_orchestration_s": 0.02 + step / 1000,
        "time_step_s": 1.16 + step / 1000,
        "mfu_update": 0.4,
        "hfu_update": 0.45,
        "mfu_step": 0.3,
    }


def evaluation_row(
    step: int, value: float, suite: str = "arithmetic-test", num_problems: int = 1000
) -> dict[str, object]:
    """One scored suite."""
    metrics = {
        name: {"value": v, "low": max(0, v - 0.03), "high": min(1, v + 0.03)}
        for name, v in (("accuracy", value), ("pass@4", value**0.5))
    }
    return {
        "step": step,
        "suite": suite,
        "num_problems": num_problems,
        "num_samples": 4,
        "temperature": 1.0,
        "metrics": metrics,
        "response_tokens_mean": 67.2,
        "truncated_share": 0.01,
    }


def rollout_row(rollout: int, rng: random.Random, num_repeats: int = 3) -> dict[str, object]:
    """One rollout with its evidence; four tokens of prompt come first."""
    tokens = ["<|im_start|>", "user", "\n", "?"] + PIECES * num_repeats
    entropy = [rng.expovariate(2.5) if rng.random() < 0.5 else rng.random() * 0.05 for _ in tokens]
    divergence = [
        rng.expovariate(1.0) if rng.random() < 0.35 else rng.random() * 0.04 for _ in tokens
    ]
    return {
        "rollout": rollout,
        "problem": f"arithmetic-{rollout}",
        "prompt": "Nora has 12 pears and buys 7 more. How many pears does she have?",
        "answer": "19",
        "reward": float(rollout % 2),
        "tokens": tokens,
        "kind": [1] * 4 + [2] * (len(tokens) - 4),
        "weight": [0.0] * 4
        + [float(e + d > 0.45) for e, d in zip(entropy[4:], divergence[4:], strict=True)],
        "evidence": {"entropy": entropy, "kl_reverse": divergence},
    }


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    """A JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of 60 steps."""
    rng, folder = random.Random(0), tmp_path / "tip"
    write_lines(folder / "metrics.jsonl", [metrics_row(step, 60, rng) for step in range(1, 61)])
    scored = [evaluation_row(step, value) for step, value in ((0, 0.26), (30, 0.38), (60, 0.445))]
    write_lines(folder / "evaluations.jsonl", [*scored, evaluation_row(60, 0.02, "gsm8k", 1319)])
    for step in (1, 60):
        write_lines(
            folder / f"tokens/step-{step}.jsonl",
            [rollout_row(100 * step + i, rng) for i in range(6)],
        )
    (folder / "recipe.yaml").write_text(
        "name: tiny-tip\ntoken_selection: {kind: tip, keep_ratio: 0.5}\n"
        "objective: {kind: distill}\n"
    )
    environment = {
        "seed": 0,
        "commit": "0123abc",
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "hardware": "2 x CPU",
        "matrix_tflops": 0.05,
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    return folder
