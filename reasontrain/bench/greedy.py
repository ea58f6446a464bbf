"""Greedy responses of a pre-trained model: the local sampler beside `generate` and vLLM.

Every response has the same number of tokens: end tokens do not end it. The responses of two
contestants must be equal, or part at two tokens between which rounding decides.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec

import torch
from transformers import GenerationConfig

from reasontrain import models
from reasontrain.bench import pretrained
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
from reasontrain.bench.workload import all_rows_are_tokens
from reasontrain.data.sampling import Sampling
from reasontrain.models import ModelSettings, Policy
from reasontrain.recipe import VllmEngine
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.stop_criteria import StopCriteria
from reasontrain.sampler.token_decoding import TokenDecoding
from reasontrain.sampler.vllm import VllmSampler
from reasontrain.types import Prompt, RunError

logger = logging.getLogger(__name__)

PROMPTS = 16
TOKENS = 64
QUICK_TOKENS = 32
REASONTRAIN = "reasontrain"
GENERATE = "transformers generate"
VLLM = "vLLM"
SHOWN = 5
"""The most responses that are listed."""

Responses = list[list[int]]


@dataclass(frozen=True, kw_only=True)
class GreedyWorkload:
    """The model, the prompts, and the number of tokens of every response.

    `source` names the file of the prompts. `responses` has the ids of each contestant's last run,
    by the contestant's name.
    """

    model: ModelSettings
    prompts: tuple[Prompt, ...]
    tokens: int
    source: str
    responses: dict[str, Responses] = field(default_factory=dict)

    def policy(self) -> Policy:
        """The model, frozen and without end tokens of its own."""
        policy = all_rows_are_tokens(models.load(self.model))
        policy.model.generation_config = GenerationConfig()
        return policy

    def settings(self) -> dict[str, Setting]:
        """The size, for the record."""
        lengths = [len(prompt.ids) for prompt in self.prompts]
        return {
            "model": pretrained.label(self.model),
            "dtype": self.model.dtype,
            "problems": self.source,
            "prompts": len(self.prompts),
            "prompt tokens": f"{min(lengths)} to {max(lengths)}",
            "tokens of a response": self.tokens,
        }

    def keep(self, name: str, responses: Responses) -> Numbers:
        """Keep the responses of a contestant, and return their number of tokens."""
        self.responses[name] = responses
        return {"tokens": float(sum(map(len, responses)))}


def rows(machine: BenchMachine) -> Sequence[BenchCase]:
    """The cases: beside `generate`, and beside vLLM if it is installed."""
    model = pretrained.model_of(machine)
    encoder = pretrained.encoder(model)
    problems = pretrained.task(machine, PROMPTS).problems()[:PROMPTS]
    workload = GreedyWorkload(
        model=model,
        prompts=tuple(encoder.prompt(problem) for problem in problems),
        tokens=QUICK_TOKENS if machine.quick else TOKENS,
        source=pretrained.problem_file(machine).name,
    )
    cases = [_case(workload, "greedy", _generate(workload, machine), "It pads prompts.")]
    if find_spec("vllm") is None:
        logger.warning(
            "sample: the case beside vLLM is left out, because vLLM is not installed here"
        )
        return cases
    remark = (
        "vLLM reserves its key-value cache when it starts, so a run adds little: compare the "
        "resident memory."
    )
    return [*cases, _case(workload, "greedy, vllm", _vllm(workload), remark)]


def _case(workload: GreedyWorkload, name: str, peer: Contestant, remark: str) -> BenchCase:
    return BenchCase(
        name=name,
        description="the likeliest tokens after real prompts, the same number for each",
        work=workload.settings(),
        units=("tokens", float(len(workload.prompts) * workload.tokens)),
        subject=Contestant(
            name=REASONTRAIN,
            variants=(Variant(settings={}, setup=partial(reasontrain_work, workload)),),
        ),
        peer=peer,
        tolerance=0.0,
        goals=(Goal(of="time", at_most=1.0),),
        remark=f"{remark} reasontrain gives log-probs too.",
        is_long=True,
        after=lambda: compared(workload, peer.name),
    )


def _generate(workload: GreedyWorkload, machine: BenchMachine) -> Contestant:
    num = len(workload.prompts)
    return Contestant(
        name=GENERATE,
        variants=tuple(
            Variant(settings={"batch": batch}, setup=partial(generate_work, workload, batch))
            for batch in ((num,) if machine.quick else (num, num // 2))
        ),
    )


def _vllm(workload: GreedyWorkload) -> Contestant:
    return Contestant(
        name=VLLM, variants=(Variant(settings={}, setup=partial(vllm_work, workload)),)
    )


@contextmanager
def reasontrain_work(workload: GreedyWorkload) -> Iterator[Work]:
    """The local sampler, all prompts at once."""
    policy = workload.policy()
    sampler = LocalSampler(policy, seed=0, max_num_seqs=len(workload.prompts))
    no_stop = StopCriteria(frozenset(), (), policy.tokenizer)
    sampling = Sampling(temperature=0.0, max_tokens=workload.tokens)

    def work() -> Numbers:
        decoding = TokenDecoding(policy, sampling, no_stop)
        sequences = decoding.start(workload.prompts, num=1, first_id=0)
        rollouts = sampler.finish(sequences, decoding)
        return workload.keep(REASONTRAIN, [list(rollout.response_ids) for rollout in rollouts])

    yield work


@contextmanager
def generate_work(workload: GreedyWorkload, batch: int) -> Iterator[Work]:
    """`generate` of transformers, `batch` prompts at a time, padded on the left."""
    policy = workload.policy()
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=workload.tokens,
        pad_token_id=0,
    )

    def work() -> Numbers:
        responses: Responses = []
        for start in range(0, len(workload.prompts), batch):
            ids = [list(prompt.ids) for prompt in workload.prompts[start : start + batch]]
            width = max(map(len, ids))
            padded = torch.tensor([[0] * (width - len(row)) + row for row in ids])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
            out = policy.model.generate(
                padded.to(policy.device),
                attention_mask=mask.to(policy.device),
                generation_config=config,
            )
            responses += out[:, width:].tolist()
        return workload.keep(GENERATE, responses)

    yield work


@contextmanager
def vllm_work(workload: GreedyWorkload) -> Iterator[Work]:
    """vLLM's own `generate`, without log-probs, with an empty prefix cache in every run."""
    longest = max(len(prompt.ids) for prompt in workload.prompts)
    engine = VllmEngine(max_num_seqs=len(workload.prompts), max_model_len=longest + workload.tokens)
    sampler = VllmSampler(workload.model, engine, seed=0)
    try:
        params = sampler.library.params(
            temperature=0.0, max_tokens=workload.tokens, ignore_eos=True, detokenize=False
        )
        requests = [{"prompt_token_ids": list(prompt.ids)} for prompt in workload.prompts]

        def work() -> Numbers:
            if not sampler.engine.reset_prefix_cache():
                raise RunError("vLLM did not reset its prefix cache, so it would read no prompt")
            outputs = sampler.engine.generate(requests, [params] * len(requests), use_tqdm=False)
            return workload.keep(VLLM, [list(out.outputs[0].token_ids) for out in outputs])

        yield work
    finally:
        sampler.close()


