"""What every row objective keeps, whatever its formula."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers, sampled_from
from torch import Tensor
from torch.testing import assert_close

from reasontrain.algo.objectives import (
    Cispo,
    Distill,
    EntropyAwareDistill,
    Grpo,
    KlCov,
    Nll,
    Objective,
    Reinforce,
    SampledDistill,
)
from reasontrain.types import TokenFields
from reasontrain.vocab import Head, Teacher, fused

OBJECTIVES: list[Objective] = [
    Nll(),
    Distill(),
    Distill(divergence="forward_kl"),
    Distill(divergence="jsd", beta=0.3),
    Grpo(),
    Grpo(reference_kl=0.2),
    Reinforce(),
    Reinforce(reference_kl=0.2),
    SampledDistill(),
    EntropyAwareDistill(),
    EntropyAwareDistill(combine="switch", forward_weight=0.5),
    Reinforce(reference_kl=0.2, kl_estimator="k2", entropy_bonus=0.1),
    Grpo(reference_kl=0.2, kl_estimator="exact", entropy_bonus=0.1),
    KlCov(),
    Cispo(ratio_cap=1.3, ratio_floor=0.6),
    Cispo(reference_kl=0.2, kl_estimator="k3_ratio", entropy_bonus=0.1),
]
NUM_ROWS, WIDTH = 6, 9


class Inputs:
    """Six random rows of a student and a teacher."""

    def __init__(self, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64)

        self.hidden_ND, self.weight_VD = (
            normal(NUM_ROWS, 4).requires_grad_(),
            normal(WIDTH, 4).requires_grad_(),
        )
        self.teacher = Teacher(normal(NUM_ROWS, 3), Head(normal(WIDTH, 3)))
        evidence = {name: -normal(NUM_ROWS).abs() for name in ("old_logp", "ref_logp")}
        ids_N = torch.randint(WIDTH, (NUM_ROWS,), generator=draw)
        advantage_N = normal(NUM_ROWS)
        evidence["teacher_logp"] = -normal(NUM_ROWS).abs()
        evidence["teacher_entropy"] = torch.tensor([0.1, 0.9, 2.0, 0.8, 0.0, 0.7]).double()
        self.columns = TokenFields(
            ids_N=ids_N,
            advantage_N=advantage_N,
            penalty_N=0.5 * (ids_N % 2).double(),
            evidence=evidence,
        )
        self.loss_weight_N = normal(NUM_ROWS).abs() + 0.1

    def gradient(
        self, objective: Objective, rows: slice | Tensor = slice(None), chunk: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, dHidden over all six rows and dW, of some rows that are gathered first, as the
        learner does.
        """
        columns = self.columns[rows]
        teacher = Teacher(self.teacher.hidden_ND[rows], self.teacher.head)
        run = (columns, self.loss_weight_N[rows], objective)
        loss = fused(
            self.hidden_ND[rows], Head(self.weight_VD), *run, teacher=teacher, chunk=chunk
        ).loss
        return loss.detach(), *torch.autograd.grad(loss, (self.hidden_ND, self.weight_VD))


