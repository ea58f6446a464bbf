"""Who decodes: our own loop, or vLLM's engine on GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reasontrain.data.sampling import Sampling
from reasontrain.types import AtLeastOne, Ratio

COOLEST, HOTTEST = 0.01, 2.0
"""Temperatures outside of which vLLM refuses, or takes another one; 0 is greedy there too."""


@dataclass(frozen=True, kw_only=True)
class LocalEngine:
    """Our own decode loop, with the very weights that learn where sampler and learner are one
    process.

    `max_num_seqs` is how many rollouts decode together; it changes none of them. With
    `cuda_graphs`, a GPU draws tokens some steps ahead in shapes that do not change (not with a
    thought, flash attention or a sliding window); off, because no GPU has measured it yet.
    """

    kind: Literal["local"] = "local"
    max_num_seqs: AtLeastOne = 256
    cuda_graphs: bool = False


@dataclass(frozen=True, kw_only=True)
class VllmEngine:
    """vLLM's engine; there are as many engines as the cluster has samplers, or learner ranks where
    it has none.

    `tensor_parallel_size` GPUs hold one engine. `gpu_memory_utilization` of each is the engine's,
    for weights and key-value cache (left out: 0.9 of a GPU of its own, 0.45 of one that a learner
    rank uses too). `max_model_len` bounds prompt and response together (left out: the model's
    context), `max_num_seqs` the rollouts that decode together. `enforce_eager` goes without
    compilation and CUDA graphs: quicker to start, slower to decode.
    """

    kind: Literal["vllm"] = "vllm"
    tensor_parallel_size: AtLeastOne = 1
    max_num_seqs: AtLeastOne = 256
    max_model_len: AtLeastOne | None = None
    gpu_memory_utilization: Ratio | None = None
    enforce_eager: bool = False


def unsampleable(sampling: Sampling) -> str | None:
    """Why vLLM cannot draw tokens by this law, or None."""
    if sampling.temperature and not COOLEST <= sampling.temperature <= HOTTEST:
        return f"vLLM knows 0 (greedy) and {COOLEST} to {HOTTEST:g}, not {sampling.temperature:g}"
    return None
