r"""Comparison of answers by their structure: lists, sets, intervals, relations, matrices, names.

Each side is parsed once to a small tree. Members without structure are compared by the leaf
comparison, a function that the caller passes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise, product
from typing import NamedTuple

from reasontrain.tasks.grading import approximate, matrix, normalise, reals, scan, words
from reasontrain.tasks.grading import leaf as leaf_values
from reasontrain.tasks.grading.reals import Subset

MAX_ITEMS = 64
"""The most members of lists that are compared in any order."""
MAX_MEMBERS = 256
"""The most members of a list that are read on their own."""
MAX_REPEATS = 2
"""The largest ratio of lengths at which two lists may still be equal as sets, by repetition."""
MAX_CHAIN = 8
"""The most values that signs of approximate equality may join."""
MAX_NESTING = 6
MAX_SIGNS = 4
"""The most signs \\pm that one expression may have."""
MAX_ROUNDING = 0.02
"""The largest relative distance of an exact value to its approximation."""
MAX_TERMS = 200
"""The most members that dots in a list (`1, 2, \\ldots, 10`) stand for."""

Leaf = Callable[[str, str], bool]
"""Compare two simple expressions (gold, answer)."""
Nouns = frozenset[str]

_NAME = re.compile(r"[^+\-\d<>]*[a-zA-Z][^+\-<>=]*")
_SUM_OF_NAMES = re.compile(r"[a-zA-Z]+(?:\s*[-+]\s*[a-zA-Z]+)+")
_NUMBERS = re.compile(r"\\mathbb\{[NZQRC]\}(?:\^?[+*])?")
_BUILDER = re.compile(
    r"\s*([a-zA-Z])\s*(?:\\in\s*\\mathbb\{R\}\s*)?(?:\\mid(?![a-zA-Z])|\||:)(.*)", re.DOTALL
)
_ALL_REALS = frozenset(["all real numbers", "all reals", "real numbers", "reals"])
_INTEGERS = frozenset(["all integers", "integers"])
_NO_SOLUTION = frozenset(
    ["no solution", "no solutions", "no real solution", "no real solutions", "empty set", "none"]
)
_MEASURED = re.compile(
    r"(-?[\d,]*\.?\d+)\s*(?:\\text\{.*|\^\\circ.*|[a-zA-Z\u0080-\uffff].*)", re.DOTALL
)
"""A number with what may be its unit."""
_CONDITION = re.compile(
    r"\s*,?\s*\\text\{\s*,?\s*(?:for|where|with)\b[^{}]*\}"
    r"\s*[a-zA-Z]\s*\\in\s*\\mathbb\{[ZN]\}.*$",
    re.DOTALL,
)
_EXCEPT = re.compile(
    r"(?:\\text\{\s*)?all (?:real numbers|reals)(?: x)?,? (?:except|but|other than|excluding)"
    r"(?: for)?\s*\}?\s*([^{}]*)\}?"
)
_WITHOUT = re.compile(r"^(\\mathbb\{R\})\s*-\s*(?=\\\{)")
_UNEQUAL = re.compile(r"([a-zA-Z]\s*\\ne)(?![a-zA-Z])")
_COLUMN = re.compile(r"\\binom\{((?:[^{}]|\{[^{}]*\})*)\}\{((?:[^{}]|\{[^{}]*\})*)\}")
_TRANSPOSED = re.compile(
    r"(?:\(|\[|\\langle)([^()\[\]]+)(?:\)|\]|\\rangle)\s*\^\s*\{?\s*(?:\\text\{)?"
    r"(?:T|t|\\top|\\intercal)\s*\}{0,2}"
)
_UNIT_VECTORS = re.compile(
    r"\s*([-+]?)\s*((?:[^-+]|(?<=[({])-)*?)\s*\\?(?:hat|vec|widehat|overrightarrow)?\s*"
    r"\{?\s*\\?(i|j|k)(?:math)?\s*\}?\s*(?=[-+]|$)"
)
"""One term of `2\\hat{i} - 3\\hat{j}`."""
_LABELLED = re.compile(
    r"(?:\\text\{\s*(?:and\s+)?\(?(?P<one>[a-h]|[ivx]{1,4}|\d)\)\s*:?\s*\}"
    r"|\((?P<two>[a-h]|[ivx]{1,4}|\d)\)\s*:?(?=\s|\\)"
    r"|\\text\{\s*(?:and\s+)?(?P<name>[A-Za-z][^{}:=]{0,40})[:=]\s*\})\s*(?P<value>\S.*)",
    re.DOTALL,
)
"""A member with the label of its part (`(i) 3`) or with a name (`\\text{Ann: } 4`)."""
_PART_LABELS = ("abcdefgh", ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii"), "12345678")
_FUNCTION = re.compile(r"([a-zA-Z])\(([a-z])\)")
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![a-zA-Z])\s*")


@dataclass(frozen=True)
class Value:
    """A member without structure."""

    text: str


@dataclass(frozen=True)
class Several:
    """Members, in the brackets that `kind` has: "", "{}", "()", "[]", "<>", or "cup"."""

    kind: str
    members: tuple[Node, ...]
    text: str


@dataclass(frozen=True)
class Reals:
    """A set of real numbers that nothing else is: an inequality, a union, a half-open interval."""

    subset: Subset
    text: str


@dataclass(frozen=True)
class Assigned:
    """A name with its value: `x = 5`, `f(x) = 2x`, `(x, y) = (3, 4)`, `x \\in \\{1, 2\\}`."""

    name: str
    value: Node
    text: str


@dataclass(frozen=True)
class Named:
    """Several names with one value each, in the order of the text."""

    names: tuple[str, ...]
    values: tuple[Node, ...]
    text: str


@dataclass(frozen=True)
class Chain:
    """An equation, or a chain of equalities, whose first side is more than a name."""

    sides: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Approximations:
    """Values joined by signs of approximate equality."""

    members: tuple[Node, ...]
    text: str


@dataclass(frozen=True)
class Grid:
    """A matrix."""

    rows: matrix.Rows
    text: str


Node = Value | Several | Reals | Assigned | Named | Chain | Approximations | Grid


class Comparison:
    """The comparison of one answer with the gold one.

    Args:
        leaf: the comparison of members without structure.
        nouns: words of the problem that may name what a number counts.

    Attributes:
        rules: the rules that were used, in order.
    """

    def __init__(self, leaf: Leaf, nouns: Nouns = frozenset()) -> None:
        self._leaf = leaf
        self._nouns = nouns
        self.rules: list[str] = []

    def equal(self, gold: str, answer: str) -> bool:
        """Compare two normalised expressions."""
        if words.is_struck_out(answer) and not words.is_struck_out(gold):
            return self._decided(False, "struck out")
        gold = _without_lead(gold)
        answer = _without_lead(answer)
        in_words = words.equal(gold, answer)
        if in_words is not None:
            return self._decided(in_words, "words")
        # in `(C) 5 = 6`, the letter is no part of a name
        has_label = any(words.labels_equation(text) for text in (gold, answer))
        if not has_label and self._nodes(gold, answer):
            return True
        contents = words.content_of_choice(gold), words.content_of_choice(answer)
        if contents == (None, None):
            return False
        self.rules.append("content of a choice")
        return self._nodes(contents[0] or gold, contents[1] or answer)

    def _nodes(self, gold: str, answer: str) -> bool:
        return self._same(parse(gold, self._nouns), parse(answer, self._nouns), 0)

    def _decided(self, result: bool, rule: str) -> bool:
        self.rules.append(rule)
        return result

    def _texts(self, gold: str, answer: str) -> bool:
        """Compare two values without structure."""
        in_words = words.equal(gold, answer)
        if in_words is not None:
            return self._decided(in_words, "words")
        if reals.is_infinite(gold) and reals.is_infinite(answer):
            return self._decided(approximate.value(gold) == approximate.value(answer), "infinity")
        values = approximate.value(gold), approximate.value(answer)
        # decimals and percentages have rules of their own
        if (
            isinstance(values[0], Fraction)
            and isinstance(values[1], Fraction)
            and (values[0] == values[1] or not re.search(r"[.%]", gold + answer))
        ):
            return self._decided(values[0] == values[1], "values of arithmetic")
        return self._leaf(gold, answer)

    def _same(self, gold: Node, answer: Node, depth: int) -> bool:
        if depth > MAX_NESTING:
            return False
        if normalise.squeezed(gold.text) == normalise.squeezed(answer.text):
            return self._decided(True, "same text")
        match gold, answer:
            case Value(), Value():
                return self._texts(gold.text, answer.text)
            case (Value(), Grid() | Several()) | (Grid() | Several(), Value()):
                vectors = _as_vectors(gold, answer)
                if vectors is not None:
                    self.rules.append("unit vectors")
                    return self._in_order(*vectors, depth)
        match gold, answer:
            case (Approximations(), _) | (_, Approximations()):
                return self._approximations(gold, answer, depth)
            case (Grid(), _) | (_, Grid()):
                return self._grids(gold, answer, depth)
            case (Reals(), _) | (_, Reals()):
                return self._reals(gold, answer)
            case (Assigned() | Named() | Chain(), _) | (_, Assigned() | Named() | Chain()):
                return self._equations(gold, answer, depth)
        return self._lists(gold, answer, depth)

    def _approximations(self, gold: Node, answer: Node, depth: int) -> bool:
        """Compare with the last member, or with an earlier exact one that is no plain number."""
        golds = gold.members if isinstance(gold, Approximations) else (gold,)
        answers = answer.members if isinstance(answer, Approximations) else (answer,)
        self.rules.append("approximations that agree")
        return any(
            self._same(gold, answer, depth + 1)
            for gold in _exact_or_last(golds)
            for answer in _exact_or_last(answers)
        )

    def _grids(self, gold: Node, answer: Node, depth: int) -> bool:
        if isinstance(gold, Assigned) or isinstance(answer, Assigned):
            return self._equations(gold, answer, depth)
        golds = _rows(gold)
        answers = _rows(answer)
        if golds is None or answers is None or len(golds) != len(answers):
            return False
        self.rules.append("matrices, entry by entry")
        return all(
            len(row) == len(other)
            and all(self._parsed(g, a, depth) for g, a in zip(row, other, strict=True))
            for row, other in zip(golds, answers, strict=True)
        )

    def _parsed(self, gold: str, answer: str, depth: int) -> bool:
        return self._same(parse(gold, self._nouns), parse(answer, self._nouns), depth + 1)

    def _reals(self, gold: Node, answer: Node) -> bool:
        golds = _subset(gold)
        answers = _subset(answer)
        if golds is None or answers is None:
            relations = _is_relation(gold) and _is_relation(answer)
            return relations and self._leaf(gold.text, answer.text)
        if golds.name is not None and answers.name is not None and golds.name != answers.name:
            return self._leaf(gold.text, answer.text)
        self.rules.append("sets of real numbers")
        return reals.same(golds.region, answers.region, self._texts)

    def _equations(self, gold: Node, answer: Node, depth: int) -> bool:
        if isinstance(gold, Assigned) and isinstance(answer, Assigned):
            renamed = _renamed(gold.name, answer)
            if renamed is not None:
                return self._same(gold.value, parse(renamed, self._nouns), depth + 1)
            if _same_name(gold.name, answer.name):
                return self._same(gold.value, answer.value, depth + 1)
            golds = _named(gold)
            answers = _named(answer)
            if golds is not None and answers is not None:
                return self._named(golds, answers, depth)
            return self._leaf(gold.text, answer.text)
        golds = _named(gold)
        answers = _named(answer)
        if isinstance(gold, Named) or isinstance(answer, Named):
            return self._named(golds or gold, answers or answer, depth)
        if isinstance(gold, Chain) and isinstance(answer, Chain | Assigned):
            return self._chains(gold, answer, depth)
        if isinstance(gold, Assigned) and isinstance(answer, Chain):
            return self._chains(gold, answer, depth)
        names_choice = isinstance(answer, Assigned) and words.is_letter(answer.name)
        if names_choice and words.is_letter(gold.text):
            return self._decided(False, "two choices")
        gold_value = _value_of(gold, self._nouns, strict=True)
        answer_value = _value_of(answer, self._nouns, strict=False)
        if gold_value is None or answer_value is None:
            return False
        return self._same(gold_value, answer_value, depth + 1)

    def _chains(self, gold: Chain | Assigned, answer: Chain | Assigned, depth: int) -> bool:
        """Compare two equations by algebra, and longer chains by their names and last members."""
        gold_sides = _sides(gold)
        answer_sides = _sides(answer)
        if len(gold_sides) == 2 and len(answer_sides) == 2:
            if _same_name(gold_sides[0], answer_sides[0]):
                return self._parsed(gold_sides[1], answer_sides[1], depth)
            return self._leaf(gold.text, answer.text)
        names = [sides[0] for sides in (gold_sides, answer_sides) if _is_name(sides[0])]
        if len(names) == 2 and not _same_name(*names):
            return False
        return (
            _is_consistent(gold_sides)
            and _is_consistent(answer_sides)
            and self._parsed(gold_sides[-1], answer_sides[-1], depth)
        )

    def _named(self, gold: Node, answer: Node, depth: int) -> bool:
        if isinstance(gold, Named) and isinstance(answer, Named):
            self.rules.append("named values, by name")
            values = dict(zip(map(normalise.squeezed, answer.names), answer.values, strict=True))
            names = [normalise.squeezed(name) for name in gold.names]
            return len(values) == len(names) and all(
                name in values and self._same(value, values[name], depth + 1)
                for name, value in zip(names, gold.values, strict=True)
            )
        golds = gold.values if isinstance(gold, Named) else _tuple_members(gold)
        answers = answer.values if isinstance(answer, Named) else _tuple_members(answer)
        self.rules.append("named values, in order")
        return self._in_order(golds, answers, depth)

    def _lists(self, gold: Node, answer: Node, depth: int) -> bool:
        golds = gold.members if isinstance(gold, Several) else (gold,)
        answers = answer.members if isinstance(answer, Several) else (answer,)
        kinds = [side.kind if isinstance(side, Several) else "" for side in (gold, answer)]
        if len(golds) <= 1 and len(answers) <= 1:
            if not golds or not answers:
                return not golds and not answers
            if "[]" in kinds:
                return self._leaf(gold.text, answer.text)
            return self._same(golds[0], answers[0], depth + 1)
        if len(golds) == 1 and _are_alternatives(answer):
            self.rules.append("alternatives, each equal")
            return all(self._same(golds[0], member, depth + 1) for member in answers)
        if kinds == ["[]", "[]"] and len(golds) == len(answers) == 2:
            return self._reals(gold, answer)
        if kinds[0] == kinds[1]:
            if kinds[0] in ("", "{}", "cup"):
                return self._in_any_order(golds, answers, depth)
            return self._in_order(golds, answers, depth)
        if set(kinds) <= {"", "{}"}:
            return self._in_any_order(golds, answers, depth)
        if set(kinds) in ({"", "()"}, {"<>", "()"}):
            return self._in_order(golds, answers, depth)
        return False

    def _in_order(self, golds: Sequence[Node], answers: Sequence[Node], depth: int) -> bool:
        self.rules.append("lists, in order")
        return (
            len(golds) == len(answers)
            and len(golds) > 0
            and all(self._same(g, a, depth + 1) for g, a in zip(golds, answers, strict=True))
        )

    def _in_any_order(self, golds: Sequence[Node], answers: Sequence[Node], depth: int) -> bool:
        """Compare as sets: every member of each list equals a member of the other."""
        self.rules.append("sets, in any order")
        if (
            min(len(golds), len(answers)) * MAX_REPEATS < max(len(golds), len(answers))
            or max(len(golds), len(answers)) > MAX_ITEMS
            or 1 in (len(golds), len(answers))
        ):
            return False
        table = [[self._same(gold, answer, depth + 1) for answer in answers] for gold in golds]
        return all(any(row) for row in table) and all(
            any(column) for column in zip(*table, strict=True)
        )


class CanonicalForm(NamedTuple):
    """A canonical form of an answer: answers with equal keys are equal.

    Attributes:
        form: value and unit, or the keys of the members.
        kind: "number", "percent", "quantity", ... of a value; "text" of an expression that only
            algebra can compare, and the brackets of a list.
        is_value: no other value of another key is equal, but for a unit that one of them lacks.
        is_bare: a number without a unit.
    """

    form: Hashable
    kind: str
    is_value: bool = False
    is_bare: bool = False


def key(text: str, nouns: Nouns = frozenset()) -> CanonicalForm:
    """Return the canonical form of a normalised answer.

    Args:
        text: the answer.
        nouns: words of the problem that may name what a number counts.
    """
    return _key(parse(words.without_lead(text), nouns), nouns)


def _key(node: Node, nouns: Nouns) -> CanonicalForm:
    match node:
        case Assigned():
            return _key(node.value, nouns)
        case Several(members=(member,)):
            return _key(member, nouns)
        case Several():
            members = [_key(member, nouns) for member in node.members]
            if node.kind in ("", "{}"):
                return CanonicalForm(frozenset(members), "set")
            return CanonicalForm(tuple(members), node.kind)
        case Value():
            value = leaf_values.key(node.text, nouns)
            if value.kind != "text":
                is_bare = value.kind == "number"
                return CanonicalForm(
                    (value.value, value.unit), value.kind, is_value=True, is_bare=is_bare
                )
            prose = words.prose(words.bare(node.text))
            return CanonicalForm(prose or value.value, "text")
    return CanonicalForm(normalise.squeezed(node.text), "text")


@lru_cache(maxsize=4_096)
def parse(text: str, nouns: Nouns = frozenset()) -> Node:
    """Parse a normalised expression; what has no structure that is known is a value."""
    text = _CONDITION.sub("", scan.with_round_ends(text.strip()))
    if "vmatrix" in text or r"\det" in text:
        text = matrix.with_determinants(text)
    except_for = _EXCEPT.fullmatch(text)
    if except_for is not None:
        text = rf"\mathbb{{R}} \setminus \{{{except_for[1]}\}}"
    return _parse(_WITHOUT.sub(r"\1 \\setminus ", text), nouns, 0)


def _parse(text: str, nouns: Nouns, depth: int) -> Node:
    separators = scan.separators(text) if depth <= MAX_NESTING else ()
    surrounded = scan.brackets(text) if not separators else None
    if surrounded is None and not separators and "\\" not in text:
        return _value(text)
    if surrounded is not None:
        return _bracketed(text, surrounded, nouns, depth)
    kinds = {separator.kind for separator in separators}
    if kinds & scan.LISTS or r"\pm" in text or r"\mp" in text:
        if kinds & scan.LISTS and leaf_values.is_single(text, nouns):
            return Value(text)
        members = _members(text)
        if members and members != [text]:
            return _list(members, separators, text, nouns, depth)
    if "approx" in kinds:
        parts, _ = scan.split(text, frozenset(["approx"]))
        if not any(parts) or len(parts) > MAX_CHAIN:
            return Several("", tuple(Value(part) for part in parts), text)
        nodes = tuple(_parse(part, nouns, depth + 1) for part in parts if part)
        return nodes[0] if len(nodes) == 1 else Approximations(nodes, text)
    if "equals" in kinds:
        return _equation(text, nouns, depth)
    if "in" in kinds:
        return _membership(text, nouns, depth)
    if "relation" in kinds:
        subset = reals.relation(text)
        return Value(text) if subset is None else Reals(subset, text)
    if kinds & {"cup", "cap", "minus"}:
        return _combined(text, nouns, depth)
    return _value(text)


def _value(text: str) -> Node:
    transposed = _TRANSPOSED.fullmatch(text) if "^" in text else None
    if transposed is not None:
        members = _members(transposed[1], listed=True)
        if len(members) > 1:
            return Grid(tuple((member,) for member in members), text)
    if "\\" in text:
        rows = matrix.rows(text)
        if rows is not None:
            return Grid(rows, text)
        if text in (r"\emptyset", r"\{\}"):
            return Reals(Subset(reals.EMPTY), text)
        line = reals.line(text)
        if line is not None:
            return Reals(Subset(line), text)
    if "real" in text or "o s" in text or "ty s" in text or "one" in text or "integers" in text:
        prose = words.prose(words.bare(text))
        if prose in _INTEGERS:
            return Value(r"\mathbb{Z}")
        if prose in _ALL_REALS:
            return Reals(Subset(reals.WHOLE), text)
        if prose in _NO_SOLUTION:
            return Reals(Subset(reals.EMPTY), text)
    return Value(text)


def _bracketed(text: str, surrounded: tuple[str, str, str], nouns: Nouns, depth: int) -> Node:
    opening, inside, closing = surrounded
    opening = opening.replace(r"\langle", "<").replace("\\", "")
    closing = closing.replace(r"\rangle", ">").replace("\\", "")
    kind = opening + closing
    if kind == "{}":
        builder = _BUILDER.fullmatch(inside)
        if builder is not None:
            condition = _parse(builder[2].strip(), nouns, depth + 1)
            subset = _subset(condition)
            if subset is not None and subset.name == builder[1]:
                return Reals(Subset(subset.region), text)
            if isinstance(condition, Assigned) and condition.name == builder[1]:
                return condition.value
            return Value(text)
        if not inside:
            return Reals(Subset(reals.EMPTY), text)
    rows = matrix.rows(text) if r"\begin" in text else None
    if rows is not None:
        return Grid(rows, text)
    if text.startswith("{"):
        # braces without a backslash only group
        return _parse(inside, nouns, depth + 1)
    members = _members(inside, listed=True)
    if len(members) < 2:
        if kind not in ("()", "{}") or not members:
            return Value(text)
        # brackets around one value change nothing
        node = _parse(members[0], nouns, depth + 1)
        if isinstance(node, Value):
            return Several(kind, (node,), text)
        return Value(text) if isinstance(node, Reals) and not node.subset.region else node
    if len(members) == 2 and set(kind) <= set("()[]"):
        is_infinite = any(reals.is_infinite(member) for member in members)
        if kind in ("(]", "[)") or is_infinite:
            return Reals(Subset(reals.interval(opening, members[0], members[1], closing)), text)
    if kind not in ("()", "[]", "{}", "<>"):
        return Value(text)
    if len(members) > MAX_MEMBERS:
        return Several(kind, tuple(Value(member) for member in members), text)
    nodes = tuple(_parse(member, nouns, depth + 1) for member in members)
    return Several(kind, _with_dots(nodes), text)


def _members(text: str, *, listed: bool = False) -> list[str]:
    r"""Return the members of a list at the top level; a member with `\pm` becomes several."""
    parts, _ = scan.split(text, scan.LISTS, listed=listed)
    return [signed for part in parts if part for signed in _signed(part)]


def _are_alternatives(node: Node) -> bool:
    """Return True for values that only "or" connects: several spellings of one, or a hedge."""
    if not isinstance(node, Several) or node.kind:
        return False
    parts, separators = scan.split(node.text, scan.LISTS)
    is_other = False
    # in `1/2, or 0.5`, nothing stands between the comma and the word
    for part, separator in zip(parts[1:], separators, strict=True):
        is_other |= separator.kind == "or"
        if part and not is_other:
            return False
        is_other &= not part
    return bool(separators)


def _signed(text: str) -> list[str]:
    """Write an expression once for every combination of its signs."""
    signs = [match[1] for match in _PLUS_MINUS.finditer(text)]
    if signs == ["mp"]:
        # alone, it says no more than the other sign
        text = text.replace(r"\mp", r"\pm")
        signs = ["pm"]
    num_signs = signs.count("pm")
    if not signs or num_signs == 0 or num_signs > MAX_SIGNS or ("mp" in signs and num_signs > 1):
        return [text]
    return [_with_signs(text, chosen) for chosen in product("+-", repeat=num_signs)]


def _with_signs(text: str, chosen: Sequence[str]) -> str:
    plus_minus = iter(chosen)
    opposite = "-" if chosen[0] == "+" else "+"
    signed = _PLUS_MINUS.sub(lambda match: next(plus_minus) if match[1] == "pm" else opposite, text)
    # a plus sign at the start of an expression means nothing
    return re.sub(r"(^|[=(,{])\s*\+", r"\1", signed).strip()


def _list(
    members: list[str],
    separators: tuple[scan.Separator, ...],
    text: str,
    nouns: Nouns,
    depth: int,
) -> Node:
    if len(members) > MAX_MEMBERS:
        return Several("", tuple(Value(member) for member in members), text)
    unequal = _UNEQUAL.match(members[0])
    if unequal is not None:
        # `x \ne 0, 1` excludes both
        members = [
            member if scan.separators(member) else f"{unequal[1]} {member}" for member in members
        ]
    labelled = _labelled(members)
    if labelled is not None:
        labels, values = labelled
        parsed = tuple(_parse(value, nouns, depth + 1) for value in values)
        return Named(labels, parsed, text)
    nodes = [_parse(member, nouns, depth + 1) for member in members]
    if len(nodes) > 1:
        # a condition `k \in \mathbb{Z}` beside the answer
        answers = [node for node in nodes if not _is_condition(node)]
        nodes = answers or nodes
    if len(nodes) == 1:
        return nodes[0]
    if any(separator.token in (r"\land", r"\lor") for separator in separators) and all(
        isinstance(node, Value) and not re.search(r"\d", node.text) for node in nodes
    ):
        # a formula of logic, whose sign matters
        return Value(text)
    named = _names(nodes, text)
    if named is not None:
        return named
    subset = _joined_subset(nodes, separators)
    if subset is not None:
        return Reals(subset, text)
    return Several("", _with_dots(tuple(nodes)), text)


def _without_lead(text: str) -> str:
    """Remove words before a value, unless they are the first of several labels."""
    value = words.without_lead(text)
    return value if value is text or _labelled(_members(text)) is None else text


def _labelled(members: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    r"""Read `\text{(i) } 3, \text{(ii) } 4` as labels and values; None unless all have a label."""
    if len(members) < 2 or not members[0].startswith(("\\text", "(")):
        return None
    matches = [match for member in members if (match := _LABELLED.fullmatch(member)) is not None]
    labels = tuple((match["one"] or match["two"] or match["name"]).strip() for match in matches)
    if len(matches) < len(members) or len(set(labels)) < len(labels):
        return None
    if any(match["name"] is None for match in matches) and not any(
        set(labels) == set(known[: len(labels)]) for known in _PART_LABELS
    ):
        return None
    return labels, tuple(match["value"].strip() for match in matches)


def _unit_vectors(text: str, size: int) -> tuple[Node, ...] | None:
    r"""Read `2\mathbf{i} - \mathbf{j}` as the coordinates of a vector; None for anything else."""
    coordinates = dict.fromkeys("ijk"[:size], "0")
    position = 0
    names = []
    while position < len(text):
        term = _UNIT_VECTORS.match(text, position)
        if term is None or term[3] not in coordinates:
            return None
        names.append(term[3])
        factor = term[2].strip() or "1"
        coordinates[term[3]] = f"-({factor})" if term[1] == "-" else factor
        position = term.end()
    if len(set(names)) < len(names) or not {"j", "k"} & set(names):
        return None
    return tuple(Value(coordinate) for coordinate in coordinates.values())


def _names(nodes: list[Node], text: str) -> Node | None:
    """Read `x = 1, y = 2` as names with values, and `x = 1, 2` as one name with several values."""
    if not isinstance(nodes[0], Assigned):
        return None
    names: list[str] = []
    values: list[Node] = []
    for node in nodes:
        if isinstance(node, Assigned):
            names.append(normalise.squeezed(node.name))
            values.append(node.value)
        elif isinstance(node, Value | Several | Grid):
            names.append(names[-1])
            values.append(node)
        else:
            return None
    if len(set(names)) == 1:
        return Assigned(names[0], Several("", tuple(values), text), text)
    if len(set(names)) == len(names):
        return Named(tuple(names), tuple(values), text)
    return None


def _joined_subset(nodes: list[Node], separators: tuple[scan.Separator, ...]) -> Subset | None:
    """Read inequalities and intervals that are joined by words or commas as one set."""
    if not any(isinstance(node, Reals) for node in nodes):
        return None
    subsets = [_subset(node) for node in nodes]
    known = [subset for subset in subsets if subset is not None]
    names = {subset.name for subset in known} - {None}
    if len(known) < len(nodes) or len(names) > 1:
        return None
    regions = [subset.region for subset in known]
    name = next(iter(names), None)
    kinds = {separator.kind for separator in separators if separator.kind in scan.LISTS}
    if "or" in kinds or not names:
        return Subset(reals.union(regions), name)
    common = regions[0]
    for region in regions[1:]:
        both = reals.intersection(common, region)
        if both is None:
            return None
        common = both
    # `x < 1, x > 3` means either, and `x < 1 and x > 3` is often written for it
    return Subset(common or reals.union(regions), name)


def _equation(text: str, nouns: Nouns, depth: int) -> Node:
    parts, _ = scan.split(text, frozenset(["equals"]))
    sides = [part for part in parts if part]
    if not sides or not parts[-1]:
        # `x =` states nothing
        return Several("", (), text)
    if len(sides) == 1:
        return _parse(sides[0], nouns, depth + 1)
    if len(sides) == 2 and _is_name(sides[1]) and not _is_name(sides[0]):
        sides.reverse()
    if len(sides) == 2 and _is_name(sides[0]):
        return Assigned(sides[0], _parse(sides[1], nouns, depth + 1), text)
    if all(_is_name(side) for side in sides[:-1]):
        # `a = b = 2` gives the same value to both names
        return Assigned(sides[0], _parse(sides[-1], nouns, depth + 1), text)
    return Chain(tuple(sides), text)


def _membership(text: str, nouns: Nouns, depth: int) -> Node:
    parts, _ = scan.split(text, frozenset(["in"]))
    if len(parts) != 2 or not all(parts) or not _is_name(parts[0]):
        return Value(text)
    name, inside = parts
    node = _parse(inside, nouns, depth + 1)
    if isinstance(node, Several) and node.kind in ("()", "[]") and len(node.members) == 2:
        low, high = (member.text for member in node.members)
        subset = Subset(reals.interval(node.kind[0], low, high, node.kind[1]), name)
        return Reals(subset, text)
    if isinstance(node, Reals):
        return Reals(Subset(node.subset.region, name), text)
    return Assigned(name, node, text)


def _combined(text: str, nouns: Nouns, depth: int) -> Node:
    r"""Evaluate unions, intersections and differences of sets of reals, from the left."""
    parts, operators = scan.split(text, frozenset(["cup", "cap", "minus"]))
    if len(parts) > MAX_MEMBERS:
        return Value(text)
    nodes = [_parse(part, nouns, depth + 1) for part in parts if part]
    subsets = [_subset(node) for node in nodes]
    regions = [subset.region for subset in subsets if subset is not None]
    if len(regions) < len(parts) or (
        {operator.kind for operator in operators} == {"cup"}
        and not any(isinstance(node, Reals) for node in nodes)
        and all(isinstance(node, Value) for node in nodes)
    ):
        is_union = {operator.kind for operator in operators} == {"cup"}
        return Several("cup", tuple(nodes), text) if is_union and nodes else Value(text)
    region: reals.Region | None = regions[0]
    for operator, other in zip(operators, regions[1:], strict=True):
        assert region is not None, "a None is returned below"
        if operator.kind == "cup":
            region = reals.union([region, other])
            continue
        rest = reals.complement(other) if operator.kind == "minus" else other
        region = None if rest is None else reals.intersection(region, rest)
        if region is None:
            return Value(text)
    assert region is not None, "there is at least one part"
    return Reals(Subset(region), text)


def _with_dots(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Write out an arithmetic progression of numbers with dots (`1, 2, ..., 10`)."""
    dots = [index for index, node in enumerate(nodes) if node.text == "..."]
    if len(dots) != 1 or not 2 <= dots[0] == len(nodes) - 2:
        return nodes
    values = [approximate.value(node.text) for node in (*nodes[: dots[0]], nodes[-1])]
    numbers = [value for value in values if isinstance(value, Fraction)]
    if len(numbers) < len(values):
        return nodes
    step = numbers[1] - numbers[0]
    steps = [after - before for before, after in pairwise(numbers[:-1])]
    if step == 0 or any(other != step for other in steps):
        return nodes
    num_terms = (numbers[-1] - numbers[0]) / step + 1
    if num_terms.denominator != 1 or not len(numbers) <= num_terms <= MAX_TERMS:
        return nodes
    return tuple(Value(str(numbers[0] + step * index)) for index in range(int(num_terms)))


