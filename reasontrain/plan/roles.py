"""The models of a recipe with their shapes and bytes, and the process that holds each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from reasontrain.algo.evidence import Model, forward_passes
from reasontrain.models import ModelSettings, Shape, adapter_directory
from reasontrain.plan import shape as shapes
from reasontrain.plan.activations import Mode
from reasontrain.plan.machine import Machine
from reasontrain.plan.work import Work, work_of
from reasontrain.recipe import (
    Cluster,
    EngineSettings,
    MovingAverage,
    Muon,
    Recipe,
    StartWeights,
    TeacherByColumn,
    Zero,
)


@dataclass(frozen=True)
class FrozenRole:
    """A teacher, a reference or a copy of an earlier policy."""

    role: str
    shape: Shape
    number_bytes: int
    merged: bool = False
    """True if the weights are an adapter's, merged in float32 when they are loaded."""

    @property
    def weights(self) -> int:
        """Bytes of the whole model."""
        return self.number_bytes * shapes.num_parameters(self.shape)


@dataclass(frozen=True)
class PlannedJob:
    """A recipe with the sizes of its models and of the machine."""

    recipe: Recipe
    machine: Machine
    shape: Shape
    teachers: tuple[FrozenRole, ...]
    reference: FrozenRole | None
    history: FrozenRole | None

    @property
    def teacher(self) -> FrozenRole | None:
        """The teacher, or the first of several; processes of their own hold a single one."""
        return self.teachers[0] if self.teachers else None

    @property
    def teacher_share(self) -> float:
        """The share of a batch that each teacher scores.

        Of a choice by a column, whose values a plan does not read, it is an equal part for each.
        """
        return 1 / len(self.teachers) if self._is_by_column else 1.0

    @property
    def teacher_state_bytes(self) -> int:
        """Bytes of the teachers' hidden states at one position.

        Where a column chooses the teacher, they are those of the widest.
        """
        widths = [each.shape.hidden_size * each.number_bytes for each in self.teachers]
        return max(widths, default=0) if self._is_by_column else sum(widths)

    @property
    def _is_by_column(self) -> bool:
        return isinstance(self.recipe.teacher, TeacherByColumn)

    @property
    def frozen(self) -> list[FrozenRole]:
        """All models that are not trained."""
        others = [model for model in (self.reference, self.history) if model is not None]
        return [*self.teachers, *others]

    @property
    def shardable(self) -> bool:
        """True if there are frozen models and all of them may be sharded."""
        return bool(self.frozen) and not isinstance(self.recipe.history, MovingAverage)

    @property
    def zero(self) -> Zero | None:
        """ZeRO settings of the learner ranks."""
        return self.recipe.learn.zero

    @property
    def stage(self) -> int:
        """ZeRO stage; 0 without ZeRO."""
        return self.zero.stage if self.zero else 0

    @property
    def cluster(self) -> Cluster:
        """Processes of each role; one process for all roles if the recipe has no cluster."""
        return self.recipe.cluster or Cluster()

    @property
    def ranks(self) -> int:
        """Number of learner ranks."""
        return self.cluster.learners

    @property
    def on_gpu(self) -> bool:
        """True unless the recipe sets `model.device: cpu`."""
        return self.recipe.model.device != "cpu"

    @property
    def gpus_per_process(self) -> float:
        """The part of a GPU that a process with a model has; 0 on CPUs."""
        return self.cluster.gpus_per_process if self.on_gpu else 0.0

    @property
    def memory_bytes(self) -> int:
        """Bytes that a process may hold: its part of a GPU, if processes share GPUs."""
        return int(self.cluster.gpus_per_process * self.machine.memory_bytes)

    @cached_property
    def work(self) -> Work:
        """The size of a step."""
        return work_of(self.recipe, self.machine, self.ranks, self.cluster.samplers)

    @property
    def mode(self) -> Mode:
        """Numerics of the learner.

        A whole policy has float32 weights and computes under autocast. From ZeRO stage 1 on, and
        under adapters, its weights are in `model.dtype`.
        """
        if self.recipe.model.dtype == "float32":
            return "float32"
        return "autocast" if self.stage == 0 and not self.base else "bfloat16"

    @property
    def weight_bytes(self) -> int:
        """Bytes of one weight that the forward uses; those of adapters apart."""
        return 2 if self.mode == "bfloat16" else 4

    @property
    def trained_bytes(self) -> int:
        """Bytes of one trained weight, as the forward uses it, and of its gradient."""
        return 4 if self.stage == 0 else self.weight_bytes

    @property
    def sampler_bytes(self) -> int:
        """Bytes of one weight of a sampler's own copy, and of one element of its cache."""
        return _bytes(self.recipe.model)

    @property
    def trainable(self) -> int:
        """Trainable parameters."""
        lora = self.recipe.model.lora
        return (
            shapes.num_parameters(self.shape)
            if lora is None
            else shapes.num_adapter(self.shape, lora)
        )

    @property
    def base(self) -> int:
        """Frozen parameters of the policy, under adapters."""
        return 0 if self.recipe.model.lora is None else shapes.num_parameters(self.shape)

    @property
    def muon_parameters(self) -> int:
        """Parameters that Muon updates: every trainable matrix of the trunk."""
        if not isinstance(self.recipe.learn.optimizer, Muon):
            return 0
        return (
            self.trainable if self.base else self.shape.num_layers * shapes.num_linear(self.shape)
        )

    @property
    def trains_head(self) -> bool:
        """True if the head's gradient dW is formed."""
        return self.base == 0

    @property
    def samples_here(self) -> bool:
        """True if the learner ranks sample."""
        return self.recipe.sample is not None and self.cluster.samplers == 0

    @property
    def reserving_engine(self) -> EngineSettings | None:
        """The sampler engine, if it reserves a share of its GPUs."""
        sample = self.recipe.sample
        if sample is None or sample.engine.gpu_memory_share(colocated=self.samples_here) is None:
            return None
        if not self.on_gpu:
            return sample.engine
        part = self.cluster.gpus_per_process
        return sample.engine.on_part_of_gpu(part, colocated=self.samples_here)

    @property
    def observed(self) -> frozenset[Model]:
        """The models with an additional forward pass before the loss, for evidence."""
        return forward_passes(self.recipe.measured_evidence)

    @property
    def observes_student(self) -> bool:
        """True if the policy has an additional forward pass before the loss."""
        return "policy" in self.observed

    @property
    def passes(self) -> int:
        """Number of forward passes of the policy before the loss.

        One is for its own evidence, one for its history if that is the policy with its adapters
        off.
        """
        return int(self.observes_student) + int("history" in self.observed and self.history is None)

    @property
    def observes_teacher(self) -> bool:
        """True if the teacher's hidden states are computed before the loss and stored for it."""
        return "teacher" in self.observed


