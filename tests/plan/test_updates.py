"""Plans and counts of several optimiser steps per batch: passes, updates, mini-batches."""

from __future__ import annotations

import pytest

from reasontrain.plan.scaling import predictions
from reasontrain.plan.traffic import flows
from tests.plan.jobs import job
from tests.plan.test_flops import HEAD, TINY, TRUNK, count

PARAMETERS = 4_022_468_096
UPDATE_S = 28 * PARAMETERS / 3.3e12


def test_operations_of_learning_count_passes_and_those_of_evidence_do_not() -> None:
    once = count(TINY)
    split = count(TINY, "learn.updates_per_batch=4")
    # Several updates compare with the learner's own log-probs: one forward before the first.
    assert split == once | {"evidence": TRUNK + HEAD}
    twice = count(TINY, "learn.updates_per_batch=4", "learn.epochs_per_batch=2")
    assert twice == split | {"learned": 2 * once["learned"]}
    recomputed = count(
        TINY,
        "learn.updates_per_batch=2",
        "learn.epochs_per_batch=2",
        "model.gradient_checkpointing=true",
    )["recomputed"]
    assert recomputed == 2 * count(TINY, "model.gradient_checkpointing=true")["recomputed"]


def test_time_of_learning_is_of_passes_and_updates() -> None:
    (once, *_) = predictions(job())
    (split, *_) = predictions(job("learn.updates_per_batch=4", "learn.epochs_per_batch=2"))
    expected = 2 * (once.learning_s - UPDATE_S) + 4 * UPDATE_S
    assert split.learning_s == pytest.approx(expected, rel=1e-9)


def test_mini_batches_are_cut_into_micro_batches_one_by_one() -> None:
    # 256 rollouts in mini-batches of 16; a micro-batch could hold 64 rollouts of 2048 tokens.
    work = job("learn.updates_per_batch=16", "learn.micro_batch_tokens=131072").work
    assert work.rollouts_per_micro_batch == 16
    assert (work.micro_batches_per_update, work.micro_batches_per_rank) == (1, 16)


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        (1, {"gradients, reduced 4 times": 4 * 2}),
        (2, {"gradients, scattered for 4 micro-batches": 4, "weights, gathered after each": 4}),
    ],
)
def test_collectives_are_repeated_by_each_update(stage: int, names: dict[str, int]) -> None:
    planned = job(
        "cluster.learners=4",
        f"learn.zero.stage={stage}",
        "learn.micro_batch_tokens=131072",
        "learn.updates_per_batch=4",
        "learn.epochs_per_batch=2",
    )
    sizes = {flow.name: flow.size for flow in flows(planned) if flow.through == "each rank"}
    assert len(sizes) == len(names)
    for (name, size), (start, volumes) in zip(sizes.items(), names.items(), strict=True):
        assert name.startswith(start)
        assert size == volumes * 2 * PARAMETERS * 3 // 4
