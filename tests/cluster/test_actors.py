"""Processes of the cluster write the package's log messages into their own logs."""

from __future__ import annotations

import logging

import pytest

from reasontrain.cluster import actors


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
