"""Groups answer as one learner, one sampler and one grader would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers

from reasontrain.algo.loss_aggregation import token_mean
from reasontrain.algo.objectives import Nll
from reasontrain.cluster import roles
from reasontrain.cluster.roles import (
    GraderGroup,
    LearnerGroup,
    Restarts,
    SamplerGroup,
    SeparateSamplers,
)
from reasontrain.cluster.weight_transfer import TransferAbortedError
from reasontrain.data.sampling import Sampling
from reasontrain.sampler.local import LocalSampler
from reasontrain.tasks.grading import AnswerFormat, GradeRequest, Verdict
from reasontrain.tasks.own_reward import Call, Outcome, RewardFile
from reasontrain.types import (
    Batch,
    LostError,
    Problem,
    Prompt,
    Rollout,
    RunError,
    Stats,
    Weights,
)
from tests import tiny
from tests.cluster.fakes import FakeGroup

SAMPLING = Sampling(max_tokens=4)
POLICY = tiny.policy()


class SampleWorker:
    """What a `SamplingWorker` does."""

    def __init__(self) -> None:
        self.sampler = LocalSampler(POLICY, seed=3, max_num_seqs=8)

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, num: int, first_id: int
    ) -> tuple[int, list[Rollout]]:
        return 0, self.sampler.sample(prompts, sampling, num=num, first_id=first_id)


class GradeWorker:
    """Finds right whatever is equal, and dies over what is deadly."""

    def __init__(self, rank: int, deadly: list[str]) -> None:
        self.rank, self.deadly = rank, deadly

    def grade_many(
        self, requests: Sequence[GradeRequest], answer_format: AnswerFormat
    ) -> list[Verdict]:
        assert answer_format == "any"
        if self.deadly and any(self.deadly[0] == request.text for request in requests):
            self.deadly.pop()
            raise LostError("grader", self.rank, f"grader {self.rank} was killed")
        return [verdict(request.text) for request in requests]

    def own_rewards(
        self, file: RewardFile, calls: Sequence[Call], stop_at_failure: bool
    ) -> list[Outcome | None]:
        assert (file.function, stop_at_failure) == ("score", True)
        if self.deadly and any(self.deadly[0] == text for _, text, _ in calls):
            self.deadly.pop()
            raise LostError("grader", self.rank, f"grader {self.rank} was killed")
        return [Outcome(reward=float(text)) for _, text, _ in calls]


class Rank:
    """A learner's rank that fails as it is told."""

    def __init__(self, error: RunError | None) -> None:
        self.error = error

    def step(self, *_: object) -> Stats:
        if self.error is not None:
            raise self.error
        return {"loss": 1.0}

    def steps_done(self) -> int:
        return 0


def numbered(num: int) -> Iterator[GradeRequest]:
    return (GradeRequest("gold", str(i)) for i in range(num))


def verdict(answer: str) -> Verdict:
    return Verdict(correct=True, extracted=answer, reason="exact")


@given(num_prompts=integers(1, 7), num_samplers=integers(1, 4), num=integers(1, 2))
def test_samplers_side_by_side_give_what_one_gives(
    num_prompts: int, num_samplers: int, num: int
) -> None:
    """Ids, groups, tokens and their order; also where there are fewer prompts than samplers."""
    prompts = [
        Prompt(problem=Problem(id=str(i), prompt=""), ids=(5 + i, 6, 7)) for i in range(num_prompts)
    ]
    group = SamplerGroup(FakeGroup("sampler", num_samplers, lambda rank: SampleWorker()))
    alone = LocalSampler(POLICY, seed=3, max_num_seqs=8).sample(
        prompts, SAMPLING, num=num, first_id=40
    )
    together = group.sample(prompts, SAMPLING, num=num, first_id=40)
    facts = [
        [(r.id, r.group, r.problem.id, r.response_ids) for r in rollouts]
        for rollouts in (alone, together)
    ]
    assert facts[0] == facts[1]


@given(num_pairs=integers(0, 9), num_graders=integers(1, 4))
def test_graders_side_by_side_keep_the_order(num_pairs: int, num_graders: int) -> None:
    group = FakeGroup("grader", num_graders, lambda rank: GradeWorker(rank, []))
    graders = GraderGroup(group, Restarts(0))
    assert graders.grade_many(numbered(num_pairs), answer_format="any") == [
        verdict(str(i)) for i in range(num_pairs)
    ]


