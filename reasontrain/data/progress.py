"""Log lines about long work on data before the first step."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

logger = logging.getLogger(__name__)
T = TypeVar("T")

EVERY_S = 10.0
"""Seconds of wall time between two lines; shorter work logs none."""


def with_progress(items: Sequence[T], done: str) -> Iterator[T]:
    """Iterate over items and log how many are done, as in "3000 of 10000 rows read"."""
    last = time.monotonic()
    for index, item in enumerate(items):
        if time.monotonic() - last >= EVERY_S:
            logger.info(f"{index} of {len(items)} {done}")
            last = time.monotonic()
        yield item
