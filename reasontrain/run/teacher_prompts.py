"""Prompts of a teacher that sees other text than the student, encoded and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from reasontrain import models
from reasontrain.data.prompts import PROBLEM
from reasontrain.models import Description
from reasontrain.recipe import Recipe, StoredTeacher, TeacherPromptSettings
from reasontrain.run.datasets import encoder_of
from reasontrain.types import (
    Problem,
    Prompt,
    Rollout,
    RunError,
    TeacherPrompt,
    UserError,
    listed,
    text_of,
)


class TeacherPrompts:
    """Encodes problems as the teacher sees them."""

    def __init__(
        self, recipe: Recipe, settings: TeacherPromptSettings, described: Description
    ) -> None:
        """Build the encoder, and read the teacher's context.

        Args:
            recipe: the recipe, whose `prompt` holds for the teacher in all else.
            settings: `teacher.prompt`.
            described: the student, whose tokenizer both use.
        """
        self.settings = settings
        self.recipe = recipe
        self.described = described
        system = recipe.prompt.system if settings.system is None else settings.system
        self._encoder = encoder_of(
            described, replace(recipe.prompt, template=PROBLEM, system=system)
        )
        self._context = _context_of(recipe)

    def ids(self, problems: Sequence[Problem]) -> list[tuple[int, ...]]:
        """The ids of the teacher's prompts; raises UserError for a column that is not there."""
        texts = [self._encoder.text(self.seen_problem(problem)) for problem in problems]
        return self._encoder.encode(texts)

    def of(self, rollouts: Sequence[Rollout]) -> dict[int, TeacherPrompt]:
        """The teacher's prompt of each rollout, by the rollout's id.

        Raises:
            UserError: a problem lacks a column of the template.
            RunError: prompt and response are longer than the teacher's context, or the student's
                prompt has an observation that the teacher would not see.
        """
        opened = [each for each in rollouts if each.episode and each.episode.has_opening]
        if opened:
            raise RunError(
                f"the environment began the conversation of {opened[0].problem.label} with an "
                "observation (`reset`), which the prompt of teacher.prompt would replace; return "
                "None from `reset`, or remove teacher.prompt"
            )
        problems = {rollout.problem.id: rollout.problem for rollout in rollouts}
        ids = dict(zip(problems, self.ids(list(problems.values())), strict=True))
        prompts = {}
        for rollout in rollouts:
            prompt = ids[rollout.problem.id]
            if self._context is not None and (
                len(prompt) + len(rollout.response_ids) > self._context
            ):
                raise RunError(
                    f"the teacher's prompt of {rollout.problem.label} has {len(prompt)} tokens, "
                    f"and with the response of {len(rollout.response_ids)} it is longer than the "
                    f"teacher's context of {self._context}; begin a new run with a shorter "
                    f"teacher.prompt.template or a lower sample.max_tokens"
                )
            prompts[rollout.id] = TeacherPrompt(prompt, len(rollout.prompt_ids))
        return prompts

    def seen(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """The rollouts with the teacher's prompts in place of the student's."""
        prompts = self.of(rollouts)
        return [replace(rollout, prompt_ids=prompts[rollout.id].ids) for rollout in rollouts]

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Check before a run that samples that every problem has a prompt that fits.

        Raises:
            UserError: a problem lacks a column, or a prompt and the longest response do not fit.
        """
        sample = self.recipe.sample
        assert sample is not None, "written responses are checked in another way"
        room = [
            min(sample.max_tokens, self.described.context - len(prompt.ids)) for prompt in prompts
        ]
        self._check([prompt.problem for prompt in prompts], room)

    def check_responses(self, rollouts: Sequence[Rollout]) -> None:
        """Check written responses: each begins where its problem's prompt ends, and fits.

        Raises:
            UserError: a problem lacks a column, its response follows other ids than its prompt, or
                it is too long for the teacher.
        """
        problems = [rollout.problem for rollout in rollouts]
        self._check(problems, [len(rollout.response_ids) for rollout in rollouts])
        student = encoder_of(self.described, self.recipe.prompt)
        own = student.encode([student.text(problem) for problem in problems])
        for rollout, ids in zip(rollouts, own, strict=True):
            if rollout.prompt_ids != ids:
                raise UserError(
                    f"{rollout.problem.where}: its response was written behind other token ids "
                    f"than those of its prompt, so the teacher's prompt cannot take their place; "
                    f"remove the column prompt_ids, or teacher.prompt"
                )

    def _check(self, problems: Sequence[Problem], responses: Sequence[int]) -> None:
        """Check columns and lengths, of the longest responses in tokens."""
        lengths = [len(ids) for ids in self.ids(problems)]
        if self._context is None:
            return  # the server refuses what is too long
        totals = [prompt + response for prompt, response in zip(lengths, responses, strict=True)]
        too_long = sum(total > self._context for total in totals)
        if too_long:
            worst = max(range(len(totals)), key=totals.__getitem__)
            raise UserError(
                f"teacher.prompt: {too_long} of {len(totals)} prompts of the teacher do not fit "
                f"with their responses into its context of {self._context} tokens (the longest, "
                f"{problems[worst].where}, has {lengths[worst]} and a response of up to "
                f"{responses[worst]}); shorten the template, or the responses (sample.max_tokens)"
            )

    def seen_problem(self, problem: Problem) -> Problem:
        """The problem as the teacher sees it."""
        prompt = problem.prompt
        if isinstance(prompt, str):
            return replace(problem, prompt=self._filled(problem, prompt))
        last = max(i for i, turn in enumerate(prompt) if turn["role"] == "user")
        turn = {**prompt[last], "content": self._filled(problem, text_of(prompt[last]))}
        return replace(problem, prompt=(*prompt[:last], turn, *prompt[last + 1 :]))

    def _filled(self, problem: Problem, question: str) -> str:
        """The template with the columns of this problem."""
        columns = _columns(problem, question)
        try:
            return self.settings.filled(columns)
        except KeyError as error:
            raise UserError(
                f"{problem.where} has no `{error.args[0]}`, which teacher.prompt.template names; "
                f"it has: {listed(columns)}"
            ) from None


def _columns(problem: Problem, question: str) -> Mapping[str, str]:
    """The texts that a template may name, without those that are empty."""
    own = {"problem": question, "answer": problem.answer, "solution": problem.solution}
    return {**problem.about, **{name: text for name, text in own.items() if text.strip()}}


def _context_of(recipe: Recipe) -> int | None:
    """The longest sequence of all teachers in tokens; None if only a server knows it."""
    if isinstance(recipe.teacher, StoredTeacher):
        return models.describe(recipe.teacher.model).context
    contexts = [models.describe(each).context for each in recipe.teacher_models.values()]
    return min(contexts, default=None)


def teacher_prompts_of(recipe: Recipe, described: Description) -> TeacherPrompts | None:
    """The prompts of the recipe's teacher; None if it sees those of the student."""
    settings = recipe.teacher.prompt if recipe.teacher is not None else None
    return None if settings is None else TeacherPrompts(recipe, settings, described)
