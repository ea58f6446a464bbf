"""Rollouts of skewed lengths beside transformers' `generate`, and soft thoughts beside hard ones,
on random weights.

How long each response is gets drawn beforehand, so that every side samples the same number of
tokens for each prompt.
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
from reasontrain.bench.workload import QWEN3_06B, QWEN3_4B, drawn_lengths, qwen3, tokenizer
from reasontrain.data.sampling import Sampling
from reasontrain.data.thought import HardThought, SoftThought, Thought
from reasontrain.models import Policy, Shape
from reasontrain.recipe import SampleSettings
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.stop_criteria import StopCriteria
from reasontrain.sampler.thought_decoding import ThoughtDecoding
from reasontrain.sampler.token_decoding import TokenDecoding
from reasontrain.types import Problem, Prompt

GROUPS, GROUP_SIZE = 16, 4
ROLLOUTS = GROUPS * GROUP_SIZE
FORCED = r"\boxed{"
"""What follows a thought."""


@dataclass(frozen=True, kw_only=True)
class SampleSize:
    """A model's shape, the most tokens a response may have, and the dtype of the weights."""

    shape: Shape
    limit: int
    dtype: torch.dtype

    def policy(self, device: torch.device) -> Policy:
        """Random weights, always the same, which say nothing about where a response ends."""
        model = qwen3(self.shape, 0, device, self.dtype).eval().requires_grad_(False)
        model.generation_config = GenerationConfig()
        return Policy(model, tokenizer(), self.dtype)

    @property
    def lengths(self) -> list[int]:
        """Of the responses."""
        return drawn_lengths(ROLLOUTS, self.limit).tolist()

    def settings(self) -> dict[str, Setting]:
        """As the record has it."""
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
"""A trunk of 4.7 million weights is 2.3 times its head, about as in Qwen3-0.6B."""
SMALL_SOFT = replace(SMALL, shape=replace(SMALL.shape, vocab_size=2048), limit=128)
"""A trunk of nine times its head, as in Qwen3-4B: a mixture costs as many products as the head."""
LARGE = SampleSize(shape=QWEN3_06B, limit=1024, dtype=torch.bfloat16)
LARGE_SOFT = replace(LARGE, shape=QWEN3_4B, limit=512)


def drawn_prompts(vocabulary: int) -> list[Prompt]:
    """Random ids, 32 to 96 of them."""
    draw = torch.Generator().manual_seed(1)
    lengths = torch.randint(32, 97, (GROUPS,), generator=draw).tolist()
    ids = [torch.randint(vocabulary, (length,), generator=draw).tolist() for length in lengths]
    return [
        Prompt(problem=Problem(id=str(index), prompt=""), ids=tuple(each))
        for index, each in enumerate(ids)
    ]


