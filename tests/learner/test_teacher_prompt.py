"""A teacher that sees another prompt than the student, against float64 sums over all logits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reasontrain.algo.objectives import Distill
from reasontrain.data.micro_batches import Layout
from reasontrain.data.teacher_view import teacher_sequence
from reasontrain.learner.policy_module import UnshardedModel
from reasontrain.models import Policy
from reasontrain.types import Batch, TeacherPrompt, TokenKind
from tests.learner.test_top_k_teacher import AVERAGE, EVIDENCE, Looked, learn, learner
from tests.tiny import VOCABULARY, batch, policy, with_teacher_prompts


def log_probs(model: Policy, ids: list[int]) -> Tensor:
    """Log-probs in float64 of the model alone on one sequence, row t after t tokens."""
    logits_TV = model.model(torch.tensor([ids])).logits[0].double()
    return torch.log_softmax(logits_TV, -1)


def reverse_kl(student: Policy, teacher: Policy, data: Batch) -> list[Tensor]:
    """KL(student || teacher) at each response token, the student behind its own prompt."""
    divergences = []
    for index, length in enumerate(data.length_B.tolist()):
        ids = data.ids_BT[index, :length].tolist()
        seen = teacher_sequence(data, index)
        num = int((data.kind_BT[index] == TokenKind.RESPONSE).sum())
        assert ids[-num:] == seen[-num:]
        # The rows before the last `num + 1`-th token to the one before the last predict them.
        logp_TV = log_probs(student, ids)[-num - 1 : -1]
        with torch.no_grad():
            logq_TV = log_probs(teacher, seen)[-num - 1 : -1]
        divergences.append((logp_TV.exp() * (logp_TV - logq_TV)).sum(1))
    return divergences


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("observes", [True, False])
def test_positions_are_those_of_the_response_behind_either_prompt(
    layout: Layout, observes: bool
) -> None:
    data = with_teacher_prompts(batch())
    teacher = policy("llama", seed=5)
    used = learner(UnshardedModel(teacher), layout)
    twin = policy("qwen3", seed=1)
    divergences = reverse_kl(twin, teacher, data)
    weight_BT = data.is_response_BT.float()
    if observes:
        measured = used.observe(data, EVIDENCE).evidence["kl_reverse"][data.is_response_BT]
        assert_close(measured.double(), torch.cat(divergences).detach(), rtol=1e-4, atol=1e-6)
    stats = used.gradient(data, weight_BT, Distill(), AVERAGE)
    expected = torch.stack([each.mean() for each in divergences]).mean()
    expected.backward()
    assert stats["loss"] == pytest.approx(float(expected.detach()), rel=1e-5)
    for own, other in zip(used.policy.model.parameters(), twin.model.parameters(), strict=True):
        assert_close(own.grad, other.grad, rtol=1e-3, atol=1e-6)


def test_a_teacher_of_looked_up_ids_sees_the_same() -> None:
    data = with_teacher_prompts(batch())
    teacher = policy("llama", seed=5)
    source = Looked(teacher, VOCABULARY)
    full, top = (
        learn(learner(each), Distill(), data) for each in (UnshardedModel(teacher), source)
    )
    for name in EVIDENCE:
        assert_close(top[0].evidence[name], full[0].evidence[name], rtol=1e-4, atol=1e-5)
    assert top[1] == pytest.approx(full[1], rel=1e-5)
    assert_close(top[2], full[2], rtol=1e-3, atol=1e-6)
    assert sorted(source.fetched) == sorted(tuple(teacher_sequence(data, i)) for i in range(6))


def test_micro_batches_have_room_for_the_longer_of_two_prompts() -> None:
    data = batch()
    prompts = {
        rollout: TeacherPrompt((5,) * 30, int((kind_T == TokenKind.PROMPT).sum()))
        for rollout, kind_T in zip(data.rollout_B.tolist(), data.kind_BT, strict=True)
    }
    long = replace(data, teacher_prompts=prompts)
    used = learner(UnshardedModel(policy("llama", seed=5)))
    (short,) = used.mini_batches(data)
    (cut,) = used.mini_batches(long)
    assert any(len(micro.index_K) > 1 for micro in short.micro_batches)
    assert [len(micro.index_K) for micro in cut.micro_batches] == [1] * 6
