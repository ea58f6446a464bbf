"""Rollouts of a token file, checked, and the batch that selection rules are called with."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from reasontrain.data.storage import TornLineError, json_lines
from reasontrain.report.numbers import Json, number
from reasontrain.report.tokens import reward_of
from reasontrain.types import Batch, TokenKind, UserError

_KINDS = frozenset(int(kind) for kind in TokenKind)
Values = npt.NDArray[np.float32]
"""One number per token."""


@dataclass(frozen=True, kw_only=True)
class RecordedRollout:
    """One line of a token file; columns have one entry per token of the response.

    Attributes:
        id: the rollout, as recorded.
        problem: the problem's id.
        prompt: the decoded prompt.
        answer: the reference answer.
        group: the group that advantages are computed in; None if it was not recorded.
        reward: the reward; None if it has none, as a demonstration that nothing judged.
        advantage: the advantage; None if it was dropped before one was computed.
        correct: the verdict; None without one.
        dropped: True if a rollout filter dropped it: it has no evidence.
        truncated: True if it was cut at its length limit.
        reward_parts: other numbers of an own reward function.
        prompt_tokens: length of the prompt, which the random numbers of rules depend on.
        pieces: decoded tokens.
        kinds: `TokenKind` of each token, one byte each.
        weight: weights that the run trained with.
        evidence: name -> numbers.
    """

    id: int
    problem: str
    prompt: str
    answer: str
    group: int | None
    reward: float | None
    advantage: float | None
    correct: bool | None
    dropped: bool
    truncated: bool
    reward_parts: Mapping[str, float]
    prompt_tokens: int
    pieces: Sequence[str]
    kinds: bytes
    weight: Values
    evidence: Mapping[str, Values]

    @property
    def num_response_tokens(self) -> int:
        """Tokens that the policy chose and that are trained on."""
        return self.kinds.count(TokenKind.RESPONSE) + self.kinds.count(TokenKind.SOFT)


def read_rollouts(path: Path) -> list[RecordedRollout]:
    """The rollouts of a token file; an incomplete last line, of a running run, is left out.

    Raises UserError, with file and line, for a line that is not such a record.
    """
    rollouts: list[RecordedRollout] = []
    try:
        for row, where in json_lines(path):
            rollouts.append(_rollout(row, where, len(rollouts)))
    except TornLineError:
        pass
    return rollouts


def recorded_evidence(path: Path) -> frozenset[str]:
    """The evidence of the first rollout of a token file that was not dropped."""
    try:
        for row, _ in json_lines(path):
            if row.get("dropped") is not True:
                return frozenset(_mapping(row.get("evidence")))
    except TornLineError:
        pass
    return frozenset()


def batch_of(
    rollouts: Sequence[RecordedRollout],
    *,
    step: int = 0,
    seed: int = 0,
    progress: float = 0.0,
    paired: bool = False,
) -> Batch:
    """The batch of the rollouts, as far as a token file holds it, for selection rules.

    Token ids are zeros: no rule reads them. Evidence that some rollout lacks is left out.

    Args:
        rollouts: the rollouts; none of them was dropped.
        step: index of the step, from 0.
        seed: seed of the run.
        progress: share of the run that was done, in [0, 1].
        paired: rollouts are pairs, chosen before rejected.
    """
    spans = [slice(r.prompt_tokens, r.prompt_tokens + len(r.kinds)) for r in rollouts]
    width = max((span.stop for span in spans), default=1)
    kind_BT = torch.zeros(len(rollouts), width, dtype=torch.long)
    names = sorted(frozenset(rollouts[0].evidence) if rollouts else frozenset())
    names = [name for name in names if all(name in rollout.evidence for rollout in rollouts)]
    evidence = {name: torch.zeros(len(rollouts), width) for name in names}
    for row, (rollout, span) in enumerate(zip(rollouts, spans, strict=True)):
        kind_BT[row, : span.start] = int(TokenKind.PROMPT)
        kind_BT[row, span] = torch.tensor(list(rollout.kinds), dtype=torch.long)
        for name, column_BT in evidence.items():
            column_BT[row, span] = torch.from_numpy(rollout.evidence[name])
    verdicts = [r.correct for r in rollouts if r.correct is not None]
    return Batch(
        ids_BT=torch.zeros_like(kind_BT),
        kind_BT=kind_BT,
        rollout_B=torch.tensor([r.id for r in rollouts], dtype=torch.long),
        group_B=torch.tensor([r.id if r.group is None else r.group for r in rollouts]).long(),
        reward_B=torch.tensor([r.reward or 0.0 for r in rollouts], dtype=torch.float32),
        advantage_B=torch.tensor([r.advantage or 0.0 for r in rollouts], dtype=torch.float32),
        correct_B=torch.tensor(verdicts) if verdicts and len(verdicts) == len(rollouts) else None,
        pair_B=torch.arange(len(rollouts)) if paired else None,
        evidence=evidence,
        sampled_rollouts=len(rollouts),
        sampled_tokens=sum(len(r.kinds) for r in rollouts),
        progress=progress,
        seed=seed,
        step=step,
    )


def padded(
    rollouts: Sequence[RecordedRollout], columns: Sequence[Values], width: int
) -> Float[Tensor, "B T"]:
    """One number per response token of each rollout, in the layout of `batch_of`."""
    value_BT = torch.zeros(len(rollouts), width)
    for row, (rollout, column) in enumerate(zip(rollouts, columns, strict=True)):
        start = rollout.prompt_tokens
        value_BT[row, start : start + len(column)] = torch.from_numpy(column)
    return value_BT


def _rollout(row: Mapping[str, Json], where: str, index: int) -> RecordedRollout:
    """The rollout of one line; `index` stands in for an id that is not a number."""
    pieces = _list(row.get("tokens"), "tokens", where)
    kinds = _list(row.get("kind"), "kind", where)
    if any(type(kind) is not int or kind not in _KINDS for kind in kinds):
        raise UserError(f'{where}: "kind" has an entry that is no kind of token')
    evidence = {
        name: _values(column, name, where) for name, column in _mapping(row.get("evidence")).items()
    }
    weight = _values(row.get("weight"), "weight", where)
    sizes = {"kind": len(kinds), "weight": len(weight)}
    sizes |= {name: len(column) for name, column in evidence.items()}
    for name, size in sizes.items():
        if size != len(pieces):
            raise UserError(f'{where}: "{name}" has {size} entries for {len(pieces)} tokens')
    parts = {name: number(part) for name, part in _mapping(row.get("reward_parts")).items()}
    prompt_tokens = _integer(row.get("prompt_tokens"))
    rollout = _integer(row.get("rollout"))
    return RecordedRollout(
        id=index if rollout is None else rollout,
        problem=_text(row.get("problem")),
        prompt=_text(row.get("prompt")),
        answer=_text(row.get("answer")),
        group=_integer(row.get("group")),
        reward=reward_of(row),
        advantage=number(row.get("advantage")),
        correct=_verdict(row.get("correct")),
        dropped=row.get("dropped") is True,
        truncated=row.get("truncated") is True,
        reward_parts={name: part for name, part in parts.items() if part is not None},
        prompt_tokens=max(prompt_tokens or 1, 1),  # a response needs a token before it
        pieces=[sys.intern(str(piece)) for piece in pieces],  # a token recurs all the time
        kinds=bytes(cast("list[int]", kinds)),
        weight=weight,
        evidence=evidence,
    )


def _values(column: Json, name: str, where: str) -> Values:
    """Numbers as float32; the names of non-finite ones are in the files too."""
    entries = _list(column, name, where)
    try:
        values = np.array(entries, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        values = np.zeros((0, 0), dtype=np.float32)
    if values.ndim != 1:  # entries that are lists give a matrix
        raise UserError(f'{where}: "{name}" has an entry that is no number')
    return values


def _list(value: Json, name: str, where: str) -> list[Json]:
    if not isinstance(value, list):
        raise UserError(f'{where}: expected a list "{name}", found {type(value).__name__}')
    return value


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Json) -> str:
    return "" if value is None else str(value)


def _integer(value: Json) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _verdict(value: Json) -> bool | None:
    return value if isinstance(value, bool) else None
