"""Weights and optimiser state in a checkpoint, by name and place in the parameter.

Every rank writes the fragments that it holds, and reads those that it needs, so that any number of
ranks at any ZeRO stage, or one process, resumes what any other has written. DeepSpeed's universal
checkpoints do less: they know neither stage 0 nor plain PyTorch, give all parameter groups the
settings of the first at stage 3, which decays norms and biases, and rewrite the whole state first.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from reasontrain.types import UserError

FOLDER = "state"
LAYOUT_FILE = "layout.json"
WEIGHT = "weight"
STEP = "step"
FRAGMENTS = "fragments"
NUM_SHOWN = 3
PART_BYTES = 1 << 30
"""Size at which a rank starts another file, so that it never holds a second copy of its state."""


FragmentPlace = tuple[int, float | None]
"""First element of a fragment in its parameter, and the optimiser steps it has taken."""


class RankLayout(TypedDict):
    """The division of the learner that wrote a checkpoint; `stage` is None for plain PyTorch."""

    num_ranks: int
    stage: int | None


@dataclass(frozen=True, kw_only=True)
class HeldFragment:
    """A fragment of a parameter with the optimiser's state of it, as an engine holds them.

    Attributes:
        name: name of the parameter.
        start: first element of the fragment in the flattened parameter.
        numel: number of its elements.
        held: the float32 tensor that the optimiser moves, of which the fragment is a part.
        offset: first element of the fragment in the flattened `held`.
        state: the optimiser's state of `held`, which is empty before the first step.
    """

    name: str
    start: int
    numel: int
    held: Tensor
    offset: int
    state: MutableMapping[str, Tensor]

    def views(self) -> dict[str, Tensor]:
        """Weight and moments of the fragment, flat, in the memory of the engine."""
        moments = {
            key: value
            for key, value in self.state.items()
            if key != STEP and value.numel() == self.held.numel()
        }
        return {key: self._view(value) for key, value in {WEIGHT: self.held, **moments}.items()}

    def _view(self, tensor: Tensor) -> Tensor:
        return tensor.detach().view(-1).narrow(0, self.offset, self.numel)

    @torch.no_grad()
    def load(self, files: StateFiles) -> None:
        """Read weight, moments and step of the fragment."""
        moments = files.keys(self.name) - {WEIGHT}
        if not moments:
            self.state.clear()  # no step was taken before the checkpoint
        for key in moments - self.state.keys():
            self.state[key] = torch.zeros_like(self.held)
        for key in {WEIGHT, *moments}:
            tensor = self.held if key == WEIGHT else self.state[key]
            self._view(tensor).copy_(files.read(self.name, key, self.start, self.numel))
        step = files.step(self.name)
        if step is not None:
            # With the weights, as the fused AdamW keeps it; ranks of a flat group share one.
            self.state[STEP] = torch.tensor(step, dtype=torch.float32, device=self.held.device)


def write(directory: Path, rank: int, fragments: Iterable[HeldFragment]) -> None:
    """Write the fragments of one rank to `<directory>/state`."""
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    tensors: dict[str, Tensor] = {}
    places: dict[str, FragmentPlace] = {}
    number = 0
    for fragment in fragments:
        views = fragment.views()
        tensors |= {f"{fragment.name}|{key}": value.cpu().clone() for key, value in views.items()}
        step = fragment.state.get(STEP)
        places[fragment.name] = (fragment.start, None if step is None else float(step))
        if sum(tensor.nbytes for tensor in tensors.values()) >= PART_BYTES:
            _write_part(folder, rank, number, tensors, places)
            tensors = {}
            places = {}
            number += 1
    if tensors:
        _write_part(folder, rank, number, tensors, places)


def _write_part(
    folder: Path,
    rank: int,
    number: int,
    tensors: Mapping[str, Tensor],
    places: Mapping[str, FragmentPlace],
) -> None:
    path = folder / f"rank-{rank:05d}-{number:03d}.safetensors"
    save_file(dict(tensors), path, metadata={FRAGMENTS: json.dumps(places)})


def write_layout(directory: Path, layout: RankLayout, progress: Mapping[str, int]) -> None:
    """Record who wrote a checkpoint, and the learner's counters."""
    text = json.dumps({"layout": layout, "progress": progress}, indent=1)
    (directory / LAYOUT_FILE).write_text(text, encoding="utf-8")


