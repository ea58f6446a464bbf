"""Log messages of the package as lines for the user of a command."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class MessageFormatter(logging.Formatter):
    """Format only the message, with its level from WARNING upwards.

    The beginning of a phase is shown with the time since the program's start.
    """

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if "phase" in vars(record):
            minutes, seconds = divmod(int(record.relativeCreated / 1000), 60)
            text = f"[{minutes // 60}:{minutes % 60:02}:{seconds:02}] {text}"
        return f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text


@contextmanager
def shown(*, beside_data: bool = False) -> Iterator[None]:
    """Print the package's log messages, from INFO upwards, to standard output during the block.

    With `beside_data`, standard output is for the command's result alone, and messages go to
    standard error.

    The handler is removed with the block. During the block, messages do not propagate, so that a
    handler that a library adds to the root logger cannot print them a second time.
    """
    package = logging.getLogger("reasontrain")
    level = package.level
    propagate = package.propagate
    handler = logging.StreamHandler(sys.stderr) if beside_data else _handler()
    handler.setFormatter(MessageFormatter())
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    package.propagate = False
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
        package.propagate = propagate


def _handler() -> logging.Handler:
    """A handler that prints above progress bars on a terminal, and plain lines elsewhere."""
    if not sys.stdout.isatty():
        return logging.StreamHandler(sys.stdout)
    from reasontrain.cli.rich_messages import RichMessageHandler  # importing rich takes 0.1 s

    return RichMessageHandler()
