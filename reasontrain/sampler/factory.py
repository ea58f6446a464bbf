"""Construction of samplers for training, evaluation and stages, in any process."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from reasontrain import models
from reasontrain.models import ModelSettings, Policy
from reasontrain.recipe import EngineSettings, LocalEngine, VllmEngine
from reasontrain.sampler import Sampler
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.vllm import VllmSampler
from reasontrain.sampler.vllm_engine import installed
from reasontrain.types import RunError


@runtime_checkable
class EngineSampler(Sampler, Protocol):
    """A sampler that runs a model, with the device on which it expects new weights."""

    @property
    def device(self) -> torch.device:
        """The device on which `load` expects weights."""
        ...

    def close(self) -> None:
        """End the engine's processes and release its memory; the last call of a sampler."""


@runtime_checkable
class EngineMaker(Protocol):
    """Settings of an engine of a plug-in."""

    def make_sampler(
        self, model: ModelSettings, *, seed: int, policy: Policy | None, colocated: bool
    ) -> EngineSampler:
        """Build the engine's sampler; see the function of this name."""
        ...


@runtime_checkable
class SleepingSampler(Protocol):
    """A sampler whose engine can release its GPU memory to the learner until the next `load`."""

    def sleep(self) -> None:
        """Release the GPU memory."""


def make_sampler(
    engine: EngineSettings,
    model: ModelSettings,
    *,
    seed: int,
    policy: Policy | None = None,
    colocated: bool = False,
) -> EngineSampler:
    """Build the sampler of an engine, ready to sample.

    Args:
        engine: the engine's settings.
        model: the model whose weights the sampler starts from.
        seed: seed of the random numbers that choose tokens.
        policy: `model`, already loaded (by the learner, or with an adapter on it). Engines with
            their own copy of the weights ignore it.
        colocated: a learner in this process trains `policy` and uses the same GPUs.

    Returns:
        A sampler at version 0 of the weights.

    Raises:
        UserError: the engine is not installed, or its settings do not fit the model.
        RunError: the engine does not start.
    """
    match engine:
        case LocalEngine():
            return LocalSampler(
                policy or models.load(model),
                seed=seed,
                max_num_seqs=engine.max_num_seqs,
                shared=colocated,
                cuda_graphs=engine.cuda_graphs,
            )
        case VllmEngine():
            # The engine starts from the base model of an adapter; `load` brings the merged weights.
            base = models.base_settings(model)
            return VllmSampler(base, engine, seed=seed, colocated=colocated)
        case EngineMaker():
            sampler = engine.make_sampler(model, seed=seed, policy=policy, colocated=colocated)
            if not isinstance(sampler, EngineSampler):
                raise RunError(
                    f"sample.engine: make_sampler of {engine.kind} returned an object of type "
                    f"{type(sampler).__name__}, which lacks a part of "
                    "reasontrain.sampler.factory.EngineSampler"
                )
            return sampler
    raise AssertionError(f"{engine.kind} makes no sampler")


def check_installed(engine: EngineSettings) -> None:
    """Raise UserError if the engine needs a package that cannot be imported."""
    if isinstance(engine, VllmEngine):
        installed()
