import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from reasontrain.algo.objectives import Dpo
from reasontrain.types import Losses, RunError, SequenceStats, TokenFields

SCORES = [0.2, 0.9, 0.5]


def pair(*, scores: list[float] = SCORES, logp: torch.Tensor | None = None) -> SequenceStats:
    """A chosen response of two tokens and a rejected one of three, whose log-ratios are [.4, -.1]
    and [.5, -.2, .1].
    """
    delta_N = tensor([0.4, -0.1, 0.5, -0.2, 0.1])
    logp_N = tensor([-1.0, -2.0, -0.5, -3.0, -1.5]) if logp is None else logp
    base_N = logp_N.detach()
    return SequenceStats(
        logp_N=logp_N,
        weight_N=tensor([1.0, 1.0] + [1 - s for s in scores]),
        rollout_N=tensor([0, 0, 1, 1, 1]),
        token_N=tensor([4, 5, 4, 5, 6]),
        num_rollouts=2,
        columns=TokenFields(
            ids_N=torch.zeros(5, dtype=torch.long),
            advantage_N=torch.zeros(5),
            evidence={"ref_logp": base_N - delta_N},
        ),
    )


def losses(beta: float, scores: list[float] = SCORES) -> Losses:
    return Dpo(beta=beta)(pair(scores=scores))


def test_worked_numbers() -> None:
    """r_w = .3 beta; r_l = (.8 x .5 - .1 x .2 + .5 x .1) beta = .43 beta."""
    found = losses(0.1)
    assert_close(found.stats["margin"], tensor([-0.013]), rtol=0, atol=1e-7)
    assert_close(found.loss, tensor([0.699668]), rtol=0, atol=1e-6)
    assert_close(losses(1.0).loss, tensor([0.760258]), rtol=0, atol=1e-6)
    assert_close(losses(0.1, [0.0, 0.0, 0.0]).loss, tensor([0.698160]), rtol=0, atol=1e-6)
    assert found.stats["accuracy"].tolist() == [False]
    assert_close(found.stats["chosen_logp"], tensor([-3.0]))
    assert_close(found.stats["rejected_logp"], tensor([-5.0]))


def test_the_gradient_carries_the_weight() -> None:
    logp_N = tensor([-1.0, -2.0, -0.5, -3.0, -1.5], requires_grad=True)
    Dpo(beta=0.1)(pair(logp=logp_N)).loss.sum().backward()
    assert_close(
        logp_N.grad, tensor([-0.050325, -0.050325, 0.040260, 0.005032, 0.025162]), rtol=0, atol=1e-6
    )


def test_a_weight_of_zero_takes_the_token_away_even_where_it_overflows() -> None:
    logp_N = tensor([-1.0, -2.0, -0.5, -torch.inf, -1.5], requires_grad=True)
    seen = pair(scores=[0.2, 1.0, 0.5], logp=logp_N)
    found = Dpo(beta=0.1)(seen)
    found.loss.sum().backward()
    assert float(found.loss.detach()) == pytest.approx(0.700668, abs=1e-5)
    assert logp_N.grad is not None
    assert logp_N.grad[3] == 0
    assert logp_N.grad.isfinite().all()


def test_an_unmoved_policy_loses_ln_2_and_has_a_gradient() -> None:
    logp_N = tensor([-1.0, -2.0, -0.5, -3.0, -1.5], requires_grad=True)
    seen = pair(logp=logp_N)
    seen.columns.evidence["ref_logp"].copy_(logp_N.detach())
    found = Dpo(beta=0.1)(seen)
    found.loss.sum().backward()
    assert_close(found.loss.detach(), tensor([0.693147]), rtol=0, atol=1e-6)
    assert_close(logp_N.grad, tensor([-0.05, -0.05, 0.04, 0.005, 0.025]), rtol=0, atol=1e-7)


# ---- position by position, as released