def test_graders_share_the_calls_of_an_own_reward_and_keep_the_order() -> None:
    """A grader that dies is restarted, and its part of the calls made again."""
    deadly = ["4"]
    group = FakeGroup("grader", 3, lambda rank: GradeWorker(rank, deadly))
    file = RewardFile(path="own.py", source=b"", function="score", timeout_s=1.0, workers=1)
    calls: list[Call] = [({}, str(i), {}) for i in range(7)]
    graders = GraderGroup(group, Restarts(1))
    outcomes = graders.own_rewards(file, calls, stop_at_failure=True)
    assert outcomes == [Outcome(reward=float(i)) for i in range(7)]
    assert group.restarted == [1]


def test_a_grader_that_dies_is_started_again_and_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    deadly = ["4"]
    group = FakeGroup("grader", 3, lambda rank: GradeWorker(rank, deadly))
    found = GraderGroup(group, Restarts(1)).grade_many(numbered(6), answer_format="any")
    assert found == [verdict(str(i)) for i in range(6)]
    assert (group.restarted, caplog.messages) == (
        [1],
        ["grader 1 was killed\nrestarting it (0 restarts left)"],
    )


def test_who_dies_while_it_starts_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    deadly = ["4"]
    group = FakeGroup("grader", 3, lambda rank: GradeWorker(rank, deadly))
    group.still_births = 1
    graders = GraderGroup(group, Restarts(2))
    assert len(graders.grade_many(numbered(6), answer_format="any")) == 6
    assert group.restarted == [1]
    assert (
        caplog.messages[1]
        == "grader 1 was killed while it started\nrestarting it (0 restarts left)"
    )


def test_restarts_are_counted_over_all_roles(caplog: pytest.LogCaptureFixture) -> None:
    restarts = Restarts(2)
    restarts.take(LostError("sampler", 0, "sampler 0 died"))
    restarts.take(LostError("learner", 1, "learner 1 died"))
    assert caplog.messages == [
        "sampler 0 died\nrestarting it (1 restarts left)",
        "learner 1 died\nrestarting it (0 restarts left)",
    ]
    with pytest.raises(RunError) as error:
        restarts.take(LostError("grader", 0, "grader 0 died"))
    assert not isinstance(error.value, LostError)  # or the loop would start it again
    assert str(error.value) == (
        "grader 0 died\nno restart is left (cluster.max_restarts); the same command goes "
        "on from the last checkpoint"
    )


@pytest.fixture
def batch(monkeypatch: pytest.MonkeyPatch) -> Batch:
    """A batch, and an object store that is none."""
    monkeypatch.setattr(roles.ray, "put", lambda value: value)
    return tiny.batch()


def step(learner: LearnerGroup, batch: Batch) -> Stats:
    return learner.step(batch, torch.ones(batch.ids_BT.shape), Nll(), token_mean)


def group_of(*errors: RunError | None) -> FakeGroup:
    """Learner ranks of which some fail; an error of a call is met when it is waited for."""
    return FakeGroup("learner", len(errors), lambda rank: Rank(errors[rank]))


def test_a_step_counts_once_it_is_taken(batch: Batch) -> None:
    learner = LearnerGroup(group_of(None, None), None)
    assert step(learner, batch) == {"loss": 1.0}
    assert learner.weights().version == 1


@pytest.mark.parametrize(("others", "steps_done"), [([], 0), ([None], None)])
def test_ranks_of_which_one_failed_hold_no_step_that_could_be_saved(
    batch: Batch, others: list[None], steps_done: int | None
) -> None:
    """The others may wait for it inside of the step, so that a save would wait for them until the
    deadline. A single rank says itself which step its weights are of.
    """
    learner = LearnerGroup(group_of(RunError("no memory"), *others), None)
    with pytest.raises(RunError, match="no memory"):
        step(learner, batch)
    assert learner.steps_done == steps_done


def test_a_teacher_that_died_is_named_in_place_of_the_rank_that_missed_it(batch: Batch) -> None:
    teachers = FakeGroup("teacher", 2, lambda rank: object())
    learner = LearnerGroup(
        group_of(LostError("learner", 0, "learner 0 lost another process")), teachers
    )
    with pytest.raises(LostError, match="learner 0 lost"):
        step(learner, batch)
    teachers.dead.add(1)
    with pytest.raises(LostError, match="teacher 1 was killed") as error:
        step(learner, batch)
    assert (error.value.role, error.value.rank) == ("teacher", 1)


