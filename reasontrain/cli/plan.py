"""`reasontrain plan`: the estimated cost of a recipe, as tables or as JSON."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reasontrain import models
from reasontrain.plan import GIB, PHASES, WORTH, Machine, Plan, Prediction, Role, plan
from reasontrain.plan.scaling import DECODE_EFFICIENCY, EAGER_KERNEL_S, GRAPH_KERNEL_S
from reasontrain.recipe import read_recipe

WIDTH = 118
"""Width of tables in characters if the output is not a terminal."""


def show_plan(path: Path, overrides: Sequence[str], machine: Machine, *, as_json: bool) -> None:
    """Print the plan of a recipe.

    Args:
        path: The recipe file.
        overrides: Settings that override the file's.
        machine: The GPUs and networks to plan for.
        as_json: Print JSON instead of tables.
    """
    models.quiet_libraries()
    estimate = plan(read_recipe(path, overrides), machine)
    if as_json:
        print(json.dumps(_mapping(estimate), indent=1))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    for item in _page(estimate):
        console.print(item, markup=False)


def _mapping(estimate: Plan) -> dict[str, object]:
    """The plan as a mapping, with the values of its properties."""
    mapping: dict[str, object] = dataclasses.asdict(estimate)
    mapping["roles"] = [
        dataclasses.asdict(role)
        | {"total": {p: role.total(p) for p in PHASES}, "peak": role.peak, "host": role.host}
        for role in estimate.roles
    ]
    mapping["duration"] = dataclasses.asdict(estimate.duration) | {
        "step_s": estimate.duration.step_s,
        "total_s": estimate.duration.total_s,
    }
    mapping["scaling"] = [dataclasses.asdict(p) | {"step_s": p.step_s} for p in estimate.scaling]
    return mapping


def _page(estimate: Plan) -> Iterator[Table | str]:
    """Lines and tables of the page, in order."""
    yield f"{estimate.name}: estimated by arithmetic; nothing was loaded, downloaded or measured"
    yield "parameters: " + ", ".join(
        f"{name} {count:,}" for name, count in estimate.parameters.items()
    )
    yield _work(estimate)
    for role in estimate.roles:
        yield f"\nmemory of each {role.name} ({role.processes}), GiB; * marks the peak"
        yield _memory(role)
        if role.host:
            yield f"main memory of each {role.name}: {_gib(role.host)} GiB"
    yield _verdict(estimate)
    yield (
        "\ndata transfer per step"
        if estimate.traffic
        else "\ndata transfer per step: none, with a single process"
    )
    if estimate.traffic:
        yield _traffic(estimate)
    yield "\nplacement"
    yield _placement(estimate)
    yield _duration(estimate)
    yield _rates(estimate.machine)
    yield _scaling(estimate)
    yield _stop(estimate)


def _work(estimate: Plan) -> str:
    work = estimate.work
    group = (
        f"a rank of {work.ranks}"
        if work.sequence_parallel == 1
        else f"{work.sequence_parallel} ranks of {work.ranks} that share sequences"
    )
    return (
        f"a step: {work.prompts:,} prompts, {work.rollouts:,} rollouts of "
        f"{work.prompt_tokens:,} + {work.response_tokens:,} "
        f"tokens (assumed), {work.tokens:,} tokens\n"
        f"{group}: {work.rollouts_per_group:,} rollouts in "
        f"{work.micro_batches_per_rank:,} micro-batches of "
        f"{work.rollouts_per_micro_batch:,} ({work.micro_batch_tokens:,} tokens, "
        f"{work.micro_batch_rows:,} positions with a loss); "
        f"{work.rows_per_sampler:,} sequences decode together"
    )


def _memory(role: Role) -> Table:
    phases = [phase for phase in PHASES if role.total(phase)]
    table = Table()
    table.add_column("part")
    for phase in phases:
        table.add_column(phase, justify="right")
    for part in role.parts:
        place = (
            ""
            if part.place == "device"
            else f" (in {'main memory' if part.place == 'host' else 'NVMe files'})"
        )
        table.add_row(part.name + place, *(_gib(part.held.get(phase, 0)) for phase in phases))
    table.add_section()
    table.add_row(
        "total",
        *(_gib(role.total(phase)) + ("*" if phase == role.phase else "") for phase in phases),
    )
    return table


def _verdict(estimate: Plan) -> str:
    """The process with the highest memory peak, and changes to the recipe if it does not fit."""
    fullest = max(estimate.roles, key=lambda role: role.peak)
    demand = (
        f"the highest memory peak is that of a {fullest.name} in phase `{fullest.phase}`: "
        f"{_gib(fullest.peak)} GiB"
    )
    limit = f"{estimate.machine.memory_gib:g} GiB"
    if estimate.fits:
        return f"FITS: {demand} of {limit}"
    if estimate.remedy is None:
        return (
            f"DOES NOT FIT: {demand}, and a GPU has {limit}; "
            "no known change of the recipe makes it fit"
        )
    overrides = [shlex.quote(override) for override in estimate.remedy.overrides]
    return (
        f"DOES NOT FIT: {demand}, and a GPU has {limit}\nit would fit with: "
        f"{' '.join(overrides)} ({_gib(estimate.remedy.peak)} GiB)"
        + (
            "\nan adapter is trained in place of all weights, and needs a higher learning rate"
            if any(override.startswith("model.lora=") for override in estimate.remedy.overrides)
            else ""
        )
    )


def _traffic(estimate: Plan) -> Table:
    table = Table("what", "through")
    table.add_column("GB", justify="right")
    for flow in estimate.traffic:
        table.add_row(flow.name, flow.through, f"{flow.size / 1e9:,.2f}")
    return table


def _placement(estimate: Plan) -> Table:
    table = Table("role", "processes", "bundle of each", "node")
    for group in estimate.placement:
        last = group.first + group.processes - 1
        numbers = f"{group.first}" if last == group.first else f"{group.first}-{last}"
        gpus = f", GPU: {group.gpus:g}" if group.gpus else ""
        table.add_row(
            group.role,
            numbers,
            f"{{CPU: {group.cpus:g}{gpus}}}",
            "any" if group.node is None else str(group.node),
        )
    return table


def _duration(estimate: Plan) -> str:
    """The time of the whole run with these processes."""
    time = estimate.duration
    step = time.step
    parts = ", ".join(
        f"{name} {_seconds(seconds)}"
        for name, seconds in (
            ("sampling", step.sampling_s),
            ("evidence", step.evidence_s),
            ("learning", step.learning_s),
            ("communication", step.communication_s),
        )
        if seconds
    )
    overlap = ", of which sampling overlaps with the rest" if time.overlapped else ""
    evaluations = (
        f"; {time.evaluations} evaluations of {time.answers:,} answers, "
        f"{_seconds(time.evaluation_s)} s each"
        if time.answers
        else ""
    )
    cost = f", {time.gpus * time.total_s / 3600:,.3g} GPU hours" if time.gpus else ""
    uncounted = f"\nnot in it: {', '.join(time.uncounted)}" if time.uncounted else ""
    return (
        f"\nwith these processes a step takes {_seconds(time.step_s)} s ({parts}{overlap})\n"
        f"the run: {time.steps:,} steps{evaluations}: {time.total_s / 3600:,.3g} hours{cost}"
        f"{uncounted}"
    )


def _seconds(seconds: float) -> str:
    return f"{seconds:,.3g}" if seconds < 1000 else f"{seconds:,.0f}"


def _rates(machine: Machine) -> str:
    return (
        f"\nstep time in seconds if every GPU learns and samples and nothing overlaps, at "
        f"{machine.tflops:g} TFLOP/s, "
        f"{machine.intra_gb_s:g} GB/s in a node\nof {machine.gpus_per_node}, "
        f"{machine.inter_gb_s:g} GB/s between nodes, "
        f"{machine.hbm_tb_s:g} TB/s of memory\n(decoding at {DECODE_EFFICIENCY:.0%} of it, and at "
        f"least {1e6 * GRAPH_KERNEL_S:g} us a kernel, {1e6 * EAGER_KERNEL_S:g} without CUDA graphs)"
    )


def _scaling(estimate: Plan) -> Table:
    table = Table()
    for name in (
        "GPUs",
        "step",
        "sampling",
        "evidence",
        "learning",
        "communication",
        "efficiency",
        "GiB each",
    ):
        table.add_column(name, justify="right")
    for prediction in estimate.scaling:
        table.add_row(*_line(prediction, estimate.machine))
    return table


def _line(prediction: Prediction, machine: Machine) -> Iterator[str]:
    yield f"{prediction.gpus:,}"
    for seconds in (
        prediction.step_s,
        prediction.sampling_s,
        prediction.evidence_s,
        prediction.learning_s,
        prediction.communication_s,
    ):
        yield _seconds(seconds)
    yield f"{prediction.efficiency:.0%}"
    yield _gib(prediction.memory_bytes) + (
        "!" if prediction.memory_bytes > machine.memory_bytes else ""
    )


def _stop(estimate: Plan) -> str:
    marked = (
        "! does not fit; "
        if any(p.memory_bytes > estimate.machine.memory_bytes for p in estimate.scaling)
        else ""
    )
    if estimate.stops_at is None:
        return (
            f"{marked}efficiency stays at or above {WORTH:.0%} up to "
            f"{estimate.scaling[-1].gpus:,} GPUs"
        )
    return (
        f"{marked}scaling stops at {estimate.stops_at:,} GPUs, where efficiency falls below "
        f"{WORTH:.0%}"
    )


def _gib(size: int) -> str:
    return f"{size / GIB:,.2f}" if size else "-"
