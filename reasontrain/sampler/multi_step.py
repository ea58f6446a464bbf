"""Several decode steps per host synchronisation, in fixed shapes that a CUDA graph can replay.

A CUDA graph records kernels with the shapes and addresses of their tensors, so nothing in a step
may change either: the cache has its final width from the start, a mask hides the columns that are
not filled yet, and a sequence that is done keeps decoding. The host drops the tokens after its end.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool
from torch import Tensor

from reasontrain.data.sampling import Sampling
from reasontrain.models import Policy, log_once
from reasontrain.sampler import cache as caches
from reasontrain.sampler.decode_batch import DecodeBatch, DecodeInputs, one_mask_serves
from reasontrain.sampler.token_choice import choose, to_host
from reasontrain.vocab import Head


def is_supported(policy: Policy) -> bool:
    """Return True if the steps of this model can be captured: on a GPU, and with one mask."""
    return policy.device.type == "cuda" and one_mask_serves(policy)


class MultiStepDecoder:
    """Decode without host synchronisation: a step draws a token per sequence and feeds it back."""

    def __init__(
        self,
        decode_batch: DecodeBatch,
        decode_inputs: DecodeInputs,
        policy: Policy,
        head: Head,
        sampling: Sampling,
        logit_rows: int,
    ) -> None:
        """Fix the shapes of the batch's cache until `close`.

        Args:
            decode_batch: N sequences.
            decode_inputs: masks, positions and random numbers of its next steps.
            policy: the model that decodes.
            head: the policy's head.
            sampling: temperature and truncation of every token.
            logit_rows: the number of sequences whose logits are computed at once.
        """
        self.policy = policy
        self.head = head
        self.sampling = sampling
        self.decode_inputs = decode_inputs
        self.decode_batch = decode_batch
        self.logit_rows = logit_rows
        # The step number lives on the device: a Python integer would be baked into the graph.
        self.column_1 = torch.full((1,), decode_inputs.length, device=policy.device)
        self.step_1 = torch.zeros_like(self.column_1)
        self.ids_NS = torch.zeros_like(decode_inputs.place_NS)
        self.logp_NS = torch.zeros_like(decode_inputs.place_NS, dtype=torch.float32)
        self.not_padding_NS = decode_inputs.mask_NS.bool()
        self.all_columns_S = torch.arange(self.not_padding_NS.shape[1], device=policy.device)
        caches.fix_shape(decode_batch.cache, self.column_1)
        self.replay: Callable[[], None] | None = None

    def run(self, num_steps: int) -> tuple[list[list[int]], list[list[float]]]:
        """Decode `num_steps` steps; return ids and log-probs, [N, num_steps] each."""
        for _ in range(num_steps):
            if self.replay is not None:
                self.replay()
                continue
            # The first step runs eagerly: libraries allocate workspaces and compile kernels at
            # their first call, which a capture forbids.
            self._step()
            if self.policy.device.type == "cuda":
                self.replay = _capture(self._step)
        start = self.decode_inputs.step
        self.decode_inputs.step += num_steps
        steps = slice(start, start + num_steps)
        return to_host(self.ids_NS[:, steps], self.logp_NS[:, steps])

    def close(self) -> None:
        """Let the batch's cache grow again."""
        caches.release_shape(
            self.decode_batch.cache, self.decode_inputs.length + self.decode_inputs.step
        )

    def _step(self) -> None:
        """Draw and feed one token per sequence, with tensor operations that write in place."""
        uniform_N = self.decode_inputs.uniform_NS.index_select(1, self.step_1)[:, 0]
        chosen = []
        with torch.autocast(self.policy.device.type, enabled=False):
            for start in range(0, len(uniform_N), self.logit_rows):
                rows = slice(start, start + self.logit_rows)
                chosen.append(
                    choose(
                        self.head.logits(self.decode_batch.hidden_ND[rows]),
                        uniform_N[rows],
                        self.sampling,
                    )
                )
        ids_N1, logp_N1 = (torch.cat(parts)[:, None] for parts in zip(*chosen, strict=True))
        self.ids_NS.index_copy_(1, self.step_1, ids_N1)
        self.logp_NS.index_copy_(1, self.step_1, logp_N1)
        position_N1 = self.decode_inputs.position_NS.index_select(1, self.column_1)
        hidden_N1D = self.policy.hidden(
            ids_N1, position=position_N1, mask=self._visible(), cache=self.decode_batch.cache
        )
        # copied, not rebound: the next replay reads the address that was captured
        self.decode_batch.hidden_ND.copy_(hidden_N1D[:, 0])
        self.column_1.add_(1)
        self.step_1.add_(1)

    def _visible(self) -> Bool[Tensor, "N 1 1 S"]:
        """The columns that each sequence sees: from its first to the one written in this step."""
        return (self.not_padding_NS & (self.all_columns_S <= self.column_1))[:, None, None]


def _capture(step: Callable[[], None]) -> Callable[[], None]:
    """Record one step as a CUDA graph, without executing it; return its replay function.

    A step that cannot be captured is returned itself, with a warning: it runs eagerly.
    """
    graph = torch.cuda.CUDAGraph()
    # pending work of other streams must not run into the capture
    torch.cuda.synchronize()
    try:
        # Only this thread's calls are restricted: NCCL's watchdog and Ray's threads go on.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            step()
    except RuntimeError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        log_once(
            "sample.engine.cuda_graphs", f"decoding goes on without a CUDA graph, slower: {reason}"
        )
        return step
    return graph.replay
