"""The garbage collector and what a run holds from its start to its end."""

from __future__ import annotations

import gc

from reasontrain.run import loop


def test_objects_of_the_start_are_spared_until_the_run_ends() -> None:
    held = [[number] for number in range(1000)]
    with loop._objects_of_the_start_uncollected():
        assert gc.get_freeze_count() > len(held)
        assert not any(one is held for one in gc.get_objects())
    assert gc.get_freeze_count() == 0
    assert any(one is held for one in gc.get_objects())
