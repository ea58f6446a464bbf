"""Training on the fake CUDA device: devices are not mixed, and the host waits as often as stated.

A recipe per objective in CI, all of `recipes/tiny` among the slow tests; each in one process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, get_args, get_type_hints

import pytest
import torch
import yaml

from reasontrain.algo.objectives import Objective
from tests.fake_cuda.library import NO_COMPILER
from tests.test_architecture import ROOT

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or torch.version.cuda is not None,
    reason="the fake device takes the place of a real one, in torch's builds for Linux and CPUs",
)

RECIPES = ROOT / "recipes" / "tiny"
ELSEWHERE = {"tip_served", "opd_sampled", "distill_stored", "calculator"}
"""Recipes that need a server, a store or another run first."""
EVERY_RECIPE = sorted(path for path in RECIPES.glob("*.yaml") if path.stem not in ELSEWHERE)
SHORT = (
    "steps=2",
    "evaluate=null",
    "track.tensorboard=false",
    "learn.warmup_steps=0",
    "learn.rollouts_per_step=4",
)
FEW = ("task.num_problems=64",)
SAMPLED = ("sample.max_tokens=8", "sample.group_size=2")
THOUGHT = ("sample.group_size=2", "sample.thought.max_tokens=6")
BF16 = "model.dtype=bfloat16"
EAGER = "sample.engine={kind: local, cuda_graphs: false}"
STAGES = (
    "stages.0.task.num_problems=8",
    "stages.0.task.max_depth=1",
    "stages.0.sample.group_size=8",
    "stages.0.sample.max_tokens=60",
)
MISTAKE = "a tensor left on the CPU"
RUNS: Mapping[str, tuple[str, Sequence[str]]] = {
    # Attention evidence, two models; packed, recomputed, and resumed after its first step.
    "nll": (
        "sstoken",
        (
            *FEW,
            BF16,
            "model.gradient_checkpointing=true",
            "learn.layout=packed",
            "learn.micro_batch_tokens=128",
            "checkpoint.every=1",
            "interrupt=true",
        ),
    ),
    "distill": (
        "tip",
        (
            *FEW,
            BF16,
            "teacher.dtype=bfloat16",
            "model.lora={rank: 4}",
            "sample.max_tokens=8",
            "learn.micro_batch_tokens=64",
        ),
    ),
    # Ranks, and the teacher's own statistics, in evidence and beside the loss.
    "sampled_distill": (
        "iw_opd",
        (*FEW, "sample.max_tokens=8", "token_selection={kind: fire_opd}"),
    ),
    "entropy_aware_distill": (
        "entropy_aware_opd",
        (*FEW, "sample.max_tokens=8", "token_selection={kind: selectkd}"),
    ),
    "grpo": (
        "grpo",
        (
            *FEW,
            *SAMPLED,
            "objective.reference_kl=0.01",
            EAGER,
            "learn.optimizer={kind: muon}",
            "learn.micro_batch_tokens=64",
        ),
    ),
    "gspo": ("grpo", (*FEW, *SAMPLED, "objective.kind=gspo")),
    "cispo": (
        "cispo",
        (
            *FEW,
            *SAMPLED,
            "learn.updates_per_batch=1",
            "objective.entropy_bonus=0.01",
            "objective.penalised_tokens=all",
        ),
    ),
    "kl_cov": ("kl_cov", (*FEW, *SAMPLED, "learn.updates_per_batch=1")),
    "reinforce": ("soft_tokens_hard", (*FEW, *THOUGHT)),
    "soft_reinforce": ("soft_tokens", (*FEW, *THOUGHT)),
    "dpo": ("dpo", STAGES),
    # Uniform numbers that choose tokens; the run must fail.
    MISTAKE: ("grpo", (*FEW, *SAMPLED, EAGER, "mistake=reasontrain.rng:uniform")),
}
"""Runs of one process: recipe and overrides (see `runs.run`)."""
SYNCS: Mapping[str, int] = {
    "prefill": 2,  # transformers sees if prompts are padded
    "decode": 0,
    "several decode steps": 1,  # tokens and log-probs of all of them
    "decode step": 1,  # the same of a step that the host must know the tokens of
    "evidence": 1,  # all columns of a batch
    "evidence micro-batch": 0,
    "micro-batch": 0,
    "update": 1,  # loss and statistics of an optimiser step
    "optimizer": 1,  # the norm of the gradient
}
"""The most waits of the host in each call of a phase; CONTRIBUTING.md states them."""
UPLOADS = 5
"""The most copies to the device of a micro-batch in learning that the host waits for: ids,
positions, the places of tokens, and soft inputs with theirs."""
OPERATIONS = 500
"""The most ATen calls of a decode step of the testbed, the vocabulary and the choice included."""
PACKED_CHECK = "transformers/masking_utils.py"
"""transformers reads the positions of each padded micro-batch to see that nothing is packed."""


class Result(TypedDict):
    """The output of a run; see `runs`."""

    exit_codes: list[int | str]
    mixes: dict[str, int]
    calls: dict[str, int]
    syncs: dict[str, dict[str, int]]
    uploads: dict[str, dict[str, int]]
    aten_per_decode_step: float


def on_fake_device(arguments: Sequence[str]) -> list[Result]:
    """The results of a process that makes these runs."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fake_cuda", *arguments],
        env={k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def command_line(out: Path) -> list[str]:
    """The arguments of the process that makes `RUNS`, in this folder."""
    return [
        argument
        for number, (recipe, overrides) in enumerate(RUNS.values())
        for argument in (
            str(RECIPES / f"{recipe}.yaml"),
            *SHORT,
            f"name=run-{number}",
            f"out={out}",
            *overrides,
        )
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Result]:
    """The results of `RUNS` by name."""
    out = tmp_path_factory.mktemp("fake_cuda")
    return dict(zip(RUNS, on_fake_device(command_line(out)), strict=True))


def test_every_objective_has_a_run() -> None:
    classes = [each for each in get_args(Objective) if isinstance(each, type)]
    kinds = {get_args(get_type_hints(each)["kind"])[0] for each in classes}
    assert kinds == RUNS.keys() - {MISTAKE}


@pytest.mark.parametrize("name", [name for name in RUNS if name != MISTAKE])
def test_no_operation_mixes_devices(results: Mapping[str, Result], name: str) -> None:
    result = results[name]
    assert result["mixes"] == {}
    assert result["exit_codes"] == ([1, 0] if name == "nll" else [0])
    assert result["calls"]["optimizer"] == 2


def test_a_tensor_left_on_the_cpu_is_reported_with_its_line(
    results: Mapping[str, Result],
) -> None:
    assert results[MISTAKE]["exit_codes"] != [0]
    (mix,) = results[MISTAKE]["mixes"]
    assert mix.startswith("aten::mul: [(4,)] on the CPU at reasontrain/sampler/token_choice.py:")


@pytest.mark.parametrize("name", [name for name in RUNS if name != MISTAKE])
def test_the_host_waits_for_the_device_as_often_as_stated(
    results: Mapping[str, Result], name: str
) -> None:
    result = results[name]
    packed = "learn.layout=packed" in RUNS[name][1]
    for phase, bound in SYNCS.items():
        lines = result["syncs"].get(phase, {})
        if "micro-batch" in phase and not packed:
            lines = {line: n for line, n in lines.items() if not line.startswith(PACKED_CHECK)}
        assert sum(lines.values()) <= bound * result["calls"].get(phase, 0), lines
    uploads = sum(result["uploads"]["micro-batch"].values())
    assert uploads <= UPLOADS * result["calls"]["micro-batch"]
    assert result["uploads"].keys().isdisjoint({"decode", "decode step", "several decode steps"})


@pytest.mark.parametrize("name", ["grpo", "gspo", "reinforce", "soft_reinforce", "dpo"])
def test_a_decode_step_stays_within_its_budget_of_operations(
    results: Mapping[str, Result], name: str
) -> None:
    assert 0 < results[name]["aten_per_decode_step"] <= OPERATIONS


@pytest.fixture(scope="module")
def results_of_all(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Result]:
    """The results of every tiny recipe by name, on few problems and with short responses."""
    out = tmp_path_factory.mktemp("every_recipe")
    arguments = [
        argument
        for recipe in EVERY_RECIPE
        for argument in (str(recipe), *SHORT, *shortened(recipe), f"out={out}")
    ]
    names = [recipe.stem for recipe in EVERY_RECIPE]
    return dict(zip(names, on_fake_device(arguments), strict=True))


def shortened(recipe: Path) -> list[str]:
    """Overrides that a recipe takes which make its run short."""
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    sample = content.get("sample", {})
    overrides = [*(STAGES if "stages" in content else FEW)]
    if "group_size" in sample:
        # a filter that keeps a quarter of each group and renormalises needs two of eight
        filtered = content.get("rollout_filter", {})
        size = 8 if filtered.get("renormalise") else 2
        overrides += [f"sample.group_size={size}", f"learn.rollouts_per_step={2 * size}"]
    if "thought" in sample:
        overrides.append("sample.thought.max_tokens=6")
    elif sample:
        overrides.append("sample.max_tokens=16")
    return overrides


@pytest.mark.slow
@pytest.mark.parametrize("recipe", EVERY_RECIPE, ids=lambda recipe: recipe.stem)
def test_every_tiny_recipe_runs_without_a_mix(
    results_of_all: Mapping[str, Result], recipe: Path
) -> None:
    result = results_of_all[recipe.stem]
    assert result["mixes"] == {}
    assert result["exit_codes"] == [0]
    assert result["calls"]["optimizer"] >= 2


def test_a_missing_compiler_is_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fake_cuda"],
        env={**os.environ, "PATH": "", "TMPDIR": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, f"{NO_COMPILER}\n")
