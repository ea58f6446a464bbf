"""Problems -> token ids: the only module that applies the chat template and the tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, overload, runtime_checkable

from reasontrain.data import thought_marks
from reasontrain.types import AtLeastOne, Message, Problem, Prompt, Rollout, RunError, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBLEM = "{problem}"


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """The form in which problems are presented to the model.

    Attributes:
        style: "auto" uses the tokenizer's chat template if it has one; "plain" feeds the text as it
            is.
        template: text around a problem, with `{problem}` in its place (for example after worked
            examples).
        system: a system turn before the problem.
        enable_thinking: passed to chat templates that support it (Qwen3).
        max_tokens: limit of a prompt in tokens; None is the context length minus one response
            token.
        too_long: "refuse" makes a longer prompt an error, "drop" drops and counts it.
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

    def prompt_of(self, problem: Problem) -> str | tuple[Message, ...]:
        """The problem's text inside the template; a conversation stays as it is."""
        if isinstance(problem.prompt, str):
            return self.template.replace(PROBLEM, problem.prompt)
        if self.template != PROBLEM:
            raise UserError(
                f"problem {problem.id} is a conversation, and `prompt.template` applies to texts "
                f"only; leave it out"
            )
        return problem.prompt

    def turns(self, problem: Problem) -> list[Message]:
        """The problem as a conversation, with the system turn first if there is one."""
        prompt = self.prompt_of(problem)
        turns: list[Message] = (
            [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [*prompt]
        )
        if self.system is not None:
            if turns[0]["role"] == "system":
                raise UserError(
                    f"problem {problem.id} begins with a system turn, and `prompt.system` "
                    f"is a second one; leave one of them out"
                )
            turns.insert(0, {"role": "system", "content": self.system})
        return turns


IMAGE_MARK = "<image>"
"""Marks the place of the image in a prompt's text, as in LLaVA's data, whatever the model."""


def without_image(problem: Problem) -> Problem:
    """The same problem without its image and the marks of its place."""

    def unmarked(text: str) -> str:
        text = text.replace(f"{IMAGE_MARK}\n", "").replace(f"\n{IMAGE_MARK}", "")
        return text.replace(IMAGE_MARK, "")

    if isinstance(problem.prompt, str):
        return replace(problem, image=None, prompt=unmarked(problem.prompt))
    turns = tuple(
        Message(role=turn["role"], content=unmarked(turn["content"])) for turn in problem.prompt
    )
    return replace(problem, image=None, prompt=turns)


@runtime_checkable
class ImagePlaceholders(Protocol):
    """The placeholder tokens that stand for an image in the prompts of an image model."""

    placeholder: str

    def expand(self, ids: Sequence[int], problem: Problem) -> tuple[int, ...]:
        """The ids with one placeholder for each token of the problem's image."""
        ...


NUM_CHECKED = 64
"""Problems of a lazy sequence that are encoded before the run, to check that prompts fit."""
HEADROOM = 2
"""Prompts are encoded lazily if the longest of those checked could be this many times as long."""


class Encoder:
    """Encodes problems and demonstrations for one tokenizer, in one style."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        settings: PromptSettings,
        context: int,
        vision: ImagePlaceholders | None = None,
    ) -> None:
        """Check the settings against the tokenizer.

        Args:
            tokenizer: the model's tokenizer.
            settings: the recipe's `prompt` section.
            context: longest sequence of the model, in tokens.
            vision: placeholders of an image model; None for a language model.

        Raises:
            UserError: a setting needs a chat template, and there is none.
        """
        self.tokenizer = tokenizer
        self.settings = settings
        self.vision = vision
        # At least one token of the context is left for the response.
        self.limit = min(settings.max_tokens or context, context - 1)
        has_template = tokenizer.chat_template is not None
        if settings.style == "chat" and not has_template:
            raise UserError(
                "prompt.style is `chat`, and the tokenizer has no chat template; use `plain` or "
                "another model"
            )
        self.chat = has_template if settings.style == "auto" else settings.style == "chat"
        if not self.chat and settings.system is not None:
            raise UserError("prompt.system needs a chat template, and prompts are plain")
        if not self.chat and settings.enable_thinking is not None:
            raise UserError("prompt.enable_thinking needs a chat template, and prompts are plain")

    def prompt_ids(self, problem: Problem) -> tuple[int, ...]:
        """The ids that the model continues.

        An image is placed at `<image>` in the text, or at the start of the first user turn. Raises
        UserError if the problem has an image and the model takes none, or the reverse.
        """
        if self.vision is None:
            if problem.image is not None:
                raise UserError(
                    f"problem {problem.id} has an image, and the model reads text only; "
                    f"use an image model"
                )
            return self.text_ids(problem)
        if problem.image is None:
            raise UserError(
                f"problem {problem.id} has no image, and the model is an image model; add one, or "
                f"use a language model"
            )
        turns = (
            [Message(role="user", content=problem.prompt)]
            if isinstance(problem.prompt, str)
            else list(problem.prompt)
        )
        if not any(IMAGE_MARK in turn["content"] for turn in turns):
            first = next(i for i, turn in enumerate(turns) if turn["role"] == "user")
            turns[first] = Message(role="user", content=IMAGE_MARK + turns[first]["content"])
        marked = tuple(
            Message(
                role=turn["role"],
                content=turn["content"].replace(IMAGE_MARK, self.vision.placeholder),
            )
            for turn in turns
        )
        prompt = marked[0]["content"] if isinstance(problem.prompt, str) else marked
        return self.vision.expand(self.text_ids(replace(problem, prompt=prompt)), problem)

    def text_ids(self, problem: Problem) -> tuple[int, ...]:
        """The ids of a prompt as text, without regard to its image."""
        if not self.chat:
            prompt = self.settings.prompt_of(problem)
            if not isinstance(prompt, str):
                raise UserError(
                    f"problem {problem.id} is a conversation, and the tokenizer has no "
                    f"chat template to render it"
                )
            return tuple(self.tokenizer(prompt)["input_ids"])
        turns = self.settings.turns(problem)
        thinking = (
            {}
            if self.settings.enable_thinking is None
            else {"enable_thinking": self.settings.enable_thinking}
        )
        # transformers has imported jinja2 already if there is a template.
        from jinja2 import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=False, **thinking
            )
        except TemplateError as error:
            raise UserError(
                f"problem {problem.id}: the model's chat template fails with {str(error)!r}; "
                f"{self._remedy(turns)}"
            ) from error
        # Templates write BOS themselves; the tokenizer would add a second one.
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def header_ids(self, header: str | None = None) -> tuple[int, ...]:
        """The ids that replace the prompt of an unconditional reference, equal for all problems.

        BOS if prompts start with it, then `header`; if that is None, the text that the chat
        template writes before an answer, or "Answer:" without a template. Raises UserError if the
        template writes none.
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
            # The header is what `add_generation_prompt` appends to the same conversation.
            header = with_header.removeprefix(without) if with_header.startswith(without) else ""
            if not header:
                raise UserError(
                    "the chat template writes no header before an answer that could replace the "
                    "prompt; set the text as `unconditional.header`"
                )
            bos = self.tokenizer.bos_token
            header = f"{bos}{header}" if bos is not None and with_header.startswith(bos) else header
        return tuple(self.tokenizer(header, add_special_tokens=False)["input_ids"])

    def _remedy(self, turns: Sequence[Message]) -> str:
        """The likeliest remedy for a template error; many templates have no system turn."""
        if self.settings.system is not None:
            return "leave out `prompt.system` (use the task's `instruction` instead)"
        if turns[0]["role"] == "system":
            return "remove the system turn from the data (move its text to a user turn)"
        return (
            "correct the order of the turns"
            if len(turns) > 1
            else "use `prompt.style: plain` or another model"
        )

    def prompt(self, problem: Problem) -> Prompt:
        """The problem with its ids, of any number; raises UserError if there are none."""
        ids = self.prompt_ids(problem)
        if not ids:
            raise UserError(f"problem {problem.id} has an empty prompt")
        prompt = problem.prompt
        thought = thought_marks.prompt_state(
            self.tokenizer,
            ids,
            question=prompt if isinstance(prompt, str) else prompt[-1]["content"],
            chat=self.chat,
            thinking=self.settings.enable_thinking,
        )
        return Prompt(problem=problem, ids=ids, thought=thought)

    def prompts(self, problems: Sequence[Problem]) -> tuple[list[Prompt], int]:
        """The prompts that fit, in order, and the number that were dropped.

        Raises UserError for an empty prompt, for one that is too long unless `too_long` is "drop",
        and if none fits.
        """
        encoded = [self.prompt(problem) for problem in problems]
        fitting = [prompt for prompt in encoded if len(prompt.ids) <= self.limit]
        if len(fitting) < len(encoded) and self.settings.too_long == "refuse":
            worst = max(encoded, key=lambda prompt: len(prompt.ids))
            raise UserError(
                f"{len(encoded) - len(fitting)} of {len(encoded)} prompts have more than "
                f"{self.limit} tokens (the longest is {worst.problem.id} with {len(worst.ids)}); "
                f"raise prompt.max_tokens or set `prompt.too_long: drop`"
            )
        if not fitting:
            raise UserError(f"none of {len(encoded)} prompts fits into {self.limit} tokens")
        return fitting, len(encoded) - len(fitting)

    def lazy_prompts(self, problems: Sequence[Problem]) -> Sequence[Prompt]:
        """The prompts of all problems, each encoded when it is read, if none can be too long.

        All are encoded now, so that one that is too long is refused before the first step, unless
        the limit leaves every one of the first `NUM_CHECKED` `HEADROOM` times its length.
        """
        checked, _ = self.prompts(problems[:NUM_CHECKED])
        if HEADROOM * max(len(prompt.ids) for prompt in checked) > self.limit:
            return self.prompts(problems)[0]
        return LazyPrompts(self, problems)

    def demonstrations(self, prompts: Sequence[Prompt], context: int) -> tuple[list[Rollout], int]:
        """The problems' solutions as rollouts, and the number that were dropped.

        Each ends with the end-of-turn token. One that is longer than `context` tokens with its
        prompt is dropped. Raises UserError if a problem has no solution, the tokenizer has no
        end-of-turn token, or nothing fits.
        """
        end = self.tokenizer.eos_token_id
        if end is None:
            raise UserError(
                "the tokenizer has no end-of-text token (eos_token) to end demonstrations with; "
                "use another model"
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
    """The prompts of generated problems, each encoded when it is read and not cached.

    There is one for every problem, so none can be dropped: one that is too long raises RunError
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
        prompt = self._encoder.prompt(problem)
        limit = self._encoder.limit
        if len(prompt.ids) > limit:
            raise RunError(
                f"the prompt of problem {problem.id} has {len(prompt.ids)} tokens, more than "
                f"{limit}; begin a new run with `prompt.too_long: drop` or a higher "
                f"prompt.max_tokens"
            )
        return prompt
