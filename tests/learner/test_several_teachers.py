"""Several teachers in one learner: which of them scores a rollout, and the mixture of all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reasontrain.algo.objectives import Distill
from reasontrain.data.micro_batches import Layout
from reasontrain.learner.policy_module import UnshardedModel
from reasontrain.learner.teacher_states import SeveralTeachers
from reasontrain.models import Policy
from reasontrain.types import Batch
from tests.learner.test_teacher_prompt import log_probs, teacher_sequence
from tests.learner.test_top_k_teacher import AVERAGE, EVIDENCE, learner
from tests.tiny import batch, policy, with_teacher_prompts

WEIGHTS = (0.75, 0.25)


def teachers() -> tuple[Policy, Policy]:
    return policy("llama", seed=5), policy("qwen2", seed=6)


def expected(student: Policy, data: Batch, weights: tuple[float, float] | None) -> list[Tensor]:
    """KL(student || teacher) at the response tokens of each rollout, in float64."""
    models = teachers()
    divergences = []
    for index, rollout in enumerate(data.rollout_B.tolist()):
        num = int(data.is_response_BT[index].sum())
        ids = data.ids_BT[index, : int(data.length_B[index])].tolist()
        logp_TV = log_probs(student, ids)[-num - 1 : -1]
        with torch.no_grad():
            q_JTV = torch.stack(
                [log_probs(m, teacher_sequence(data, index))[-num - 1 : -1].exp() for m in models]
            )
        if weights is None:
            q_TV = q_JTV[data.teacher_index[rollout]]
        else:
            q_TV = weights[0] * q_JTV[0] + weights[1] * q_JTV[1]
        divergences.append((logp_TV.exp() * (logp_TV - q_TV.log())).sum(1))
    return divergences


CHOICES = {
    "both": [0, 1, 1, 0, 1, 0],
    "one of them alone": [1] * 6,
}


@pytest.mark.parametrize("observes", [True, False])
@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("case", ["mixed", *CHOICES])
def test_every_rollout_is_compared_with_its_teachers(
    case: str, layout: Layout, observes: bool
) -> None:
    data = with_teacher_prompts(batch())
    weights = WEIGHTS if case == "mixed" else None
    if case != "mixed":
        index = dict(zip(data.rollout_B.tolist(), CHOICES[case], strict=True))
        data = replace(data, teacher_index=index)
    several = SeveralTeachers(tuple(map(UnshardedModel, teachers())), weights)
    used = learner(several, layout)
    twin = policy("qwen3", seed=1)
    divergences = expected(twin, data, weights)
    if observes:
        measured = used.observe(data, EVIDENCE).evidence["kl_reverse"][data.is_response_BT]
        assert_close(measured.double(), torch.cat(divergences).detach(), rtol=1e-4, atol=1e-6)
    weight_BT = data.is_response_BT.float()
    weight_BT[0] = 0
    stats = used.gradient(data, weight_BT, Distill(), AVERAGE)
    loss = torch.stack([each.mean() for each in divergences[1:]]).mean()
    loss.backward()
    assert stats["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    for own, other in zip(used.policy.model.parameters(), twin.model.parameters(), strict=True):
        assert_close(own.grad, other.grad, rtol=1e-3, atol=1e-6)


def test_a_teacher_runs_on_its_own_rollouts_alone() -> None:
    class Counted(UnshardedModel):
        tokens = 0

        def hidden(self, micro, position_N):  # type: ignore[no-untyped-def]
            Counted.tokens += micro.ids_RT.numel()
            return super().hidden(micro, position_N)

    data = batch()
    rollouts = data.rollout_B.tolist()
    data = replace(data, teacher_index=dict.fromkeys(rollouts, 1) | {rollouts[2]: 0})
    first, second = teachers()
    used = learner(SeveralTeachers((Counted(first), UnshardedModel(second))), "packed")
    used.gradient(data, data.is_response_BT.float(), Distill(), AVERAGE)
    (cut,) = used.mini_batches(data)
    # One token is the least that a trunk takes, of micro-batches without a rollout of its own.
    assert Counted.tokens == int(data.length_B[2]) + len(cut.micro_batches) - 1
