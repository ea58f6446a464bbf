"""Equality by algebra: pairs that denote the same, and near misses of each kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reasontrain.tasks.grading import Grader, GradeRequest, algebra

EQUAL = [
    # constants
    (r"\cos 60^\circ", "0.5"),
    (r"\tan 45^{\circ}", "1"),
    (r"\sin 20^\circ", r"\cos 70^\circ"),
    (r"60^\circ", r"\frac{\pi}{3}"),
    (r"180^\circ - x", "180 - x"),
    ("100", r"60^\circ + 40^\circ"),
    (r"\arctan 1", r"\frac{\pi}{4}"),
    (r"\tan^{-1}(1)", r"\arctan(1)"),
    (r"\sin^{-1}\frac{10}{13}", "arcsin(10/13)"),
    (r"\log_2 10", r"\frac{\ln 10}{\ln 2}"),
    (r"\log_{3} 7", r"\frac{\log 7}{\log 3}"),
    (r"3\ln 2", r"\ln 8"),
    ("-1 + exp(16)", "e^{16} - 1"),
    (r"\sqrt{-4}", "2i"),
    (r"\frac{1}{1+i}", r"\frac{1-i}{2}"),
    ("3+4i", "4i + 3"),
    (r"+\infty", r"\infty"),
    (r"-\infty", "-oo"),
    (r"0.\overline{3}\pi", r"\frac{\pi}{3}"),
    (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}"),
    (r"\frac{6\sqrt{1789-240\sqrt{21}}+8\sqrt{1236-240\sqrt{21}}}{5}", r"96-10\sqrt{21}"),
    (r"2\frac{1}{2}\pi", r"\frac{5\pi}{2}"),
    (r"\sum_{n=1}^{\infty} \frac{1}{n^2}", r"\frac{\pi^2}{6}"),
    (r"\sqrt{2}", "1.414214"),
    (r"\frac{5\sqrt{42}}{27}", r"\frac{10\sqrt{10.5}}{27}"),
    # expressions in variables
    ("(r+5)^2", "r^2+10r+25"),
    ("2*x", "x+x"),
    ("x^10", "x^{10}"),
    (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"),
    (r"{n \choose 2}", "(n^2-n)/2"),
    ("(n+1)!/n!", "n+1"),
    (r"\sum_{k=1}^n k", r"\frac{n(n+1)}{2}"),
    (r"\cos 2x", r"1-2\sin^2 x"),
    (r"2^{x+3}", r"8\cdot 2^x"),
    (r"\sqrt{1/n}", r"\frac{1}{\sqrt{n}}"),
    (r"\sqrt{xy}", r"\sqrt{x}\sqrt{y}"),
    (r"\sqrt{x^2}", "|x|"),
    (r"\sqrt{x^2+2x+1}", "|x+1|"),
    (r"\sqrt[3]{x^2}", "x^{2/3}"),
    (r"x\sqrt[3]{x}", "x^{4/3}"),
    (r"\ln x^2", r"2\ln|x|"),
    (r"\ln(ab)", r"\ln a + \ln b"),
    (r"\tan(x/2)", r"\frac{1-\cos x}{\sin x}"),
    (r"\cos n\pi", "(-1)^n"),
    ("(-1)^{2n}", "1"),
    (r"\operatorname{lcm}(4, n)", r"\text{lcm}(n, 4)"),
    ("0.25x", r"\frac{x}{4}"),
    (r"\max(3, a)", r"\max(a, 3)"),
    (r"\gcd(n, 12)", r"\gcd(12, n)"),
    ("f(x)+1", "1+f(x)"),
    (r"\int_0^t x\,dx", r"\frac{t^2}{2}"),
    # relations
    ("y = 2x + 3", "2x - y + 3 = 0"),
    ("x = 3z", "z = x/3"),
    (r"\frac{x^2}{4} + \frac{y^2}{9} = 1", "9x^2 + 4y^2 = 36"),
    ("xy = 1", r"y = \frac{1}{x}"),
    ("2x > 10", "5 < x"),
    ("-x < -5", "x > 5"),
    ("1 < x < 2", "2 > x > 1"),
    (r"x \ne 3", r"3 \neq x"),
    ("m+n = 33", "33"),
    (r"f^{-1}(x) = \frac{x-1}{2}", r"f^{-1}(x) = \frac{1}{2}(x-1)"),
    (r"\frac{\mathrm{d}y}{\mathrm{d}x} = 2", r"\frac{dy}{dx} = 2"),
    # sets of reals
    (r"x < -1 \text{ or } x > 3", r"(-\infty, -1) \cup (3, \infty)"),
    (r"(0, 1) \cup (1, \infty)", r"\{x \mid x > 0, x \ne 1\}"),
    (r"x \in (1, 2]", r"1 < x \le 2"),
    ("x < 3", r"(-\infty, 3)"),
    (r"-2 \le x \le 3", "[-2, 3]"),
    (r"m \ge \sqrt{2}", r"[\sqrt{2}, +\infty)"),
    ("|x| < 2", "-2 < x < 2"),
    (r"\{x \mid x > 2\}", r"(2, \infty)"),
    (r"x \ne 3", r"(-\infty, 3) \cup (3, \infty)"),
    (r"\mathbb{R} \setminus \{3\}", r"x \ne 3"),
    (r"\emptyset", r"\{\}"),
    # no mathematics, and the same tokens
    (r"3 \pmod{7}", r"3 \pmod 7"),
]

UNEQUAL = [
    # a part that a lenient parser drops
    ("1101_2", "1101_3"),
    ("5'", "5"),
    ("a_2", "a_3"),
    ("a_2", "a"),
    ("x'", "x"),
    (r"3 \pmod{7}", r"3 \pmod{5}"),
    (r"3 \text{ million}", "3"),
    (r"\vec{a}", "a"),
    (r"\bar{z}", "z"),
    (r"\Theta(n)", "O(n)"),
    (r"\frac{dy}{dx}", r"\frac{y}{x}"),
    ("2 listen", "2 silent"),
    ("I(0)", r"I(0)e^{-t}"),
    # constants
    (r"\sin 20^\circ", r"\sin 20"),
    (r"\frac{6}{5}", r"\min(35^\circ, \frac{6}{5})"),
    ("35.5", r"35^\circ + 0.5"),
    (r"\sqrt{2}3", r"\sqrt{23}"),
    (r"\sqrt[3]{8}", r"3\sqrt{8}"),
    ("i", "-i"),
    ("2i", "2"),
    (r"\infty", r"-\infty"),
    (r"\infty", "1000000"),
    (r"\infty-\infty", "0"),
    ("1/0", "2/0"),
    (r"\frac{1}{0}", r"\infty"),
    ("2^{-100}", "3^{-100}"),
    (r"\frac{2^{2005}+1}{3 \cdot 2^{2006}}", r"\frac{1}{3 \cdot 2^{2006}}"),
    ("2^{400}+1", "2^{400}"),
    (r"\pi", "3.14"),
    (r"\pi", r"\frac{22}{7}"),
    (r"\pi", r"\frac{355}{113}"),
    (r"0.\overline{12}", "0.12"),
    (r"\log_2 10", r"\log_{10} 2"),
    (r"\ln 10", r"\log 10"),
    (r"\frac{7!}{5!}", r"\frac{7!}{4!}"),
    (r"\binom{5}{2}", r"\frac{5}{2}"),
    # expressions in variables
    ("x+y", "x+z"),
    ("2n", "2k"),
    ("3^x - 2^x", "3^{2007}"),
    ("R^2-r^2", "0"),
    ("2^{n+1}", "2^n+1"),
    (r"\frac{1}{2}x", r"\frac{1}{2x}"),
    (r"\sin^2 x", r"\sin x^2"),
    (r"\sqrt{x^2}", "x"),
    (r"\sqrt{x^2+2x+1}", "x+1"),
    (r"\sqrt{|x|}", r"\sqrt{x}"),
    (r"\ln|x|", r"\ln x"),
    (r"\cos n\pi", "(-1)^{n+1}"),
    (r"\sin x\pi", "0"),
    ("n!!", "n!"),
    ("|x-1|", "|x+1|"),
    ("|x|", "x"),
    (r"\lfloor x \rfloor", "x"),
    (r"\max(3, a)", r"\min(3, a)"),
    (r"\gcd(n, 12)", "lcm(n, 12)"),
    (r"\gcd(n, 12)", "1"),
    ("f(x+1)", "f(x)+f(1)"),
    (r"1 \pm \sqrt{2}", r"1 + \sqrt{2}"),
    (r"\frac{\pi}{4} + k\pi", r"\frac{\pi}{4} + n\pi"),
    # relations
    ("y = 2x + 3", "2x + y + 3 = 0"),
    (r"\frac{x^2}{9} + \frac{y^2}{4} = 1", "9x^2 + 4y^2 = 36"),
    ("x > 5", "x < 5"),
    ("x > 5", r"x \ge 5"),
    ("-x < 5", "x < -5"),
    ("1 < x < 2", r"1 < x \le 2"),
    ("x = 2", "x^2 = 4"),
    ("x > 5", "5"),
    ("y = 2x + 3", "(x+1)^2 = x^2 + 2x + 1"),
    ("y = 2x + 3", "x = x"),
    ("x > 2", "x + 1 > x"),
    # sets of reals
    ("x > 3", "y > 3"),
    (r"x \in (1, 2]", r"1 < y \le 2"),
    ("x < 3", r"(-\infty, 3]"),
    ("(2, 3)", "(2, 4)"),
    ("(4, 3)", "(5, 2)"),
    (r"\emptyset", "0"),
    (r"|x| \le 2", "-2 < x < 2"),
]


ALONE = [
    # differences between algebra and the grammar around it, which may read one side by the other
    ("1101_2", "1101", False),
    (r"3 \pmod{7}", "3", False),
    ("z^3 = -1", "-1", False),
    (r"1 \pm \sqrt{2}", r"1 \mp \sqrt{2}", True),
]

VERIFIED = [
    # what the grammar must leave to algebra
    ("log(8)/log(2)", "3"),
    ("sqrt(x+1)/2", r"\frac{\sqrt{x+1}}{2}"),
    ("sin(pi/6)", "0.5"),
    ("ln(2)", r"\ln 2"),
    ("2 sqrt 2", r"2\sqrt{2}"),
    ("3 sin(x)", r"3\sin x"),
    ("8 log 2", r"8\log 2"),
    (r"\log_4 8", r"\frac{3}{2}"),
    (r"\ln 2 / \ln 3", r"\log_3 2"),
    (r"\text{lcm}(4,6)", "12"),
    (r"\sin^{-1}(1/2)", r"30^\circ"),
    (r"\theta = 45^\circ", r"\theta = \frac{\pi}{4}"),
    (r"\cos 60°", "0.5"),
    (r"\tg 45^\circ", "1"),
    ("e", r"\exp(1)"),
    (r"\frac{n!}{k!(n-k)!}", r"\binom{n}{k}"),
]


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1) as grader:
        yield grader


def test_the_verifier_leaves_these_to_algebra(grader: Grader) -> None:
    for pairs, correct in ((EQUAL + VERIFIED, True), (UNEQUAL, False)):
        requests = [
            GradeRequest(gold, rf"\boxed{{{answer}}}")
            for pair in pairs
            for gold, answer in (pair, pair[::-1])
        ]
        verdicts = grader.grade_many(requests)
        wrong = [
            request
            for request, verdict in zip(requests, verdicts, strict=True)
            if verdict.correct is not correct
        ]
        assert wrong == []


@pytest.mark.parametrize(("gold", "answer", "same"), ALONE)
def test_algebra_alone(gold: str, answer: str, same: bool) -> None:
    assert algebra.equal(gold, answer) is same
    assert algebra.equal(answer, gold) is same


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal(gold: str, answer: str) -> None:
    assert algebra.equal(gold, answer)
    assert algebra.equal(answer, gold)


@pytest.mark.parametrize(("gold", "answer"), UNEQUAL)
def test_unequal(gold: str, answer: str) -> None:
    assert not algebra.equal(gold, answer)
    assert not algebra.equal(answer, gold)
