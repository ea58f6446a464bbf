r"""Lists, sets of reals, relations, matrices, names and chains, each with near misses."""

from __future__ import annotations

import gc
import time

import pytest

from reasontrain.tasks.grading.exact import compare
from reasontrain.tasks.grading.normalise import normalise


def verdict(gold: str, answer: str) -> bool:
    """The exact verdict, in which leaves that algebra would decide count as unequal."""
    return compare(normalise(gold), normalise(answer), {}).equal


I2 = r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}"
ABCD = r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"

EQUAL = [
    # alternatives that are all the same value
    (r"\frac{3}{4}", r"\frac{3}{4} \text{ or } 0.75"),
    ("3/4", "3/4, or 75\\%"),
    ("x = 4", "x = 4 or x = 4.0"),
    # sets of reals
    (r"[\sqrt{2}, +\infty)", r"[\sqrt{2}, \infty)"),
    ("(-\\infty, 3)", "x<3"),
    ("(-\\infty, 3)", "3 > x"),
    (r"m \ge a", r"m \in [a, +\infty)"),
    (r"-2 \le x \le 3", "[-2, 3]"),
    (r"3 \ge x \ge -2", r"-2 \le x \le 3"),
    (r"3 \ge x > -2", r"-2 < x \le 3"),
    ("|x| < 2", "-2 < x < 2"),
    (r"|x - 1| \le 3", "[-2, 4]"),
    (r"|x| \ge 2", r"x \le -2 \text{ or } x \ge 2"),
    (r"|x| > 2", r"(-\infty, -2) \cup (2, \infty)"),
    (r"\{x \mid x > 2\}", r"(2, \infty)"),
    (r"\{x \in \mathbb{R} : 1 < x \le 2\}", "(1, 2]"),
    (r"(-\infty, 1) \cup (1, \infty)", r"\mathbb{R} \setminus \{1\}"),
    (r"(-\infty, 1) \cup (1, \infty)", r"x \ne 1"),
    (r"(-\infty, 1) \cup (1, 2) \cup (2, \infty)", r"x \ne 1 \text{ and } x \ne 2"),
    (r"(-\infty, \infty)", r"\mathbb{R}"),
    (r"\mathbb{R}", r"\text{all real numbers}"),
    (r"(-\infty, 2) \cup (3, \infty)", r"(3, \infty) \cup (-\infty, 2)"),
    (r"(-\infty, 2) \cup (3, \infty)", r"(-\infty, 2), (3, \infty)"),
    (r"(1, 3)", r"(1, 2] \cup (2, 3)"),
    (r"(1, 3)", "x > 1, x < 3"),
    (r"x < 1 \text{ or } x > 3", r"x < 1, x > 3"),
    ("(1, 2]", "]1, 2]"),
    ("[1.41, 2.24]", "[1.414, 2.236]"),
    (r"\emptyset", r"\{\}"),
    (r"\emptyset", r"\text{no solution}"),
    (r"(a, b)", r"a < x < b"),
    (r"\infty", r"+\infty"),
    (r"\mathbb{R} \setminus \{0, 1\}", r"x \ne 0, 1"),
    (r"\mathbb{R} \setminus \{0\}", r"\mathbb{R} - \{0\}"),
    (r"\mathbb{R} \setminus \{0\}", r"\text{all real numbers except } 0"),
    (r"[0, \infty)", r"\mathbb{R}_{\ge 0}"),
    (r"(0, \infty)", r"\mathbb{R}^+"),
    (r"k\pi, k \in \mathbb{Z}", r"k\pi \text{ where } k \in \mathbb{Z}"),
    # lists
    (r"\{1, 2\}", r"x \in \{2, 1\}"),
    ("1, 2", r"x = 1 \lor x = 2"),
    ("1, 2", "x = 1, 2"),
    ("a=4, -8, -10", "-10, -8, 4"),
    (r"\pm 1 \pm 5", "6, -4, 4, -6"),
    (r"x = \pm 3", r"x=3 \text{ or } x=-3"),
    ("(3, 400)", "(3,400)"),
    ("(1000, 2)", "(1,000, 2)"),
    ("11232", r"\text{Total Cost} = \$11,232"),
    ("1234, 5", r"1,234 \text{ and } 5"),
    ("(3, 4), (4, 3)", "(4, 3), (3, 4)"),
    (r"1, 2, \ldots, 10", r"1, 2, 3, \ldots, 10"),
    ("2, 4, 6, 8", r"2, 4, \ldots, 8"),
    ("{1, 2}", "2, 1"),
    (r"\langle 1, 2 \rangle", "(1, 2)"),
    (r"p \land q", r"p \wedge q"),
    (r"\mathbb{Z}", r"\text{all integers}"),
    # names
    ("x=3, y=4", "y=4, x=3"),
    ("x=3, y=4", "(3, 4)"),
    ("(x, y) = (3, 4)", "x = 3, y = 4"),
    ("(x, y) = (3, 4)", r"x = 3 \\ y = 4"),
    ("(p, q) = (3, 2)", "(3, 2)"),
    ("a = 1, b = 2", r"b=2 \text{ and } a=1"),
    ("f(x) = 5", "y = 5"),
    ("f(x) = x^2 + 1", "f(t) = t^2 + 1"),
    ("(2, -1)", r"x=2 \quad y=-1"),
    ("33", "m+n = 33"),
    ("0.2", "P(X > 3) = 0.2"),
    ("5", "|z| = 5"),
    ("11", "5+5+1 = 7 = 11"),
    ("5 = x", "x = 5"),
    # approximations
    (r"\sqrt{2}", r"\sqrt{2} \approx 1.41"),
    ("1.41", r"\sqrt{2} \approx 1.41"),
    ("11", r"x \approx 11"),
    (r"\frac{10}{3}", r"\frac{10}{3} \approx 3.33"),
    (r"\log_2 5", r"\log_2 5 \approx 2.32"),
    (r"\sin 20^\circ", r"\sin 20^\circ \approx 0.342"),
    ("5.3 cm", r"5.28 \text{ cm} \approx 5.3 \text{ cm}"),
    ("3", r"2.5 \approx 3"),
    # matrices
    (ABCD, r"\frac{1}{2}\begin{pmatrix} 2 & 4 \\ 6 & 8 \end{pmatrix}"),
    (ABCD, "[[1, 2], [3, 4]]"),
    (ABCD, f"A = {ABCD}"),
    (r"\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}", f"-{I2}"),
    (
        r"\begin{pmatrix}3\\5\end{pmatrix}",
        r"\begin{pmatrix}1\\2\end{pmatrix}+\begin{pmatrix}2\\3\end{pmatrix}",
    ),
    (
        r"\begin{pmatrix}1\\1\end{pmatrix}",
        r"2\begin{pmatrix}1\\2\end{pmatrix} - \begin{pmatrix}1\\3\end{pmatrix}",
    ),
    (r"\begin{pmatrix}5\\11\end{pmatrix}", ABCD + r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}", ABCD + "^T"),
    (r"\begin{pmatrix}1\\2\\3\end{pmatrix}", r"\langle 1, 2, 3 \rangle"),
    (r"\begin{pmatrix} 7 & 10 \\ 15 & 22 \end{pmatrix}", ABCD + "^2"),
    (r"\begin{pmatrix} -2 & 1 \\ 3/2 & -1/2 \end{pmatrix}", ABCD + "^{-1}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1 & 2\end{pmatrix}^T"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\binom{1}{2}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\4\end{pmatrix} / 2"),
]
DIFFERENT = [
    # alternatives of which one is wrong
    ("4", "4 or 5"),
    ("5", "4, or 5"),
    ("4", "4 or 4 or 5"),
    ("4", "4, 4 or 4"),
    ("4", "4 and 4"),
    (r"(-\infty, 3]", "x<3"),
    ("x<3", "x>3"),
    ("x<3", "y<3"),
    (r"3 \ge x > -2", r"-2 \le x < 3"),
    (r"[0, +\infty)", r"[0, -\infty)"),
    (r"(2, \infty)", "(2, 1000000)"),
    (r"m \ge a", r"m \in (a, +\infty)"),
    ("|x| < 2", r"-2 \le x < 2"),
    (r"|x - 1| \le 3", "[-4, 2]"),
    (r"\{x \mid x > 2\}", r"[2, \infty)"),
    (r"(-\infty, 1) \cup (1, \infty)", r"\mathbb{R}"),
    (r"\mathbb{R} \setminus \{1\}", r"\mathbb{R} \setminus \{2\}"),
    (r"(-\infty, 2) \cup (3, \infty)", r"(-\infty, 2] \cup (3, \infty)"),
    (r"(1, 3)", r"(1, 2) \cup (2, 3)"),
    ("[1.41, 2.24]", "[1.41, 2.23]"),
    ("[1.41, 2.24]", "[1.416, 2.236]"),
    ("[1, 2]", "[1.4, 2.2]"),
    ("(1.41, 2.24), 5", "(1.414, 2.236), 5"),
    (r"\emptyset", r"\{0\}"),
    (r"\emptyset", r"\{\emptyset\}"),
    (r"\{2, 3\}", "(2, 3)"),
    (r"[0, \infty)", r"\mathbb{R}^+"),
    (r"\mathbb{R} \setminus \{0, 1\}", r"x \ne 0"),
    (r"\emptyset", "0"),
    ("0", r"\emptyset"),
    (r"\infty", r"-\infty"),
    # lists
    ("5", "4, 5, 6"),
    ("5", r"4 \text{ or } 5"),
    ("5", r"4 \cup 5"),
    ("5", r"\text{between } 4 \text{ and } 6"),
    ("12", r"\cancel{12}"),
    ("3400", "(3, 400)"),
    ("(3, 4)", "(4, 3)"),
    ("(3, 4)", "(3, 4), (4, 3)"),
    ("1, 2, 3, 4", "1, 2, 3"),
    (r"1 \text{ and } 2", "12"),
    (r"p \land q", r"p \lor q"),
    (r"1, 2, \ldots, 10", r"1, 3, \ldots, 10"),
    (r"x = \pm 3", "x = 3"),
    (r"\pm 1 \pm 5", "6, -6"),
    # names
    ("x=3, y=4", "x=4, y=3"),
    ("x=3, y=4", "(4, 3)"),
    ("(x, y) = (3, 4)", "x = 4, y = 3"),
    ("(1,2,3)", "a=1, b=3, c=2"),
    ("x=3, y=4", "a=3, b=4"),
    ("f(x) = x^2 + 1", "g(t) = t^2 + 1"),
    ("5", "x = 4 = 5"),
    ("7 = 11a+c", "11a+c"),
    ("a^2 + b = 0", "0"),
    ("x + y = 1", "1"),
    ("5", "x = "),
    # approximations
    ("5", r"4 \approx 5 \approx 6"),
    ("4", r"4 \approx 5"),
    ("117", r"117th \approx 334"),
    ("a", r"a \approx 334"),
    ("(x, y) = (1, 2)", "(x, x, y) = (1, 1, 2)"),
    ("2.5", r"2.5 \approx 3"),
    ("1.5", r"\sqrt{2} \approx 1.5"),
    # matrices
    (ABCD, r"\frac{1}{2}\begin{pmatrix} 2 & 4 \\ 6 & 9 \end{pmatrix}"),
    (ABCD, "[[1, 2], [3, 5]]"),
    (ABCD, "1, 2, 3, 4"),
    (ABCD, ABCD + "^T"),
    (I2, f"-{I2}"),
    (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\begin{pmatrix}5\\11\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}" + ABCD),
    (r"\begin{pmatrix} 7 & 10 \\ 15 & 22 \end{pmatrix}", ABCD + "^3"),
    (r"\begin{pmatrix}2\\1\end{pmatrix}", r"\binom{1}{2}"),
]
HOSTILE = [
    "(" * 4000,
    "(" * 2000 + ")" * 2000,
    "1," * 2000,
    "1=" * 2000,
    r"1\approx" * 440,
    "[" * 2000 + "]" * 2000,
    r"\pm1" * 1000,
    r"(1,2)\cup" * 440,
    r"\begin{pmatrix}1\end{pmatrix}" * 130,
    "x<" * 2000,
    r"\{x|" * 800,
    "|" * 4000,
    "a and " * 660,
    r"\text{or}" * 440,
    "((1,2)," * 500,
]


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal(gold: str, answer: str) -> None:
    assert verdict(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_different(gold: str, answer: str) -> None:
    assert not verdict(gold, answer)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_structure_takes_little_time(text: str) -> None:
    gold, answer = normalise("1, 2"), normalise(text)
    gc.disable()
    start = time.thread_time()
    compare(gold, answer, {})
    spent_s = time.thread_time() - start
    gc.enable()
    assert spent_s < 0.1


def test_rules_name_the_comparison() -> None:
    assert compare("12", r"\cancel{12}", {}).rule == "struck out"
    assert compare("1, 2", "2, 1", {}).rule.startswith("sets, in any order")
    assert compare("[1,2]", r"1 \le x \le 2", {}).rule.startswith("sets of real numbers")


def test_entries_that_need_algebra_are_left_to_it() -> None:
    column = r"\begin{pmatrix} a \\ 2 \end{pmatrix}"
    result = compare(r"\begin{pmatrix} 2a \\ 4 \end{pmatrix}", f"2{column}", {})
    assert result[:2] == (False, [("2a", "(2)(a)")])
    assert compare(r"\begin{pmatrix} 2a \\ 4 \end{pmatrix}", f"2{column}", {("2a", "(2)(a)"): True})
