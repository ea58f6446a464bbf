"""Which prompts a step asks: epochs in an order of the seed alone, so that any step can be found
without the ones before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from reasontrain import rng
from reasontrain.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Order:
    """`per_step` prompts for each step, walking through a new permutation of all of them in every
    epoch.
    """

    prompts: Sequence[Prompt]
    per_step: int
    seed: int
    tokenizer: PreTrainedTokenizerBase

    def at(self, step: int) -> list[Prompt]:
        """The prompts of this step."""
        first, size = step * self.per_step, len(self.prompts)
        places = range(first, first + self.per_step)
        permuted = {
            epoch: self._permutation(epoch) for epoch in {place // size for place in places}
        }
        return [self.prompts[permuted[place // size][place % size]] for place in places]

    def _permutation(self, epoch: int) -> list[int]:
        """The order of one epoch."""
        order: list[int] = torch.argsort(
            rng.uniform(self.seed, epoch, torch.arange(len(self.prompts))), stable=True
        ).tolist()
        return order