@given(
    seed=integers(0, 10_000),
    cut=integers(1, 5),
    chunk=integers(1, 7),
    objective=sampled_from(OBJECTIVES),
)
def test_neither_chunks_nor_micro_batches_change_the_gradient(
    seed: int, cut: int, chunk: int, objective: Objective
):
    inputs = Inputs(seed)
    whole = inputs.gradient(objective)
    parts = [inputs.gradient(objective, rows, chunk) for rows in (slice(cut), slice(cut, None))]
    assert_close(
        tuple(first + second for first, second in zip(*parts, strict=True)),
        whole,
        rtol=1e-10,
        atol=1e-12,
    )


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize("poison", ["hidden", "teacher", "evidence"])
def test_weight_zero_means_gradient_exactly_zero_even_beside_inf(objective: Objective, poison: str):
    kept_K = torch.tensor([0, 1, 3, 5])
    plain = Inputs(0).gradient(objective, kept_K)
    inputs = Inputs(0)
    inputs.loss_weight_N[[2, 4]] = 0
    with torch.no_grad():
        if poison == "hidden":
            inputs.hidden_ND[2], inputs.hidden_ND[4, 1] = torch.inf, torch.nan
        elif poison == "teacher":
            inputs.teacher.hidden_ND[[2, 4]] = -torch.inf
        else:
            for column in (*inputs.columns.evidence.values(), inputs.columns.advantage_N):
                column[2], column[4] = -torch.inf, torch.inf
    masked, gathered = inputs.gradient(objective), inputs.gradient(objective, kept_K)
    assert torch.equal(masked[1][[2, 4]], torch.zeros(2, 4))
    assert torch.equal(gathered[1][[2, 4]], torch.zeros(2, 4))
    assert_close(masked, plain, rtol=1e-12, atol=1e-14)
    assert_close(gathered, plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_selecting_everything_is_the_plain_objective(objective: Objective):
    inputs = Inputs(3)
    inputs.loss_weight_N = torch.full((NUM_ROWS,), 1 / NUM_ROWS, dtype=torch.float64)
    loss, dhidden_ND, dweight_VD = inputs.gradient(objective)
    hidden_ND, weight_VD = (
        leaf.detach().requires_grad_() for leaf in (inputs.hidden_ND, inputs.weight_VD)
    )
    plain = plain_loss(objective, hidden_ND @ weight_VD.T, inputs).mean()
    expected = (plain.detach(), *torch.autograd.grad(plain, (hidden_ND, weight_VD)))
    assert_close((loss, dhidden_ND, dweight_VD), expected, rtol=1e-11, atol=1e-13)


def plain_loss(objective: Objective, logits_NV: Tensor, inputs: Inputs) -> Tensor:
    """The same mathematics, written a second time over whole logits with torch's own functions."""
    p = torch.distributions.Categorical(logits=logits_NV)
    q = torch.distributions.Categorical(
        logits=inputs.teacher.hidden_ND @ inputs.teacher.head.weight_VD.T
    )
    kl = torch.distributions.kl_divergence
    logp_N, advantage_N = p.log_prob(inputs.columns.ids_N), inputs.columns.advantage_N
    match objective:
        case Nll():
            return torch.nn.functional.cross_entropy(
                logits_NV, inputs.columns.ids_N, reduction="none"
            )
        case Distill(divergence="reverse_kl"):
            return kl(p, q)
        case Distill(divergence="forward_kl"):
            return kl(q, p)
        case Distill(beta=beta):
            m = torch.distributions.Categorical(probs=(1 - beta) * p.probs + beta * q.probs)
            return (1 - beta) * kl(p, m) + beta * kl(q, m)
        case SampledDistill():
            return -(inputs.columns.teacher_logp_N - logp_N.detach()) * logp_N
        case EntropyAwareDistill(combine=combine, forward_weight=forward_weight):
            uncertain_N = (inputs.columns.teacher_entropy_N >= 0.8).double()
            reverse_N = kl(p, q) * (1 if combine == "add" else 1 - uncertain_N)
            return reverse_N + forward_weight * uncertain_N * kl(q, p)
    toward_N = inputs.columns.ref_logp_N - logp_N
    ratio_N = (logp_N - inputs.columns.old_logp_N).exp()
    estimates = {
        "k3": toward_N.exp() - toward_N - 1,
        "k3_ratio": ratio_N * (toward_N.exp() - toward_N - 1),
        "k2": 0.5 * toward_N**2,
        "exact": kl(p, q),
    }
    penalty_N = objective.reference_kl * estimates[objective.kl_estimator]
    penalty_N = penalty_N - objective.entropy_bonus * p.entropy()
    if isinstance(objective, Reinforce):
        return penalty_N - advantage_N * logp_N
    if isinstance(objective, KlCov):
        held_N = inputs.columns.penalty_N * (logp_N - inputs.columns.old_logp_N).abs()
        return penalty_N + held_N - ratio_N * advantage_N
    if isinstance(objective, Cispo):
        weight_N = ratio_N.detach().clip(objective.ratio_floor, objective.ratio_cap)
        return penalty_N - weight_N * advantage_N * logp_N
    unclipped_N, clipped_N = (
        ratio_N * advantage_N,
        ratio_N.clip(1 - objective.clip_low, 1 + objective.clip_high) * advantage_N,
    )
    return penalty_N - torch.where(unclipped_N < clipped_N, unclipped_N, clipped_N)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_nothing_selected_still_runs_backward(objective: Objective):
    nothing = Inputs(0).gradient(objective, torch.empty(0, dtype=torch.long))
    inputs = Inputs(0)
    inputs.loss_weight_N.zero_()
    for loss, dhidden_ND, dweight_VD in (nothing, inputs.gradient(objective)):
        assert loss == 0
        assert not dhidden_ND.any()
        assert not dweight_VD.any()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_what_is_stated_is_all_that_is_asked(objective: Objective):
    inputs = Inputs(0)
    stated = {
        name: column
        for name, column in inputs.columns.evidence.items()
        if name in objective.required_evidence
    }
    run = (replace(inputs.columns, evidence=stated), inputs.loss_weight_N, objective)
    teacher = inputs.teacher if objective.needs_teacher else None
    assert fused(inputs.hidden_ND, Head(inputs.weight_VD), *run, teacher=teacher).loss.isfinite()
    assert objective.granularity == "token"
