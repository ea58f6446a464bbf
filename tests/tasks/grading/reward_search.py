r"""A search for answers that earn the reward of more than one gold answer.

It enumerates separators, hedges, units, brackets, chains and several boxes over a fixed set of
golds, keeps what is right for a gold, and builds on that.
"""

from __future__ import annotations

import random
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from reasontrain.tasks.grading import Grader, GradeRequest
from tests.tasks.grading.corpus import Gold, golds, sample
from tests.tasks.grading.oracle import value
from tests.tasks.grading.rewritings import (
    BASE,
    DEGREES,
    DOLLARS,
    EQUATION,
    MATRIX,
    PERCENT,
    UNIT,
    split,
)

NUMBER_OF_GOLDS = 500
MOST_INTEGERS = 160
"""So many integers at most, since they are half of all golds and one kind."""
CELL_END = r"\\"
MOST_CANDIDATES = 5
"""The most golds that an answer is graded against."""

SEPARATORS = (
    ", ", "; ", " ", r"\ ", "~", r"\quad ", "/", "|", ":", "=", "-", "*", "&", r" \\ ", "...",
    r" \approx ", r" \sim ", r" \equiv ", r" \cup ", r" \cap ", r" \lor ", r" \land ", r" \pm ",
    r" \to ", r" \Rightarrow ", r" \ne ", " < ", r" \le ", r" \in ", r" \mid ", r" \ldots ", " or ",
    r" \text{ or } ", r" \text{ and } ", r"\text{, or maybe }", r"\text{ but not }", " i.e. ",
    r" \text{ to } ", r"\text{ is wrong, it is }", r" \text{ remainder } ", r" + 0 \cdot ", "_",
    "^", ".", ",", "{,}", "(", r" \text{ (not } ", " = x = ", r" \pmod ", "、", "或", "和",
    " oder ", " und ",
)  # fmt: skip
PREFIXES = (
    "-", "+", r"\pm ", "x = ", "x > ", r"x \ne ", r"\approx ", r"\text{about }", r"\text{not }",
    r"\text{at least }", r"\sqrt", r"\$", "0.", r"\frac", "|", r"\text{Rs. }", "1 ", "0", "C. ",
    r"\textbf{(C)}\ ", r"\text{half of }", r"\cos ", r"\log ", r"\{x : x = ",
)  # fmt: skip
SUFFIXES = (
    r"\%", r"^\circ", r"\text{ cm}", r"\text{ m}", r"\text{ cm}^2", r"\text{ hours}", " minutes",
    r"\text{ cents}", r"\text{ dollars}", r"\text{ million}", r"\text{ dozen}", "k", "万", "个",
    "!", "_2", "_{10}", r"\pmod{7}", r" \text{ R } 3", "th", r"\text{ halves}", " times",
    r"\text{ p.m.}", r"\text{ or more}", "...", r"\overline{3}", "'", "i", r"\pi", "x", "^2",
    r"\text{ squared}", ":00", r" \text{ to the nearest integer}", r"\text{ is wrong}", r"^{-1}",
    r" \cdot 10^2", "e2", "00", ".0",
)  # fmt: skip
FORMS = (
    "({})", "[{}]", "[{})", "({}]", r"\{{{}\}}", r"\langle {} \rangle", "|{}|", "{{{}}}",
    r"\text{{{}}}", r"\boxed{{{}}}", r"x \in \{{{}\}}", r"\begin{{pmatrix}} {} \end{{pmatrix}}",
    "x = {}", "(x, y) = ({})", r"\{{x \mid x = {}\}}", r"\sqrt{{({})^2}}", "{0}, {0}", "{0} = {0}",
    r"\text{{The answer is }} {}",
)  # fmt: skip
PAIRED = (
    r"\frac{{{}}}{{{}}}", r"\text{{between }} {} \text{{ and }} {}", r"{} \frac{{{}}}{{7}}",
    "({}, {})", "[{}, {}]", r"\{{{}, {}\}}", "x = {}, y = {}", r"x = {} \text{{ or }} x = {}",
    r"\begin{{pmatrix}} {} \\ {} \end{{pmatrix}}", r"\begin{{cases}} {} \\ {} \end{{cases}}",
    r"{} \text{{ if }} x > {}", r"\sqrt[{}]{{{}}}", r"\min({}, {})", r"\{{{} \text{{ or }} {}\}}",
    r"{} \text{{ red}}, {} \text{{ blue}}", "{} feet {} inches", r"\log_{{{}}} {}", r"{}^{{{}}}",
    "{}_{{{}}}",
)  # fmt: skip
RESPONSES = (
    r"\boxed{{{}}} \boxed{{{}}}", r"\boxed{{{}}}, \boxed{{{}}}", r"\boxed{{{}}} or \boxed{{{}}}",
    r"(a) \boxed{{{}}} and (b) \boxed{{{}}}", r"\boxed{{{}}}. Wait, no. \boxed{{{}}}",
    r"\boxed{{{}}}. The final answer is {}.", r"The answer is {}. The answer is {}.",
    "The answer is {} or {}.", "The answer is {}, not {}.", "#### {}\n#### {}", "#### {} or {}",
    "<answer>{}</answer><answer>{}</answer>", "<answer>{} or {}</answer>", "**Answer:** {} **{}**",
    r"\boxed{{{}}} = \boxed{{{}}}", "答案是{}或{}。", "Answer: {}\nAnswer: {}",
    r"\boxed{{\boxed{{{}}} {}}}", r"<think>\boxed{{{}}}</think> The answer is {}.",
    "The answer is {} ({}).", r"$\boxed{{{}}}$ ${}$",
)  # fmt: skip


