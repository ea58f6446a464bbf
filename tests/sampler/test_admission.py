"""Sequences that decode together: as many as fit, and fewer after running out of memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
import torch

from reasontrain.data.sampling import Sampling
from reasontrain.models import Policy
from reasontrain.sampler import admission, local
from reasontrain.sampler.admission import Admission
from reasontrain.sampler.decode_batch import DecodeBatch
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.sequence import SequenceState, start_sequences
from tests.tiny import policy as tiny_policy

LENGTHS = (3, 19, 1, 11, 12, 2, 7)


def states(tiny: type, *lengths: int, max_tokens: int = 10) -> list[SequenceState]:
    return start_sequences(
        tiny.prompts(*lengths), num=1, first_id=0, max_tokens=max_tokens, context=256
    )


@pytest.mark.parametrize(
    ("tokens", "live", "joining"),
    [
        (None, 0, 5),  # max_num_seqs
        (None, 2, 3),
        (10**6, 0, 5),
        (60, 0, 3),  # 3 sequences of 5 + 10 tokens, or of up to 20
        (59, 0, 2),
        (59, 1, 1),
        (14, 0, 1),  # one runs, whatever it needs
        (14, 1, 0),
    ],
)
def test_caches_of_those_that_decode_together_fit(
    monkeypatch: pytest.MonkeyPatch, tiny: type, tokens: int | None, live: int, joining: int
) -> None:
    # 2 layers x keys and values x 2 heads of 8 x 4 bytes
    of_token = 2 * 2 * 2 * 8 * 4
    size = None if tokens is None else tokens * of_token
    monkeypatch.setattr(admission, "capacity", lambda device: size)
    waiting = states(tiny, *(5,) * live, 5, 10, 10, 10, 10, 10, 10)
    used = Admission(tiny_policy(), max_num_seqs=5)
    assert used.num_joining(waiting[live:], waiting[:live]) == joining


def test_what_a_gpu_holds_already_is_not_for_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 1000))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 400)
    assert admission.capacity(torch.device("cuda")) == 480  # whatever is free
    assert admission.capacity(torch.device("cpu")) is None


@pytest.mark.parametrize("where", ["prefill", "merge"])
def test_running_out_of_memory_changes_no_rollout(
    monkeypatch: pytest.MonkeyPatch, tiny: type, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    policy, prompts = tiny.policy(), tiny.prompts(*LENGTHS)
    sampling = Sampling(max_tokens=30)
    expected = LocalSampler(policy, seed=0).sample(prompts, sampling, num=2, first_id=0)
    sizes: list[int] = []
    inner = getattr(local, where)

    def limited(*arguments: object) -> DecodeBatch:
        (batches,) = [a for a in arguments if isinstance(a, list)]
        size = sum(len(b.sequences) if isinstance(b, DecodeBatch) else 1 for b in batches)
        sizes.append(size)
        if size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        result: DecodeBatch = inner(*arguments)
        return result

    monkeypatch.setattr(local, where, limited)
    with caplog.at_level(logging.WARNING):
        rollouts = LocalSampler(policy, seed=0).sample(prompts, sampling, num=2, first_id=0)
    assert [r.response_ids for r in rollouts] == [r.response_ids for r in expected]
    assert [r.truncated for r in rollouts] == [r.truncated for r in expected]
    assert max(sizes) > 4 >= sizes[-1]
    assert "out of memory with 14 sequences at once; at most 7 decode together" in caplog.text


def test_a_single_sequence_without_room_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tiny: type
) -> None:
    def full(policy: Policy, sequences: Sequence[SequenceState]) -> DecodeBatch:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(local, "prefill", full)
    with pytest.raises(torch.OutOfMemoryError):
        LocalSampler(tiny.policy(), seed=0).sample(
            tiny.prompts(3, 4), Sampling(max_tokens=5), num=1, first_id=0
        )
