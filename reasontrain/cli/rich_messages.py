"""Log messages on a terminal, printed above the progress bar if there is one."""

from __future__ import annotations

import logging

from rich.console import ConsoleRenderable
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.text import Text
from rich.traceback import Traceback

from reasontrain.run.progress import console


class RichMessageHandler(RichHandler):
    """Print only the text of a message, because rich's columns would break long paths."""

    def __init__(self) -> None:
        super().__init__(console=console(), highlighter=NullHighlighter(), markup=False)

    def render_message(self, record: logging.LogRecord, message: str) -> ConsoleRenderable:
        """The text, yellow from warnings upwards."""
        return Text(message, style="yellow" if record.levelno >= logging.WARNING else "")

    def render(
        self,
        *,
        record: logging.LogRecord,
        traceback: Traceback | None,
        message_renderable: ConsoleRenderable,
    ) -> ConsoleRenderable:
        """The text without the columns for time, level and path."""
        return message_renderable
