"""Rendering of turns by a tokenizer's chat template, with one error for all that it may raise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from reasontrain.types import Message, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Fields of a turn that hold its thought."""


class TemplateFailedError(UserError):
    """The template refuses a conversation; `reason` is what it says."""

    def __init__(self, where: str, reason: str, remedy: str = "correct the conversation") -> None:
        super().__init__(f"{where}: the model's chat template fails with {reason!r}; {remedy}")
        self.where = where
        self.reason = reason

    def with_remedy(self, remedy: str) -> TemplateFailedError:
        """The same error with another end."""
        return TemplateFailedError(self.where, self.reason, remedy)


def render(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Message],
    *,
    where: str,
    add_generation_prompt: bool,
    tools: Sequence[Mapping[str, object]] = (),
    kwargs: Mapping[str, object] | None = None,
) -> str:
    """The text of a conversation.

    Args:
        tokenizer: a tokenizer with a chat template.
        turns: at least one turn, with the fields that the template is to get.
        where: the row, for errors.
        add_generation_prompt: end with the header of an answer.
        tools: descriptions of the tools that the conversation may call.
        kwargs: other variables of the template.

    Raises:
        TemplateFailedError: the template refuses the conversation.
    """
    # transformers has imported jinja2 already if there is a template.
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(
            [_with_thought(turn) for turn in turns],
            tools=[dict(tool) for tool in tools] or None,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
            **(kwargs or {}),
        )
    # Besides TemplateError, the errors of Python's operators inside a template: `None + "x"`,
    # `1 // 0`, a macro that calls itself without end.
    except (
        TemplateError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise TemplateFailedError(where, str(error)) from error
    assert isinstance(text, str)
    return text


def _with_thought(turn: Message) -> dict[str, object]:
    """The turn with its thought under the two names that templates read.

    gpt-oss reads `thinking`, the others `reasoning_content`. Newer transformers fill both in as
    well; 5.19 shows a template only the name in the data.
    """
    thought = next((turn[name] for name in THOUGHT_FIELDS if turn.get(name) is not None), None)
    if thought is None:
        return dict(turn)
    return {"thinking": thought, **turn, "reasoning_content": thought}
