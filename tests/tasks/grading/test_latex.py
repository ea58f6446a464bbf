"""The reader of LaTeX and plain notation: values, and texts of which it would drop a part."""

from __future__ import annotations

import pytest
import sympy

from reasontrain.tasks.grading.latex import read
from reasontrain.tasks.grading.tokens import spelling
from reasontrain.tasks.grading.vocabulary import UnreadableError

VALUES = {
    # one notation of each kind, with its value
    r"\frac12": "1/2",
    r"\dfrac{1}{2}+\tfrac34": "5/4",
    r"-2\frac{1}{3}": "-7/3",
    "1 2/3": "5/3",
    r"2^3\frac{1}{2}": "4",
    r"\sqrt9": "3",
    r"\sqrt{9}2": "6",
    r"\sqrt[3]{-8}": "-2",
    "sqrt(2)*sqrt(8)": "4",
    "2**3": "8",
    "2^10": "1024",
    "2^(1+2)": "8",
    "2^{3}^2": "512",
    "2^-1": "1/2",
    "-3^2": "-9",
    "2*-3": "-6",
    "1/2*3": "3/2",
    r"6\div 4": "3/2",
    ".5": "1/2",
    "1.5e3": "1500",
    "1,234+1": "1235",
    r"0.\overline{3}": "1/3",
    r"0.1\overline{6}": "1/6",
    r"0.\dot{3}": "1/3",
    r"0.\dot{1}4\dot{2}": "142/999",
    "1101_2": "13",
    r"(1101)_{2}+1": "14",
    r"\frac{7!}{5!}": "42",
    "5!!": "15",
    r"\binom{5}{2}": "10",
    r"{5 \choose 2}": "10",
    "C(5,2)": "10",
    "2binomial(5,2)": "20",
    "factorial(5)": "120",
    "{}_5C_2": "10",
    "C_5^2": "10",
    "P(5,2)": "20",
    "{}_5P_2": "20",
    "log2(8)": "3",
    "log_10(100)": "2",
    r"\log_28+1": "4",
    r"\operatorname{cis} 180^\circ": "-1",
    "cbrt(-8)": "-2",
    r"\gcd(12, 18)": "6",
    "lcm(4, 6)": "12",
    r"\max(1, 2, 3)": "3",
    r"5 \choose 2": "10",
    r"{1 \over 2} + 1": "3/2",
    r"|-3|+\lvert -2\rvert": "5",
    r"\lfloor 3.7\rfloor+\lceil 0.2\rceil": "4",
    r"7 \bmod 4": "3",
    "50\\%": "1/2",
    r"\sin 30^\circ": "1/2",
    r"\sin\left(30^{\circ}\right)": "1/2",
    r"2\cos 60^\circ \cos 0": "1",
    r"\tan^2 60^\circ": "3",
    r"\sin \pi/6": "1/2",
    r"\sin 2\pi/3 + \cos 5\pi/6": "0",
    r"\lg 1000": "3",
    r"\log_2 8": "3",
    r"\log_{2}(8)": "3",
    r"\log_2{8}^2": "9",
    r"\log_28": "3",
    r"\log 100": "2",
    r"\ln e^2": "2",
    "exp(0)": "1",
    r"e^{i\pi}": "-1",
    r"\sqrt{-4}^2": "-4",
    r"\sum_{k=1}^{4} k^2": "30",
    r"\sum_{i=1}^{3} i": "6",
    r"\prod_{k=1}^4 k": "24",
    r"\int_0^1 x\,dx": "1/2",
    r"\int_0^1 \int_0^1 xy \,dx\,dy": "1/4",
    r"\int_1^e \frac{dx}{x}": "1",
    r"\int_0^2 (x+1) dx": "4",
    r"\lim_{x \to 0} \frac{\sin x}{x}": "1",
    r"\lim_{x\to\infty} \frac{2x+1}{x}": "2",
    r"\Gamma(5)": "24",
}

UNREADABLE = [
    "",
    "5'",
    "1 2",
    "x2",
    "2+",
    "(2",
    "2)",
    "1/0",
    r"\frac{1}{0}",
    r"\infty-\infty",
    "3 apples",
    "3 or 4",
    r"3\text{ cm}",
    r"3 \pmod{7}",
    r"\frobnicate{3}",
    "3#",
    "12:30",
    "1,2",
    "1...2",
    "(x+1)_2",
    "12_2",
    r"\int x",
    r"\sum k",
    r"\hat{3}",
    "1e99999",
    r"\binom{99999}{50000}",
    "(2^{20})!",
    "(9^9)!",
    "((9^{99})^{99})^{99}",
    "(2^9)^{99999}",
    "2^{9 + 9^9}",
    "2^{(1+9^9)/2}",
    "3 $",
    "⅔",
]


@pytest.mark.parametrize("text", VALUES)
def test_value(text: str) -> None:
    (value,) = read(text).sides
    assert sympy.simplify(value - sympy.Rational(VALUES[text])) == 0


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_text_that_is_not_wholly_mathematics_is_unreadable(text: str) -> None:
    with pytest.raises(UnreadableError):
        read(text)


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        # the letters of a derivative are one name
        ("2xy", "x y"),
        ("2xsin(x)", "x"),
        ("sinx", "x"),
        ("npi", "n"),
        ("abcd", "a b c d"),
        ("SRMC", "SRMC"),
        ("a_1+a_{12}", "a_1 a_12"),
        ("y'+y^{\\prime\\prime}", "y' y''"),
        (r"\alpha_1\vec{v}", r"\alpha_1 \vecv"),
        ("R-r", "R r"),
        (r"\text{x}+\mathrm{y}", "x y"),
        (r"\frac{dy}{dx}", "dy}/{dx}"),
        ("e+i", ""),
    ],
)
def test_variables(text: str, variables: str) -> None:
    names = {symbol.name for symbol in read(text).sides[0].free_symbols}
    assert names == set(variables.split())


def test_relations_and_what_a_value_may_be_rounded_by() -> None:
    chain = read(r"1 < x \le 2.5")
    assert chain.relations == ["<", "<="]
    assert len(chain.sides) == 3
    assert chain.decimal
    assert not read("0.5\\overline{3}").decimal
    assert read(r"1 \pm \sqrt{2} \mp 3").signs == 2


def test_spelling_drops_spaces_and_braces_around_one_token() -> None:
    assert spelling(r"3 \pmod{7}") == spelling(r"3\pmod 7")
    assert spelling(r"3 \pmod{7}") != spelling(r"3 \pmod{5}")
    assert spelling("ab") != spelling("ba")
