r"""One spelling for what only looks different; no sign, digit or subscript is lost."""

from __future__ import annotations

import gc
import time

import pytest

from reasontrain.tasks.grading.normalise import normalise, squeezed

SPELLINGS = [
    (r"\color{red}{5}", "5"),
    (r"\textcolor{blue}{\underline{5}}", "5"),
    (r"{\bf 5}", "5"),
    (r"{\large {5}}", "5"),
    (r"\displaystyle\frac12", r"\frac{1}{2}"),
    (r"\boxed{\mathbf{\boxed{5}}}", "5"),
    (r"5\,{\rm cm}", r"5 \text{ cm}"),
    (r"5\ \mathrm{cm}", r"5 \text{cm}"),
    (r"\mathrm{e}^{x}", "e^{x}"),
    (r"\textbf{(B)}\ 12", r"\text{(B)} 12"),
    (r"5 \quad \tag{1}", "5"),
    (r"\left(\dfrac{1}{2}, 3\right]", r"(\frac{1}{2}, 3]"),
    ("x＝５", "x=5"),
    ("−３．５％", "-3.5%"),
    ("（3，4）", "(3,4)"),
    ("2¹⁰", "2^{10}"),
    ("10⁻³", "10^{-3}"),
    ("a₂", "a_{2}"),
    ("log₂ 8", "log_{2} 8"),
    ("⅔", r"\frac{2}{3}"),
    ("1½", r"1\frac{1}{2}"),
    ("√13", r"\sqrt{13}"),
    ("2√(x+1)", r"2\sqrt{x+1}"),
    ("∛8", r"\sqrt[3]{8}"),
    ("٣٤", "34"),
    ("𝟓", "5"),
    ("2π", r"2\pi"),
    ("x ≥ 2 ∨ x ≤ −1", r"x \ge 2 \lor x \le -1"),
    ("60°", r"60^\circ"),
    (r"60^{\circ}", r"60^\circ"),
    (r"60\degree", r"60^\circ"),
    (r"\$5", r"\$5"),
    ("$5", r"\$5"),
    ("$5$", "5"),
    ("€5", "€5"),
    ("$1$,$300$", "1, 300"),
    (r"11,\! 111,\! 100", "11111100"),
    (r"10{,}000", "10000"),
    (r"0{,}125", "0,125"),
    (r"(33,\!800, 5)", "(33800, 5)"),
    (r"{\color{red} \frac{1}{2}.}", r"\frac{1}{2}"),
    (r"\begin{aligned} x &= 5 \end{aligned}", "x = 5"),
    (r"\begin{align*} x &= 2+3 \\ &= 5 \end{align*}", "x = 2+3 = 5"),
    (r"\begin{array}{l} x=5 \\ y=6 \end{array}", r"x=5 \\ y=6"),
    (r"\begin{cases} x=5 \\ y=6 \end{cases}", r"x=5 \\ y=6"),
    (r"\\frac{1}{2}", r"\frac{1}{2}"),
    (r"\{1,2\}.", r"\{1,2\}"),
    (r"1, 2, \ldots", "1, 2, ..."),
]
KEPT_APART = [
    ("1101_2", "1101_3"),
    ("2^{10}", "210"),
    ("3 1/2", "31/2"),
    ("1, 300", "1,300"),
    ("5'", "5"),
    ("-5", "5"),
    (r"\$5", "5"),
    ("5€", "5"),
    ("60°", "60"),
    ("12个", "12"),
    (r"\{1\}", "1"),
    (r"\overline{5}", "5"),
    (r"0.\overline{3}", "0.3"),
    (r"\cancel{12}", "12"),
    (r"\boxed{5", "5"),
    (r"\bar{x}", "x"),
    (r"\mathbb{R}", "R"),
]
HOSTILE = [
    "{" * 4000,
    "{" * 2000 + "}" * 2000,
    r"\color{" * 500,
    r"\text{" * 660,
    r"\boxed{" * 330 + "5" + "}" * 330,
    r"\begin{cases}" + r"a=1\\" * 700,
    r"\begin{array}{c}" * 240,
    "^{" * 2000,
    "$" * 4000,
    r"\\" * 2000,
    r"\frac" * 800,
]


@pytest.mark.parametrize(("text", "plain"), SPELLINGS)
def test_one_spelling(text: str, plain: str) -> None:
    assert normalise(text) == plain
    assert normalise(plain) == plain


@pytest.mark.parametrize(("one", "other"), KEPT_APART)
def test_nothing_is_lost(one: str, other: str) -> None:
    assert squeezed(normalise(one)) != squeezed(normalise(other))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_nesting_takes_linear_time(text: str) -> None:
    gc.disable()
    start = time.thread_time()
    normalise(text)
    spent_s = time.thread_time() - start
    gc.enable()
    assert spent_s < 0.1
