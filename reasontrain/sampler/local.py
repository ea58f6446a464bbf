"""Sampling with our own decode loop: prompts of any lengths in one batch, finished rows replaced by
waiting ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from reasontrain.data.sampling import Sampling
from reasontrain.models import Policy
from reasontrain.sampler import multi_step
from reasontrain.sampler.decode_batch import DecodeBatch, DecodeInputs, merge, prefill
from reasontrain.sampler.sequence import DecodingSequence, StopCriteria
from reasontrain.sampler.thought_decoding import ThoughtDecoding
from reasontrain.sampler.token_decoding import DecodeStrategy, TokenDecoding
from reasontrain.types import Prompt, Rollout, UserError, Weights
from reasontrain.vocab import Head

ROOM = 128
"""Columns that a cache is allocated ahead; when they are used up it is copied, which costs about as
much as one step.
"""
PREFILL_TOKENS = 16384
CHUNK_LOGITS = 1 << 24
COMPACT_SHARE = 8
"""Finished rows are dropped, and waiting ones let in, when every so-manieth row is done."""
AHEAD, AHEAD_ROOM, AHEAD_SHARE = 16, 256, 2
"""Steps that are decoded before the host looks at them.

Each new shape costs a capture, as much as some tens of steps: so there is more room, and rows are
dropped when half of them are done.
"""


class LocalSampler:
    """Samples with a policy in this process, which may be the very one that learns.

    A rollout is a function of (weights, prompt, sampling, seed, rollout id): neither
    `max_num_seqs`, the most rows that decode together, nor the company it keeps changes it, except
    where rounding (about 2e-6) decides between two tokens.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        seed: int,
        max_num_seqs: int = 256,
        shared: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        """`shared` says that the policy is the learner's own, so that its weights are always the
        newest.

        With `cuda_graphs` tokens are drawn some steps ahead where model and device allow
        (`ahead.suits`).
        """
        assert max_num_seqs >= 1, "a batch has at least one row"
        self.policy, self.seed, self.max_num_seqs, self.version = policy, seed, max_num_seqs, 0
        self.shared, self.cuda_graphs = shared, cuda_graphs
        _check_layers(policy)

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        """`num` rollouts of every prompt, prompt by prompt (see `Sampler`).

        A response is cut where prompt and response fill the model's context. Raises UserError for a
        prompt that leaves no room.
        """
        stop_criteria = StopCriteria(
            self.policy.stop_ids | frozenset(sampling.stop_ids),
            sampling.stop,
            self.policy.tokenizer,
        )
        step = (TokenDecoding if sampling.thought is None else ThoughtDecoding)(
            self.policy, sampling, stop_criteria
        )
        return self.finish(step.begin(prompts, num=num, first_id=first_id), step)

    def finish(self, rows: Sequence[DecodingSequence], step: DecodeStrategy) -> list[Rollout]:
        """Bring every one of these rows, which `step` has begun, to its end."""
        with torch.inference_mode(), _evaluating(self.policy):
            self._decode(rows, step)
        return [row.rollout(self.policy.tokenizer) for row in rows]

    def load(self, weights: Weights) -> None:
        """Copy these weights into the policy, unless it is their owner's."""
        if self.shared:
            self.version = weights.version
            return
        own = self.policy.model.state_dict()
        given = set()
        with torch.no_grad():
            for name, tensor in weights.tensors():
                assert name in own, f"the sampler's model has no weight {name}"
                own[name].copy_(tensor)
                given.add(own[name].data_ptr())
        missing = [
            name
            for name, _ in self.policy.model.named_parameters()
            if own[name].data_ptr() not in given
        ]
        assert not missing, f"no weights came for {missing[:3]}"
        self.version = weights.version

    def _decode(self, rows: Sequence[DecodingSequence], step: DecodeStrategy) -> None:
        """Let waiting rows in as others are done, until none is left."""
        head = self.policy.head
        law = step.law if self.cuda_graphs and multi_step.suits(self.policy) else None
        waiting = sorted(rows, key=lambda row: -len(row.prompt.ids))
        decode_batches: list[DecodeBatch] = []
        while waiting or decode_batches:
            num_free = self.max_num_seqs - sum(
                len(decode_batch.rows) - decode_batch.num_done for decode_batch in decode_batches
            )
            admitted, waiting = waiting[:num_free], waiting[num_free:]
            decode_batches += [prefill(self.policy, wave) for wave in _waves(admitted)]
            longest = max(
                row.budget
                for decode_batch in decode_batches
                for row in decode_batch.rows
                if not row.done
            )
            room = min(ROOM if law is None else AHEAD_ROOM, longest)
            decode_batch = merge(decode_batches, room)
            decode_inputs = DecodeInputs(decode_batch, room, self.seed, self.policy.device)
            if law is None:
                self._fly(decode_batch, decode_inputs, head, step)
            else:
                self._fly_ahead(decode_batch, decode_inputs, head, law, step.stop_criteria)
            decode_batches = (
                [decode_batch] if decode_batch.num_done < len(decode_batch.rows) else []
            )

    def _fly(
        self,
        decode_batch: DecodeBatch,
        decode_inputs: DecodeInputs,
        head: Head,
        step: DecodeStrategy,
    ) -> None:
        """Decode until the room is used up or enough rows are done to be worth a copy of the cache."""
        for _ in range(decode_inputs.room):
            fed = self._take(decode_batch, decode_inputs, head, step)
            num_done = decode_batch.num_done
            if num_done == len(decode_batch.rows):
                return
            decode_batch.hidden_ND = decode_inputs.advance(self.policy, fed, decode_batch.cache)
            if num_done * COMPACT_SHARE >= len(decode_batch.rows):
                return

    def _fly_ahead(
        self,
        decode_batch: DecodeBatch,
        decode_inputs: DecodeInputs,
        head: Head,
        law: Sampling,
        stop_criteria: StopCriteria,
    ) -> None:
        """The same, some steps at a time."""
        flying = multi_step.MultiStepDecoder(
            decode_batch, decode_inputs, self.policy, head, law, _chunk(head)
        )
        while decode_inputs.step < decode_inputs.room and decode_batch.num_done * AHEAD_SHARE < len(
            decode_batch.rows
        ):
            ids, logp = flying.run(min(AHEAD, decode_inputs.room - decode_inputs.step))
            for row, tokens, values in zip(decode_batch.rows, ids, logp, strict=True):
                for token, value in zip(tokens, values, strict=True):
                    row.take(token, value, stop_criteria)
        flying.land()

    def _take(
        self,
        decode_batch: DecodeBatch,
        decode_inputs: DecodeInputs,
        head: Head,
        step: DecodeStrategy,
    ) -> Tensor:
        """Let every row take a token, and say what is fed next."""
        size, fed = _chunk(head), []
        for start in range(0, len(decode_batch.rows), size):
            some = slice(start, start + size)
            with torch.autocast(self.policy.device.type, enabled=False):
                fed.append(
                    step(
                        decode_batch.rows[some],
                        head.logits(decode_batch.hidden_ND[some]),
                        decode_inputs.draws(some),
                    )
                )
        return torch.cat(fed)


def _chunk(head: Head) -> int:
    """Rows whose logits are made at once."""
    return max(1, CHUNK_LOGITS // head.width)


def _waves(rows: Sequence[DecodingSequence]) -> Iterator[list[DecodingSequence]]:
    """Rows, longest prompt first, in batches whose distinct padded prompts fit one forward."""
    wave: list[DecodingSequence] = []
    distinct: set[object] = set()
    for row in rows:
        if wave and len(distinct | {row.read}) * len(wave[0].prompt.ids) > PREFILL_TOKENS:
            yield wave
            wave, distinct = [], set()
        wave.append(row)
        distinct.add(row.read)
    if wave:
        yield wave


@contextmanager
def _evaluating(policy: Policy) -> Iterator[None]:
    """Evaluation mode, so that checkpointing leaves the cache alone, and one autocast, so that
    weights are rounded only once.
    """
    modes = [(module, module.training) for module in policy.model.modules()]
    policy.model.eval()
    try:
        with torch.autocast(
            policy.device.type, dtype=policy.dtype, enabled=policy.dtype != torch.float32
        ):
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
            f"{config['model_type']} has layers of kind {', '.join(sorted(strange))}, for "
            f"which the local sampler has no cache; "
            "it knows full and sliding attention"
        )
