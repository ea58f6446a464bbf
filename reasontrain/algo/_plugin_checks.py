"""Checks of what plug-ins state about themselves and of what their calls return."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from reasontrain.algo.evidence import UNITS
from reasontrain.types import Batch, Losses, TokenFields


@runtime_checkable
class _ReadsEvidence(Protocol):
    required_evidence: object


def not_names_of_evidence(plugin: object) -> str | None:
    """The reason why `required_evidence` is no set of names; None if it is one."""
    assert isinstance(plugin, _ReadsEvidence), "the class was checked"
    names = plugin.required_evidence
    if isinstance(names, frozenset) and all(isinstance(name, str) for name in names):
        return None
    return f"its required_evidence is {names!r}; expected a frozenset of names"


@runtime_checkable
class _StatesObjective(Protocol):
    granularity: object
    needs_teacher: object
    score_at_sampling_temperature: object


def not_an_objective(plugin: object) -> str | None:
    """The reason why the facts of an objective are wrong; None if they are not."""
    assert isinstance(plugin, _StatesObjective), "the class was checked"
    if plugin.granularity != "token":
        return f"its granularity is {plugin.granularity!r}; a plug-in's loss is per 'token'"
    for name in ("needs_teacher", "score_at_sampling_temperature"):
        if not isinstance(value := getattr(plugin, name), bool):
            return f"its {name} is {value!r}; expected True or False"
    return not_names_of_evidence(plugin)


@runtime_checkable
class _StatesUnit(Protocol):
    unit: object
    bounds: object


def not_evidence(plugin: object) -> str | None:
    """The reason why the facts of a kind of evidence are wrong; None if they are not."""
    assert isinstance(plugin, _StatesUnit), "the class was checked"
    if plugin.unit not in UNITS:
        return f"its unit is {plugin.unit!r}; expected {', '.join(UNITS)}"
    match plugin.bounds:
        case (float() | int() as low, float() | int() as high) if low < high:
            return not_names_of_evidence(plugin)
    return f"its bounds are {plugin.bounds!r}; expected the least and the greatest value"


def not_weights(result: object, arguments: tuple[object, ...]) -> str | None:
    """The reason why a result is not one weight for each token of a batch; None if it is."""
    (batch,) = arguments
    assert isinstance(batch, Batch), "rules are called with a batch"
    if fault := _not_floats(result, tuple(batch.ids_BT.shape)):
        return fault
    assert isinstance(result, torch.Tensor), "it was checked"
    if not result.isfinite().all():
        return "weights that are not finite"
    if result[~batch.is_response_BT].any():
        return "weights at tokens of no response; multiply by batch.is_response_BT"
    return None


def not_a_column(result: object, arguments: tuple[object, ...]) -> str | None:
    """The reason why a result is not one number for each response token; None if it is."""
    (batch,) = arguments
    assert isinstance(batch, Batch), "evidence is computed from a batch"
    if fault := _not_floats(result, tuple(batch.ids_BT.shape)):
        return fault
    assert isinstance(result, torch.Tensor), "it was checked"
    if not result[batch.is_response_BT].isfinite().all():
        return "numbers that are not finite at response tokens"
    return None


def not_advantages(result: object, arguments: tuple[object, ...]) -> str | None:
    """The reason why a result is not one advantage for each rollout; None if it is."""
    reward_B = arguments[0]
    assert isinstance(reward_B, torch.Tensor), "advantages are computed from rewards"
    if fault := _not_floats(result, tuple(reward_B.shape)):
        return fault
    assert isinstance(result, torch.Tensor), "it was checked"
    return None if result.isfinite().all() else "advantages that are not finite"


def not_part_of_batch(result: object, arguments: tuple[object, ...]) -> str | None:
    """The reason why a result is not the batch with some of its rollouts; None if it is."""
    (batch,) = arguments
    assert isinstance(batch, Batch), "filters are called with a batch"
    if not isinstance(result, Batch):
        return f"{_described(result)}; expected a batch, as batch.take(index_K) makes it"
    rollouts = result.rollout_B.tolist()
    if len(set(rollouts)) < len(rollouts) or not {*rollouts} <= {*batch.rollout_B.tolist()}:
        return "a batch with rollouts that it was not called with, or with one of them twice"
    return None


def not_losses(result: object, arguments: tuple[object, ...]) -> str | None:
    """The reason why a result is not one loss for each token; None if it is."""
    fields = arguments[1]
    assert isinstance(fields, TokenFields), "objectives are called with fields of tokens"
    if not isinstance(result, Losses):
        return f"{_described(result)}; expected reasontrain.types.Losses"
    return _not_floats(result.loss, tuple(fields.ids_N.shape))


def _not_floats(result: object, shape: tuple[int, ...]) -> str | None:
    """The reason why a result is no tensor of floats of this shape; None if it is one."""
    if not isinstance(result, torch.Tensor):
        return f"{_described(result)}; expected a tensor of shape {list(shape)}"
    if tuple(result.shape) != shape:
        return f"a tensor of shape {list(result.shape)}; expected {list(shape)}"
    if not result.is_floating_point():
        return f"a tensor of {result.dtype}; expected floats"
    return None


def _described(result: object) -> str:
    return "None" if result is None else f"an object of type {type(result).__name__}"
