"""One rollout while it is being sampled, and the rule by which it ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from reasontrain.types import Image, Prompt, Rollout, RunError, UserError


@dataclass(frozen=True)
class StopCriteria:
    """Ends a response after a stop id, or after the token that completes a stop text (special
    tokens count as their text).
    """

    ids: frozenset[int]
    texts: tuple[str, ...]
    tokenizer: PreTrainedTokenizerBase

    def __call__(self, response: Sequence[int]) -> bool:
        """Whether the last token ends this response; asked after every token."""
        last = response[-1]
        return last in self.ids or any(
            self._completes(last, text) and text in self._tail(response, text)
            for text in self.texts
        )

    @cached_property
    def _known(self) -> dict[tuple[int, str], bool]:
        """What `_completes` found."""
        return {}

    def _completes(self, token: int, text: str) -> bool:
        """Whether this token can hold the end of the text: far quicker to ask than to decode a tail
        after every token.

        A token that is part of a character shows a replacement sign, and what ends in a space may
        be decoded in another way.
        """
        found = self._known.get((token, text))
        if found is None:
            shown = self.tokenizer.decode([token], skip_special_tokens=False)
            found = self._known[token, text] = (
                text[-1].isspace() or text[-1] in shown or "\N{REPLACEMENT CHARACTER}" in shown
            )
        return found

    def _tail(self, response: Sequence[int], text: str) -> str:
        """The decoding of the last tokens: every token is at least one byte, and a few more heal a
        character that was cut.
        """
        num_tokens = len(text.encode()) + 4
        decoded = self.tokenizer.decode(list(response[-num_tokens:]), skip_special_tokens=False)
        assert isinstance(decoded, str)
        return decoded


@dataclass
class DecodingSequence:
    """A rollout under way; `budget` is how many tokens it may still take."""

    prompt: Prompt
    id: int
    group: int
    budget: int
    response: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    ended: bool = False

    @property
    def read(self) -> tuple[tuple[int, ...], Image | None]:
        """What the model reads before the first token."""
        return self.prompt.ids, self.prompt.problem.image

    @property
    def done(self) -> bool:
        """Whether no token may follow."""
        return self.ended or self.budget == 0

    def take(self, token: int, logp: float, stop_criteria: StopCriteria) -> None:
        """Append a token; a row that is done stays as it is."""
        if self.done:
            return
        self.check(logp, len(self.response))
        self.response.append(token)
        self.logp.append(logp)
        self.budget -= 1
        self.ended = stop_criteria(self.response)

    def check(self, logp: float, place: int) -> None:
        """Refuse to go on where the token at this place of the response has no log-prob."""
        if not math.isfinite(logp):
            raise RunError(
                f"the model gives rollout {self.id} no finite log-prob at token {place + 1}: "
                "its weights or activations hold NaN or infinity"
            )

    def rollout(self, tokenizer: PreTrainedTokenizerBase) -> Rollout:
        """The finished rollout."""
        text = tokenizer.decode(self.response, skip_special_tokens=True)
        assert isinstance(text, str)
        return Rollout(
            problem=self.prompt.problem,
            id=self.id,
            group=self.group,
            prompt_ids=self.prompt.ids,
            response_ids=tuple(self.response),
            text=text,
            sampled_logp=tuple(self.logp),
            truncated=not self.ended,
        )


def begin(
    prompts: Sequence[Prompt], *, num: int, first_id: int, max_tokens: int, context: int
) -> list[DecodingSequence]:
    """`num` rows of every prompt, prompt by prompt, numbered as `Sampler` says; a row ends where
    the context is full.
    """
    return [
        DecodingSequence(
            prompt,
            first_id + i * num + g,
            first_id + i * num,
            min(max_tokens, _room(prompt, context)),
        )
        for i, prompt in enumerate(prompts)
        for g in range(num)
    ]


def _room(prompt: Prompt, context: int) -> int:
    """Tokens that fit after this prompt."""
    room = context - len(prompt.ids)
    if not prompt.ids or room < 1:
        raise UserError(
            f"the prompt of problem {prompt.problem.id} has {len(prompt.ids)} tokens, and "
            f"the model's context is "
            f"{context}: there must be at least one token of prompt and one left for the response"
        )
    return room
