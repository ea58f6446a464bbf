"""Messages of libraries: progress bars are off, and each warning becomes one line of the log."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import transformers

logger = logging.getLogger(__name__)

_LOAD_REPORT = "log_state_dict_report"
"""The function of transformers that prints its table of weights; `loading` raises it instead."""
_logged: set[str] = set()
"""Messages that this process has logged: a model is described several times in a run."""


class OneLine(logging.Handler):
    """Log each distinct warning of a library once, on one line, through this package's logger."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record of the library."""
        if record.funcName != _LOAD_REPORT:
            log_once(record.name.partition(".")[0], record.getMessage())


def quiet_libraries() -> None:
    """Turn off the progress bars of libraries, and log their warnings on one line each."""
    if not torch.cuda.is_available():
        # Otherwise DeepSpeed, if installed, warns that it found no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_warning()
    root = logging.getLogger("transformers")
    root.handlers = [OneLine(logging.WARNING)]
    # transformers turns this on where CI is set, and each warning would come twice.
    root.propagate = False


@contextmanager
def messages_of_libraries() -> Iterator[list[str]]:
    """Collect what transformers logs and what Python warns about within the block.

    Nothing of it is printed, whatever the verbosity; the caller acts on it. The table of weights
    is left out: `output_loading_info` gives its content.
    """
    messages: list[str] = []
    root = logging.getLogger("transformers")
    handlers = root.handlers
    level = root.level
    propagate = root.propagate
    root.handlers = [_Collecting(messages)]
    root.setLevel(logging.WARNING)
    root.propagate = False
    try:
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            yield messages
            messages += [str(warning.message) for warning in raised]
    finally:
        root.handlers = handlers
        root.setLevel(level)
        root.propagate = propagate


def log_once(source: str, message: str, *, level: int = logging.WARNING) -> None:
    """Log a message about a library or a model on one line, the first time in this process."""
    line = f"{source}: {' '.join(message.split())}"
    if line not in _logged:
        _logged.add(line)
        logger.log(level, line)


class _Collecting(logging.Handler):
    """Append each message to a list."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        if record.funcName != _LOAD_REPORT:
            self.messages.append(record.getMessage())
