r"""Answers made to hang, crash or mislead a grammar of answers: units, magnitudes, sets, matrices,
chains, numerals in words, Unicode. All generated, always the same.
"""

from __future__ import annotations

from typing import NamedTuple


class Hostile(NamedTuple):
    """A hostile answer.

    Attributes:
        gold: the gold answer.
        answer: the content of the response's box.
        right: the answer's value is the gold's after all.
    """

    gold: str
    answer: str
    right: bool = False


_LONG_UNION = [f"[{2 * n}, {2 * n + 1})" for n in range(60)]
_FIBONACCI = r"\begin{pmatrix} 1 & 1 \\ 1 & 0 \end{pmatrix}"
_IDENTITY = r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}"


def _matrix(rows: list[list[str]]) -> str:
    inside = r" \\ ".join(" & ".join(row) for row in rows)
    return rf"\begin{{pmatrix}} {inside} \end{{pmatrix}}"


FAMILIES: dict[str, list[Hostile]] = {
    "units": [
        Hostile(r"5 \text{ cm}", "5" + " cm" * 1_000),
        Hostile(r"5 \text{ cm}", "5" + r"\text{ cm}" * 300),
        Hostile(r"5 \text{ cm}^2", r"5 \text{ cm}^{99999999999}"),
        Hostile(r"5 \text{ m}", r"5 \text{ m}" + "^{m" * 300 + "}" * 300),
        Hostile("5 m", "5 " + "kilo" * 900 + "metres"),
        Hostile("5 m/s", "5 " + "/".join(["m"] * 1_500)),
        Hostile("5", r"5 \frac{\text{m}}{" * 150 + "s" + "}" * 150),
        Hostile(r"5 \text{ cm}^2", r"5 \text{ " + "square " * 500 + "cm}"),
        Hostile("5 feet", "5 feet " * 500),
        Hostile("5 hours 3 minutes", "5 hours 3 minutes " * 200),
        Hostile("5", "5" + " per hour" * 400),
        Hostile("5 \\text{ cm}", "5 cm" + r" \times \text{cm}" * 200),
        Hostile(r"90^\circ", "90" + r"^\circ" * 700),
        Hostile(r"90^\circ", r"90^{\circ^{\circ^{\circ}}}" * 100),
        Hostile(r"\$5", r"\$" * 1_900 + "6"),
        Hostile("5", "$" * 1_999 + "6" + "$" * 1_999),
        Hostile(r"5\%", "5" + r"\%" * 1_900),
        Hostile("5", "5 percent of " * 300 + "10"),
        Hostile("5", "5 cm of " * 450 + "5"),
    ],
    "magnitudes": [
        Hostile("5", "5" + " million" * 490),
        Hostile("5", "5" + r" \text{ hundred}" * 250),
        Hostile("5", "5" + "万" * 3_000),
        Hostile("5", "5" + "k" * 3_900),
        Hostile("5", "5" + " dozen" * 600),
        Hostile("0.5", "5" + " tenths" * 500),
        Hostile("5", "5e" * 1_500 + "5"),
        Hostile("5", r"5 \times 10^{" * 200 + "1" + "}" * 200),
        Hostile("5", r"5 \times 10^{-99999999999999} \text{ million}"),
        Hostile("10^{100}", r"10^{100} \text{ googol}"),
    ],
    "words": [
        Hostile("100", "one hundred " * 300),
        Hostile("19", "nineteen million " * 200),
        Hostile("5", "minus " * 651 + "five"),
        Hostile("5", "half of " * 480 + "five"),
        Hostile("5", "twice " * 600 + "five"),
        Hostile("5", "zero point " + "five " * 700),
        Hostile("5", "not " * 901 + "5"),
        Hostile("5", "five" * 900),
        Hostile("5", "5th of the " * 350 + "5"),
        Hostile("1", "twenty-" * 550 + "one"),
        Hostile("5", "5 or " * 790 + "6"),
        Hostile("5", "5 and " * 650 + "6"),
        Hostile("12 R 5", "12 R " * 750 + "5"),
        Hostile(r"\text{May 12}", r"\text{May " + "12, " * 900 + "}"),
        Hostile("5", "between " * 480 + "5"),
    ],
    "sets": [
        Hostile(" \\cup ".join(_LONG_UNION), " \\cup ".join(reversed(_LONG_UNION)), True),
        Hostile(" \\cup ".join(_LONG_UNION), " \\cup ".join(_LONG_UNION[1:] + _LONG_UNION[:0])),
        Hostile("[1,2]", r"[1,2] \cup " * 300 + "[1,3]"),
        Hostile("[0,1]", r"\cup".join(f"[{n},{n + 1}]" for n in range(1_000))),
        Hostile(r"\{1,2\}", r"\{" * 900 + "1,2" + r"\}" * 900),
        Hostile(r"\{1,2\}", r"\{" + ",".join(map(str, range(900))) + r"\}"),
        Hostile(r"\{1,2\}", r"\{1,2\} \setminus " * 200 + r"\{1\}"),
        Hostile("[1,2]", "[" * 1_900 + "1,2" + "]" * 1_900),
        Hostile("[1,2]", "[1,2" + "]" * 3_900),
        Hostile("(1,2)", "(" + "(1,2)," * 600 + "2)"),
        Hostile(r"\mathbb{R}", r"\mathbb{R} \setminus \{" + ",".join(map(str, range(900))) + r"\}"),
        Hostile(r"x \ne 1", ", ".join(rf"x \ne {n}" for n in range(300))),
        Hostile("1 < x < 3", " < ".join(["1", *["x"] * 900, "3"])),
        Hostile("x > 1", r"\{x \mid " * 300 + "x > 1" + r"\}" * 299),
        Hostile("x > 1", r"x > 1 \text{ or } " * 180 + "x > 0"),
        Hostile("[0,1]", r"x \in " * 500 + "[0,2]"),
        Hostile(r"(-\infty, \infty)", r"(-" + r"\infty" * 500 + r", \infty]"),
        Hostile("[1,2]", r"[1,2] \cap " * 300 + "[2,1]"),
        Hostile("[1,2]", r"[1^{9^{9^{9}}}, 2]"),
        Hostile(r"|x| < 2", "|" * 1_999 + "x" + "|" * 1_999 + "< 2"),
    ],
    "matrices": [
        Hostile(_FIBONACCI, _FIBONACCI + "^{1000000000}"),
        Hostile(_FIBONACCI, _FIBONACCI + "^{9^{9^{9}}}"),
        Hostile(_FIBONACCI, _FIBONACCI + "^{-999999999}"),
        Hostile(_FIBONACCI, _FIBONACCI + "^{n!}"),
        Hostile(_FIBONACCI, _FIBONACCI * 60),
        Hostile(_FIBONACCI, " + ".join([_FIBONACCI] * 60)),
        Hostile(_FIBONACCI, _FIBONACCI + "^T" * 1_501 + "!"),
        Hostile(_FIBONACCI, r"2 \cdot " * 500 + _FIBONACCI),
        Hostile(_FIBONACCI, r"9^{9^{9}} " + _FIBONACCI),
        Hostile(_FIBONACCI, r"\begin{pmatrix} 9^{9^{9}} & 1 \\ 1 & 0 \end{pmatrix}"),
        Hostile(_FIBONACCI, r"\begin{pmatrix} " * 120 + "1 & 1" + r" \end{pmatrix}" * 120),
        Hostile(_FIBONACCI, r"\begin{pmatrix} " + "1 & " * 900 + r" \end{pmatrix}"),
        Hostile(_FIBONACCI, r"\begin{pmatrix} " + r"1 \\ " * 700 + r"\end{pmatrix}"),
        Hostile(_FIBONACCI, r"\begin{pmatrix} 1 & 1 \\ 1 \end{pmatrix}"),
        Hostile(_IDENTITY, _matrix([["1", "0"], ["0", "0"]]) + "^{-1}"),
        Hostile(_IDENTITY, _matrix([[f"x^{{{i * i}}}" for i in range(14)]] * 14) + "^{-1}"),
        Hostile(_IDENTITY, r"\frac{1}{0} " + _IDENTITY),
        Hostile(_IDENTITY, r"\begin{pmatrix} \frac{0}{0} & 0 \\ 0 & 1 \end{pmatrix}"),
        Hostile(
            _matrix([[str(i * j) for i in range(16)] for j in range(16)]),
            _matrix([[rf"\sqrt{{{(i * j) ** 2}}}" for i in range(16)] for j in range(16)]),
            True,
        ),
    ],
    "chains": [
        Hostile("1", " ".join(rf"\pm {n}" for n in range(1, 25))),
        Hostile(r"\pm 1 \pm \sqrt{2}", " ".join(rf"\pm \sqrt{{{n}}}" for n in range(1, 60))),
        Hostile(r"\pm 1", r"\pm" * 1_200 + "2"),
        Hostile("1", r"\pm \mp " * 450 + "2"),
        Hostile("1, -1", ", ".join(rf"\pm {n}" for n in range(1, 400))),
        Hostile("5", "5 = " * 990 + "6"),
        Hostile("5", r"5 \approx " * 390 + "6"),
        Hostile("5", " = ".join(map(str, range(800)))),
        Hostile("5", r"\lor ".join(f"x = {n}" for n in range(300))),
        Hostile("x = 5", ", ".join(f"x = {n}" for n in range(5, 400))),
        Hostile("x = 5", "x = " * 900 + "6"),
        Hostile("1:2:3", ":".join(map(str, range(1, 900)))),
        Hostile("1:2:3", "0:0:0"),
        Hostile("1:2", "0:0"),
        Hostile("1:2", ":" * 3_900),
        Hostile(r"x \equiv 3 \pmod 7", r"x \equiv 3 " + r"\pmod 7 " * 400 + r"\pmod 5"),
        Hostile("a < b < c", " < ".join(["a", "b", "c"] * 300)),
        Hostile("(x, y) = (1, 2)", "(" + "x, " * 400 + "y) = (" + "1, " * 400 + "2)"),
    ],
    "decimals and roots": [
        Hostile(r"\frac{1}{3}", r"0.\overline{" + "3" * 3_800 + "4}"),
        Hostile(r"\frac{1}{3}", r"0." + r"\overline{" * 300 + "4" + "}" * 300),
        Hostile(r"\frac{1}{3}", "0.3" + r"\overline{3}" * 250 + "4"),
        Hostile(r"\frac{1}{3}", "0." + "3" * 900 + "." * 2_900 + "4"),
        Hostile("5", r"\sqrt[1000000000]{2}"),
        Hostile("5", r"\sqrt[0]{5}"),
        Hostile("5", r"\sqrt[5]" * 700),
        Hostile("5", r"\sqrt{-" * 200 + "2" + "}" * 200),
        Hostile("5", "√" * 3_900 + "4"),
        Hostile("1", r"\log_{" * 300 + "2" + "}" * 300),
        Hostile("1", r"\log_{1} 5"),
        Hostile("1", r"\log_{0} 0"),
        Hostile("1", r"\log " * 700 + "10"),
        Hostile("1", r"\sin " * 700 + r"90^\circ"),
        Hostile("1", r"\tan 90^{\circ}"),
        Hostile("1", r"\sin (10^{10^{10^{10}}})^\circ"),
        Hostile("1", "i^{" * 300 + "i" + "}" * 300),
        Hostile("1", r"\frac{" * 400 + "1" + "}{2}" * 400),
        Hostile("1", r"\frac1" * 700),
        Hostile("1", r"\ln " + r"(\ln " * 250 + "0" + ")" * 250),
    ],
    "bases and times": [
        Hostile("1101_2", "1101_{" * 300 + "2" + "}" * 300),
        Hostile("1101_2", "1101_{0}"),
        Hostile("1101_2", "1101_{1}"),
        Hostile("1101_2", "1101_{-2}"),
        Hostile("1101_2", "1101_{99999999999999999999}"),
        Hostile("1101_2", "Z" * 3_900 + "_{36}"),
        Hostile("1101_2", "1101" + "_2" * 1_301),
        Hostile(r"3 \pmod{7}", r"3 \pmod{0}"),
        Hostile(r"3 \pmod{7}", r"3 \pmod{" * 300 + "7" + "}" * 300),
        Hostile("4:30 p.m.", "4:30 " + "a.m. " * 700),
        Hostile("4:30", "4:" * 1_500 + "30"),
        Hostile("1:01", "25:61"),
        Hostile(r"\text{March 2}", r"\text{February 30}"),
        Hostile("12", "12th " * 750 + "of May"),
    ],
    "unicode": [
        Hostile("21", "\u202e12"),
        Hostile("21", "\u206612\u2069\u200f"),
        Hostile("3", "З"),  # a Cyrillic letter
        Hostile("10", "1О"),  # a Cyrillic letter
        Hostile("10", "1O"),
        Hostile("12", "l2"),
        Hostile("3", "\U000e0033"),  # an invisible tag character
        Hostile("34", "3\u0338\u0338\u03385"),
        Hostile("3", "3" + "\u0301" * 3_900 + "1"),
        Hostile("3", "3\x004"),
        Hostile("3", "4\ud800"),
        Hostile("3", "\udc33" * 1_900),
        Hostile("2", "2" + "²" * 3_000),
        Hostile(r"\frac{1}{2}", "½" * 1_900),
        Hostile("2", "2¹⁰" * 900),
        Hostile(r"\infty", "∞" * 1_901 + "1"),
        Hostile("3", "３" * 3_900),
        Hostile("1", "1" + "\u200b" * 3_000 + "1"),
        Hostile("1", "①" * 3_000),
        Hostile("1", "1⁄2" * 1_000),
        Hostile("5", "五" * 3_900),
        Hostile("5", "5" + "＾５" * 1_900),
    ],
    "patterns": [
        Hostile("1", "1," * 1_900 + "x"),
        Hostile("1000", "1 000 " * 600 + "x"),
        Hostile("x", r"\text{" + " " * 3_900 + "y"),
        Hostile("5", "5." * 1_900),
        Hostile("5", "+-" * 1_951 + "5"),
        Hostile("5", "{" * 1_900 + "6" + "}" * 1_900),
        Hostile("5", r"\left" * 700 + "6"),
        Hostile("5", r"\frac" * 790),
        Hostile("5", r"{\color{red} " * 250 + "6" + "}" * 250),
        Hostile("5", r"\textbf{" * 450 + "6" + "}" * 450),
        Hostile("5", r"\text{5} \text{and} " * 190 + "6"),
        Hostile("5", r"\tag{5}" * 550),
        Hostile("5", "5" + r"\," * 1_900 + "6"),
        Hostile("5", "&" * 3_900),
        Hostile("5", "\\" * 3_900),
        Hostile("5", "5 " + "a b " * 950 + "!"),
        Hostile("5", "(" + "5 cm) (" * 550 + ")"),
        Hostile("5", "5" + " '" * 1_900),
        Hostile(r"\text{a}", r"\text{" + "a " * 1_900 + "}"),
        Hostile("5", "5!" + "!" * 3_900),
    ],
}  # fmt: skip


def hostile_grammar() -> list[Hostile]:
    """All of them."""
    return [one for family in FAMILIES.values() for one in family]