def _subset(node: Node) -> Subset | None:
    """Read a node as a set of reals, also if it may be something else (`(1, 2)`, `\\{1, 2\\}`)."""
    if isinstance(node, Reals):
        return node.subset
    if isinstance(node, Assigned) and isinstance(node.value, Value | Several):
        inner = _subset(node.value)
        return None if inner is None else Subset(inner.region, node.name)
    if not isinstance(node, Several) or not all(isinstance(one, Value) for one in node.members):
        return None
    texts = [member.text for member in node.members]
    if node.kind in ("()", "[]") and len(texts) == 2:
        return Subset(reals.interval(node.kind[0], texts[0], texts[1], node.kind[1]))
    return Subset(reals.points(texts)) if node.kind == "{}" else None


def _rows(node: Node) -> matrix.Rows | None:
    """Read a node as a matrix; vectors in brackets are columns."""
    if isinstance(node, Grid):
        return node.rows
    column = _COLUMN.fullmatch(node.text) if isinstance(node, Value) else None
    if column is not None:
        return ((column[1],), (column[2],))
    if not isinstance(node, Several):
        return None
    if node.kind in ("<>", "()") and all(isinstance(member, Value) for member in node.members):
        return tuple((member.text,) for member in node.members)
    rows = [member for member in node.members if isinstance(member, Several)]
    if node.kind == "[]" and len(rows) == len(node.members) and all(r.kind == "[]" for r in rows):
        return tuple(tuple(member.text for member in row.members) for row in rows)
    return None


