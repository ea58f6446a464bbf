"""What an evaluation adds up: votes, parts, lengths, and every way in which an answer came to
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from reasontrain.data.sampling import Sampling
from reasontrain.evaluation.answers import Reply
from reasontrain.evaluation.generation import answer_by_sampling, chunk_prompts, sample_with
from reasontrain.evaluation.run import (
    Evaluation,
    SuiteGrader,
    evaluate,
    infer_thoughts_of,
    summary,
)
from reasontrain.recipe import Suite
from reasontrain.tasks import Grader, Response, Scored, Verdict
from reasontrain.tasks.math import MathTask
from reasontrain.types import Problem, Prompt, Rollout, Weights

TEXTS = {
    "a": [
        r"\boxed{0.5}",
        r"\boxed{\frac12}",
        r"\boxed{3}",
        r"\boxed{3 \text{ cm}}",
        r"\boxed{3}",
    ],  # 3 leads, 1/2 is right
    "b": [
        r"\boxed{7}",
        r"\boxed{07}",
        "I have no idea what is asked.",
        "",
        r"\boxed{8}",
    ],  # 7 leads and is right
    "c": ["", "", "", "", ""],
    "d": [r"\boxed{1}", r"\boxed{2}", "It is 1", "", ""],  # 1 and 2 lead, 1 is right
}
GOLD = {"a": "1/2", "b": "7", "c": "9", "d": "1"}
LEVEL = {"a": "1", "b": "1", "c": "2", "d": "2"}


class Scripted:
    """A sampler that says what is written above; the fifth answer of everybody is cut off, and
    answers are 1 to 5 tokens.
    """

    version = 0

    def load(self, weights: Weights) -> None: ...

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        return [
            Rollout(
                problem=prompt.problem, id=first_id + i * num + s, group=i, prompt_ids=prompt.ids,
                response_ids=tuple(range(s + 1)), text=TEXTS[prompt.problem.id][s],
                truncated=s == 4,
            )
            for i, prompt in enumerate(prompts) for s in range(num)
        ]  # fmt: skip


def asked(suite: Suite, dropped: int = 0) -> Evaluation:
    about = [{"level": LEVEL[name], "url": f"u/{name}", "kind": "x"} for name in GOLD]
    problems = [
        Problem(id=name, prompt="?", answer=GOLD[name], about=facts)
        for name, facts in zip(GOLD, about, strict=True)
    ]
    with Grader(num_workers=1) as grader:
        graded = SuiteGrader(
            task=MathTask(), grader=grader, answer_format=suite.answer_format or "marked"
        )
        prompts = [Prompt(problem=problem, ids=(1,)) for problem in problems]
        respond = answer_by_sampling(
            chunk_prompts(prompts, suite.sampling, num=suite.num_samples, chunk_size=3),
            sample_with(Scripted()),
        )
        return evaluate(suite, problems, respond, score=graded, dropped=dropped, sha256="0f")


def test_everything_that_is_measured_by_hand() -> None:
    found = asked(Suite(name="x", version=3, num_samples=5, pass_at=(1, 5), answer_format="marked"))
    values = {name: interval.value for name, interval in found.metrics.items()}
    # right: a 2 of 5, b 2 of 5, c none, d 1 of 5; the most frequent: a wrong, b right, c nothing, d
    # one of two
    assert values == pytest.approx({
        "accuracy": 0.25, "pass@5": 0.75, "maj@5": 0.375,
    }, abs=1e-15)  # fmt: skip
    assert (found.suite, found.version, found.problems_sha256) == ("x", 3, "0f")
    assert (found.response_tokens_mean, found.response_tokens_p50, found.response_tokens_p95) == (
        3.0,
        3.0,
        5.0,
    )
    assert (found.truncated, found.unfinished, found.no_answer) == (4, 0, 10)
    assert {name: share.value for name, share in found.shares.items()} == {
        "truncated": 0.2,
        "unfinished": 0.0,
        "no_answer": 0.5,
    }
    assert found.shares["no_answer"].low < 0.5 < found.shares["no_answer"].high
    assert found.reasons == {"exact": 10, "no answer": 10}
    # no answer: b 2 of 5, c 5, d 3: "It is 1" marks no answer
    assert {
        level: (part.num_problems, part.accuracy.value)
        for level, part in found.parts["level"].items()
    } == {
        "1": (2, 0.4),
        "2": (2, 0.1),
    }
    assert set(found.parts) == {"level"}  # a url is everybody's own, and all are of one kind


def test_the_last_number_counts_where_the_suite_allows_it() -> None:
    found = asked(Suite(name="x", num_samples=5, answer_format="any"))
    assert found.metrics["accuracy"].value == pytest.approx(0.3, abs=1e-15)
    assert found.reasons["no answer"] == 9


def test_what_was_dropped_is_wrong_and_in_no_part() -> None:
    found = asked(Suite(name="x", num_samples=5, pass_at=(5,), answer_format="any"), dropped=1)
    assert (found.num_problems, found.dropped) == (5, 1)
    assert found.metrics["accuracy"].value == pytest.approx(0.3 * 4 / 5, abs=1e-15)
    assert found.metrics["maj@5"].value == (1 + 1) / 5  # b, and d with its third answer
    assert sum(part.num_problems for part in found.parts["level"].values()) == 4


def test_a_record_is_plain() -> None:
    record = asked(Suite(name="x", num_samples=5)).record()
    assert record["parts"]["level"]["2"]["num_problems"] == 2
    assert record["parts"]["level"]["2"]["accuracy"].keys() == {"value", "low", "high"}
    assert "answers" not in record


@pytest.fixture(scope="module")
def grader() -> Iterator[SuiteGrader]:
    with Grader(num_workers=1) as grader:
        yield SuiteGrader(task=MathTask(), grader=grader, answer_format="marked")


def evaluated(
    grader: SuiteGrader, gold: str, texts: Sequence[str], *, infer_thoughts: bool = False
) -> Evaluation:
    """One problem, with these responses; one that ends in "..." was cut there."""
    replies = {
        (0, s): Reply(text=text.removesuffix("..."), truncated=text.endswith("..."), num_tokens=1)
        for s, text in enumerate(texts)
    }
    return evaluate(
        Suite(name="x", num_samples=len(texts), pass_at=(len(texts),)),
        [Problem(id="p", prompt="?", answer=gold)],
        lambda missing: iter([replies]),
        score=grader,
        infer_thoughts=infer_thoughts,
    )


@pytest.mark.parametrize(
    ("gold", "answers", "expected"),
    [
        ("3/4", ["1/2", "0.5", r"\frac12", "0.75", r"\frac{3}{4}"], 0.0),
        ("3/4", [r"\frac{3}{4}", "0.5", "0.75", "1/2", "75\\%"], 1.0),
        ("7", ["12", "12.0", "x=12", "7", "7.0"], 0.0),
        ("7", ["x=12", "7", "12", "7.0", "12.0"], 0.0),
        ("5", ["2,3", "3,2", "5"], 0.0),
        ("5", [r"\{2,3\}", r"\{3,2\}", "5"], 0.0),
        ("5", ["x+1", "1+x", "5"], 0.0),
        ("5", ["2(x+1)", "2x+2", "2x+2.0", "5", "5"], 0.0),
        ("5", ["1", "2", "3", "5", "5"], 1.0),
        ("5", ["4", "4.0", "5", "5.0"], 0.5),
        ("5", ["east", "East", "west", "5"], 0.0),
    ],
)
def test_right_and_wrong_votes_have_one_equivalence(
    grader: SuiteGrader, gold: str, answers: list[str], expected: float
) -> None:
    for order in (answers, answers[::-1]):
        found = evaluated(grader, gold, [f"\\boxed{{{answer}}}" for answer in order])
        assert found.metrics[f"maj@{len(answers)}"].value == expected


def test_a_response_without_an_answer_has_no_vote(grader: SuiteGrader) -> None:
    silent = ["I cannot say what it may be.", r"<think>\boxed{4}", r"<think>\boxed{4}..."]
    found = evaluated(grader, "5", [*silent, r"\boxed{5}"])
    assert found.metrics["maj@4"].value == 1.0
    assert (found.truncated, found.unfinished, found.no_answer) == (1, 2, 1)
    assert found.shares["unfinished"].value == 0.5
    assert [answer.unfinished for answer in found.answers] == [False, True, True, False]
    record = found.record()
    assert record["shares"]["truncated"].keys() == {"value", "low", "high"}
    assert summary(found).endswith(
        "(1 problems x 4; 1 truncated, 2 with an unfinished thought, 1 without an answer)"
    )


def test_a_reward_of_ones_own_has_no_votes() -> None:
    class Own(MathTask):
        has_own_reward = True

        def grade(self, responses: Sequence[Response], *_: object, **__: object) -> list[Scored]:
            return [Scored(1.0, Verdict(True, "", "own reward")) for _ in responses]

    with Grader(num_workers=1) as grader:
        own = SuiteGrader(task=Own(), grader=grader, answer_format="marked")
        assert list(evaluated(own, "5", ["a", "b"]).metrics) == ["accuracy", "pass@2"]


CUT = "The answer is 5.\nBut wait..."


@pytest.mark.parametrize(
    ("others", "is_thinking"),
    [
        (["hm </think> The answer is 5."], True),
        (["hm [/THINK] The answer is 5."], True),
        (["<think>hm</think> The answer is 5."], False),  # it would have opened its thought
        (["The answer is 5."], False),
    ],
)
def test_replies_show_that_the_prompt_opened_a_thought(
    grader: SuiteGrader, others: list[str], is_thinking: bool
) -> None:
    found = evaluated(grader, "5", [CUT, *others], infer_thoughts=True)
    assert found.unfinished == is_thinking
    assert found.metrics["accuracy"].value == (0.5 if is_thinking else 1.0)
    assert found.reasons.get("unfinished", 0) == is_thinking
    assert evaluated(grader, "5", [CUT, *others]).unfinished == 0
    # a resumed evaluation infers it again
    assert tuple(infer_thoughts_of(found.answers)) == found.answers
