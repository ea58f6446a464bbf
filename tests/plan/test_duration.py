"""Time of a run on its own processes, by hand."""

from __future__ import annotations

import pytest

from reasontrain.plan.duration import duration
from reasontrain.plan.scaling import predict, sampling_s
from tests.plan.jobs import job

VLLM = ("sample.engine={kind: vllm}", "learn.zero.stage=3")
SUITES = (
    "evaluate={every: 4, suites: [{name: heldout, task: {kind: arithmetic, num_problems: 1000, "
    "split: test}, num_samples: 2, sampling: {temperature: 1.0, max_tokens: 100}}, "
    "{name: math500, task: {kind: math, hub: HuggingFaceH4/MATH-500, split: test}, limit: 50}, "
    "{name: own, task: {kind: math, path: own.jsonl}}]}"
)


def test_a_run_of_one_process_is_its_steps() -> None:
    found = duration(job())
    assert found.gpus == 1
    assert found.evaluations == 0
    assert found.total_s == 10 * found.step_s == 10 * predict(job(), 1).step_s


def test_samplers_of_their_own_sample_and_may_overlap() -> None:
    shared = duration(job(*VLLM, "cluster={learners: 4}"))
    apart = ("cluster.learners=4", "cluster.samplers=2", "sample.engine.tensor_parallel_size=2")
    waits = duration(job(*VLLM, *apart))
    overlaps = duration(job(*VLLM, *apart, "cluster.overlap=1"))
    assert (shared.gpus, waits.gpus, overlaps.gpus) == (4, 8, 8)
    # 2 samplers of 2 GPUs decode 128 rollouts each, where 4 ranks decode 64 each.
    assert waits.step.sampling_s == pytest.approx(shared.step.sampling_s, rel=0.5)
    assert waits.step.learning_s == shared.step.learning_s
    rest = waits.step_s - waits.step.sampling_s
    assert overlaps.step_s == max(waits.step.sampling_s, rest) < waits.step_s


def test_evaluations_are_counted_and_what_is_unknown_is_named() -> None:
    planned = job(SUITES)
    found = duration(planned)
    # Before the first step, after 4 and 8, and after 10.
    assert found.evaluations == 4
    assert found.answers == 2 * 1000 + 50
    assert found.uncounted == ("suite own",)
    expected = sum(
        sampling_s(planned, rollouts=rollouts, prompts=prompts, rows=rows, response_tokens=tokens)
        for rollouts, prompts, rows, tokens in (
            (2000, 1000, 256, 100),
            (50, 50, 50, planned.recipe.evaluate.suites[1].sampling.max_tokens),
        )
    )
    assert found.evaluation_s == pytest.approx(expected)
    assert found.total_s == 10 * found.step_s + 4 * found.evaluation_s


@pytest.mark.parametrize(
    ("settings", "times"),
    [("every: 4", 4), ("every: 5", 3), ("every: 0", 2), ("every: 0, before: false", 1)],
)
def test_the_last_evaluation_is_not_counted_twice(settings: str, times: int) -> None:
    suite = "{name: s, task: {kind: arithmetic}}"
    assert duration(job(f"evaluate={{{settings}, suites: [{suite}]}}")).evaluations == times


def test_rounds_of_sampling_that_rewards_decide_are_named() -> None:
    assert duration(job("sample.refill_rounds=2")).uncounted == ("rounds of sample.refill_rounds",)
    assert duration(job()).uncounted == ()
