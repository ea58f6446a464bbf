"""Settings of a valid recipe that change nothing in its run; `train` and `validate` name them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from reasontrain.algo.evidence import from_sources
from reasontrain.algo.objectives.reference_kl import ReferenceKl
from reasontrain.algo.token_advantage import RolloutAdvantage
from reasontrain.data.files import Source
from reasontrain.data.sampling import Sampling
from reasontrain.models import Importance
from reasontrain.recipe.cluster import Cluster, Zero
from reasontrain.recipe.learning import LearnSettings
from reasontrain.recipe.run_settings import TrackSettings
from reasontrain.recipe.settings import Recipe
from reasontrain.recipe.stage_references import references, split
from reasontrain.recipe.stages import ReferenceStage, SampleStage, TuneStage
from reasontrain.recipe.teachers import (
    ServedTeacher,
    TeacherByColumn,
    TeacherMixture,
    WeightsTeacher,
)
from reasontrain.tasks.gsm8k import Gsm8k
from reasontrain.tasks.math import MathTask


def unused_settings(recipe: Recipe) -> list[str]:
    """Settings without an effect in this run, as `key: reason`."""
    return [
        *_unused_models(recipe),
        *_unused_learning(recipe),
        *_unused_penalties(recipe),
        *_unused_processes(recipe),
        *_unused_sources(recipe),
        *_unused_sampling(recipe),
        *_unused_stages(recipe),
    ]


def _unused_models(recipe: Recipe) -> Iterator[str]:
    required = recipe.required_evidence
    rule = f"{recipe.token_selection.kind} and {recipe.objective.kind}"
    if (
        recipe.teacher is not None
        and not recipe.objective.needs_teacher
        and not from_sources(required, "teacher")
    ):
        yield f"teacher: {rule} compare with no teacher"
    elif (
        recipe.teacher is not None
        and not isinstance(recipe.teacher, TeacherByColumn | TeacherMixture)
        and recipe.teacher.top_k is None
        and recipe.teacher.tail != (WeightsTeacher.tail)
    ):
        yield "teacher.tail: `top_k` is null, so no id is left out"
    elif (
        isinstance(recipe.teacher, ServedTeacher)
        and recipe.teacher.scores == "sampled"
        and (recipe.teacher.top_k, recipe.teacher.tail) != (ServedTeacher.top_k, ServedTeacher.tail)
    ):
        yield "teacher.top_k, tail: `scores: sampled` asks for the sampled tokens alone"
    if (
        recipe.reference is not None
        and not from_sources(required, "reference")
        and not any(isinstance(stage, ReferenceStage) for stage in recipe.stages)
    ):
        yield f"reference: {rule} compare with no reference"
    if recipe.unconditional is not None and not from_sources(required, "unconditional"):
        yield f"unconditional: {rule} read no `uncond_logp`"
    if recipe.importance != Importance() and "attention" not in required:
        yield f"importance: {rule} read no `attention`"


def _unused_learning(recipe: Recipe) -> Iterator[str]:
    for at, learn in _learning(recipe):
        if learn.final_lr_share and learn.schedule == "constant":
            yield f"{at}.final_lr_share: the schedule is constant"
        if learn.zero is not None:
            zero = learn.zero
            if zero.nvme_path is not None and "nvme" not in (
                zero.offload_optimizer,
                zero.offload_parameters,
            ):
                yield f"{at}.zero.nvme_path: nothing is moved to nvme"
            if zero.persist_below != Zero().persist_below and zero.stage != 3:
                yield f"{at}.zero.persist_below: it is for stage 3"
    if recipe.learn.old_logp == "learner" and "old_logp" not in recipe.required_evidence:
        yield f"learn.old_logp: {recipe.objective.kind} has no ratio to older weights"
    track = recipe.track
    if track.project != TrackSettings().project and track.service is None:
        yield "track.project: `track.service` names no service"
    if track.tokens_rollouts != TrackSettings().tokens_rollouts and not track.tokens_every:
        yield "track.tokens_rollouts: `track.tokens_every` is 0"


def _unused_penalties(recipe: Recipe) -> Iterator[str]:
    objective = recipe.objective
    shaping = recipe.token_advantage
    if not isinstance(shaping, RolloutAdvantage) and not objective.score_at_sampling_temperature:
        yield f"token_advantage: {objective.kind} is no policy gradient and reads no advantages"
    if not isinstance(objective, ReferenceKl):
        return
    default = ReferenceKl()
    if objective.kl_estimator != default.kl_estimator and not objective.reference_kl:
        yield "objective.kl_estimator: `reference_kl` is 0"
    if objective.penalised_tokens != default.penalised_tokens and not objective.penalises:
        yield "objective.penalised_tokens: the objective has no penalty"


def _learning(recipe: Recipe) -> Iterator[tuple[str, LearnSettings]]:
    yield "learn", recipe.learn
    for number, stage in enumerate(recipe.stages):
        if isinstance(stage, TuneStage):
            yield f"stages.{number}.learn", stage.learn


def _unused_processes(recipe: Recipe) -> Iterator[str]:
    cluster = recipe.cluster
    if cluster is None:
        return
    default = Cluster()
    shared = not cluster.samplers and recipe.engine.capabilities.shares_policy
    names = ("canary_every", "canary_gap", "canary_ratio")
    canary, usual = (tuple(vars(each)[name] for name in names) for each in (cluster, default))
    if shared and canary != usual:
        yield (
            f"cluster.{', '.join(names)}: they compare weights of samplers with the learner's, and "
            "here they are the same"
        )
    if recipe.model.device == "cpu" and cluster.gpus_per_process != default.gpus_per_process:
        yield "cluster.gpus_per_process: `model.device: cpu` uses no GPU"
    if recipe.sample is None and recipe.evaluate is None:
        for name, number in (("samplers", cluster.samplers), ("graders", cluster.graders)):
            if number:
                yield f"cluster.{name}: nothing is sampled or evaluated"


def _unused_sources(recipe: Recipe) -> Iterator[str]:
    suites = recipe.evaluate.suites if recipe.evaluate else ()
    tasks = [
        ("task", recipe.task),
        *((f"evaluate.suites.{number}.task", suite.task) for number, suite in enumerate(suites)),
        *(
            (f"stages.{number}.task", stage.task)
            for number, stage in enumerate(recipe.stages)
            if isinstance(stage, SampleStage)
        ),
    ]
    for number, suite in enumerate(suites):
        if suite.file is not None and not isinstance(suite.task, Gsm8k | MathTask):
            yield f"evaluate.suites.{number}.file: it is for a `task` of kind math or gsm8k"
        if suite.sha256 is not None and suite.file is None:
            yield f"evaluate.suites.{number}.sha256: it is of the suite's `file`"
    for at, task in tasks:
        if isinstance(task, Source) and task.path is not None:
            of_hub = {"subset": None, "revision": None, "split": "train"}
            for name in (name for name, usual in of_hub.items() if getattr(task, name) != usual):
                yield f"{at}.{name}: it is of a hub data set, and a file is read"


def _unused_sampling(recipe: Recipe) -> Iterator[str]:
    suites = recipe.evaluate.suites if recipe.evaluate else ()
    samplings: list[tuple[str, Sampling | None]] = [
        ("sample", recipe.sample),
        *(
            (f"evaluate.suites.{number}.sampling", suite.sampling)
            for number, suite in enumerate(suites)
        ),
    ]
    for at, sampling in samplings:
        if sampling is None or sampling.temperature or sampling.thought is not None:
            continue
        default = Sampling()
        for field in dataclasses.fields(Sampling):
            if field.name in ("top_p", "top_k", "min_p") and getattr(
                sampling, field.name
            ) != getattr(default, field.name):
                yield f"{at}.{field.name}: temperature 0 takes the likeliest token"


def _unused_stages(recipe: Recipe) -> Iterator[str]:
    content = dataclasses.asdict(recipe)
    read = {split(reference)[0] for reference in references(content)}
    for number, stage in enumerate(recipe.stages):
        if stage.name not in read:
            yield f"stages.{number}: nothing reads what the stage {stage.name} writes"
