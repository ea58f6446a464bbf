"""Which model, how it computes, and what of it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Lt

from reasontrain.types import AtLeastOne, Positive, Vocabulary

DType = Literal["float32", "bfloat16"]

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The matrices of a Llama or Qwen layer, by their names."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021) on matrices of the trunk: W + alpha / rank * B A, with W
    frozen.

    No dropout, because evidence and loss must see the same logits; not on the head, whose weight
    the fused loss takes as it is.
    """

    rank: AtLeastOne = 16
    alpha: Positive = 32.0
    targets: tuple[str, ...] = LINEAR

    def __post_init__(self) -> None:
        wrong = sorted({"lm_head", "embed_tokens"} & set(self.targets))
        if wrong:
            raise ValueError(
                f"targets: an adapter on {', '.join(wrong)} is not supported; choose "
                f"matrices of the trunk"
            )


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a dense Llama or Qwen, as its configuration names them: enough to count what it
    costs without reading it.

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
            raise ValueError(
                f"num_heads {self.num_heads} is no multiple of num_kv_heads {self.num_kv_heads}"
            )


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model, and how it computes.

    `path` is a directory, a hub id or `testbed:NAME` for a shipped tiny model. `dtype` is what the
    trunk computes in; a policy that is trained keeps float32 weights. `export` is the dtype of
    `final/` (that of `dtype` where it is left out). `shape` lets `reasontrain plan` count a model
    that is not at hand; nothing else reads it. `vocabulary` is by what logits become losses,
    evidence and gradients: Triton's kernels (`triton`), blocks in torch (`torch`), or logits kept
    whole and differentiated by autograd (`whole`: the plain twin, to compare with); `auto` is
    triton on a GPU that can, else torch.
    """

    path: str
    revision: str | None = None
    dtype: DType = "float32"
    export: DType | None = None
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    vocabulary: Vocabulary = "auto"
    gradient_checkpointing: bool = False
    lora: Lora | None = None
    trust_remote_code: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    shape: Shape | None = None

    def __post_init__(self) -> None:
        if self.trust_remote_code and self.revision is None:
            raise ValueError(
                "trust_remote_code needs a `revision`, so that the code which runs is named"
            )


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Which attention is looked at: the layer, counted from the last (-1), and how many tokens at
    the start do not count.

    The first token of a sequence absorbs much of the attention of deep layers, whatever it is;
    `skip_first: 1` leaves it out of the prompt (0 is the paper's).
    """

    layer: Annotated[int, Lt(0)] = -1
    skip_first: Annotated[int, Ge(0)] = 0
