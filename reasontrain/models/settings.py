"""Settings of a model: its path, its numerics, and the part of it that is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Lt

from reasontrain.types import AtLeastOne, Positive, Vocabulary

DType = Literal["float32", "bfloat16"]
Attention = Literal["auto", "varlen", "sdpa", "eager", "flash_attention_2"]

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Names of the weight matrices in a Llama or Qwen layer."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters on matrices of the trunk: W + alpha / rank * B A, with W frozen.

    Hu et al. 2021. There is no dropout, because evidence and loss must see the same logits, and no
    adapter on the head, because the fused loss reads its weight directly.
    """

    rank: AtLeastOne = 16
    alpha: Positive = 32.0
    targets: tuple[str, ...] = LINEAR

    def __post_init__(self) -> None:
        wrong = sorted({"lm_head", "embed_tokens"} & set(self.targets))
        if wrong:
            raise ValueError(
                f"targets: an adapter on {', '.join(wrong)} is not supported; choose matrices of "
                f"the trunk"
            )


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a dense Llama or Qwen, to compute its cost without its files.

    Names are those of its configuration; `qkv_bias` is Qwen2's, `qk_norm` Qwen3's.
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
                f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}"
            )


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """A model and its numerics.

    Attributes:
        path: a directory, a LoRA adapter's directory, a GGUF file, a hub id (looked up in
            `$REASONTRAIN_MODELS` first), `testbed:NAME` for a shipped tiny model or
            `untrained:NAME` for one with random weights.
        revision: commit, branch or tag of a hub model.
        dtype: dtype of matrix products, and of weights that are frozen; weights that are trained
            are kept in float32.
        export: dtype of the weights in `final/`; None is `dtype`.
        attention: attention implementation. "varlen" attends to packed rows by the lengths of their
            sequences, without a mask; the others are transformers'. "auto" is "varlen" for packed
            rows where that is exact, else transformers' default.
        vocabulary: backend for losses, evidence and gradients over the vocabulary: Triton kernels
            ("triton"), torch in blocks ("torch"), or all logits in memory and autograd
            ("full_logits", the reference to compare with). "auto" is Triton on a GPU that supports
            it, else torch.
        gradient_checkpointing: recompute activations in backward.
        lora: train adapters, in float32, instead of all weights, which stay in `dtype`;
            `final/adapter` holds them alone.
        trust_remote_code: run code from the model's repository; needs `revision`.
        device: device of the model; "auto" is the GPU if there is one.
        shape: sizes for `reasontrain plan` if the model is not available; nothing else reads them.
    """

    path: str
    revision: str | None = None
    dtype: DType = "float32"
    export: DType | None = None
    attention: Attention = "auto"
    vocabulary: Vocabulary = "auto"
    gradient_checkpointing: bool = False
    lora: Lora | None = None
    trust_remote_code: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    shape: Shape | None = None

    def __post_init__(self) -> None:
        if self.trust_remote_code and self.revision is None:
            raise ValueError("trust_remote_code needs a `revision`, to pin the code that runs")


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The attention that is measured as evidence `attention`.

    Attributes:
        layer: layer, counted from the last (-1).
        skip_first: number of tokens at the start of a sequence that do not count as prompt. Any
            first token attracts much of the attention of deep layers; 1 leaves it out (0 is the
            paper's).
    """

    layer: Annotated[int, Lt(0)] = -1
    skip_first: Annotated[int, Ge(0)] = 0
