"""Commands run in this process and share the processes that grade."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.graders import IdleWorkers


@pytest.fixture(autouse=True)
def _shared_graders(idle_workers: IdleWorkers) -> Iterator[None]:
    with idle_workers.shared():
        yield
