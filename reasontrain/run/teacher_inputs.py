"""Inputs of teachers that the student does not share: their prompts, and the choice of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reasontrain.data.prompts import NUM_CHECKED, LazyPrompts
from reasontrain.models import Description
from reasontrain.recipe import Recipe, TeacherByColumn
from reasontrain.run.teacher_prompts import TeacherPrompts, teacher_prompts_of
from reasontrain.types import Batch, Problem, Prompt, Rollout, UserError, listed, printable


@dataclass(frozen=True)
class TeacherInputs:
    """Adds to a batch what its teachers need of the problems.

    Attributes:
        prompts: encodes the prompts of a teacher that sees others than the student.
        choice: says which of several teachers a problem has.
    """

    prompts: TeacherPrompts | None = None
    choice: TeacherByColumn | None = None

    def __call__(self, batch: Batch, rollouts: Sequence[Rollout]) -> Batch:
        """The batch with `teacher_prompts` and `teacher_index`.

        Args:
            batch: the batch.
            rollouts: those of the batch, and others that a filter left out.

        Raises:
            UserError: a problem lacks a column.
            RunError: prompt and response are longer than the teacher's context.
        """
        in_batch = {*batch.rollout_B.tolist()}
        kept = [rollout for rollout in rollouts if rollout.id in in_batch]
        if self.prompts is not None:
            batch = replace(batch, teacher_prompts=self.prompts.of(kept))
        if self.choice is not None:
            index = {rollout.id: teacher_of(self.choice, rollout.problem) for rollout in kept}
            batch = replace(batch, teacher_index=index)
        return batch

    def check(self, prompts: Sequence[Prompt], responses: Sequence[Rollout] | None) -> None:
        """Check before a run that every problem has what the teachers need.

        Of generated problems, which are encoded when they are read, the first are checked.

        Args:
            prompts: the prompts of the run.
            responses: the written responses; None if they are sampled.

        Raises:
            UserError: a problem lacks a column, has no teacher, or is too long for it.
        """
        if isinstance(prompts, LazyPrompts):
            prompts = prompts[:NUM_CHECKED]
        if self.choice is not None:
            for prompt in prompts:
                teacher_of(self.choice, prompt.problem)
        if self.prompts is None:
            return
        if responses is None:
            self.prompts.check_prompts(prompts)
        else:
            self.prompts.check_responses(responses)


def teacher_of(choice: TeacherByColumn, problem: Problem) -> int:
    """The number of the problem's teacher; raises UserError if no teacher has its value."""
    value = problem.about.get(choice.column)
    if value is None:
        raise UserError(
            f"{problem.where} has no `{choice.column}`, the column of teacher.column; it has: "
            f"{listed(problem.about)}"
        )
    values = [teacher.value for teacher in choice.teachers]
    if value not in values:
        raise UserError(
            f"{problem.where} has {printable(repr(value))} in the column `{choice.column}`, and "
            f"teacher.teachers has no teacher of this value (it has: {listed(values)})"
        )
    return values.index(value)


def teacher_inputs_of(recipe: Recipe, described: Description) -> TeacherInputs | None:
    """Inputs of the recipe's teachers from the problems; None if the student reads the same."""
    prompts = teacher_prompts_of(recipe, described)
    choice = recipe.teacher if isinstance(recipe.teacher, TeacherByColumn) else None
    return None if prompts is None and choice is None else TeacherInputs(prompts, choice)
