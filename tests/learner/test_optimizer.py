"""Learning rates by hand; which parameters decay, and which Muon takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from reasontrain.learner.optimizer import Optimizer, rate
from reasontrain.recipe import AdamW, LearnSettings, Muon
from tests.tiny import policy


def settings(**changes: object) -> LearnSettings:
    return LearnSettings(**{"lr": 1.0, "rollouts_per_step": 1, **changes})


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("constant", [1 / 3, 2 / 3, 1, 1, 1, 1]),
        ("linear", [1 / 3, 2 / 3, 1, 0.1 + 0.9 * 3 / 4, 0.1 + 0.9 / 2, 0.1 + 0.9 / 4]),
        (
            "cosine",
            [1 / 3, 2 / 3, 1, 0.1 + 0.9 * 0.8535533906, 0.1 + 0.9 / 2, 0.1 + 0.9 * 0.1464466094],
        ),
    ],
)
def test_warm_up_of_two_steps_then_four_of_decay_to_a_tenth(
    schedule: str, shares: list[float]
) -> None:
    chosen = settings(schedule=schedule, warmup_steps=2, final_lr_share=0.1)
    assert [rate(chosen, step, 6) for step in range(6)] == pytest.approx(shares)


def test_without_warm_up_the_first_step_has_the_peak_rate() -> None:
    assert rate(settings(schedule="linear"), 0, 10) == 1.0


@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_is_in_one_group_and_norms_do_not_decay(tied: bool) -> None:
    model = policy(tied=tied).model
    optimizer = Optimizer(model, settings(optimizer=AdamW(weight_decay=0.1)))
    groups = optimizer.parts[0].param_groups
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(
        id(p) for p in model.parameters()
    )
    assert {g["weight_decay"]: {p.ndim for p in g["params"]} for g in groups} == {
        0.1: {2},
        0.0: {1},
    }


def test_two_fused_steps_of_adamw_by_hand() -> None:
    """p - lr wd p - lr m / (sqrt v + eps), where m and v are divided by 1 - beta^t."""
    lr, decay, eps, beta1, beta2 = 0.1, 0.5, 1e-2, 0.8, 0.9
    chosen = AdamW(beta1=beta1, beta2=beta2, eps=eps, weight_decay=decay)
    layer = nn.Linear(3, 2)
    weights_P = [p.detach().double().clone() for p in layer.parameters()]
    optimizer = Optimizer(layer, settings(lr=lr, optimizer=chosen))
    (adam,) = optimizer.parts
    assert adam.defaults["fused"] is True
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in weights_P]
    for step in (1, 2):
        for index, parameter in enumerate(layer.parameters()):
            parameter.grad = torch.randn_like(parameter)
            gradient, (mean, square) = parameter.grad.double(), moments[index]
            mean += (1 - beta1) * (gradient - mean)
            square += (1 - beta2) * (gradient**2 - square)
            direction = mean / (1 - beta1**step) / ((square / (1 - beta2**step)).sqrt() + eps)
            decayed = decay if parameter.ndim == 2 else 0.0
            weights_P[index] = weights_P[index] * (1 - lr * decayed) - lr * direction
        optimizer.step(1.0)
        for parameter, expected in zip(layer.parameters(), weights_P, strict=True):
            assert_close(parameter.detach().double(), expected, rtol=1e-6, atol=1e-7)
        assert {float(state["step"]) for state in adam.state.values()} == {float(step)}
    assert {key for state in adam.state.values() for key in state} == {
        "step",
        "exp_avg",
        "exp_avg_sq",
    }


def test_muon_takes_the_matrices_of_the_trunk_and_nothing_as_wide_as_the_vocabulary() -> None:
    model = policy(tied=False).model
    adam, muon = Optimizer(model, settings(optimizer=Muon(matrix_lr=0.5))).parts
    taken = {id(p) for g in muon.param_groups for p in g["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in taken}
    assert all(name.endswith("_proj.weight") for name in names)
    assert len(names) == 14
    left = {
        name
        for g in adam.param_groups
        for p in g["params"]
        for name, q in model.named_parameters()
        if q is p
    }
    assert {"lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"} <= left


def test_a_share_scales_every_peak() -> None:
    optimizer = Optimizer(policy().model, settings(lr=0.1, optimizer=Muon(matrix_lr=0.5)))
    optimizer.step(0.25)
    assert [{g["lr"] for g in part.param_groups} for part in optimizer.parts] == [{0.025}, {0.125}]
