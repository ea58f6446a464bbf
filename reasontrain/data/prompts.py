"""Problems -> token ids: the prompts that inference sends and training continues."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, overload, runtime_checkable

from reasontrain.data import thought_marks
from reasontrain.data.files import BadRows
from reasontrain.data.progress import with_progress
from reasontrain.data.rendering import TemplateFailedError
from reasontrain.data.templates import (
    ChatTemplate,
    Conversation,
    end_of_text,
)
from reasontrain.data.tokenization import Tokenization
from reasontrain.types import (
    AtLeastOne,
    Message,
    Problem,
    Prompt,
    RunError,
    UserError,
    text_of,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

R = TypeVar("R")
T = TypeVar("T")

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
        train_on: the turns of a written conversation that are learned: every turn of the assistant
            (`all_assistant`) or its last one (`last_assistant`). A preference pair is compared on
            all turns of its two sides.
        ignored_fields: fields of messages that are not for the chat template; any other field that
            the template does not render is an error.
        max_tokens: limit of a prompt in tokens; None is the context length minus one response
            token.
        too_long: "refuse" makes a longer prompt an error, "drop" drops and counts it.
    """

    style: Literal["auto", "chat", "plain"] = "auto"
    template: str = PROBLEM
    system: str | None = None
    enable_thinking: bool | None = None
    train_on: Literal["all_assistant", "last_assistant"] = "all_assistant"
    ignored_fields: tuple[str, ...] = ()
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
                f"{problem.where} is a conversation, and `prompt.template` applies to texts "
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
                    f"{problem.where} begins with a system turn, and `prompt.system` "
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
    turns = tuple({**turn, "content": unmarked(text_of(turn))} for turn in problem.prompt)
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
    """Encodes problems for one tokenizer, in one style."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        settings: PromptSettings,
        context: int,
        vision: ImagePlaceholders | None = None,
        *,
        stop_ids: frozenset[int] = frozenset(),
        bad_rows: BadRows = "refuse",
    ) -> None:
        """Check the settings against the tokenizer.

        Args:
            tokenizer: the model's tokenizer.
            settings: the recipe's `prompt` section.
            context: longest sequence of the model, in tokens.
            vision: placeholders of an image model; None for a language model.
            stop_ids: ids that end a response for the sampler.
            bad_rows: "refuse" makes a row that the template cannot render an error, "drop" drops
                and counts it.

        Raises:
            UserError: a setting needs a chat template, and there is none.
        """
        self.tokenizer = tokenizer
        self.settings = settings
        self.vision = vision
        self.context = context
        self.bad_rows = bad_rows
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
        # Templates write BOS themselves; the tokenizer would add a second one.
        self.tokenization = Tokenization(tokenizer, add_special_tokens=not self.chat)
        self.template = ChatTemplate(
            tokenizer, stop_ids=stop_ids, ignored_fields=settings.ignored_fields
        )

    def prompt_ids(self, problem: Problem) -> tuple[int, ...]:
        """The ids that the model continues.

        An image is placed at `<image>` in the text, or at the start of the first user turn. Raises
        UserError if the problem has an image and the model takes none, or the reverse, and if the
        chat template drops a part of the prompt.
        """
        placed = self.with_placeholder(problem)
        return self.expanded(self.text_ids(placed), placed)

    def with_placeholder(self, problem: Problem) -> Problem:
        """The problem with the model's placeholder in place of its image."""
        if self.vision is None:
            if problem.image is not None:
                raise UserError(
                    f"{problem.where} has an image, and the model reads text only; "
                    f"use an image model"
                )
            return problem
        if problem.image is None:
            raise UserError(
                f"{problem.where} has no image, and the model is an image model; add one, or "
                f"use a language model"
            )
        turns = (
            [Message(role="user", content=problem.prompt)]
            if isinstance(problem.prompt, str)
            else list(problem.prompt)
        )
        if not any(IMAGE_MARK in text_of(turn) for turn in turns):
            first = next(i for i, turn in enumerate(turns) if turn["role"] == "user")
            turns[first] = {**turns[first], "content": IMAGE_MARK + text_of(turns[first])}
        marked = tuple(
            {**turn, "content": text_of(turn).replace(IMAGE_MARK, self.vision.placeholder)}
            for turn in turns
        )
        prompt = text_of(marked[0]) if isinstance(problem.prompt, str) else marked
        return replace(problem, prompt=prompt)

    def expanded(self, ids: tuple[int, ...], problem: Problem) -> tuple[int, ...]:
        """The ids with one placeholder for each token of the problem's image, if it has one."""
        return ids if self.vision is None else self.vision.expand(ids, problem)

    def text_ids(self, problem: Problem) -> tuple[int, ...]:
        """The ids of a prompt as text, without regard to its image."""
        return self.encode([self.text(problem)])[0]

    def text(self, problem: Problem) -> str:
        """The prompt as text; raises UserError if the template fails or drops a part of it."""
        if not self.chat:
            prompt = self.settings.prompt_of(problem)
            if not isinstance(prompt, str):
                raise UserError(
                    f"{problem.where} is a conversation, and the tokenizer has no "
                    f"chat template to render it"
                )
            if problem.tools:
                raise UserError(
                    f"{problem.where} has `tools`, which need a chat template, and prompts are "
                    f"plain"
                )
            return prompt
        conversation = self.conversation(problem)
        try:
            text = self.template.render(conversation, add_generation_prompt=True)
            self.template.check(conversation)
        except TemplateFailedError as error:
            raise error.with_remedy(self._remedy(conversation.turns)) from error
        return text

    def conversation(self, problem: Problem, reply: Sequence[Message] = ()) -> Conversation:
        """The problem and a reply to it as the template's input, with the recipe's system turn."""
        thinking = self.settings.enable_thinking
        return Conversation(
            turns=(*self.settings.turns(problem), *reply),
            where=problem.where,
            tools=problem.tools,
            kwargs=({} if thinking is None else {"enable_thinking": thinking})
            | dict(problem.template_kwargs),
        )

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """The ids of these texts; a plain text begins with the tokenizer's BOS if it writes one."""
        return self.tokenization.encode(texts)

    @property
    def end_id(self) -> int:
        """The id that ends an answer; raises UserError if there is none."""
        token = self.template.end_of_answer if self.chat else None
        return int(self.tokenizer.convert_tokens_to_ids(token or end_of_text(self.tokenizer)))

    def header_ids(self, header: str | None = None) -> tuple[int, ...]:
        """The ids that replace the prompt of an unconditional reference, equal for all problems.

        BOS if prompts start with it, then `header`; if that is None, the text that the chat
        template writes before an answer, or "Answer:" without a template. Raises UserError if the
        template writes none.
        """
        if not self.chat:
            return self.encode(["Answer:" if header is None else header])[0]
        if header is None:
            question = self.conversation(Problem(id="header", prompt="?"))
            question = replace(question, turns=question.turns[-1:])  # without a system turn
            with_header, without = (
                self.template.render(question, add_generation_prompt=add) for add in (True, False)
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
        return self.encode([header])[0]

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
        return self._prompt(problem, self.prompt_ids(problem))

    def _prompt(self, problem: Problem, ids: tuple[int, ...]) -> Prompt:
        """The problem with these ids, and the state in which they leave the thought."""
        if not ids:
            raise UserError(f"{problem.where} has an empty prompt")
        prompt = problem.prompt
        thought = thought_marks.prompt_state(
            self.tokenizer,
            ids,
            question=prompt if isinstance(prompt, str) else text_of(prompt[-1]),
            chat=self.chat,
            thinking=self.settings.enable_thinking,
        )
        return Prompt(problem=problem, ids=ids, thought=thought)

    def prompts(self, problems: Sequence[Problem]) -> tuple[list[Prompt], int]:
        """The prompts that fit, in order, and the number that were dropped.

        Raises UserError for an empty prompt, for one that is too long unless `too_long` is "drop",
        and if none fits.
        """
        rendered = self.usable(problems, self._rendered)
        all_ids = self.encode([text for _, _, text in rendered])

        def prompt_at(index: int) -> Prompt:
            problem, placed, _ = rendered[index]
            return self._prompt(problem, self.expanded(all_ids[index], placed))

        encoded = self.usable(range(len(rendered)), prompt_at)
        fitting = [prompt for prompt in encoded if len(prompt.ids) <= self.limit]
        if len(fitting) < len(encoded) and self.settings.too_long == "refuse":
            raise self.too_long([(prompt.problem, len(prompt.ids)) for prompt in encoded])
        if not fitting:
            raise UserError(f"none of {len(encoded)} prompts fits into {self.limit} tokens")
        return fitting, len(problems) - len(fitting)

    def _rendered(self, problem: Problem) -> tuple[Problem, Problem, str]:
        """The problem, the same with its image's placeholder, and the text of the latter."""
        placed = self.with_placeholder(problem)
        return problem, placed, self.text(placed)

    def too_long(self, lengths: Sequence[tuple[Problem, int]]) -> UserError:
        """The error about prompts, of these numbers of tokens, that do not fit."""
        worst, longest = max(lengths, key=lambda item: item[1])
        num = sum(length > self.limit for _, length in lengths)
        raise_it = "raise prompt.max_tokens or " if self.limit < self.context - 1 else ""
        return UserError(
            f"{num} of {len(lengths)} prompts have more than {self.limit} tokens (the longest is "
            f"{worst.id} with {longest}); {raise_it}set `prompt.too_long: drop`"
        )

    def usable(self, rows: Sequence[R], encode: Callable[[R], T]) -> list[T]:
        """The encoded rows without those that cannot be used.

        Raises UserError for the first that cannot be used, unless `bad_rows` is "drop", and if
        none can be used.
        """
        encoded = []
        errors = []
        for row in with_progress(rows, "rows rendered"):
            try:
                encoded.append(encode(row))
            except UserError as error:
                if self.bad_rows == "refuse":
                    raise
                errors.append(str(error))
        if errors and not encoded:
            raise UserError(f"none of {len(rows)} rows can be used; the first: {errors[0]}")
        if errors:
            logger.warning(
                f"{len(errors)} of {len(rows)} rows cannot be used and were dropped "
                f"(task.bad_rows); the first: {errors[0]}"
            )
        return encoded

    def lazy_prompts(self, problems: Sequence[Problem]) -> Sequence[Prompt]:
        """The prompts of all problems, each encoded when it is read, if none can be too long.

        All are encoded now, so that one that is too long is refused before the first step, unless
        the limit leaves every one of the first `NUM_CHECKED` `HEADROOM` times its length.
        """
        checked, _ = self.prompts(problems[:NUM_CHECKED])
        if HEADROOM * max(len(prompt.ids) for prompt in checked) > self.limit:
            return self.prompts(problems)[0]
        return LazyPrompts(self, problems)


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
