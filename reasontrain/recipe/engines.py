"""Sampler engines: the local decode loop, or vLLM on GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reasontrain.data.sampling import Sampling
from reasontrain.types import AtLeastOne, Ratio

LEAST_TEMPERATURE = 0.01
GREATEST_TEMPERATURE = 2.0
"""vLLM refuses a higher temperature and raises a lower one; 0 is greedy there too."""


@dataclass(frozen=True, kw_only=True)
class LocalEngine:
    """The package's own decode loop; in the learner's process it uses the learner's weights.

    Attributes:
        max_num_seqs: rollouts that decode together; the number changes none of them.
        cuda_graphs: decode several tokens per CUDA graph, in fixed shapes. Not with a thought,
            flash attention or a sliding window. Off by default: no GPU has measured it yet.
    """

    kind: Literal["local"] = "local"
    max_num_seqs: AtLeastOne = 256
    cuda_graphs: bool = False


@dataclass(frozen=True, kw_only=True)
class VllmEngine:
    """vLLM: one engine per sampler of the cluster, or per learner rank where it has no samplers.

    Attributes:
        tensor_parallel_size: GPUs that hold one engine.
        max_num_seqs: rollouts that decode together.
        max_model_len: most tokens of prompt and response together; None: the model's context.
        gpu_memory_utilization: share of each GPU's memory, in (0, 1], for weights and key-value
            cache; None: 0.9 of a GPU of its own, 0.45 of one that a learner rank shares.
        enforce_eager: no compilation and no CUDA graphs; starts faster and decodes slower.
    """

    kind: Literal["vllm"] = "vllm"
    tensor_parallel_size: AtLeastOne = 1
    max_num_seqs: AtLeastOne = 256
    max_model_len: AtLeastOne | None = None
    gpu_memory_utilization: Ratio | None = None
    enforce_eager: bool = False


def unsampleable(sampling: Sampling) -> str | None:
    """The reason why vLLM cannot sample at this temperature, or None."""
    temperature = sampling.temperature
    if temperature and not LEAST_TEMPERATURE <= temperature <= GREATEST_TEMPERATURE:
        return (
            f"vllm supports 0 (greedy) and {LEAST_TEMPERATURE} to {GREATEST_TEMPERATURE:g}; the "
            f"recipe sets {temperature:g}"
        )
    return None
