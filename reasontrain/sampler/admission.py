"""Admission of sequences to the batch that decodes: by number, and by bytes of their caches."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from reasontrain.models import Policy, cache_numbers
from reasontrain.sampler.sequence import SequenceState

logger = logging.getLogger(__name__)

CACHE_SHARE = 0.8
"""Share of a GPU's memory, without what the process holds before it decodes, that caches may fill.

The rest is for prefill, logits, and one layer that exists twice while sequences are joined.
"""


class Admission:
    """The most sequences that decode together.

    It follows from settings, the model and the GPU's total memory, not from what happens to be
    free: in bfloat16 the company of a sequence decides roundings, and an evaluation that is resumed
    has the company that it would have had.
    """

    def __init__(self, policy: Policy, max_num_seqs: int) -> None:
        self.limit = max_num_seqs
        self._bytes_per_token = policy.dtype.itemsize * cache_numbers(policy.model.config)
        self._capacity = capacity(policy.device)

    def num_joining(self, waiting: Sequence[SequenceState], live: Sequence[SequenceState]) -> int:
        """Number of waiting sequences that may join; at least one if none is live.

        All sequences of a batch have caches as long as the longest will be.
        """
        room = max(0, self.limit - len(live))
        longest = max(map(_length, live), default=0)
        for number, sequence in enumerate(waiting[:room]):
            longest = max(longest, _length(sequence))
            total = (len(live) + number + 1) * longest * self._bytes_per_token
            if self._capacity is not None and total > self._capacity and (live or number):
                return number
        return min(room, len(waiting))

    def halve(self, num_live: int) -> None:
        """Let at most half as many decode together as have run out of memory."""
        self.limit = max(1, num_live // 2)
        logger.warning(
            f"out of memory with {num_live} sequences at once; at most {self.limit} decode "
            f"together from here on (set max_num_seqs to begin with fewer)"
        )


def capacity(device: torch.device) -> int | None:
    """Bytes that caches may fill on this device; None if there is no limit but `max_num_seqs`."""
    if device.type != "cuda":
        return None
    _, total = torch.cuda.mem_get_info(device)
    return int(CACHE_SHARE * (total - torch.cuda.memory_allocated(device)))


def _length(sequence: SequenceState) -> int:
    """Tokens of prompt and response when the response is as long as it may be."""
    return len(sequence.prompt.ids) + len(sequence.response) + sequence.budget
