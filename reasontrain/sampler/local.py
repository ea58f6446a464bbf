"""Sampling with the decode loop of this package.

Prompts of any length decode in one batch, and waiting sequences take the places of finished ones.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from reasontrain.data.sampling import Sampling
from reasontrain.environments import Runners
from reasontrain.metrics.working import Work, working
from reasontrain.models import Policy
from reasontrain.sampler import multi_step
from reasontrain.sampler.admission import Admission
from reasontrain.sampler.decode_batch import DecodeBatch, DecodeInputs, merge, prefill
from reasontrain.sampler.decode_check import check_decoding
from reasontrain.sampler.decode_weights import rounded_weights
from reasontrain.sampler.episodes import sample_episodes
from reasontrain.sampler.sequence import SequenceState
from reasontrain.sampler.stop_criteria import StopCriteria
from reasontrain.sampler.thought_decoding import ThoughtDecoding
from reasontrain.sampler.token_decoding import DecodeStrategy, TokenDecoding
from reasontrain.types import Prompt, Rollout, Weights
from reasontrain.vocab import Head

ROOM = 128
"""Cache columns allocated at once.

When they are full the cache is copied, which costs about as much as one step.
"""
PREFILL_TOKENS = 16384
"""The most tokens of one prefill, padding included."""
CHUNK_LOGITS = 1 << 24
"""The most logits that exist at once."""
COMPACT_SHARE = 8
"""Finished sequences are replaced by waiting ones once one in `COMPACT_SHARE` is done."""
MULTI_STEPS = 16
"""Steps that a GPU decodes before the host reads their tokens."""
MULTI_STEP_ROOM = 256
"""`ROOM` of multi-step decoding.

