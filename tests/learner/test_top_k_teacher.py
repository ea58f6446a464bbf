"""A learner whose teacher gives log-probs of a few ids, beside one with the teacher's weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reasontrain import vocab
from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import Distill
from reasontrain.algo.token_selection import Tip
from reasontrain.data.micro_batches import Layout
from reasontrain.data.stored_top_k import TopKTokens
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.policy_learner import PolicyLearner
from reasontrain.learner.policy_module import FrozenModel, UnshardedModel
from reasontrain.learner.top_k_teacher import TopKSource
from reasontrain.models import Policy
from reasontrain.recipe import LearnSettings, WeightsTeacher
from reasontrain.types import Batch, Tail
from tests.tiny import VOCABULARY, batch, policy

EVIDENCE = frozenset({"entropy", "kl_reverse", "kl_forward"})


@dataclass
class Looked:
    """A source that computes the numbers when they are fetched, and notes what was fetched."""

    model: Policy
    num: int
    tail: Tail | None = "bucket"
    fetched: list[tuple[int, ...]] = field(default_factory=list)
    known: dict[tuple[int, ...], TopKTokens] = field(default_factory=dict)

    @torch.no_grad()
    def fetch(self, sequences: Iterable[Sequence[int]]) -> None:
        for ids in map(tuple, sequences):
            if ids not in self.known:
                self.fetched.append(ids)
                hidden_TD = self.model.hidden(torch.tensor([ids]))[0, :-1]
                some = vocab.top_k(hidden_TD, self.model.head, self.num)
                self.known[ids] = TopKTokens(some.ids_NK, some.logq_NK, some.log_rest_N)

    def of(self, ids: Sequence[int]) -> TopKTokens:
        return self.known[tuple(ids)]

    def forget(self) -> None:
        self.known.clear()


def learner(
    teacher: FrozenModel | TopKSource, layout: Layout = "padded", **compared: object
) -> PolicyLearner:
    settings = LearnSettings(lr=0.05, rollouts_per_step=6, micro_batch_tokens=40, layout=layout)
    return compose_learner(
        policy("qwen3", seed=1),
        settings,
        steps=4,
        teacher=teacher,
        compared=WeightsTeacher(path="x", **compared) if compared else None,
    )


AVERAGE = LOSS_AGGREGATIONS["seq_mean_token_mean"]


def learn(
    used: PolicyLearner, objective: Distill, rollouts: Batch | None = None
) -> tuple[Batch, float, list[Tensor]]:
    """The evidence that TIP reads, the loss of the tokens that it selects, and the gradient."""
    data = used.observe(rollouts or batch(), EVIDENCE)
    stats = used.gradient(data, Tip(keep_ratio=0.5)(data), objective, AVERAGE)
    return (
        data,
        stats["loss"],
        [p.grad for p in used.policy.model.parameters() if p.grad is not None],
    )


OBJECTIVES = [Distill(divergence=d) for d in ("reverse_kl", "forward_kl", "jsd")]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.divergence)
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_all_ids_are_the_teacher_with_weights(objective: Distill, layout: Layout) -> None:
    teacher = policy("llama", seed=5)
    source = Looked(teacher, VOCABULARY)
    full, top = (
        learn(learner(each, layout), objective) for each in (UnshardedModel(teacher), source)
    )
    for name in EVIDENCE:
        assert_close(top[0].evidence[name], full[0].evidence[name], rtol=1e-4, atol=1e-5)
    assert top[1] == pytest.approx(full[1], rel=1e-5)
    assert_close(top[2], full[2], rtol=1e-3, atol=1e-6)
    assert len(source.fetched) == 6  # of each rollout once, for evidence and loss


@pytest.mark.parametrize("tail", ["bucket", "renormalise"])
def test_a_few_ids_of_weights_are_those_of_a_source(tail: Tail) -> None:
    teacher = policy("llama", seed=5)
    source = Looked(teacher, 3, tail)
    weights, top, full = (
        learn(used, Distill())
        for used in (
            learner(UnshardedModel(teacher), top_k=3, tail=tail),
            learner(source),
            learner(UnshardedModel(teacher)),
        )
    )
    assert top[1] == pytest.approx(weights[1], rel=1e-5)
    assert_close(top[2], weights[2], rtol=1e-3, atol=1e-6)
    response_BT = full[0].is_response_BT
    for name in ("kl_reverse", "kl_forward"):
        low_N, high_N = (each[0].evidence[name][response_BT] for each in (top, full))
        assert not torch.allclose(low_N, high_N, rtol=0.01)
        if tail == "bucket":
            assert (low_N <= high_N + 1e-5).all()


def test_the_sampled_token_alone_is_a_policy_gradient() -> None:
    teacher = policy("llama", seed=5)
    data = batch()
    source = Looked(teacher, 1, None)
    for index, length in enumerate(data.length_B.tolist()):
        ids = data.ids_BT[index, :length]
        logq_TV = torch.log_softmax(teacher.model(ids[None]).logits[0].detach(), -1)
        logq_T1 = logq_TV[:-1].gather(1, ids[1:, None])
        source.known[tuple(ids.tolist())] = TopKTokens(ids[1:, None], logq_T1, logq_T1[:, 0])
    used = learner(source)
    twin = policy("qwen3", seed=1)
    stats = used.gradient(data, data.is_response_BT.float(), Distill(), AVERAGE)
    loss = torch.zeros(())
    gaps = []
    for index, length in enumerate(data.length_B.tolist()):
        ids = data.ids_BT[index, :length]
        num = int(data.is_response_BT[index].sum())
        logp_TV = torch.log_softmax(twin.model(ids[None]).logits[0], -1)
        logp_T = logp_TV[:-1].gather(1, ids[1:, None])[-num:, 0]
        gap_T = (logp_T - source.known[tuple(ids.tolist())].logp_TK[-num:, 0]).detach()
        gaps.append(float(gap_T.mean()))
        loss = loss + (gap_T * logp_T).mean() / 6
    loss.backward()
    assert stats["loss"] == pytest.approx(sum(gaps) / 6, rel=1e-4)
    assert_close(
        [p.grad for p in used.policy.model.parameters()],
        [p.grad for p in twin.model.parameters()],
        rtol=1e-3,
        atol=1e-6,
    )


def test_learning_alone_fetches_what_it_needs() -> None:
    source = Looked(policy("llama", seed=5), 3)
    used = learner(source)
    data = batch()
    weight_BT = data.is_response_BT.float()
    weight_BT[2:] = 0
    used.step(data, weight_BT, Distill(), AVERAGE)
    assert len(source.fetched) == 2
    used.step(replace(data, step=1), weight_BT, Distill(), AVERAGE)
    assert len(source.fetched) == 4  # nothing is kept from step to step
