"""vLLM beside the local sampler, on one model and one GPU; run with `pytest -m gpu` where vLLM is
installed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, tensor
from transformers import AutoModelForCausalLM, Qwen3Config

from reasontrain import models
from reasontrain.data.sampling import Sampling
from reasontrain.models import ModelSettings, Policy, testbed
from reasontrain.recipe import VllmEngine
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.vllm import VllmSampler
from reasontrain.types import Problem, Prompt, Rollout, Weights

pytestmark = pytest.mark.gpu
SETTINGS = VllmEngine(gpu_memory_utilization=0.3, enforce_eager=True, max_model_len=512)
PROMPTS = [
    Prompt(problem=Problem(id=str(i), prompt=""), ids=tuple(range(5, 12 + i))) for i in range(8)
]
GREEDY = Sampling(temperature=0.0, max_tokens=48)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    """Random float32 weights with heads of a size that every attention kernel has."""
    torch.manual_seed(3)
    directory = tmp_path_factory.mktemp("model")
    sizes = {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "head_dim": 64,
    }
    config = Qwen3Config(
        **sizes,
        num_key_value_heads=2,
        vocab_size=testbed.VOCABULARY_SIZE,
        max_position_embeddings=512,
        initializer_range=0.2,
    )
    tokenizer = testbed.tokenizer()
    config.eos_token_id = tokenizer.eos_token_id
    AutoModelForCausalLM.from_config(config).float().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return ModelSettings(path=str(directory), dtype="float32", device="cuda")


@pytest.fixture(scope="module")
def vllm(model: ModelSettings) -> VllmSampler:
    """One engine for all tests, as starting it takes long; each leaves it awake."""
    pytest.importorskip(
        "vllm", reason="vLLM is not installed: pip install -e '.[dev,vllm]' -c constraints-vllm.txt"
    )
    return VllmSampler(model, SETTINGS, seed=4, colocated=True)


@pytest.fixture
def policy(model: ModelSettings) -> Policy:
    """The same weights in this process."""
    return models.load(model)


def weights(policy: Policy, version: int) -> Weights:
    return Weights(version=version, tensors=lambda: iter(policy.model.state_dict().items()))


@torch.no_grad()
def logp(policy: Policy, rollout: Rollout, temperature: float) -> Tensor:
    """Of the response's tokens, by a plain forward."""
    ids = tensor([[*rollout.prompt_ids, *rollout.response_ids]], device=policy.device)
    logits = (
        policy.model(input_ids=ids, use_cache=False)
        .logits[0, len(rollout.prompt_ids) - 1 : -1]
        .float()
    )
    return (
        (logits / temperature)
        .log_softmax(-1)
        .cpu()
        .gather(1, tensor(rollout.response_ids)[:, None])[:, 0]
    )


def same_greedy(vllm: VllmSampler, policy: Policy) -> Iterator[bool]:
    """Whether both say the same, prompt by prompt."""
    ours, theirs = (
        s.sample(PROMPTS, GREEDY, num=1, first_id=0) for s in (vllm, LocalSampler(policy, seed=0))
    )
    for mine, reference in zip(ours, theirs, strict=True):
        yield (mine.response_ids, mine.text, mine.truncated) == (
            reference.response_ids,
            reference.text,
            reference.truncated,
        )


def test_greedy_ids_are_those_of_the_local_sampler(vllm: VllmSampler, policy: Policy) -> None:
    vllm.load(weights(policy, 0))
    assert all(same_greedy(vllm, policy))


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_log_probs_are_those_of_a_plain_forward(
    vllm: VllmSampler, policy: Policy, temperature: float
) -> None:
    vllm.load(weights(policy, 0))
    rollouts = vllm.sample(
        PROMPTS, Sampling(temperature=temperature, max_tokens=32), num=4, first_id=0
    )
    assert len({r.response_ids for r in rollouts}) > len(PROMPTS)
    for rollout in rollouts:
        torch.testing.assert_close(
            tensor(rollout.sampled_logp), logp(policy, rollout, temperature), rtol=0, atol=2e-3
        )


def test_a_rollout_is_a_function_of_seed_and_id(vllm: VllmSampler, policy: Policy) -> None:
    vllm.load(weights(policy, 0))
    sampling = Sampling(max_tokens=24)
    every = {r.id: r.response_ids for r in vllm.sample(PROMPTS, sampling, num=4, first_id=0)}
    again = {r.id: r.response_ids for r in vllm.sample(PROMPTS[2:4], sampling, num=4, first_id=8)}
    assert (
        sum(every[i] == ids for i, ids in again.items()) >= 7
    )  # a near-tie may fall otherwise in one of eight


def test_stop_ids_and_texts_stay_in_the_response(vllm: VllmSampler, policy: Policy) -> None:
    vllm.load(weights(policy, 0))
    (free,) = vllm.sample(PROMPTS[:1], GREEDY, num=1, first_id=0)
    stop_id = free.response_ids[5]
    (cut,) = vllm.sample(
        PROMPTS[:1],
        Sampling(temperature=0.0, max_tokens=48, stop_ids=(stop_id,)),
        num=1,
        first_id=0,
    )
    assert (cut.response_ids, cut.truncated) == (
        free.response_ids[: free.response_ids.index(stop_id) + 1],
        False,
    )
    text = free.text[4:6]
    stopping = Sampling(temperature=0.0, max_tokens=48, stop=(text,))
    ours, theirs = (
        s.sample(PROMPTS[:1], stopping, num=1, first_id=0)[0]
        for s in (vllm, LocalSampler(policy, seed=0))
    )
    assert (ours.response_ids, ours.truncated) == (theirs.response_ids, False)
    assert len(ours.sampled_logp) == len(ours.response_ids)


def test_new_weights_are_seen_without_a_restart(vllm: VllmSampler, policy: Policy) -> None:
    vllm.load(weights(policy, 0))
    before = vllm.sample(PROMPTS, GREEDY, num=1, first_id=0)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    vllm.load(weights(policy, 5))
    assert vllm.version == 5
    assert all(same_greedy(vllm, policy))
    assert [r.response_ids for r in vllm.sample(PROMPTS, GREEDY, num=1, first_id=0)] != [
        r.response_ids for r in before
    ]


def test_sleep_frees_the_memory_and_load_wakes(vllm: VllmSampler, policy: Policy) -> None:
    vllm.load(weights(policy, 0))
    free, total = torch.cuda.mem_get_info()
    vllm.sleep()
    asleep, _ = torch.cuda.mem_get_info()
    assert asleep - free > 0.2 * total  # of the 0.3 that the engine may have
    vllm.load(weights(policy, 1))
    awake, _ = torch.cuda.mem_get_info()
    assert abs(awake - free) < 0.02 * total
    assert all(same_greedy(vllm, policy))
