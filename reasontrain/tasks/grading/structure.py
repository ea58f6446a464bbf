"""Comparison of lists, tuples, intervals, sets, unions and matrices, member by member.

Members without structure are compared by the leaf comparison, a function that the caller passes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from reasontrain.tasks.grading import leaf as leaf_values
from reasontrain.tasks.grading import normalise

MAX_ITEMS = 64
MAX_REPEATS = 2
"""The largest ratio of lengths at which two lists may still be equal as sets, by repetition."""

Leaf = Callable[[str, str], bool]
"""Compare two simple expressions (gold, answer)."""

_OPEN = "([{"
_CLOSE = ")]}"
_OPENING = ("(", "[", "{", r"\begin")
_CLOSING = (")", "]", "}", r"\end")
_TOKEN = re.compile(r"\\(?:[a-zA-Z]+|.)|\b[a-zA-Z]+|.", re.DOTALL)
_EQUALS = re.compile(r"(?<![<>!])=|\\equiv(?![a-zA-Z])")
_APPROX = re.compile(r"\\approx(?![a-zA-Z])|≈")
_CUP = re.compile(r"\\cup(?![a-zA-Z])|\bU\b(?=\s*[(\[])")
_SEPARATOR = re.compile(
    r"\s*(?:,|;|\\text\s*\{\s*,?\s*(?:and|or)\s*\}|\\mbox\s*\{\s*,?\s*(?:and|or)\s*\}"
    r"|\b(?:and|or)\b)\s*"
)
_MATRIX = re.compile(
    r"[(\[]?\s*\\begin\{([pbBvV]?matrix|array)\}(?:\{[^{}]*\})?(.*?)\\end\{\1\}\s*[)\]]?", re.DOTALL
)
_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne)(?![a-zA-Z])|(?<![<>!\\])=")
_NAME = re.compile(r"[^+\-\d<>]*[a-zA-Z][^+\-<>=]*")


def equal(gold: str, answer: str, leaf: Leaf, *, depth: int = 0) -> bool:
    """Compare two normalised expressions.

    Args:
        gold: the gold answer.
        answer: the answer of a response.
        leaf: the comparison of members without structure.
        depth: the number of lists around these expressions.

    Returns:
        True if they are equal; False also for lists that are nested too deeply.
    """
    if depth > 8:
        return False
    gold = _without_membership(gold)
    answer = _without_membership(answer)
    if normalise.squeezed(gold) == normalise.squeezed(answer):
        return True
    gold_values = split(gold, _APPROX)
    answer_values = split(answer, _APPROX)
    if len(gold_values) > 1 or len(answer_values) > 1:
        return any(
            equal(g, a, leaf, depth=depth + 1) for g in gold_values for a in answer_values[:4]
        )
    gold, answer = right_side(gold, answer)
    gold_matrix = _matrix(gold)
    answer_matrix = _matrix(answer)
    if gold_matrix or answer_matrix:
        return _rows_equal(gold_matrix, answer_matrix, leaf, depth)
    gold_union = _union(gold)
    answer_union = _union(answer)
    if len(gold_union) > 1 or len(answer_union) > 1:
        return _same_in_any_order(gold_union, answer_union, leaf, depth)
    if _RELATION.search(gold) or _RELATION.search(answer):
        return leaf(gold, answer)
    return _bracketed_equal(gold, answer, leaf, depth)


def right_side(gold: str, answer: str) -> tuple[str, str]:
    """Remove a name before an equals sign (`x = 5`, `f(x) = 5`) that only one expression has.

    Of a chain of equalities in the answer, the last member counts.
    """
    golds = _names_first(split(gold, _EQUALS))
    answers = _names_first(split(answer, _EQUALS))
    if len(golds) == len(answers) and (len(golds) > 2 or _same(golds[0], answers[0])):
        return golds[-1], answers[-1]
    if len(golds) == 2 and len(answers) == 2:
        return gold, answer
    if len(answers) > 1 and all(_is_name(part) or _is_constant(part) for part in answers[:-1]):
        answer = answers[-1]
    if len(golds) > 1 and all(_is_name(part) for part in golds[:-1]):
        gold = golds[-1]
    return gold, answer


def split(text: str, separator: re.Pattern[str]) -> list[str]:
    """Split at the separators outside of all brackets and environments; strip the parts."""
    parts = []
    depth = 0
    start = 0
    for token in _TOKEN.finditer(text):
        index = token.start()
        depth += (token.group() in _OPENING) - (token.group() in _CLOSING)
        match = separator.match(text, index) if depth == 0 and index >= start else None
        if match and match.end() > index:
            parts.append(text[start:index])
            start = match.end()
    return [part.strip() for part in (*parts, text[start:])]


def _names_first(members: list[str]) -> list[str]:
    """Turn `5 = x` into `x = 5`."""
    reverse = len(members) == 2 and _is_name(members[1]) and not _is_name(members[0])
    return members[::-1] if reverse else members


def _same(first: str, second: str) -> bool:
    return re.sub(r"\s", "", first) == re.sub(r"\s", "", second)


def _is_name(text: str) -> bool:
    r"""Return True for `x`, `f(x)`, `V_{1}:V_{2}`, `(p,q)`, `\frac{NO}{BO}`.

    Names have letters, no sums or comparisons, and digits only in subscripts.
    """
    return bool(_NAME.fullmatch(re.sub(r"_\{?\w+\}?", "", text).strip())) and "^" not in text


def _is_constant(text: str) -> bool:
    """Return True for an expression without free letters, such as `10^3` or `e^{i\\pi}`."""
    letters = re.sub(r"\\text\s*\{[^{}]*\}|\\begin\{\w+\}|\\end\{\w+\}|\\[a-zA-Z]+", " ", text)
    return not re.search(r"[a-df-hj-zA-Z]", letters)


def _without_membership(text: str) -> str:
    r"""Turn `x \in [0, 1]` into `[0, 1]`."""
    return re.sub(r"^\s*[a-zA-Z](?:\([a-z]\))?\s*\\in(?![a-zA-Z])\s*", "", text).strip()


def _union(text: str) -> list[str]:
    return split(text, _CUP)


def items(text: str) -> list[str]:
    r"""Return the members of a list at the top level; a member with `\pm` becomes two."""
    return [signed for part in split(text, _SEPARATOR) if part for signed in _both_signs(part)]


def _both_signs(text: str) -> list[str]:
    if len(re.findall(r"\\pm(?![a-zA-Z])", text)) != 1 or "\\mp" in text:
        return [text]
    return [re.sub(r"\\pm(?![a-zA-Z])\s*", sign, text).strip() for sign in ("+", "-")]


def _brackets(text: str) -> tuple[str, str, str]:
    """Return (opening, inside, closing) brackets; "" for both if no pair surrounds the whole."""
    text = (
        text.replace(r"\{", "{")
        .replace(r"\}", "}")
        .replace(r"\lbrace", "{")
        .replace(r"\rbrace", "}")
        .strip()
    )
    if len(text) < 2 or text[0] not in _OPEN or text[-1] not in _CLOSE:
        return "", text, ""
    depth = 0
    for index, char in enumerate(text):
        depth += (char in _OPEN) - (char in _CLOSE)
        if depth == 0 and index < len(text) - 1:
            return "", text, ""
    return text[0], text[1:-1].strip(), text[-1]


def _bracketed_equal(gold: str, answer: str, leaf: Leaf, depth: int) -> bool:
    # 1,000 is a number, not a list
    is_number = [leaf_values.is_single(side) for side in (gold, answer)]
    if any(is_number):
        is_list = [
            not plain and len(items(_brackets(side)[1])) > 1
            for plain, side in zip(is_number, (gold, answer), strict=True)
        ]
        return not any(is_list) and leaf(gold, answer)
    gold_open, gold_inside, gold_close = _brackets(gold)
    answer_open, answer_inside, answer_close = _brackets(answer)
    golds = items(gold_inside)
    answers = items(answer_inside)
    if len(golds) <= 1 and len(answers) <= 1:
        if not golds or not answers or "[" in (gold_open, answer_open):
            return leaf(gold, answer)
        return (
            leaf(golds[0], answers[0])
            if (gold_inside, answer_inside) == (gold, answer)
            else equal(golds[0], answers[0], leaf, depth=depth + 1)
        )
    # braces mean a set, which has no order, like no brackets at all
    gold_kind = (gold_open + gold_close).replace("{}", "")
    answer_kind = (answer_open + answer_close).replace("{}", "")
    if gold_kind and answer_kind:
        return gold_kind == answer_kind and _same_in_order(golds, answers, leaf, depth)
    if gold_kind or answer_kind:
        return (
            "(" in (gold_open, answer_open)
            and ")" in (gold_close, answer_close)
            and _same_in_order(golds, answers, leaf, depth)
        )
    return _same_in_any_order(golds, answers, leaf, depth)


def _same_in_order(golds: Sequence[str], answers: Sequence[str], leaf: Leaf, depth: int) -> bool:
    return len(golds) == len(answers) and all(
        _member_equal(g, a, leaf, depth) for g, a in zip(golds, answers, strict=True)
    )


def _same_in_any_order(
    golds: Sequence[str], answers: Sequence[str], leaf: Leaf, depth: int
) -> bool:
    """Compare as sets: every member of each list equals a member of the other."""
    if (
        min(len(golds), len(answers)) * MAX_REPEATS < max(len(golds), len(answers))
        or len(golds) > MAX_ITEMS
        or (1 in (len(golds), len(answers)))
    ):
        return False
    table = [[_member_equal(gold, answer, leaf, depth) for answer in answers] for gold in golds]
    return all(any(row) for row in table) and all(
        any(column) for column in zip(*table, strict=True)
    )


def _member_equal(gold: str, answer: str, leaf: Leaf, depth: int) -> bool:
    return equal(gold, answer, leaf, depth=depth + 1)


def _matrix(text: str) -> list[list[str]] | None:
    match = _MATRIX.fullmatch(text.strip())
    if not match or match[1] in ("vmatrix", "Vmatrix"):
        return None
    return [
        [cell.strip() for cell in row.split("&")] for row in match[2].split("\\\\") if row.strip()
    ]


def _rows_equal(
    golds: list[list[str]] | None, answers: list[list[str]] | None, leaf: Leaf, depth: int
) -> bool:
    if golds is None or answers is None or len(golds) != len(answers):
        return False
    return all(
        _same_in_order(gold, answer, leaf, depth)
        for gold, answer in zip(golds, answers, strict=True)
    )
