"""The prompts of a teacher that sees more than the student: their text, their ids, their limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from reasontrain import models
from reasontrain.models import Description, ModelSettings
from reasontrain.recipe import RecipeError, TeacherPromptSettings, read_recipe
from reasontrain.run.teacher_prompts import TeacherPrompts, teacher_prompts_of
from reasontrain.types import Episode, Problem, Prompt, Rollout, RunError, UserError

TIP = Path(__file__).resolve().parents[2] / "recipes/tiny/tip.yaml"
PROBLEM = Problem(
    id="p", prompt="2 + 3?", answer="{5}", source="data.jsonl:7", about={"hint": "count"}
)


@pytest.fixture(scope="module")
def described() -> Description:
    return models.describe(ModelSettings(path="testbed:student"))


def prompts(described: Description, template: str, *overrides: str) -> TeacherPrompts:
    plain = ["prompt.style=plain", f"teacher.prompt.template={json.dumps(template)}"]
    recipe = read_recipe(TIP, [*plain, *overrides])
    used = teacher_prompts_of(recipe, described)
    assert used is not None
    return used


def ids_of(described: Description, text: str) -> tuple[int, ...]:
    return tuple(described.tokenizer(text)["input_ids"])


def test_columns_are_filled_in_once(described: Description) -> None:
    used = prompts(described, "{problem} ({hint}) \\boxed{{answer}} {problem}")
    (ids,) = used.ids([PROBLEM])
    # The answer is "{5}", whose braces name no column.
    assert ids == ids_of(described, "2 + 3? (count) \\boxed{{5}} 2 + 3?")
    asked = replace(PROBLEM, prompt="{answer}?")
    assert used.ids([asked])[0] == ids_of(described, "{answer}? (count) \\boxed{{5}} {answer}?")


def test_the_last_question_of_a_conversation_is_replaced(described: Description) -> None:
    turns = (
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "2 + 3?"},
    )
    used = prompts(described, "{problem} It is {answer}.")
    seen = used.seen_problem(replace(PROBLEM, prompt=turns))
    assert seen.prompt == (*turns[:2], {"role": "user", "content": "2 + 3? It is {5}."})


def rollout(prompt_ids: Sequence[int], num: int = 4, **changes: object) -> Rollout:
    return replace(
        Rollout(
            problem=PROBLEM,
            id=3,
            group=3,
            prompt_ids=tuple(prompt_ids),
            response_ids=(5,) * num,
        ),
        **changes,
    )


def test_a_rollout_keeps_its_response_behind_the_other_prompt(described: Description) -> None:
    used = prompts(described, "{problem}{answer}")
    own = ids_of(described, "2 + 3?")
    (seen,) = used.of([rollout(own)]).items()
    assert seen == (3, (ids_of(described, "2 + 3?{5}"), len(own)))
    (behind,) = used.seen([rollout(own)])
    assert behind == replace(rollout(own), prompt_ids=seen[1].ids)


def test_what_cannot_be_scored_is_one_sentence(described: Description) -> None:
    own = ids_of(described, "2 + 3?")
    context = described.context
    prompt = Prompt(problem=PROBLEM, ids=own)
    missing = prompts(described, "{problem}{hnt}")
    with pytest.raises(UserError) as error:
        missing.check_prompts([prompt])
    assert str(error.value) == (
        "data.jsonl:7: problem p has no `hnt`, which teacher.prompt.template names; it has: hint, "
        "problem, answer"
    )
    empty = prompts(described, "{problem}{solution}")
    with pytest.raises(UserError, match="has no `solution`"):
        empty.check_responses([rollout(own)])
    fits = prompts(described, "{problem}{answer}")
    fits.check_prompts([prompt])
    fits.check_responses([rollout(own)])
    long = prompts(described, "{problem}" * (context // len(own) - 1))
    with pytest.raises(UserError) as error:
        long.check_prompts([prompt])
    assert "teacher.prompt: 1 of 1 prompts of the teacher do not fit with their responses" in str(
        error.value
    )
    assert "a response of up to 120)" in str(error.value)
    length = len(long.ids([PROBLEM])[0])
    long.check_responses([rollout(own, context - length)])
    with pytest.raises(UserError, match="do not fit with their responses"):
        long.check_responses([rollout(own, context - length + 1)])
    with pytest.raises(RunError, match=f"teacher's context of {context}"):
        long.of([rollout(own, context - length + 1)])
    opened = rollout(own, episode=Episode(num_turns=1, has_opening=True))
    with pytest.raises(RunError, match=r"problem p with an observation .*return None from `reset`"):
        fits.of([opened])
    with pytest.raises(UserError, match="written behind other token ids"):
        fits.check_responses([rollout([*own, 5])])


def test_a_template_without_a_column_and_ranks_that_share_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="names no column"):
        TeacherPromptSettings(template="Think.")
    with pytest.raises(RecipeError, match="names no column"):
        read_recipe(TIP, ["teacher.prompt.template=Think."])
    shared = ["cluster.learners=2", "learn.zero.stage=1", "learn.sequence_parallel=2"]
    with pytest.raises(RecipeError, match="moves the response to other ranks"):
        read_recipe(TIP, ["teacher.prompt.template='{problem}'", *shared])