def read_layout(directory: Path) -> tuple[RankLayout, dict[str, int]]:
    """The content that `write_layout` wrote.

    Raises UserError for a directory that is no checkpoint of this version.
    """
    path = directory / LAYOUT_FILE
    if not path.exists():
        raise UserError(
            f"{directory} has no {LAYOUT_FILE}, so it is no checkpoint that this version resumes "
            f"from; start a new run with it as model.path"
        )
    content = json.loads(path.read_text(encoding="utf-8"))
    layout: RankLayout = content["layout"]
    return layout, content["progress"]


def described(layout: RankLayout) -> str:
    """A layout in words."""
    if layout["stage"] is None:
        return "one process without ZeRO"
    ranks = "1 rank" if layout["num_ranks"] == 1 else f"{layout['num_ranks']} ranks"
    return f"{ranks} at ZeRO stage {layout['stage']}"


@dataclass(frozen=True)
class _StoredFragment:
    """A fragment in a file."""

    path: Path
    start: int
    step: float | None
    numel: Mapping[str, int]


class StateFiles:
    """The fragments that all ranks have written."""

    def __init__(self, directory: Path) -> None:
        """Read the headers of all files."""
        self.directory = directory
        self._fragments = defaultdict[str, list[_StoredFragment]](list)
        self._files: dict[Path, safe_open] = {}
        for path in sorted((directory / FOLDER).glob("rank-*.safetensors")):
            self._index(path)

    def _index(self, path: Path) -> None:
        file = self._files[path] = safe_open(path, framework="pt")
        sizes = defaultdict[str, dict[str, int]](dict)
        for entry in file.keys():  # noqa: SIM118, it is no mapping
            name, _, key = entry.rpartition("|")
            (sizes[name][key],) = file.get_slice(entry).get_shape()
        for name, (start, step) in json.loads(file.metadata()[FRAGMENTS]).items():
            self._fragments[name].append(_StoredFragment(path, start, step, sizes[name]))

    def check(self, sizes: Mapping[str, int]) -> None:
        """Raise UserError unless exactly these parameters are stored, with these sizes."""
        stored = {
            name: sum(fragment.numel[WEIGHT] for fragment in fragments)
            for name, fragments in self._fragments.items()
        }
        differing = sorted(
            name for name in {*stored, *sizes} if stored.get(name) != sizes.get(name)
        )
        if differing:
            shown = ", ".join(
                f"{name} ({stored.get(name, 'no')} elements, here {sizes.get(name, 'none')})"
                for name in differing[:NUM_SHOWN]
            )
            more = f" and {len(differing) - NUM_SHOWN} more" if len(differing) > NUM_SHOWN else ""
            raise UserError(
                f"{self.directory} is of another model or of other adapters: {shown}{more}; start "
                f"a new run with it as model.path"
            )

    def keys(self, name: str) -> set[str]:
        """The stored parts of a parameter: its weight, and the names of its moments."""
        return {key for fragment in self._fragments[name] for key in fragment.numel}

    def step(self, name: str) -> float | None:
        """Optimiser steps that a parameter has taken; None before the first."""
        steps = [f.step for f in self._fragments[name] if f.step is not None]
        return max(steps, default=None)

    def read(self, name: str, key: str, start: int, numel: int) -> Tensor:
        """Read a part of a flattened parameter or moment from all fragments that overlap it.

        Args:
            name: the parameter.
            key: its weight or one of its moments.
            start: offset of the first element.
            numel: number of elements.

        Returns:
            The elements, float32 [numel].
        """
        values = torch.zeros(numel)
        num_read = 0
        for fragment in self._fragments[name]:
            first = max(start, fragment.start)
            last = min(start + numel, fragment.start + fragment.numel.get(key, 0))
            if first >= last:
                continue
            part = self._files[fragment.path].get_slice(f"{name}|{key}")
            values[first - start : last - start] = part[
                first - fragment.start : last - fragment.start
            ]
            num_read += last - first
        assert num_read == numel, f"{name} {key}: {num_read} of {numel} elements are in the files"
        return values


def load(
    directory: Path, fragments: Iterator[HeldFragment], sizes: Mapping[str, int]
) -> StateFiles:
    """Read everything that an engine holds of its parameters.

    Args:
        directory: the checkpoint.
        fragments: what this rank holds.
        sizes: number of elements of each trained parameter, whole.

    Returns:
        The files, for weights that are kept twice.

    Raises:
        UserError: the checkpoint has other parameters.
    """
    files = StateFiles(directory)
    files.check(sizes)
    for fragment in fragments:
        fragment.load(files)
    return files
