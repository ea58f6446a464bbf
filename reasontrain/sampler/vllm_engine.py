"""The part of vLLM 0.31 in use: one engine in this process, and one worker process per GPU."""

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
    # Keep the scheduler in this process: one in another process could not receive the handles of
    # the weight buffers.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # a forked process can use neither CUDA nor Ray
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Settings that vLLM reads only from environment variables; its workers inherit them."""
LOGPROBS_MODE = "processed_logprobs"
"""Log-probs after temperature, min-p, top-k and top-p.

Without truncation, they are at the sampling temperature (1 if greedy). vLLM's raw modes ignore the
temperature, and no mode applies the temperature but not the truncation.
"""


@runtime_checkable
class Logprobs(Protocol):
    """Log-probs of one response: one number per token, as `SamplingParams.logprobs` is 0."""

    token_ids: Sequence[int]
    logprobs: Sequence[float]


@runtime_checkable
class Completion(Protocol):
    """One response, including the stop id or the token that completes a stop text."""

    token_ids: Sequence[int]
    logprobs: Logprobs | None
    finish_reason: str | None


@runtime_checkable
class Output(Protocol):
    """The responses to one request."""

    prompt_token_ids: Sequence[int] | None
    outputs: Sequence[Completion]


@runtime_checkable
class VllmLLM(Protocol):
    """The methods of `vllm.LLM` that are called."""

    def generate(
        self,
        prompts: Sequence[Mapping[str, list[int]]],
        sampling_params: Sequence[object],
        *,
        use_tqdm: bool,
    ) -> Sequence[Output]:
        """Generate the outputs of the prompts, in order, each with its own parameters."""

    def sleep(self, level: int) -> None:
        """Free memory; level 2 discards weights and key-value cache."""

    def wake_up(self, tags: list[str]) -> None:
        """Allocate the memory of `weights` or `kv_cache` again."""

    def reset_prefix_cache(self) -> bool:
        """Discard cached keys and values of prompts; return False if some are in use."""

    def init_weight_transfer_engine(self, request: dict[str, object]) -> None:
        """Set up the transport of weights."""

    def start_weight_update(self) -> None:
        """Begin an update."""

    def update_weights(self, request: dict[str, Update]) -> None:
        """Load a part of the weights; return when every worker has read it."""

    def finish_weight_update(self, weight_version: str) -> None:
        """End an update, after all weights were sent."""


@dataclass(frozen=True)
class Library:
    """vLLM's engine class, its sampling parameters, and the GPUs that an engine's workers use."""

    engine: Callable[..., VllmLLM]
    params: Callable[..., object]
    gpus: Callable[[int], Sequence[Gpu]]


def installed() -> Library:
    """Import vLLM; raise UserError if that fails."""
    # before the import, which reads some of the variables
    os.environ.update(ENVIRONMENT)
    try:
        from vllm import LLM, SamplingParams
    except ImportError as error:
        raise UserError(
            f"the engine vllm (sample.engine, --engine) needs vLLM, which cannot be imported "
            f"({error}); run `pip install 'reasontrain[vllm]' -c constraints-vllm.txt`, or use the "
            "local engine"
        ) from error
    return Library(LLM, SamplingParams, visible_gpus)


def visible_gpus(num: int) -> list[Gpu]:
    """The first `num` GPUs visible to this process, which vLLM's workers use."""
    num_visible = torch.cuda.device_count()
    if num_visible < num:
        raise UserError(
            f"sample.engine.tensor_parallel_size is {num}, and this process sees {num_visible} GPUs"
        )
    return [
        Gpu(torch.device("cuda", index), str(torch.cuda.get_device_properties(index).uuid))
        for index in range(num)
    ]


def start_engine(
    library: Library, path: str, model: ModelSettings, settings: VllmEngine, *, colocated: bool
) -> VllmLLM:
    """Start an engine that can receive new weights.

    Args:
        library: vLLM.
        path: a directory with the weights to start from.
        model: dtype, revision and trust of the model.
        settings: the engine's settings.
        colocated: enable sleep mode, and by default reserve less memory.

    Returns:
        The engine, with `path`'s weights loaded.

    Raises:
        RunError: the engine does not start, usually for lack of memory.
    """
    share = settings.gpu_memory_share(colocated=colocated)
    try:
        engine = library.engine(
            model=path,
            revision=model.revision,
            tokenizer_revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            dtype=model.dtype,
            tensor_parallel_size=settings.tensor_parallel_size,
            # "mp" also for one GPU: a CUDA IPC handle cannot be opened by the process that created
            # it, so the worker must be a separate process
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
    except Exception as error:  # vLLM re-raises errors of its workers as plain exceptions
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise RunError(
            f"vLLM could not start on {settings.tensor_parallel_size} GPU(s) with {share:g} of "
            f"each GPU's memory: {first}; "
            "see sample.engine.gpu_memory_utilization, max_model_len and tensor_parallel_size"
        ) from error
    engine.init_weight_transfer_engine({"init_info": {"packed": True}})
    return engine
