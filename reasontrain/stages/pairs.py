"""Preference pairs, and demonstrations of a positive and a negative model, from solutions."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from reasontrain import models
from reasontrain.data import storage
from reasontrain.data.offline import OfflineSample, WrittenResponse, encode, fingerprint
from reasontrain.recipe import PairsStage, Recipe
from reasontrain.run.datasets import encoder_of
from reasontrain.stages.choose import Attempt, Choice, choose
from reasontrain.stages.solutions import Solution, read, write_lines
from reasontrain.tasks.grading import Grader, Vote, group_votes
from reasontrain.tasks.grading.normalise import normalise, squeezed
from reasontrain.types import Message, Problem, Rollout, UserError

logger = logging.getLogger(__name__)

SUMMARY = "summary.json"


def make_pairs(stage: PairsStage, recipe: Recipe, directory: Path) -> None:
    """Write `pairs.jsonl`, `positive.jsonl`, `negative.jsonl` (with token ids) and `summary.json`.

    Truncated solutions and those without an answer are not used.

    Args:
        stage: The settings of the stage.
        recipe: The recipe; its seed decides the choice, its model encodes the samples.
        directory: The folder of the files.

    Raises:
        UserError: No problem has the solutions that a file needs.
    """
    solutions = list(read(Path(stage.rollouts)))
    problems: dict[str, list[Solution]] = {}
    for solution in solutions:
        problems.setdefault(solution.problem, []).append(solution)
    with Grader() as grader:
        attempts = {name: _attempts(own, grader) for name, own in problems.items()}
    choices = {
        name: choose(own, random.Random(f"pairs {recipe.seed} {name}"), cover=stage.cover)
        for name, own in attempts.items()
    }
    rows = {
        name: list(make(problems, choices))
        for name, make in (("pairs", _pairs), ("positive", _right), ("negative", _wrong))
    }
    for name, lines in rows.items():
        if not lines:
            what = {
                "pairs": "both a right and a wrong",
                "positive": "a right",
                "negative": "a wrong",
            }[name]
            raise UserError(
                f"{stage.name}: no problem has {what} solution among {len(solutions)}; "
                f"sample more of each (`group_size`), or "
                "at another temperature"
            )
    counts = {
        f"num_{name}": float(_write(directory / f"{name}.jsonl", lines, stage, recipe))
        for name, lines in rows.items()
    }
    summary = _summary(solutions, attempts) | counts
    storage.replace_text(directory / SUMMARY, json.dumps(summary, indent=1) + "\n")
    logger.info(
        f"{stage.name}: " + ", ".join(f"{name} {value:.4g}" for name, value in summary.items())
    )


def _usable(solution: Solution) -> bool:
    return bool(solution.extracted) and not solution.truncated


def _attempts(solutions: Sequence[Solution], grader: Grader) -> list[Attempt]:
    """The solutions of one problem, with one spelling for answers that the verifier finds equal."""
    votes = [Vote(s.extracted if _usable(s) else "", s.correct) for s in solutions]
    problem = _problem("", solutions[0]).text
    groups = group_votes(votes, lambda one, other: grader.same(one, other, problem), problem)
    spelled: dict[int, str] = {}
    for vote, group in zip(votes, groups, strict=True):
        if group is not None:
            spelled.setdefault(group, squeezed(normalise(vote.answer)) or vote.answer)
    return [
        Attempt("" if group is None else spelled[group], solution.correct)
        for group, solution in zip(groups, solutions, strict=True)
    ]


Problems = dict[str, list[Solution]]
Choices = dict[str, Choice]


def _pairs(problems: Problems, choices: Choices) -> Iterator[OfflineSample]:
    for name, choice in choices.items():
        if choice.positive is not None and choice.negatives:
            yield _written(
                name, [problems[name][i] for i in (choice.positive, choice.negatives[0])]
            )


def _right(problems: Problems, choices: Choices) -> Iterator[OfflineSample]:
    for name, choice in choices.items():
        if choice.positive is not None:
            yield _written(f"{name}#{choice.positive}", [problems[name][choice.positive]])


def _wrong(problems: Problems, choices: Choices) -> Iterator[OfflineSample]:
    for name, choice in choices.items():
        for index in choice.negatives:
            yield _written(f"{name}#{index}", [problems[name][index]])


def _written(id: str, solutions: Sequence[Solution]) -> OfflineSample:
    """A sample of these solutions of one problem; its prompt is without the stage's preamble."""
    first = solutions[0]
    responses = tuple(
        WrittenResponse(text=s.response, ids=tuple(s.response_ids)) for s in solutions
    )
    return OfflineSample(
        problem=_problem(id, first), responses=responses, tokenizer=first.tokenizer
    )


def _problem(id: str, solution: Solution) -> Problem:
    prompt = (
        solution.prompt
        if isinstance(solution.prompt, str)
        else tuple(Message(**turn) for turn in solution.prompt)
    )
    return Problem(
        id=id,
        prompt=prompt,
        answer=solution.answer,
        tools=solution.tools,
        template_kwargs=solution.chat_template_kwargs,
    )


def _write(path: Path, rows: Sequence[OfflineSample], stage: PairsStage, recipe: Recipe) -> int:
    """Write the samples that are short enough, with token ids; return their number."""
    described = models.describe(recipe.model)
    encoder = encoder_of(described, recipe.prompt)
    encoder.limit = min(encoder.limit, stage.max_prompt_tokens or encoder.limit)
    encoded, _ = encode(
        rows, encoder, min(described.context, stage.max_tokens or described.context)
    )
    own = fingerprint(described.tokenizer)
    write_lines(path, [_record(row, own) for row in encoded])
    return len(encoded)


def _record(rollouts: Sequence[Rollout], tokenizer: str) -> dict[str, object]:
    """A sample in TRL's format, with token ids in addition to the texts."""
    first = rollouts[0]
    names = ("chosen", "rejected") if len(rollouts) > 1 else ("response",)
    prompt = first.problem.prompt
    row: dict[str, object] = {
        "id": first.problem.id,
        "prompt": prompt,
        "answer": first.problem.answer,
    }
    if first.problem.tools:
        row["tools"] = first.problem.tools
    if first.problem.template_kwargs:
        row["chat_template_kwargs"] = dict(first.problem.template_kwargs)
    row |= {name: rollout.text for name, rollout in zip(names, rollouts, strict=True)}
    row |= {"prompt_ids": first.prompt_ids}
    row |= {
        f"{name}_ids": rollout.response_ids for name, rollout in zip(names, rollouts, strict=True)
    }
    return row | {"tokenizer": tokenizer}


def _summary(
    solutions: Sequence[Solution], attempts: Mapping[str, Sequence[Attempt]]
) -> dict[str, float]:
    """Figures for choosing the temperature.

    The authors aim for about ten different wrong answers per problem that has any.
    """
    wrong = [
        {attempt.answer for attempt in own if attempt.answer and not attempt.correct}
        for own in attempts.values()
    ]
    erring = [len(answers) for answers in wrong if answers]
    return {
        "num_problems": float(len(attempts)),
        "num_solutions": float(len(solutions)),
        "correct_share": sum(s.correct for s in solutions) / len(solutions),
        "unusable_share": sum(not _usable(s) for s in solutions) / len(solutions),
        "wrong_answers_mean": sum(erring) / max(len(erring), 1),
    }
