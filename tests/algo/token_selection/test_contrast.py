"""Contrastive weights on pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from reasontrain.algo.token_selection import Contrast, ShuffledWeights
from reasontrain.types import Batch, RunError, TokenKind

PROMPT, RESPONSE, PAD = int(TokenKind.PROMPT), int(TokenKind.RESPONSE), int(TokenKind.PAD)
KINDS = [
    [PROMPT, RESPONSE, RESPONSE, PAD, PAD],
    [PROMPT, RESPONSE, RESPONSE, RESPONSE, PAD],
    [PROMPT, PROMPT, RESPONSE, RESPONSE, RESPONSE],
    [PROMPT, PROMPT, RESPONSE, PAD, PAD],
]
SCORES = tensor(
    [
        [0.3, 0.6, 0.7, 0.3, 0.3],
        [0.3, 0.2, 0.9, 0.5, 0.3],
        [0.3, 0.3, 0.8, 0.8, 0.8],
        [0.3, 0.3, 0.4, 0.3, 0.3],
    ]
)


def pairs(steps, scores=SCORES) -> Batch:
    batch = steps.of(KINDS, ce_logscore=scores.log().tolist())
    return replace(batch, pair_B=torch.arange(4))


def test_rejected_tokens_weigh_one_minus_their_score_and_chosen_ones_one(steps) -> None:
    expected = tensor([[0, 1, 1, 0, 0], [0, 0.8, 0.1, 0.5, 0], [0, 0, 1, 1, 1], [0, 0, 0.6, 0, 0]])
    assert_close(Contrast()(pairs(steps)), expected)


def test_both_sides_may_be_weighed(steps) -> None:
    expected = tensor(
        [[0, 0.6, 0.7, 0, 0], [0, 0.8, 0.1, 0.5, 0], [0, 0, 0.8, 0.8, 0.8], [0, 0, 0.6, 0, 0]]
    )
    assert_close(Contrast(only_neg=False)(pairs(steps)), expected)


def test_the_end_of_a_rejected_response_may_have_a_weight_of_its_own(steps) -> None:
    found = Contrast(eos_weight=1.0)(pairs(steps))
    assert_close(found[1], tensor([0, 0.8, 0.1, 1.0, 0]))
    assert_close(found[3], tensor([0, 0, 1.0, 0, 0]))
    assert_close(found[::2], Contrast()(pairs(steps))[::2])


def test_scores_outside_the_responses_and_those_of_chosen_ones_have_no_effect(steps) -> None:
    strange = SCORES.clone()
    strange[:, 0], strange[0], strange[2] = torch.nan, torch.nan, torch.nan
    assert torch.equal(Contrast()(pairs(steps, strange)), Contrast()(pairs(steps)))
    with pytest.raises(
        RunError, match="evidence 'ce_logscore' is NaN or infinite at 5 of 9 response tokens"
    ):
        Contrast(only_neg=False)(pairs(steps, strange))


def test_a_nan_where_a_score_is_read_is_an_error(steps) -> None:
    broken = SCORES.clone()
    broken[1, 2] = torch.nan
    with pytest.raises(
        RunError, match="evidence 'ce_logscore' is NaN or infinite at 1 of 4 response tokens"
    ):
        Contrast()(pairs(steps, broken))


def test_weights_that_sum_to_zero_are_an_error(steps) -> None:
    with pytest.raises(RunError, match="the weights of all rejected tokens of a step sum to zero"):
        Contrast()(pairs(steps, torch.ones_like(SCORES)))
    one = torch.ones_like(SCORES)
    one[3, 2] = 0.4  # one token of one response is enough
    assert_close(Contrast()(pairs(steps, one)).sum(), tensor(5.6))


def test_shuffled_it_keeps_the_weights_of_each_response(steps) -> None:
    batch = pairs(steps)
    found, plain = ShuffledWeights(of=Contrast())(batch), Contrast()(batch)
    assert_close(found.sort(1).values, plain.sort(1).values)
    assert torch.equal(found[::2], plain[::2])


def test_needs_are_stated(steps) -> None:
    with pytest.raises(LookupError, match="ce_logscore"):
        Contrast()(replace(pairs(steps), evidence={}))
