"""Stop criteria: a response ends at a stop id, or at the token that completes a stop text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class StopCriteria:
    """End a response after a stop id, or after the token that completes a stop text.

    The token that ends a response is kept as its last. Special tokens count as their text.
    """

    ids: frozenset[int]
    texts: tuple[str, ...]
    tokenizer: PreTrainedTokenizerBase

    def __call__(self, response: Sequence[int]) -> bool:
        """Return True if the last token ends this response; call it after every token."""
        last = response[-1]
        return last in self.ids or any(
            self._may_complete(last, text) and text in self._tail(response, text)
            for text in self.texts
        )

    @cached_property
    def _completes_text(self) -> dict[tuple[int, str], bool]:
        """Cached results of `_may_complete` by token and text."""
        return {}

    def _may_complete(self, token: int, text: str) -> bool:
        """Return False if this token cannot hold the end of the text.

        The cached result avoids decoding a tail of the response after almost every token.
        """
        may_complete = self._completes_text.get((token, text))
        if may_complete is None:
            decoded = self.tokenizer.decode([token], skip_special_tokens=False)
            # A token that is part of a character decodes to the replacement character, and
            # tokenizers may decode trailing spaces differently inside a sentence: both cases need
            # the whole tail.
            may_complete = (
                text[-1].isspace() or text[-1] in decoded or "\N{REPLACEMENT CHARACTER}" in decoded
            )
            self._completes_text[token, text] = may_complete
        return may_complete

    def _tail(self, response: Sequence[int], text: str) -> str:
        """Decode the last tokens of the response, enough of them to hold the text."""
        # Every token is at least one byte; four more complete a UTF-8 character cut at the start.
        num_tokens = len(text.encode()) + 4
        decoded = self.tokenizer.decode(list(response[-num_tokens:]), skip_special_tokens=False)
        assert isinstance(decoded, str)
        return decoded
