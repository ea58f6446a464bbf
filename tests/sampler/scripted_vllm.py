"""vLLM's offline engine as far as we call it, as it is on GPUs: sleep, one buffer per worker, and
its arguments there. Everything that vLLM has on a CPU too is tested with vLLM itself, see
test_vllm_cpu.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from reasontrain.sampler.vllm_engine import EXTENSION, Library
from reasontrain.sampler.vllm_weight_transfer import MAIN_MEMORY, BufferDevice, map_buffer

SIGNATURES = json.loads(Path(__file__).with_name("vllm_signatures.json").read_text())
UUIDS = ("GPU-a", "GPU-b", "GPU-c", "GPU-d")


@dataclass
class Params:
    """`vllm.SamplingParams`: the fields that we set, and what vLLM makes of them."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    max_tokens: int | None = 16
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    logprobs: int | None = None
    flat_logprobs: bool = False
    detokenize: bool = True
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        assert self.temperature == 0 or 0.01 <= self.temperature <= 2
        assert self.detokenize or not self.stop, (
            "stop strings are only supported when detokenize is True"
        )
        assert self.seed is None or -(2**63) < self.seed < 2**63
        if self.temperature == 0:
            self.top_p, self.top_k, self.min_p = 1.0, 0, 0.0


@dataclass
class FlatLogprobs:
    """One entry per place where `logprobs` is 0."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@dataclass
class CompletionOutput:
    token_ids: list[int]
    logprobs: FlatLogprobs | None
    finish_reason: str | None


@dataclass
class StepOutput:
    new_token_ids: list[int]
    finished: bool


@dataclass
class StepOutputs:
    outputs: list[StepOutput]


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]


class ScriptedLLM:
    """`vllm.LLM`.

    Keys and values of prompts are remembered (as the logits they give), and go stale when weights
    change.
    """

    def __init__(
        self,
        *,
        model: str,
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        trust_remote_code: bool = False,
        dtype: str = "auto",
        tensor_parallel_size: int = 1,
        distributed_executor_backend: str | None = None,
        gpu_memory_utilization: float = 0.92,
        max_model_len: int | None = None,
        max_num_seqs: int | None = None,
        enforce_eager: bool = False,
        enable_prefix_caching: bool | None = None,
        enable_sleep_mode: bool = False,
        logprobs_mode: str = "raw_logprobs",
        weight_transfer_config: dict[str, str] | None = None,
        kv_cache_memory_bytes: int | None = None,
        enable_chunked_prefill: bool | None = None,
        worker_extension_cls: str = "",
        use_tqdm_on_load: bool = True,
    ) -> None:
        assert Path(model, "config.json").exists()
        assert worker_extension_cls == EXTENSION
        assert (distributed_executor_backend, weight_transfer_config) in (
            ("mp", {"backend": "ipc"}),
            ("uni", {"backend": MAIN_MEMORY}),
        )
        if gpu_memory_utilization > 0.95:
            raise ValueError(
                "Free memory on device cuda:0 (1/80 GiB) on startup is less than desired "
                "GPU memory utilization."
            )
        self.options = {
            "tp": tensor_parallel_size,
            "share": gpu_memory_utilization,
            "rows": max_num_seqs,
            "eager": enforce_eager,
        }
        self.sleepy, self.mode = enable_sleep_mode, logprobs_mode
        load = AutoModelForCausalLM.from_pretrained
        self.workers = {
            uuid: load(model, dtype=getattr(torch, dtype)).eval()
            for uuid in UUIDS[:tensor_parallel_size]
        }
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.limit = max_model_len or self.model.config.max_position_embeddings
        self.eos = {self.tokenizer.eos_token_id}
        self.resident, self.updating, self.packed, self.weight_version = (
            {"weights", "kv_cache"},
            False,
            False,
            "default",
        )
        self.seen: dict[tuple[int, ...], Tensor] = {}
        self.requests: list[Params] = []
        self.chunks: list[int] = []

    @property
    def model(self) -> torch.nn.Module:
        """What worker 0 holds."""
        return self.workers[UUIDS[0]]

    # ---- generate

    @torch.no_grad()
    def generate(
        self,
        prompts: list[dict[str, list[int]]],
        sampling_params: list[Params],
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        assert self.resident == {"weights", "kv_cache"}, "the engine sleeps"
        assert not self.updating
        assert len(prompts) == len(sampling_params)
        self.requests = list(sampling_params)
        return [
            self._answer(p["prompt_token_ids"], s)
            for p, s in zip(prompts, sampling_params, strict=True)
        ]

    def _answer(self, prompt: list[int], params: Params) -> RequestOutput:
        draw = torch.Generator().manual_seed(params.seed)
        ids, logp, reason = [], FlatLogprobs(), None
        while reason is None:
            logits = self._logits(tuple(prompt), ids)
            chosen, value = self._choose(logits, params, draw)
            ids.append(chosen)
            logp.token_ids.append(chosen)
            logp.logprobs.append(value)
            reason = self._check_stop(prompt, ids, params)
            self.step = StepOutputs([StepOutput([chosen], finished=reason is not None)])
            self.get_output()
        given = None if params.logprobs is None else logp
        assert given is None or params.flat_logprobs
        return RequestOutput(prompt, [CompletionOutput(ids, given, reason)])

    def _logits(self, prompt: tuple[int, ...], ids: list[int]) -> Tensor:
        """Of the last token; those after the prompt alone are remembered."""
        if not ids and prompt in self.seen:
            return self.seen[prompt]
        logits = (
            self.model(input_ids=torch.tensor([[*prompt, *ids]]), use_cache=False)
            .logits[0, -1]
            .float()
        )
        if not ids:
            self.seen[prompt] = logits
        return logits

    def _choose(self, logits: Tensor, params: Params, draw: torch.Generator) -> tuple[int, float]:
        """Temperature, min-p, top-k, top-p; then the log-prob in the mode asked for."""
        raw = logits.log_softmax(-1)
        if params.temperature == 0:
            return int(raw.argmax()), float(raw.max())
        logits = logits / params.temperature
        p = logits.softmax(-1)
        logits = logits.masked_fill(p < params.min_p * p.max(), -torch.inf)
        if params.top_k:
            logits = logits.masked_fill(logits < logits.topk(params.top_k).values[-1], -torch.inf)
        ranked, order = logits.softmax(-1).sort(descending=True)
        cut = order[(ranked.cumsum(0) - ranked) >= params.top_p] if params.top_p < 1 else order[:0]
        logits = logits.index_fill(0, cut, -torch.inf)
        chosen = int(torch.multinomial(logits.softmax(-1), 1, generator=draw))
        kept = logits.log_softmax(-1) if self.mode == "processed_logprobs" else raw
        return chosen, float(kept[chosen])

    def _check_stop(self, prompt: list[int], ids: list[int], params: Params) -> str | None:
        if ids[-1] in self.eos or ids[-1] in (params.stop_token_ids or ()):
            return "stop"
        text = (
            self.tokenizer.decode(ids, skip_special_tokens=params.skip_special_tokens)
            if params.stop
            else ""
        )
        if any(stop in text for stop in params.stop or ()):
            return "stop"
        full = len(prompt) + len(ids) >= self.limit or len(ids) >= params.max_tokens
        return "length" if full else None

    # ---- parts

    @property
    def llm_engine(self) -> ScriptedLLM:
        return self

    @property
    def engine_core(self) -> ScriptedLLM:
        return self

    def shutdown(self) -> None:
        self.resident = set()

    def get_output(self) -> StepOutputs:
        return self.step

    # ---- memory

    def sleep(self, level: int = 1, mode: str = "abort") -> None:
        assert self.sleepy, "sleep mode is not enabled"
        assert level == 2
        self.seen.clear()
        self.resident = set()
        for parameter in self._parameters():
            parameter.data.fill_(torch.nan)

    def wake_up(self, tags: list[str] | None = None) -> None:
        self.resident |= set(tags or ["weights", "kv_cache"])

    def reset_prefix_cache(
        self, reset_running_requests: bool = False, reset_connector: bool = False
    ) -> bool:
        self.seen.clear()
        return True

    # ---- weights

    def init_weight_transfer_engine(self, request: dict[str, object]) -> None:
        info = request["init_info"]
        assert set(info) <= set(SIGNATURES["classes"]["IPCWeightTransferInitInfo"])
        self.packed = info["packed"]

    def start_weight_update(self) -> None:
        assert not self.updating
        assert "weights" in self.resident
        self.updating, self.chunks = True, []

    def update_weights(self, request: dict[str, object]) -> None:
        assert self.updating
        assert self.packed
        info = request["update_info"]
        assert set(info) <= set(SIGNATURES["classes"]["IPCWeightTransferUpdateInfo"])
        for uuid, model in self.workers.items():
            handles = info["ipc_handles"]
            packed = map_buffer(*handles.get(uuid, handles.get(MAIN_MEMORY)))
            assert not (model.config.tie_word_embeddings and "lm_head.weight" in info["names"])
            state, pieces = (
                model.state_dict(),
                packed[: sum(info["tensor_sizes"])].split(info["tensor_sizes"]),
            )
            for name, shape, dtype, piece in zip(
                info["names"], info["shapes"], info["dtype_names"], pieces, strict=True
            ):
                state[name].copy_(piece.view(getattr(torch, dtype)).view(*shape))
        self.chunks.append(sum(info["tensor_sizes"]))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        assert self.updating
        self.updating, self.weight_version = False, weight_version or self.weight_version

    def collective_rpc(self, method: str, *, args: tuple[object, ...] = ()) -> list[None]:
        if method == "close_weight_update":
            self.updating = False
        else:
            assert method in ("check_health", "limit_ids")
        return [None] * len(self.workers)

    def _parameters(self) -> list[Tensor]:
        return [p for model in self.workers.values() for p in model.parameters()]


def library(*, cpu: bool = False) -> Library:
    """A vLLM that is scripted, on GPUs that are the CPU, or on the CPU."""
    names = (MAIN_MEMORY,) if cpu else UUIDS
    return Library(
        ScriptedLLM,
        Params,
        cpu,
        lambda num: [BufferDevice(torch.device("cpu"), name) for name in names[:num]],
    )
