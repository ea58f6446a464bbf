"""Run directories with token files, as `write_tokens` leaves them after a real rule was called."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest
import torch

from reasontrain.algo.advantages import GroupNormalized
from reasontrain.algo.evidence import EVIDENCE
from reasontrain.algo.token_selection import TokenSelection
from reasontrain.data.collate import collate
from reasontrain.models.testbed import tokenizer
from reasontrain.recipe import as_yaml, read_recipe
from reasontrain.run.directory import RunDirectory
from reasontrain.run.loop import progress_at
from reasontrain.run.tracking import write_tokens
from reasontrain.types import Batch, Problem, Rollout

ROOT = Path(__file__).resolve().parents[2]
STEPS = 9
SEED = 3


words = cache(tokenizer)
"""The testbed's tokenizer, which takes a second to build."""


def rollouts(num: int, *, first_id: int = 0) -> list[Rollout]:
    """Responses of 12 tokens and more, after prompts of 2 to 4, in groups of two."""
    return [
        Rollout(
            problem=Problem(id=f"p{i // 2}", prompt="", answer="7"),
            id=first_id + i,
            group=first_id + i // 2,
            prompt_ids=tuple(range(2 + i % 3)),
            response_ids=tuple(range(10, 22 + i % 9)),
            reward=float(i % 2),
            correct=i % 2 == 1,
            truncated=i == 4,
        )
        for i in range(num)
    ]


def with_evidence(batch: Batch, names: Iterable[str], seed: int) -> Batch:
    """A batch with random evidence within the bounds of each kind."""
    generator = torch.Generator().manual_seed(seed)
    columns = {}
    for name in sorted(names):
        value_BT = torch.rand(batch.ids_BT.shape, generator=generator)
        columns[name] = -3 * value_BT if EVIDENCE[name].bounds[1] <= 0 else value_BT
    return batch.with_evidence(columns)


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    """record(name, rule, ...): a run directory whose token files hold the weights of this rule."""
    return recorder(tmp_path)


def recorder(folder: Path) -> Callable[..., Path]:
    """A function that writes run directories there; see `record`."""

    def write(
        name: str,
        rule: TokenSelection,
        *overrides: str,
        steps: Sequence[int] = (1,),
        names: Sequence[str] | None = None,
        num: int = 6,
        dropped: Sequence[int] = (),
        paired: bool = False,
        recipe: str = "tip",
    ) -> Path:
        directory = RunDirectory(folder / name)
        settings = (
            f"name={name}",
            f"seed={SEED}",
            f"steps={STEPS}",
            f"learn.rollouts_per_step={num}",
        )
        directory.path.mkdir()
        resolved = read_recipe(ROOT / f"recipes/tiny/{recipe}.yaml", [*settings, *overrides])
        directory.write_recipe(as_yaml(resolved))
        for step in steps:
            sampled = rollouts(num, first_id=100 * step)
            everything = collate(
                sampled,
                advantage=GroupNormalized(),
                paired=paired,
                progress=progress_at(step - 1, STEPS),
                seed=SEED,
                step=step - 1,
            )
            left = torch.tensor([i for i in range(num) if i not in dropped])
            names_of = rule.required_evidence if names is None else names
            batch = with_evidence(everything.take(left), names_of, step)
            write_tokens(
                directory.tokens_at(step),
                batch,
                rule(batch),
                sampled,
                words(),
                sampled=everything,
            )
        return directory.path

    return write


def change(path: Path, edit: Callable[[int, dict], Mapping[str, object]]) -> None:
    """Rewrite a token file line by line; `edit` returns what changes in a line."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps(row | dict(edit(i, row))) + "\n" for i, row in enumerate(rows))
    )
