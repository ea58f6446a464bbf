"""The value that a statement of an answer gives, whole and without remarks."""

from __future__ import annotations

import pytest

from reasontrain.tasks.grading.extract import extract


@pytest.mark.parametrize(
    "answer",
    [
        *("3 hours 20 minutes", "5 feet 10 inches", "10 miles south", "1.2 billion", "12 km/h"),
        *("12 remainder 5", "3 times 4", "3 halves", "3 to the power of 4", "3 out of 4"),
        *("at least 5", "less than 5", "between 4 and 6", "-5", "10^{-3}", "5 - 3 = 2", "1,000"),
        *("18 dollars per day", "$18.00", "Rs. 5", "USD 5", "5 p.m.", "4:30 a.m.", "2:30 PM"),
        *("3:4", "3 (mod 7)", "(2, 3)", "(2, 3]", "2, 3, and 5", "x^2 + 1", "x = 3 and y = 4"),
        *("Monday", "red, blue and green", "Paris, France", "March 5, 2020", "none of the above"),
        *("(C) 60", "C. 60", "B) Paris", "5 apples, 3 pears", "3/4 = 0.75", "2 or 3", "12 units²"),
    ],
)
def test_a_value_stays_whole(answer: str) -> None:
    stop = "" if answer.endswith(".") else "."
    assert extract(f"The answer is {answer}{stop}") == answer
    assert extract(f"The answer is {answer}{stop} I am sure.") == answer
    assert extract(f"**Final Answer:** {answer}\n\nThat is all.") == answer
    assert extract(f"**Answer: {answer}**") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 12. (The answer is given in cm.)", "12"),
        ("The answer is 3/4. The answer is therefore correct.", "3/4"),
        ("The answer is 72, which is the total.", "72"),
        ("The answer is 72, in total, so the farmer earns that much.", "72"),
        ("The answer is 3/4, i.e. 0.75.", "3/4"),
        ("The answer is 3/4 (0.75).", "3/4"),
        ("The answer is 12 (twelve).", "12"),
        ("The answer is 42 because geometry proves it", "42"),
        ("The answer is yes, because it is prime.", "yes"),
        ("The answer is 1/2 of the cake.", "1/2"),
        ("The answer is 20% of the total.", "20%"),
        ("The answer is 18 dollars for each child.", "18 dollars"),
        ("The answer is 5 inches taller than Bob.", "5 inches"),
        ("The answer is 5 apples — the rest is eaten.", "5 apples"),
        ("The answer is (2, 3] and nothing else.", "(2, 3]"),
        ("The answer is $\\frac{1}{2}$, and that is it.", "\\frac{1}{2}"),
        ("The answer is $2\\sqrt{3}$ (in simplest radical form).", "2\\sqrt{3}"),
        ("The answer is C. This follows from above.", "C"),
        ("Answer: 12. Great!", "12"),
        ("Answer: 12 Explanation: 3 * 4 = 12", "12"),
        ("The answer is 12 and the total cost is 36.", "12"),
        ("The answer is 12; 3 * 4 = 12.", "12"),
        ("The answer is 12 of them.", "12"),
        ("The answer is a total of 12 cows.", "12 cows"),
        ("The answer is the point (2, 3).", "(2, 3)"),
        ("The answer is yes, it is prime.", "yes"),
        ("The answer is 12. The answer is less than 20.", "12"),
        ("The answer is 12. The answer was checked with 3 tests.", "12"),
        ("La réponse est 5, car 2 + 3 = 5.", "5"),
        ("答案为12，因为3*4=12。", "12"),
    ],
)
def test_a_remark_is_no_part_of_the_answer(text: str, answer: str) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 4 or 5.", "4 or 5"),
        ("The answer is either 4 or 5.", "4 or 5"),
        ("The answer is 4, maybe 5.", "4, maybe 5"),
        ("The answer is 5 (or 6).", "5 or 6"),
        ("\\boxed{5} or 6", "5 or 6"),
        ("$\\boxed{5}$, or maybe $6$.", "5 or 6"),
        ("$\\boxed{5}$. It could also be 6.", "5 or 6"),
        ("The answer is 5. Or maybe 6.", "5 or 6"),
        ("The answer is 5. Alternatively, 6.", "5 or 6"),
        ("The answer is 5. It could also be $6$.", "5 or 6"),
        ("The answer is $5$ or $6$.", "5 or 6"),
        ("The answer is 5 or 5.", "5"),
        ("The answer is probably 5, but could be 6.", "5, but could be 6"),
        ("The answer is 5; it might be 6.", "5; it might be 6"),
    ],
)
def test_all_alternatives_of_a_hedge_are_in_the_answer(text: str, answer: str) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 12 not 13", "12"),
        ("The answer is 12, not 13.", "12"),
        ("The answer is 12 rather than 13.", "12"),
        ("The answer is not 12 but 15.", "15"),
        ("The answer is not 12, it's 15.", "15"),
        ("The answer is not 12. It is 15.", "15"),
        ("The answer is not 12.", "not 12"),
        ("The answer isn't 12.", "not 12"),
        ("The answer cannot be 12.", "not 12"),
        ("La réponse n'est pas 12.", "not 12"),
        ("Die Antwort ist nicht 12.", "not 12"),
        ("答案不是12。", "not 12"),
        ("The answer is 5. Sorry, I meant 7.", "7"),
        ("Die Antwort ist nicht 12, sondern 15.", "15"),
        ("答案不是12，而是15。", "15"),
        ("The answer is 5. Wait, that's wrong. It is 7.", "7"),
        ("The answer is 5. Actually, it is 7.", "7"),
        ("The answer is 5, no wait, 6.", "6"),
        ("The answer is 5. That is wrong.", ""),
        ("The answer is 5. Wait, let me check: 2+3=5. Yes.", "5"),
        ("The answer is 5. Wait, if it is 3, then 2 + 3 is 5, so it is correct.", "5"),
        ("The answer is 5. No further steps are needed. It is 3 apples and 2 pears.", "5"),
        ("Step 1. Answer: 5 so far.\nStep 2. Answer: 72", "72"),
        ("The answer is 1. The answer is 2. The answer is 3.", "3"),
        ("I got \\boxed{4} at first. The final answer is 5.", "5"),
        ("\\boxed{5}. The answer is given above.", "5"),
    ],
)
def test_what_is_denied_or_replaced_is_no_answer(text: str, answer: str) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: She has 5 apples.", "5 apples"),
        ("Answer: Janet makes $18 every day.", "$18 every day"),
        ("Answer: She has at least 5 apples.", "at least 5 apples"),
        ("The answer is that there are 5 apples.", "5 apples"),
        ("Final Answer: The largest number of points of $f(x)$ is 19.", "19"),
        ("Answer: Total cost: $5", "$5"),
        ("Answer: The winner is Alice.", "Alice"),
        ("答：一共有12个苹果。", "12个苹果"),
    ],
)
def test_a_sentence_around_the_value_is_left_out(text: str, answer: str) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("**Final Answer**\n\n73", "73"),
        ("### Final Answer\n\n**73**", "73"),
        ("Final Answer\n---\n73", "73"),
        ("Final answer:\n\n$$73$$", "73"),
        ("The answer is\n\\[\n\\begin{pmatrix}1\\\\2\\end{pmatrix}\n\\]", None),
        ("So the answer is:\n\n- apples: 5\n- pears: 7\n\nTotal: 12", "12"),
        ("The answers are:\n1. x = 1\n2. x = 2", "x = 1, x = 2"),
        ("Answer: $5$ percent", "5 percent"),
        ("Answer: $5$ cm", "5 cm"),
        ("Answer: `5`", "5"),
        ('{"thought": "3 + 2", "answer": "5"}', "5"),
        ('{"answer": 5}', "5"),
        ("**Final Answer:** $\\boxed{}$ 73", "73"),
        ("Answer 5", "5"),
        ("Answer -5", "-5"),
        ("Answer - 5", "5"),
        ("Answer → 5", "5"),
        ("| Answer | 5 |", "5"),
        ("<b>Answer:</b> 5", "5"),
        ("The answer is as follows:\n\n5", "5"),
        ("The answer is given by:\n$$5$$", "5"),
        ("The answers are:\n\n* apples: 5\n* pears: 7\n\n**Total: 12**", "12"),
        ("The answer is (a) 3 and (b) 4.", "3, 4"),
        ("Answer:\n(a) 3\n(b) 4", "3, 4"),
        ("The correct option is (C).", "(C)"),
    ],
)
def test_layouts_of_a_statement(text: str, answer: str | None) -> None:
    expected = "\\begin{pmatrix}1\\\\2\\end{pmatrix}" if answer is None else answer
    assert extract(text) == expected


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 42", "42"),
        ("#### 42\nThat is right in 3 ways.", "42"),
        ("#### $18.00", "$18.00"),
        ("#### 18 dollars per day", "18 dollars per day"),
        ("#### 12,34", "12,34"),
        ("#### -\\frac{1}{2}", "-\\frac{1}{2}"),
        ("#### x = 5", "x = 5"),
        ("So\n#### Monday", "Monday"),
        ("#### 1 #### 2", "2"),
        (
            "#### $\\begin{pmatrix}\n1 \\\\\n2\n\\end{pmatrix}$",
            "\\begin{pmatrix}\n1 \\\\\n2\n\\end{pmatrix}",
        ),
        ("#### 12\n#### End", "12"),
        ("The answer is #### 42", "42"),
        ("#### Reasoning\n20 plus 22.\n\n**Final Answer:** 42", "42"),
        ("#### Step 1: add\n20 + 22 = 42\n#### Final Answer\nThe answer is 42.", "42"),
        ("#### Final Answer\n\n42", "42"),
        ("#### Answer: 42", "42"),
        ("#### 1. Apples\n20\n#### 2. Pears\n22\nThat makes 42.", ""),
        ("#### 3) Compute\n5 + 5 = 10", ""),
        ("#### (a) Apples\nThere are 3.", ""),
        ("##### 42 is what we want\nSo we add.", ""),
    ],
)
def test_four_hashes_mark_an_answer_and_not_a_heading(text: str, answer: str) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    "answer",
    [
        *("(-\\infty, -7) \\cup (-7, 3) \\cup (3, \\infty)", "(2,12) \\cup (12,102)"),
        *("m_{p} c^{2}\\left(\\gamma^{2}-1\\right) \\sin^{2} \\theta", "f(x) = (x + 1)(x - 2)"),
        *("2\\cos\\left(\\frac{\\pi}{7}\\right)", "\\{1, 2\\}", "|x - 2|", "n! (n+1)!"),
    ],
)
def test_formulas_without_delimiters_stay_whole(answer: str) -> None:
    for text in ("The answer is {}.\n\nThat is all.", "Answer: {}", "Die Antwort ist **{}**."):
        assert extract(text.replace("{}", answer)) == answer
