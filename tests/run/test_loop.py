"""The loop's own decisions: truncated rollouts, where old log-probs come from, what a step is
described by.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reasontrain.algo.advantages import GroupNormalized, NoAdvantage
from reasontrain.algo.loss_aggregation import token_mean
from reasontrain.algo.objectives import Nll
from reasontrain.algo.token_selection import LinearSchedule, MaxVariance, SsToken
from reasontrain.data.collate import collate
from reasontrain.metrics.step import step_metrics
from reasontrain.recipe import CheckpointSettings
from reasontrain.run.directory import RunDirectory
from reasontrain.run.loop import (
    Checkpoints,
    Method,
    _without_truncated,
    make_batch,
    observe,
)
from reasontrain.types import Batch, Problem, Rollout, Weights
from tests.tiny import batch


class FakeLearner:
    """A learner that says what it was asked for, and answers 9."""

    def __init__(self, done: int | None = 0) -> None:
        self.steps_done = done
        self.asked: list[frozenset[str]] = []

    def observe(self, data: Batch, required_evidence: frozenset[str]) -> Batch:
        self.asked.append(required_evidence)
        return data.with_evidence(
            {name: torch.full(data.ids_BT.shape, 9.0) for name in required_evidence}
        )

    def step(self) -> None: ...

    def weights(self) -> Weights:
        return Weights(self.steps_done or 0, lambda: iter(()))

    def matrix_rate(self) -> float: ...

    def save(self, directory: Path) -> None:
        (directory / "done").write_text(str(self.steps_done))

    def restore(self) -> None: ...

    def export(self) -> None: ...


def data() -> Batch:
    return replace(batch(), evidence={"sampled_logp": torch.full((6, 24), -2.0)})


def test_old_log_probs_are_the_samplers_where_they_are_the_same_numbers() -> None:
    learner = FakeLearner()
    seen = observe(learner, data(), frozenset({"old_logp", "entropy"}), reuse_sampled_logp=True)
    assert learner.asked == [frozenset({"entropy"})]
    assert torch.equal(seen.old_logp_BT, seen.sampled_logp_BT)


def test_old_log_probs_are_the_learners_where_sampling_was_truncated() -> None:
    learner = FakeLearner()
    seen = observe(
        learner, data(), frozenset({"old_logp", "sampled_logp"}), reuse_sampled_logp=False
    )
    assert learner.asked == [frozenset({"old_logp"})]
    assert (seen.old_logp_BT == 9).all()


def test_evidence_that_a_rule_does_not_read_yet_is_not_asked_for() -> None:
    rule = SsToken(warmup=0.5)
    method = Method(
        objective=Nll(),
        loss_aggregation=token_mean,
        token_selection=rule,
        required_evidence=rule.required_evidence | {"entropy"},
    )
    assert method.evidence_at(0.4) == {"attention", "entropy"}
    assert method.evidence_at(0.5) == method.required_evidence


def test_nothing_needed_is_nothing_asked() -> None:
    learner = FakeLearner()
    observe(learner, data(), frozenset(), reuse_sampled_logp=True)
    assert learner.asked == []


def test_quadrants_of_a_step_by_hand() -> None:
    """Four response tokens, one in each quadrant of the medians (2.5, 2.5), Q1 to Q4; the first two
    are kept.
    """
    rollout = Rollout(
        problem=Problem(id="a", prompt=""),
        id=0,
        group=0,
        prompt_ids=(1,),
        response_ids=(5, 6, 7, 8),
        reward=0.5,
    )
    known = collate([rollout], advantage=NoAdvantage()).with_evidence(
        {
            "entropy": torch.tensor([[0.0, 4, 3, 1, 2]]),
            "kl_reverse": torch.tensor([[0.0, 3, 2, 4, 1]]),
        }
    )
    stats = step_metrics(known, torch.tensor([[0.0, 1, 1, 0, 0]]), [rollout])
    assert [stats[f"share_Q{q}"] for q in (1, 2, 3, 4)] == [0.25] * 4
    assert [stats[f"kept_Q{q}"] for q in (1, 2, 3, 4)] == [1, 1, 0, 0]
    assert [stats[f"share_of_kept_Q{q}"] for q in (1, 2, 3, 4)] == [0.5, 0.5, 0, 0]
    assert [stats[f"fixed_share_Q{q}"] for q in (1, 2, 3, 4)] == [
        1,
        0,
        0,
        0,
    ]  # all above 0.3 and 0.5 nats
    assert (
        stats["trained_tokens"],
        stats["reward_mean"],
        stats["entropy_mean"],
        stats["kl_reverse_mean"],
    ) == (2, 0.5, 2.5, 2.5)


def rollouts(*truncated: bool) -> list[Rollout]:
    """Groups of two, one token each."""
    problem = Problem(id="a", prompt="")
    return [
        Rollout(
            problem=problem,
            id=i,
            group=i // 2 * 2,
            prompt_ids=(1,),
            response_ids=(5,),
            sampled_logp=(-1.0,),
            truncated=cut,
        )
        for i, cut in enumerate(truncated)
    ]


def test_a_rollout_that_is_left_alone_in_its_group_goes_with_the_truncated_ones() -> None:
    some = rollouts(False, False, True, False, True, True)
    assert [r.id for r in _without_truncated(some, alone=False)] == [0, 1]
    assert [r.id for r in _without_truncated(some, alone=True)] == [0, 1, 3]


def test_what_was_sampled_is_counted_whatever_is_dropped_and_progress_is_the_steps() -> None:
    """Rollouts of one token each, of which one is truncated and half of the others are kept; a
    resumed run starts at its step.
    """
    some = [
        replace(r, reward=float(r.id % 2))
        for r in rollouts(False, False, True, False, False, False)
    ]
    method = Method(
        objective=Nll(),
        loss_aggregation=token_mean,
        advantage=GroupNormalized(),
        truncated="drop",
    )

    def made(step: int) -> Batch:
        return make_batch(method, some, step=step, steps=5, seed=3)

    batch = MaxVariance(keep_ratio=LinearSchedule(init=0.5))(made(1))
    totals = batch.totals()
    assert (totals.sampled_rollouts, totals.sampled_tokens) == (6, 6)
    assert (totals.rollouts, totals.response_tokens) == (2, 2)
    assert [made(step).progress for step in (0, 1, 4)] == [0, 0.25, 1]


@pytest.mark.parametrize(
    ("step", "done", "kept", "message"),
    [
        (3, 3, ["step-3"], "; saved "),
        (3, 4, [], ""),
        (3, None, [], "; a part of its updates was made, so nothing was saved"),
        (0, 0, [], ""),
    ],
)
def test_a_step_that_failed_leaves_a_checkpoint_of_just_the_steps_before(
    tmp_path: Path, step: int, done: int | None, kept: list[str], message: str
) -> None:
    """Weights that have seen the step already (`sync` failed, or one of its updates) would see it
    twice under the name of the one before.
    """
    checkpoints = Checkpoints(
        directory=RunDirectory(tmp_path), settings=CheckpointSettings(), learner=FakeLearner(done)
    )
    added = checkpoints.save_before(step)
    assert added.startswith(message) if message else added == ""
    assert [path.name for path in tmp_path.glob("checkpoints/*")] == kept


def test_what_is_kept_is_told_by_its_place_in_the_response() -> None:
    # six response tokens after two of the prompt: thirds of two tokens; and one of a single token,
    # which is the first third
    kind_BT = torch.tensor([[1, 1, 2, 2, 2, 2, 2, 2], [1, 2, 0, 0, 0, 0, 0, 0]])
    known = replace(batch(num=2, width=8), kind_BT=kind_BT, evidence={})
    stats = step_metrics(known, torch.tensor([[0.0, 0, 1, 1, 1, 0, 0, 0], [0] * 8]), [])
    assert stats["kept_of_first_third"] == pytest.approx(2 / 3)
    assert (stats["kept_of_middle_third"], stats["kept_of_last_third"]) == (0.5, 0.0)
