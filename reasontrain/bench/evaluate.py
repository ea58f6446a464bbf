"""An evaluation, from problems to verdicts, compared with lm-evaluation-harness.

Both feed the same ids to the same weights and decode greedily. The texts of a problem must be
equal, or diverge at two tokens between which rounding decides; a text that diverges elsewhere stops
the benchmark. Each contestant extracts answers by its own rule; the remark of the
case lists the differences between verdicts, and their reasons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch

from reasontrain import models
from reasontrain.bench import harness, pretrained
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
from reasontrain.evaluation.run import SuiteGrader, evaluate
from reasontrain.models import ModelSettings, Policy
from reasontrain.recipe import LocalEngine, Suite
from reasontrain.sampler.local import LocalSampler
from reasontrain.tasks import AnswerFormat, Grader, TaskSettings, Verdict
from reasontrain.tasks.arithmetic import Arithmetic
from reasontrain.tasks.gsm8k import Gsm8k
from reasontrain.types import Rollout, RunError

MODEL = ModelSettings(path="testbed:student")
GSM8K = "gsm8k_test.jsonl"
QUICK_PROBLEMS = 128
PROBLEMS = 16
"""Problems that a pre-trained model answers."""
TOKENS = 128
"""The most tokens of an answer."""
QUICK_TOKENS = 64
"""`TOKENS` of a quick run with a pre-trained model."""
SHOWN = 10
"""The most problems that are listed per reason."""


@dataclass(frozen=True, kw_only=True)
class EvaluationWorkload:
    """The problems of a task, the suite with prompt and sampling settings, and the model."""

    task: TaskSettings
    suite: Suite
    model: ModelSettings

    @property
    def answer_format(self) -> AnswerFormat:
        """The form in which an answer counts."""
        return self.suite.answer_format or self.task.answer_format

    def encoder(self, policy: Policy) -> Encoder:
        """An encoder of the problems for this model."""
        return Encoder(
            policy.tokenizer, self.suite.prompt or PromptSettings(), policy.context, policy.vision
        )


@dataclass(frozen=True)
class SampledAnswer:
    """A rollout of the local sampler, and its verdict."""

    rollout: Rollout
    verdict: Verdict


@dataclass
class LastReplies:
    """The replies of both contestants in their last runs, in the order of the problems."""

    sampled: Sequence[SampledAnswer] = ()
    harness: Sequence[HarnessReply] = ()


@dataclass(frozen=True, kw_only=True)
class AnswerDifference:
    """A problem with different texts or verdicts, and the reason."""

    problem: str
    why: str


def rows(machine: BenchMachine) -> Sequence[BenchCase]:
    """The cases: generated problems, and the test set of GSM8K if the data folder has it."""
    harness.check_installed()
    tasks: dict[str, TaskSettings] = {
        "arithmetic": Arithmetic(split="test", min_depth=2, max_depth=5, num_problems=1000)
    }
    if machine.data is not None and (machine.data / GSM8K).exists():
        tasks["gsm8k"] = Gsm8k(path=str(machine.data / GSM8K))
    limit = QUICK_PROBLEMS if machine.quick else None
    return [
        _row(name, evaluation_workload(name, task, machine.device, limit), machine)
        for name, task in tasks.items()
    ]


def pretrained_rows(machine: BenchMachine) -> Sequence[BenchCase]:
    """The case of a pre-trained model: the first problems of a file, in the model's own style."""
    harness.check_installed()
    workload = EvaluationWorkload(
        task=pretrained.task(machine, PROBLEMS),
        suite=Suite(
            name="problems",
            sampling=Sampling(
                temperature=0.0, max_tokens=QUICK_TOKENS if machine.quick else TOKENS
            ),
            limit=PROBLEMS,
        ),
        model=pretrained.model_of(machine),
    )
    return [replace(_row("problems", workload, machine, most=PROBLEMS), is_long=True)]


