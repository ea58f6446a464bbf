r"""Single values: units, magnitudes, what is counted, and numbers in notations of their own."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import text

from reasontrain.tasks.grading import leaf, lexicon, nouns, units
from reasontrain.tasks.grading.exact import compare
from reasontrain.tasks.grading.extract import extract
from reasontrain.tasks.grading.normalise import normalise

EQUAL = "equal_values.txt"
"""Gold answers and right answers, one pair a line, by kind."""
DIFFERENT = "different_values.txt"
"""Gold answers and near misses."""

ALGEBRA = [
    (r"12\sqrt{3} \text{ cm}", r"2\sqrt{108}", (r"12\sqrt{3}", r"2\sqrt{108}")),
    (
        r"2\sqrt{3} \text{ m}",
        r"200\sqrt{3} \text{ cm}",
        (r"2\sqrt{3}", r"(200\sqrt{3}) \cdot \frac{1}{100}"),
    ),
    (
        r"30^\circ",
        r"\frac{\pi}{6} \text{ radians}",
        (r"(30) \cdot \frac{\pi}{180}", r"\frac{\pi}{6}"),
    ),
    (r"\$2\sqrt{3}", r"2\sqrt{3} \text{ dollars}", None),
    ("5m", "m+4m", ("5m", "m+4m")),
    (r"\frac{37}{4} m", r"\frac{37}{4}", (r"\frac{37}{4} m", r"\frac{37}{4}")),
    (r"\cos 60^\circ", "0.5", (r"\cos 60^\circ", "0.5")),
]
"""Gold answers, answers, and the expressions that algebra compares; None if it need not."""


def pairs(name: str) -> dict[str, list[tuple[str, str]]]:
    """The pairs of a file by their kind."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for line in Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            kinds[line[2:]] = []
        elif line:
            gold, answer = line.split(" | ")
            kinds[list(kinds)[-1]].append((gold, answer))
    return kinds


def every_pair(*names: str) -> list[tuple[str, str]]:
    return [pair for name in names for kind in pairs(name).values() for pair in kind]


def same(gold: str, answer: str) -> bool:
    """The comparison of the whole verifier, as far as it needs no algebra."""
    return compare(normalise(gold), normalise(answer), {}).equal


@pytest.mark.parametrize("kind", pairs(EQUAL))
def test_right_answers(kind: str) -> None:
    assert [pair for pair in pairs(EQUAL)[kind] if not same(*pair)] == []


@pytest.mark.parametrize("kind", pairs(DIFFERENT))
def test_near_misses(kind: str) -> None:
    assert [pair for pair in pairs(DIFFERENT)[kind] if same(*pair)] == []


def test_units_and_nouns_are_the_same_for_all_numbers() -> None:
    """What holds for one number holds for others, and the wrong number is wrong."""
    for name, expected in ((EQUAL, True), (DIFFERENT, False)):
        for gold, answer in pairs(name)["units"]:
            digits = re.findall(r"\d+", gold + answer)
            if set(digits) in ({"5"}, {"12"}):
                other = [text.replace(digits[0], "341") for text in (gold, answer)]
                assert same(*other) == expected
                assert not same(other[0], answer)


def test_a_rule_is_stated_in_words() -> None:
    assert leaf.equal("3 m", "3 cm").rule == "quantities: m against cm"
    assert leaf.equal("3", "3.0").rule == "numbers"
    assert leaf.equal("4:30 p.m.", "4:30 a.m.").rule == "times of day"
    assert leaf.equal("12", r"12 \text{ is wrong}").rule.startswith("words behind a number")
    assert not [pair for pair in every_pair(EQUAL, DIFFERENT) if not leaf.equal(*pair).rule]


@pytest.mark.parametrize(("gold", "answer", "pair"), ALGEBRA)
def test_algebra_sees_expressions_without_units(
    gold: str, answer: str, pair: tuple[str, str] | None
) -> None:
    decision = leaf.equal(gold, answer)
    if pair is None:
        assert decision.equal
    else:
        assert decision.equal is None
        assert decision.pair == pair


