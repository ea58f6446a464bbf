"""Facts about a model that need no weights: its directory, configuration, tokenizer and size."""

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

from reasontrain.data.templates import ChatTemplate
from reasontrain.models import testbed, testbed_vision
from reasontrain.models.settings import ModelSettings
from reasontrain.models.vision import Vision, vision_of
from reasontrain.types import UserError

TESTBED = "testbed:"
UNTRAINED = "untrained:"


@dataclass(frozen=True)
class Description:
    """A model without its weights; `stop_ids` are the token ids that end a response."""

    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    num_parameters: int
    stop_ids: frozenset[int]
    vision: Vision | None = None

    @property
    def context(self) -> int:
        """The longest sequence of the model, in tokens."""
        return context_of(self.config)


def context_of(config: PreTrainedConfig) -> int:
    """The longest sequence of models with this configuration, in tokens."""
    context = config.get_text_config().to_dict().get("max_position_embeddings")
    if context is None:
        raise UserError(
            f"the configuration of {config.model_type} has no max_position_embeddings, so its "
            f"context length is unknown"
        )
    return int(context)


def describe(settings: ModelSettings) -> Description:
    """Configuration, tokenizer and size of the model at `settings.path`.

    Raises UserError if they cannot be read.
    """
    with located(settings.path) as path, readable(settings.path):
        source = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
        config = AutoConfig.from_pretrained(path, **source)
        tokenizer = AutoTokenizer.from_pretrained(path, **source)
        # On the meta device parameters have shapes and no memory.
        with torch.device("meta"):
            model = class_of(config).from_config(
                config, trust_remote_code=settings.trust_remote_code
            )
        vision = vision_of(config, tokenizer, path, settings.revision)
        try:
            generation = GenerationConfig.from_pretrained(path, revision=settings.revision)
        except OSError:  # generation_config.json is optional
            generation = model.generation_config
    return Description(
        config, tokenizer, model.num_parameters(), stop_ids_of(generation, tokenizer), vision
    )


def class_of(
    config: PreTrainedConfig,
) -> type[AutoModelForCausalLM] | type[AutoModelForImageTextToText]:
    """The transformers class that loads models with this configuration."""
    return (
        AutoModelForImageTextToText if "vision_config" in config.to_dict() else AutoModelForCausalLM
    )


def stop_ids_of(generation: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Token ids that end a response.

    They are those of the generation settings and the tokenizer, and the tokens that the chat
    template ends an answer with: `<end_of_turn>` is the end-of-text token of no Gemma.
    """
    configured = generation.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    ends = ChatTemplate(tokenizer).end_ids() if tokenizer.chat_template is not None else frozenset()
    return ends | {int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None}


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn transformers' errors about an unreadable model into a UserError of one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"the model {path} cannot be loaded: {first}") from error


@contextmanager
def located(path: str) -> Iterator[str]:
    """The directory of `path`: of a shipped testbed model, or the path itself.

    `untrained:NAME` is built in a temporary directory that lasts as long as the context.
    """
    if path.startswith(UNTRAINED):
        name = path.removeprefix(UNTRAINED)
        builders: dict[str, Callable[[Path], None]] = {
            n: partial(testbed.build, shape=s) for n, s in testbed.SHAPES.items()
        }
        builders |= testbed_vision.BUILDERS
        if name not in builders:
            raise UserError(
                f"there is no testbed shape {path}; available: "
                f"{', '.join(UNTRAINED + n for n in builders)}"
            )
        with TemporaryDirectory() as temporary:
            builders[name](Path(temporary))
            yield temporary
        return
    if not path.startswith(TESTBED):
        yield path
        return
    directory = testbed.MODELS / path.removeprefix(TESTBED)
    if not (directory / "config.json").exists():
        shipped = (
            ", ".join(sorted(f"{TESTBED}{p.name}" for p in testbed.MODELS.glob("*") if p.is_dir()))
            or "none"
        )
        raise UserError(f"there is no testbed model {path}; available: {shipped}")
    yield str(directory)