def by_position(
    padded_length: int | None = None, *, start: int = 4, lengths: tuple[int, int] = (2, 3)
) -> torch.Tensor:
    """The pair above, or one cut to other lengths, whose responses start at this position."""
    seen = pair()
    keep = tensor(
        [i for i in range(5) if (i < 2 and i < lengths[0]) or (i >= 2 and i - 2 < lengths[1])]
    )
    cut = SequenceStats(
        logp_N=seen.logp_N[keep],
        weight_N=seen.weight_N[keep],
        rollout_N=seen.rollout_N[keep],
        token_N=tensor([0, 1, 0, 1, 2])[keep] + start,
        num_rollouts=2,
        columns=TokenFields(
            ids_N=seen.columns.ids_N[keep],
            advantage_N=torch.zeros(len(keep)),
            evidence={"ref_logp": seen.columns.ref_logp_N[keep]},
        ),
    )
    return Dpo(aggregation="position", padded_length=padded_length)(cut).loss


def test_tokens_at_one_position_are_set_against_each_other() -> None:
    """.1 (.4 - .8 x .5) = 0; .1 (-.1 + .1 x .2) = -.008; .1 (0 - .5 x .1) = -.005: ln 2, .697155,
    .695650.
    """
    assert_close(by_position(), tensor([0.695318]), rtol=0, atol=1e-6)
    assert_close(by_position(start=9), by_position(), rtol=0, atol=0)


def test_the_padded_mean_is_over_prompt_and_padding_too() -> None:
    """Ten positions after the first: three as above, and seven of ln 2."""
    expected = (0.693147 + 0.697155 + 0.695650 + 7 * 0.693147) / 10
    assert_close(by_position(11), tensor([expected]), rtol=0, atol=1e-6)
    assert_close(by_position(11, start=1), by_position(11, start=8), rtol=0, atol=1e-7)
    assert_close(
        by_position(4, start=1), by_position(), rtol=0, atol=1e-7
    )  # nothing but the responses


def test_of_one_token_each_positions_are_the_sequence() -> None:
    """.1 (.4 - .8 x .5) = 0, whichever way it is averaged, and -log sigmoid(.04 + .05) with a
    weight of -1 in place of .8.
    """
    assert_close(by_position(lengths=(1, 1)), tensor([0.693147]), rtol=0, atol=1e-6)
    seen = pair(scores=[2.0, 0.9, 0.5])
    first = torch.tensor([0, 2])
    columns = TokenFields(
        ids_N=torch.zeros(2, dtype=torch.long),
        advantage_N=torch.zeros(2),
        evidence={"ref_logp": seen.columns.ref_logp_N[first]},
    )
    alone = SequenceStats(
        logp_N=seen.logp_N[first],
        weight_N=seen.weight_N[first],
        rollout_N=tensor([0, 1]),
        token_N=tensor([4, 4]),
        num_rollouts=2,
        columns=columns,
    )
    found = [Dpo(aggregation=how)(alone).loss for how in ("sequence", "position")]
    assert_close(found[0], found[1], rtol=0, atol=0)
    assert_close(found[0], tensor([0.649159]), rtol=0, atol=1e-6)


def test_a_padded_length_that_a_pair_outgrows_is_an_error() -> None:
    with pytest.raises(
        RunError, match=r"a pair has 7 tokens, more than objective\.padded_length 6"
    ):
        by_position(6)
    with pytest.raises(ValueError, match="padded_length is for `aggregation: position`"):
        Dpo(padded_length=6)


def test_every_score_of_one_leaves_the_rejected_side_alone() -> None:
    """-log sigmoid(.1 x .3) and no gradient."""
    logp_N = tensor([-1.0, -2.0, -0.5, -3.0, -1.5], requires_grad=True)
    found = Dpo(beta=0.1)(pair(scores=[1.0, 1.0, 1.0], logp=logp_N))
    found.loss.sum().backward()
    assert_close(found.loss.detach(), tensor([0.678260]), rtol=0, atol=1e-6)
    assert logp_N.grad is not None
    assert logp_N.grad[2:].tolist() == [0, 0, 0]