def _as_vectors(gold: Node, answer: Node) -> tuple[Sequence[Node], Sequence[Node]] | None:
    """Return the coordinates of both sides if one is a sum of unit vectors, else None."""
    is_gold = isinstance(gold, Value)
    written, other = (gold, answer) if is_gold else (answer, gold)
    rows = _rows(other)
    if rows is None or not re.search(r"[jk]", written.text):
        return None
    cells = rows[0] if len(rows) == 1 else tuple(row[0] for row in rows)
    if len(cells) not in (2, 3) or min(len(rows), len(rows[0])) != 1:
        return None
    coordinates = _unit_vectors(written.text, len(cells))
    if coordinates is None:
        return None
    others = tuple(Value(cell) for cell in cells)
    return (coordinates, others) if is_gold else (others, coordinates)


def _tuple_members(node: Node) -> tuple[Node, ...]:
    if isinstance(node, Several) and node.kind in ("", "()", "<>"):
        return node.members
    return ()


def _named(node: Node) -> Named | None:
    """Read `(x, y) = (3, 4)` as named values too; None for anything else."""
    if isinstance(node, Named):
        return node
    if not isinstance(node, Assigned) or not isinstance(node.value, Several):
        return None
    surrounded = scan.brackets(node.name)
    names = _members(surrounded[1]) if surrounded is not None and surrounded[0] == "(" else []
    are_distinct = len(set(map(normalise.squeezed, names))) == len(names) > 1
    if not are_distinct or len(names) != len(node.value.members) or node.value.kind != "()":
        return None
    return Named(tuple(names), node.value.members, node.text)


