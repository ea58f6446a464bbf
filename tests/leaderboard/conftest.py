"""Runs and reports as `train` and `evaluate` leave them behind, made from verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from reasontrain.metrics.accuracy import summarise

TokenStats = Sequence[Sequence[bool]]
SAMPLING = {"temperature": 0.0, "max_tokens": 120}


def answer_row(problem: int, correct: bool, response: str = "") -> dict[str, object]:
    """One line of a file of answers; the gold answer of problem 7 is 70."""
    said = str(10 * problem if correct else 10 * problem + 1)
    return {
        "problem": f"p{problem}",
        "gold": str(10 * problem),
        "response": response or f"so it is \\boxed{{{said}}}",
        "correct": correct,
        "extracted": said,
        "reason": "exact",
        "truncated": False,
    }


def record(
    suite: str, rows: TokenStats, *, tokens: float = 50.0, temperature: float = 0.0
) -> dict[str, object]:
    """The record of an evaluation: accuracy, and pass@2 if problems have two samples or more."""
    correct_MS = np.array(rows, dtype=bool)
    metrics = summarise(correct_MS, (2,) if correct_MS.shape[1] > 1 else ())
    return {
        "suite": suite,
        "num_problems": len(rows),
        "num_samples": correct_MS.shape[1],
        "temperature": temperature,
        "response_tokens_mean": tokens,
        "truncated": 1,
        "unfinished": 0,
        "no_answer": 2,
        "dropped": 0,
        "metrics": {
            name: {"value": i.value, "low": i.low, "high": i.high} for name, i in metrics.items()
        },
    }


def write_answers(path: Path, rows: TokenStats) -> None:
    """Every verdict as an answer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps(answer_row(m, correct)) + "\n"
        for m, samples in enumerate(rows)
        for correct in samples
    ]
    path.write_text("".join(lines))


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """make_run(name, {step: rows}): a run directory that was evaluated on the suite `heldout` after
    these steps.
    """

    def make(
        name: str,
        history: Mapping[int, TokenStats],
        *,
        seed: int = 0,
        tokens: float = 50.0,
        sampling: Mapping[str, object] = SAMPLING,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        suites = [
            {
                "name": "heldout",
                "task": {"kind": "arithmetic"},
                "prompt": None,
                "sampling": dict(sampling),
            }
        ]
        recipe = {
            "name": name,
            "seed": seed,
            "prompt": {"style": "auto", "system": None},
            "evaluate": {"suites": suites},
        }
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        (folder / "environment.json").write_text(
            json.dumps({"seed": seed, "versions": {"torch": "2.13.0"}})
        )
        rows = [
            {"step": step, **record("heldout", rows, tokens=tokens)}
            for step, rows in history.items()
        ]
        (folder / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for step, verdicts in history.items():
            write_answers(folder / f"answers/heldout-step-{step}.jsonl", verdicts)
        return folder

    return make


@pytest.fixture
def make_report(tmp_path: Path) -> Callable[..., Path]:
    """make_report(model, {suite: rows}): the folder that `evaluate` writes, and what its suites say
    of how they were asked.
    """

    def make(model: str, suites: Mapping[str, TokenStats], **asked: object) -> Path:
        folder = tmp_path / model.replace("/", "--")
        stated = [
            {
                "asked": {"name": suite, "prompt": None, "sampling": SAMPLING, **asked},
                **record(suite, rows),
            }
            for suite, rows in suites.items()
        ]
        for suite, rows in suites.items():
            write_answers(folder / f"{suite}.jsonl", rows)
        (folder / "report.json").write_text(
            json.dumps({"model": model, "seed": 0, "suites": stated})
        )
        return folder

    return make


def single(pattern: str) -> TokenStats:
    """One sample a problem: `single("110")` is right on the first two of three problems."""
    return [[mark == "1"] for mark in pattern]
