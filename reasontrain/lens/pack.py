"""Rollouts as compact values of a script: text by dictionary, numbers as base64 of float32.

A script of the lens is ASCII without `<`: its strings hold no end of a script element, no line
separator and no lone half of a surrogate pair, whatever a model wrote.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import numpy as np

from reasontrain.lens.recorded import RecordedRollout, Values
from reasontrain.report.numbers import Json, portable
from reasontrain.types import TokenKind

_DIGITS = bytes(48 + min(kind, 9) for kind in range(256))
"""The ASCII digit of each small number."""


def ascii_json(value: Json) -> str:
    """JSON for a script or a script element."""
    text = json.dumps(portable(value), separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def script(kind: str, key: str, value: Json) -> str:
    """A file that hands a value to the page: one call of its only global function."""
    return f"lens({ascii_json(kind)},{ascii_json(key)},{ascii_json(value)})\n"


def column(values: Values) -> str:
    """One number per token: a digit each if all are 0 or 1, else "~" and base64 of float32."""
    if np.isin(values, (0.0, 1.0)).all():
        return values.astype(np.uint8).tobytes().translate(_DIGITS).decode()
    return "~" + base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()


def chunk(
    rollouts: Sequence[RecordedRollout],
    *,
    names: Sequence[str],
    rules: Sequence[Sequence[Values] | None],
    quadrants: Sequence[bytes] | None,
) -> Json:
    """The content of some rollouts.

    Args:
        rollouts: the rollouts.
        names: evidence, in the order of its columns; a rollout without it has null there.
        rules: weights of each rule, one array per rollout; None if it cannot be computed.
        quadrants: the quadrant of each token, 0 for none; None without entropy and divergence.

    Returns:
        The distinct token texts, and a list per rollout in the order that `lens.js` reads.
    """
    texts: dict[str, int] = {}
    packed = []
    for index, rollout in enumerate(rollouts):
        packed.append(
            [
                rollout.prompt,
                rollout.answer,
                list(rollout.reward_parts.items()),
                [texts.setdefault(piece, len(texts)) for piece in rollout.pieces],
                _digits(rollout.kinds),
                [None if rule is None else column(rule[index]) for rule in rules],
                [
                    column(rollout.evidence[name]) if name in rollout.evidence else None
                    for name in names
                ],
                None if quadrants is None else _digits(quadrants[index]),
            ]
        )
    return {"texts": list(texts), "rollouts": packed}


def _digits(kinds: bytes) -> str:
    """One digit per token; a single one if all are the same."""
    if len(set(kinds)) == 1:
        return str(kinds[0])
    return kinds.translate(_DIGITS).decode()


assert max(TokenKind) <= 9, "kinds are written as one digit"
