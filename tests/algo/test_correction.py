"""Weights by hand, and what a correction must not depend on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import floats, integers, sampled_from
from torch import Tensor, tensor
from torch.testing import assert_close

from reasontrain.algo.correction import Correction, MaskRatio, NoCorrection, TruncateRatio
from reasontrain.algo.loss_aggregation import token_mean
from reasontrain.algo.objectives import Grpo, Reinforce
from reasontrain.algo.objectives.clipping import ClippedRatio
from reasontrain.run.loop import Method, with_token_advantages
from reasontrain.types import Batch, TokenFields, TokenKind, TokenStats

R, P, M, T = TokenKind.RESPONSE, TokenKind.PROMPT, TokenKind.MASKED, TokenKind.TOOL
LN2 = math.log(2)


def step(kinds: list[list[int]], log_ratio: list[list[float]]) -> Batch:
    """Rollouts whose response tokens have these log-ratios; all others are poisoned."""
    kind_BT = tensor(kinds)
    difference_BT = tensor(log_ratio, dtype=torch.float64)
    num = len(kinds)
    sampled_BT = torch.where(kind_BT == R, -5.0, torch.nan).double()
    return Batch(
        ids_BT=torch.ones_like(kind_BT),
        kind_BT=kind_BT,
        rollout_B=torch.arange(num),
        group_B=torch.zeros(num, dtype=torch.long),
        reward_B=torch.zeros(num),
        advantage_B=torch.arange(1, num + 1, dtype=torch.float64) * -1.5,
        evidence={"sampled_logp": sampled_BT, "old_logp": sampled_BT + difference_BT},
    )


# ratios 2, 1/2, 8 and, of the second response, 4; a prompt, a tool's answer and a masked token
STEP = step(
    [[P, R, R, T, R], [P, P, R, M, 0]],
    [[0, LN2, -LN2, 0, 3 * LN2], [0, 0, 2 * LN2, 0, 0]],
)


@pytest.mark.parametrize(
    ("correction", "expected"),
    [
        (NoCorrection(), [[1, 1, 1], [1]]),
        (TruncateRatio(), [[2, 0.5, 3], [3]]),
        (TruncateRatio(cap=2.5, floor=0.75), [[2, 0.75, 2.5], [2.5]]),
        # the product of 2, 1/2 and 8 is 8; that of the second response is 4
        (TruncateRatio(level="sequence", cap=6.0), [[6, 6, 6], [4]]),
        (MaskRatio(), [[2, 0.5, 0], [0]]),
        (MaskRatio(cap=8.0, floor=0.75), [[2, 0, 8], [4]]),
        (MaskRatio(level="sequence", cap=6.0), [[0, 0, 0], [4]]),
        (MaskRatio(level="sequence", cap=9.0, floor=5.0), [[8, 8, 8], [0]]),
    ],
)
def test_weights_by_hand(correction: Correction, expected: list[list[float]]) -> None:
    weight_BT = correction(STEP)
    assert weight_BT.dtype == torch.float64
    found = [row_T[among_T] for row_T, among_T in zip(weight_BT, STEP.is_response_BT, strict=True)]
    for row_N, by_hand in zip(found, expected, strict=True):
        assert_close(row_N, tensor(by_hand, dtype=torch.float64), rtol=1e-12, atol=0)
    assert weight_BT.isfinite().all()


def test_metrics_count_tokens_or_responses() -> None:
    tokens = TruncateRatio(cap=3.0).metrics(STEP)  # 8 and 4 of 2, 1/2, 8 and 4
    assert tokens["correction_truncated_share"] == 0.5
    assert tokens["correction_weight_mean"] == pytest.approx((2 + 0.5 + 3 + 3) / 4)
    responses = MaskRatio(level="sequence", cap=6.0).metrics(STEP)  # 8 of 8 and 4
    assert responses["correction_masked_share"] == 0.5
    assert responses["correction_weight_mean"] == pytest.approx(1)
    assert NoCorrection().metrics(STEP) == {}


def test_a_step_without_response_tokens_has_no_mean() -> None:
    nothing = step([[P, M]], [[0, 0]])
    assert TruncateRatio().metrics(nothing) == {"correction_truncated_share": 0}


def test_bounds_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="floor 3 is not below cap 3"):
        MaskRatio(floor=3.0)


@pytest.mark.parametrize("objective", [Grpo(dual_clip=3.0), Reinforce()], ids=repr)
@given(
    weight=floats(0, 10),
    advantage=sampled_from([-2.0, 0.5, 3.0]),
    log_ratio=floats(-3, 3),
)
def test_a_weighted_advantage_is_a_weighted_loss(
    objective: ClippedRatio | Reinforce, weight: float, advantage: float, log_ratio: float
) -> None:
    """The reason why the weight may multiply the advantage, clip and dual clip included."""

    def loss(advantage: float) -> Tensor:
        fields = TokenFields(
            ids_N=tensor([0]),
            advantage_N=tensor([advantage], dtype=torch.float64),
            evidence={"old_logp": tensor([-4.0 - log_ratio], dtype=torch.float64)},
        )
        logp = tensor([-4.0], dtype=torch.float64)
        return objective(TokenStats({"logp": logp}.__getitem__), fields).loss

    assert_close(loss(weight * advantage), weight * loss(advantage), rtol=1e-12, atol=1e-12)


@given(seed=integers(0, 1000), level=sampled_from(["token", "sequence"]))
def test_neither_padding_nor_other_rollouts_change_a_weight(seed: int, level: str) -> None:
    draw = torch.Generator().manual_seed(seed)
    log_ratio = torch.randn(3, 4, generator=draw).tolist()
    whole = step([[P, R, R, R], [P, R, 0, 0], [P, P, R, R]], log_ratio)
    for correction in (TruncateRatio(level=level), MaskRatio(level=level, floor=0.3)):
        parts = [correction(whole.take(tensor([index]))) for index in range(3)]
        assert torch.equal(torch.cat(parts), correction(whole))
        padded = replace(
            whole,
            **{name: torch.nn.functional.pad(getattr(whole, name), (0, 2)) for name in PER_TOKEN},
            evidence={
                name: torch.nn.functional.pad(column_BT, (0, 2))
                for name, column_BT in whole.evidence.items()
            },
        )
        assert torch.equal(correction(padded)[:, :4], correction(whole))


PER_TOKEN = ("ids_BT", "kind_BT")


def test_tokens_get_the_advantage_of_their_rollout_times_the_weight() -> None:
    method = Method(
        objective=Grpo(), loss_aggregation=token_mean, correction=TruncateRatio(cap=2.5)
    )
    corrected = with_token_advantages(method, STEP)
    assert corrected.advantage_BT is not None
    expected = tensor([-1.5 * 2, -1.5 * 0.5, -1.5 * 2.5, -3 * 2.5], dtype=torch.float64)
    assert_close(corrected.advantage_BT[STEP.is_response_BT], expected)
    assert torch.equal(corrected.advantage_B, STEP.advantage_B)
    assert corrected.take(tensor([1])).advantage_BT is not None
    plain = replace(method, correction=NoCorrection())
    assert with_token_advantages(plain, STEP) is STEP
