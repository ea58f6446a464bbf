"""Sampling with vLLM 0.32: token ids in and out, and weight updates while the engine runs.

A colocated engine releases its GPU memory between two steps.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from reasontrain import models, rng
from reasontrain.data.sampling import Sampling
from reasontrain.environments import Runners
from reasontrain.metrics.working import working
from reasontrain.models import ModelSettings
from reasontrain.recipe import VllmEngine
from reasontrain.rng import Stream
from reasontrain.sampler.episodes import sample_episodes
from reasontrain.sampler.sequence import SequenceState, start_sequences
from reasontrain.sampler.vllm_engine import (
    Library,
    Output,
    check_platform,
    counted,
    end_engine,
    installed,
    reason,
    start_engine,
)
from reasontrain.sampler.vllm_weight_transfer import WeightTransfer
from reasontrain.types import (
    EngineLostError,
    Prompt,
    Rollout,
    RunError,
    UserError,
    Weights,
)

HEAD = "lm_head.weight"


class VllmSampler:
    """Sample with one vLLM engine: on the first `tensor_parallel_size` GPUs of this process, or on
    the CPU if vLLM is built for CPUs.

    It starts with the weights at `model.path` and version 0. A rollout's random numbers are a
    function of (seed, rollout id, index in the response); the other sequences of its batch change
    it only where a rounding error decides between two tokens. If sampling truncates (and is not
    greedy), vLLM cannot report log-probs before truncation, and rollouts have none.

    A `colocated` engine shares its devices with a learner. On GPUs, `sleep` releases all memory
    except the CUDA contexts, and the next `load` allocates it again. This process holds a buffer on
    each device only while weights are loaded.
    """

    def __init__(
        self,
        model: ModelSettings,
        settings: VllmEngine,
        *,
        seed: int,
        colocated: bool = False,
        library: Library | None = None,
    ) -> None:
        """Start the engine, which takes minutes for a large model.

        Args:
            model: the weights to start from.
            settings: the engine's settings.
            seed: seed of the random numbers that choose tokens.
            colocated: a learner uses the same GPUs.
            library: vLLM; tests pass a fake.

        Raises:
            UserError: vLLM is not installed, does not support the model, or the settings do not fit
                the model or the machine.
            RunError: the engine does not start for another reason.
        """
        if library is None:
            library = installed()
            check_platform(library, model)
        self.library = library
        description = models.describe(model)
        config = description.config.get_text_config()
        heads = int(config.num_attention_heads)
        if heads % settings.tensor_parallel_size:
            raise UserError(
                f"tensor_parallel_size {settings.tensor_parallel_size} does not divide the "
                f"{heads} heads of {model.path}"
            )
        if (settings.max_model_len or 0) > description.context:
            raise UserError(
                f"max_model_len {settings.max_model_len} is longer than the context of "
                f"{model.path}, which is {description.context}"
            )
        self.settings = settings
        self.tokenizer = description.tokenizer
        self.stop_ids = description.stop_ids
        self.num_parameters = description.num_parameters
        self.context = min(description.context, settings.max_model_len or description.context)
        self.tied = bool(config.tie_word_embeddings)
        self.seed = seed
        self.colocated = colocated
        self.asleep = False
        self.version = 0
        self.environments = Runners()
        self.dtype: torch.dtype = getattr(torch, model.dtype)
        self.devices = self.library.devices(settings.tensor_parallel_size)
        # False while some weights are of another version than others
        self.is_loaded = True
        with models.located(model.path) as path:
            if self.tied:
                models.check_tied_files(Path(path), model.path)
            if colocated and not self.library.cpu:
                give_back_memory()
            self.engine = start_engine(
                self.library, path, model, description, settings, colocated=colocated
            )

    @property
    def device(self) -> torch.device:
        """The engine's first GPU, or the CPU."""
        return self.devices[0].device

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        """Sample `num` rollouts of every prompt (see `Sampler`).

        Args:
            prompts: the encoded prompts, without images.
            sampling: temperature, truncation and stop criteria.
            num: rollouts per prompt.
            first_id: the id of the first rollout.

        Returns:
            `len(prompts) * num` rollouts, prompt by prompt. A response is truncated where prompt
            and response fill the engine's context.

        Raises:
            UserError: a prompt leaves no room for a response, or vLLM does not support the
                temperature.
            RunError: vLLM fails on a rollout, or the last `load` failed.
            EngineLostError: a process of the engine died.
        """
        assert not self.asleep, "the engine sleeps and has no weights; `load` wakes it"
        if not self.is_loaded:
            raise RunError("the last update of vLLM's weights failed, so they are of no version")
        if reason := self.settings.unsupported_temperature(sampling):
            raise UserError(f"temperature: {reason}")
        if sampling.environment is not None:
            return sample_episodes(self, prompts, sampling, num=num, first_id=first_id)
        sequences = start_sequences(
            prompts,
            num=num,
            first_id=first_id,
            max_tokens=sampling.max_tokens,
            context=self.context,
        )
        self.complete(sequences, sampling)
        return [sequence.rollout(self.tokenizer) for sequence in sequences]

    def complete(self, sequences: Sequence[SequenceState], sampling: Sampling) -> None:
        """Decode sequences until all of them are done (see `episodes.TurnSampler`).

        vLLM's prefix cache holds what a conversation has in common with its last turn.
        """
        if not sequences:
            return
        requests = [{"prompt_token_ids": list(sequence.prompt.ids)} for sequence in sequences]
        params = self._sampling_params(sequences, sampling)
        at_once = len(sequences) <= self.settings.max_num_seqs
        longest = max(sequence.budget for sequence in sequences) if at_once else None
        with (
            working(f"sampling {len(sequences):,} responses", "tokens") as work,
            counted(self.engine, work, longest),
            self._errors_while("sampling", can_go_on=False),
        ):
            outputs = self.engine.generate(requests, params, use_tqdm=False)
        for sequence, output in zip(sequences, outputs, strict=True):
            _fill(sequence, output)

    def load(self, weights: Weights) -> None:
        """Replace the weights of the engine, waking it first, and clear its prefix cache.

        After a failure the engine can be loaded again.

        Raises:
            RunError: vLLM does not accept the weights.
            EngineLostError: a process of the engine died.
        """
        if self.asleep:
            give_back_memory()
            with self._errors_while("taking memory"):
                self.engine.wake_up(tags=["weights"])
        self.is_loaded = False
        self._replace_weights(weights)
        with self._errors_while("clearing its cache"):
            if self.asleep:
                # after the weights: with the cache in place, the transfer buffers may not fit
                give_back_memory()  # those buffers, and what the learner gathered
                self.engine.wake_up(tags=["kv_cache"])
            elif not self.engine.reset_prefix_cache():
                # keys and values of prompts were computed with the old weights
                raise RunError(
                    "vLLM did not reset its prefix cache, so prompts would use old weights"
                )
        self.asleep = False
        self.is_loaded = True
        self.version = weights.version

    def sleep(self) -> None:
        """Release the GPU memory until the next `load`; on a CPU vLLM has no such mode."""
        assert self.colocated, "an engine with its own devices has no reason to sleep"
        if not self.asleep and not self.library.cpu:
            # level 1 would keep the old weights in main memory, and `load` brings new ones anyway
            with self._errors_while("releasing its memory"):
                self.engine.sleep(level=2)
            self.asleep = True

    def _replace_weights(self, weights: Weights) -> None:
        """Send all weights, one buffer at a time."""
        transfer = WeightTransfer(self.devices, self.dtype)
        num_bytes = 0
        with self._errors_while("loading weights"):
            self.engine.start_weight_update()
        try:
            for update in transfer.updates(self._without_tied_head(weights)):
                with self._errors_while("loading weights"):
                    self.engine.update_weights({"update_info": update})
                num_bytes += sum(update["tensor_sizes"])
            # vLLM silently keeps the old values of weights that were not sent
            num_sent = num_bytes // self.dtype.itemsize
            if num_sent < self.num_parameters:
                raise RunError(
                    f"{num_sent} numbers were sent to vLLM for a model of {self.num_parameters} "
                    "parameters"
                )
        except BaseException:
            if self._is_alive():  # an open update would refuse the next one
                self.engine.collective_rpc("close_weight_update")
            raise
        finally:
            transfer.close()
        with self._errors_while("loading weights"):
            self.engine.finish_weight_update(weight_version=str(weights.version))

    def _without_tied_head(self, weights: Weights) -> Iterator[tuple[str, Tensor]]:
        """The weights; a head of its own is refused where vLLM's is the embedding.

        The learner sends a head only if it is not the embedding's own tensor.
        """
        for name, tensor in weights.tensors():
            if self.tied and name == HEAD:
                raise RunError(
                    "the head is trained apart from the embeddings, and config.json ties the two "
                    "(tie_word_embeddings), so vLLM has one matrix for both; set "
                    "tie_word_embeddings to false in it, or use the local engine"
                )
            yield name, tensor

    def close(self) -> None:
        """End the engine and its processes; the sampler cannot be used any more."""
        self.environments.close()
        end_engine(self.engine)

    @contextmanager
    def _errors_while(self, action: str, *, can_go_on: bool = True) -> Iterator[None]:
        """Turn errors of vLLM into one that says what it was doing.

        Args:
            action: what vLLM is doing, for the message.
            can_go_on: after an error the engine is as it was before.

        Raises:
            RunError: vLLM failed, and can be used again.
            EngineLostError: vLLM failed and cannot be used again, or one of its processes died.
        """
        try:
            yield
        except (UserError, RunError):
            raise
        except Exception as error:
            if not self._is_alive():
                raise EngineLostError(
                    f"a process of vLLM died while {action} (signal 9 is what the system sends "
                    f"when memory runs out): {reason(error)}"
                ) from error
            message = f"vLLM failed while {action}: {reason(error)}"
            # requests of a call that failed are still in the engine, which would go on with them
            raise (RunError if can_go_on else EngineLostError)(message) from error

    def _is_alive(self) -> bool:
        """True if all workers answer."""
        try:
            self.engine.collective_rpc("check_health")
        except Exception:  # what vLLM raises depends on how far it is in ending the others
            return False
        return True

    def _sampling_params(
        self, sequences: Sequence[SequenceState], sampling: Sampling
    ) -> list[object]:
        """vLLM's parameters of each rollout, which differ in seed and token budget."""
        stop_ids = sorted(self.stop_ids | frozenset(sampling.stop_ids))
        has_logp = sampling.temperature == 0 or not sampling.truncates
        rollout_seeds = seeds(
            self.seed,
            [sequence.id for sequence in sequences],
            [sequence.start for sequence in sequences],
        )
        return [
            self.library.params(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                min_p=sampling.min_p,
                seed=seed,
                max_tokens=sequence.budget,
                stop=list(sampling.stop),
                stop_token_ids=stop_ids,
                logprobs=0 if has_logp else None,  # 0: only of the sampled token
                flat_logprobs=True,
                detokenize=bool(sampling.stop),
                skip_special_tokens=False,  # in stop texts, special tokens count as their text
            )
            for sequence, seed in zip(sequences, rollout_seeds, strict=True)
        ]


