"""The prompts of each step, in epochs whose order depends on the seed alone.

Any step's prompts can be computed without those of the steps before, for example to resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from reasontrain import rng
from reasontrain.rng import Stream
from reasontrain.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Order:
    """`per_step` prompts for each step, from a new permutation of all prompts in every epoch."""

    prompts: Sequence[Prompt]
    per_step: int
    seed: int
    tokenizer: PreTrainedTokenizerBase

    def at(self, step: int, refill: int = 0) -> list[Prompt]:
        """The prompts of this step, or those of round `refill`, from 1, which refills it.

        Every round has permutations of its own, so one of its prompts may also be among those of
        another round or step nearby.
        """
        first = step * self.per_step
        size = len(self.prompts)
        places = range(first, first + self.per_step)
        # One step can cross the end of an epoch, or hold several epochs of few prompts.
        permuted = {
            epoch: self._permutation(epoch, refill) for epoch in {place // size for place in places}
        }
        return [self.prompts[permuted[place // size][place % size]] for place in places]

    def _permutation(self, epoch: int, refill: int) -> list[int]:
        """The permutation of one epoch."""
        place_N = torch.arange(len(self.prompts))
        draw_N = (
            rng.uniform(self.seed, Stream.REFILL, refill, epoch, place_N)
            if refill
            else rng.uniform(self.seed, epoch, place_N)
        )
        order: list[int] = torch.argsort(draw_N, stable=True).tolist()
        return order
