"""Each row of the head at a size of a few kilobytes: both sides do the same work."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from trl.kernels import chunked_divergence

from reasontrain.bench import vocab, vocab_work
from reasontrain.bench.case import BenchMachine, Goal
from reasontrain.bench.measure import Measured, measure
from reasontrain.bench.vocab_work import Inputs, VocabSize
from tests.bench.toys import MACHINE

SMALL = VocabSize(rows=64, vocabulary=96, hidden=8, dtype=torch.float32)


def tiles() -> tuple[int, int]:
    return chunked_divergence.TOKEN_CHUNK_SIZE, chunked_divergence.VOCAB_CHUNK_SIZE


def every(monkeypatch: pytest.MonkeyPatch, machine: BenchMachine) -> dict[str, Measured]:
    monkeypatch.setattr(vocab, "_CPU", SMALL)
    return {row.name: measure(row, machine, runs=1) for row in vocab.rows(machine)}


def test_both_sides_of_every_row_agree(monkeypatch: pytest.MonkeyPatch):
    shipped = tiles()
    found = every(monkeypatch, replace(MACHINE, quick=False))
    assert list(found) == [
        *("distil", "distil_patched", "distil_products", "tip_20", "tip_20_products"),
        *("logp_known", "logp_later", "tip_50_memory"),
    ]
    assert max(row.difference for row in found.values()) < 1e-5
    assert found["distil_patched"].peer.settings in [
        trials.settings for trials in found["distil_patched"].peer.trials
    ]
    assert [trials.settings["chunk"] for trials in found["logp_known"].peer.trials] == [
        2048,
        4096,
        8192,
        32768,
    ]
    assert tiles() == shipped


def test_a_full_run_searches_what_a_quick_one_leaves_out(monkeypatch: pytest.MonkeyPatch):
    rows = {row.name: row for row in vocab.rows(replace(MACHINE, quick=False))}
    assert len(rows["distil_patched"].peer.variants) == 6
    assert len(rows["logp_known"].peer.variants) == 4
    quick = {row.name: row for row in vocab.rows(MACHINE)}
    assert rows.keys() - quick.keys() == {"distil_patched", "distil_products", "tip_20_products"}
    assert {len(row.peer.variants) for row in quick.values()} == {1}


def test_goals_are_the_issues_own():
    def goals(machine: BenchMachine) -> dict[str, list[tuple[str, float]]]:
        return {
            row.name: [(goal.of, goal.at_most) for goal in row.goals] for row in vocab.rows(machine)
        }

    assert goals(MACHINE)["distil"] == [("time", 0.35), ("memory", 1.0)]
    assert goals(MACHINE)["tip_20"] == [("time", 0.25), ("memory", 1.0)]
    gpu = goals(replace(MACHINE, device=torch.device("cuda")))
    assert gpu["distil"] == [("time", 0.75), ("memory", 1.0), ("seconds", 0.07)]
    assert gpu["tip_20"] == [("time", 0.55), ("memory", 1.0)]
    assert Goal(of="memory", at_most=0.5) in next(
        row.goals for row in vocab.rows(MACHINE) if row.name == "tip_50_memory"
    )


# 64 rows of 8 rollouts: floor(0.25 * 8) = 2 of each, those of most entropy
def test_tip_keeps_a_share_of_each_rollout():
    given = Inputs.drawn(SMALL, torch.device("cpu"))
    entropy_N = torch.arange(64.0) % 8
    kept_N = given.chosen({"entropy": entropy_N, "kl_reverse": torch.zeros(64)}, 0.25)
    assert kept_N.nonzero()[:, 0].tolist() == [
        8 * rollout + machine for rollout in range(8) for machine in (6, 7)
    ]


@pytest.mark.parametrize(
    ("scored", "keep", "at_every_row"), [(False, 1.0, 4), (True, 0.2, 2 + 0.2 * 4)]
)
def test_products_alone_are_as_many_operations_as_the_work(
    scored: bool, keep: float, at_every_row: float
):
    size = replace(SMALL, rows=40)  # 8 rollouts of 5: a fifth is 1 of each
    make = partial(Inputs.drawn, size, torch.device("cpu"))
    ours = (
        partial(vocab_work.selects, make, keep, "scores")
        if scored
        else partial(vocab_work.distils, make)
    )
    sum_of_product = {
        torch.ops.aten.addmm_: lambda _, left, right, **__: 2 * left[0] * left[1] * right[1]
    }
    counted = []
    for side in (
        vocab_work.totals(ours, 40),
        vocab_work.multiplies(make, scored=scored, keep=keep),
    ):
        with side as work, FlopCounterMode(display=False, custom_mapping=sum_of_product) as counter:
            assert work() == {"rows": 40.0}
        counted.append(counter.get_total_flops())
    assert counted == [round(at_every_row * 2 * 40 * 96 * 8)] * 2


def test_constants_are_put_back_when_the_work_fails():
    def fail() -> None:
        with vocab_work.trl_distils(
            lambda: Inputs.drawn(SMALL, torch.device("cpu")), (16, 32), "loss"
        ):
            assert tiles() == (16, 32)
            raise ZeroDivisionError

    shipped = tiles()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert tiles() == shipped
