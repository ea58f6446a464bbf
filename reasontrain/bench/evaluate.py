"""An evaluation, from problems to verdicts, beside lm-evaluation-harness: the same ids into the
same weights, greedy, float32.

Both give a text for every problem. The texts must be the same, or part at two tokens between which
rounding decides: a text that parts anywhere else stops the run. What each takes for the answer of a
text is its own rule; the row says where the rules differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch

from reasontrain import models
from reasontrain.bench import harness
from reasontrain.bench.case import BenchCase, BenchMachine, Contestant, Goal, Numbers, Variant, Work
from reasontrain.bench.harness import HarnessReply
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.data.sampling import Sampling
from reasontrain.evaluation.generation import (
    PromptChunk,
    answer_by_sampling,
    chunk_prompts,
    sample_with,
)
from reasontrain.evaluation.run import evaluate
from reasontrain.models import ModelSettings, Policy
from reasontrain.recipe import LocalEngine, Suite
from reasontrain.sampler.local import LocalSampler
from reasontrain.tasks import Grader, TaskSettings, Verdict
from reasontrain.tasks.arithmetic import Arithmetic
from reasontrain.tasks.gsm8k import Gsm8k
from reasontrain.types import Rollout, RunError

MODEL = ModelSettings(path="testbed:student")
GSM8K = "gsm8k_test.jsonl"
QUICK_PROBLEMS = 128
NEAR_TIE = 1e-4
"""Logits this close may change places between two ways of adding the same numbers in float32."""
SHOWN = 10
"""Problems that are named for one reason."""


@dataclass(frozen=True, kw_only=True)
class PromptedProblem:
    """Problems put to a model as a suite says."""

    task: TaskSettings
    suite: Suite
    model: ModelSettings

    def encoder(self, policy: Policy) -> Encoder:
        """What makes prompts of the problems."""
        return Encoder(
            policy.tokenizer, self.suite.prompt or PromptSettings(), policy.context, policy.vision
        )


@dataclass(frozen=True)
class Said:
    """What our sampler said to a problem, and what it earned."""

    rollout: Rollout
    verdict: Verdict


@dataclass
class Both:
    """What the two said in their last runs, problem by problem."""

    ours: Sequence[Said] = ()
    theirs: Sequence[HarnessReply] = ()


@dataclass(frozen=True, kw_only=True)
class AnswerDifference:
    """A problem on which the two give another text or another verdict, and why."""

    problem: str
    why: str


def rows(place: BenchMachine) -> Sequence[BenchCase]:
    """Made-up problems, of which the tiny model solves a part, and GSM8K's test set where the data
    folder has it.
    """
    harness.check_installed()
    tasks: dict[str, TaskSettings] = {
        "arithmetic": Arithmetic(split="test", min_depth=2, max_depth=5, num_problems=1000)
    }
    if place.data is not None and (place.data / GSM8K).exists():
        tasks["gsm8k"] = Gsm8k(path=str(place.data / GSM8K))
    limit = QUICK_PROBLEMS if place.quick else None
    return [
        _row(name, asked_of(name, task, place.device, limit), place) for name, task in tasks.items()
    ]


def asked_of(
    name: str, task: TaskSettings, device: torch.device, limit: int | None = None
) -> PromptedProblem:
    """A task's problems in the tiny model's chat template, 128 tokens of answer at most."""
    sampling = Sampling(temperature=0.0, max_tokens=128)
    suite = Suite(name=name, prompt=PromptSettings(style="chat"), sampling=sampling, limit=limit)
    return PromptedProblem(
        task=task,
        suite=suite,
        model=replace(MODEL, device="cpu" if device.type == "cpu" else "cuda"),
    )


def _row(name: str, asked: PromptedProblem, place: BenchMachine) -> BenchCase:
    both, num_problems = Both(), len(asked.task.problems()[: asked.suite.limit])
    num_rows = (256,) if place.quick else (128, 256, 512)
    batches = (QUICK_PROBLEMS,) if place.quick else (64, 128, 256)
    sampling = asked.suite.sampling
    return BenchCase(
        name=name,
        what="problems to verdicts: prompts encoded, answered greedily, graded and summed up",
        work={
            "model": asked.model.path,
            "problems": num_problems,
            "max_tokens": sampling.max_tokens,
            "dtype": asked.model.dtype,
        },
        units=("problems", float(num_problems)),
        ours=Contestant(
            name="reasontrain",
            ways=tuple(
                Variant(settings={"rows": n}, ready=partial(ours, asked, both, n)) for n in num_rows
            ),
        ),
        peer=Contestant(
            name=harness.NAME,
            ways=tuple(
                Variant(settings={"batch_size": n}, ready=partial(theirs, asked, both, n))
                for n in batches
            ),
        ),
        tolerance=0.01,
        goals=(Goal(of="time", at_most=1.0 if place.device.type == "cpu" else 1 / 3),),
        after=lambda: told(asked, both),
    )


@contextmanager
def ours(asked: PromptedProblem, both: Both, num_rows: int) -> Iterator[Work]:
    """Our evaluator with our sampler, `num_rows` answers at once."""
    policy = models.load(asked.model)
    encoder, sampler = asked.encoder(policy), LocalSampler(policy, seed=0, max_num_seqs=num_rows)
    problems = asked.task.problems()[: asked.suite.limit]
    with Grader() as grader:

        def work() -> Numbers:
            prompts, _ = encoder.prompts(problems)
            rollouts: list[Rollout] = []

            def sample(
                asked: Sequence[PromptChunk],
            ) -> Iterator[tuple[PromptChunk, Sequence[Rollout]]]:
                for part, some in sample_with(sampler)(asked):
                    rollouts.extend(some)
                    yield part, some

            answers = evaluate(
                asked.suite,
                [prompt.problem for prompt in prompts],
                answer_by_sampling(
                    chunk_prompts(
                        prompts,
                        asked.suite.sampling,
                        num=1,
                        chunk_size=LocalEngine.capabilities.prompts_per_call,
                    ),
                    sample,
                ),
                score=partial(asked.task.grade, grader=grader, last_number=asked.suite.last_number),
            ).answers
            both.ours = [
                Said(rollout, answer.verdict)
                for rollout, answer in zip(rollouts, answers, strict=True)
            ]
            return _numbers([_reply(said, asked.suite) for said in both.ours])

        yield work


@contextmanager
def theirs(asked: PromptedProblem, both: Both, batch_size: int) -> Iterator[Work]:
    """The harness with its Hugging Face backend, `batch_size` answers at once."""
    policy = models.load(asked.model)
    prompts, _ = asked.encoder(policy).prompts(asked.task.problems()[: asked.suite.limit])
    harness.check_room(prompts, asked.suite, policy.context)
    with harness.ready(asked.model, asked.suite, prompts, str(policy.device), batch_size) as ask:

        def work() -> Numbers:
            both.theirs = ask()
            return _numbers(both.theirs)

        yield work


def told(asked: PromptedProblem, both: Both) -> str:
    """How many texts and verdicts are the same, and which are not, by reasons."""
    texts = sum(
        _reply(mine, asked.suite).text == other.text
        for mine, other in zip(both.ours, both.theirs, strict=True)
    )
    right = [
        sum(answer.verdict.correct for answer in both.ours),
        sum(reply.correct for reply in both.theirs),
    ]
    found = differences(asked, both)
    by_why: dict[str, list[str]] = {}
    for difference in found:
        by_why.setdefault(difference.why, []).append(difference.problem)
    said = [f"{texts} of {len(both.ours)} texts are the same, right are {right[0]} and {right[1]}"]
    for why, problems in by_why.items():
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        said.append(f"{len(problems)} differ because {why} ({', '.join(problems[:SHOWN])}{more})")
    return "; ".join(said) + "."


def differences(asked: PromptedProblem, both: Both) -> list[AnswerDifference]:
    """The problems on which texts or verdicts differ; RunError for a text that parts where one
    token is clearly likelier.
    """
    found, policy = [], None
    for answer, reply in zip(both.ours, both.theirs, strict=True):
        mine, problem = _reply(answer, asked.suite), answer.rollout.problem
        if mine.text != reply.text:
            policy = policy or models.load(asked.model)
            gap = gap_where_they_part(policy, answer.rollout, reply.text)
            if gap > NEAR_TIE:
                raise RunError(
                    f"problem {problem.id}: the texts part where the likeliest token leads "
                    f"by {gap:.3g}, which is no rounding: "
                    f"ours ends {mine.text[-60:]!r}, and that of {harness.NAME} "
                    f"{reply.text[-60:]!r}"
                )
            found.append(
                AnswerDifference(
                    problem=problem.id,
                    why="rounding decides between two tokens, and texts part there",
                )
            )
        elif mine.correct != reply.correct:
            found.append(AnswerDifference(problem=problem.id, why=_why(mine, reply)))
    return found


def gap_where_they_part(policy: Policy, rollout: Rollout, other: str) -> float:
    """How far the likeliest token leads the next one, by logits, where our response and another
    text part.
    """
    ids = rollout.response_ids
    texts = (
        str(policy.tokenizer.decode(ids[: i + 1], skip_special_tokens=True))
        for i in range(len(ids))
    )
    num_shared = next(
        (i for i, text in enumerate(texts) if not other.startswith(text.rstrip("\ufffd"))),
        len(ids) - 1,
    )
    read = torch.tensor([[*rollout.prompt_ids, *ids[:num_shared]]], device=policy.device)
    with torch.inference_mode():
        first, second = policy.head.logits(policy.hidden(read)[:, -1])[0].topk(2).values.tolist()
    return first - second


def _why(mine: HarnessReply, reply: HarnessReply) -> str:
    """Why one text earns two verdicts."""
    if mine.extracted == reply.extracted:
        return "the same answer equals the gold one by value here, as a text there"
    if "<think>" in mine.text and "</think>" not in mine.text:
        return (
            "our verifier reads no answer in a thought that never ends, and theirs takes its "
            "last number"
        )
    return "our verifier takes what the text marks as its answer, and theirs the last number"


def _reply(answer: Said, suite: Suite) -> HarnessReply:
    """Our answer as the harness writes its own: cut before the text that ended it."""
    text, verdict = answer.rollout.text, answer.verdict
    for stop in suite.sampling.stop:
        text = text.partition(stop)[0]
    return HarnessReply(text, verdict.extracted, verdict.correct)


def _numbers(replies: Sequence[HarnessReply]) -> Numbers:
    """What both must agree on before their times are compared; the texts themselves are compared
    after that.
    """
    return {
        "problems": float(len(replies)),
        "characters": float(sum(len(reply.text) for reply in replies)),
    }
