"""Language models as a trunk and a head: loading them, and refusing what could not be trained or compared rightly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.cache_utils import Cache

from reasontrain import testbed
from reasontrain.types import AtLeastOne, Positive, UserError
from reasontrain.vocab import Head

TESTBED, UNTRAINED = "testbed:", "untrained:"
DType = Literal["float32", "bfloat16"]


LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The matrices of a Llama or Qwen layer, by their names."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021) on matrices of the trunk: W + alpha / rank * B A, with W frozen.

    No dropout, because evidence and loss must see the same logits; not on the head, whose weight the fused loss takes as it is.
    """

    rank: AtLeastOne = 16
    alpha: Positive = 32.0
    targets: tuple[str, ...] = LINEAR

    def __post_init__(self) -> None:
        wrong = sorted({"lm_head", "embed_tokens"} & set(self.targets))
        if wrong:
            raise ValueError(f"targets: an adapter on {', '.join(wrong)} is not supported; choose matrices of the trunk")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a dense Llama or Qwen, as its configuration names them: enough to count what it costs without reading it.

    `qkv_bias` is Qwen2's, `qk_norm` Qwen3's.
    """

    hidden_size: AtLeastOne
    intermediate_size: AtLeastOne
    num_layers: AtLeastOne
    num_heads: AtLeastOne
    num_kv_heads: AtLeastOne
    head_dim: AtLeastOne
    vocab_size: AtLeastOne
    tied: bool
    qkv_bias: bool = False
    qk_norm: bool = False

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is no multiple of num_kv_heads {self.num_kv_heads}")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model, and how it computes.

    `path` is a directory, a hub id or `testbed:NAME` for a shipped tiny model. `dtype` is what the trunk computes in; a policy
    that is trained keeps float32 weights. `export` is the dtype of `final/` (that of `dtype` where it is left out). `shape` lets
    `reasontrain plan` count a model that is not at hand; nothing else reads it.
    """

    path: str
    revision: str | None = None
    dtype: DType = "float32"
    export: DType | None = None
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    gradient_checkpointing: bool = False
    lora: Lora | None = None
    trust_remote_code: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    shape: Shape | None = None

    def __post_init__(self) -> None:
        if self.trust_remote_code and self.revision is None:
            raise ValueError("trust_remote_code needs a `revision`, so that the code which runs is named")


@dataclass(frozen=True)
class Description:
    """What is known of a model without its weights."""

    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    num_parameters: int
    stop_ids: frozenset[int]

    @property
    def context(self) -> int:
        """The longest sequence, in tokens, that the model was made for."""
        return context_of(self.config)


def context_of(config: PreTrainedConfig) -> int:
    """The longest sequence, in tokens, of models with this configuration."""
    context = config.to_dict().get("max_position_embeddings")
    if context is None:
        raise UserError(f"{config.model_type} does not say how long its context is (max_position_embeddings)")
    return int(context)


def describe(settings: ModelSettings) -> Description:
    """Configuration, tokenizer and size of the model at `settings.path`; raises UserError where it cannot be read."""
    with located(settings.path) as path, _readable(settings.path):
        chosen = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
        config = AutoConfig.from_pretrained(path, **chosen)
        tokenizer = AutoTokenizer.from_pretrained(path, **chosen)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=settings.trust_remote_code)
        try:
            generation = GenerationConfig.from_pretrained(path, revision=settings.revision)
        except OSError:  # there is no such file, as there need not be
            generation = model.generation_config
    return Description(config, tokenizer, model.num_parameters(), _stop_ids(generation, tokenizer))


def _stop_ids(generation: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids that end a response."""
    configured = generation.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None)


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """What transformers raises where a model cannot be read, as one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} is no model that can be loaded: {first}") from error