def job_of(recipe: Recipe, machine: Machine) -> PlannedJob:
    """The recipe with the shapes of its models; nothing is downloaded.

    Raises UserError if the sizes of a model are not available.
    """
    reference = recipe.reference or recipe.model
    measured = forward_passes(recipe.measured_evidence)
    return PlannedJob(
        recipe,
        machine,
        shapes.shape_of(recipe.model, "model"),
        _teachers(recipe),
        _frozen(reference, "reference" if recipe.reference else "model")
        if "reference" in measured
        else None,
        _history(recipe) if "history" in measured else None,
    )


def _history(recipe: Recipe) -> FrozenRole | None:
    """The history model; None if it is the policy with its adapters off.

    A frozen copy has the policy's precision (see `learner.factory`).
    """
    if recipe.model.lora is not None and isinstance(recipe.history, StartWeights):
        return None
    zero = recipe.learn.zero
    plain = zero is None or (zero.stage == 0 and zero.frozen == "whole")
    wide = (plain and recipe.model.lora is None) or isinstance(recipe.history, MovingAverage)
    return FrozenRole(
        "history",
        shapes.shape_of(recipe.earlier, "model"),
        4 if wide else _bytes(recipe.model),
        merged=adapter_directory(recipe.earlier.path) is not None,
    )


def _teachers(recipe: Recipe) -> tuple[FrozenRole, ...]:
    """The teachers whose weights are loaded, several of them numbered from 1."""
    models = recipe.teacher_models
    return tuple(
        replace(_frozen(settings, key), role="teacher" if len(models) == 1 else f"teacher {number}")
        for number, (key, settings) in enumerate(models.items(), 1)
    )


def _frozen(settings: ModelSettings, key: str) -> FrozenRole:
    return FrozenRole(
        "reference",
        shapes.shape_of(settings, key),
        _bytes(settings),
        merged=adapter_directory(settings.path) is not None,
    )


def _bytes(settings: ModelSettings) -> int:
    return 4 if settings.dtype == "float32" else 2
