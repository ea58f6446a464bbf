"""Parts of a suite among several processes: each is sampled as it is, whoever is free takes it, and
whoever dies over it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from reasontrain.cluster.roles import Restarts
from reasontrain.cluster.work_queue import END, WorkQueue
from reasontrain.data.sampling import Sampling
from reasontrain.evaluation.generation import chunk_prompts
from reasontrain.types import LostError, Problem, Prompt, Rollout, RunError
from tests.cluster.fakes import FakeGroup

PROMPTS = [Prompt(problem=Problem(id=str(i), prompt=""), ids=(i,)) for i in range(7)]
PARTS = chunk_prompts(
    PROMPTS, Sampling(max_tokens=3), num=2, chunk_size=2
)  # of 2, 2, 2 and 1 prompts: ids from 0, 4, 8 and 12


class Worker:
    """Notes what it is asked, and dies over calls in `deadly`, once each."""

    def __init__(
        self, rank: int, calls: list[tuple[int, list[str], int]], deadly: list[int]
    ) -> None:
        self.rank, self.calls, self.deadly = rank, calls, deadly

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, num: int, first_id: int
    ) -> tuple[int, list[Rollout]]:
        self.calls.append((self.rank, [prompt.problem.id for prompt in prompts], first_id))
        if first_id in self.deadly:
            self.deadly.remove(first_id)
            raise LostError("sampler", self.rank, f"sampler {self.rank} was killed")
        return 0, [
            Rollout(
                problem=p.problem,
                id=first_id + i * num + g,
                group=0,
                prompt_ids=p.ids,
                response_ids=(1,),
            )
            for i, p in enumerate(prompts)
            for g in range(num)
        ]


class Scene:
    def __init__(self, number: int, deadly: Sequence[int] = (), restarts: int = 3) -> None:
        self.calls: list[tuple[int, list[str], int]] = []
        left = list(deadly)
        self.group = FakeGroup("sampler", number, lambda rank: Worker(rank, self.calls, left))
        self.queue = WorkQueue(self.group, Restarts(restarts, END))

    def ids(self) -> dict[int, list[int]]:
        """By part, the ids of its rollouts."""
        return {
            part.start: [rollout.id for rollout in rollouts]
            for part, rollouts in self.queue.sample(PARTS)
        }


WHOLE = {0: [0, 1, 2, 3], 2: [4, 5, 6, 7], 4: [8, 9, 10, 11], 6: [12, 13]}


@pytest.mark.parametrize("number", [1, 2, 5])
def test_every_part_is_sampled_once_and_as_it_is(number: int) -> None:
    scene = Scene(number)
    assert scene.ids() == WHOLE
    assert sorted((ids, first) for _, ids, first in scene.calls) == [
        (["0", "1"], 0), (["2", "3"], 4), (["4", "5"], 8), (["6"], 12)
    ]  # fmt: skip
    assert {rank for rank, _, _ in scene.calls} == set(range(min(number, 4)))


def test_the_part_of_one_that_died_is_sampled_again_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene(2, deadly=[4, 8])
    assert scene.ids() == WHOLE
    assert sorted(first for _, _, first in scene.calls) == [0, 4, 4, 8, 8, 12]
    assert len(scene.group.restarted) == 2
    assert caplog.messages[1].endswith("restarting it (1 restarts left)")


def test_deaths_are_bounded_and_the_last_one_says_how_to_go_on() -> None:
    scene = Scene(2, deadly=[4] * 9, restarts=2)
    with pytest.raises(
        RunError,
        match=r"sampler \d was killed\nno restart is left; .* the same command resumes",
    ):
        scene.ids()
    assert len(scene.group.restarted) == 2
