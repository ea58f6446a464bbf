"""A file of problems with solutions, and a machine that measures a shipped model on them."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from reasontrain.bench.case import BenchMachine
from reasontrain.models import DType, ModelSettings

SOLUTIONS = ("2 + 3 = 5\n#### 5", "4 + 4 = 8, and 8 + 1 = 9\n#### 9", "#### 7", "1 + 1 = 2\n#### 2")


def write_problems(path: Path, num: int = 4, *, solved: bool = True) -> Path:
    """`num` problems, with written solutions of different lengths."""
    rows = [
        {"id": f"p{index}", "problem": f"What is {index} + 3?", "answer": str(index + 3)}
        | ({"solution": SOLUTIONS[index % len(SOLUTIONS)]} if solved else {})
        for index in range(num)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pretrained_machine(
    data: Path, *, dtype: DType = "float32", teacher: bool = False
) -> BenchMachine:
    """A quick machine with the shipped student, and with the shipped teacher if one is wanted."""
    return BenchMachine(
        device=torch.device("cpu"),
        quick=True,
        threads=1,
        data=data,
        model=ModelSettings(path="testbed:student", dtype=dtype),
        teacher=ModelSettings(path="testbed:teacher", dtype=dtype) if teacher else None,
    )
