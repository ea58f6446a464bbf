"""Boxes: the content of the last one, or of several that are one answer."""

from __future__ import annotations

import pytest

from reasontrain.tasks.grading import boxes


def content(text: str) -> str | None:
    box = boxes.last(text)
    return None if box is None else box.content


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{\frac{1}{2}} and then \boxed{3}", "3"),
        (r"\boxed{\frac{1}{\sqrt{2}}}.", r"\frac{1}{\sqrt{2}}"),
        (r"\fbox{7}", "7"),
        (r"\framebox{7}", "7"),
        (r"\boxed 7 is it", "7"),
        ("\\boxed\n{5}", "5"),
        (r"\beginboxed{8}", "8"),
        ("\x08oxed{8}", None),
        (r"\boxed{\boxed{5}}", r"\boxed{5}"),
        (r"\boxed{3 + \boxed{4}}", r"3 + \boxed{4}"),
        (r"\boxed{} \boxed{4} \boxed{}", "4"),
        (r"\boxed{4} and \boxed{5", "4"),
        (r"He boxed {it} and a box {5}.", "it"),
    ],
)
def test_the_last_closed_box_counts(text: str, answer: str | None) -> None:
    assert content(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1}, \boxed{2} and \boxed{3}", "1, 2, 3"),
        (r"\boxed{2} \quad \text{and} \quad \boxed{1}", "2, 1"),
        (r"$\boxed{2}$ and $\boxed{1}$", "2, 1"),
        (r"\(\boxed{2}\); \(\boxed{1}\)", "2, 1"),
        (r"$x = \boxed{1}$ or $x = \boxed{2}$", "1 or 2"),
        (r"(a) \boxed{3} and (b) \boxed{4}", "3, 4"),
        ("(a) \\boxed{3}\n(b) \\boxed{3}", "3, 3"),
        ("1. \\boxed{3}\n2. \\boxed{4}", "3, 4"),
        ("(i) $\\boxed{3}$, (ii) $\\boxed{4}$, (iii) $\\boxed{5}$", "3, 4, 5"),
        (r"Part (a): \boxed{3}; Part (b): \boxed{4}", "3, 4"),
        ("(a) The area is \\boxed{3}.\n\n(b) The perimeter is \\boxed{4}.", "3, 4"),
        ("- \\boxed{3}\n- \\boxed{4}", "3, 4"),
        (r"\boxed{3} apples and \boxed{4} pears", "3, 4"),
        (r"\boxed{3} und \boxed{4}", "3, 4"),
        (r"\boxed{3} et \boxed{4}", "3, 4"),
        (r"\boxed{3}和\boxed{4}", "3, 4"),
        (r"\boxed{3}、\boxed{4}", "3, 4"),
        (r"\boxed{3} или \boxed{4}", "3 or 4"),
        (r"\boxed{3}와 \boxed{4}", "3, 4"),
        # alternatives are two claims, in any spelling
        (r"either \boxed{5} or possibly \boxed{7}", "5 or 7"),
        (r"\boxed{5}. Or maybe \boxed{7}.", "5 or 7"),
        (r"\boxed{5}, or it could also be \boxed{7}", "5 or 7"),
        (r"$\boxed{5}$ (alternatively $\boxed{7}$)", "5 or 7"),
        (r"\boxed{5}. Perhaps \boxed{7}.", "5 or 7"),
        (r"\boxed{5} (or perhaps \boxed{7})", "5 or 7"),
    ],
)
def test_boxes_that_a_short_connection_joins_are_a_list(text: str, answer: str) -> None:
    assert content(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1} no no \boxed{2}", "2"),
        ("\\boxed{5}\n\n\\boxed{6}", "6"),
        (r"\boxed{5}. Again: \boxed{5}", "5"),
        (r"\boxed{5} and \boxed{5}", "5"),
        (r"\boxed{5}. Wait, I forgot the last term, so that is wrong. It is \boxed{7}.", "7"),
        (r"\boxed{5} or rather \boxed{7}", "7"),
        (r"\boxed{5}, but actually \boxed{7}", "7"),
        (r"\boxed{5}, no, \boxed{7}", "7"),
        ("1) This was not enough: \\boxed{5}\n2) so I tried it again: \\boxed{7}", "7"),
        ("(a) \\boxed{5}. I made a mistake in (a): \\boxed{7}", "7"),
        (r"\boxed{5}, then we add that to what was there before, and get \boxed{7}", "7"),
    ],
)
def test_a_later_box_replaces_those_before(text: str, answer: str) -> None:
    assert content(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"It is \boxed{12}, not \boxed{13}.", "12"),
        (r"It is \boxed{12} rather than $\boxed{13}$.", "12"),
        (r"\boxed{5} is wrong.", None),
        (r"\boxed{7} is right and \boxed{5} is not correct.", "7"),
        (r"So not \boxed{5}.", None),
        (r"\boxed{5} is not an integer.", "5"),
        (r"We do not know. \boxed{5}", "5"),
    ],
)
def test_a_denied_box_is_none(text: str, answer: str | None) -> None:
    assert content(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{25}\%", r"25\%"),
        (r"$\boxed{25}$ percent of them", r"25\%"),
        (r"$\boxed{28}$ pct", r"28\%"),
        (r"\boxed{5}\text{ cm}", r"5\text{ cm}"),
        (r"\boxed{5}\,\mathrm{cm}^2", r"5\,\mathrm{cm}^2"),
        (r"\boxed{5}^\circ", r"5^\circ"),
        (r"$\boxed{5}$ million people", "5 million"),
        (r"\boxed{5}\text{ and so on}", "5"),
        (r"$\boxed{5}$ cm", "5 cm"),
        (r"$\boxed{60}$ miles per hour, so", "60 miles per hour"),
        (r"\(\boxed{3}\) million dollars", "3 million dollars"),
        (r"\boxed{5} square meters", "5 square meters"),
        (r"\boxed{5} in total", "5"),
        (r"\boxed{5} dollars per child", "5 dollars"),
        (r"\boxed{5} hours and \boxed{20} minutes", "5 hours, 20 minutes"),
        (r"\boxed{5}$ is it", "5"),
        (r"\boxed{9} \pmod{11}", "9"),
    ],
)
def test_a_unit_or_magnitude_behind_a_box_belongs_to_it(text: str, answer: str) -> None:
    assert content(text) == answer


def test_only_the_last_boxes_are_looked_at() -> None:
    text = " and ".join(rf"\boxed{{{number}}}" for number in range(1000))
    values = str(content(text)).split(", ")
    assert values[-1] == "999"
    assert len(values) == boxes.MAX_BOXES
