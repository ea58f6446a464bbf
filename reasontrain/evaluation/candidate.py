"""A model that can be asked here: whole, or an adapter over its base; decoded by our own loop or by
vLLM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from reasontrain import models
from reasontrain.learner import adapter
from reasontrain.models import Description, DType, ModelSettings
from reasontrain.recipe import LocalEngine, VllmEngine
from reasontrain.sampler import Sampler
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.vllm import VllmSampler
from reasontrain.types import UserError

AT_ONCE = {"local": 256, "vllm": 1024}
"""Prompts of a suite that are sampled together, by engine; the local one decodes at most
`LocalEngine.max_num_seqs` rows at once.
"""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Weights and who decodes with them; nothing is loaded yet.

    `name` is what the user calls it and `base` its base model, where it is an `adapter`; `settings`
    are then the base model's. Paths are absolute, so that every process may load it.
    """

    name: str
    settings: ModelSettings
    engine: LocalEngine | VllmEngine
    adapter: Path | None = None
    base: str | None = None

    @property
    def at_once(self) -> int:
        """Prompts that are sampled together."""
        return AT_ONCE[self.engine.kind]

    def describe(self) -> Description:
        """What is known of it without its weights."""
        found = models.describe(self.settings)
        own = adapter.own_tokenizer(self.adapter) if self.adapter else None
        return replace(found, tokenizer=own) if own else found

    def facts(self) -> dict[str, str]:
        """What a report says of it: whose weights these are, and how they were computed with."""
        mark = (
            adapter.fingerprint(self.settings, self.adapter)
            if self.adapter
            else models.fingerprint(self.settings)
        )
        base = {"base": self.base} if self.base else {}
        return {
            "model": self.name,
            **base,
            "fingerprint": mark,
            "dtype": self.settings.dtype,
            "engine": self.engine.kind,
        }

    def sampler(self, seed: int) -> Sampler:
        """Load it, ready to answer."""
        if isinstance(self.engine, VllmEngine):
            return VllmSampler(self.settings, self.engine, seed=seed)
        policy = (
            adapter.load(self.settings, self.adapter)
            if self.adapter
            else models.load(self.settings)
        )
        return LocalSampler(policy, seed=seed, max_num_seqs=self.engine.max_num_seqs)


def candidate(
    model: str, *, dtype: DType, engine: LocalEngine | VllmEngine, base: str | None
) -> Candidate:
    """What `model` means: a directory, a hub id, a testbed model, or the directory of an adapter,
    whose base may be another.
    """
    name = str(Path(model))
    if not adapter.is_adapter(name):
        if base is not None:
            raise UserError(
                f"--base is for adapters, and {model} is no directory with an "
                f"{adapter.CONFIG} and no config.json"
            )
        return Candidate(
            name=name, settings=ModelSettings(path=_everywhere(name), dtype=dtype), engine=engine
        )
    if isinstance(engine, VllmEngine):
        raise UserError(
            f"{model} is an adapter, and vLLM is given whole models here; merge it first, "
            f"or leave --engine out"
        )
    base = str(Path(base or adapter.base_of(Path(name))))
    settings = ModelSettings(path=_everywhere(base), dtype=dtype)
    return Candidate(
        name=name, settings=settings, engine=engine, adapter=Path(name).absolute(), base=base
    )


def _everywhere(path: str) -> str:
    """A directory's absolute path; an id of the hub or of the testbed as it is."""
    return str(Path(path).absolute()) if Path(path).is_dir() else path
