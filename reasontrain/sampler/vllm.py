"""Sampling with vLLM 0.31: token ids in and out, weights replaced while the engine runs, memory
given up between two steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from reasontrain import models, rng
from reasontrain.data.sampling import Sampling
from reasontrain.models import ModelSettings
from reasontrain.recipe import VllmEngine
from reasontrain.recipe.engines import unsampleable
from reasontrain.rng import Stream
from reasontrain.sampler.sequence import DecodingSequence, begin
from reasontrain.sampler.vllm_engine import Library, Output, installed, start
from reasontrain.sampler.vllm_weight_transfer import WeightTransfer
from reasontrain.types import Prompt, Rollout, RunError, UserError, Weights


class VllmSampler:
    """Samples with one engine on `settings.tensor_parallel_size` GPUs, those that this process sees
    first.

    It begins with the weights at `model.path` and version 0. A rollout's random numbers are a
    function of (seed, rollout id, place); the company it keeps can change it where rounding decides
    between two tokens. Where the sampling law truncates (and is not greedy), vLLM has no log-probs
    as `sampled_logp` wants them, and rollouts carry none.

    `colocated` says that a learner uses the same GPUs: `sleep` then gives up all memory but for
    what CUDA itself takes, and the next `load` takes it again. In this process a buffer on each GPU
    exists only while weights are loaded.
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
        """Start the engine, which takes minutes for a large model; raises UserError where the
        settings do not fit the model.
        """
        described = models.describe(model)
        heads = int(described.config.get_text_config().num_attention_heads)
        if heads % settings.tensor_parallel_size:
            raise UserError(
                f"sample.engine.tensor_parallel_size {settings.tensor_parallel_size} does "
                f"not divide the model's {heads} heads"
            )
        self.tokenizer, self.stop_ids, self.num_parameters = (
            described.tokenizer,
            described.stop_ids,
            described.num_parameters,
        )
        self.context = min(described.context, settings.max_model_len or described.context)
        self.tied = bool(described.config.get_text_config().tie_word_embeddings)
        self.seed, self.colocated, self.asleep, self.version = seed, colocated, False, 0
        self.dtype: torch.dtype = getattr(torch, model.dtype)
        self.library = library or installed()
        self.gpus = self.library.gpus(settings.tensor_parallel_size)
        with models.located(model.path) as path:
            self.engine = start(self.library, path, model, settings, colocated=colocated)

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        """`num` rollouts of every prompt, prompt by prompt (see `Sampler`).

        A response is cut where prompt and response fill the engine's context. Raises UserError for
        a prompt that leaves no room.
        """
        assert not self.asleep, "the engine sleeps and has no weights; `load` wakes it"
        if reason := unsampleable(sampling):
            raise UserError(f"temperature: {reason}")
        rows = begin(
            prompts,
            num=num,
            first_id=first_id,
            max_tokens=sampling.max_tokens,
            context=self.context,
        )
        if not rows:
            return []
        asked = [{"prompt_token_ids": list(row.prompt.ids)} for row in rows]
        outputs = self.engine.generate(asked, self._params(rows, sampling), use_tqdm=False)
        for row, output in zip(rows, outputs, strict=True):
            _fill(row, output)
        return [row.rollout(self.tokenizer) for row in rows]

    def load(self, weights: Weights) -> None:
        """Hand these weights to the running engine, waking it first; what it remembers of prompts
        is forgotten.
        """
        if self.asleep:
            self.engine.wake_up(tags=["weights"])
        self._replace(weights)
        if self.asleep:
            self.engine.wake_up(
                tags=["kv_cache"]
            )  # not before: with it there may be no room for the buffers
        elif not self.engine.reset_prefix_cache():
            raise RunError("vLLM would not forget the prompts that it read with older weights")
        self.asleep, self.version = False, weights.version

    def sleep(self) -> None:
        """Give up the GPUs until the next `load`."""
        assert self.colocated, "an engine with GPUs of its own has nobody to make room for"
        if not self.asleep:
            self.engine.sleep(
                level=2
            )  # level 1 would keep the weights in main memory, and new ones come anyway
            self.asleep = True

    def _replace(self, weights: Weights) -> None:
        """Every weight, a buffer at a time."""
        courier = WeightTransfer(self.gpus, self.dtype)
        num_bytes = 0
        self.engine.start_weight_update()
        for update in courier.updates(self._untied(weights)):
            self.engine.update_weights({"update_info": update})
            num_bytes += sum(update["tensor_sizes"])
        found = num_bytes // self.dtype.itemsize  # vLLM would leave what is missing as it was
        assert found >= self.num_parameters, (
            f"{found} numbers came for a model of {self.num_parameters} parameters"
        )
        self.engine.finish_weight_update(weight_version=str(weights.version))
        courier.close()

    def _untied(self, weights: Weights) -> Iterator[tuple[str, Tensor]]:
        """The weights, without a head that is the embedding."""
        return (
            (name, tensor)
            for name, tensor in weights.tensors()
            if not (self.tied and name == "lm_head.weight")
        )

    def _params(self, rows: Sequence[DecodingSequence], sampling: Sampling) -> list[object]:
        """vLLM's parameters of each rollout, which differ by seed and room."""
        stop_ids = sorted(self.stop_ids | frozenset(sampling.stop_ids))
        has_logp = sampling.temperature == 0 or not sampling.truncates
        return [
            self.library.params(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                min_p=sampling.min_p,
                seed=seed,
                max_tokens=row.budget,
                stop=list(sampling.stop),
                stop_token_ids=stop_ids,
                logprobs=0 if has_logp else None,  # of the chosen token alone
                flat_logprobs=True,
                detokenize=bool(sampling.stop),
                skip_special_tokens=False,  # in stop texts, special tokens count as their text
            )
            for row, seed in zip(rows, seeds(self.seed, [row.id for row in rows]), strict=True)
        ]


def seeds(seed: int, rollouts: Sequence[int]) -> list[int]:
    """One seed per rollout id, of 53 bits."""
    numbers: list[int] = (
        (rng.uniform(seed, Stream.VLLM_SEEDS, torch.tensor(rollouts)) * 2.0**53).long().tolist()
    )
    return numbers


def _fill(row: DecodingSequence, output: Output) -> None:
    """Write what vLLM answered into a row."""
    assert tuple(output.prompt_token_ids or ()) == row.prompt.ids, "vLLM answered another prompt"
    (completion,) = output.outputs
    if completion.finish_reason not in ("stop", "length"):
        raise RunError(
            f"vLLM ended rollout {row.id} for the reason {completion.finish_reason!r}; see "
            f"its log above"
        )
    row.response, row.ended = list(completion.token_ids), completion.finish_reason == "stop"
    if completion.logprobs is not None:
        assert list(completion.logprobs.token_ids) == row.response, (
            "vLLM's log-probs are of other tokens"
        )
        row.logp = list(completion.logprobs.logprobs)
    for place, logp in enumerate(row.logp):
        row.check(logp, place)
