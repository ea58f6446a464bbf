"""Generated images of two coloured shapes with captions: words that only the image tells, among
words that repeat.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt

from reasontrain import rng
from reasontrain.data.images import draw_shapes
from reasontrain.rng import Stream
from reasontrain.types import AtLeastOne, Problem

COLOURS = ("red", "green", "blue", "yellow", "black", "orange", "purple")
SHAPES = ("circle", "square", "triangle")
ALL = tuple(itertools.product(itertools.product(COLOURS, SHAPES), repeat=2))
"""Every pair of shapes: 441 images."""
TEST_EVERY = 5
"""Every fifth image is held out."""


@dataclass(frozen=True, kw_only=True)
class ImageTask:
    """Captions as "The picture shows a red circle and a blue square."; the 89 images of `split:
    test` are in no other.

    Every image occurs once before any occurs a second time. Answers are right where they are the
    caption, word by word.
    """

    kind: Literal["images"] = "images"
    num_problems: AtLeastOne = 1000
    split: Literal["train", "test"] = "train"
    seed: Annotated[int, Ge(0), Lt(2**62)] = 0

    def problems(self) -> list[Problem]:
        """All problems, in order; ids are unique."""
        mine = [
            ALL[i]
            for place, i in enumerate(_shuffled(len(ALL), 0, Stream.IMAGE_SPLIT))
            if (place % TEST_EVERY == 0) == self.held_out
        ]
        num_rounds = -(-self.num_problems // len(mine))
        order = [
            which
            for number in range(num_rounds)
            for which in _shuffled(len(mine), self.seed, Stream.IMAGE_ROUNDS + number)
        ]
        return [
            _problem(f"{self.split}-{i}", mine[which])
            for i, which in enumerate(order[: self.num_problems])
        ]

    @property
    def held_out(self) -> bool:
        """Whether these are images that nothing is trained on."""
        return self.split == "test"


def _shuffled(size: int, seed: int, stream: int) -> list[int]:
    """The numbers below `size` in an order of their own."""
    return torch.argsort(rng.uniform(seed, stream, torch.arange(size)), stable=True).tolist()


def _problem(name: str, shapes: tuple[tuple[str, str], ...]) -> Problem:
    caption = (
        "The picture shows " + " and ".join(f"a {colour} {shape}" for colour, shape in shapes) + "."
    )
    return Problem(
        id=name,
        prompt="What does the picture show?",
        answer=caption,
        solution=caption,
        image=draw_shapes(shapes),
    )
