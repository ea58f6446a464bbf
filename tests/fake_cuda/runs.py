"""Runs of recipes on the fake device, and what they cost the host.

Imports torch, so `library.load_guard` comes first.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import contextmanager, redirect_stdout
from copy import copy
from functools import wraps
from types import ModuleType

import torch

from tests.fake_cuda import device
from tests.fake_cuda.record import RECORDER, Record

device.pretend()

# Not before: what is imported here asks for the device.
from reasontrain import cli, models  # noqa: E402
from reasontrain.learner.observer import Observer  # noqa: E402
from reasontrain.learner.policy_learner import PolicyLearner  # noqa: E402
from reasontrain.metrics import throughput  # noqa: E402
from reasontrain.models import loading  # noqa: E402
from reasontrain.sampler import local, multi_step  # noqa: E402
from reasontrain.vocab import backend  # noqa: E402

DECODE = "decode"
DECODE_STEP = "decode step"
PHASES: Sequence[tuple[str, ModuleType | type, str]] = (
    ("prefill", local, "prefill"),
    (DECODE, local.LocalSampler, "_decode_batch"),
    (DECODE, local.LocalSampler, "_decode_batch_multi_step"),
    ("several decode steps", multi_step.MultiStepDecoder, "run"),
    (DECODE_STEP, local.LocalSampler, "_decode_step"),
    (DECODE_STEP, multi_step.MultiStepDecoder, "_step"),
    ("evidence", Observer, "columns"),
    ("evidence micro-batch", Observer, "_measure"),
    ("update", PolicyLearner, "_accumulate"),
    ("micro-batch", PolicyLearner, "_forward_backward"),
    ("optimizer", PolicyLearner, "_update"),
)
"""Phases of a step, and the functions whose calls they are; an inner phase is not part of an outer.
"""
MISTAKE = "mistake="
INTERRUPT = "interrupt=true"


def prepare() -> None:
    """Adapt the package to a device that runs no kernels, and watch its phases."""
    for phase, owner, name in PHASES:
        setattr(owner, name, RECORDER.as_phase(phase, getattr(owner, name)))
    backend._auto_uses_triton = lambda device: False
    multi_step._capture = lambda step: step
    throughput.SIZE_GPU = 64
    load = loading.load
    for module in (models, loading):
        module.load = _loaded_and_moved(load)


def run(recipe: str, overrides: Sequence[str]) -> dict[str, object]:
    """Train by a recipe; return the exit code and the counts.

    Args:
        recipe: path of the recipe.
        overrides: `key=value` as on the command line. `mistake=MODULE:FUNCTION` leaves the result
            of a function on the CPU; `interrupt=true` stops the run in its second step and then
            resumes it.
    """
    RECORDER.record = record = Record()
    mistakes = [each.removeprefix(MISTAKE) for each in overrides if each.startswith(MISTAKE)]
    interrupted = INTERRUPT in overrides
    settings = [each for each in overrides if not each.startswith((MISTAKE, INTERRUPT))]
    exit_codes = []
    with redirect_stdout(sys.stderr):
        if interrupted:
            with _replaced(PolicyLearner, "step", _interrupted_in_second(PolicyLearner.step)):
                exit_codes.append(_train(recipe, settings))
        if mistakes:
            module_name, _, name = mistakes[0].partition(":")
            module = importlib.import_module(module_name)
            with _replaced(module, name, _left_on_cpu(getattr(module, name))):
                exit_codes.append(_train(recipe, settings))
        else:
            exit_codes.append(_train(recipe, settings))
    return {"recipe": recipe, "overrides": settings, "exit_codes": exit_codes, **_costs(record)}


def _train(recipe: str, settings: Sequence[str]) -> int | str:
    """The exit code of a run, or the error that the command line does not expect."""
    try:
        return cli.main(["train", recipe, *settings])
    except Exception as error:  # other runs follow
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"


def _costs(record: Record) -> dict[str, object]:
    operations = record.operations[DECODE_STEP] + record.operations[DECODE]
    return {
        "mixes": dict(record.mixes),
        "calls": dict(record.calls),
        "syncs": {phase: dict(lines) for phase, lines in record.syncs.items()},
        "uploads": {phase: dict(lines) for phase, lines in record.uploads.items()},
        "aten_per_decode_step": operations / max(1, record.calls[DECODE_STEP]),
    }


def _loaded_and_moved(load: Callable[..., models.Policy]) -> Callable[..., models.Policy]:
    """Load a model on the CPU and move it: transformers' loading bypasses the dispatcher."""

    @wraps(load)
    def moved(settings: models.ModelSettings, **options: object) -> models.Policy:
        to = loading.device_of(settings.device)
        placement = copy(options.get("placement"))
        if placement is not None:
            placement.device = torch.device("cpu")
            options["placement"] = placement
        with device.without(), _replaced(loading, "device_of", lambda name: torch.device("cpu")):
            policy = load(settings, **options)
        policy.model.to(to)
        loading.check_head(policy)
        return policy

    return moved


def _interrupted_in_second(step: Callable[..., object]) -> Callable[..., object]:
    calls = []

    @wraps(step)
    def interrupted(*args: object, **options: object) -> object:
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return step(*args, **options)

    return interrupted


def _left_on_cpu(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @wraps(function)
    def mistaken(*args: object, **options: object) -> torch.Tensor:
        return function(*args, **options).cpu()

    return mistaken


@contextmanager
def _replaced(owner: object, name: str, replacement: object):
    original = getattr(owner, name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, original)
