"""Log messages of the package reach the user of a command, once and on standard output."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console

from reasontrain.cli import messages, rich_messages
from reasontrain.run import progress

LOGGER = logging.getLogger("reasontrain.run.build")
LONG = "report: /" + "a-long-folder/" * 20 + ":x: [bold]report.html"


@contextmanager
def root_handler() -> Iterator[io.StringIO]:
    """A handler at the root, as some libraries install one."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    logging.getLogger().addHandler(handler)
    yield text
    logging.getLogger().removeHandler(handler)


def test_off_a_terminal_messages_are_plain_lines_and_warnings_are_marked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with root_handler() as elsewhere, messages.shown():
        LOGGER.info(LONG)
        LOGGER.debug("a detail")
        LOGGER.warning("2 of 9 prompts are too long and were dropped")
    out, err = capsys.readouterr()
    assert out == f"{LONG}\nwarning: 2 of 9 prompts are too long and were dropped\n"
    assert (err, elsewhere.getvalue()) == ("", "")


def test_nothing_is_left_of_the_handler_after_the_command(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match="stopped"), messages.shown():
        raise ValueError("stopped")
    LOGGER.info("later")
    assert capsys.readouterr().out == ""
    assert caplog.messages == ["later"]


def test_on_a_terminal_messages_are_whole_and_stand_above_the_bar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = io.StringIO()
    terminal = Console(
        file=screen,
        force_terminal=True,
        width=60,
        highlight=False,
        soft_wrap=True,
        color_system=None,
    )
    monkeypatch.setattr(progress, "console", lambda: terminal)
    monkeypatch.setattr(rich_messages, "console", lambda: terminal)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with messages.shown(), progress.progress("tip", 3) as advance:
        LOGGER.info(LONG)
        advance(1, "loss 0.5")
        LOGGER.warning("checkpoint step-1 is damaged")
    # the bar is erased and drawn again below each message
    lines = [line.rpartition("\x1b[2K")[2] for line in screen.getvalue().split("\n")]
    assert LONG in lines
    assert "warning: checkpoint step-1 is damaged" in lines
    assert any("tip" in line and "1/3" in line and "loss 0.5" in line for line in lines[-3:])
