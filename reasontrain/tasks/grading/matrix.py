r"""Matrices and vectors: reading, and the sums, products and multiples that a box may contain."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from reasontrain.tasks.grading import approximate

Rows = tuple[tuple[str, ...], ...]
MAX_MATRICES = 8
MAX_SIZE = 12
"""The most rows or columns of a matrix in a product."""

_MATRIX = re.compile(
    r"[(\[]?\s*\\begin\{([pbB]?matrix|smallmatrix|array)\}(?:\{[lcr|\s]*\})?(.*?)\\end\{\1\}"
    r"\s*[)\]]?",
    re.DOTALL,
)
_BETWEEN = re.compile(
    r"\s*(?:\^\s*\{?\s*(T|t|\\top|\\intercal|-?\d)\s*\}?)?\s*([-+]?)\s*(.*?)\s*"
    r"(?:\\cdot|\\times|\*)?\s*",
    re.DOTALL,
)
MAX_DETERMINANT = 4
_DETERMINANT = re.compile(
    r"\\begin\{vmatrix\}((?:(?!\\begin).)*?)\\end\{vmatrix\}"
    r"|\\det\s*\(?\s*\\begin\{([pb]matrix)\}((?:(?!\\begin).)*?)\\end\{\2\}\s*\)?",
    re.DOTALL,
)
_GROUP = re.compile(r"\\begin|\\end|[()]")
_SCALAR = re.compile(r"(?:\\cdot|\\times|\*)?\s*(.*)", re.DOTALL)


@lru_cache(maxsize=2_048)
def rows(text: str) -> Rows | None:
    """Evaluate an expression of matrices to one matrix; None if it is none or is not readable."""
    if not 1 <= text.count(r"\begin") <= MAX_MATRICES:
        return None
    text = _without_groups(text)
    matches = list(_MATRIX.finditer(text))
    if not matches:
        return None
    matrices = [_cells(match[2]) for match in matches]
    if len(matches) == 1 and matches[0].span() == (0, len(text)):
        return matrices[0]
    total: Rows | None = None
    term: Rows | None = None
    # the last matrix, its scalar, and what stands to the left of both
    last: Rows | None = None
    factor = "1"
    left: Rows | None = None
    sign = ""
    end = 0
    for match, matrix in zip(matches, matrices, strict=True):
        between = _BETWEEN.fullmatch(text[end : match.start()])
        if between is None or matrix is None or max(len(matrix), len(matrix[0])) > MAX_SIZE:
            return None
        if between[1] is not None:
            # an exponent belongs to the matrix before it, and not to a product
            raised = None if last is None else _raised(last, between[1])
            term = None if raised is None else _times_left(left, raised, factor)
            if term is None:
                return None
        if between[2] and term is not None:
            total = _added(total, term, sign)
            if total is None:
                return None
            term = None
        if term is None:
            sign = between[2]
        scalar = _factor(between[3])
        if scalar is None:
            return None
        left = term
        last = matrix
        factor = scalar
        term = _times_left(left, matrix, factor)
        if term is None:
            return None
        end = match.end()
    rest = _BETWEEN.fullmatch(text[end:])
    if rest is None or rest[2] or term is None:
        return None
    if rest[1] is not None:
        raised = None if last is None else _raised(last, rest[1])
        term = None if raised is None else _times_left(left, raised, factor)
        if term is None:
            return None
    scalar = _factor(rest[3])
    return None if scalar is None else _added(total, _scaled(term, scalar), sign)


def with_determinants(text: str) -> str:
    r"""Write the determinants of numbers (`vmatrix`, `\det` of a matrix) as their values."""
    return _DETERMINANT.sub(_determinant_of, text)


def _determinant_of(match: re.Match[str]) -> str:
    table = _cells(match[1] if match[1] is not None else match[3])
    if table is None or len(table) != len(table[0]) or len(table) > MAX_DETERMINANT:
        return match.group()
    return f"({_determinant(table)})"


def _determinant(table: Rows) -> str:
    """Expand along the first row."""
    if len(table) == 1:
        return table[0][0]
    total = "0"
    for index, cell in enumerate(table[0]):
        minor = tuple(row[:index] + row[index + 1 :] for row in table[1:])
        term = _times(cell, _determinant(minor))
        total = _plus(total, _times("-1", term) if index % 2 else term)
    return total


def _without_groups(text: str) -> str:
    """Evaluate brackets around an expression of matrices, the innermost first."""
    opening: list[int] = []
    depth = 0
    for match in _GROUP.finditer(text):
        token = match.group()
        if token.startswith("\\"):
            depth += 1 if token == r"\begin" else -1
        elif depth == 0 and token == "(":
            opening.append(match.start())
        elif depth == 0 and opening:
            start = opening.pop()
            inside = text[start + 1 : match.start()].strip()
            if r"\begin" not in inside or (
                inside.count(r"\begin") == 1 and _MATRIX.fullmatch(inside)
            ):
                continue
            evaluated = rows(inside)
            if evaluated is None:
                return text
            lines = r" \\ ".join(" & ".join(row) for row in evaluated)
            matrix = rf"\begin{{pmatrix}} {lines} \end{{pmatrix}}"
            return _without_groups(f"{text[:start]}{matrix}{text[match.end() :]}")
    return text


def _cells(content: str) -> Rows | None:
    lines = [line for line in content.split(r"\\") if line.strip()]
    table = tuple(tuple(cell.strip() for cell in line.split("&")) for line in lines)
    table = tuple(row for row in table if row != (r"\hline",))
    return table if table and len({len(row) for row in table}) == 1 else None


def _factor(text: str) -> str | None:
    """Read a scalar beside a matrix: "1" if there is none, None if it is anything else."""
    match = _SCALAR.fullmatch(text)
    scalar = "" if match is None else match[1].strip()
    if not scalar:
        return "1"
    if scalar.startswith("/"):
        scalar = f"1{scalar}"
    if re.search(r"[=<>,&|]|^\^|\\begin|\\end|\\det", scalar):
        return None
    depth = 0
    for index, char in enumerate(scalar):
        depth += (char in "({[") - (char in ")}]")
        if char in "+-" and depth == 0 and index > 0:
            return None
    return scalar if depth == 0 else None


def _times_left(left: Rows | None, matrix: Rows, factor: str) -> Rows | None:
    scaled = _scaled(matrix, factor)
    return scaled if left is None else _product(left, scaled)


def _raised(matrix: Rows, exponent: str) -> Rows | None:
    """Transpose a matrix, raise it to a small power, or invert one of two rows."""
    if not exponent.lstrip("-").isdigit():
        return tuple(zip(*matrix, strict=True))
    if len(matrix) != len(matrix[0]):
        return None
    base = _inverse(matrix) if exponent.startswith("-") else matrix
    power: Rows | None = _identity(len(matrix))
    for _ in range(abs(int(exponent))):
        power = None if power is None or base is None else _product(power, base)
    return power


def _inverse(matrix: Rows) -> Rows | None:
    values = [approximate.value(cell) for row in matrix for cell in row]
    numbers = [value for value in values if isinstance(value, Fraction)]
    if len(matrix) != 2 or len(numbers) != 4:
        return None
    a, b, c, d = numbers
    determinant = a * d - b * c
    if determinant == 0:
        return None
    return (
        (str(d / determinant), str(-b / determinant)),
        (str(-c / determinant), str(a / determinant)),
    )


def _identity(size: int) -> Rows:
    return tuple(tuple("1" if i == j else "0" for j in range(size)) for i in range(size))


def _scaled(matrix: Rows, scalar: str) -> Rows:
    if scalar == "1":
        return matrix
    return tuple(tuple(_times(scalar, cell) for cell in row) for row in matrix)


def _added(total: Rows | None, term: Rows, sign: str) -> Rows | None:
    term = _scaled(term, "-1") if sign == "-" else term
    if total is None:
        return term
    if len(total) != len(term) or len(total[0]) != len(term[0]):
        return None
    return tuple(
        tuple(_plus(a, b) for a, b in zip(one, other, strict=True))
        for one, other in zip(total, term, strict=True)
    )


def _product(left: Rows, right: Rows) -> Rows | None:
    if len(left[0]) != len(right):
        return None
    columns = tuple(zip(*right, strict=True))
    return tuple(tuple(_dot(row, column) for column in columns) for row in left)


def _dot(row: tuple[str, ...], column: tuple[str, ...]) -> str:
    total = _times(row[0], column[0])
    for a, b in zip(row[1:], column[1:], strict=True):
        total = _plus(total, _times(a, b))
    return total


def _times(one: str, other: str) -> str:
    values = approximate.value(one), approximate.value(other)
    if isinstance(values[0], Fraction) and isinstance(values[1], Fraction):
        return str(values[0] * values[1])
    if 0 in values:
        return "0"
    if 1 in values:
        return other if values[0] == 1 else one
    return f"({one})({other})"


def _plus(one: str, other: str) -> str:
    values = approximate.value(one), approximate.value(other)
    if isinstance(values[0], Fraction) and isinstance(values[1], Fraction):
        return str(values[0] + values[1])
    if 0 in values:
        return other if values[0] == 0 else one
    return f"({one})+({other})"
