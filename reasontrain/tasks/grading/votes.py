"""Groups of equal answers to one problem, for majority votes and for counts of wrong answers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import combinations, product
from typing import NamedTuple

from reasontrain.tasks.grading import structure, words
from reasontrain.tasks.grading.limits import MAX_EXACT_LENGTH
from reasontrain.tasks.grading.normalise import normalise
from reasontrain.tasks.grading.structure import CanonicalForm

Same = Callable[[str, str], bool]


class Vote(NamedTuple):
    """An extracted answer and its verdict.

    Attributes:
        answer: the extracted answer; "" if there is none.
        correct: it equals the gold answer.
        comparable: algebra can handle it; if not, only its spelling is compared.
    """

    answer: str
    correct: bool
    comparable: bool = True


def group_votes(votes: Sequence[Vote], same: Same, problem: str = "") -> list[int | None]:
    """Number the answers to one problem so that equal answers have equal numbers.

    Right answers are one group. Wrong ones fall into classes by their canonical form: value, kind
    and unit. A bare number joins the class of a number with a unit if it equals one such class
    only, and what has no canonical value joins what the verifier finds equal. The groups do not
    depend on the order of the answers.

    Args:
        votes: the answers.
        same: the verifier's comparison of two answers.
        problem: the text of the problem, whose nouns may follow a number.

    Returns:
        The number of each answer's group, by first occurrence from 0; None without an answer.
    """
    spellings = {vote.answer for vote in votes if vote.answer and not vote.correct}
    nouns = words.nouns_in(problem, *sorted(spellings))
    keys = {answer: _key(answer, nouns) for answer in spellings}
    examples: dict[CanonicalForm, str] = {}
    for answer in sorted(spellings):
        examples.setdefault(keys[answer], answer)
    comparable = {keys[vote.answer] for vote in votes if vote.answer in keys and vote.comparable}
    group_of = _joined(examples, comparable, same)
    number_of: dict[Hashable, int] = {}
    numbers: list[int | None] = []
    for vote in votes:
        if not vote.answer:
            numbers.append(None)
            continue
        group = True if vote.correct else group_of[keys[vote.answer]]
        numbers.append(number_of.setdefault(group, len(number_of)))
    return numbers


def _key(answer: str, nouns: frozenset[str]) -> CanonicalForm:
    if len(answer) > MAX_EXACT_LENGTH:
        return CanonicalForm(answer, "long")
    return structure.key(normalise(answer), nouns)


def _joined(
    examples: dict[CanonicalForm, str], comparable: set[CanonicalForm], same: Same
) -> dict[CanonicalForm, CanonicalForm]:
    """Map each class to the first class of those that belong together."""
    first = {key: key for key in examples}

    def root(key: CanonicalForm) -> CanonicalForm:
        while first[key] != key:
            key = first[key]
        return key

    def join(one: CanonicalForm, other: CanonicalForm) -> None:
        first[root(other)] = root(one)

    def equal(one: CanonicalForm, other: CanonicalForm) -> bool:
        return same(examples[one], examples[other])

    open_keys = [key for key in examples if not key.is_value and key in comparable]
    bare = [key for key in examples if key.is_bare]
    with_unit = [key for key in examples if key.is_value and not key.is_bare]
    for one, other in combinations(open_keys, 2):
        if root(one) != root(other) and equal(one, other):
            join(one, other)
    for number, quantity in _only_partners(
        (number, quantity)
        for number, quantity in product(bare, with_unit)
        if equal(number, quantity)
    ):
        join(number, quantity)
    groups: dict[CanonicalForm, set[CanonicalForm]] = {}
    for key in open_keys:
        values = {value for value in (*bare, *with_unit) if equal(key, value)}
        groups.setdefault(root(key), set()).update(values)
    for key, values in groups.items():
        preferred = {value for value in values if value.is_bare} or values
        if len({root(value) for value in preferred}) == 1:
            join(next(iter(preferred)), key)
    return {key: root(key) for key in examples}


def _only_partners(
    pairs: Iterable[tuple[CanonicalForm, CanonicalForm]],
) -> list[tuple[CanonicalForm, CanonicalForm]]:
    """The pairs of which neither member is in another pair."""
    pairs = list(pairs)
    lefts = [left for left, _ in pairs]
    rights = [right for _, right in pairs]
    return [pair for pair in pairs if lefts.count(pair[0]) == rights.count(pair[1]) == 1]