def test_equal_keys_are_those_of_equal_values() -> None:
    assert [pair for pair in every_pair(DIFFERENT) if same_key(*pair)] == []
    for gold, answer in [
        ("2.5 h", "150 min"),
        ("1/2", "0.50"),
        (r"3 \text{ million}", "3,000,000"),
        ("5 feet 10 inches", "70 inches"),
        ("50 cents", r"\$0.50"),
        ("3 apples", "three apples"),
        ("4:30 p.m.", "16:30"),
        ("May 12", "12th of May"),
        ("1101_2", r"1101_{2}"),
    ]:
        assert same_key(gold, answer)
    assert leaf.key("3") == leaf.Key(3, "number")
    assert not same_key("3", "3 apples")
    assert leaf.key("x + 1") == leaf.key("x+1")


def same_key(gold: str, answer: str) -> bool:
    return leaf.key(normalise(gold)) == leaf.key(normalise(answer))


def test_one_value_in_spite_of_its_commas() -> None:
    for single in (
        "1,000",
        "12,500 m",
        "May 12, 2020",
        "3 hours, 20 minutes",
        "5 feet and 2 inches",
    ):
        assert leaf.is_single(single), single
    for several in ("1, 2", "2 red, 3 blue", "12 and 13", "(1, 2)", "x", "12, 13 cm", "5 or 6"):
        assert not leaf.is_single(several), several


@pytest.mark.parametrize(
    ("sentence", "answer"),
    [
        ("The answer is 17, remainder of 3.", "17, remainder of 3"),
        ("The answer is 12, remainder 5.", "12, remainder 5"),
        ("**Answer:** 12 with a remainder of 5", "12 with a remainder of 5"),
        ("The answer is 8:15 in the morning.", "8:15 in the morning"),
        ("The answer is 3 is wrong.", "3 is wrong"),
        ("The answer is 12 (but maybe 13).", "12 (but maybe 13)"),
        ("The answer is 18 dollars for each child.", "18 dollars"),
    ],
)
def test_a_sentence_keeps_what_belongs_to_a_value(sentence: str, answer: str) -> None:
    assert extract(sentence) == answer


def test_words_of_the_problem_are_what_is_counted() -> None:
    assert not leaf.equal("12", "12 gloops").equal
    assert leaf.equal("12", "12 gloops", frozenset(["gloops"])).equal
    assert leaf.equal("12", "12 gloops", frozenset(["gloop"])).equal
    # the words that change a value stay what they are
    for change in (
        "12 times 4",
        "12 or more",
        "12 north",
        "12 million",
        "12 is wrong",
        "12 halves",
    ):
        assert not leaf.equal("12", change, frozenset(change.split())).equal, change
    # and a letter is a unit if the problem has it
    assert leaf.equal("5", "5m").equal is None
    assert leaf.equal("5", "5m", frozenset(["meters"])).equal


def test_tables_do_not_contradict_each_other() -> None:
    assert sorted(word for word in nouns.NOUNS if nouns.singular(word) != word) == []
    assert sorted(nouns.NOUNS & (lexicon.NUMBERS.keys() | lexicon.MAGNITUDES.keys())) == []
    assert sorted(nouns.NOUNS & lexicon.DIRECTIONS) == []
    assert units.find("kilometers") == units.find("km") == units.find("kilomètres")
    assert units.find("square") is None


@given(text(alphabet="12 .,:/^_-+{}()\\$%°'\"acdehimnorst个万", max_size=60))
def test_never_raises_and_equals_itself(anything: str) -> None:
    assert leaf.equal(anything, anything).equal or not anything.strip()
    leaf.equal("5 cm", anything)
    leaf.equal(anything, "3:4")
    leaf.is_single(anything)
    leaf.key(anything)


@pytest.mark.parametrize(
    "part",
    [
        "1",
        ",",
        "5cm",
        "个万",
        "1/",
        "1:",
        "feet5",
        r"\text{",
        "((",
        "{{",
        "''",
        "1_2",
        "mod",
        "one-",
        "a.m.",
        "$",
        "^2",
        "R5",
        "9",
    ],
)
def test_long_texts_take_no_longer_than_their_length(part: str) -> None:
    for separator in ("", " "):
        start = time.process_time()
        for size in (380, 4_000):
            leaf.equal("5", "5" + separator.join([part] * (size // len(part + separator))))
        # 5 ms each on an idle core
        assert time.process_time() - start < 0.05
