"""Log messages of the package as lines for the user of a command."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class MessageFormatter(logging.Formatter):
    """The message alone; the level is named from warnings upwards."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text


@contextmanager
def shown() -> Iterator[None]:
    """Print what the package logs, from INFO upwards, on standard output while the block runs.

    The handler goes with the block and messages do not propagate meanwhile, so that a handler
    which a library gives the root logger cannot print them a second time.
    """
    package = logging.getLogger("reasontrain")
    level = package.level
    propagate = package.propagate
    handler = _handler()
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
    from reasontrain.cli.rich_messages import RichMessageHandler  # rich takes 0.1 s to import

    return RichMessageHandler()
