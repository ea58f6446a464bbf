"""The penalty's expected gradient, summed over every action of a small policy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reasontrain.algo.objectives import Cispo, Grpo, Gspo, Reinforce
from reasontrain.types import Losses, SequenceStats, TokenFields, TokenStats

NUM_ACTIONS = 6
DRAW = torch.Generator().manual_seed(3)
REFERENCE = torch.randn(NUM_ACTIONS, generator=DRAW, dtype=torch.float64).log_softmax(0)
LOGITS = torch.randn(NUM_ACTIONS, generator=DRAW, dtype=torch.float64)


def expected_gradient(penalty: Callable[[Tensor, TokenFields], Losses]) -> Tensor:
    """E over p of the gradient of the penalty, advantages being 0."""
    logits_V = LOGITS.clone().requires_grad_()
    logp_V = logits_V.log_softmax(0)
    fields = TokenFields(
        ids_N=torch.arange(NUM_ACTIONS),
        advantage_N=torch.zeros(NUM_ACTIONS, dtype=torch.float64),
        evidence={"old_logp": logp_V.detach(), "ref_logp": REFERENCE},
    )
    loss_N = penalty(logp_V, fields).loss
    return torch.autograd.grad((logp_V.detach().exp() * loss_N).sum(), logits_V)[0]


def of_tokens(objective: Grpo | Reinforce | Cispo) -> Callable[[Tensor, TokenFields], Losses]:
    def penalty(logp_N: Tensor, fields: TokenFields) -> Losses:
        entropy = -(logp_N.exp() * logp_N).sum()
        statistics = {
            "logp": logp_N,
            "kl_reverse": divergence(logp_N, REFERENCE).expand(NUM_ACTIONS),
            "entropy": entropy.expand(NUM_ACTIONS),
        }
        return objective(TokenStats(statistics.__getitem__), fields)

    return penalty


def of_responses(objective: Gspo) -> Callable[[Tensor, TokenFields], Losses]:
    """Each action is a response of its own."""
    index_N = torch.arange(NUM_ACTIONS)
    return lambda logp_N, fields: objective(
        SequenceStats(
            logp_N=logp_N,
            weight_N=torch.ones(NUM_ACTIONS),
            rollout_N=index_N,
            token_N=torch.ones_like(index_N),
            num_rollouts=NUM_ACTIONS,
            columns=fields,
        )
    )


def divergence(first_V: Tensor, second_V: Tensor) -> Tensor:
    return (first_V.exp() * (first_V - second_V)).sum()


@pytest.mark.parametrize(
    ("kind", "estimator"),
    [
        (kind, estimator)
        for kind in ("grpo", "gspo", "reinforce", "cispo")
        for estimator in ("k3", "k3_ratio", "k2", "exact")
        if (kind, estimator) != ("gspo", "exact")
    ],
)
def test_k3_descends_the_other_divergence_and_the_others_the_one_they_estimate(
    kind: str, estimator: str
) -> None:
    settings = {"reference_kl": 1.0, "kl_estimator": estimator}
    penalty = {
        "grpo": lambda: of_tokens(Grpo(**settings)),
        "gspo": lambda: of_responses(Gspo(**settings)),
        "reinforce": lambda: of_tokens(Reinforce(**settings)),
        "cispo": lambda: of_tokens(Cispo(**settings)),
    }[kind]()
    logits_V = LOGITS.clone().requires_grad_()
    logp_V = logits_V.log_softmax(0)
    target = divergence(REFERENCE, logp_V) if estimator == "k3" else divergence(logp_V, REFERENCE)
    found_V = expected_gradient(penalty)
    assert_close(found_V, torch.autograd.grad(target, logits_V)[0], rtol=1e-10, atol=1e-12)
    if estimator == "k2":
        return
    # The others have one value, the divergence from p to the reference.
    value = (
        logp_V.detach().exp()
        * penalty(
            logp_V.detach(),
            TokenFields(
                ids_N=torch.arange(NUM_ACTIONS),
                advantage_N=torch.zeros(NUM_ACTIONS, dtype=torch.float64),
                evidence={"old_logp": logp_V.detach(), "ref_logp": REFERENCE},
            ),
        ).loss
    ).sum()
    assert_close(value, divergence(logp_V.detach(), REFERENCE))


def test_the_penalty_reads_the_reference_only_if_it_is_on() -> None:
    assert Gspo().required_evidence == {"old_logp"}
    assert Gspo(reference_kl=0.1).required_evidence == {"old_logp", "ref_logp"}
    assert Reinforce().required_evidence == frozenset()
    assert Reinforce(reference_kl=0.1).required_evidence == {"ref_logp"}
    for objective in (Grpo, Cispo, Reinforce):
        exact = objective(reference_kl=0.1, kl_estimator="exact")
        assert exact.needs_teacher
        assert "ref_logp" not in exact.required_evidence
        assert not objective(kl_estimator="exact").needs_teacher


def test_a_ratio_of_responses_has_no_exact_penalty() -> None:
    with pytest.raises(ValueError, match="`kl_estimator: exact` reads the whole distribution"):
        Gspo(kl_estimator="exact", reference_kl=0.1)


@pytest.mark.parametrize("objective", [Grpo, Cispo, Reinforce])
def test_the_bonus_ascends_the_entropy(objective: type[Grpo | Cispo | Reinforce]) -> None:
    logits_V = LOGITS.clone().requires_grad_()
    logp_V = logits_V.log_softmax(0)
    entropy = -(logp_V.exp() * logp_V).sum()
    expected_V = torch.autograd.grad(-0.3 * entropy, logits_V)[0]
    bonus = of_tokens(objective(entropy_bonus=0.3))
    assert_close(expected_gradient(bonus), expected_V, rtol=1e-10, atol=1e-12)
