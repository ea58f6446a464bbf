"""Sampling with our own decode loop: prompts of any lengths in one batch, finished rows replaced by waiting ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain.data.sampling import Sampling
from reasontrain.models import Policy
from reasontrain.sampler.choose import choose
from reasontrain.sampler.flight import Clock, Flight, merge, prefill
from reasontrain.sampler.row import Ending, Row, begin
from reasontrain.types import Prompt, Rollout, UserError, Weights
from reasontrain.vocab import Head

Feed = Callable[[Int[Tensor, " N"], Float[Tensor, "N V"]], Tensor]
"""What goes into the model next, given the ids just taken and the logits they came from: ids [N, 1] or embeddings [N, 1, D]."""

ROOM = 128
"""Columns that a cache is allocated ahead; when they are used up it is copied, which costs about as much as one step."""
PREFILL_TOKENS = 16384
CHUNK_LOGITS = 1 << 24
COMPACT_SHARE = 8
"""Finished rows are dropped, and waiting ones let in, when every so-manieth row is done."""


def feed_ids(ids_N: Int[Tensor, " N"], logits_NV: Float[Tensor, "N V"]) -> Int[Tensor, "N 1"]:
    """The ids themselves."""
    return ids_N[:, None]


class LocalSampler:
    """Samples with a policy in this process, which may be the very one that learns.

    A rollout is a function of (weights, prompt, sampling, seed, rollout id): neither `max_rows`, the most rows that decode
    together, nor the company it keeps changes it, except where rounding (about 2e-6) decides between two tokens.
    """

    def __init__(self, policy: Policy, *, seed: int, max_rows: int = 256, feed: Feed = feed_ids) -> None:
        assert max_rows >= 1, "a batch has at least one row"
        self.policy, self.seed, self.max_rows, self.feed, self.version = policy, seed, max_rows, feed, 0
        _check_layers(policy)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int) -> list[Rollout]:
        """`num` rollouts of every prompt, prompt by prompt (see `Sampler`).

        A response is cut where prompt and response fill the model's context. Raises UserError for a prompt that leaves no room.
        """
        rows = begin(prompts, num=num, first_id=first_id, max_tokens=sampling.max_tokens, context=self.policy.context)
        ending = Ending(self.policy.stop_ids | frozenset(sampling.stop_ids), sampling.stop, self.policy.tokenizer)
        with torch.inference_mode(), _evaluating(self.policy):
            self._decode(rows, sampling, ending)
        return [row.rollout(self.policy.tokenizer) for row in rows]

    def load(self, weights: Weights) -> None:
        """Copy these weights into the policy, but for those it shares with their owner."""
        own = self.policy.model.state_dict()
        given = set()
        with torch.no_grad():
            for name, tensor in weights.tensors():
                assert name in own, f"the sampler's model has no weight {name}"
                if own[name].data_ptr() != tensor.data_ptr():
                    own[name].copy_(tensor)
                given.add(own[name].data_ptr())
        missing = [name for name, _ in self.policy.model.named_parameters() if own[name].data_ptr() not in given]
        assert not missing, f"no weights came for {missing[:3]}"
        self.version = weights.version

    def _decode(self, rows: Sequence[Row], sampling: Sampling, ending: Ending) -> None:
        """Bring every row to its end."""
        head = self.policy.head
        waiting = sorted(rows, key=lambda row: -len(row.prompt.ids))
        flights: list[Flight] = []
        while waiting or flights:
            num_free = self.max_rows - sum(len(flight.rows) - flight.num_done for flight in flights)
            admitted, waiting = waiting[:num_free], waiting[num_free:]
            flights += [prefill(self.policy, wave) for wave in _waves(admitted)]
            room = min(ROOM, max(row.budget for flight in flights for row in flight.rows if not row.done))
            flight = merge(flights, room)
            self._fly(flight, room, head, sampling, ending)
            flights = [flight] if flight.num_done < len(flight.rows) else []

    def _fly(self, flight: Flight, room: int, head: Head, sampling: Sampling, ending: Ending) -> None:
        """Decode until the room is used up or enough rows are done to be worth a copy of the cache."""
        clock = Clock(flight, room, self.seed, self.policy.device)
        for _ in range(room):
            fed = self._take(flight, clock.uniform_N(), head, sampling, ending)
            num_done = flight.num_done
            if num_done == len(flight.rows):
                return
            flight.hidden_ND = clock.advance(self.policy, fed, flight.cache)
            if num_done * COMPACT_SHARE >= len(flight.rows):
                return

    def _take(self, flight: Flight, uniform_N: Float[Tensor, " N"], head: Head, sampling: Sampling, ending: Ending) -> Tensor:
        """Choose a token for every row, record it, and say what is fed next."""
        size = max(1, CHUNK_LOGITS // head.weight_VD.shape[0])
        ids, logp, fed = [], [], []
        for hidden_ND, some_N in zip(flight.hidden_ND.split(size), uniform_N.split(size), strict=True):
            with torch.autocast(self.policy.device.type, enabled=False):
                logits_NV = head.logits(hidden_ND)
            ids_N, logp_N = choose(logits_NV, some_N, sampling)
            ids.append(ids_N)
            logp.append(logp_N)
            fed.append(self.feed(ids_N, logits_NV))
        for row, token, value in zip(flight.rows, torch.cat(ids).tolist(), torch.cat(logp).tolist(), strict=True):
            row.take(token, value, ending)
        return torch.cat(fed)


def _waves(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows, longest prompt first, in batches whose distinct padded prompts fit one forward."""
    wave: list[Row] = []
    distinct: set[tuple[int, ...]] = set()
    for row in rows:
        if wave and len(distinct | {row.prompt.ids}) * len(wave[0].prompt.ids) > PREFILL_TOKENS:
            yield wave
            wave, distinct = [], set()
        wave.append(row)
        distinct.add(row.prompt.ids)
    if wave:
        yield wave


@contextmanager
def _evaluating(policy: Policy) -> Iterator[None]:
    """Evaluation mode, so that checkpointing leaves the cache alone, and one autocast, so that weights are rounded only once."""
    modes = [(module, module.training) for module in policy.model.modules()]
    policy.model.eval()
    try:
        with torch.autocast(policy.device.type, dtype=policy.dtype, enabled=policy.dtype != torch.float32):
            yield
    finally:
        for module, training in modes:
            module.training = training


def _check_layers(policy: Policy) -> None:
    """Refuse what keeps something else than keys and values of all past tokens."""
    config = policy.model.config.get_text_config().to_dict()
    strange = set(config.get("layer_types") or ()) - {"full_attention", "sliding_attention"}
    if strange:
        raise UserError(
            f"{config['model_type']} has layers of kind {', '.join(sorted(strange))}, for which the local sampler has no cache; "
            "it knows full and sliding attention"
        )