def evaluation_workload(
    name: str, task: TaskSettings, device: torch.device, limit: int | None = None
) -> EvaluationWorkload:
    """A task's problems in the tiny model's chat template, with answers of at most 128 tokens.

    Args:
        name: name of the suite.
        task: the source of the problems.
        device: device of the model; a GPU of any index is `cuda`.
        limit: number of problems, from the first; None for all.
    """
    sampling = Sampling(temperature=0.0, max_tokens=TOKENS)
    suite = Suite(name=name, prompt=PromptSettings(style="chat"), sampling=sampling, limit=limit)
    return EvaluationWorkload(
        task=task,
        suite=suite,
        model=pretrained.on_device(MODEL, device),
    )


def _row(
    name: str, workload: EvaluationWorkload, machine: BenchMachine, most: int | None = None
) -> BenchCase:
    """A case.

    Args:
        name: name of the case.
        workload: model and problems.
        machine: a quick run has one variant of each contestant.
        most: the most problems that are answered together, if they are few.
    """
    replies = LastReplies()
    num_problems = len(workload.task.problems()[: workload.suite.limit])
    if most is not None:
        num_rows: tuple[int, ...] = (most,)
        batches: tuple[int, ...] = (most,) if machine.quick else (most // 2, most)
    else:
        num_rows = (256,) if machine.quick else (128, 256, 512)
        batches = (QUICK_PROBLEMS,) if machine.quick else (64, 128, 256)
    sampling = workload.suite.sampling
    return BenchCase(
        name=name,
        description="problems to verdicts: prompts encoded, answered greedily, graded and averaged",
        work={
            "model": pretrained.label(workload.model),
            "problems": num_problems,
            "max_tokens": sampling.max_tokens,
            "dtype": workload.model.dtype,
        },
        units=("problems", float(num_problems)),
        subject=Contestant(
            name="reasontrain",
            variants=tuple(
                Variant(settings={"rows": n}, setup=partial(reasontrain_work, workload, replies, n))
                for n in num_rows
            ),
        ),
        peer=Contestant(
            name=harness.NAME,
            variants=tuple(
                Variant(
                    settings={"batch_size": n}, setup=partial(harness_work, workload, replies, n)
                )
                for n in batches
            ),
        ),
        # in bfloat16 many texts part at near ties, and may end elsewhere
        tolerance=0.01 if workload.model.dtype == "float32" else 0.2,
        goals=(Goal(of="time", at_most=1.0 if machine.device.type == "cpu" else 1 / 3),),
        after=lambda: describe_differences(workload, replies),
    )


@contextmanager
def reasontrain_work(
    workload: EvaluationWorkload, replies: LastReplies, num_rows: int
) -> Iterator[Work]:
    """Evaluation by reasontrain with its local sampler, `num_rows` sequences at a time."""
    policy = models.load(workload.model)
    encoder = workload.encoder(policy)
    sampler = LocalSampler(policy, seed=0, max_num_seqs=num_rows)
    problems = workload.task.problems()[: workload.suite.limit]
    with Grader() as grader:

        def work() -> Numbers:
            prompts, _ = encoder.prompts(problems)
            rollouts: list[Rollout] = []

            def sample(
                chunks: Sequence[PromptChunk],
            ) -> Iterator[tuple[PromptChunk, Sequence[Rollout]]]:
                for chunk, sampled_rollouts in sample_with(sampler)(chunks):
                    rollouts.extend(sampled_rollouts)
                    yield chunk, sampled_rollouts

            answers = evaluate(
                workload.suite,
                [prompt.problem for prompt in prompts],
                answer_by_sampling(
                    chunk_prompts(
                        prompts,
                        workload.suite.sampling,
                        num=1,
                        chunk_size=LocalEngine.capabilities.prompts_per_call,
                    ),
                    sample,
                ),
                score=SuiteGrader(
                    task=workload.task, grader=grader, answer_format=workload.answer_format
                ),
            ).answers
            replies.sampled = [
                SampledAnswer(rollout, answer.verdict)
                for rollout, answer in zip(rollouts, answers, strict=True)
            ]
            return _numbers([_reply(answer, workload.suite) for answer in replies.sampled])

        yield work


@contextmanager
def harness_work(
    workload: EvaluationWorkload, replies: LastReplies, batch_size: int
) -> Iterator[Work]:
    """Evaluation by the harness with its Hugging Face backend, `batch_size` sequences at a time."""
    policy = models.load(workload.model)
    prompts, _ = workload.encoder(policy).prompts(workload.task.problems()[: workload.suite.limit])
    harness.check_room(prompts, workload.suite, policy.context)
    with harness.loaded(
        workload.model, workload.suite, prompts, str(policy.device), batch_size
    ) as evaluate_all:

        def work() -> Numbers:
            replies.harness = evaluate_all()
            return _numbers(replies.harness)

        yield work


def describe_differences(workload: EvaluationWorkload, replies: LastReplies) -> str:
    """A sentence on the numbers of equal texts and right answers, and the differences by reason."""
    texts = sum(
        _reply(answer, workload.suite).text == reply.text
        for answer, reply in zip(replies.sampled, replies.harness, strict=True)
    )
    num_right = sum(answer.verdict.correct for answer in replies.sampled)
    num_harness_right = sum(reply.correct for reply in replies.harness)
    by_why: dict[str, list[str]] = {}
    for difference in differences(workload, replies):
        by_why.setdefault(difference.why, []).append(difference.problem)
    parts_of_text = [
        f"{texts} of {len(replies.sampled)} texts are equal; right are {num_right} by reasontrain "
        f"and {num_harness_right} by {harness.NAME}"
    ]
    for why, problems in by_why.items():
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        parts_of_text.append(
            f"{len(problems)} differ because {why} ({', '.join(problems[:SHOWN])}{more})"
        )
    return "; ".join(parts_of_text) + "."


def differences(workload: EvaluationWorkload, replies: LastReplies) -> list[AnswerDifference]:
    """The problems with different texts or verdicts.

    Raises RunError for a text that diverges at a token that is clearly more likely than the next.
    """
    differing: list[AnswerDifference] = []
    policy: Policy | None = None
    limit = pretrained.NEAR_TIE[workload.model.dtype]
    for answer, harness_reply in zip(replies.sampled, replies.harness, strict=True):
        reply = _reply(answer, workload.suite)
        problem = answer.rollout.problem
        if reply.text != harness_reply.text:
            policy = policy or models.load(replace(workload.model, dtype="float32"))
            gap = gap_at_divergence(policy, answer.rollout, harness_reply.text)
            if gap > limit:
                raise RunError(
                    f"problem {problem.id}: the texts diverge where the likeliest token leads by "
                    f"{gap:.3g}, more than rounding explains: that of reasontrain ends "
                    f"{reply.text[-60:]!r}, that of {harness.NAME} {harness_reply.text[-60:]!r}"
                )
            differing.append(
                AnswerDifference(
                    problem=problem.id,
                    why="rounding decides between two tokens, where the texts diverge",
                )
            )
        elif reply.correct != harness_reply.correct:
            differing.append(AnswerDifference(problem=problem.id, why=_why(reply, harness_reply)))
    return differing


def gap_at_divergence(policy: Policy, rollout: Rollout, other: str) -> float:
    """The gap between the two largest logits at the token where a rollout and a text diverge."""
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


def _why(reply: HarnessReply, harness_reply: HarnessReply) -> str:
    """The reason for different verdicts on the same text."""
    if reply.extracted == harness_reply.extracted:
        return "reasontrain compares the same answer by value, and the harness as text"
    if "<think>" in reply.text and "</think>" not in reply.text:
        return (
            "reasontrain reads no answer in a thought that never ends, and the harness its last "
            "number"
        )
    return "reasontrain reads the answer that the text marks, and the harness its last number"


def _reply(answer: SampledAnswer, suite: Suite) -> HarnessReply:
    """The answer as the harness reports it: cut before the stop text."""
    text = answer.rollout.text
    verdict = answer.verdict
    for stop in suite.sampling.stop:
        text = text.partition(stop)[0]
    return HarnessReply(text, verdict.extracted, verdict.correct)


def _numbers(replies: Sequence[HarnessReply]) -> Numbers:
    """Numbers that must agree before times are compared; the texts are compared afterwards."""
    return {
        "problems": float(len(replies)),
        "characters": float(sum(len(reply.text) for reply in replies)),
    }
