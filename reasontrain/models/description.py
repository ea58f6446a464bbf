"""What can be known of a model without its weights: where it is, its configuration, tokenizer and
size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from reasontrain.models import testbed, testbed_vision
from reasontrain.models.settings import ModelSettings
from reasontrain.models.vision import Vision, vision_of
from reasontrain.types import UserError

TESTBED, UNTRAINED = "testbed:", "untrained:"


@dataclass(frozen=True)
class Description:
    """What is known of a model without its weights."""

    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    num_parameters: int
    stop_ids: frozenset[int]
    vision: Vision | None = None

    @property
    def context(self) -> int:
        """The longest sequence, in tokens, that the model was made for."""
        return context_of(self.config)


def context_of(config: PreTrainedConfig) -> int:
    """The longest sequence, in tokens, of models with this configuration."""
    context = config.get_text_config().to_dict().get("max_position_embeddings")
    if context is None:
        raise UserError(
            f"{config.model_type} does not say how long its context is (max_position_embeddings)"
        )
    return int(context)


def describe(settings: ModelSettings) -> Description:
    """Configuration, tokenizer and size of the model at `settings.path`; raises UserError where it
    cannot be read.
    """
    with located(settings.path) as path, readable(settings.path):
        chosen = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
        config = AutoConfig.from_pretrained(path, **chosen)
        tokenizer = AutoTokenizer.from_pretrained(path, **chosen)
        with torch.device("meta"):
            model = class_of(config).from_config(
                config, trust_remote_code=settings.trust_remote_code
            )
        vision = vision_of(config, tokenizer, path, settings.revision)
        try:
            generation = GenerationConfig.from_pretrained(path, revision=settings.revision)
        except OSError:  # there is no such file, as there need not be
            generation = model.generation_config
    return Description(
        config, tokenizer, model.num_parameters(), stop_ids_of(generation, tokenizer), vision
    )


def class_of(
    config: PreTrainedConfig,
) -> type[AutoModelForCausalLM] | type[AutoModelForImageTextToText]:
    """What loads models with this configuration."""
    return (
        AutoModelForImageTextToText if "vision_config" in config.to_dict() else AutoModelForCausalLM
    )


def stop_ids_of(generation: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids that end a response."""
    configured = generation.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None)


@contextmanager
def readable(path: str) -> Iterator[None]:
    """What transformers raises where a model cannot be read, as one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} is no model that can be loaded: {first}") from error


@contextmanager
def located(path: str) -> Iterator[str]:
    """The directory of a testbed model (built here, where it is to be an untrained one), or the
    path as it is.
    """
    if path.startswith(UNTRAINED):
        name = path.removeprefix(UNTRAINED)
        builders: dict[str, Callable[[Path], None]] = {
            n: partial(testbed.build, shape=s) for n, s in testbed.SHAPES.items()
        }
        builders |= testbed_vision.BUILDERS
        if name not in builders:
            raise UserError(
                f"{path} is no testbed shape; there is: "
                f"{', '.join(UNTRAINED + n for n in builders)}"
            )
        with TemporaryDirectory() as directory:
            builders[name](Path(directory))
            yield directory
        return
    if not path.startswith(TESTBED):
        yield path
        return
    found = testbed.MODELS / path.removeprefix(TESTBED)
    if not (found / "config.json").exists():
        shipped = (
            ", ".join(sorted(f"{TESTBED}{p.name}" for p in found.parent.glob("*") if p.is_dir()))
            or "none"
        )
        raise UserError(f"{path} is no testbed model; there is: {shipped}")
    yield str(found)
