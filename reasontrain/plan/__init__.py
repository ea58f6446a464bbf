"""What a recipe will cost, by stated arithmetic: no GPU, no weights, no download.

`shape` counts parameters, `work` a step, `activations`, `vocabulary` and `memory` what a process
holds, `traffic` what moves, `engine` vLLM's share, `placement` what runs where, `scaling` how long
a step takes, `remedies` what to change where it does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reasontrain.plan import shape as shapes
from reasontrain.plan.machine import GIB, PHASES, Machine, MemoryPart
from reasontrain.plan.memory import Role, roles
from reasontrain.plan.placement import PlacementGroup, placement
from reasontrain.plan.roles import PlannedJob, job_of
from reasontrain.plan.scaling import WORTH, Prediction, predictions, stops_at
from reasontrain.plan.suggestions import Remedy, fits, remedy
from reasontrain.plan.traffic import Flow, flows
from reasontrain.plan.work import Work
from reasontrain.recipe import Recipe

__all__ = [
    "GIB",
    "PHASES",
    "WORTH",
    "Flow",
    "Machine",
    "MemoryPart",
    "PlacementGroup",
    "Plan",
    "Prediction",
    "Remedy",
    "Role",
    "Work",
    "plan",
]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that `reasontrain plan` says."""

    name: str
    machine: Machine
    parameters: dict[str, int]
    work: Work
    roles: Sequence[Role]
    traffic: Sequence[Flow]
    placement: Sequence[PlacementGroup]
    scaling: Sequence[Prediction]
    stops_at: int | None
    fits: bool
    remedy: Remedy | None


def plan(recipe: Recipe, machine: Machine) -> Plan:
    """The plan of a recipe; raises UserError where the sizes of a model are not at hand."""
    job = job_of(recipe, machine)
    enough = fits(job)
    scaling = predictions(job)
    return Plan(
        name=recipe.name,
        machine=machine,
        parameters=_parameters(job),
        work=job.work,
        roles=roles(job),
        traffic=flows(job),
        placement=placement(job),
        scaling=scaling,
        stops_at=stops_at(scaling),
        fits=enough,
        remedy=None if enough else remedy(job),
    )


def _parameters(job: PlannedJob) -> dict[str, int]:
    """What moves and what stays, by role."""
    found = {"trainable": job.trainable, "frozen": job.base}
    found |= {model.role: shapes.num_parameters(model.shape) for model in job.frozen}
    return {name: count for name, count in found.items() if count}
