"""Observations of an environment -> token ids that continue a sampled conversation.

The ids of a turn stay as they were sampled. An observation is encoded alone and put behind them:
as text (`inline`), or as a turn with the marks that the chat template writes around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from reasontrain.data.environment import Role
from reasontrain.data.rendering import TemplateFailedError, render
from reasontrain.types import Message, Prompt, UserError

ANSWER = "\N{WHITE SQUARE}answer\N{WHITE SQUARE}"
OBSERVATION = "\N{WHITE SQUARE}observation\N{WHITE SQUARE}"
"""Stand for the contents of turns where a template is asked for the text between them."""
THINKING: tuple[Mapping[str, object], ...] = (
    {},
    {"enable_thinking": False},
    {"enable_thinking": True},
)
"""Variables of templates that change the header of an answer; the prompt tells which were used."""


@dataclass(frozen=True)
class TurnMarks:
    """Ids that a template writes around an observation.

    Attributes:
        header: the header of an answer, with which prompts end.
        before: between an answer and an observation, with the end of the answer's turn.
        after: between an observation and the next answer.
    """

    header: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]


class ObservationEncoder:
    """Encodes observations in one role."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, role: Role, *, max_tokens: int) -> None:
        """Prepare for a tokenizer.

        Args:
            tokenizer: the model's tokenizer.
            role: the form of observations.
            max_tokens: tokens after which an observation is cut.

        Raises:
            UserError: the role needs a chat template, and there is none.
        """
        if role != "inline" and tokenizer.chat_template is None:
            raise UserError(
                f"environment.role: `{role}` is a turn of a chat template, and the tokenizer has "
                "none; use `role: inline`"
            )
        self.tokenizer = tokenizer
        self.role = role
        self.max_tokens = max_tokens
        self._marks: dict[str, list[tuple[TurnMarks, Mapping[str, object]]]] = {}

    def opening(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        """The ids of a prompt that an observation follows before the first turn."""
        content, _ = self._content(text)
        if self.role == "inline":
            return prompt.ids + content
        marks, kwargs = self._marks_of(prompt)
        question: Message = {"role": "user", "content": ANSWER}
        observation: Message = {"role": self.role, "content": OBSERVATION}
        alone = self._text((question,), kwargs, header=False).partition(ANSWER)[2]
        both = self._text((question, observation), kwargs, header=True).partition(ANSWER)[2]
        between = both.partition(OBSERVATION)[0].removeprefix(alone)
        question_ids = prompt.ids[: len(prompt.ids) - len(marks.header)]
        return question_ids + self._encode(between) + content + marks.after

    def following(
        self, prompt: Prompt, turn: Sequence[int], text: str
    ) -> tuple[tuple[int, ...], bool]:
        """Encode the observation after a turn.

        Args:
            prompt: the prompt of the conversation.
            turn: the ids of the turn.
            text: the observation.

        Returns:
            The ids between this turn and the next, and True if the observation was cut.
        """
        content, is_cut = self._content(text)
        if self.role == "inline":
            return content, is_cut
        marks, _ = self._marks_of(prompt)
        before = marks.before
        # The token that ended the turn is not written again; a stop text ended it without one.
        if turn and turn[-1] in before:
            before = before[before.index(turn[-1]) + 1 :]
        return before + content + marks.after, is_cut

    def check(self, prompt: Prompt) -> None:
        """Raise UserError if observations cannot follow this prompt."""
        if self.role != "inline":
            self._marks_of(prompt)

    def _content(self, text: str) -> tuple[tuple[int, ...], bool]:
        """The ids of a text, in which special tokens are text too, and True if they were cut."""
        ids = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
        return tuple(ids[: self.max_tokens]), len(ids) > self.max_tokens

    def _marks_of(self, prompt: Prompt) -> tuple[TurnMarks, Mapping[str, object]]:
        """The marks of the template as it wrote the prompt, and its variables."""
        own = prompt.problem.template_kwargs
        key = repr(sorted(own.items()))
        if key not in self._marks:
            variables = [{**each, **own} for each in THINKING]
            self._marks[key] = [(self._render(each), each) for each in variables]
        for marks, variables_of_marks in self._marks[key]:
            if prompt.ids[len(prompt.ids) - len(marks.header) :] == marks.header:
                return marks, variables_of_marks
        raise UserError(
            f"environment.role: the prompt of {prompt.problem.label} does not end with the header "
            f"that the chat template writes before an answer, so no turn of role {self.role} can "
            "follow; use `role: inline`, or prompts in the style of the template"
        )

    def _render(self, kwargs: Mapping[str, object]) -> TurnMarks:
        """The marks that a template writes with these variables."""
        question: Message = {"role": "user", "content": "x"}
        answer: Message = {"role": "assistant", "content": ANSWER}
        observation: Message = {"role": self.role, "content": OBSERVATION}
        alone = self._text((question,), kwargs, header=False)
        header = self._text((question,), kwargs, header=True).removeprefix(alone)
        whole = self._text((question, answer, observation), kwargs, header=True)
        before, written, after = whole.partition(ANSWER)[2].partition(OBSERVATION)
        if not written:
            raise UserError(
                f"environment.role: the chat template does not render a turn of role {self.role}; "
                "use `role: user` or `role: inline`"
            )
        return TurnMarks(
            header=self._encode(header), before=self._encode(before), after=self._encode(after)
        )

    def _text(self, turns: Sequence[Message], kwargs: Mapping[str, object], *, header: bool) -> str:
        """The text of some turns, with the header of an answer or without."""
        try:
            return render(
                self.tokenizer,
                turns,
                where=f"environment.role: {self.role}",
                add_generation_prompt=header,
                kwargs=kwargs,
            )
        except TemplateFailedError as error:
            raise error.with_remedy("use `role: user` or `role: inline`") from error

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
