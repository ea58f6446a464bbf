"""What is decided without algebra: spellings, words, lists, intervals, matrices, names before an
equals sign.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import text

from reasontrain.tasks.grading.exact import compare
from reasontrain.tasks.grading.normalise import normalise

EQUAL = [
    (r"\dfrac{3}{4}", "0.75"),
    (r"\frac43", r"\frac {4}{3}"),
    (r"11\sqrt2", r"11 \sqrt{2}"),
    (r"\$32,\!348", "32348"),
    (r"10{,}000", "10,000"),
    (r"90^\circ", "90"),
    (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}"),
    (r"15\mbox{ cm}^2", "15"),
    ("100 dollars", "100"),
    ("42 square units", "42"),
    (r"25\%", "25"),
    ("0.25", r"25\%"),
    (r"\text{Evelyn}", "evelyn"),
    (r"\text{(C)}", "C"),
    (r"\text{(C)}", r"\text{(C) Plane}"),
    ("x=5", "5"),
    (r"V_{1}:V_{2}=11:21", "11:21"),
    ("(p,q)=(3,2)", "(3,2)"),
    (r"x \in [-2,7]", "[-2,7]"),
    ("1,-2", "-2, 1"),
    (r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"),
    ("1 and 2 and 3", r"\{3, 2, 1\}"),
    (r"(1,\frac{9}{2})", "(1, 4.5)"),
    (r"(2,12) \cup (12,102)", r"(12, 102)\cup(2, 12)"),
    (
        r"\begin{pmatrix}1 & 1/2 \\ 3 & 4\end{pmatrix}",
        r"\left[\begin{array}{cc}1 & 0.5 \\3 & 4\end{array}\right]",
    ),
    ("5", r"n \equiv 5 \pmod{17}"),
    (r"1,000", "1 000"),
]
DIFFERENT = [
    ("[0,9)", "[0,1)"),
    ("(0,9)", "[0,9)"),
    ("(1,2)", "(2,1)"),
    ("1,2", "1,2,3"),
    ("12", "1,23"),
    ("12", "[1,2]"),
    ("odd", r"\text{oddd}"),
    ("B", "A"),
    ("0", "0 0/0"),
    ("3", "1 2"),
    ("12345678902", "12345678901"),
    (r"\begin{pmatrix}1 \\ 2\end{pmatrix}", r"\begin{pmatrix}1 \\ 3\end{pmatrix}"),
    ("25", r"2500000\%"),
]


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal(gold: str, answer: str) -> None:
    assert compare(normalise(gold), normalise(answer), {})[:2] == (True, [])
    assert compare(normalise(answer), normalise(gold), {})[:2] == (True, [])


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_different(gold: str, answer: str) -> None:
    assert compare(normalise(gold), normalise(answer), {})[:2] == (False, [])
    assert compare(normalise(answer), normalise(gold), {})[:2] == (False, [])


def test_the_last_member_of_a_chain_counts() -> None:
    assert compare("5", "x = 2+3 = 5", {}).equal
    assert compare("x = 2+3 = 5", "5", {}).equal
    assert not compare("x = 2+3 = 5", "2+3 = 6", {}).equal


def test_undecided_leaves_are_named_and_then_known() -> None:
    gold, answer = "(x+1, 2)", "(1+x, 2)"
    assert compare(gold, answer, {})[:2] == (False, [("x+1", "1+x")])
    assert compare(gold, answer, {("x+1", "1+x"): True})[:2] == (True, [])
    assert compare(gold, answer, {("x+1", "1+x"): False})[:2] == (False, [])


@given(
    text(alphabet="12 ,=()[]{}\\^_+-/xy$.%&", max_size=40),
    text(alphabet="12 ,=()[]{}\\^_+-/xy$.%&", max_size=40),
)
def test_never_raises_and_a_spelling_equals_itself(gold: str, answer: str) -> None:
    compare(normalise(gold), normalise(answer), {})
    assert compare(normalise(gold), normalise(gold), {})[:2] == (True, [])
