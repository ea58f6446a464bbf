"""Evidence from a column of the data file: numbers of a response's tokens or characters.

A cell holds a list of numbers for its response: one per token (of several turns, one per token that
the assistant wrote), or one per character of its text. Of characters a token has the mean; one
without any, such as the mark that ends a turn, has the number of the character before it. Columns
of pairs are named after the side: `chosen_NAME` and `rejected_NAME`. Numbers join a response by the
file and line that it was read from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from reasontrain.data.files import Row, Table, cell, shown
from reasontrain.data.offline import SIDES
from reasontrain.types import Rollout, TokenKind, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCHEME = "column:"
"""Prefix of a source of evidence that names a column of the data, instead of a file."""
_BROKEN = "\N{REPLACEMENT CHARACTER}"
"""Text of a token that is a part of a character."""


def column_of(source: str) -> str | None:
    """The column that a source of evidence names, or None if it names a file."""
    return source.removeprefix(SCHEME) if source.startswith(SCHEME) else None


@dataclass(frozen=True)
class EvidenceColumn:
    """One kind of evidence in a column of a data file.

    Attributes:
        name: the kind of evidence.
        column: the column; of pairs, without the side before it.
        rows: the rows of the file by where they stand.
        tokenizer: that of the responses' ids.
    """

    name: str
    column: str
    rows: Mapping[str, Row]
    tokenizer: PreTrainedTokenizerBase

    def joined(self, row: Sequence[Rollout], *, optional: int = 0) -> tuple[Rollout, ...]:
        """The responses of a sample with their numbers; the first `optional` may have none.

        Raises:
            UserError: numbers are missing, are not finite, or fit neither tokens nor characters.
        """
        joined = []
        for side, rollout in enumerate(row):
            column = self.column if len(row) == 1 else f"{SIDES[side]}_{self.column}"
            value = cell(self.rows[rollout.problem.source], column)
            if value is None and side < optional:
                joined.append(rollout)
                continue
            numbers = _numbers(value, column, rollout.problem.where)
            values = self._of_tokens(numbers, column, rollout)
            joined.append(replace(rollout, evidence={**rollout.evidence, self.name: values}))
        return tuple(joined)

    def _of_tokens(
        self, numbers: Sequence[float], column: str, rollout: Rollout
    ) -> tuple[float, ...]:
        """One number per response token; 0 at tokens that the assistant did not write."""
        size = len(rollout.response_ids)
        kinds = rollout.kinds or (int(TokenKind.RESPONSE),) * size
        written = [i for i in range(size) if kinds[i] in (TokenKind.RESPONSE, TokenKind.MASKED)]
        if len(numbers) == len(written):
            values = [0.0] * size
            for index, number in zip(written, numbers, strict=True):
                values[index] = number
            return tuple(values)
        if numbers and len(numbers) == len(rollout.text) and len(written) == size:
            return self._of_characters(numbers, column, rollout)
        raise UserError(
            f"{rollout.problem.where}: column {column!r} holds {len(numbers)} numbers, and the "
            f"response has {len(written)} tokens and {len(rollout.text)} characters; give one per "
            f"token or one per character (`reasontrain show RECIPE --data 1` shows the tokens)"
        )

    def _of_characters(
        self, numbers: Sequence[float], column: str, rollout: Rollout
    ) -> tuple[float, ...]:
        """The mean of the numbers of each token's characters."""
        ends = self._ends(rollout.response_ids)
        decoded = self.tokenizer.decode(rollout.response_ids)
        start = decoded.find(rollout.text)
        if start < 0:
            raise UserError(
                f"{rollout.problem.where}: column {column!r} holds a number per character, and the "
                f"tokens of the response do not spell its text; give one per token"
            )
        sums = [0.0, *accumulate(numbers)]
        values: list[float] = []
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            low, high = (min(max(place - start, 0), len(numbers)) for place in (begin, end))
            if high > low:
                values.append((sums[high] - sums[low]) / (high - low))
            else:
                values.append(numbers[max(low - 1, 0)])
        return tuple(values)

    def _ends(self, ids: Sequence[int]) -> list[int]:
        """The number of characters up to the end of each token."""
        pieces = [self.tokenizer.decode([token]) for token in ids]
        if "".join(pieces) == self.tokenizer.decode(ids):
            return list(accumulate(map(len, pieces)))
        # Characters of several tokens, or a tokenizer that drops the blank before a single token.
        return [
            len(self.tokenizer.decode(ids[: end + 1]).rstrip(_BROKEN)) for end in range(len(ids))
        ]


def read(
    table: Table, name: str, column: str, tokenizer: PreTrainedTokenizerBase
) -> EvidenceColumn:
    """The column of a data file that holds one kind of evidence.

    Args:
        table: the rows of the file.
        name: the kind of evidence.
        column: the column; of pairs, without the side before it.
        tokenizer: that of the responses' ids.

    Raises:
        UserError: the file has no such column.
    """
    if not any(table.has(f"{side}_{column}") for side in SIDES):
        table.require(column)
    rows = {table.where(index): row for index, row in enumerate(table.rows)}
    return EvidenceColumn(name, column, rows, tokenizer)


def _numbers(value: object, column: str, where: str) -> list[float]:
    """A cell as finite numbers; raises UserError for anything else."""
    if not isinstance(value, list) or not all(
        isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        for number in value
    ):
        raise UserError(
            f"{where}: column {column!r} holds {shown(value)}; expected a list of numbers, one per "
            f"token or character of the response"
        )
    return [float(number) for number in value]
