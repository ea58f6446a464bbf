"""Rollouts for the page, token by token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from reasontrain.algo.evidence import EVIDENCE
from reasontrain.data.storage import TornLineError, json_lines
from reasontrain.report.colours import token_class
from reasontrain.report.numbers import Json, number, percent, short
from reasontrain.types import TokenKind, UserError

MAX_READ = 64
MAX_TOKENS = 900
MAX_PIECE = 120
MAX_PROMPT = 3_000
_Line = tuple[Mapping[str, Json], str]
_CHOSEN = (TokenKind.RESPONSE, TokenKind.SOFT)
_DIVERGENCES = ("kl_reverse", "kl_forward")
"""Evidence that is coloured as divergence; the first one that the run observed is used."""


@dataclass(frozen=True)
class Token:
    """A token: its text, its CSS classes, and its numbers as text."""

    text: str
    css: str
    numbers: str


@dataclass(frozen=True, kw_only=True)
class ShownRollout:
    """One rollout on the page.

    `reward` is None if nothing gave one, as to a demonstration. `cut` counts the tokens that are
    not shown; `kept` is the number of kept tokens, in words.
    """

    id: str
    problem: str
    prompt: str
    answer: str
    reward: float | None
    truncated: bool
    tokens: tuple[Token, ...]
    cut: int
    kept: str


@dataclass(frozen=True, kw_only=True)
class TokenPage:
    """The rollouts of one step.

    Colours show `entropy`, if it was observed, and the evidence named by `divergence`, if any.
    """

    step: int
    rollouts: tuple[ShownRollout, ...]
    entropy: bool
    divergence: str | None

    @property
    def divergence_label(self) -> str:
        """The direction of the divergence, in words."""
        return EVIDENCE[self.divergence].label if self.divergence is not None else ""


def show_tokens(step: int, path: Path, num: int) -> TokenPage | None:
    """The first `num` rollouts of a file, alternating good and bad; None for an empty file."""
    rows: list[_Line] = []
    try:
        for line in json_lines(path):
            rows.append(line)
            if len(rows) == MAX_READ:
                break
    except TornLineError:
        pass  # the run is still writing; complete lines are shown
    shown = [_rollout(row, where) for row, where in _in_turn(rows)[:num]]
    evidence = {name for row, _ in rows for name in _mapping(row.get("evidence"))}
    if not shown:
        return None
    divergence = next((name for name in _DIVERGENCES if name in evidence), None)
    return TokenPage(
        step=step, rollouts=tuple(shown), entropy="entropy" in evidence, divergence=divergence
    )


def _in_turn(rows: Sequence[_Line]) -> list[_Line]:
    """Alternate rollouts above the middle of the range of rewards with all others."""
    rewards = [_float(row.get("reward")) for row, _ in rows]
    finite = [reward for reward in rewards if math.isfinite(reward)] or [0.0]
    middle = (min(finite) + max(finite)) / 2
    good = [line for line, reward in zip(rows, rewards, strict=True) if reward > middle]
    bad = [line for line, reward in zip(rows, rewards, strict=True) if not reward > middle]
    return [line for line in chain.from_iterable(zip_longest(good, bad)) if line is not None]


def _rollout(row: Mapping[str, Json], where: str) -> ShownRollout:
    """The rollout of one line of a token file."""
    pieces, kinds, weights = (
        _list(row.get(name), name, where) for name in ("tokens", "kind", "weight")
    )
    evidence = {
        name: _list(column, name, where) for name, column in _mapping(row.get("evidence")).items()
    }
    for name, column in (("kind", kinds), ("weight", weights), *evidence.items()):
        if len(column) != len(pieces):
            raise UserError(f'{where}: "{name}" has {len(column)} entries for {len(pieces)} tokens')
    rows = [
        dict(zip(evidence, values, strict=True)) for values in zip(*evidence.values(), strict=True)
    ] or [{} for _ in pieces]
    columns = list(zip(pieces, kinds, weights, rows, strict=True))
    answered = [column for column in columns if column[1] not in (TokenKind.PAD, TokenKind.PROMPT)]
    own = [weight for _, kind, weight, _ in answered if kind in _CHOSEN]
    num_kept = sum(_float(weight) != 0 for weight in own)
    return ShownRollout(
        id=str(row.get("rollout", "")),
        problem=str(row.get("problem", "")),
        prompt=_clipped(str(row.get("prompt", "")), MAX_PROMPT),
        answer=_clipped(str(row.get("answer", "")), MAX_PIECE),
        reward=reward_of(row),
        truncated=row.get("truncated") is True,
        tokens=tuple(_token(*column) for column in answered[:MAX_TOKENS]),
        cut=max(0, len(answered) - MAX_TOKENS),
        kept="dropped, not trained on"
        if row.get("dropped") is True
        else f"{num_kept:,} of {len(own):,} tokens kept ({percent(num_kept / len(own), 0)})"
        if own
        else "no trainable tokens",
    )


def _token(piece: Json, kind: Json, weight: Json, evidence: Mapping[str, Json]) -> Token:
    """A token; tokens that the policy did not choose have no evidence and a colour of their own."""
    text = _clipped(str(piece), MAX_PIECE).replace("\n", "⏎\n") or "∅"
    if kind == TokenKind.TOOL:
        return Token(text, "ct", "written by the environment or a tool")
    if kind == TokenKind.MASKED:
        return Token(text, "cf", "left out of training")
    if kind not in _CHOSEN:
        return Token(text, "cf", "not chosen by the policy")
    kept = _float(weight) != 0
    numbers = ["most likely token of a soft step"] if kind == TokenKind.SOFT else []
    numbers += [
        f"{name} {short(_float(value))}" for name, value in evidence.items() if value is not None
    ]
    numbers += [f"weight {short(_float(weight))}", *(["kept"] if kept else [])]
    divergence = next((evidence[name] for name in _DIVERGENCES if name in evidence), None)
    css = token_class(_optional(evidence.get("entropy")), _optional(divergence))
    return Token(text, css + (" k" if kept else ""), " · ".join(numbers))


def reward_of(row: Mapping[str, Json]) -> float | None:
    """The reward of a line; None if it has none, or if nothing judged the response.

    A demonstration is recorded with the reward 0 that its rollout has, and without a verdict.
    """
    return None if row.get("correct", True) is None else number(row.get("reward"))


def _optional(value: Json) -> float | None:
    return None if value is None else _float(value)


def _float(value: Json) -> float:
    """A number; NaN for any other value."""
    parsed = number(value)
    return math.nan if parsed is None else parsed


def _list(value: Json, name: str, where: str) -> list[Json]:
    if not isinstance(value, list):
        raise UserError(f'{where}: expected a list "{name}", found {type(value).__name__}')
    return value


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}


def _clipped(text: str, size: int) -> str:
    return text if len(text) <= size else text[:size] + " …"
