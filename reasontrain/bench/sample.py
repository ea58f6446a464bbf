"""Sampling of skewed lengths compared with transformers' `generate`; soft against hard thoughts.

Models have random weights. The length of each response is drawn beforehand, so that every
contestant samples the same number of tokens for each prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from reasontrain.bench.case import (
    BenchCase,
    BenchMachine,
    Contestant,
    Goal,
    Numbers,
    Setting,
    Variant,
    Work,
)
from reasontrain.bench.workload import (
    QWEN3_06B,
    QWEN3_4B,
    all_rows_are_tokens,
    drawn_lengths,
    qwen3,
    tokenizer,
)
from reasontrain.data.sampling import Sampling
from reasontrain.data.thought import HardThought, SoftThought, Thought
from reasontrain.models import Policy, Shape
from reasontrain.recipe import SampleSettings
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.stop_criteria import StopCriteria
from reasontrain.sampler.thought_decoding import ThoughtDecoding
from reasontrain.sampler.token_decoding import TokenDecoding
from reasontrain.types import Problem, Prompt

GROUPS = 16
GROUP_SIZE = 4
ROLLOUTS = GROUPS * GROUP_SIZE
FORCED = r"\boxed{"
"""Forced text after a thought."""


@dataclass(frozen=True, kw_only=True)
class SampleSize:
    """A model's shape, the most tokens a response may have, and the dtype of the weights."""

    shape: Shape
    limit: int
    dtype: torch.dtype

    def policy(self, device: torch.device) -> Policy:
        """A model with fixed random weights, and no end tokens of its own."""
        model = qwen3(self.shape, 0, device, self.dtype).eval().requires_grad_(False)
        model.generation_config = GenerationConfig()
        return all_rows_are_tokens(Policy(model, tokenizer(), self.dtype))

    @property
    def lengths(self) -> list[int]:
        """Lengths of the responses, in tokens."""
        return drawn_lengths(ROLLOUTS, self.limit).tolist()

    def settings(self) -> dict[str, Setting]:
        """The size, for the record."""
        return {
            "H": self.shape.hidden_size,
            "layers": self.shape.num_layers,
            "V": self.shape.vocab_size,
            "dtype": str(self.dtype).removeprefix("torch."),
            "rollouts": ROLLOUTS,
            "prompts": GROUPS,
            "prompt tokens": "32 to 96",
            "limit": self.limit,
            "mean length": round(sum(self.lengths) / ROLLOUTS, 1),
            "longest": max(self.lengths),
        }


SMALL = SampleSize(
    shape=Shape(
        hidden_size=256,
        intermediate_size=768,
        num_layers=6,
        num_heads=4,
        num_kv_heads=2,
        head_dim=64,
        vocab_size=8192,
        tied=True,
        qk_norm=True,
    ),
    limit=256,
    dtype=torch.float32,
)
"""The trunk, 4.7 million weights, is 2.3 times the head, about as in Qwen3-0.6B."""
SMALL_SOFT = replace(SMALL, shape=replace(SMALL.shape, vocab_size=2048), limit=128)
"""The trunk is nine times the head, as in Qwen3-4B; a mixture costs as much as the head."""
LARGE = SampleSize(shape=QWEN3_06B, limit=1024, dtype=torch.bfloat16)
LARGE_SOFT = replace(LARGE, shape=QWEN3_4B, limit=512)


def drawn_prompts(vocabulary: int) -> list[Prompt]:
    """Prompts of 32 to 96 random ids."""
    draw = torch.Generator().manual_seed(1)
    lengths = torch.randint(32, 97, (GROUPS,), generator=draw).tolist()
    ids = [torch.randint(vocabulary, (length,), generator=draw).tolist() for length in lengths]
    return [
        Prompt(problem=Problem(id=str(index), prompt=""), ids=tuple(each))
        for index, each in enumerate(ids)
    ]