def _value_of(node: Node, nouns: Nouns, *, strict: bool) -> Node | None:
    """The value that an equation states; None if it states more than the value of something.

    `strict` is for gold answers: of the line `x + y = 1`, the right side is not the answer.
    """
    if isinstance(node, Assigned):
        return node.value
    if not isinstance(node, Chain):
        return node
    left = node.sides[0]
    if approximate.value(left) is not None and approximate.value(node.sides[-1]) is None:
        # `7 = 11a + c` is an equation
        return None
    if strict and len(node.sides) == 2 and approximate.value(left) is None:
        is_value = _SUM_OF_NAMES.fullmatch(left) and not re.search(r"[xyzt]", left)
        if not is_value:
            return None
    return parse(node.sides[-1], nouns) if strict or _is_consistent(node.sides) else None


def _is_consistent(sides: Sequence[str]) -> bool:
    """Return True if a chain does not state that different numbers are equal.

    The first member must have the value of the last one. Members between them do not count, because
    a calculation that went on (`5+5+1 = 7 = 11`) has slips, nor do those whose value is not known.
    """
    last = approximate.value(sides[-1])
    if last is None:
        return True
    values = (approximate.value(side) for side in sides[:-1])
    first = next((value for value in values if value is not None), None)
    return first is None or _close(first, last, 1e-9)


