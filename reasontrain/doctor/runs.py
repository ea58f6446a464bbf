"""One training step of each method, in one process, under Ray and with vLLM, on a tiny model."""

from __future__ import annotations

import importlib.util
import logging
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from reasontrain import models, resources, stages
from reasontrain.doctor.finding import Finding
from reasontrain.doctor.kernels import VOCABULARY
from reasontrain.models import ModelSettings, testbed
from reasontrain.recipe import read_recipe
from reasontrain.run.build import run_context
from reasontrain.types import Stats

METHODS = ("tip", "d3s", "cdpo", "soft_tokens", "sstoken", "prior")
COMMON = (
    "evaluate=null",
    "learn.warmup_steps=0",
    "steps=1",
    "track.tensorboard=false",
    "learn.rollouts_per_step=8",
)
EASY = "task={kind: arithmetic, min_depth: 1, max_depth: 1, num_problems: 50, seed: 1}"
"""Problems that the model solves about every other time, so that groups have both rewards."""
SAMPLED = ("sample.max_tokens=48", EASY)
OF_METHOD = {
    "tip": SAMPLED,
    "d3s": (*SAMPLED, "learn.rollouts_per_step=16"),
    "cdpo": (
        "stages.0.task={kind: arithmetic, min_depth: 1, max_depth: 2, num_problems: 4, seed: 1}",
        "stages.0.sample.max_tokens=64",
        "stages.2.learn.warmup_steps=0",
        "stages.3.learn.warmup_steps=0",
        "learn.rollouts_per_step=2",
    ),
    "soft_tokens": (EASY, "sample.thought.max_tokens=32"),
    "sstoken": ("task.num_problems=16",),
    "prior": ("task.num_problems=16", "unconditional.rollouts_per_step=8"),
}
"""What makes each recipe's step small."""


def methods(device: torch.device) -> Iterator[Finding]:
    """One step of each method."""
    with _folder() as folder:
        for name in METHODS:
            yield _step(name, folder, device)


def ray(device: torch.device) -> Iterator[Finding]:
    """One step of TIP with two learner ranks and a sampler: ZeRO, all-reduce, weight channel."""
    with _folder() as folder:
        cluster = ("cluster={learners: 2, samplers: 1, cpus: 0.1}", "learn.zero={stage: 2}")
        yield _step("tip", folder, device, cluster, title="Ray, 2 ranks, sampler")


def vllm(device: torch.device) -> Iterator[Finding]:
    """One step of TIP whose rollouts vLLM samples, with the weights that are trained."""
    if importlib.util.find_spec("vllm") is None:
        yield Finding(name="vLLM", status="absent", detail="not installed; samplers are local")
        return
    with _folder() as folder:
        engine = "sample.engine={kind: vllm, max_num_seqs: 8, gpu_memory_utilization: 0.1}"
        yield _step("tip", folder, device, (engine, "sample.max_tokens=16"), title="vLLM")


def _step(
    name: str,
    folder: Path,
    device: torch.device,
    overrides: Sequence[str] = (),
    *,
    title: str | None = None,
) -> Finding:
    """One step of a method's tiny recipe; an error passes through."""
    path = resources.folder("recipes") / "tiny" / f"{name}.yaml"
    place = [f"out={folder}", f"name={name}", f"model.path={folder / 'noisy'}"]
    if name == "tip":
        place.append(f"teacher.path={folder / 'teacher'}")
    recipe = read_recipe(
        path, [*COMMON, *OF_METHOD[name], *place, f"model.device={device}", *overrides]
    )
    rows: list[Stats] = []
    start = time.monotonic()
    ready, _ = stages.done(recipe)
    with run_context(ready, declared=recipe) as context:
        context.run(lambda step, stats: rows.append(stats))
    (stats,) = rows
    learned = math.isfinite(stats["loss"]) and 0 < stats["grad_norm"] < math.inf
    gap = f", sampler within {stats['canary_gap']:.1e} nats" if "canary_gap" in stats else ""
    return Finding(
        name=title or name,
        status="ok" if learned else "broken",
        detail=f"one step in {time.monotonic() - start:.1f} s, loss {stats['loss']:.4g}, gradient "
        f"norm {stats['grad_norm']:.4g}{gap}",
        mend="" if learned else "report the device and the versions above",
    )


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder with two tiny models that have wide heads, deleted afterwards."""
    models.quiet_libraries()
    package = logging.getLogger("reasontrain")
    level = package.level
    package.setLevel(logging.ERROR)  # a run's own lines would stand between the findings
    try:
        with tempfile.TemporaryDirectory(prefix="doctor-") as name:
            for which in ("noisy", "teacher"):
                model = models.load(ModelSettings(path=f"testbed:{which}")).model
                # rows without ids of the tokenizer, as in most published models
                model.resize_token_embeddings(VOCABULARY, mean_resizing=False)
                testbed.write(model, Path(name) / which)
                testbed.tokenizer().save_pretrained(Path(name) / which)
            yield Path(name)
    finally:
        package.setLevel(level)