def compared(workload: GreedyWorkload, peer: str) -> str:
    """A sentence on the number of equal responses, and the gaps where others part.

    Raises RunError for responses that part where the likeliest token leads by more than rounding
    explains.
    """
    partings: Mapping[str, pretrained.Parting] = _partings(workload, peer)
    limit = pretrained.NEAR_TIE[workload.model.dtype]
    for problem, parting in partings.items():
        if parting.gap > limit:
            raise RunError(
                f"problem {problem}: {REASONTRAIN} and {peer} part at token {parting.index}, where "
                f"their logits are {parting.gap:.3g} apart in float32, more than rounding in "
                f"{workload.model.dtype} explains ({limit:g})"
            )
    num = len(workload.prompts)
    text = f"{num - len(partings)} of {num} responses are equal"
    if not partings:
        return f"{text}."
    worst = sorted(partings.items(), key=lambda item: -item[1].gap)
    listed = ", ".join(
        f"{problem} at token {parting.index}: {parting.gap:.2g}"
        for problem, parting in worst[:SHOWN]
    )
    more = f" and {len(worst) - SHOWN} more" if len(worst) > SHOWN else ""
    return (
        f"{text}; the others part where two logits are at most {limit:g} apart in float32 "
        f"({listed}{more})."
    )


def _partings(workload: GreedyWorkload, peer: str) -> dict[str, pretrained.Parting]:
    """The first difference of each response that is not equal, by problem."""
    pairs = list(
        zip(
            workload.prompts,
            workload.responses[REASONTRAIN],
            workload.responses[peer],
            strict=True,
        )
    )
    if all(first == second for _, first, second in pairs):
        return {}
    policy = all_rows_are_tokens(models.load(replace(workload.model, dtype="float32")))
    partings = {
        prompt.problem.id: pretrained.parting(policy, prompt, first, second)
        for prompt, first, second in pairs
    }
    return {problem: parting for problem, parting in partings.items() if parting is not None}
