"""The state of one rollout while it is being sampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from reasontrain.data import thought_marks
from reasontrain.sampler.stop_criteria import StopCriteria
from reasontrain.types import Image, Prompt, Rollout, RunError, UserError


@dataclass
class SequenceState:
    """A rollout in progress.

    Attributes:
        prompt: the prompt it responds to.
        id: the rollout's id.
        group: the id of the first rollout of its group.
        budget: the number of tokens that may still be appended.
        response: ids of the tokens so far.
        logp: log-prob of each token of `response`.
        start: tokens of the rollout between its prompt and `response`, all of them at the end of
            `prompt`: an earlier part of a conversation.
        stopped: the stop criteria were met. A sequence that is done without them is truncated.
    """

    prompt: Prompt
    id: int
    group: int
    budget: int
    response: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    start: int = 0
    stopped: bool = False

    @property
    def model_input(self) -> tuple[tuple[int, ...], Image | None]:
        """The prompt's ids and image; sequences with equal ones share a prefill."""
        return self.prompt.ids, self.prompt.problem.image

    @property
    def done(self) -> bool:
        """True if no token may follow."""
        return self.stopped or self.budget == 0

    def append(self, token: int, logp: float, stop_criteria: StopCriteria) -> None:
        """Append a token; a sequence that is done ignores it."""
        if self.done:
            return
        self.check_finite(logp, len(self.response))
        self.response.append(token)
        self.logp.append(logp)
        self.budget -= 1
        self.stopped = stop_criteria(self.response)

    def check_finite(self, logp: float, index: int) -> None:
        """Raise RunError if the log-prob of this token of the response is NaN or infinite."""
        if not math.isfinite(logp):
            raise RunError(
                f"the model gives rollout {self.id} no finite log-prob at token {index + 1}: "
                "its weights or activations hold NaN or infinity"
            )

    def rollout(self, tokenizer: PreTrainedTokenizerBase) -> Rollout:
        """The finished rollout."""
        text = thought_marks.decode(tokenizer, self.response)
        reading = thought_marks.marks_of(tokenizer).read(
            text, truncated=not self.stopped, state=self.prompt.thought
        )
        return Rollout(
            problem=self.prompt.problem,
            id=self.id,
            group=self.group,
            prompt_ids=self.prompt.ids,
            response_ids=tuple(self.response),
            text=text,
            sampled_logp=tuple(self.logp),
            truncated=not self.stopped,
            unfinished=reading.unfinished,
            answer_start=reading.start,
        )


def start_sequences(
    prompts: Sequence[Prompt], *, num: int, first_id: int, max_tokens: int, context: int
) -> list[SequenceState]:
    """Start `num` sequences of every prompt, prompt by prompt.

    Args:
        prompts: the encoded prompts.
        num: sequences per prompt.
        first_id: the id of the first rollout; see `Sampler.sample` for the others.
        max_tokens: the most tokens of a response.
        context: the most tokens of prompt and response together.

    Returns:
        `len(prompts) * num` sequences without any tokens.

    Raises:
        UserError: a prompt is empty or leaves no room for a response.
    """
    return [
        SequenceState(
            prompt,
            first_id + i * num + g,
            first_id + i * num,
            min(max_tokens, room_of(prompt, context)),
        )
        for i, prompt in enumerate(prompts)
        for g in range(num)
    ]


def room_of(prompt: Prompt, context: int) -> int:
    """The number of tokens that fit into the context after this prompt."""
    room = context - len(prompt.ids)
    if not prompt.ids or room < 1:
        raise UserError(
            f"the prompt of {prompt.problem.label} has {len(prompt.ids)} tokens, and the "
            f"model's context is {context}: a prompt needs at least one token, and the response "
            "room for one more"
        )
    return room