def test_only_teachers_that_died_are_started_again_with_the_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teachers = FakeGroup("teacher", 3, lambda rank: object())
    learner = LearnerGroup(group_of(None, None), teachers)
    monkeypatch.setattr(learner, "build", lambda: None)
    teachers.dead.add(2)
    learner.rebuild()
    assert (teachers.restarted, learner.group.restarted) == ([2], [0, 1])


class Line:
    """The ends of a broadcast group, which fail as `failing` says, once each."""

    def __init__(self, failing: dict[str, RunError]) -> None:
        self.failing = failing
        self.events: list[str] = []

    def meet(self, event: str) -> None:
        self.events.append(event)
        error = self.failing.pop(event, None)
        if error is not None:
            raise error


class SendingRank:
    def __init__(self, line: Line) -> None:
        self.line = line

    def slots(self) -> list[object]:
        return []

    def listen(self, host: str, num_samplers: int, timeout_s: float) -> int:
        assert (num_samplers, timeout_s) == (2, 7.0)
        self.line.meet("listen")
        return 1

    def send(self) -> str:
        self.line.meet("send")
        return "checksum"

    def cancel_transfer(self) -> None:
        self.line.meet("cancel")


class ReceivingSampler:
    def __init__(self, line: Line, rank: int) -> None:
        self.line = line
        self.rank = rank

    def connect(self, host: str, port: int, rank: int, size: int, timeout_s: float) -> None:
        assert (rank, size, timeout_s) == (1 + self.rank, 3, 7.0)

    def receive(self, version: int, slots: object) -> str:
        self.line.meet(f"receive {self.rank}: {version}")
        return "checksum"


def samplers_on(line: Line, monkeypatch: pytest.MonkeyPatch) -> SeparateSamplers:
    monkeypatch.setattr(roles.ray, "put", lambda value: value)
    learner = LearnerGroup(FakeGroup("learner", 1, lambda rank: SendingRank(line)), None)
    group = FakeGroup("sampler", 2, lambda rank: ReceivingSampler(line, rank))
    return SeparateSamplers(group, learner, Restarts(1), transfer_s=7.0)


TRANSFER = ["send", "receive 0: 4", "receive 1: 4"]
LOST = {
    "killed while it receives": {"receive 1: 4": LostError("sampler", 1, "sampler 1 was killed")},
    "named by the sender": {"send": LostError("sampler", 1, "sampler 1 did not confirm")},
    "seen by another sampler": {
        "send": LostError("sampler", 1, "sampler 1 did not confirm"),
        "receive 0: 4": TransferAbortedError("given up at another end"),
        "receive 1: 4": TransferAbortedError("given up at another end"),
    },
}


@pytest.mark.parametrize("failing", LOST.values(), ids=LOST)
def test_a_sampler_lost_in_a_transfer_is_replaced_and_the_transfer_repeated_in_order(
    monkeypatch: pytest.MonkeyPatch, failing: dict[str, RunError]
) -> None:
    """The learner's call has ended before a new group is opened: it is never in two transfers."""
    line = Line(dict(failing))
    samplers = samplers_on(line, monkeypatch)
    samplers.load(Weights(4, lambda: iter(())))
    assert line.events == ["listen", *TRANSFER, "cancel", "listen", *TRANSFER]
    assert samplers.group.restarted == [1]
    assert samplers.learners.group.restarted == []


@pytest.mark.parametrize(
    ("failing", "message"),
    [
        (
            {
                "send": LostError("learner", 0, "learner 0 was killed"),
                "receive 1: 4": LostError("sampler", 1, "sampler 1 lost its connection"),
            },
            "learner 0 was killed",  # for which the sampler is not to blame
        ),
        ({"receive 0: 4": RunError("vLLM does not accept the weights")}, "vLLM does not accept"),
    ],
)
def test_a_dead_learner_or_refused_weights_replace_no_sampler(
    monkeypatch: pytest.MonkeyPatch, failing: dict[str, RunError], message: str
) -> None:
    line = Line(failing)
    samplers = samplers_on(line, monkeypatch)
    with pytest.raises(RunError, match=message):
        samplers.load(Weights(4, lambda: iter(())))
    assert line.events == ["listen", *TRANSFER, "cancel"]
    assert samplers.group.restarted == []


def test_a_line_leads_over_loopback_only_on_one_machine() -> None:
    learner, samplers = (
        LearnerGroup(group_of(None), None),
        FakeGroup("sampler", 2, lambda rank: object()),
    )
    assert learner.host(samplers) == "127.0.0.1"
    samplers.about[1]["host"] = "there"
    assert (learner.host(), learner.host(samplers)) == ("127.0.0.1", "10.0.0.1")
