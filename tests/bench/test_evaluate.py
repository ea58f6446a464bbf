"""Our evaluator beside lm-evaluation-harness: the same texts problem by problem, and differences
that are named or refused.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reasontrain import models
from reasontrain.bench import evaluate, harness, pretrained
from reasontrain.bench.case import BenchMachine
from reasontrain.bench.evaluate import (
    EvaluationWorkload,
    LastReplies,
    describe_differences,
    differences,
    evaluation_workload,
    gap_at_divergence,
    harness_work,
    reasontrain_work,
    rows,
)
from reasontrain.bench.harness import HarnessReply
from reasontrain.bench.measure import measure
from reasontrain.models import DType
from reasontrain.tasks.arithmetic import Arithmetic
from reasontrain.types import RunError, UserError
from tests.bench.pretrained_problems import pretrained_machine, write_problems

CPU = torch.device("cpu")
WORKLOAD = evaluation_workload(
    "arithmetic", Arithmetic(split="test", min_depth=2, max_depth=5, num_problems=20), CPU
)


def done(workload: EvaluationWorkload, replies: LastReplies) -> None:
    """One run of each contestant, the harness in batches that do not divide the problems."""
    with (
        reasontrain_work(workload, replies, 8) as sample,
        harness_work(workload, replies, 6) as harness_run,
    ):
        assert sample() == harness_run()


@pytest.fixture(scope="module")
def replies() -> LastReplies:
    replies = LastReplies()
    done(WORKLOAD, replies)
    return replies


def test_every_text_and_every_verdict_is_the_harnesss(replies: LastReplies) -> None:
    assert [answer.rollout.text for answer in replies.sampled] == [
        reply.text for reply in replies.harness
    ]
    assert [answer.verdict.correct for answer in replies.sampled] == [
        reply.correct for reply in replies.harness
    ]
    assert 0 < sum(reply.correct for reply in replies.harness) < 20
    assert differences(WORKLOAD, replies) == []
    right = sum(reply.correct for reply in replies.harness)
    assert describe_differences(WORKLOAD, replies) == (
        f"20 of 20 texts are equal; right are {right} by reasontrain and {right} by "
        f"lm-evaluation-harness."
    )


def test_a_stop_ends_both_in_the_same_place() -> None:
    workload = replace(
        WORKLOAD,
        suite=replace(
            WORKLOAD.suite, limit=6, sampling=replace(WORKLOAD.suite.sampling, stop=("</think>",))
        ),
    )
    replies = LastReplies()
    done(workload, replies)
    assert all(answer.rollout.text.endswith("</think>") for answer in replies.sampled)
    assert not any("</think>" in reply.text for reply in replies.harness)
    assert describe_differences(workload, replies).startswith("6 of 6 texts are equal;")


def test_another_verdict_on_one_text_has_its_reason(replies: LastReplies) -> None:
    answer, reply = replies.sampled[0], replies.harness[0]
    flipped = LastReplies([answer], [replace(reply, correct=not reply.correct)])
    assert [difference.why for difference in differences(WORKLOAD, flipped)] == [
        "reasontrain compares the same answer by value, and the harness as text"
        if answer.verdict.extracted == reply.extracted
        else "reasontrain reads the answer that the text marks, and the harness its last number"
    ]
    problem = answer.rollout.problem.id
    assert (
        f"1 differ because reasontrain compares the same answer by value, and the harness as "
        f"text ({problem})" in describe_differences(WORKLOAD, flipped)
    )


def test_a_text_that_parts_where_one_token_is_clearly_likelier_is_refused(
    replies: LastReplies,
) -> None:
    """The model is sure of nearly every token; a text that leaves out the last ten parts from it
    for no reason.
    """
    cut = LastReplies(
        [replies.sampled[0]], [HarnessReply(replies.harness[0].text[:-10], "", False)]
    )
    with pytest.raises(
        RunError,
        match=r"the texts diverge where the likeliest token leads by .* than rounding explains",
    ):
        differences(WORKLOAD, cut)


def test_texts_may_part_at_a_near_tie(
    replies: LastReplies, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = LastReplies(
        [replies.sampled[0]], [HarnessReply(replies.harness[0].text[:-10], "", False)]
    )
    monkeypatch.setitem(pretrained.NEAR_TIE, "float32", 1e9)
    (difference,) = differences(WORKLOAD, cut)
    assert difference.why == "rounding decides between two tokens, where the texts diverge"


def test_the_gap_is_that_of_the_logits_where_two_texts_part(replies: LastReplies) -> None:
    policy, rollout = models.load(WORKLOAD.model), replies.sampled[0].rollout
    shared = 5
    other = policy.tokenizer.decode(rollout.response_ids[:shared], skip_special_tokens=True)
    ids = torch.tensor([[*rollout.prompt_ids, *rollout.response_ids[:shared]]])
    with torch.no_grad():
        first, second = policy.model(input_ids=ids).logits[0, -1].topk(2).values.tolist()
    assert gap_at_divergence(policy, rollout, str(other)) == pytest.approx(first - second, abs=1e-4)


def test_a_prompt_that_the_harness_would_cut_is_refused() -> None:
    policy = models.load(WORKLOAD.model)
    prompts, _ = WORKLOAD.encoder(policy).prompts(WORKLOAD.task.problems())
    with pytest.raises(
        UserError,
        match=r"with 128 of answer it exceeds the model's context of 150; lm-evaluation-harness "
        r"would truncate it",
    ):
        harness.check_room(prompts, WORKLOAD.suite, 150)


def test_without_the_harness_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "lm_eval.models", raising=False)
    with pytest.raises(
        UserError,
        match=r"lm-evaluation-harness, which is not installed here .*; pip install "
        r"'reasontrain\[peers\]'",
    ):
        rows(BenchMachine(device=CPU, quick=True, threads=1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_pretrained_model_is_asked_in_its_own_style(
    dtype: DType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "PROBLEMS", 4)
    monkeypatch.setattr(evaluate, "QUICK_TOKENS", 12)
    file = write_problems(tmp_path / "problems.jsonl", 6)
    (case,) = evaluate.pretrained_rows(pretrained_machine(file, dtype=dtype))
    found = measure(case, pretrained_machine(file), runs=1)
    assert found.units == ("problems", 4.0)
    assert (found.work["model"], found.work["max_tokens"]) == ("testbed:student", 12)
    assert found.work["dtype"] == dtype
    assert "of 4 texts are equal" in found.remark


def test_gsm8k_is_a_row_where_its_file_is(tmp_path: Path) -> None:
    machine = BenchMachine(device=CPU, quick=True, threads=1, data=tmp_path)
    assert [row.name for row in rows(machine)] == ["arithmetic"]
    (tmp_path / "gsm8k_test.jsonl").write_text('{"problem": "1+1?", "answer": "2"}\n')
    assert [row.name for row in rows(machine)] == ["arithmetic", "gsm8k"]
    assert rows(machine)[1].units == ("problems", 1.0)