def rows(place: BenchMachine) -> Sequence[BenchCase]:
    """Beside `generate`, and soft beside hard."""
    if place.device.type == "cuda":
        return [_skewed(LARGE, place, 1 / 4), _soft(LARGE_SOFT, place)]
    hard, soft = (
        replace(size, limit=size.limit // 4) if place.quick else size
        for size in (SMALL, SMALL_SOFT)
    )
    return [_skewed(hard, place, 1 / 1.5), _soft(soft, place)]


def _skewed(size: SampleSize, place: BenchMachine, at_most: float) -> BenchCase:
    batches = (ROLLOUTS,) if place.quick else (ROLLOUTS, 32, 16)
    ours = [
        (rows, graphs)
        for rows in batches
        for graphs in ((False, True) if place.device.type == "cuda" else (False,))
    ]
    theirs = [
        (batch, kind)
        for batch in batches
        for kind in (("dynamic",) if place.quick else ("dynamic", "static"))
    ]
    return BenchCase(
        name="skewed",
        what="tokens drawn at temperature 1, to log-normal lengths with a mean of a third of "
        "the limit, cut there",
        work=size.settings(),
        units=("tokens", float(sum(size.lengths))),
        ours=Contestant(
            name="reasontrain",
            ways=tuple(
                Variant(
                    settings={"rows": rows, "CUDA graphs": graphs},
                    ready=partial(_speaks, size, place, rows, graphs),
                )
                for rows, graphs in ours
            ),
        ),
        peer=Contestant(
            name="transformers generate",
            ways=tuple(
                Variant(
                    settings={"batch": batch, "cache": kind},
                    ready=partial(_generates, size, place, batch, kind),
                )
                for batch, kind in theirs
            ),
        ),
        tolerance=0.0,
        goals=(Goal(of="time", at_most=at_most),),
        remark="`generate` sees each prompt four times and pads rows that have ended; ours gives "
        "log-probs too.",
    )


def _soft(size: SampleSize, place: BenchMachine) -> BenchCase:
    thoughts: dict[str, Thought] = {
        "soft": SoftThought(max_tokens=size.limit, max_answer_tokens=1, late=FORCED),
        "hard": HardThought(max_tokens=size.limit, max_answer_tokens=1, late=FORCED),
    }
    soft, hard = (
        Contestant(
            name=f"{name} thoughts",
            ways=(Variant(settings={}, ready=partial(_thinks, size, place, thought)),),
        )
        for name, thought in thoughts.items()
    )
    return BenchCase(
        name="soft",
        what="thoughts of mixed embeddings with noise beside thoughts of tokens, both by "
        "reasontrain, to the same lengths",
        work=size.settings(),
        units=("tokens", float(sum(size.lengths))),
        ours=soft,
        peer=hard,
        tolerance=0.0,
        goals=(Goal(of="time", at_most=1.1),),
        remark="Nine tenths of the weights are the trunk's, as in Qwen3-4B; a mixture reads all "
        "embeddings once more.",
    )


@contextmanager
def _thinks(size: SampleSize, place: BenchMachine, thought: Thought) -> Iterator[Work]:
    """Lengths are those of thoughts; what was fed is kept, as it is for training."""
    policy, prompts, lengths = (
        size.policy(place.device),
        drawn_prompts(size.shape.vocab_size),
        size.lengths,
    )
    sampler = LocalSampler(policy, seed=0, max_num_seqs=ROLLOUTS)
    never = StopCriteria(frozenset(), (), policy.tokenizer)
    sampling = SampleSettings(max_tokens=2 * size.limit, thought=thought)

    def work() -> Numbers:
        step = ThoughtDecoding(policy, sampling, never)
        begun = step.start(prompts, num=GROUP_SIZE, first_id=0)
        for row, length in zip(begun, lengths, strict=True):
            row.thought_steps_left = length
        return _numbers([len(rollout.response_ids) for rollout in sampler.finish(begun, step)])

    yield work


@contextmanager
def _speaks(
    size: SampleSize, place: BenchMachine, max_num_seqs: int, graphs: bool
) -> Iterator[Work]:
    """Lengths are budgets of rows, and nothing else ends one."""
    policy, prompts, lengths = (
        size.policy(place.device),
        drawn_prompts(size.shape.vocab_size),
        size.lengths,
    )
    sampler = LocalSampler(policy, seed=0, max_num_seqs=max_num_seqs, cuda_graphs=graphs)
    never = StopCriteria(frozenset(), (), policy.tokenizer)

    def work() -> Numbers:
        step = TokenDecoding(policy, Sampling(max_tokens=size.limit), never)
        begun = step.start(prompts, num=GROUP_SIZE, first_id=0)
        for row, length in zip(begun, lengths, strict=True):
            row.budget = length
        return _numbers([len(rollout.response_ids) for rollout in sampler.finish(begun, step)])

    yield work


class _AtLength(StoppingCriteria):
    """Ends each row at its drawn length, in `generate`; an id that is never drawn makes it pad what
    is ended.
    """

    def __init__(
        self, width: int, lengths: Sequence[int], vocabulary: int, device: torch.device
    ) -> None:
        self.end_N = width + torch.tensor(lengths, device=device)
        self.eos_token_id = torch.tensor([vocabulary], device=device)

    def __call__(self, input_ids: Int[Tensor, "N S"], scores: object) -> Bool[Tensor, " N"]:
        return input_ids.shape[1] >= self.end_N


@contextmanager
def _generates(size: SampleSize, place: BenchMachine, batch: int, kind: str) -> Iterator[Work]:
    """Batches in the order of the rollouts, as their lengths are not known beforehand."""
    policy, prompts, lengths = (
        size.policy(place.device),
        drawn_prompts(size.shape.vocab_size),
        size.lengths,
    )
    padding = size.shape.vocab_size - 1
    config = GenerationConfig(
        do_sample=True,
        top_k=0,
        max_new_tokens=size.limit,
        pad_token_id=padding,
        cache_implementation=kind,
    )
    every = [prompt.ids for prompt in prompts for _ in range(GROUP_SIZE)]

    def work() -> Numbers:
        torch.manual_seed(0)
        found: list[int] = []
        for start in range(0, ROLLOUTS, batch):
            some, ends = every[start : start + batch], lengths[start : start + batch]
            width = max(map(len, some))
            ids = torch.tensor(
                [[padding] * (width - len(p)) + list(p) for p in some], device=place.device
            )
            mask = torch.tensor(
                [[0] * (width - len(p)) + [1] * len(p) for p in some], device=place.device
            )
            criteria = StoppingCriteriaList(
                [_AtLength(width, ends, size.shape.vocab_size, place.device)]
            )
            out = policy.model.generate(
                ids, attention_mask=mask, generation_config=config, stopping_criteria=criteria
            )
            found += [
                len(row) - (row.flip(0) != padding).int().argmax().item()
                for row in out[:, width:].cpu()
            ]
        return _numbers(found)

    yield work


def _numbers(lengths: Sequence[int]) -> Numbers:
    """How many tokens each rollout has."""
    return {f"tokens of rollout {index}": float(length) for index, length in enumerate(lengths)}
