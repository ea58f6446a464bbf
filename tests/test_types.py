"""What a batch knows about itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reasontrain.types import Batch, Problem, TokenFields, TokenKind, TokenStats, listed

PAD, PROMPT, RESPONSE, FORCED, TOOL, SOFT, MASKED = (int(kind) for kind in TokenKind)


def batch() -> Batch:
    """Three rollouts of five columns: 3 response tokens, 1 soft and 1 response beside forced and
    tool, and a masked one alone.
    """
    kind_BT = torch.tensor(
        [
            [PROMPT, RESPONSE, RESPONSE, RESPONSE, PAD],
            [PROMPT, FORCED, SOFT, TOOL, RESPONSE],
            [PROMPT, PROMPT, MASKED, PAD, PAD],
        ]
    )
    return Batch(
        ids_BT=torch.arange(15).reshape(3, 5),
        kind_BT=kind_BT,
        rollout_B=torch.tensor([8, 2, 5]),
        group_B=torch.tensor([4, 0, 1]),
        reward_B=torch.tensor([0.0, 1.0, 0.5]),
        advantage_B=torch.tensor([-1.0, 0.0, 1.0]),
        evidence={"entropy": torch.arange(15.0).reshape(3, 5)},
        sampled_rollouts=6,
        sampled_tokens=40,
        progress=0.25,
        seed=7,
        step=3,
    )


def test_response_and_length():
    assert batch().is_response_BT.int().tolist() == [
        [0, 1, 1, 1, 0],
        [0, 0, 1, 0, 1],
        [0, 0, 0, 0, 0],
    ]
    assert batch().length_B.tolist() == [4, 5, 3]


def test_counts_of_everything():
    totals = batch().totals()
    assert (
        totals.rollouts,
        totals.response_tokens,
        totals.kept_rollouts,
        totals.kept_tokens,
        totals.pairs,
    ) == (3, 5, 2, 5, 0)
    assert (totals.sampled_rollouts, totals.sampled_tokens) == (6, 40)


def test_a_fractional_or_negative_weight_counts_as_one_row():
    weight_BT = torch.zeros(3, 5)
    weight_BT[0, 1], weight_BT[0, 3] = 0.25, -2.0
    totals = batch().totals(weight_BT)
    assert (totals.rollouts, totals.response_tokens, totals.kept_rollouts, totals.kept_tokens) == (
        3,
        5,
        1,
        2,
    )


def test_pairs_are_two_rollouts_each():
    assert (
        replace(batch().take(torch.tensor([0, 1])), pair_B=torch.tensor([0, 1])).totals().pairs == 1
    )


def test_row_order_rises_with_rollout_then_position_in_any_layout():
    order_BT = batch().token_order_BT
    # rollout 8 at its second token: 8 * 2^24 + 2
    assert int(order_BT[0, 1]) == 8 * 2**24 + 2
    real_BT = batch().kind_BT != PAD
    by_order = sorted(
        (int(order_BT[b, t]), int(batch().rollout_B[b]), int(t)) for b, t in real_BT.nonzero()
    )
    assert [(rollout, t) for _, rollout, t in by_order] == sorted(
        (rollout, t) for _, rollout, t in by_order
    )
    assert len({order for order, _, _ in by_order}) == 12
    wider = {
        name: torch.nn.functional.pad(getattr(batch(), name), (3, 1))
        for name in ("ids_BT", "kind_BT")
    }
    shifted = replace(batch(), **wider, evidence={})
    assert torch.equal(shifted.token_order_BT[:, 3:-1][real_BT], order_BT[real_BT])


def test_take_keeps_every_column_in_step_and_what_was_sampled():
    index_K = torch.tensor([2, 0])
    paired = replace(batch(), pair_B=torch.tensor([4, 5, 6]))
    taken = paired.take(index_K)
    for name in (
        "ids_BT",
        "kind_BT",
        "rollout_B",
        "group_B",
        "reward_B",
        "advantage_B",
        "pair_B",
        "entropy_BT",
    ):
        assert torch.equal(getattr(taken, name), getattr(paired, name)[index_K]), name
    assert (
        taken.sampled_rollouts,
        taken.sampled_tokens,
        taken.progress,
        taken.seed,
        taken.step,
    ) == (6, 40, 0.25, 7, 3)
    assert batch().take(index_K).pair_B is None


def test_a_missing_column_says_what_there_is():
    with pytest.raises(
        LookupError, match=r"evidence 'kl_reverse' was not observed \(observed: entropy\)"
    ):
        _ = batch().kl_reverse_BT
    with pytest.raises(LookupError, match=r"\(observed: none\)"):
        _ = replace(batch(), evidence={}).entropy_BT


def test_a_column_reads_its_own_evidence():
    more = batch().with_evidence(
        {"old_logp": torch.full((3, 5), -1.0), "entropy": torch.zeros(3, 5)}
    )
    assert torch.equal(more.old_logp_BT, torch.full((3, 5), -1.0))
    assert torch.equal(more.entropy_BT, torch.zeros(3, 5))  # the newer one
    assert torch.equal(batch().entropy_BT, torch.arange(15.0).reshape(3, 5))


def test_unknown_evidence_is_our_own_mistake():
    with pytest.raises(AssertionError, match="entropie"):
        batch().with_evidence({"entropie": torch.zeros(3, 5)})


def test_a_chunk_of_row_columns():
    rows = TokenFields(
        ids_N=torch.arange(4),
        advantage_N=torch.arange(4.0),
        evidence={"old_logp": -torch.arange(4.0)},
    )
    chunk = rows[1:3]
    assert (chunk.ids_N.tolist(), chunk.advantage_N.tolist(), chunk.old_logp_N.tolist()) == (
        [1, 2],
        [1.0, 2.0],
        [-1.0, -2.0],
    )
    with pytest.raises(LookupError, match="ref_logp"):
        _ = chunk.ref_logp_N


def test_rows_ask_for_each_statistic_by_its_name():
    values = {"logp": 1.0, "entropy": 2.0, "kl_reverse": 3.0, "kl_forward": 4.0, "jsd:0.25": 5.0}
    rows = TokenStats(statistic=lambda name: torch.tensor([values[name]]))
    found = (rows.logp_N, rows.entropy_N, rows.kl_reverse_N, rows.kl_forward_N, rows.jsd_N(0.25))
    assert [float(value_N) for value_N in found] == [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m red", "tab\tend", "x" * 5000, "\ud800", "½ é"])
def test_a_problem_is_one_short_printable_line_in_messages(name: str) -> None:
    label = Problem(id=name, prompt="1 + 1?").label
    assert label.isprintable()
    assert len(label) <= len("problem ") + 80
    assert label.encode()
    assert "\\" in label or label in ("problem ½ é", f"problem {'x' * 77}...")


def test_names_of_columns_are_one_line_and_at_most_twenty() -> None:
    assert listed(["a\nb", "c"]) == "a\\nb, c"
    assert listed(range(25)).endswith("19, and 5 more")
    assert listed([]) == "nothing"
