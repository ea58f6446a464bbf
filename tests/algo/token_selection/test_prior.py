"""PRIOR's weights: the golden numbers of the paper's rule, its figure, and what holds for every
response.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import floats, integers, lists
from torch import Tensor

from reasontrain.algo.token_selection import AllTokens, HasMetrics, Prior, ShuffledWeights
from reasontrain.types import Batch, RunError

RULES = {
    "prior": Prior(),
    "alpha": Prior(alpha=0.5),
    "flipped": Prior(mode="flipped"),
    "contrast": Prior(mode="contrast", low=0.5, high=3.0),
    "floor": Prior(floor=0.05),
    "cap": Prior(cap=1.5),
    "plain": Prior(skip_first=2, last="plain"),
    "shuffled": ShuffledWeights(of=Prior()),
}
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
few = settings(max_examples=10)
probabilities = lists(floats(1e-6, 1 - 1e-6), min_size=2, max_size=8)


def step(steps, p: list[float], *, prompt: int = 2) -> Batch:
    """One rollout with these probabilities under the reference."""
    logp = torch.tensor(p, dtype=torch.float64).log().tolist()
    kinds = [1] * prompt + [2] * len(p)
    return steps.of([kinds], uncond_logp=[[0.0] * prompt + logp], ref_logp=[[0.0] * len(kinds)])


def weights(steps, rule: Prior, p: list[float]) -> Tensor:
    """Of the response tokens, float64."""
    return rule(step(steps, p))[0, 2:].double()


# ---- the paper's numbers


@pytest.mark.parametrize(
    ("alpha", "expected", "mean"),
    [
        # w = (.1, .5, .9), k / sum(w) = 3 / 1.5 = 2: weights (.2, 1, 1.8)
        (1.0, [0.2, 1.0, 1.8], 1.546667),
        # sqrt: (.316228, .707107, .948683), sum 1.972018, factor 1.521285
        (0.5, [0.481072, 1.075711, 1.443217], 1.352786),
        # squares: (.01, .25, .81), sum 1.07, factor 2.803738
        (2.0, [0.028037, 0.700935, 2.271028], 1.749533),
    ],
)
def test_three_tokens_by_hand(steps, alpha: float, expected: list[float], mean: float) -> None:
    weight_T = weights(steps, Prior(alpha=alpha), [0.9, 0.5, 0.1])
    assert weight_T.tolist() == pytest.approx(expected, abs=1e-6)
    loss_T = torch.tensor([0.2, 1.0, 2.0], dtype=torch.float64)
    assert float((weight_T * loss_T).mean()) == pytest.approx(mean, abs=1e-6)
    if alpha == 1.0:
        assert float((weight_T * loss_T).sum()) == pytest.approx(4.64, abs=1e-6)


Triple = tuple[float, float, float]
A: list[Triple] = [
    (0.68, 0.01, 1.01),
    (0.47, 0.11, 0.63),
    (0.71, 0.47, 0.56),
    (0.47, 0.05, 0.66),
    (0.65, 0.48, 0.51),
    (0.08, 0.88, 0.01),
]
B: list[Triple] = [
    (0.72, 0.03, 2.24),
    (0.13, 0.88, 0.05),
    (0.17, 0.83, 0.09),
    (0.32, 0.77, 0.24),
    (0.08, 0.93, 0.02),
]
FIGURE = {"A": (A, (1.475, 1.513)), "B": (B, (3.162, 3.254))}
"""Per token of two captions (NTP loss, P, PRIOR loss) as the authors' figure prints them, and where
k / sum(w) lies by it.
"""


@pytest.mark.parametrize("caption", FIGURE)
def test_the_rule_gives_the_constant_of_the_authors_figure(steps, caption: str) -> None:
    triples, stated = FIGURE[caption]
    half = 0.005  # two decimals are printed
    low = max((prior - half) / ((ntp + half) * (1 - p + half)) for ntp, p, prior in triples)
    high = min((prior + half) / ((ntp - half) * (1 - p - half)) for ntp, p, prior in triples)
    assert (low, high) == pytest.approx(stated, abs=5e-4)
    probability = [p for _, p, _ in triples]
    weight_T = weights(steps, Prior(), probability)
    constant_T = weight_T / (1 - torch.tensor(probability, dtype=torch.float64))
    assert constant_T.tolist() == pytest.approx([float(constant_T[0])] * len(triples), abs=1e-6)
    assert stated[0] <= float(constant_T[0]) <= stated[1]  # A: 6 / 4.00; B: 5 / 1.56


# ---- what holds for every response


@given(seed=integers(0, 10_000))
@few
def test_alpha_zero_and_a_constant_column_are_the_plain_objective(steps, seed: int) -> None:
    batch = steps.random(seed)
    plain_BT = AllTokens()(batch)
    constant = torch.where(
        batch.is_response_BT, -0.7 - batch.rollout_B[:, None] % 3, torch.nan
    )  # one value per rollout
    for rule, seen in (
        (Prior(alpha=0.0), batch),
        *(
            (Prior(alpha=a), batch.with_evidence({"uncond_logp": constant}))
            for a in (0.5, 1.0, 2.0)
        ),
    ):
        assert torch.equal(rule(seen), plain_BT)


@each_rule
@given(seed=integers(0, 10_000))
@few
def test_the_mass_of_a_rollout_is_its_number_of_response_tokens(
    steps, rule: Prior, seed: int
) -> None:
    batch = steps.random(seed)
    weight_BT = rule(batch)
    torch.testing.assert_close(
        weight_BT.double().sum(1), batch.is_response_BT.sum(1).double(), rtol=0, atol=2e-5
    )
    assert (weight_BT >= 0).all()
    assert (weight_BT[~batch.is_response_BT] == 0).all()


@given(p=probabilities, place=integers(0, 7), share=floats(0.05, 0.9), alpha=floats(0.1, 3.0))
@few
def test_less_probable_is_heavier_and_all_others_lighter(
    steps, p: list[float], place: int, share: float, alpha: float
) -> None:
    place %= len(p)
    before_T = weights(steps, Prior(alpha=alpha), p)
    by_weight, by_p = before_T.argsort().tolist(), sorted(range(len(p)), key=lambda i: -p[i])
    assert [p[i] for i in by_weight] == pytest.approx(
        [p[i] for i in by_p], abs=1e-5
    )  # float32 may tie neighbours
    after_T = weights(
        steps, Prior(alpha=alpha), [q * share if i == place else q for i, q in enumerate(p)]
    )
    others = [i for i in range(len(p)) if i != place]
    assert after_T[place] >= before_T[place]
    assert all(after_T[i] <= before_T[i] for i in others)
    if p[place] > 0.01 and float(before_T[others].max()) > 0.01:
        assert after_T[place] > before_T[place]


@given(seed=integers(0, 10_000), factor=floats(0.01, 1.0))
@few
def test_a_constant_factor_on_raw_weights_changes_nothing(steps, seed: int, factor: float) -> None:
    batch = steps.random(seed)
    raw_BT = Prior().raw(batch)
    scaled = batch.with_evidence({"uncond_logp": torch.log1p(-factor * raw_BT).float()})
    torch.testing.assert_close(Prior()(scaled), Prior()(batch), rtol=0, atol=2e-4 / factor)


@each_rule
def test_another_prompt_leaves_every_weight_as_it_is(steps, rule: Prior) -> None:
    p = [0.9, 0.3, 0.6, 0.05]
    batch = step(steps, p)
    other = replace(batch, ids_BT=torch.where(batch.is_response_BT, batch.ids_BT, 17))
    assert torch.equal(rule(other), rule(batch))
    if not isinstance(rule, ShuffledWeights):  # whose draw goes by position in the sequence
        longer = step(steps, p, prompt=6)
        assert torch.equal(rule(longer)[0, 6:], rule(batch)[0, 2:])


def test_another_token_leaves_the_raw_weights_before_it(steps) -> None:
    first, second = (
        Prior().raw(step(steps, p)) for p in ([0.9, 0.3, 0.6, 0.05], [0.9, 0.3, 0.2, 0.4])
    )
    assert torch.equal(first[0, :4], second[0, :4])
    assert not torch.equal(first[0, 4:], second[0, 4:])


# ---- near P = 1


def test_certainty_everywhere_is_uniform_and_counted(steps) -> None:
    batch = steps.of([[1, 2, 2, 2], [1, 2, 2, 0]], uncond_logp=[[0.0] * 4, [0.0, -1.0, -2.0, 0.0]])
    assert Prior()(batch)[0].tolist() == [0.0, 1.0, 1.0, 1.0]
    assert Prior().metrics(batch)["degenerate_rollouts"] == 1
    assert Prior(floor=0.05).metrics(batch)["degenerate_rollouts"] == 0
    assert isinstance(Prior(), HasMetrics)


def test_a_log_prob_near_zero_keeps_its_digits(steps) -> None:
    batch = steps.of([[2, 2]], uncond_logp=[[-1e-7, -1.0]])
    assert float(Prior().raw(batch)[0, 0]) == pytest.approx(
        1e-7, rel=1e-3
    )  # 1 - exp in float32 gives 1.19e-7
    assert float(Prior()(batch)[0, 0]) == pytest.approx(2e-7 / (1 - 0.3678794), rel=1e-3)


def test_signs_of_a_reference_that_knows_by_heart_are_told(steps) -> None:
    batch = step(steps, [0.999, 0.995, 0.5, 0.1])
    told = Prior().metrics(batch)
    assert told["uncond_p_mean"] == pytest.approx((0.999 + 0.995 + 0.5 + 0.1) / 4, abs=1e-6)
    assert told["uncond_p_above_99"] == 0.5


# ---- the other modes and knobs, by hand


def test_flipped_weighs_by_probability(steps) -> None:
    # w = (.9, .5, .1), k / sum(w) = 2
    assert weights(steps, Prior(mode="flipped"), [0.9, 0.5, 0.1]).tolist() == pytest.approx(
        [1.8, 1.0, 0.2], abs=1e-6
    )


def test_contrast_weighs_by_what_the_condition_tells(steps) -> None:
    # d = log p - log P = (-1, 1, 3, 9), clipped to [0, 5]: (0, 1, 3, 5), sum 9, k = 4
    batch = steps.of(
        [[1, 2, 2, 2, 2]],
        uncond_logp=[[0.0, -1.0, -2.0, -4.0, -9.5]],
        ref_logp=[[0.0, -2.0, -1.0, -1.0, -0.5]],
    )
    assert Prior(mode="contrast")(batch)[0].tolist() == pytest.approx(
        [0, 0, 4 / 9, 12 / 9, 20 / 9], abs=1e-6
    )


def test_floor_cap_and_plain_tokens(steps) -> None:
    # w = (0.01, 0.99): with a floor of .05 (0.05, 0.99), factor 2 / 1.04
    assert weights(steps, Prior(floor=0.05), [0.99, 0.01]).tolist() == pytest.approx(
        [0.1 / 1.04, 1.98 / 1.04], abs=1e-6
    )
    # w = (.1, .1, .1, .9), factor 4 / 1.2: (1/3, 1/3, 1/3, 3); capped at 2: three share 4 - 2
    assert weights(steps, Prior(cap=2.0), [0.9, 0.9, 0.9, 0.1]).tolist() == pytest.approx(
        [2 / 3] * 3 + [2], abs=1e-6
    )
    # the first and the last stand apart with weight 1; (.1, .3) share 2
    assert weights(
        steps, Prior(skip_first=1, last="plain"), [0.2, 0.9, 0.7, 0.6]
    ).tolist() == pytest.approx([1, 0.5, 1.5, 1], abs=1e-6)


def test_a_column_that_is_not_finite_stops_the_run(steps) -> None:
    batch = steps.of([[1, 2, 2]], uncond_logp=[[float("nan"), -1.0, float("nan")]])
    with pytest.raises(
        RunError, match="'uncond_logp' is NaN or infinite at 1 of 2 response tokens"
    ):
        Prior()(batch)


def test_limits_that_leave_nothing_to_tell_apart_are_refused() -> None:
    with pytest.raises(ValueError, match=r"low 2\.0 is not below high 2\.0"):
        Prior(mode="contrast", low=2.0, high=2.0)