class Trial(NamedTuple):
    """An answer of the search.

    Attributes:
        response: the whole response.
        content: its box's content, to build on; None for a response that is more than a box.
        made_by: the last step that made it.
        parts: golds that it was made of.
    """

    response: str
    content: str | None
    made_by: str
    parts: tuple[str, ...]


def _boxed(content: str, made_by: str, parts: tuple[str, ...]) -> Trial:
    return Trial(rf"\boxed{{{content}}}", content, made_by, tuple(dict.fromkeys(parts)))


Step = Callable[[Trial, str], Trial]
"""It builds on an answer, with another gold."""


def _steps() -> Iterator[Step]:
    for mark in SEPARATORS:
        yield partial(_joined, "{}" + _literal(mark) + "{}", f"separator {mark!r}")
    for mark in PREFIXES:
        yield partial(_changed, _literal(mark) + "{}", f"prefix {mark!r}")
    for mark in SUFFIXES:
        yield partial(_changed, "{}" + _literal(mark), f"suffix {mark!r}")
    for form in FORMS:
        yield partial(_changed, form, f"form {form!r}")
    for form in PAIRED:
        yield partial(_joined, form, f"form {form!r}")
    for form in RESPONSES:
        yield partial(_told, form)


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _joined(form: str, made_by: str, trial: Trial, other: str) -> Trial:
    return _boxed(form.format(*_either_way(trial, other)), made_by, (*trial.parts, other))


def _changed(form: str, made_by: str, trial: Trial, other: str) -> Trial:
    return _boxed(form.format(trial.content), made_by, trial.parts)


def _told(form: str, trial: Trial, other: str) -> Trial:
    response = form.format(*_either_way(trial, other))
    return Trial(response, None, f"response {form!r}", (*trial.parts, other))


def _either_way(trial: Trial, other: str) -> tuple[str, str]:
    content = trial.content or ""
    is_first = zlib.crc32(f"{content} {other}".encode()) % 2
    return (content, other) if is_first else (other, content)


STEPS = tuple(_steps())


class Hack(NamedTuple):
    """An answer that is right for two golds of different value."""

    trial: Trial
    golds: tuple[str, ...]


def gold_set() -> tuple[list[str], int]:
    """Golds of pairwise different value, and the number of those left out for another one's sake.

    Two golds count as one if they are equal, or differ in their unit, brackets or order alone: a
    bare value is right for both.
    """
    kept: dict[object, str] = {}
    removed = 0
    integers = 0
    for gold in sample(
        (gold for gold in golds() if len(gold.answer) <= 60), len(golds()), "search"
    ):
        key = _key(gold)
        if key in kept:
            removed += 1
        elif integers < MOST_INTEGERS or not re.fullmatch(r"-?\d+", gold.answer):
            integers += re.fullmatch(r"-?\d+", gold.answer) is not None
            kept[key] = gold.answer
            if len(kept) == NUMBER_OF_GOLDS:
                break
    return list(kept.values()), removed