class Policy:
    """A causal language model split into the trunk, which makes hidden states, and the head, which makes logits of them."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype = torch.float32) -> None:
        """`dtype` is what the trunk and the head's products compute in, whatever the weights are kept in."""
        self.model, self.tokenizer, self.dtype = model, tokenizer, dtype

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.model.device

    @property
    def head(self) -> Head:
        """The output head as it is now, with the transforms that this architecture applies to its logits."""
        linear = self.model.get_output_embeddings()
        config = self.model.config.to_dict()
        scale = (config.get("logit_scale") or 1.0) / (config.get("logits_scaling") or 1.0)
        softcap = config.get("final_logit_softcapping")
        return Head(weight_VD=linear.weight, bias_V=linear.bias, scale=scale, softcap=softcap, product_dtype=self.dtype)

    @property
    def context(self) -> int:
        """The longest sequence, in tokens, that the model was made for."""
        return context_of(self.model.config)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end a response."""
        return _stop_ids(self.model.generation_config, self.tokenizer)

    def hidden(
        self,
        ids: Int[Tensor, "B T"] | None = None,
        *,
        embeds: Float[Tensor, "B T D"] | None = None,
        position: Int[Tensor, "B T"] | None = None,
        mask: Int[Tensor, "B S"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Last hidden states (after the final norm), from ids or input embeddings.

        Without `mask` and `cache`, positions that restart separate packed sequences; with `cache`, T new tokens are added to it.
        """
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            output = self.model.base_model(
                input_ids=ids,
                inputs_embeds=embeds,
                position_ids=position,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        hidden: Tensor = output.last_hidden_state
        return hidden.to(self.dtype)  # a norm that is kept in float32 gives float32


@contextmanager
def located(path: str) -> Iterator[str]:
    """The directory of a testbed model (built here, where it is to be an untrained one), or the path as it is."""
    if path.startswith(UNTRAINED):
        name = path.removeprefix(UNTRAINED)
        if name not in testbed.SHAPES:
            raise UserError(f"{path} is no testbed shape; there is: {', '.join(UNTRAINED + n for n in testbed.SHAPES)}")
        with TemporaryDirectory() as directory:
            testbed.build(Path(directory), testbed.SHAPES[name])
            yield directory
        return
    if not path.startswith(TESTBED):
        yield path
        return
    found = testbed.MODELS / path.removeprefix(TESTBED)
    if not (found / "config.json").exists():
        shipped = ", ".join(sorted(f"{TESTBED}{p.name}" for p in found.parent.glob("*") if p.is_dir())) or "none"
        raise UserError(f"{path} is no testbed model; there is: {shipped}")
    yield str(found)


def load(settings: ModelSettings, *, trainable: bool = False) -> Policy:
    """The policy at `settings.path`; a trainable one keeps float32 weights, a frozen one weights of its dtype.

    Raises UserError where it cannot be loaded, or computes its logits in a way that `Head` does not know.
    """
    with located(settings.path) as path:
        model, tokenizer = _from_pretrained(path, settings, trainable)
    model.to(_device(settings.device))
    model.requires_grad_(trainable)
    if settings.gradient_checkpointing and trainable:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    policy = Policy(model.train(trainable), tokenizer, getattr(torch, settings.dtype))
    check_head(policy)
    return policy


def _from_pretrained(path: str, settings: ModelSettings, trainable: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model without dropout, and its tokenizer."""
    dtype = torch.float32 if trainable else getattr(torch, settings.dtype)
    chosen = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
    with _readable(settings.path):
        config = AutoConfig.from_pretrained(path, **chosen)
        _no_dropout(config)
        attention = None if settings.attention == "auto" else settings.attention
        model = AutoModelForCausalLM.from_pretrained(path, config=config, attn_implementation=attention, dtype=dtype, **chosen)
        tokenizer = AutoTokenizer.from_pretrained(path, **chosen)
    return model, tokenizer


def _device(name: str) -> torch.device:
    """`auto` is the GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("model.device is `cuda`, and no CUDA GPU is visible; use `auto` or `cpu`")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def _no_dropout(config: PreTrainedConfig) -> None:
    """Evidence and loss must see the same logits, so every dropout is off."""
    for name, value in config.to_dict().items():
        if isinstance(value, float) and ("dropout" in name or "pdrop" in name):
            setattr(config, name, 0.0)


@torch.no_grad()
def check_head(policy: Policy) -> None:
    """Refuse an architecture whose logits are not what `Head` computes from its hidden states."""
    ids = torch.arange(4, device=policy.device)[None]
    expected = policy.model(input_ids=ids, use_cache=False).logits[0].float()
    found = policy.head.logits(policy.hidden(ids)[0])
    tolerance = 1e-3 if policy.dtype == torch.float32 else 0.1
    if not torch.allclose(found, expected, rtol=tolerance, atol=tolerance * max(1.0, float(expected.abs().max()))):
        raise UserError(
            f"{policy.model.config.model_type} transforms its logits in a way that reasontrain does not know: they differ from "
            f"head(hidden) by up to {float((found - expected).abs().max()):.3g}"
        )


def check_same_ids(student: Policy | Description, other: Policy | Description, role: str) -> None:
    """Refuse a teacher or reference whose token ids mean something else; padding rows of the head may differ in number."""
    ours, theirs = ({index: token for token, index in p.tokenizer.get_vocab().items()} for p in (student, other))
    for index in sorted(ours.keys() | theirs.keys()):
        if ours.get(index) != theirs.get(index):
            raise UserError(
                f"the {role} has other token ids than the model: id {index} is {theirs.get(index)!r} there and "
                f"{ours.get(index)!r} here; both must share one vocabulary"
            )
