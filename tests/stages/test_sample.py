"""Solutions: sampled and graded in parts, closed rightly, and read from files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from reasontrain import models
from reasontrain.data.files import read_file
from reasontrain.data.offline import fingerprint, read_pairs
from reasontrain.recipe import PairsStage, Recipe, SampleStage, TrajectoriesStage, YamlValue, build
from reasontrain.run.datasets import encoder_of
from reasontrain.stages import sample as sampling
from reasontrain.stages.pairs import _attempts, _record, make_pairs
from reasontrain.stages.sample import _closed, _graded, read_trajectories, sample
from reasontrain.stages.solutions import Solution, read, write
from reasontrain.tasks import Grader
from reasontrain.types import Problem, Rollout, UserError

DATA = Path(os.environ.get("REASONTRAIN_DATA", Path(__file__).parents[3] / "shared" / "data"))
SOLUTIONS = DATA / "model_solutions_sample.jsonl"


def recipe(**changes: YamlValue) -> Recipe:
    content: dict[str, YamlValue] = {
        "name": "run",
        "steps": 1,
        "model": {"path": "testbed:noisy"},
        "task": {"kind": "pairs", "path": "none.jsonl"},
        "objective": {"kind": "dpo"},
        "loss_aggregation": "pair_mean",
        "learn": {"lr": 1e-3, "rollouts_per_step": 8},
    }
    return build(Recipe, content | changes, "test")


def stage(**changes: YamlValue) -> SampleStage:
    content: dict[str, YamlValue] = {
        "name": "sample",
        "task": {"kind": "arithmetic", "num_problems": 5, "max_depth": 2},
        "sample": {"group_size": 6, "max_tokens": 80},
    }
    return build(SampleStage, content | changes, "test")


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_problem_has_its_solutions_with_verdicts_and_ids(tmp_path: Path) -> None:
    sample(stage(), recipe(), tmp_path)
    found = list(read(tmp_path / "rollouts.jsonl"))
    tokenizer = models.describe(recipe().model).tokenizer
    assert [s.problem for s in found] == [f"arithmetic/train/0/{i // 6}" for i in range(30)]
    assert len({s.response for s in found[:6]}) > 1
    assert 3 < sum(s.correct for s in found) < 27  # the noisy student errs when it samples
    for solution in found:
        assert (
            tokenizer.decode(list(solution.response_ids), skip_special_tokens=True)
            == solution.response
        )
        assert solution.tokenizer == fingerprint(tokenizer)
        assert solution.correct == (solution.extracted == solution.answer)
        assert solution.truncated or solution.response_ids[-1] == tokenizer.eos_token_id


def test_killed_in_the_middle_only_the_rest_is_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "AT_ONCE", 2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    sample(stage(), recipe(), whole)
    ask, asked = sampling._ask, list[int]()

    def killed(sampler: object, prompts: list[object], given: SampleStage, start: int) -> object:
        asked.append(start)
        if asked == [0, 2]:
            raise SystemExit("kill -9")
        return ask(sampler, prompts, given, start)

    monkeypatch.setattr(sampling, "_ask", killed)
    with pytest.raises(SystemExit):
        sample(stage(), recipe(), broken)
    assert not (broken / "rollouts.jsonl").exists()
    sample(stage(), recipe(), broken)
    assert asked == [0, 2, 2, 4]
    assert (broken / "rollouts.jsonl").read_bytes() == (whole / "rollouts.jsonl").read_bytes()


def test_a_stop_text_is_replaced_by_the_end_and_a_preamble_is_not_kept(tmp_path: Path) -> None:
    asked = stage(
        preamble="Question: ",
        sample={"group_size": 2, "max_tokens": 80, "stop": ["</think>"], "temperature": 0.0},
    )
    sample(asked, recipe(), tmp_path)
    tokenizer = models.describe(recipe().model).tokenizer
    closed = [s for s in read(tmp_path / "rollouts.jsonl") if not s.truncated]
    assert closed
    for solution in closed:
        assert "</think>" not in tokenizer.decode(
            list(solution.response_ids), skip_special_tokens=False
        )
        assert solution.response_ids[-1] == tokenizer.eos_token_id
        assert list(solution.response_ids).count(tokenizer.eos_token_id) == 1
        assert not str(solution.prompt).startswith("Question: ")


@pytest.mark.parametrize(
    ("pieces", "stops", "kept"),
    [
        (["42.", "\n\n", "Question", ":", " What"], ["Question:"], ["42."]),
        (["42.", " ", "Que", "stion", ":"], ["Question:"], ["42."]),
        (["42", ".Question", ":"], ["Question:"], ["42"]),  # a token with text of both
        (["42", ".\n\n", "Question", ":"], ["Question:"], ["42", "."]),  # as stripped
        (["1", "Stop", "2", "Question", ":"], ["Question:", "Stop"], ["1"]),
        (["1", "Stop", "2", "Question", ":"], ["Stop", "Question:"], ["1"]),
        (["1", "Question"], ["Question:"], None),
        (["Question", ":"], ["Question:"], []),
    ],
)
def test_a_response_ends_before_its_first_stop_text(
    pieces: list[str], stops: list[str], kept: list[str] | None
) -> None:
    """The stop text may have several tokens, share one with the answer, or follow blank lines."""
    words = [*pieces, ".", "42."]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(["<eos>", "<unk>", *words]))}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="<unk>")),
        eos_token="<eos>",
        unk_token="<unk>",
    )
    tokenizer.backend_tokenizer.decoder = Fuse()
    rollout = Rollout(
        problem=Problem(id="p", prompt="?"),
        id=0,
        group=0,
        prompt_ids=(0,),
        response_ids=tuple(vocabulary[piece] for piece in pieces),
        text="".join(pieces),
    )
    closed = _closed(rollout, stops, tokenizer, end_id=0)
    if kept is None:
        assert closed == rollout
        return
    assert closed.response_ids == (*(vocabulary[piece] for piece in kept), 0)
    assert closed.text == "".join(kept)


def test_every_response_of_the_stage_ends_before_a_stop_text_of_several_tokens(
    tmp_path: Path,
) -> None:
    settings = {"group_size": 2, "max_tokens": 80, "stop": ["The answer is"], "temperature": 0.0}
    sample(stage(sample=settings), recipe(), tmp_path)
    tokenizer = models.describe(recipe().model).tokenizer
    closed = [s for s in read(tmp_path / "rollouts.jsonl") if not s.truncated]
    assert closed
    for solution in closed:
        text = str(tokenizer.decode(list(solution.response_ids), skip_special_tokens=False))
        assert text.endswith("</think>" + str(tokenizer.eos_token)), text[-40:]


def solution(problem: str, answer: str, response: str, *, truncated: bool = False) -> Solution:
    """A solution of a problem whose answer is 7."""
    return Solution(
        problem=problem,
        prompt=f"What is {problem}?",
        answer="7",
        response=response,
        extracted=answer,
        correct=answer == "7",
        truncated=truncated,
    )


def test_truncated_solutions_make_no_pair_and_the_most_frequent_error_is_rejected(
    tmp_path: Path,
) -> None:
    """Of 3+4 both truncated solutions are unused, though they are the most; the rejected side is
    the wrong answer that occurs three times, not the one that occurs twice.
    """
    write(
        tmp_path / "rollouts.jsonl",
        [
            *(solution("3+4", "7", "cut right", truncated=True) for _ in range(4)),
            *(solution("3+4", "8", "cut wrong", truncated=True) for _ in range(4)),
            solution("3+4", "7", "right"),
            *(solution("3+4", "5", "twice") for _ in range(2)),
            *(solution("3+4", "6", "three times") for _ in range(3)),
            # Of these, one side is left only: no pair.
            solution("2+5", "7", "right too"),
            solution("2+5", "5", "cut", truncated=True),
            solution("1+6", "7", "cut", truncated=True),
            solution("1+6", "5", "wrong too"),
        ],
    )
    stage = PairsStage(name="pairs", rollouts=str(tmp_path / "rollouts.jsonl"), cover=1.0)
    make_pairs(stage, recipe(), tmp_path)
    (pair,) = lines(tmp_path / "pairs.jsonl")
    assert (pair["id"], pair["chosen"], pair["rejected"]) == ("3+4", "right", "three times")
    assert [row["response"] for row in lines(tmp_path / "positive.jsonl")] == ["right", "right too"]
    wrong = [row["response"] for row in lines(tmp_path / "negative.jsonl")]
    assert wrong == ["three times", "twice", "wrong too"]
    assert json.loads((tmp_path / "summary.json").read_text())["num_pairs"] == 1


def test_solutions_and_pairs_keep_the_variables_of_their_template(tmp_path: Path) -> None:
    tools = ({"type": "function", "function": {"name": "add"}},)
    kwargs = {"enable_thinking": False}
    problem = Problem(id="p", prompt="3+4?", answer="7", tools=tools, template_kwargs=kwargs)
    rollout = Rollout(problem=problem, id=0, group=0, prompt_ids=(5,), response_ids=(6, 7))
    encoder = encoder_of(models.describe(recipe().model), recipe().prompt)
    with Grader() as grader:
        graded = _graded([rollout], stage(), encoder, grader)
    write(tmp_path / "one.jsonl", graded)
    (kept,) = read(tmp_path / "one.jsonl")
    assert (kept.tools, kept.chat_template_kwargs) == (tools, kwargs)
    # The testbed's template does not render tools, and writes an empty thought without thinking.
    solutions = [
        replace(solution("p", answer, answer), chat_template_kwargs=kwargs) for answer in ("7", "8")
    ]
    write(tmp_path / "rollouts.jsonl", solutions)
    make_pairs(
        PairsStage(name="all", rollouts=str(tmp_path / "rollouts.jsonl")), recipe(), tmp_path
    )
    (row,) = lines(tmp_path / "pairs.jsonl")
    assert row["chat_template_kwargs"] == kwargs
    assert encoder.tokenizer.decode(row["prompt_ids"]).endswith("<think>\n\n</think>\n\n")
    (sample_of,) = read_pairs(read_file(tmp_path / "pairs.jsonl"))
    assert sample_of.problem.template_kwargs == kwargs
    assert (
        _record([replace(rollout, problem=problem), replace(rollout, problem=problem)], "t")[
            "tools"
        ]
        == tools
    )


def test_limits_of_length_are_kept_by_pairs_and_say_what_is_left(tmp_path: Path) -> None:
    sample(stage(), recipe(), tmp_path)
    rollouts = str(tmp_path / "rollouts.jsonl")
    make_pairs(PairsStage(name="all", rollouts=rollouts), recipe(), tmp_path)
    lengths = [
        len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        for row in lines(tmp_path / "pairs.jsonl")
    ]
    (tmp_path / "short").mkdir()
    make_pairs(
        PairsStage(name="some", rollouts=rollouts, max_tokens=max(lengths) - 1),
        recipe(),
        tmp_path / "short",
    )
    assert len(lines(tmp_path / "short" / "pairs.jsonl")) == sum(
        length < max(lengths) for length in lengths
    )
    with pytest.raises(UserError, match="none of"):
        make_pairs(
            PairsStage(name="none", rollouts=rollouts, max_prompt_tokens=3),
            recipe(),
            tmp_path / "short",
        )


def test_problems_that_are_all_solved_make_no_pair(tmp_path: Path) -> None:
    rows = [{"problem": "1+1?", "answer": "2", "response": f"\\boxed{{{2}}}"}] * 3
    (tmp_path / "solved.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read_trajectories(TrajectoriesStage(name="read", path=str(tmp_path / "solved.jsonl")), tmp_path)
    with pytest.raises(
        UserError,
        match="pairs: no problem has both a right and a wrong solution among 3; sample more of "
        "each",
    ):
        make_pairs(
            PairsStage(name="pairs", rollouts=str(tmp_path / "rollouts.jsonl")),
            recipe(),
            tmp_path,
        )
    (tmp_path / "empty.jsonl").write_text('{"problem": "1+1?", "answer": "2", "response": ""}\n')
    with pytest.raises(
        UserError, match="line 1: no text in any of the columns response, completion"
    ):
        read_trajectories(
            TrajectoriesStage(name="read", path=str(tmp_path / "empty.jsonl")), tmp_path
        )
    with pytest.raises(UserError, match="has no column 'prompt'"):
        list(read(tmp_path / "empty.jsonl"))


@pytest.mark.skipif(
    not SOLUTIONS.exists(), reason="REASONTRAIN_DATA has no model_solutions_sample.jsonl"
)
def test_public_solutions_serve_as_trajectories(tmp_path: Path) -> None:
    read_trajectories(TrajectoriesStage(name="read", path=str(SOLUTIONS), limit=400), tmp_path)
    found = list(read(tmp_path / "rollouts.jsonl"))
    labels = [json.loads(line)["correct"] for line in SOLUTIONS.read_text().splitlines()[:400]]
    assert sum(s.correct == label for s, label in zip(found, labels, strict=True)) > 390
    make_pairs(
        PairsStage(name="pairs", rollouts=str(tmp_path / "rollouts.jsonl")),
        recipe(),
        tmp_path,
    )
    pairs = lines(tmp_path / "pairs.jsonl")
    assert len(pairs) > 20
    assert all(row["chosen"] != row["rejected"] for row in pairs)
    assert len(lines(tmp_path / "negative.jsonl")) >= len(pairs)


def test_answers_that_the_verifier_finds_equal_are_one_group() -> None:
    answers = ["1/2", "0.5", r"\frac12", "3/4", "0.75", "x+1", "1+x", "", "7"]
    solutions = [
        Solution(
            problem="p", prompt="?", answer="3/4", response="", extracted=answer,
            correct=answer in ("3/4", "0.75"), truncated=answer == "7",
        )
        for answer in answers
    ]  # fmt: skip
    with Grader(num_workers=1) as grader:
        attempts = _attempts(solutions, grader)
    spelled = [attempt.answer for attempt in attempts]
    assert [spelled.index(answer) for answer in spelled] == [0, 0, 0, 3, 3, 5, 5, 7, 7]
    assert spelled[7:] == ["", ""]
    assert [attempt.correct for attempt in attempts] == [one.correct for one in solutions]


def test_trajectories_have_an_answer_format_and_may_be_truncated(tmp_path: Path) -> None:
    solved = {"problem": "1+1?", "answer": "2", "response": "It sums up to 2"}
    rows = [solved, {**solved, "truncated": True}, {**solved, "response": r"\boxed{2} is it"}]
    path = tmp_path / "solved.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for answer_format, expected in (("marked", [False, False, True]), ("any", [True, False, True])):
        read_trajectories(
            TrajectoriesStage(name="read", path=str(path), answer_format=answer_format), tmp_path
        )
        solutions = list(read(tmp_path / "rollouts.jsonl"))
        assert [solution.correct for solution in solutions] == expected
        assert [solution.truncated for solution in solutions] == [False, True, False]
