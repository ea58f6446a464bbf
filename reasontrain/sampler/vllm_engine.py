"""What we use of vLLM 0.31: one engine in this process whose workers, one for each GPU, are
processes of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from reasontrain.models import ModelSettings
from reasontrain.recipe import VllmEngine
from reasontrain.sampler.vllm_weight_transfer import Gpu, Update
from reasontrain.types import RunError, UserError

ENVIRONMENT = {
    # the scheduler stays in this process: handles of GPU memory could not reach it
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a forked process could not use CUDA, nor Ray
    "VLLM_NO_USAGE_STATS": "1",
}
"""What vLLM is told by variables alone; its workers inherit them."""
LOGPROBS_MODE = "processed_logprobs"
"""After temperature, min-p, top-k and top-p: where nothing is truncated, the log-prob at the
temperature (at 1 where greedy). The raw modes are of the logits before the temperature; no mode is
after the temperature and before truncation.
"""
ALONE, SHARED = 0.9, 0.45
"""The engine's part of each GPU where the recipe does not say."""


@runtime_checkable
class Logprobs(Protocol):
    """Log-probs of one response, one number for each place where `SamplingParams.logprobs` is 0."""

    token_ids: Sequence[int]
    logprobs: Sequence[float]


@runtime_checkable
class Completion(Protocol):
    """One response; a stop id, or the token that completes a stop text, is its last."""

    token_ids: Sequence[int]
    logprobs: Logprobs | None
    finish_reason: str | None


@runtime_checkable
class Output(Protocol):
    """The responses to one request."""

    prompt_token_ids: Sequence[int] | None
    outputs: Sequence[Completion]


@runtime_checkable
class Engine(Protocol):
    """The methods of `vllm.LLM` that we call."""

    def generate(
        self,
        prompts: Sequence[Mapping[str, list[int]]],
        sampling_params: Sequence[object],
        *,
        use_tqdm: bool,
    ) -> Sequence[Output]:
        """Answer each prompt by its own parameters, in order."""

    def sleep(self, level: int) -> None:
        """Level 2 forgets weights and key-value cache and frees their memory."""

    def wake_up(self, tags: list[str]) -> None:
        """Take the memory of `weights` or `kv_cache` again."""

    def reset_prefix_cache(self) -> bool:
        """Forget the keys and values of prompts."""

    def init_weight_transfer_engine(self, request: dict[str, object]) -> None:
        """Say how weights will come."""

    def start_weight_update(self) -> None:
        """From here on updates may come."""

    def update_weights(self, request: dict[str, Update]) -> None:
        """Some of the weights; returns when every worker has read them."""

    def finish_weight_update(self, weight_version: str) -> None:
        """All have come."""


@dataclass(frozen=True)
class Library:
    """vLLM's engine class and its sampling parameters, and the GPUs that the workers of an engine
    will use.
    """

    engine: Callable[..., Engine]
    params: Callable[..., object]
    gpus: Callable[[int], Sequence[Gpu]]


def installed() -> Library:
    """vLLM as it is installed here; raises UserError where it is not."""
    os.environ.update(ENVIRONMENT)  # some are read when vLLM is imported
    try:
        from vllm import LLM, SamplingParams
    except ImportError as error:
        raise UserError(
            f"vLLM is asked for (sample.engine, --engine) and cannot be imported ({error}); "
            "pip install 'reasontrain[vllm]' -c constraints-vllm.txt, or use the local engine"
        ) from error
    return Library(LLM, SamplingParams, visible_gpus)


def visible_gpus(num: int) -> list[Gpu]:
    """The first GPUs that this process sees, which are those of the workers."""
    found = torch.cuda.device_count()
    if found < num:
        raise UserError(
            f"sample.engine.tensor_parallel_size is {num}, and this process sees {found} GPUs"
        )
    return [
        Gpu(torch.device("cuda", index), str(torch.cuda.get_device_properties(index).uuid))
        for index in range(num)
    ]


def start(
    library: Library, path: str, model: ModelSettings, settings: VllmEngine, *, colocated: bool
) -> Engine:
    """An engine with the weights at `path`, ready to be given others; a colocated one can sleep."""
    share = settings.gpu_memory_utilization or (SHARED if colocated else ALONE)
    try:
        engine = library.engine(
            model=path,
            revision=model.revision,
            tokenizer_revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            dtype=model.dtype,
            tensor_parallel_size=settings.tensor_parallel_size,
            # also for one GPU: a process cannot open handles of its own memory
            distributed_executor_backend="mp",
            gpu_memory_utilization=share,
            max_model_len=settings.max_model_len,
            max_num_seqs=settings.max_num_seqs,
            enforce_eager=settings.enforce_eager,
            enable_prefix_caching=True,  # the rollouts of a group share their prompt
            enable_sleep_mode=colocated,
            logprobs_mode=LOGPROBS_MODE,
            weight_transfer_config={"backend": "ipc"},
        )
    except Exception as error:  # what a worker raised comes as this very class
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise RunError(
            f"vLLM could not start on {settings.tensor_parallel_size} GPU(s) with a share "
            f"of {share:g} of each: {first}; "
            "see sample.engine.gpu_memory_utilization, max_model_len and tensor_parallel_size"
        ) from error
    engine.init_weight_transfer_engine({"init_info": {"packed": True}})
    return engine
