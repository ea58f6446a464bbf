"""Decoding some steps ahead in shapes that do not change: the host looks at the tokens now and
then.

Every tensor of a step keeps its shape and address, so that a CUDA graph can hold the step: the
cache is as wide as it will be, a mask hides what is not filled yet, and a row that is done goes on.
What it took after its end is dropped when the host looks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool
from torch import Tensor

from reasontrain.data.sampling import Sampling
from reasontrain.models import Policy
from reasontrain.sampler import cache as caches
from reasontrain.sampler.decode_batch import DecodeBatch, DecodeInputs
from reasontrain.sampler.token_choice import choose
from reasontrain.vocab import Head

Tokens = tuple[list[list[int]], list[list[float]]]


def suits(policy: Policy) -> bool:
    """Whether steps of this model can be captured, and are worth it: on a GPU, where attention
    takes a mask as it is.

    Flash attention has masks of its own, and one mask would not do for layers with and without a
    sliding window.
    """
    window = policy.model.config.get_text_config().to_dict().get("sliding_window")
    return (
        policy.device.type == "cuda"
        and policy.model.config._attn_implementation == "sdpa"
        and window is None
    )


class MultiStepDecoder:
    """A flight whose steps need nobody but the device: a token is drawn for each row by `sampling`,
    and fed.
    """

    def __init__(
        self,
        decode_batch: DecodeBatch,
        decode_inputs: DecodeInputs,
        policy: Policy,
        head: Head,
        sampling: Sampling,
        chunk: int,
    ) -> None:
        """Logits are made of `chunk` rows at a time."""
        self.policy, self.head, self.sampling, self.decode_inputs, self.decode_batch, self.chunk = (
            policy,
            head,
            sampling,
            decode_inputs,
            decode_batch,
            chunk,
        )
        self.column_1 = torch.full((1,), decode_inputs.length, device=policy.device)
        self.step_1 = torch.zeros_like(self.column_1)
        self.ids_NS = torch.zeros_like(decode_inputs.place_NS)
        self.logp_NS = torch.zeros_like(decode_inputs.place_NS, dtype=torch.float32)
        self.started_NS = decode_inputs.mask_NS.bool()
        self.place_S = torch.arange(self.started_NS.shape[1], device=policy.device)
        caches.fix(decode_batch.cache, self.column_1)
        self.replay: Callable[[], None] | None = None

    def run(self, num_steps: int) -> Tokens:
        """So many steps; the ids and log-probs that each row took, [N, num_steps]."""
        for _ in range(num_steps):
            if self.replay is not None:
                self.replay()
                continue
            self._tick()  # in the open, which also warms up whatever is made at a first call
            if self.policy.device.type == "cuda":
                self.replay = _captured(self._tick)
        start = self.decode_inputs.step
        self.decode_inputs.step += num_steps
        taken = slice(start, start + num_steps)
        return self.ids_NS[:, taken].tolist(), self.logp_NS[:, taken].tolist()

    def land(self) -> DecodeBatch:
        """The flight as it is now, for whoever goes on with it."""
        caches.release(self.decode_batch.cache, self.decode_inputs.length + self.decode_inputs.step)
        return self.decode_batch

    def _tick(self) -> None:
        """Draw and feed a token per row; reads and writes tensors alone, in place."""
        uniform_N = self.decode_inputs.uniform_NS.index_select(1, self.step_1)[:, 0]
        chosen = []
        with torch.autocast(self.policy.device.type, enabled=False):
            for start in range(0, len(uniform_N), self.chunk):
                some = slice(start, start + self.chunk)
                chosen.append(
                    choose(
                        self.head.logits(self.decode_batch.hidden_ND[some]),
                        uniform_N[some],
                        self.sampling,
                    )
                )
        ids_N1, logp_N1 = (torch.cat(parts)[:, None] for parts in zip(*chosen, strict=True))
        self.ids_NS.index_copy_(1, self.step_1, ids_N1)
        self.logp_NS.index_copy_(1, self.step_1, logp_N1)
        position_N1 = self.decode_inputs.position_NS.index_select(1, self.column_1)
        hidden_N1D = self.policy.hidden(
            ids_N1, position=position_N1, mask=self._seen(), cache=self.decode_batch.cache
        )
        self.decode_batch.hidden_ND.copy_(hidden_N1D[:, 0])
        self.column_1.add_(1)
        self.step_1.add_(1)

    def _seen(self) -> Bool[Tensor, "N 1 1 S"]:
        """The columns that each row sees: from its first to the one that is written now."""
        return (self.started_NS & (self.place_S <= self.column_1))[:, None, None]


def _captured(tick: Callable[[], None]) -> Callable[[], None]:
    """What does on the GPU what `tick` did while it was recorded; recording executes nothing."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        tick()
    return graph.replay