It is larger because each new shape needs a new CUDA graph, whose capture costs about as much as
several tens of steps.
"""
MULTI_STEP_COMPACT_SHARE = 2
"""`COMPACT_SHARE` of multi-step decoding, for the same reason."""


class LocalSampler:
    """Sample with a policy of this process, which may be the learner's own.

    A rollout is a function of (weights, prompt, sampling, seed, rollout id). `max_num_seqs`, the
    most sequences that decode together, and the other sequences of its batch do not change it,
    except where a rounding error (about 2e-6) decides between two tokens.
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
        """Prepare to sample with `policy`.

        Args:
            policy: model, head and tokenizer.
            seed: seed of the random numbers that choose tokens.
            max_num_seqs: the most sequences that decode together; on a GPU, fewer do if the caches
                of so many would not fit.
            shared: the policy is the learner's own, so its weights are always the newest.
            cuda_graphs: decode several steps per host synchronisation where model and device
                allow it (`multi_step.is_supported`).

        Raises:
            UserError: decoding with the cache is not what one forward pass computes.
        """
        assert max_num_seqs >= 1, "a batch has at least one sequence"
        self.policy = policy
        self.seed = seed
        self.max_num_seqs = max_num_seqs
        self.shared = shared
        self.cuda_graphs = cuda_graphs
        self.version = 0
        self.environments = Runners()
        with torch.inference_mode(), _inference_settings(policy):
            check_decoding(policy)

    @property
    def device(self) -> torch.device:
        """The device of the policy."""
        return self.policy.device

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        """Sample `num` rollouts of every prompt (see `Sampler`).

        Args:
            prompts: the encoded prompts.
            sampling: temperature, truncation, stop criteria and thought.
            num: rollouts per prompt.
            first_id: the id of the first rollout.

        Returns:
            `len(prompts) * num` rollouts, prompt by prompt. A response is truncated where prompt
            and response fill the model's context.

        Raises:
            UserError: a prompt leaves no room for a response.
        """
        if sampling.environment is not None:
            return sample_episodes(self, prompts, sampling, num=num, first_id=first_id)
        strategy = self._strategy(sampling)
        return self.finish(strategy.start(prompts, num=num, first_id=first_id), strategy)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The policy's tokenizer."""
        return self.policy.tokenizer

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end a response of the policy."""
        return self.policy.stop_ids

    @property
    def context(self) -> int:
        """The most tokens of prompt and response together."""
        return self.policy.context

    def complete(self, sequences: Sequence[SequenceState], sampling: Sampling) -> None:
        """Decode sequences of tokens until all of them are done (see `episodes.TurnSampler`).

        Each turn of a conversation reads all of it anew: caches are not kept between calls.
        """
        self._decode_all(sequences, self._strategy(sampling))

    def _strategy(self, sampling: Sampling) -> DecodeStrategy:
        stop_criteria = StopCriteria(
            self.policy.stop_ids | frozenset(sampling.stop_ids),
            sampling.stop,
            self.policy.tokenizer,
        )
        decoding = TokenDecoding if sampling.thought is None else ThoughtDecoding
        return decoding(self.policy, sampling, stop_criteria)

    def finish(self, sequences: Sequence[SequenceState], strategy: DecodeStrategy) -> list[Rollout]:
        """Decode sequences that `strategy` started until all of them are done."""
        self._decode_all(sequences, strategy)
        return [sequence.rollout(self.policy.tokenizer) for sequence in sequences]

    def _decode_all(self, sequences: Sequence[SequenceState], strategy: DecodeStrategy) -> None:
        with (
            rounded_weights(self.policy),
            torch.inference_mode(),
            _inference_settings(self.policy),
            working(f"sampling {len(sequences):,} responses", "tokens") as work,
        ):
            self._decode(sequences, strategy, work)

    def close(self) -> None:
        """End the processes of environments; the policy belongs to the caller."""
        self.environments.close()

    def load(self, weights: Weights) -> None:
        """Copy these weights into the policy, unless it is the learner's own."""
        if self.shared:
            self.version = weights.version
            return
        own = self.policy.model.state_dict()
        loaded = set()
        with torch.no_grad():
            for name, tensor in weights.tensors():
                assert name in own, f"the sampler's model has no weight {name}"
                own[name].copy_(tensor)
                loaded.add(own[name].data_ptr())
        # by address, not by name: tied weights are sent once, under one of their names
        missing = [
            name
            for name, _ in self.policy.model.named_parameters()
            if own[name].data_ptr() not in loaded
        ]
        assert not missing, f"no weights came for {missing[:3]}"
        self.version = weights.version

    def _decode(
        self, sequences: Sequence[SequenceState], strategy: DecodeStrategy, work: Work
    ) -> None:
        """Decode until all sequences are done; those that run out of memory start again."""
        admission = Admission(self.policy, self.max_num_seqs)
        starts = [_fields(sequence) for sequence in sequences]
        while not self._decode_admitted(sequences, strategy, work, admission):
            for sequence, start in zip(sequences, starts, strict=True):
                if not sequence.done:
                    vars(sequence).update({name: _copy(value) for name, value in start.items()})
            gc.collect()  # the caches, which frames of the error may hold
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _decode_admitted(
        self,
        sequences: Sequence[SequenceState],
        strategy: DecodeStrategy,
        work: Work,
        admission: Admission,
    ) -> bool:
        """Decode until all sequences are done, or memory is short, after which fewer are admitted.

        A single sequence that runs out of memory is an error.
        """
        # prompts of similar length are prefilled together, which pads least
        waiting = sorted(
            (sequence for sequence in sequences if not sequence.done),
            key=lambda sequence: -len(sequence.prompt.ids),
        )
        try:
            self._decode_waiting(sequences, waiting, strategy, work, admission)
        except torch.OutOfMemoryError:
            num_unfinished = sum(not sequence.done for sequence in sequences)
            num_live = num_unfinished - len(waiting)
            if num_live <= 1:
                raise
            admission.halve(num_live)
            return False
        return True

    def _decode_waiting(
        self,
        sequences: Sequence[SequenceState],
        waiting: list[SequenceState],
        strategy: DecodeStrategy,
        work: Work,
        admission: Admission,
    ) -> None:
        """Decode until all sequences are done; waiting ones join as others finish.

        Args:
            sequences: all of them.
            waiting: those that are not done; the ones that join are removed.
            strategy: chooses tokens.
            work: counts tokens.
            admission: decides how many decode together.
        """
        head = self.policy.head
        multi_step_sampling = (
            strategy.multi_step_sampling
            if self.cuda_graphs and multi_step.is_supported(self.policy)
            else None
        )
        batches: list[DecodeBatch] = []
        steps = 0
        while waiting or batches:
            live = [
                sequence for batch in batches for sequence in batch.sequences if not sequence.done
            ]
            num_joining = admission.num_joining(waiting, live)
            admitted = waiting[:num_joining]
            del waiting[:num_joining]
            if admitted:
                with working(f"reading {len(admitted):,} prompts"):
                    batches += [prefill(self.policy, wave) for wave in _prefill_waves(admitted)]
            longest = max(
                sequence.budget
                for batch in batches
                for sequence in batch.sequences
                if not sequence.done
            )
            room = min(ROOM if multi_step_sampling is None else MULTI_STEP_ROOM, longest)
            batch = merge(batches, room)
            inputs = DecodeInputs(batch, room, self.seed, self.policy)
            if multi_step_sampling is None:
                self._decode_batch(batch, inputs, head, strategy, work)
            else:
                self._decode_batch_multi_step(
                    batch, inputs, head, multi_step_sampling, strategy.stop_criteria, work
                )
            steps += inputs.step
            each_s = (time.monotonic() - work.start_s) / max(steps, 1)
            # Unknown while sequences wait, whose budgets begin later.
            work.left_s = None if waiting else each_s * (longest - inputs.step)
            work.note = f"{sum(sequence.done for sequence in sequences):,} done"
            batches = [batch] if batch.num_done < len(batch.sequences) else []

    def _decode_batch(
        self,
        decode_batch: DecodeBatch,
        decode_inputs: DecodeInputs,
        head: Head,
        strategy: DecodeStrategy,
        work: Work,
    ) -> None:
        """Decode until the room is full, or enough sequences are done to be worth a cache copy."""
        for _ in range(decode_inputs.room):
            work.done += len(decode_batch.sequences) - decode_batch.num_done
            next_input = self._decode_step(decode_batch, decode_inputs, head, strategy)
            num_done = decode_batch.num_done
            if num_done == len(decode_batch.sequences):
                return
            decode_batch.hidden_ND = decode_inputs.advance(next_input, decode_batch.cache)
            if num_done * COMPACT_SHARE >= len(decode_batch.sequences):
                return

    def _decode_batch_multi_step(
        self,
        decode_batch: DecodeBatch,
        decode_inputs: DecodeInputs,
        head: Head,
        sampling: Sampling,
        stop_criteria: StopCriteria,
        work: Work,
    ) -> None:
        """Decode like `_decode_batch`, but several steps at a time."""
        decoder = multi_step.MultiStepDecoder(
            decode_batch, decode_inputs, self.policy, head, sampling, _logit_rows(head)
        )
        while (
            decode_inputs.step < decode_inputs.room
            and decode_batch.num_done * MULTI_STEP_COMPACT_SHARE < len(decode_batch.sequences)
        ):
            ids, logp = decoder.run(min(MULTI_STEPS, decode_inputs.room - decode_inputs.step))
            for sequence, tokens, values in zip(decode_batch.sequences, ids, logp, strict=True):
                work.done += 0 if sequence.done else len(tokens)
                for token, value in zip(tokens, values, strict=True):
                    sequence.append(token, value, stop_criteria)
        decoder.close()

    def _decode_step(
        self,
        decode_batch: DecodeBatch,
        decode_inputs: DecodeInputs,
        head: Head,
        strategy: DecodeStrategy,
    ) -> Tensor:
        """Append a token to every sequence; return the next model input."""
        size = _logit_rows(head)
        next_inputs = []
        for start in range(0, len(decode_batch.sequences), size):
            rows = slice(start, start + size)
            # logits and probabilities are computed in fp32, also if the trunk is under autocast
            with torch.autocast(self.policy.device.type, enabled=False):
                next_inputs.append(
                    strategy(
                        decode_batch.sequences[rows],
                        head.logits(decode_batch.hidden_ND[rows]),
                        decode_inputs.draws(rows),
                    )
                )
        return torch.cat(next_inputs)


