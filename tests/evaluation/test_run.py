"""What an evaluation adds up: votes, parts, lengths, and every way in which an answer came to
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from reasontrain.data.sampling import Sampling
from reasontrain.evaluation.generation import answer_by_sampling, chunk_prompts, sample_with
from reasontrain.evaluation.run import Evaluation, evaluate
from reasontrain.recipe import Suite
from reasontrain.tasks import Grader, Response, Scored
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
    """A sampler that says what is written above; the third answer of everybody is cut off, and
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
                truncated=s == 2,
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

        def graded(responses: Sequence[Response]) -> list[Scored]:
            answer_format = suite.answer_format or "marked"
            return MathTask().grade(responses, grader, answer_format=answer_format)

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
        "accuracy": 0.25, "mean@1": 0.75, "mean@5": 0.25, "pass@1": 0.25, "pass@5": 0.75,
        "maj@1": 0.75, "maj@5": 0.375,
    }, abs=1e-15)  # fmt: skip
    assert (found.suite, found.version, found.problems_sha256) == ("x", 3, "0f")
    assert (found.response_tokens_mean, found.response_tokens_p50, found.response_tokens_p95) == (
        3.0,
        3.0,
        5.0,
    )
    assert found.truncated_share == 0.2
    assert found.reasons == {"exact": 10, "no answer": 10}
    assert found.format_failure_share == 0.5  # b 2 of 5, c 5, d 3: "It is 1" marks no answer
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
