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
from reasontrain.bench import harness
from reasontrain.bench.case import BenchMachine
from reasontrain.bench.evaluate import (
    Both,
    PromptedProblem,
    asked_of,
    differences,
    gap_where_they_part,
    ours,
    rows,
    theirs,
    told,
)
from reasontrain.bench.harness import HarnessReply
from reasontrain.tasks.arithmetic import Arithmetic
from reasontrain.types import RunError, UserError

CPU = torch.device("cpu")
ASKED = asked_of(
    "arithmetic", Arithmetic(split="test", min_depth=2, max_depth=5, num_problems=20), CPU
)


def done(asked: PromptedProblem, both: Both) -> None:
    """One run of each side, the harness in batches that do not divide the problems."""
    with ours(asked, both, 8) as mine, theirs(asked, both, 6) as other:
        assert mine() == other()


@pytest.fixture(scope="module")
def both() -> Both:
    found = Both()
    done(ASKED, found)
    return found


def test_every_text_and_every_verdict_is_the_harnesss(both: Both) -> None:
    assert [answer.rollout.text for answer in both.ours] == [reply.text for reply in both.theirs]
    assert [answer.verdict.correct for answer in both.ours] == [
        reply.correct for reply in both.theirs
    ]
    assert 0 < sum(reply.correct for reply in both.theirs) < 20
    assert differences(ASKED, both) == []
    right = sum(reply.correct for reply in both.theirs)
    assert told(ASKED, both) == f"20 of 20 texts are the same, right are {right} and {right}."


def test_a_stop_ends_both_in_the_same_place() -> None:
    asked = replace(
        ASKED,
        suite=replace(
            ASKED.suite, limit=6, sampling=replace(ASKED.suite.sampling, stop=("</think>",))
        ),
    )
    found = Both()
    done(asked, found)
    assert all(answer.rollout.text.endswith("</think>") for answer in found.ours)
    assert not any("</think>" in reply.text for reply in found.theirs)
    assert told(asked, found).startswith("6 of 6 texts are the same")


def test_another_verdict_on_one_text_has_its_reason(both: Both) -> None:
    answer, reply = both.ours[0], both.theirs[0]
    flipped = Both([answer], [replace(reply, correct=not reply.correct)])
    assert [difference.why for difference in differences(ASKED, flipped)] == [
        "the same answer equals the gold one by value here, as a text there"
        if answer.verdict.extracted == reply.extracted
        else "our verifier takes what the text marks as its answer, and theirs the last number"
    ]
    problem = answer.rollout.problem.id
    assert (
        f"1 differ because the same answer equals the gold one by value here, as a text "
        f"there ({problem})" in told(ASKED, flipped)
    )


def test_a_text_that_parts_where_one_token_is_clearly_likelier_is_refused(both: Both) -> None:
    """The model is sure of nearly every token; a text that leaves out the last ten parts from it
    for no reason.
    """
    cut = Both([both.ours[0]], [HarnessReply(both.theirs[0].text[:-10], "", False)])
    with pytest.raises(
        RunError, match=r"the texts part where the likeliest token leads by .* which is no rounding"
    ):
        differences(ASKED, cut)


def test_texts_may_part_at_a_near_tie(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = Both([both.ours[0]], [HarnessReply(both.theirs[0].text[:-10], "", False)])
    monkeypatch.setattr("reasontrain.bench.evaluate.NEAR_TIE", 1e9)
    (difference,) = differences(ASKED, cut)
    assert difference.why == "rounding decides between two tokens, and texts part there"


def test_the_gap_is_that_of_the_logits_where_two_texts_part(both: Both) -> None:
    policy, rollout = models.load(ASKED.model), both.ours[0].rollout
    shared = 5
    other = policy.tokenizer.decode(rollout.response_ids[:shared], skip_special_tokens=True)
    ids = torch.tensor([[*rollout.prompt_ids, *rollout.response_ids[:shared]]])
    with torch.no_grad():
        first, second = policy.model(input_ids=ids).logits[0, -1].topk(2).values.tolist()
    assert gap_where_they_part(policy, rollout, str(other)) == pytest.approx(
        first - second, abs=1e-4
    )


def test_a_prompt_that_the_harness_would_cut_is_refused() -> None:
    policy = models.load(ASKED.model)
    prompts, _ = ASKED.encoder(policy).prompts(ASKED.task.problems())
    with pytest.raises(
        UserError,
        match=r"with 128 of answer it does not fit the model's 150; lm-evaluation-harness would "
        r"cut it",
    ):
        harness.check_room(prompts, ASKED.suite, 150)


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


def test_gsm8k_is_a_row_where_its_file_is(tmp_path: Path) -> None:
    place = BenchMachine(device=CPU, quick=True, threads=1, data=tmp_path)
    assert [row.name for row in rows(place)] == ["arithmetic"]
    (tmp_path / "gsm8k_test.jsonl").write_text('{"problem": "1+1?", "answer": "2"}\n')
    assert [row.name for row in rows(place)] == ["arithmetic", "gsm8k"]
    assert rows(place)[1].units == ("problems", 1.0)
