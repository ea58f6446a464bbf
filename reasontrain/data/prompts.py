"""Problems -> token ids: the only place where text meets the chat template and the tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, overload, runtime_checkable

from reasontrain.types import AtLeastOne, Message, Problem, Prompt, Rollout, RunError, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBLEM = "{problem}"


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """How a problem is put to the model.

    `style: auto` uses the tokenizer's chat template where there is one; `plain` feeds the text as
    it is. `template` is the text around a problem, which stands for `{problem}` (worked examples
    before it, say). `enable_thinking` is passed to templates that know it (Qwen3). A prompt of more
    than `max_tokens`, or with no room for one token of response, is refused or dropped, as
    `too_long` says; what is dropped is counted.
    """

    style: Literal["auto", "chat", "plain"] = "auto"
    template: str = PROBLEM
    system: str | None = None
    enable_thinking: bool | None = None
    max_tokens: AtLeastOne | None = None
    too_long: Literal["refuse", "drop"] = "refuse"

    def __post_init__(self) -> None:
        if self.template.count(PROBLEM) != 1:
            raise ValueError(
                f"`template` should hold {PROBLEM} once, where the problem goes; it does "
                f"{self.template.count(PROBLEM)} times"
            )

    def around(self, problem: Problem) -> str | tuple[Message, ...]:
        """The problem as it is put; a conversation stays as it is."""
        if isinstance(problem.prompt, str):
            return self.template.replace(PROBLEM, problem.prompt)
        if self.template != PROBLEM:
            raise UserError(
                f"problem {problem.id} is a conversation, and `prompt.template` goes "
                f"around texts; leave it out"
            )
        return problem.prompt

    def turns(self, problem: Problem) -> list[Message]:
        """The problem as a conversation, the system turn first where there is one."""
        asked = self.around(problem)
        turns: list[Message] = (
            [{"role": "user", "content": asked}] if isinstance(asked, str) else [*asked]
        )
        if self.system is not None:
            if turns[0]["role"] == "system":
                raise UserError(
                    f"problem {problem.id} begins with a system turn, and `prompt.system` "
                    f"is a second one; leave one of them out"
                )
            turns.insert(0, {"role": "system", "content": self.system})
        return turns


MARK = "<image>"
"""Where a prompt's text shows its image, as data of LLaVA and others write it for all models."""


def without_image(problem: Problem) -> Problem:
    """The same problem as text alone."""

    def blind(text: str) -> str:
        return text.replace(f"{MARK}\n", "").replace(f"\n{MARK}", "").replace(MARK, "")

    if isinstance(problem.prompt, str):
        return replace(problem, image=None, prompt=blind(problem.prompt))
    turns = tuple(
        Message(role=turn["role"], content=blind(turn["content"])) for turn in problem.prompt
    )
    return replace(problem, image=None, prompt=turns)


@runtime_checkable
class Eyes(Protocol):
    """What an image model makes of an image in a prompt."""

    placeholder: str

    def expand(self, ids: Sequence[int], problem: Problem) -> tuple[int, ...]:
        """The ids with as many placeholders as the image has tokens."""
        ...


NUM_CHECKED = 64
"""Problems of a lazy sequence that are encoded before the run, to see whether prompts fit."""


