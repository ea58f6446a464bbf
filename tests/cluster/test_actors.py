"""Processes of the cluster write the package's log messages into their own logs."""

from __future__ import annotations

import logging

import pytest

from reasontrain.cluster import actors
from reasontrain.types import EngineLostError, RunError


def test_messages_of_a_process_stand_in_its_log_with_time_and_level(
    capsys: pytest.CaptureFixture[str],
) -> None:
    package = logging.getLogger("reasontrain")
    handlers, level = list(package.handlers), package.level
    try:
        actors._log_to_stderr()
        logging.getLogger("reasontrain.learner.factory").info("models loaded")
        logging.getLogger("reasontrain.learner.factory").debug("a detail")
    finally:
        package.handlers[:] = handlers
        package.setLevel(level)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(" INFO models loaded")
    assert line[:2] == "20"


@pytest.mark.parametrize(("error", "ends"), [(EngineLostError, True), (RunError, False)])
def test_a_process_ends_with_its_engine(
    monkeypatch: pytest.MonkeyPatch, error: type[RunError], ends: bool
) -> None:
    """So it is restarted as one that was killed; every other error is the run's."""
    ended: list[bool] = []
    monkeypatch.setattr(actors, "end_process", lambda: ended.append(True))

    class Sampling(actors.Worker):
        def __init__(self) -> None: ...

        @actors.work
        def sample(self) -> None:
            raise error("a process of vLLM died while sampling")

    worker = Sampling()
    with pytest.raises(error):
        worker.sample()
    assert ended == [True] * ends
    assert worker.work_s > 0


def test_every_call_that_reaches_an_engine_is_work() -> None:
    for method in (
        actors.SamplingWorker.sample,
        actors.SamplerWorker.receive,
        actors.LearnerRank.load,
        actors.LearnerRank.observe,
        actors.LearnerRank.step,
    ):
        assert method.__wrapped__