def rows(machine: BenchMachine) -> Sequence[BenchCase]:
    """The cases: sampling compared with `generate`, and soft thoughts with hard ones."""
    if machine.device.type == "cuda":
        return [_skewed(LARGE, machine, 1 / 4), _soft(LARGE_SOFT, machine)]
    hard, soft = (
        replace(size, limit=size.limit // 4) if machine.quick else size
        for size in (SMALL, SMALL_SOFT)
    )
    return [_skewed(hard, machine, 1 / 1.5), _soft(soft, machine)]


def _skewed(size: SampleSize, machine: BenchMachine, at_most: float) -> BenchCase:
    batches = (ROLLOUTS,) if machine.quick else (ROLLOUTS, 32, 16)
    sampler_settings = [
        (rows, graphs)
        for rows in batches
        for graphs in ((False, True) if machine.device.type == "cuda" else (False,))
    ]
    generate_settings = [
        (batch, kind)
        for batch in batches
        for kind in (("dynamic",) if machine.quick else ("dynamic", "static"))
    ]
    return BenchCase(
        name="skewed",
        description="tokens sampled at temperature 1 to log-normal lengths with a mean of a third "
        "of the limit, cut at the limit",
        work=size.settings(),
        units=("tokens", float(sum(size.lengths))),
        subject=Contestant(
            name="reasontrain",
            variants=tuple(
                Variant(
                    settings={"rows": rows, "CUDA graphs": graphs},
                    setup=partial(_token_work, size, machine, rows, graphs),
                )
                for rows, graphs in sampler_settings
            ),
        ),
        peer=Contestant(
            name="transformers generate",
            variants=tuple(
                Variant(
                    settings={"batch": batch, "cache": kind},
                    setup=partial(_generate_work, size, machine, batch, kind),
                )
                for batch, kind in generate_settings
            ),
        ),
        tolerance=0.0,
        goals=(Goal(of="time", at_most=at_most),),
        remark="`generate` reads each prompt four times and pads rows that have ended; "
        "reasontrain gives log-probs too.",
    )


def _soft(size: SampleSize, machine: BenchMachine) -> BenchCase:
    thoughts: dict[str, Thought] = {
        "soft": SoftThought(max_tokens=size.limit, max_answer_tokens=1, late=FORCED),
        "hard": HardThought(max_tokens=size.limit, max_answer_tokens=1, late=FORCED),
    }
    soft, hard = (
        Contestant(
            name=f"{name} thoughts",
            variants=(Variant(settings={}, setup=partial(_thought_work, size, machine, thought)),),
        )
        for name, thought in thoughts.items()
    )
    return BenchCase(
        name="soft",
        description="thoughts of mixed embeddings with noise beside thoughts of tokens, both by "
        "reasontrain, to the same lengths",
        work=size.settings(),
        units=("tokens", float(sum(size.lengths))),
        subject=soft,
        peer=hard,
        tolerance=0.0,
        goals=(Goal(of="time", at_most=1.1),),
        remark="Nine tenths of the weights are the trunk's, as in Qwen3-4B; a mixture reads all "
        "embeddings once more.",
    )


@contextmanager
def _thought_work(size: SampleSize, machine: BenchMachine, thought: Thought) -> Iterator[Work]:
    """Thoughts of the drawn lengths; the fed embeddings are kept, as in training."""
    policy = size.policy(machine.device)
    prompts = drawn_prompts(size.shape.vocab_size)
    lengths = size.lengths
    sampler = LocalSampler(policy, seed=0, max_num_seqs=ROLLOUTS)
    no_stop = StopCriteria(frozenset(), (), policy.tokenizer)
    sampling = SampleSettings(max_tokens=2 * size.limit, thought=thought)

    def work() -> Numbers:
        decoding = ThoughtDecoding(policy, sampling, no_stop)
        sequences = decoding.start(prompts, num=GROUP_SIZE, first_id=0)
        for sequence, length in zip(sequences, lengths, strict=True):
            sequence.thought_steps_left = length
        rollouts = sampler.finish(sequences, decoding)
        return _numbers([len(rollout.response_ids) for rollout in rollouts])

    yield work


@contextmanager
def _token_work(
    size: SampleSize, machine: BenchMachine, max_num_seqs: int, graphs: bool
) -> Iterator[Work]:
    """Sequences that end exactly at the drawn lengths, which are their budgets."""
    policy = size.policy(machine.device)
    prompts = drawn_prompts(size.shape.vocab_size)
    lengths = size.lengths
    sampler = LocalSampler(policy, seed=0, max_num_seqs=max_num_seqs, cuda_graphs=graphs)
    no_stop = StopCriteria(frozenset(), (), policy.tokenizer)

    def work() -> Numbers:
        decoding = TokenDecoding(policy, Sampling(max_tokens=size.limit), no_stop)
        sequences = decoding.start(prompts, num=GROUP_SIZE, first_id=0)
        for sequence, length in zip(sequences, lengths, strict=True):
            sequence.budget = length
        rollouts = sampler.finish(sequences, decoding)
        return _numbers([len(rollout.response_ids) for rollout in rollouts])

    yield work


class _AtLength(StoppingCriteria):
    """End each sequence of `generate` at its drawn length.

    `generate` pads ended sequences only if there is an end token; this one is never sampled.
    """

    def __init__(
        self, width: int, lengths: Sequence[int], vocabulary: int, device: torch.device
    ) -> None:
        self.end_N = width + torch.tensor(lengths, device=device)
        self.eos_token_id = torch.tensor([vocabulary], device=device)

    def __call__(self, input_ids: Int[Tensor, "N S"], scores: object) -> Bool[Tensor, " N"]:
        return input_ids.shape[1] >= self.end_N


@contextmanager
def _generate_work(
    size: SampleSize, machine: BenchMachine, batch: int, kind: str
) -> Iterator[Work]:
    """`generate` on batches in the order of the rollouts, as if lengths were unknown."""
    policy = size.policy(machine.device)
    prompts = drawn_prompts(size.shape.vocab_size)
    lengths = size.lengths
    padding = size.shape.vocab_size - 1
    config = GenerationConfig(
        do_sample=True,
        top_k=0,
        max_new_tokens=size.limit,
        pad_token_id=padding,
        cache_implementation=kind,
    )
    all_ids = [prompt.ids for prompt in prompts for _ in range(GROUP_SIZE)]

    def work() -> Numbers:
        torch.manual_seed(0)
        num_tokens: list[int] = []
        for start in range(0, ROLLOUTS, batch):
            batch_ids = all_ids[start : start + batch]
            ends = lengths[start : start + batch]
            width = max(map(len, batch_ids))
            ids = torch.tensor(
                [[padding] * (width - len(p)) + list(p) for p in batch_ids], device=machine.device
            )
            mask = torch.tensor(
                [[0] * (width - len(p)) + [1] * len(p) for p in batch_ids], device=machine.device
            )
            criteria = StoppingCriteriaList(
                [_AtLength(width, ends, size.shape.vocab_size, machine.device)]
            )
            out = policy.model.generate(
                ids, attention_mask=mask, generation_config=config, stopping_criteria=criteria
            )
            num_tokens += [
                len(row) - (row.flip(0) != padding).int().argmax().item()
                for row in out[:, width:].cpu()
            ]
        return _numbers(num_tokens)

    yield work


def _numbers(lengths: Sequence[int]) -> Numbers:
    """The number of tokens of each rollout, by name."""
    return {f"tokens of rollout {index}": float(length) for index, length in enumerate(lengths)}