def _agree(members: Sequence[Node]) -> bool:
    """Return True if the values of a chain of approximations agree to the digits that they show."""
    values = [(_number(member), member.text) for member in members]
    known = [(value, text) for value, text in values if value is not None]
    return all(
        abs(float(one) - float(other)) <= max(_last_place(text), _last_place(second)) * 0.5000001
        or _close(one, other, 1e-9)
        for index, (one, text) in enumerate(known)
        for other, second in known[index + 1 :]
    )


def _exact_or_last(members: Sequence[Node]) -> list[Node]:
    """The members that a chain of approximations gives as its answer.

    The last one, if all members agree to the digits that they show; and an earlier one that no
    decimal equals, such as a root, if the last member is near enough to be its rounding only. Plain
    numbers are replaced by their rounding.
    """
    chosen = [members[-1]] if _agree(members) else []
    last = _number(members[-1])
    if last is None:
        return chosen
    for member in members[:-1]:
        value = _number(member)
        is_plain = isinstance(value, Fraction) and (
            10_000 % value.denominator == 0 or _last_place(member.text) > 0
        )
        if value is not None and not is_plain and _close(value, last, MAX_ROUNDING):
            chosen.append(member)
    return chosen


def _number(node: Node) -> approximate.Real | None:
    value = node.value if isinstance(node, Assigned) else node
    text = value.sides[-1] if isinstance(value, Chain) else value.text
    measured = _MEASURED.fullmatch(text)
    return approximate.value(text if measured is None else measured[1])


