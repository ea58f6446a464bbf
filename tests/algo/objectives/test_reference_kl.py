"""The penalty's expected gradient, summed over every action of a small policy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reasontrain.algo.objectives import Grpo, Gspo, Reinforce
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


def of_tokens(objective: Grpo | Reinforce) -> Callable[[Tensor, TokenFields], Losses]:
    return lambda logp_N, fields: objective(TokenStats({"logp": logp_N}.__getitem__), fields)


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


@pytest.mark.parametrize("kind", ["grpo", "gspo", "reinforce"])
@pytest.mark.parametrize("estimator", ["k3", "k3_ratio"])
def test_k3_descends_the_other_divergence_and_k3_ratio_the_one_it_estimates(
    kind: str, estimator: str
) -> None:
    settings = {"reference_kl": 1.0, "kl_estimator": estimator}
    penalty = {
        "grpo": lambda: of_tokens(Grpo(**settings)),
        "gspo": lambda: of_responses(Gspo(**settings)),
        "reinforce": lambda: of_tokens(Reinforce(**settings)),
    }[kind]()
    logits_V = LOGITS.clone().requires_grad_()
    logp_V = logits_V.log_softmax(0)
    target = divergence(REFERENCE, logp_V) if estimator == "k3" else divergence(logp_V, REFERENCE)
    found_V = expected_gradient(penalty)
    assert_close(found_V, torch.autograd.grad(target, logits_V)[0], rtol=1e-10, atol=1e-12)
    # Both forms have one value, the divergence from p to the reference.
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
