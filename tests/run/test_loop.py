"""The loop's own decisions: truncated rollouts, where old log-probs come from, what a step is
described by.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers, lists, sampled_from, sets

from reasontrain.algo.advantages import (
    Advantage,
    GroupNormalized,
    LeaveOneOut,
    MeanCentred,
    NoAdvantage,
)
from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS, token_mean
from reasontrain.algo.objectives import Nll
from reasontrain.algo.rollout_filter import AllRollouts, RandomRollouts, RolloutFilter
from reasontrain.algo.token_selection import LinearSchedule, MaxVariance, SsToken
from reasontrain.data.collate import collate
from reasontrain.metrics.rewards import (
    group_numbers,
    own_reward_numbers,
    part_numbers,
    reward_mean,
)
from reasontrain.metrics.step import step_metrics
from reasontrain.recipe import CheckpointSettings
from reasontrain.run.directory import RunDirectory
from reasontrain.run.loop import (
    Checkpoints,
    Method,
    RewardWatch,
    _kept,
    _left_out,
    make_batch,
    observe,
)
from reasontrain.types import Batch, Problem, Rollout, Stats, UserError, Weights
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

    def attention(self) -> str: ...

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
    assert [stats[f"share_of_kl_Q{q}"] for q in (1, 2, 3, 4)] == [0.3, 0.2, 0.4, 0.1]
    assert stats["share_of_kl_kept"] == 0.5
    assert [stats[f"fixed_share_Q{q}"] for q in (1, 2, 3, 4)] == [
        1,
        0,
        0,
        0,
    ]  # all above 0.3 and 0.5 nats
    assert (
        stats["trained_tokens"],
        stats["entropy_mean"],
        stats["kl_reverse_mean"],
    ) == (2, 2.5, 2.5)


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


Truncated = Literal["score", "mask", "drop"]


def method(advantage: Advantage, *, truncated: Truncated = "score") -> Method:
    return Method(
        objective=Nll(), loss_aggregation=token_mean, advantage=advantage, truncated=truncated
    )


def test_a_rollout_that_is_left_alone_in_its_group_goes_with_the_truncated_ones() -> None:
    some = rollouts(False, False, True, False, True, True)
    compared = method(GroupNormalized(), truncated="drop")
    assert [r.id for r in _kept(compared, some)] == [0, 1]
    alone = method(NoAdvantage(), truncated="drop")
    assert [r.id for r in _kept(alone, some)] == [0, 1, 3]


def test_one_rollout_per_prompt_is_an_error_of_the_recipe() -> None:
    """It was alone before anything was left out."""
    with pytest.raises(UserError, match=r"set `sample\.group_size` to 2 or more"):
        make_batch(method(MeanCentred()), rollouts(False)[:1], step=0, steps=1, seed=0)


FILTERS: list[RolloutFilter] = [
    AllRollouts(),
    *(
        kind(scope=scope, keep_ratio=LinearSchedule(init=0.5))
        for kind in (RandomRollouts, MaxVariance)
        for scope in ("group", "batch")
    ),
    MaxVariance(scope="group", keep_ratio=LinearSchedule(init=0.5), renormalise=True),  # PODS
]


@settings(max_examples=80)
@given(
    advantage=sampled_from([GroupNormalized(), LeaveOneOut(), MeanCentred(), NoAdvantage()]),
    rollout_filter=sampled_from(FILTERS),
    rewards=lists(sampled_from([None, 0.0, 0.25, 1.0]), min_size=12, max_size=12),
    cut=sets(integers(0, 11)),
    truncated=sampled_from(["score", "mask", "drop"]),
)
def test_rollouts_without_a_reward_might_as_well_not_have_been_sampled(
    advantage: Advantage,
    rollout_filter: RolloutFilter,
    rewards: list[float | None],
    cut: set[int],
    truncated: Truncated,
) -> None:
    """Batch, totals, loss weights and what a filter keeps are those of the other rollouts alone;
    three groups of four, in which a single one left has nothing to be compared with.
    """
    some = [
        replace(r, reward=rewards[r.id], group=r.id % 3, response_ids=(5,) * (1 + r.id % 2))
        for r in rollouts(*(i in cut for i in range(12)))
    ]
    some = [replace(r, sampled_logp=(-1.0,) * len(r.response_ids)) for r in some]
    own = method(advantage, truncated=truncated)
    with_reward = [r for r in some if r.reward is not None]
    size = Counter(r.group for r in with_reward)
    compared = [r for r in with_reward if size[r.group] > 1 or isinstance(advantage, NoAdvantage)]
    left, alone = (
        rollout_filter(make_batch(own, of, step=1, steps=5, seed=3)) for of in (some, compared)
    )
    for name in ("ids_BT", "kind_BT", "rollout_B", "group_B", "reward_B", "advantage_B"):
        assert torch.equal(getattr(left, name), getattr(alone, name)), name
    # a rollout that is alone in its group has a reward and was sampled
    tokens = sum(len(r.response_ids) for r in with_reward)
    totals = replace(alone.totals(), sampled_rollouts=len(with_reward), sampled_tokens=tokens)
    assert left.totals() == totals
    for aggregation in LOSS_AGGREGATIONS.values():
        weight_BT = left.is_response_BT.float()
        assert torch.equal(aggregation(weight_BT, left.totals()), aggregation(weight_BT, totals))


def test_the_numbers_of_a_step_are_over_the_rollouts_that_have_them() -> None:
    some = [
        replace(r, reward=reward, reward_parts=parts, reward_failure=failure)
        for r, reward, parts, failure in zip(
            rollouts(*[False] * 5),
            [1.0, None, None, 0.0, 0.0],
            [{"format": 0.5}, {"format": 1.0, "judge": 3.0}, {}, {}, {}],
            [None, None, "timeout", "error", None],
            strict=True,
        )
    ]
    assert own_reward_numbers(some) == {
        "rewards_missing": 2,
        "reward_errors": 2,
        "reward_timeouts": 1,
    }
    assert part_numbers(some) == {"reward/format": 0.75, "reward/judge": 3.0}
    assert part_numbers([]) == {}
    assert own_reward_numbers([]) == {
        "rewards_missing": 0,
        "reward_errors": 0,
        "reward_timeouts": 0,
    }
    assert reward_mean(some) == {"reward_mean": pytest.approx(1 / 3)}
    assert reward_mean(some[1:3]) == {}


def test_groups_without_signal_are_those_of_equal_rewards() -> None:
    def share(*rewards: float | None) -> Stats:
        some = rollouts(*[False] * len(rewards))
        return group_numbers(
            [replace(r, reward=reward) for r, reward in zip(some, rewards, strict=True)]
        )

    assert share(1.0, 1.0, 0.0, 1.0) == {"reward_zero_std_share": 0.5}
    assert share(0.1 + 0.2, 0.3, None, 1.0) == {"reward_zero_std_share": 1.0}, "rounding; one left"
    assert share(1e9, 1e9 + 10, -1.0, 1.0) == {"reward_zero_std_share": 0.0}
    assert share(None, None) == {}


def test_a_reward_that_says_nothing_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = RewardWatch()
    warned = []
    for step, share in enumerate([1, 1, 0.5, 1, 1, None, 1, 1, 1, 0, 1, 1, 1], 1):
        stats = {"reward_mean": 0.25} | ({} if share is None else {"reward_zero_std_share": share})
        watch.note(step, stats)
        warned.append(len(caplog.messages))
    assert warned == [0] * 6 + [1] * 7
    assert "equal within every group in the last 3 steps (mean 0.25 in step 7)" in caplog.text


def test_a_step_without_a_rollout_says_why() -> None:
    some = [
        replace(r, reward=None if r.id < 3 else 1.0)
        for r in rollouts(False, True, False, False, True, True)
    ]
    assert _left_out(method(GroupNormalized(), truncated="drop"), some) == (
        "none of its 6 rollouts is left (3 without a reward, 2 truncated, 1 with nothing left in "
        "their group to be compared with)"
    )
    assert _left_out(method(GroupNormalized()), some[:3]) == (
        "none of its 3 rollouts is left (3 without a reward)"
    )


def test_what_was_sampled_is_counted_whatever_is_dropped_and_progress_is_the_steps() -> None:
    """Rollouts of one token each, of which one is truncated and half of the others are kept; a
    resumed run starts at its step.
    """
    some = [
        replace(r, reward=float(r.id % 2))
        for r in rollouts(False, False, True, False, False, False)
    ]
    own = method(GroupNormalized(), truncated="drop")

    def made(step: int) -> Batch:
        return make_batch(own, some, step=step, steps=5, seed=3)

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