def _fields(sequence: SequenceState) -> dict[str, object]:
    """The fields of a sequence, in lists of their own."""
    return {name: _copy(value) for name, value in vars(sequence).items()}


def _copy(value: object) -> object:
    return list(value) if isinstance(value, list) else value


def _logit_rows(head: Head) -> int:
    """The number of sequences whose logits are computed at once."""
    return max(1, CHUNK_LOGITS // head.width)


def _prefill_waves(sequences: Sequence[SequenceState]) -> Iterator[list[SequenceState]]:
    """Split sequences, longest prompt first, into groups that fit one prefill."""
    wave: list[SequenceState] = []
    distinct: set[object] = set()
    for sequence in sequences:
        width = len(wave[0].prompt.ids) if wave else 0
        if len(distinct | {sequence.model_input}) * width > PREFILL_TOKENS:
            yield wave
            wave = []
            distinct = set()
        wave.append(sequence)
        distinct.add(sequence.model_input)
    if wave:
        yield wave


@contextmanager
def _inference_settings(policy: Policy) -> Iterator[None]:
    """Run the block in evaluation mode and under one autocast; restore the modes after it."""
    modes = [(module, module.training) for module in policy.model.modules()]
    # in training mode, gradient checkpointing would drop the cache
    policy.model.eval()
    try:
        with torch.autocast(
            policy.device.type, dtype=policy.dtype, enabled=policy.dtype != torch.float32
        ):
            yield
    finally:
        for module, training in modes:
            module.training = training
