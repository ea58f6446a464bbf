"""What was begun is what is returned, in order or not, and whoever dies over it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from reasontrain.cluster.prefetch import PrefetchingSampler, Request
from reasontrain.cluster.roles import LearnerGroup, Restarts, SeparateSamplers
from reasontrain.data.sampling import Sampling
from reasontrain.types import LostError, Problem, Prompt, Rollout, RunError, Weights
from tests.cluster.fakes import FakeGroup

PROMPTS = [Prompt(problem=Problem(id=str(i), prompt=""), ids=(i,)) for i in range(4)]
SAMPLING, NUM = Sampling(max_tokens=3), 2
PER_STEP = len(PROMPTS) * NUM


class Worker:
    """Answers with the version of its weights as text; it dies at calls in `deadly`, once each."""

    def __init__(self, rank: int, calls: list[tuple[int, int]], deadly: set[int]) -> None:
        self.rank, self.version, self.calls, self.deadly = rank, 0, calls, deadly

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, num: int, first_id: int
    ) -> tuple[int, list[Rollout]]:
        self.calls.append((self.rank, first_id))
        if first_id in self.deadly:
            self.deadly.remove(first_id)
            raise LostError("sampler", self.rank, f"sampler {self.rank} was killed")
        ids = [
            (prompt, first_id + i * num, g) for i, prompt in enumerate(prompts) for g in range(num)
        ]
        return self.version, [
            Rollout(
                problem=p.problem,
                id=first + g,
                group=first,
                prompt_ids=p.ids,
                response_ids=(1,),
                text=str(self.version),
            )
            for p, first, g in ids
        ]


class Samplers(SeparateSamplers):
    """The line to the learner is that all workers have the version of now."""

    def _send(self) -> None:
        for actor in self.group.actors:
            actor.worker.version = self.version


class Scene:
    """Two samplers, sampling ahead over `steps` steps."""

    def __init__(self, *, steps: int = 3, restarts: int = 3, deadly: Sequence[int] = ()) -> None:
        self.calls: list[tuple[int, int]] = []
        self.deadly, self.steps = set(deadly), steps
        self.group = FakeGroup("sampler", 2, lambda rank: Worker(rank, self.calls, self.deadly))
        learners = LearnerGroup(FakeGroup("learner", 1, lambda rank: object()), None)
        self.samplers = Samplers(self.group, learners, Restarts(restarts), transfer_s=5.0)
        self.prefetching = PrefetchingSampler(self.samplers, self.after)

    def after(self, first_id: int) -> Request | None:
        step = first_id // PER_STEP + 1
        return (PROMPTS, step * PER_STEP) if step < self.steps else None

    def step(self, step: int) -> tuple[list[int], set[str]]:
        """One step's ids and the versions that made them, and an update after it."""
        rollouts = self.prefetching.sample(PROMPTS, SAMPLING, num=NUM, first_id=step * PER_STEP)
        self.prefetching.load(Weights(step + 1, lambda: iter(())))
        return [rollout.id for rollout in rollouts], {rollout.text for rollout in rollouts}


def ids(step: int) -> list[int]:
    return list(range(step * PER_STEP, (step + 1) * PER_STEP))


def test_every_step_but_the_first_is_sampled_with_the_weights_of_one_step_before() -> None:
    scene = Scene()
    assert [scene.step(step) for step in range(3)] == [
        (ids(0), {"0"}),
        (ids(1), {"0"}),
        (ids(2), {"1"}),
    ]
    assert scene.calls == [
        (0, 0),
        (1, 4),
        (0, 8),
        (1, 12),
        (0, 16),
        (1, 20),
    ]  # nothing begins after the last step


def test_what_is_asked_out_of_order_is_sampled_then() -> None:
    scene = Scene()
    scene.step(0)
    scene.step(1)
    assert scene.step(0) == (
        ids(0),
        {"2"},
    )  # as after a recovery: what was begun is of another step
    assert scene.step(1) == (ids(1), {"2"})


def test_a_sampler_that_died_over_it_is_started_again_and_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene(deadly=[12])  # sampler 1's part of step 1
    scene.step(0)
    scene.group.dead.add(1)
    assert scene.step(1) == (ids(1), {"1"})
    assert scene.group.restarted == [1]
    assert caplog.messages == ["sampler 1 was killed\nrestarting it (2 restarts left)"]
    assert scene.step(2) == (ids(2), {"1"})


def test_one_that_was_started_again_meanwhile_costs_no_second_restart() -> None:
    scene = Scene(deadly=[12])
    scene.step(0)
    assert scene.step(1) == (ids(1), {"1"})
    assert scene.group.restarted == []


def test_no_restart_left_ends_the_run() -> None:
    scene = Scene(restarts=0, deadly=[8])
    scene.step(0)
    scene.group.dead.add(0)
    with pytest.raises(RunError, match="no restart is left") as error:
        scene.step(1)
    assert not isinstance(error.value, LostError)


def test_new_weights_wait_for_the_rollouts_under_way() -> None:
    """Else the learner would wait on the line for a sampler that is busy, and give up after
    `heartbeat_s`.
    """
    scene = Scene()
    order: list[str] = []
    waited, sent = scene.group.wait, scene.samplers._send

    def wait(*given: object) -> list[object]:
        order.append("rollouts")
        return waited(*given)

    def send() -> None:
        order.append("weights")
        sent()

    scene.prefetching.sample(PROMPTS, SAMPLING, num=NUM, first_id=0)
    scene.group.wait, scene.samplers._send = wait, send
    scene.prefetching.load(Weights(1, lambda: iter(())))
    assert order == ["rollouts", "weights"]
