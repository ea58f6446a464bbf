"""A teacher in another process computes one micro-batch while the learner uses the one before."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import ray
import torch
from torch import Tensor
from torch.testing import assert_close

from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import Distill
from reasontrain.algo.token_selection import Tip
from reasontrain.cluster import remote_teacher
from reasontrain.cluster.remote_teacher import RemoteTeacher
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.policy_learner import PolicyLearner
from reasontrain.learner.policy_module import FrozenModel, UnshardedModel
from reasontrain.recipe import LearnSettings
from reasontrain.types import Batch
from tests.tiny import batch, policy, with_teacher_prompts

CPU = torch.device("cpu")


@pytest.fixture
def calls() -> list[str]:
    """Requests and answers, numbered by request, in order."""
    return []


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> RemoteTeacher:
    """The teacher of `local`, behind an actor that computes when it is asked."""
    model = policy("llama", seed=5)
    number = 0

    def hidden(
        ids_RT: Tensor, position_RT: Tensor, cu_seq_lens: Tensor, row_N: Tensor
    ) -> tuple[int, Tensor]:
        nonlocal number
        calls.append(f"request {number}")
        number += 1
        with torch.no_grad():
            hidden_RTD = model.hidden(ids_RT, position=position_RT, cu_seq_lens=cu_seq_lens)
            return number - 1, hidden_RTD.flatten(0, 1)[row_N]

    def get(ref: object) -> object:
        if not isinstance(ref, tuple):
            return ref
        calls.append(f"answer {ref[0]}")
        return ref[1]

    actor = Mock(spec=ray.actor.ActorHandle)
    actor.head = SimpleNamespace(remote=lambda: model.head)
    actor.hidden = SimpleNamespace(remote=hidden)
    monkeypatch.setattr(remote_teacher, "ray", SimpleNamespace(get=get))
    return RemoteTeacher(actor, CPU)


def learner(teacher: FrozenModel) -> PolicyLearner:
    settings = LearnSettings(lr=0.1, rollouts_per_step=6, micro_batch_tokens=30)
    return compose_learner(policy("qwen3", seed=1), settings, steps=1, teacher=teacher)


def gradients(used: PolicyLearner, data: Batch, weight_BT: Tensor) -> dict[str, Tensor]:
    used.gradient(data, weight_BT, Distill(), LOSS_AGGREGATIONS["seq_mean_token_mean"])
    return {name: p.grad for name, p in used.policy.model.named_parameters()}


@pytest.mark.parametrize("instead", [False, True], ids=["same prompts", "other prompts"])
@pytest.mark.parametrize("observes", [True, False])
def test_two_requests_are_in_flight_and_the_gradient_is_that_of_a_local_teacher(
    remote: RemoteTeacher, calls: list[str], observes: bool, instead: bool
) -> None:
    """While evidence is measured, after which no request is made again, or else while learning."""
    found = []
    for teacher in (remote, UnshardedModel(policy("llama", seed=5))):
        used = learner(teacher)
        data = with_teacher_prompts(batch()) if instead else batch()
        weight_BT = data.is_response_BT.float()
        if observes:
            data = used.observe(data, Tip().required_evidence)
            weight_BT = Tip()(data)
        found.append(gradients(used, data, weight_BT))
    number = calls.count("answer 0") and sum(call.startswith("answer") for call in calls)
    assert number > 2
    expected = ["request 0"]
    for index in range(number):
        expected += [f"request {index + 1}"] * (index + 1 < number) + [f"answer {index}"]
    assert calls == expected
    for name, gradient in found[1].items():
        assert_close(found[0][name], gradient)


def test_a_step_that_ended_early_leaves_no_request_behind(
    remote: RemoteTeacher, calls: list[str]
) -> None:
    data = batch()
    used = learner(remote)
    (mini_batch,) = used.mini_batches(data)
    first, second, third, *_ = (
        micro.tokens(data.is_response_BT) for micro in mini_batch.micro_batches
    )
    used.observer.request_teacher(data, [first, second])
    remote.hidden(second.micro_batch, second.logit_position_N)
    remote.hidden(third.micro_batch, third.logit_position_N)
    remote.hidden(first.micro_batch, first.logit_position_N)
    assert calls == [
        "request 0",
        "request 1",
        "answer 1",
        "request 2",
        "answer 2",
        "request 3",  # the first answer was of the step before
        "answer 3",
    ]
