"""Generated images of two coloured shapes, with captions.

Only some words of a caption depend on the image.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt

from reasontrain import rng
from reasontrain.data.images import draw_shapes
from reasontrain.rng import Stream
from reasontrain.tasks.grading import AnswerFormat, Grader, Verdict
from reasontrain.tasks.reward import Reward
from reasontrain.tasks.task import Response, Scored, Task
from reasontrain.types import AtLeastOne, Problem

COLOURS = ("red", "green", "blue", "yellow", "black", "orange", "purple")
SHAPES = ("circle", "square", "triangle")
ALL = tuple(itertools.product(itertools.product(COLOURS, SHAPES), repeat=2))
"""Every pair of shapes: 441 images."""
TEST_EVERY = 5
"""Every fifth image is held out."""


@dataclass(frozen=True, kw_only=True)
class ImageTask(Task):
    """Captions like "The picture shows a red circle and a blue square."

    The 89 images of `split: test` are held out. Every image occurs once before any occurs a second
    time. An answer is right if it equals the caption word by word.
    """

    kind: Literal["images"] = "images"
    num_problems: AtLeastOne = 1000
    split: Literal["train", "test"] = "train"
    seed: Annotated[int, Ge(0), Lt(2**62)] = 0

    def problems(self) -> list[Problem]:
        """All problems, in order; ids are unique."""
        # seed 0, not the recipe's: the split must be the same in every run
        images = [
            ALL[index]
            for rank, index in enumerate(_shuffled(len(ALL), 0, Stream.IMAGE_SPLIT))
            if (rank % TEST_EVERY == 0) == (self.split == "test")
        ]
        num_rounds = -(-self.num_problems // len(images))
        order = [
            index
            for round_number in range(num_rounds)
            for index in _shuffled(len(images), self.seed, Stream.IMAGE_ROUNDS + round_number)
        ]
        return [
            _problem(f"{self.split}-{number}", images[index])
            for number, index in enumerate(order[: self.num_problems])
        ]

    def check_gradable(
        self, problems: Sequence[Problem], grader: Grader, *, required: bool
    ) -> None:
        """Accept all problems: captions are compared as text and need no verifier."""

    def grade(
        self,
        responses: Sequence[Response],
        grader: Grader,
        reward: Reward | None = None,
        *,
        answer_format: AnswerFormat = "marked",
    ) -> list[Scored]:
        """Grade captions word by word (see `Task`).

        Args:
            responses: the responses.
            grader: not used.
            reward: the rewards of verdicts.
            answer_format: not used.

        Returns:
            Reward and verdict of each response, in order.
        """
        verdicts = [
            Verdict(r.answer.split() == r.problem.answer.split(), r.answer, "exact")
            for r in responses
        ]
        return self._scored(verdicts, responses, reward)

    def same_answer(self, one: str, other: str, problem: Problem, grader: Grader) -> bool:
        """Compare captions word by word.

        Args:
            one: an extracted caption.
            other: another one.
            problem: not used.
            grader: not used.
        """
        return one.split() == other.split()

    def held_out(self) -> ImageTask:
        """The images of the test split."""
        return replace(self, split="test")


def _shuffled(size: int, seed: int, stream: int) -> list[int]:
    """The numbers below `size`, shuffled by random numbers of this seed and stream."""
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