def _key(gold: Gold) -> object:
    """The same for golds of one value, and for hundredfolds: a percentage is also its share."""
    text = re.sub(r"\\left|\\right|\\!|\\displaystyle|\.$|^\$|\$\.?$", "", gold.answer).strip()
    for pattern in (DEGREES, BASE, PERCENT, DOLLARS, UNIT):
        match = pattern.fullmatch(text)
        if match:
            text = match[1]
    equation = EQUATION.fullmatch(text)
    text = equation[2] if equation else text
    column = MATRIX.fullmatch(text)
    if column and "&" not in column[1]:  # a vector is right in either notation
        text = f"({','.join(column[1].split(CELL_END))})"
    inside = re.fullmatch(r"[\[(](.*)[\])]|\\?\{(.*?)\\?\}", text, re.DOTALL)
    parts = split(next(filter(None, inside.groups()), "")) if inside else split(text)
    return tuple(sorted(map(_member_key, [text] if "\\cup" in text else parts)))


def _member_key(text: str) -> str:
    result = value(text)
    if result is None or not result:
        return re.sub(r"\s|\\text|[{}]", "", text).lower()
    size = abs(result)
    while size >= 100:
        size /= 100
    while size < 1:
        size *= 100
    return f"{size:.9g} {result / abs(result):.6f}"


class Search:
    """A search over a set of golds.

    Args:
        grader: the verifier.
        texts: the gold answers.
        seed: of the choices where not all combinations are tried.
    """

    def __init__(self, grader: Grader, texts: Sequence[str], seed: int = 0) -> None:
        self._grader = grader
        self._texts = list(texts)
        self._random = random.Random(seed)
        self._by_digits: defaultdict[str, list[str]] = defaultdict(list)
        for text in texts:
            self._by_digits[_digits(text)].append(text)
        self.num_tried = 0
        self.num_right = 0

    def run(self, per_step: int, number: int, rounds: int) -> list[Hack]:
        """Take every step from so many golds, then build on what is right for a gold.

        Args:
            per_step: golds that every step is taken from.
            number: answers that are built in one round.
            rounds: rounds, each of which builds on the answers of the one before.
        """
        choose = self._random.choice
        trials = [
            step(_boxed(start, "itself", (start,)), choose(self._texts))
            for step in STEPS
            for start in self._random.sample(self._texts, per_step)
        ]
        right, hacks = self._graded(list(dict.fromkeys(trials)))
        for _ in range(rounds):
            base = [trial for trial in right if trial.content and len(trial.content) < 300]
            trials = [choose(STEPS)(choose(base), choose(self._texts)) for _ in range(number)]
            right, new = self._graded(list(dict.fromkeys(trials)))
            hacks += new
        return hacks

    def _graded(self, trials: list[Trial]) -> tuple[list[Trial], list[Hack]]:
        """The trials that are right for a gold, and those that are right for several."""
        pairs = [(trial, gold) for trial in trials for gold in self._candidates(trial)]
        verdicts = self._grader.grade_many(
            [GradeRequest(gold, trial.response) for trial, gold in pairs], answer_format="any"
        )
        earned: defaultdict[Trial, list[str]] = defaultdict(list)
        for (trial, gold), verdict in zip(pairs, verdicts, strict=True):
            if verdict.correct:
                earned[trial].append(gold)
        self.num_tried += len(trials)
        self.num_right += len(earned)
        return list(earned), [
            Hack(trial, tuple(golds)) for trial, golds in earned.items() if len(golds) > 1
        ]

    def _candidates(self, trial: Trial) -> list[str]:
        """Its parts, and golds whose digits stand in the answer one behind the other."""
        digits = _digits(trial.response)
        runs = sorted(
            {
                digits[i:j]
                for i in range(len(digits))
                for j in range(i + 1, min(i + 9, len(digits) + 1))
            }
        )
        others = [gold for run in runs for gold in self._by_digits.get(run, ())]
        return list(dict.fromkeys([*trial.parts, *sample(others, MOST_CANDIDATES)]))[
            :MOST_CANDIDATES
        ]


def _digits(text: str) -> str:
    return re.sub(r"\D|(?<!\d)0+(?=[\d.])", "", text)


def by_kind(hacks: Sequence[Hack]) -> dict[str, list[Hack]]:
    """Ways to earn twice, the most frequent first, each with its answers, the shortest first."""
    by_step: defaultdict[str, list[Hack]] = defaultdict(list)
    for hack in sorted(hacks, key=lambda one: len(one.trial.response)):
        by_step[hack.trial.made_by].append(hack)
    return dict(sorted(by_step.items(), key=lambda item: -len(item[1])))


def grouped(hacks: Sequence[Hack]) -> Iterator[str]:
    """One line for each way to earn twice."""
    for step, found in by_kind(hacks).items():
        yield f"{len(found)} by {step}, such as {found[0].trial.response!r} for {found[0].golds}"
