"""Where the answer is found, and where none is."""

from __future__ import annotations

import time

import pytest

from reasontrain.tasks.grading.extract import extract, last_boxed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{\frac{1}{2}} and then \boxed{3}", "3"),
        (r"\boxed{\frac{1}{\sqrt{2}}}.", r"\frac{1}{\sqrt{2}}"),
        (r"\fbox{7}", "7"),
        (r"\boxed 7 is it", "7"),
        (r"the answer is 5, or \boxed{6", "5, or \\boxed{6"),  # an unclosed box is none
        (r"\boxed{1}, \boxed{2} and \boxed{3}", "1, 2, 3"),
        (r"\boxed{2} \quad \text{and} \quad \boxed{1}", "2, 1"),
        (r"\boxed{1} no no \boxed{2}", "2"),
        (r"\boxed{5}" + "\n\n" + r"\boxed{6}", "6"),
        ("He boxed presents.\n#### 33", "33"),
        ("#### 10\nmore\n#### 1,020\n", "1,020"),
        ("The answer is 7 apples. Good.", "7 apples"),
        ("The answer is 42 because geometry proves it", "42"),
        (r"Final Answer: The final answer is $(-6, 10)$. I hope it is correct.", "(-6, 10)"),
        (r"We saw \boxed{255}. Final Answer: The final answer is $10,455$.", "10,455"),
        (r"\boxed{255}. The final answer is given above.", "255"),
        ("10 = 2*5\nA: 1509", "1509"),
        ("Final Answer: **73**", "73"),
        ("<answer>2x + 3</answer>", "2x + 3"),
        ("x^2 + 1", "x^2 + 1"),
        ("", ""),
    ],
)
def test_marked_answers(text: str, answer: str) -> None:
    assert extract(text, answer_format="marked") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"<think>\boxed{4}</think> It is \boxed{5}", "5"),
        (r"<think>it is \boxed{4}</think> I do not know what to say here.", ""),
        ("thinking without an opening tag: the answer is 4</think>\nThe answer is 5.", "5"),
        ("<think> the answer is 4, and on and on", None),
        (r"<think> the answer is 4, so \boxed{4}", None),
    ],
)
def test_thinking_is_no_answer(text: str, answer: str | None) -> None:
    assert extract(text, answer_format="marked") == answer


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 3 cats and 4 dogs, which makes 1,007.50 of them.", "1,007.50"),
        ("It cost her $5 and then him $60 in all", "60"),
        (r"We find that $x \neq 3$ for all cases.", r"x \neq 3"),
        ("From 10 we go down to -7 degrees", "-7 degrees"),
        ("Haley总共有99颗弹珠。", "99"),
    ],
)
def test_last_number_is_taken_only_where_allowed(text: str, number: str) -> None:
    assert extract(text, answer_format="any") == number
    assert extract(text, answer_format="marked") == ""


def test_last_boxed_is_none_without_a_box() -> None:
    assert last_boxed("no box, \\boxed{} and \\boxed{open") is None


HOSTILE = [
    *("\\boxed{", "\\boxed{1}", "\\fbox{1},", "\\boxed{1} and ", "\\boxed ", "box ", "{", "))"),
    *("$", "$a", "\\(", "\\[", "\\", "\\begin{a}", "\\text{ and } ", "**", "\n", " ", "[("),
    *(
        "answer is ",
        "answer to ",
        "answer (",
        "answer is not 5 but ",
        "答案",
        "A:",
        "####",
        "#### 1\n",
    ),
    *("The answer is:\n- 1\n", "The answer is given. ", "is 5 ", "wait no ", "or maybe ", "Rs. 5 "),
    *("<think>", "<answer>", "<|im_end|>", "\nUser:", "\nQ: ", "1,000,", "1.", "1/"),
]


@pytest.mark.parametrize("start", ["", "The answer is ", "\\boxed{1}"])
def test_time_is_linear_on_a_hundred_thousand_hostile_characters(start: str) -> None:
    slowest = 0.0
    for piece in HOSTILE:
        text = start + piece * (100_000 // len(piece))
        before = time.process_time()
        extract(text, answer_format="any", truncated=start == "")
        slowest = max(slowest, time.process_time() - before)
    # measured: 0.05 s; a quadratic search takes minutes
    assert slowest < 0.5


@pytest.mark.parametrize(
    "text", ["It is 5", "we get 5.", "So she has $5$", "it must be \\(5\\)", "I say 5"]
)
def test_a_short_sentence_is_no_bare_answer(text: str) -> None:
    assert extract(text, answer_format="any").strip(".") == "5"
    assert extract(text, answer_format="marked") == ""


@pytest.mark.parametrize(
    "text", ["May 5", "5 apples", "x = 5", "blue whale", "sqrt 5", "2 or 5", "(C) 5"]
)
def test_a_bare_answer_is_taken_whole(text: str) -> None:
    assert extract(text, answer_format="marked") == text
