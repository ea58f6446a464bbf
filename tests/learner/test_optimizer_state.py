"""Optimiser state in files: what any division of a parameter has written, any other reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reasontrain.learner import optimizer_state
from reasontrain.learner.optimizer_state import HeldFragment, StateFiles
from reasontrain.types import UserError

SIZE = 10
LEAD = 3
"""Elements of another parameter that stand before the fragment in the tensor that holds both."""


def fragment(start: int, numel: int, *, filled: bool) -> HeldFragment:
    """Elements `start` to `start + numel` of a parameter w, inside of a longer flat tensor."""
    held = torch.full((LEAD + numel,), -1.0)
    state: dict[str, torch.Tensor] = {}
    if filled:
        elements = torch.arange(start, start + numel, dtype=torch.float32)
        held[LEAD:] = elements
        lead = torch.full((LEAD,), -1.0)
        state = {
            "exp_avg": torch.cat([lead, 100 + elements]),
            "exp_avg_sq": torch.cat([lead, 200 + elements]),
            "step": torch.tensor(7.0),
            "scale": torch.tensor([1.0, 2.0]),  # of the optimiser, not of the elements
        }
    return HeldFragment(name="w", start=start, numel=numel, held=held, offset=LEAD, state=state)


def written(directory: Path, parts: list[tuple[int, int]], *, filled: bool = True) -> Path:
    for rank, (start, numel) in enumerate(parts):
        optimizer_state.write(directory, rank, [fragment(start, numel, filled=filled)])
    return directory


@pytest.mark.parametrize("parts", [[(0, 10)], [(0, 4), (4, 6)], [(0, 1), (1, 1), (2, 8)]])
@pytest.mark.parametrize("readers", [[(0, 10)], [(0, 7), (7, 3)]])
def test_every_division_reads_every_other(
    tmp_path: Path, parts: list[tuple[int, int]], readers: list[tuple[int, int]]
) -> None:
    directory = written(tmp_path, parts)
    for start, numel in readers:
        reader = fragment(start, numel, filled=False)
        optimizer_state.load(directory, iter([reader]), {"w": SIZE})
        elements = torch.arange(start, start + numel, dtype=torch.float32)
        assert torch.equal(reader.held[LEAD:], elements)
        assert torch.equal(reader.state["exp_avg"][LEAD:], 100 + elements)
        assert torch.equal(reader.state["exp_avg_sq"][LEAD:], 200 + elements)
        assert set(reader.state) == {"exp_avg", "exp_avg_sq", "step"}
        assert reader.state["step"] == 7
        # what stands before it in memory is another parameter's
        assert torch.equal(reader.held[:LEAD], torch.full((LEAD,), -1.0))
        assert torch.equal(reader.state["exp_avg"][:LEAD], torch.zeros(LEAD))


def test_a_checkpoint_before_the_first_step_empties_the_state(tmp_path: Path) -> None:
    written(tmp_path, [(0, 10)], filled=False)
    reader = fragment(0, 10, filled=True)
    reader.load(StateFiles(tmp_path))
    assert reader.state == {}
    assert torch.equal(reader.held[LEAD:], torch.full((SIZE,), -1.0))


def test_large_states_are_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer_state, "PART_BYTES", 1)
    optimizer_state.write(tmp_path, 0, [fragment(0, 4, filled=True), fragment(4, 6, filled=True)])
    assert len(list((tmp_path / optimizer_state.FOLDER).iterdir())) == 2
    reader = fragment(0, 10, filled=False)
    optimizer_state.load(tmp_path, iter([reader]), {"w": SIZE})
    assert torch.equal(reader.held[LEAD:], torch.arange(SIZE, dtype=torch.float32))


def test_another_models_checkpoint_is_named(tmp_path: Path) -> None:
    written(tmp_path, [(0, 10)])
    with pytest.raises(UserError, match=r"another model.*v \(no elements, here 3\)"):
        optimizer_state.load(tmp_path, iter([]), {"w": SIZE, "v": 3})
    with pytest.raises(UserError, match=r"w \(10 elements, here 9\)"):
        optimizer_state.load(tmp_path, iter([]), {"w": 9})


def test_a_file_that_is_gone_is_no_silent_zero(tmp_path: Path) -> None:
    written(tmp_path, [(0, 4), (4, 6)])
    next((tmp_path / optimizer_state.FOLDER).glob("rank-00001*")).unlink()
    with pytest.raises(UserError, match=r"w \(4 elements, here 10\)"):
        optimizer_state.load(tmp_path, iter([]), {"w": SIZE})
    with pytest.raises(AssertionError, match="4 of 10 elements are in the files"):
        StateFiles(tmp_path).read("w", "weight", 0, SIZE)


def test_the_step_lies_with_the_weights(tmp_path: Path) -> None:
    """The fused AdamW of a GPU adds to it there."""
    written(tmp_path, [(0, SIZE)])
    reader = replace(fragment(0, SIZE, filled=False), held=torch.empty(LEAD + SIZE, device="meta"))
    optimizer_state.load(tmp_path, iter([reader]), {"w": SIZE})
    assert reader.state["step"].device.type == "meta"
    assert reader.state["exp_avg"].device.type == "meta"
