"""One step of a run, seen through several rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from reasontrain.algo.token_selection import TokenSelection
from reasontrain.algo.token_selection.scores.quadrants import medians, quadrants
from reasontrain.lens.recorded import RecordedRollout, Values, batch_of, padded
from reasontrain.lens.rules import label, weights
from reasontrain.metrics.agreement import kept_evidence, kept_share, overlap
from reasontrain.recipe import Recipe
from reasontrain.run.loop import progress_at
from reasontrain.types import Batch, Stats

TRAINED = "trained with"
"""The name of the weights that the run recorded, among the rules."""


@dataclass(frozen=True, kw_only=True)
class RuleColumn:
    """The weights of one rule at one step.

    Attributes:
        name: its name on the page.
        weight: one array per rollout; None if the rule cannot be computed.
        reason: why not, in words.
        kept: share of the response tokens that it keeps.
        overlap: agreement with the weights that the run trained with (Jaccard's index).
        evidence: share of each kind of evidence that the kept tokens have.
    """

    name: str
    weight: tuple[Values, ...] | None
    reason: str = ""
    kept: float = 0.0
    overlap: float = 0.0
    evidence: Stats


@dataclass(frozen=True, kw_only=True)
class StepView:
    """A recorded step with the weights of all rules.

    Attributes:
        step: number of the step, from 1.
        rollouts: the recorded ones, in the order of the file.
        names: evidence that at least one rollout has.
        rules: the recorded weights first.
        quadrants: per rollout and token, 0 outside; None without entropy and divergence.
    """

    step: int
    rollouts: tuple[RecordedRollout, ...]
    names: tuple[str, ...]
    rules: tuple[RuleColumn, ...]
    quadrants: tuple[bytes, ...] | None


def view_step(
    step: int,
    rollouts: Sequence[RecordedRollout],
    rules: Sequence[TokenSelection],
    recipe: Recipe | None,
) -> StepView:
    """Call the rules with the recorded evidence of a step.

    Args:
        step: number of the step, from 1.
        rollouts: its recorded rollouts.
        rules: the rules to compare.
        recipe: states seed and schedules; without it, those of a run's first step hold.
    """
    learned = [rollout for rollout in rollouts if not rollout.dropped]
    paired = recipe is not None and recipe.objective.granularity == "pair"
    batch = batch_of(
        learned,
        step=step - 1,
        seed=0 if recipe is None else recipe.seed,
        progress=0.0 if recipe is None else progress_at(step - 1, recipe.schedule_steps),
        paired=paired,
    )
    trained_BT = padded(learned, [r.weight for r in learned], batch.kind_BT.shape[1])
    columns = [_column(TRAINED, trained_BT, batch, trained_BT, rollouts)]
    for rule in rules:
        name = _unused(label(rule), [column.name for column in columns])
        columns.append(_column(name, weights(rule, batch), batch, trained_BT, rollouts))
    return StepView(
        step=step,
        rollouts=tuple(rollouts),
        names=tuple(sorted({name for rollout in rollouts for name in rollout.evidence})),
        rules=tuple(columns),
        quadrants=_quadrants(batch, rollouts),
    )


def _column(
    name: str,
    weight_BT: Float[Tensor, "B T"] | str,
    batch: Batch,
    trained_BT: Float[Tensor, "B T"],
    rollouts: Sequence[RecordedRollout],
) -> RuleColumn:
    """The column of a rule, from its weights or from the reason why it has none."""
    if isinstance(weight_BT, str):
        return RuleColumn(name=name, weight=None, reason=weight_BT, evidence={})
    return RuleColumn(
        name=name,
        weight=tuple(
            np.zeros(len(rollout.kinds), dtype=np.float32) if values is None else values.numpy()
            for rollout, values in _by_rollout(weight_BT, rollouts)
        ),
        kept=kept_share(batch, weight_BT),
        overlap=overlap(batch, weight_BT, trained_BT),
        evidence=kept_evidence(batch, weight_BT),
    )


def _by_rollout(
    value_BT: Tensor, rollouts: Sequence[RecordedRollout]
) -> Iterator[tuple[RecordedRollout, Tensor | None]]:
    """The values of each rollout's tokens; None for one that was dropped."""
    row = 0
    for rollout in rollouts:
        if rollout.dropped:
            yield rollout, None
            continue
        start = rollout.prompt_tokens
        yield rollout, value_BT[row, start : start + len(rollout.kinds)]
        row += 1


def _quadrants(batch: Batch, rollouts: Sequence[RecordedRollout]) -> tuple[bytes, ...] | None:
    """TIP's quadrant of each token, at the medians of the recorded tokens."""
    among_BT = batch.is_response_BT
    if not {"entropy", "kl_reverse"} <= batch.evidence.keys() or not among_BT.any():
        return None
    # tokens without a finite number belong to no quadrant
    among_BT = among_BT & torch.isfinite(batch.entropy_BT) & torch.isfinite(batch.kl_reverse_BT)
    thresholds = medians(batch.entropy_BT, batch.kl_reverse_BT, among_BT)
    quadrant_BT = quadrants(batch.entropy_BT, batch.kl_reverse_BT, among_BT, thresholds)
    return tuple(
        bytes(len(rollout.kinds)) if values is None else bytes(values.tolist())
        for rollout, values in _by_rollout(quadrant_BT, rollouts)
    )


def _unused(name: str, names: Sequence[str]) -> str:
    """The name, numbered if another rule has it."""
    number = sum(other == name or other.startswith(f"{name} #") for other in names) + 1
    return name if number == 1 else f"{name} #{number}"