class Encoder:
    """Encodes problems and demonstrations for one tokenizer, in one style."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        settings: PromptSettings,
        context: int,
        vision: Eyes | None = None,
    ) -> None:
        """`context` is the longest sequence, in tokens, that the model takes; `vision` is there for
        image models.
        """
        self.tokenizer, self.settings, self.vision = tokenizer, settings, vision
        self.limit = min(settings.max_tokens or context, context - 1)
        has_template = tokenizer.chat_template is not None
        if settings.style == "chat" and not has_template:
            raise UserError(
                "prompt.style is `chat`, and the tokenizer has no chat template; use "
                "`plain` or another model"
            )
        self.chat = has_template if settings.style == "auto" else settings.style == "chat"
        if not self.chat and settings.system is not None:
            raise UserError("prompt.system needs a chat template, and prompts are plain here")
        if not self.chat and settings.enable_thinking is not None:
            raise UserError(
                "prompt.enable_thinking needs a chat template, and prompts are plain here"
            )

    def prompt_ids(self, problem: Problem) -> tuple[int, ...]:
        """The ids that the model continues; an image stands where the text says `<image>`, or
        first in the first user turn.
        """
        if self.vision is None:
            if problem.image is not None:
                raise UserError(
                    f"problem {problem.id} has an image, and the model reads text alone; "
                    f"use an image model"
                )
            return self.text_ids(problem)
        if problem.image is None:
            raise UserError(
                f"problem {problem.id} has no image, and the model is an image model; give "
                f"one, or use a language model"
            )
        turns = (
            [Message(role="user", content=problem.prompt)]
            if isinstance(problem.prompt, str)
            else list(problem.prompt)
        )
        if not any(MARK in turn["content"] for turn in turns):
            first = next(i for i, turn in enumerate(turns) if turn["role"] == "user")
            turns[first] = Message(role="user", content=MARK + turns[first]["content"])
        marked = tuple(
            Message(role=t["role"], content=t["content"].replace(MARK, self.vision.placeholder))
            for t in turns
        )
        prompt = marked[0]["content"] if isinstance(problem.prompt, str) else marked
        return self.vision.expand(self.text_ids(replace(problem, prompt=prompt)), problem)

    def text_ids(self, problem: Problem) -> tuple[int, ...]:
        """The ids of a prompt as text, whatever image it has."""
        if not self.chat:
            asked = self.settings.around(problem)
            if not isinstance(asked, str):
                raise UserError(
                    f"problem {problem.id} is a conversation, and the tokenizer has no "
                    f"chat template to render it"
                )
            return tuple(self.tokenizer(asked)["input_ids"])
        turns = self.settings.turns(problem)
        thinking = (
            {}
            if self.settings.enable_thinking is None
            else {"enable_thinking": self.settings.enable_thinking}
        )
        from jinja2 import TemplateError  # transformers has loaded it where there is a template

        try:
            text = self.tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=False, **thinking
            )
        except TemplateError as error:
            raise UserError(
                f"problem {problem.id}: the model's chat template refuses it with "
                f"{str(error)!r}; {self._remedy(turns)}"
            ) from error
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def header_ids(self, header: str | None = None) -> tuple[int, ...]:
        """What stands before an answer whose question is left out, the same for all: BOS where
        prompts have it, and `header`, or what the chat template puts before an answer, or
        "Answer:".
        """
        if not self.chat:
            return tuple(self.tokenizer("Answer:" if header is None else header)["input_ids"])
        if header is None:
            thinking = (
                {}
                if self.settings.enable_thinking is None
                else {"enable_thinking": self.settings.enable_thinking}
            )
            turns = [{"role": "user", "content": "?"}]
            with_header, without = (
                self.tokenizer.apply_chat_template(
                    turns, add_generation_prompt=add, tokenize=False, **thinking
                )
                for add in (True, False)
            )
            header = with_header.removeprefix(without) if with_header.startswith(without) else ""
            if not header:
                raise UserError(
                    "the chat template puts nothing before an answer that could stand for "
                    "the prompt; say which text does, as "
                    "`unconditional.header`"
                )
            bos = self.tokenizer.bos_token
            header = f"{bos}{header}" if bos is not None and with_header.startswith(bos) else header
        return tuple(self.tokenizer(header, add_special_tokens=False)["input_ids"])

    def _remedy(self, turns: Sequence[Message]) -> str:
        """What most likely helps where the template refuses these turns; many know no system turn."""
        if self.settings.system is not None:
            return "leave out `prompt.system` (the task's `instruction` can say the same)"
        if turns[0]["role"] == "system":
            return "take the system turn out of the data (a user turn can say the same)"
        return (
            "mend the order of the turns"
            if len(turns) > 1
            else "use `prompt.style: plain` or another model"
        )

    def prompt(self, problem: Problem) -> Prompt:
        """The problem with its ids, however many; raises UserError where there are none."""
        ids = self.prompt_ids(problem)
        if not ids:
            raise UserError(f"problem {problem.id} has an empty prompt")
        return Prompt(problem=problem, ids=ids)

    def prompts(self, problems: Sequence[Problem]) -> tuple[list[Prompt], int]:
        """The prompts that fit, in order, and how many were dropped."""
        encoded = [self.prompt(problem) for problem in problems]
        fitting = [prompt for prompt in encoded if len(prompt.ids) <= self.limit]
        if len(fitting) < len(encoded) and self.settings.too_long == "refuse":
            worst = max(encoded, key=lambda prompt: len(prompt.ids))
            raise UserError(
                f"{len(encoded) - len(fitting)} of {len(encoded)} prompts have more than "
                f"{self.limit} tokens (the longest is "
                f"{worst.problem.id} with {len(worst.ids)}); raise prompt.max_tokens or "
                f"set `prompt.too_long: drop`"
            )
        if not fitting:
            raise UserError(f"none of {len(encoded)} prompts fits into {self.limit} tokens")
        return fitting, len(encoded) - len(fitting)

    def lazy_prompts(self, problems: Sequence[Problem]) -> LazyPrompts:
        """The prompts of all problems, each encoded when it is read.

        The first `NUM_CHECKED` are encoded now: a limit that is far too low raises UserError at
        once.
        """
        self.prompts(problems[:NUM_CHECKED])
        return LazyPrompts(self, problems)

    def demonstrations(self, prompts: Sequence[Prompt], context: int) -> tuple[list[Rollout], int]:
        """The solutions as rollouts that somebody else wrote, ended by the end-of-turn token; what
        does not fit is dropped.
        """
        end = self.tokenizer.eos_token_id
        if end is None:
            raise UserError(
                "the tokenizer has no end-of-text token (eos_token) for demonstrations to "
                "end with; use another model"
            )
        rollouts = []
        for index, prompt in enumerate(prompts):
            if not prompt.problem.solution:
                raise UserError(
                    f"problem {prompt.problem.id} has no `solution` to learn from; add one "
                    f"or sample with `sample:`"
                )
            ids = [
                *self.tokenizer(prompt.problem.solution, add_special_tokens=False)["input_ids"],
                end,
            ]
            if len(prompt.ids) + len(ids) <= context:
                rollouts.append(
                    Rollout(
                        problem=prompt.problem,
                        id=index,
                        group=index,
                        prompt_ids=prompt.ids,
                        response_ids=tuple(ids),
                        text=prompt.problem.solution,
                    )
                )
        if not rollouts:
            raise UserError(
                f"none of {len(prompts)} demonstrations fits into a context of {context} tokens"
            )
        return rollouts, len(prompts) - len(rollouts)


class LazyPrompts(Sequence[Prompt]):
    """The prompts of generated problems, each encoded when it is read, and not kept.

    They are as many as the problems, so none can be dropped: one that is too long raises RunError
    when it is read (`prompt.too_long: drop` encodes all prompts before the run).
    """

    def __init__(self, encoder: Encoder, problems: Sequence[Problem]) -> None:
        self._encoder = encoder
        self._problems = problems

    def __len__(self) -> int:
        return len(self._problems)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...

    @overload
    def __getitem__(self, index: slice) -> list[Prompt]: ...

    def __getitem__(self, index: int | slice) -> Prompt | list[Prompt]:
        if isinstance(index, slice):
            return [self._read(problem) for problem in self._problems[index]]
        return self._read(self._problems[index])

    def _read(self, problem: Problem) -> Prompt:
        prompt, limit = self._encoder.prompt(problem), self._encoder.limit
        if len(prompt.ids) > limit:
            raise RunError(
                f"the prompt of problem {problem.id} has {len(prompt.ids)} tokens, more than "
                f"{limit}; raise prompt.max_tokens or set `prompt.too_long: drop`"
            )
        return prompt
