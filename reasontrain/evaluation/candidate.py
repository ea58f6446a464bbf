"""A model to evaluate, given by its weights: a full model, or an adapter on its base model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from reasontrain import models
from reasontrain.models import Description, DType, ModelSettings
from reasontrain.models.adapter import load as load_adapter
from reasontrain.recipe import EngineSettings
from reasontrain.sampler.factory import EngineSampler, make_sampler
from reasontrain.types import UserError


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model and its sampler engine, not loaded yet.

    Paths are absolute, so that any process can load it.

    Attributes:
        name: the model as the user named it.
        settings: settings of the model, or of the base model of an adapter.
        engine: settings of the sampler engine.
        adapter: the directory of the adapter, if it is one.
        base: the name of the adapter's base model, from the user or the adapter's config.
    """

    name: str
    settings: ModelSettings
    engine: EngineSettings
    adapter: Path | None = None
    base: str | None = None

    @property
    def chunk_size(self) -> int:
        """The number of prompts that are sampled together."""
        return self.engine.capabilities.prompts_per_call

    def describe(self) -> Description:
        """Describe the model without loading its weights."""
        description = models.describe(self.settings)
        description = replace(description, max_model_len=self.engine.longest)
        tokenizer = models.own_tokenizer(self.adapter) if self.adapter else None
        return replace(description, tokenizer=tokenizer) if tokenizer else description

    def facts(self) -> dict[str, str]:
        """The facts for reports: the weights, their dtype and the engine."""
        fingerprint = (
            models.adapter_fingerprint(self.settings, self.adapter)
            if self.adapter
            else models.fingerprint(self.settings)
        )
        base = {"base": self.base} if self.base else {}
        return {
            "model": self.name,
            **base,
            "fingerprint": fingerprint,
            "dtype": self.settings.dtype,
            "engine": self.engine.kind,
            **self.engine.facts(),
        }

    def sampler(self, seed: int) -> EngineSampler:
        """Load the model into a sampler."""
        policy = load_adapter(self.settings, self.adapter) if self.adapter else None
        return make_sampler(self.engine, self.settings, seed=seed, policy=policy)


def candidate(model: str, *, dtype: DType, engine: EngineSettings, base: str | None) -> Candidate:
    """Resolve the name of a model.

    Args:
        model: anything that `model.path` may be.
        dtype: dtype of the weights.
        engine: settings of the sampler engine.
        base: the base model of an adapter; None uses the one in the adapter's config.

    Returns:
        The candidate, not loaded yet.

    Raises:
        UserError: `base` is set for a full model, or the engine does not support adapters.
    """
    name = str(Path(model))
    adapter = models.adapter_directory(name)
    if adapter is None:
        if base is not None:
            raise UserError(
                f"--base is for adapters, but {model} is not a directory with an "
                f"adapter_config.json and without a config.json"
            )
        return Candidate(
            name=name, settings=ModelSettings(path=_absolute(name), dtype=dtype), engine=engine
        )
    if not engine.capabilities.adapters:
        raise UserError(
            f"{model} is an adapter, which {engine.capabilities.label} does not support here; "
            "merge it into its base model first, or leave --engine out"
        )
    base = str(Path(base or models.base_of(adapter)))
    settings = ModelSettings(path=_absolute(base), dtype=dtype)
    return Candidate(
        name=name, settings=settings, engine=engine, adapter=adapter.absolute(), base=base
    )


def _absolute(path: str) -> str:
    """The absolute path of a file or directory; ids of the hub or the testbed stay as they are."""
    return str(Path(path).absolute()) if Path(path).exists() else path
