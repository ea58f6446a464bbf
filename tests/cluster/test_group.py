"""Every death is a sentence: who, where, why, and the last words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import torch
from ray.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
)

from reasontrain.cluster import group as module
from reasontrain.cluster.actors import Worker
from reasontrain.cluster.group import LOG_LINES, ActorGroup
from reasontrain.types import LostError, RunError, UserError

KILLED = (
    "Worker unexpectedly exits. (1) The process is killed by SIGKILL by OOM killer due to high "
    "memory usage."
)
NAME = "learner 1 on far (process 12)"


def died(text: str) -> RayActorError:
    return RayActorError("aa", f"The actor died unexpectedly before finishing this task.\n{text}")


def raised(cause: Exception) -> RayTaskError:
    return RayTaskError("step", "Traceback ...", cause)


class Ray:
    """Answers of calls, by reference; None never comes.

    An exception is raised where it is asked for.
    """

    ObjectRef = ray.ObjectRef

    def __init__(self) -> None:
        self.answers: dict[ray.ObjectRef, object] = {}

    def ref(self, answer: object) -> ray.ObjectRef:
        ref = ray.ObjectRef.from_random()
        self.answers[ref] = answer
        return ref

    def wait(
        self, refs: list[ray.ObjectRef], *, num_returns: int, timeout: float
    ) -> tuple[list, list]:
        return [r for r in refs if self.answers[r] is not None], [
            r for r in refs if self.answers[r] is None
        ]

    def get(self, ref: ray.ObjectRef, timeout: float | None = None) -> object:
        answer = self.answers[ref]
        if answer is None:
            raise GetTimeoutError
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Ray:
    known = Ray()
    for name in ("wait", "get"):
        monkeypatch.setattr(module.ray, name, getattr(known, name))
    return known


@pytest.fixture
def learners(fake: Ray, tmp_path: Path) -> Callable[..., ActorGroup]:
    """Two ranks; `pings` is what each answers to a ping."""

    def make(*pings: object, deadline_s: float = 5.0, heartbeat_s: float = 5.0) -> ActorGroup:
        group = ActorGroup(
            "learner", Worker, [], tmp_path, deadline_s=deadline_s, heartbeat_s=heartbeat_s
        )
        ping = [
            SimpleNamespace(remote=lambda answer=answer: fake.ref(answer))
            for answer in pings or ("yes", "yes")
        ]
        group.actors = [SimpleNamespace(ping=p) for p in ping]
        group.about = [{"host": "near", "pid": "11"}, {"host": "far", "pid": "12"}]
        return group

    return make


def fault(group: ActorGroup, fake: Ray, *answers: object) -> Exception:
    with pytest.raises(Exception) as error:  # noqa: PT011 - which one it is, is what the tests are about
        group.wait([fake.ref(answer) for answer in answers])
    return error.value


def test_answers_come_by_rank(learners: Callable[..., ActorGroup], fake: Ray) -> None:
    assert learners().wait([fake.ref("a"), fake.ref("b")]) == ["a", "b"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            OutOfMemoryError("Task was killed due to the node running low on memory."),
            "its machine ran out of memory",
        ),
        (died(KILLED), "was killed or crashed (signal 9"),
        (died("The actor is dead because its node has died. Node Id: 4"), "died with its node"),
        (RayActorError("aa", "it was cancelled\nmore"), "died: it was cancelled"),
    ],
)
def test_a_death_has_its_reason(
    learners: Callable[..., ActorGroup], fake: Ray, error: Exception, reason: str
) -> None:
    found = fault(learners(), fake, "a", error)
    assert isinstance(found, LostError)
    assert (found.role, found.rank) == ("learner", 1)
    assert str(found).startswith(NAME)
    assert reason in str(found)


def test_a_death_has_its_last_words(
    learners: Callable[..., ActorGroup], fake: Ray, tmp_path: Path
) -> None:
    lines = [f"line {i}" for i in range(LOG_LINES + 3)]
    (tmp_path / "learner-1.log").write_text("\n".join(lines) + "\n")
    end = f"; the end of {tmp_path / 'learner-1.log'}:\n  " + "\n  ".join(lines[-LOG_LINES:])
    assert str(fault(learners(), fake, "a", died(KILLED))).endswith(end)
    (tmp_path / "learner-1.log").write_text("")
    assert str(fault(learners(), fake, "a", died(KILLED))).endswith("learner-1.log is empty")


def test_an_error_of_one_ends_the_wait_for_all(
    learners: Callable[..., ActorGroup], fake: Ray
) -> None:
    assert "was killed" in str(fault(learners(), fake, None, died(KILLED)))


def test_who_does_not_answer_in_time_is_named(
    learners: Callable[..., ActorGroup], fake: Ray
) -> None:
    found = fault(learners(deadline_s=0.0), fake, "a", None)
    assert isinstance(found, LostError)
    assert str(found) == f"{NAME} made no progress within cluster.deadline_s = 0 s"


@pytest.mark.parametrize("advances", [True, False])
def test_a_slow_call_is_waited_for_as_long_as_it_makes_progress(
    learners: Callable[..., ActorGroup],
    fake: Ray,
    monkeypatch: pytest.MonkeyPatch,
    advances: bool,
) -> None:
    """A second passes whenever the clock is read. The evaluation ends after twenty heartbeats, four
    times the deadline; one that is stuck answers heartbeats too.
    """
    seconds = iter(range(10_000))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    group = learners(deadline_s=5.0, heartbeat_s=0.0)
    slow = fake.ref(None)
    tokens = 0

    def ping() -> ray.ObjectRef:
        nonlocal tokens
        tokens += 1
        if tokens == 20:
            fake.answers[slow] = "rollouts"
        return fake.ref(("sampling", tokens if advances else 7))

    group.actors[1].ping = SimpleNamespace(remote=ping)
    if advances:
        assert group.wait([slow], [1]) == ["rollouts"]
        assert next(seconds) > 20
    else:
        with pytest.raises(LostError, match="made no progress within") as error:
            group.wait([slow], [1])
        assert error.value.rank == 1


def test_who_is_silent_is_named(learners: Callable[..., ActorGroup], fake: Ray) -> None:
    found = fault(learners("yes", None, heartbeat_s=0.0), fake, None, None)
    assert isinstance(found, LostError)
    assert str(found) == f"{NAME} gave no sign of life for cluster.heartbeat_s = 0 s"


def test_what_a_rank_raised_is_raised_as_in_one_process(
    learners: Callable[..., ActorGroup], fake: Ray
) -> None:
    mistake, stop = UserError("no such model"), RunError("vLLM ended")
    assert fault(learners(), fake, "a", raised(mistake)) is mistake
    assert fault(learners(), fake, "a", raised(stop)) is stop


def test_an_error_of_ours_and_a_full_gpu_are_no_death(
    learners: Callable[..., ActorGroup], fake: Ray
) -> None:
    for error, text in [
        (KeyError("x"), f"{NAME} failed: KeyError: 'x'"),
        (
            torch.OutOfMemoryError("CUDA"),
            f"{NAME} ran out of GPU memory; lower learn.micro_batch_tokens",
        ),
    ]:
        found = fault(learners(), fake, "a", raised(error))
        assert type(found) is RunError
        assert str(found).startswith(text)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[/third_party/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"
        ),
        RuntimeError(
            "[/third_party/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting "
            "60000ms for send"
        ),
        torch.distributed.DistNetworkError(
            "The client socket has timed out after 60000ms while trying to reach (a, 1)."
        ),
    ],
)
def test_the_dead_are_named_and_not_who_missed_them(
    learners: Callable[..., ActorGroup], fake: Ray, error: Exception
) -> None:
    """The survivor's error comes first; where nobody died, it is the survivor that is started
    again.
    """
    found = fault(learners("yes", died(KILLED)), fake, raised(error), None)
    assert isinstance(found, LostError)
    assert (found.rank, str(found).startswith(f"{NAME} was killed")) == (1, True)
    found = fault(learners("yes", "yes"), fake, raised(error), None)
    assert isinstance(found, LostError)
    assert found.rank == 0


def test_a_process_that_cannot_start_says_what_it_raised(
    learners: Callable[..., ActorGroup], fake: Ray
) -> None:
    """Its constructor raised, and would again: no restart is spent on it."""
    text = (
        "ray::TeacherWorker.__init__() (pid=1)\n  File x\nreasontrain.types.UserError: x is no "
        "model: no config.json\n"
    )
    error = ActorDiedError(RayTaskError("__init__", text, ValueError(), actor_id="aa"))
    found = fault(learners(), fake, "a", error)
    assert type(found) is RunError
    assert (
        str(found)
        == f"{NAME} could not start: reasontrain.types.UserError: x is no model: no config.json"
    )