def give_back_memory() -> None:
    """Return memory that this process has cached to the GPU, where an engine can take it.

    After a step the learner's allocator holds the peak of its backward pass, most of it unused. An
    engine is another process: to it that memory is taken, and it would not start or wake up.
    """
    gc.collect()  # tensors in cycles of references are still in use
    torch.cuda.empty_cache()


def seeds(seed: int, rollouts: Sequence[int], starts: Sequence[int]) -> list[int]:
    """One seed of 53 bits per turn: of a rollout id, and of a place in it that is not its start."""
    rollout_N = torch.tensor(rollouts)
    start_N = torch.tensor(starts)
    first_N = rng.uniform(seed, Stream.VLLM_SEEDS, rollout_N)
    later_N = rng.uniform(seed, Stream.VLLM_TURN_SEEDS, rollout_N, start_N)
    numbers: list[int] = (torch.where(start_N == 0, first_N, later_N) * 2.0**53).long().tolist()
    return numbers


def _fill(sequence: SequenceState, output: Output) -> None:
    """Copy a response of vLLM into a sequence."""
    assert tuple(output.prompt_token_ids or ()) == sequence.prompt.ids, (
        "vLLM answered another prompt"
    )
    (completion,) = output.outputs
    if completion.finish_reason not in ("stop", "length"):
        raise RunError(
            f"vLLM ended rollout {sequence.id} for the reason {completion.finish_reason!r}; see "
            f"its log above"
        )
    sequence.response = list(completion.token_ids)
    sequence.stopped = completion.finish_reason == "stop"
    if completion.logprobs is not None:
        assert list(completion.logprobs.token_ids) == sequence.response, (
            "vLLM's log-probs are of other tokens"
        )
        sequence.logp = list(completion.logprobs.logprobs)
    for index, logp in enumerate(sequence.logp):
        sequence.check_finite(logp, index)
