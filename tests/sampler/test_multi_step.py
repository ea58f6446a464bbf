"""Decoding ahead in shapes that do not change against its plain twin; capturing is tried on a GPU
alone.
"""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise

import pytest
import torch

from reasontrain.data.sampling import Sampling
from reasontrain.models import Policy, quiet
from reasontrain.sampler import local, multi_step
from reasontrain.sampler.decode_batch import DecodeBatch
from reasontrain.sampler.local import LocalSampler
from reasontrain.types import Rollout, RunError

LENGTHS = (3, 19, 1, 11, 12, 2, 7)
LAWS = [
    Sampling(max_tokens=40),
    Sampling(temperature=0.7, top_p=0.9, max_tokens=40),
    Sampling(temperature=0.0, max_tokens=40),
]


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this device could capture; nothing is captured on a CPU."""
    monkeypatch.setattr(multi_step, "is_supported", lambda policy: True)


def both(
    tiny: type, sampling: Sampling, max_num_seqs: int = 64, num: int = 3
) -> list[list[Rollout]]:
    """What is sampled ahead, and step by step."""
    policy = tiny.policy()
    tiny.bias(policy, {tiny.END: 2.0})
    samplers = (
        LocalSampler(policy, seed=1, max_num_seqs=max_num_seqs, cuda_graphs=graphs)
        for graphs in (True, False)
    )
    return [
        sampler.sample(tiny.prompts(*LENGTHS), sampling, num=num, first_id=40)
        for sampler in samplers
    ]


def check_equal(found: list[Rollout], expected: list[Rollout]) -> None:
    """The same tokens, and log-probs up to the rounding of sums that are cut elsewhere."""
    assert [r.response_ids for r in found] == [r.response_ids for r in expected]
    assert [r.truncated for r in found] == [r.truncated for r in expected]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(
            torch.tensor(one.sampled_logp), torch.tensor(other.sampled_logp), rtol=0, atol=1e-5
        )


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("max_num_seqs", [5, 64])
@pytest.mark.parametrize("sampling", LAWS)
def test_samples_are_those_of_the_plain_twin(
    tiny: type, sampling: Sampling, max_num_seqs: int
) -> None:
    found, expected = both(tiny, sampling, max_num_seqs)
    check_equal(found, expected)
    assert len({len(r.response_ids) for r in found}) > 1


@pytest.mark.usefixtures("everywhere")
def test_how_far_ahead_and_how_much_room_changes_nothing(
    tiny: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = both(tiny, LAWS[0])[1]
    for steps, room, share in ((1, 7, 8), (5, 7, 2), (64, 40, 1)):
        for name, value in (
            ("MULTI_STEPS", steps),
            ("MULTI_STEP_ROOM", room),
            ("MULTI_STEP_COMPACT_SHARE", share),
            ("CHUNK_LOGITS", 1000),
        ):
            monkeypatch.setattr(local, name, value)
        check_equal(both(tiny, LAWS[0])[0], expected)


@pytest.mark.usefixtures("everywhere")
def test_stop_texts_end_a_response_within_the_steps_ahead(tiny: type) -> None:
    policy = tiny.policy()
    tiny.bias(policy, dict.fromkeys(b"abc", 0.0), others=-1e4)
    sampling = Sampling(max_tokens=60, stop=("abc", "cca"))
    found, expected = (
        LocalSampler(policy, seed=0, cuda_graphs=graphs).sample(
            tiny.prompts(4, 7), sampling, num=20, first_id=0
        )
        for graphs in (True, False)
    )
    check_equal(found, expected)
    assert 10 < sum(not r.truncated for r in found) < 30


@pytest.mark.usefixtures("everywhere")
def test_every_step_of_a_flight_has_one_shape(tiny: type, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    original = multi_step.MultiStepDecoder._visible

    def watched(self: multi_step.MultiStepDecoder) -> torch.Tensor:
        mask = original(self)
        keys = self.decode_batch.cache.layers[0].keys
        seen.append((tuple(mask.shape), tuple(keys.shape)))
        return mask

    monkeypatch.setattr(multi_step.MultiStepDecoder, "_visible", watched)
    policy = tiny.policy()
    tiny.bias(policy, {tiny.END: -1e4})
    LocalSampler(policy, seed=0, cuda_graphs=True).sample(
        tiny.prompts(3, 5), Sampling(max_tokens=20), num=2, first_id=0
    )
    assert (
        seen == [((4, 1, 1, 25), (4, 2, 25, 8))] * 20
    )  # a prompt of 5 and 20 tokens; two heads of width 8


@pytest.mark.usefixtures("everywhere")
def test_skewed_lengths_take_a_capture_per_halving_of_the_rows(
    tiny: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    original = multi_step.MultiStepDecoder.__init__

    def watched(
        self: multi_step.MultiStepDecoder, decode_batch: DecodeBatch, *rest: object
    ) -> None:
        rows.append(len(decode_batch.sequences))
        original(self, decode_batch, *rest)

    monkeypatch.setattr(multi_step.MultiStepDecoder, "__init__", watched)
    monkeypatch.setattr(local, "MULTI_STEPS", 1)
    policy = tiny.policy()
    tiny.bias(policy, {tiny.END: 3.0})
    rollouts = LocalSampler(policy, seed=0, cuda_graphs=True).sample(
        tiny.prompts(3), Sampling(max_tokens=64), num=64, first_id=0
    )
    assert len({len(rollout.response_ids) for rollout in rollouts}) > 8
    # A decoder captures one graph; the next one begins when half of its rows are done.
    assert rows[0] == 64
    assert all(2 * after <= before for before, after in pairwise(rows))


def test_only_a_gpu_with_attention_that_takes_a_mask_suits(
    tiny: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not multi_step.is_supported(tiny.policy())
    monkeypatch.setattr(Policy, "device", torch.device("cuda", 0))
    assert multi_step.is_supported(tiny.policy())
    assert not multi_step.is_supported(tiny.policy("mistral"))
    assert not multi_step.is_supported(tiny.policy("gemma3"))
    flash = tiny.policy()
    flash.model.config._attn_implementation = "flash_attention_2"
    assert not multi_step.is_supported(flash)


@pytest.mark.usefixtures("everywhere")
def test_a_broken_model_is_named(tiny: type) -> None:
    policy = tiny.policy()
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.fill_(torch.nan)
    with pytest.raises(RunError, match="no finite log-prob at token 1"):
        LocalSampler(policy, seed=0, cuda_graphs=True).sample(
            tiny.prompts(3), Sampling(max_tokens=4), num=1, first_id=0
        )


def test_a_step_that_cannot_be_captured_runs_eagerly_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    modes = []

    class Refusing(nullcontext[None]):
        def __init__(self, graph: object, capture_error_mode: str = "global") -> None:
            super().__init__(None)
            modes.append(capture_error_mode)

        def __exit__(self, *reason: object) -> None:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "graph", Refusing)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(quiet, "_logged", set())
    steps = []

    def step() -> None:
        steps.append(None)

    assert multi_step._capture(step) is step
    assert len(steps) == 1
    assert modes == ["thread_local"]  # other threads may call CUDA meanwhile
    assert multi_step._capture(step) is step
    assert caplog.messages == [
        "sample.engine.cuda_graphs: decoding goes on without a CUDA graph, slower: operation not "
        "permitted when stream is capturing"
    ]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_captured_step_gives_the_tokens_of_the_plain_one(tiny: type, dtype: torch.dtype) -> None:
    policy = tiny.policy(dtype=dtype)
    policy.model.cuda()
    assert multi_step.is_supported(policy)
    sampling = Sampling(temperature=0.0, max_tokens=40)
    found, expected = (
        LocalSampler(policy, seed=0, cuda_graphs=graphs).sample(
            tiny.prompts(*LENGTHS), sampling, num=1, first_id=0
        )
        for graphs in (True, False)
    )
    assert [r.response_ids for r in found] == [r.response_ids for r in expected]