def _last_place(text: str) -> float:
    """The unit of the last digit that a decimal shows; 0 for an expression, which is exact."""
    measured = _MEASURED.fullmatch(text)
    digits = text if measured is None else measured[1]
    match = re.fullmatch(r"-?\d*(?:\.(\d+))?", digits.replace(",", ""))
    return 0.0 if match is None else 10.0 ** -len(match[1] or "")


def _close(one: approximate.Real, other: approximate.Real, share: float) -> bool:
    return one == other or abs(float(one) - float(other)) <= share * abs(float(other))


def _is_relation(node: Node) -> bool:
    return any(separator.kind == "relation" for separator in scan.separators(node.text))


def _is_condition(node: Node) -> bool:
    return (
        isinstance(node, Assigned)
        and isinstance(node.value, Value)
        and _NUMBERS.fullmatch(node.value.text) is not None
    )


def _sides(node: Chain | Assigned) -> tuple[str, ...]:
    if isinstance(node, Chain):
        return node.sides
    parts, _ = scan.split(node.text, frozenset(["equals", "in"]))
    return tuple(part for part in parts if part)


def _same_name(one: str, other: str) -> bool:
    r"""Compare names; `f(x)` is also called `f` or `y`."""
    names = {normalise.squeezed(one), normalise.squeezed(other)}
    if len(names) == 1:
        return True
    stems = {re.sub(r"^([a-zA-Z])\([a-z]\)$", r"\1()", name) for name in names}
    functions = {name for name in stems if name.endswith("()")}
    return len(functions) == 1 and stems - functions <= {"y", next(iter(functions))[:-2]}


def _renamed(gold_name: str, answer: Assigned) -> str | None:
    """The value of `f(t) = t^2` in the variable of `f(x)`; None if the names differ otherwise."""
    gold = _FUNCTION.fullmatch(gold_name)
    other = _FUNCTION.fullmatch(answer.name)
    if gold is None or other is None or gold[1] != other[1] or gold[2] == other[2]:
        return None
    text = answer.value.text
    if re.search(rf"(?<![\\a-zA-Z]){gold[2]}(?![a-zA-Z])", text):
        return None
    return re.sub(rf"(?<![\\a-zA-Z]){other[2]}(?![a-zA-Z])", gold[2], text)


@lru_cache(maxsize=2_048)
def _is_name(text: str) -> bool:
    r"""Return True for `x`, `f(x)`, `V_{1}:V_{2}`, `(p,q)`, `\frac{NO}{BO}`.

    Names have letters, no sums or comparisons, and digits only in subscripts.
    """
    if text.startswith("\\text{"):
        return True
    return (
        bool(_NAME.fullmatch(re.sub(r"_\{?\w+\}?", "", text).strip()))
        and "^" not in text
        and approximate.value(text) is None
    )
