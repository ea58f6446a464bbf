"""Memory and time of a recipe by arithmetic, without a GPU, weights or downloads.

`shape` counts parameters, `work` the tokens of a step, `flops` its operations; `loading`,
`activations`, `vocabulary`, `engine` and `memory` count the bytes that a process holds, `traffic`
those that are sent. `placement` assigns processes to nodes, `duration` predicts the time of the run
on them, `scaling` step times on other numbers of GPUs, and `suggestions` changes a recipe that does
not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reasontrain.plan import shape as shapes
from reasontrain.plan.duration import Duration, duration
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
    "Duration",
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
    """The results that `reasontrain plan` prints."""

    name: str
    machine: Machine
    parameters: dict[str, int]
    work: Work
    roles: Sequence[Role]
    traffic: Sequence[Flow]
    placement: Sequence[PlacementGroup]
    duration: Duration
    scaling: Sequence[Prediction]
    stops_at: int | None
    fits: bool
    remedy: Remedy | None


def plan(recipe: Recipe, machine: Machine) -> Plan:
    """The plan of a recipe; raises UserError if the sizes of a model are not available."""
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
        duration=duration(job),
        scaling=scaling,
        stops_at=stops_at(scaling),
        fits=enough,
        remedy=None if enough else remedy(job),
    )


def _parameters(job: PlannedJob) -> dict[str, int]:
    """Trainable and frozen parameters, by role."""
    counts = {"trainable": job.trainable, "frozen": job.base}
    counts |= {model.role: shapes.num_parameters(model.shape) for model in job.frozen}
    return {name: count for name, count in counts.items() if count}
