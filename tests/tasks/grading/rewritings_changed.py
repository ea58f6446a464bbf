r"""Rewritings that change the value of a gold answer: near misses, each of them wrong."""

from __future__ import annotations

import re

from tests.tasks.grading.oracle import same_value, value
from tests.tasks.grading.rewritings import (
    BASE,
    COMPLEX,
    DECIMAL,
    DEGREES,
    DOLLARS,
    FIRST_TERM,
    FRACTION,
    INTEGER,
    LETTER,
    MIXED,
    PERCENT,
    RATIO,
    WORD,
    Response,
    Result,
    all_differ,
    bumped,
    changes,
    differs,
    entries,
    interval,
    is_infinite,
    is_plain,
    listed,
    matrix,
    measured,
    number,
    point,
    union,
    whole,
)

_OTHER_UNIT = {"cm": "m", "m": "kg", "feet": "inches", "inches": "feet", "hours": "minutes",
               "minutes": "hours", "dollars": "cents", "cents": "dollars", "degrees": "radians",
               "miles": "km", "seconds": "hours", "square units": "cubic units"}  # fmt: skip


# --- Digits, signs and magnitudes ---


@changes(3500)
def last_digit(gold: str) -> Result:
    if re.search(r"[_^]\{?\d+\}?$", gold) or "=" in gold:
        return None
    answer = bumped(gold)
    return answer and differs(gold, answer)


@changes(1500)
def first_digit(gold: str) -> Result:
    if number(gold) is None:
        return None
    answer = re.sub(r"[1-9]", lambda match: str(int(match[0]) % 9 + 1), gold, count=1)
    return None if answer == gold else differs(gold, answer)


@changes(2500)
def other_sign(gold: str) -> Result:
    result = value(gold) if is_plain(gold) and "\\pm" not in gold else None
    return f"-({gold})" if result else None


@changes(1200)
def minus_before(gold: str) -> Result:
    result = number(gold)
    return f"-{gold}" if result is not None and result > 0 else None


@changes(1000)
def a_zero_more(gold: str) -> Result:
    return f"{gold}0" if INTEGER.fullmatch(gold) and gold != "0" else None


@changes(800)
def a_digit_less(gold: str) -> Result:
    return gold[:-1] if re.fullmatch(r"-?\d{2,}", gold) else None


@changes(200)
def point_moved(gold: str) -> Result:
    match = DECIMAL.fullmatch(gold)
    return match and number(gold) and f"{match[1]}{match[2]}{match[3][0]}.{match[3][1:]}0"


@changes(1000)
def a_hundredth_more(gold: str) -> Result:
    return f"{gold}.01" if INTEGER.fullmatch(gold) else None


@changes(150)
def times_a_hundred(gold: str) -> Result:
    result = number(gold) if DECIMAL.fullmatch(gold) else None
    scaled = None if result is None else result * 100
    return str(scaled) if scaled and scaled.denominator == 1 else None


def _magnitude(gold: str, word: str) -> Result:
    return gold + word if number(gold) else None


@changes(1500)
def millions(gold: str) -> Result:
    return _magnitude(gold, r" \text{ million}")


@changes(1500)
def thousands(gold: str) -> Result:
    return _magnitude(gold, " thousand")


@changes(1500)
def dozens(gold: str) -> Result:
    return _magnitude(gold, r"\text{ dozen}")


@changes(1500)
def ten_thousands_in_chinese(gold: str) -> Result:
    return _magnitude(gold, "万")


@changes(1500)
def hundreds_in_a_sentence(gold: str) -> Result:
    return (
        Response(f"The answer is {gold} hundred.")
        if INTEGER.fullmatch(gold) and gold != "0"
        else None
    )


@changes(1500)
def thousands_of_dollars(gold: str) -> Result:
    return rf"\${gold}\text{{k}}" if number(gold) else None


@changes(200)
def grouping_as_a_list(gold: str) -> Result:
    return ",".join(gold) if re.fullmatch(r"\d{3}", gold) and len(set(gold)) > 1 else None


# --- Words behind a number ---


def _followed(gold: str, words: str) -> Result:
    return rf"{gold} \text{{ {words}}}" if number(gold) else None


@changes(1500)
def or_more(gold: str) -> Result:
    return _followed(gold, "or more")


@changes(1500)
def is_wrong(gold: str) -> Result:
    return _followed(gold, "is wrong")


@changes(1500)
def halves(gold: str) -> Result:
    return _followed(gold, "halves")


@changes(1500)
def times_four(gold: str) -> Result:
    return Response(f"The answer is {gold} times 4.") if number(gold) else None


@changes(1500)
def squared(gold: str) -> Result:
    return _followed(gold, "squared") if number(gold) not in (None, 0, 1) else None


@changes(1500)
def root_three(gold: str) -> Result:
    return f"{gold} root 3" if number(gold) else None


@changes(1500)
def more_than_a_number(gold: str) -> Result:
    return _followed(gold, "more than 7")


@changes(1500)
def a_factorial(gold: str) -> Result:
    size = whole(gold)
    return f"{gold}!" if size and size > 2 else None


@changes(1500)
def negated_in_words(gold: str) -> Result:
    return rf"\text{{not }} {gold}" if number(gold) is not None else None


# --- Several guesses ---


def _other(gold: str) -> str | None:
    """A near value, for a second guess."""
    size = whole(gold)
    if size is not None:
        return str(size + 1)
    answer = bumped(gold) if is_plain(gold) else None
    return (answer and value(answer) is not None and differs(gold, answer)) or None


@changes(2500)
def or_another(gold: str) -> Result:
    other = _other(gold)
    return other and rf"{gold} \text{{ or }} {other}"


@changes(2500)
def another_or(gold: str) -> Result:
    other = _other(gold)
    return other and rf"{other} \text{{ or }} {gold}"


@changes(2500)
def or_maybe_another(gold: str) -> Result:
    other = _other(gold)
    return other and rf"{gold} \text{{ or maybe {other}}}"


@changes(2500)
def two_guesses_with_a_comma(gold: str) -> Result:
    other = _other(gold)
    return other and f"{gold}, {other}"


@changes(2500)
def a_chain_of_guesses(gold: str) -> Result:
    other = _other(gold)
    return other and rf"{other} \approx {gold} \approx {_other(other) or other}1"


@changes(2500)
def a_union_of_guesses(gold: str) -> Result:
    other = _other(gold)
    return other and rf"{gold} \cup {other}"


@changes(2500)
def two_boxes(gold: str) -> Result:
    other = _other(gold)
    return other and Response(rf"It is $\boxed{{{gold}}}$ or $\boxed{{{other}}}$.")


@changes(2500)
def a_range_around(gold: str) -> Result:
    other = _other(gold)
    return other and rf"\text{{between }} {gold} \text{{ and }} {other}"


@changes(2500)
def a_tuple_with_another(gold: str) -> Result:
    other = _other(gold)
    return other and f"({gold}, {other})"


@changes(2500)
def corrected_to_another(gold: str) -> Result:
    other = _other(gold)
    return other and Response(
        rf"First \boxed{{{gold}}}. No, that is wrong: it is \boxed{{{other}}}."
    )


@changes(1500)
def plus_minus(gold: str) -> Result:
    return rf"\pm {gold}" if (number(gold) or 0) > 0 else None


@changes(1500)
def greater_than(gold: str) -> Result:
    return f"x > {gold}" if number(gold) is not None else None


@changes(1500)
def unequal_to(gold: str) -> Result:
    return rf"x \neq {gold}" if number(gold) is not None else None


# --- Units and other kinds ---


@changes(40)
def another_unit(gold: str) -> Result:
    parts = measured(gold)
    other = parts and _OTHER_UNIT.get(parts[1].partition("^")[0])
    return (other and parts and rf"{parts[0]} \text{{ {other}}}") or None


@changes(5)
def another_power_of_the_unit(gold: str) -> Result:
    parts = measured(gold)
    return (
        parts
        and "^" in parts[1]
        and rf"{parts[0]} \text{{ {parts[1][:-2]}}}^{5 - int(parts[1][-1])}"
    ) or None


@changes(1000)
def kilograms_for_metres(gold: str) -> Result:
    size = whole(gold)
    return (rf"{size} \text{{ m}}", f"{size} kg") if size else None


@changes(1000)
def minutes_for_hours(gold: str) -> Result:
    size = whole(gold)
    return (rf"{size} \text{{ hours}}", rf"{size} \text{{ minutes}}") if size else None


@changes(1000)
def cubic_for_square(gold: str) -> Result:
    size = whole(gold)
    return (rf"{size} \text{{ cm}}^2", rf"{size} \text{{ cm}}^3") if size else None


@changes(1000)
def fahrenheit_for_celsius(gold: str) -> Result:
    size = whole(gold)
    if size is None or size == -40:  # the same in both
        return None
    return rf"{size}^\circ\text{{C}}", rf"{size}^\circ\text{{F}}"


@changes(1000)
def other_second_measure(gold: str) -> Result:
    size = whole(gold)
    return (
        (f"{size} feet 3 inches", rf"{size} \text{{ feet }} 4 \text{{ inches}}")
        if size and size > 0
        else None
    )


@changes(1000)
def second_measure_dropped(gold: str) -> Result:
    size = whole(gold)
    return (f"{size} hours 20 minutes", f"{size} hours") if size and size > 0 else None


@changes(1000)
def south_for_north(gold: str) -> Result:
    size = whole(gold)
    return (f"{size} miles north", rf"{size} \text{{ miles south}}") if size else None


@changes(1000)
def afternoon_for_morning(gold: str) -> Result:
    size = whole(gold)
    return (
        None
        if size is None
        else (rf"{size % 12 + 1} \text{{ a.m.}}", rf"{size % 12 + 1} \text{{ p.m.}}")
    )


@changes(1000)
def other_minute(gold: str) -> Result:
    size = whole(gold)
    return (
        None if size is None else (f"4:{size % 50 + 10}", f"4:{size % 50 + 9}".replace(":9", ":09"))
    )


@changes(1000)
def other_modulus(gold: str) -> Result:
    size = whole(gold)
    return (
        None
        if size is None
        else (rf"{size} \pmod{{{abs(size) + 3}}}", rf"{size} \pmod{{{abs(size) + 5}}}")
    )


@changes(1000)
def other_remainder(gold: str) -> Result:
    size = whole(gold)
    return None if size is None else (f"{size} R 3", rf"{size} \text{{ R }} 5")


@changes(1000)
def other_ordinal(gold: str) -> Result:
    size = whole(gold)
    return (f"{size}", rf"{size + 1}^{{\text{{th}}}}") if size and size > 3 else None


@changes(50)
def other_base(gold: str) -> Result:
    match = BASE.fullmatch(gold)
    long = match and len(match[1].lstrip("-")) > 1
    return f"{match[1]}_{int(match[2]) + 1}" if match and long else None


@changes(60)
def base_among_the_digits(gold: str) -> Result:
    match = BASE.fullmatch(gold)
    return match and match[1] + match[2]


@changes(60)
def other_digit_in_a_base(gold: str) -> Result:
    match = BASE.fullmatch(gold)
    if match is None:
        return None
    return f"{match[1][:-1]}{(int(match[1][-1]) + 1) % int(match[2])}_{match[2]}"


@changes(80)
def radians_for_degrees(gold: str) -> Result:
    match = DEGREES.fullmatch(gold)
    return rf"{match[1]} \text{{ radians}}" if match and value(match[1]) else None


@changes(35)
def other_percentage(gold: str) -> Result:
    match = PERCENT.fullmatch(gold)
    answer = match and bumped(match[1])
    return answer and rf"{answer}\%"


@changes(50)
def cents_for_dollars(gold: str) -> Result:
    match = DOLLARS.fullmatch(gold)
    return (match and value(match[1]) and rf"{match[1]} \text{{ cents}}") or None


@changes(50)
def euros_for_dollars(gold: str) -> Result:
    match = DOLLARS.fullmatch(gold)
    return (match and value(match[1]) and rf"{match[1]} \text{{ euros}}") or None


@changes(5)
def inverted_ratio(gold: str) -> Result:
    match = RATIO.fullmatch(gold)
    return (match and match[1] != match[2] and f"{match[2]}:{match[1]}") or None


@changes(20)
def another_word(gold: str) -> Result:
    match = WORD.fullmatch(gold)
    return (match and len(match[1]) > 2 and rf"\text{{un{match[1]}}}") or None


@changes(10)
def another_choice(gold: str) -> Result:
    match = LETTER.fullmatch(gold)
    letter = match and (match[1] or match[2] or match[3])
    return letter and rf"\text{{({'A' if letter != 'A' else 'B'})}}"


@changes(10)
def two_choices(gold: str) -> Result:
    match = LETTER.fullmatch(gold)
    letter = match and (match[1] or match[2] or match[3])
    return letter and rf"\text{{({letter})}}, \text{{({'A' if letter != 'A' else 'B'})}}"


# --- Expressions ---


@changes(500)
def fraction_inverted(gold: str) -> Result:
    match = FRACTION.fullmatch(gold)
    if match is None:
        return None
    top, bottom = (part for part in match.group(3, 4, 5, 6) if part)
    return differs(gold, rf"{match[1]}\frac{{{bottom}}}{{{top}}}") if top != "0" else None


@changes(500)
def denominator_dropped(gold: str) -> Result:
    match = FRACTION.fullmatch(gold)
    if match is None:
        return None
    top, _ = (part for part in match.group(3, 4, 5, 6) if part)
    return differs(gold, match[1] + top)


@changes(15)
def whole_part_dropped(gold: str) -> Result:
    match = MIXED.fullmatch(gold)
    return match and gold.removeprefix(match[1]).strip()


@changes(60)
def truncated_decimal(gold: str) -> Result:
    match = FRACTION.fullmatch(gold)
    result = number(gold)
    if match is None or result is None:
        return None
    answer = f"{float(result):.2f}"
    return None if number(answer) == result else answer


@changes(150)
def other_operator(gold: str) -> Result:
    match = FIRST_TERM.fullmatch(gold)
    if match is None or not is_plain(gold):
        return None
    return differs(gold, f"{match[1]} {'-' if match[2] == '+' else '+'} {match[3]}")


@changes(100)
def other_exponent(gold: str) -> Result:
    if not is_plain(gold):
        return None
    answer = re.sub(
        r"(?<=[a-hj-zA-Z2-9)])\^(?:(\d)|\{(\d+)\})",
        lambda match: f"^{{{int(match[1] or match[2]) + 1}}}",
        gold,
        count=1,
    )
    return None if answer == gold else differs(gold, answer)


@changes(200)
def root_dropped(gold: str) -> Result:
    if not is_plain(gold):
        return None
    answer = re.sub(r"\\sqrt\s*\{(\d+)\}", r"\\cdot \1", gold, count=1)
    answer = re.sub(r"(^|[-+{(])\s*\\cdot ", r"\1", answer)
    return None if answer == gold or value(answer) is None else differs(gold, answer)


@changes(300)
def other_radicand(gold: str) -> Result:
    if not is_plain(gold):
        return None
    answer = re.sub(
        r"\\sqrt\s*\{(\d+)\}", lambda match: rf"\sqrt{{{int(match[1]) + 1}}}", gold, count=1
    )
    return None if answer == gold else differs(gold, answer)


@changes(60)
def root_over_the_factor(gold: str) -> Result:
    match = re.fullmatch(r"(\d+)\s*\\sqrt\{(\d+)\}", gold)
    return match and differs(gold, rf"\sqrt{{{match[1]}{match[2]}}}")


@changes(100)
def pi_dropped(gold: str) -> Result:
    answer = re.sub(r"\s*\\pi$", "", gold)
    return answer if answer not in (gold, "") and is_plain(answer) else None


@changes(60)
def pi_rounded(gold: str) -> Result:
    match = re.fullmatch(r"(-?\d+)\s*\\pi", gold)
    return match and f"{int(match[1]) * 3.14:.2f}"


@changes(20)
def conjugate(gold: str) -> Result:
    match = COMPLEX.fullmatch(gold)
    return match and f"{match[1]} {'-' if match[2] == '+' else '+'} {match[3]}i"


@changes(20)
def imaginary_unit_dropped(gold: str) -> Result:
    match = COMPLEX.fullmatch(gold)
    return match and f"{match[1]} {match[2]} {match[3] or 1}"


@changes(30)
def another_constant_in_the_equation(gold: str) -> Result:
    return bumped(gold) if re.fullmatch(r"[a-z] ?= ?.*\d", gold) and "^" not in gold else None


@changes(3)
def relation_reversed(gold: str) -> Result:
    if not re.search(r"<|>|\\leq?(?![a-z])|\\geq?(?![a-z])", gold) or "text" in gold:
        return None
    swaps = {"<": ">", ">": "<", r"\le": r"\ge", r"\leq": r"\geq", r"\ge": r"\le", r"\geq": r"\leq"}
    return re.sub(r"<|>|\\[lg]eq?(?![a-z])", lambda match: swaps[match[0]], gold)


# --- Lists, tuples, intervals, matrices ---


def _is_palindrome(members: list[str]) -> bool:
    values = [value(member) for member in members]
    return all(
        one is None or other is None or same_value(one, other)
        for one, other in zip(values, reversed(values), strict=True)
    )


@changes(150)
def tuple_reversed(gold: str) -> Result:
    members = point(gold)
    return None if not members or _is_palindrome(members) else f"({', '.join(reversed(members))})"


@changes(150)
def tuple_without_its_last(gold: str) -> Result:
    members = point(gold)
    return f"({', '.join(members[:-1])})" if members else None


@changes(150)
def tuple_with_one_more(gold: str) -> Result:
    members = point(gold)
    return f"({', '.join(members)}, 1)" if members else None


@changes(150)
def another_coordinate(gold: str) -> Result:
    members = point(gold)
    answer = bumped(members[0]) if members else None
    return (
        f"({', '.join([answer, *members[1:]])})"
        if answer and members and differs(members[0], answer)
        else None
    )


@changes(60)
def two_points(gold: str) -> Result:
    members = point(gold)
    if not members or len(members) != 2 or _is_palindrome(members):
        return None
    return f"({members[0]}, {members[1]}), ({members[1]}, {members[0]})"


@changes(60)
def named_values_exchanged(gold: str) -> Result:
    members = point(gold)
    if not members or len(members) != 2 or not all_differ(members) or re.search(r"[xy]", gold):
        return None
    return f"x = {members[0]}, y = {members[1]}", f"x = {members[1]}, y = {members[0]}"


@changes(60)
def labels_exchanged(gold: str) -> Result:
    members = listed(gold) or point(gold)
    if not members or len(members) != 2 or not all_differ(members):
        return None
    one, other = members
    return (
        rf"{one} \text{{ red}}, {other} \text{{ blue}}",
        rf"{other} \text{{ red}}, {one} \text{{ blue}}",
    )


@changes(100)
def list_without_its_last(gold: str) -> Result:
    members = listed(gold)
    return members and ", ".join(members[:-1])


@changes(100)
def list_with_one_more(gold: str) -> Result:
    members = listed(gold)
    return ", ".join([*members, "12345"]) if members else None


@changes(100)
def another_member(gold: str) -> Result:
    members = listed(gold)
    answer = bumped(members[-1]) if members else None
    if members is None or answer is None or not all_differ([*members, answer]):
        return None
    return ", ".join([*members[:-1], answer])


@changes(50)
def other_kind_of_lower_end(gold: str) -> Result:
    ends = interval(gold)
    if ends is None or is_infinite(ends[1]):
        return None
    return f"{'(' if ends[0] == '[' else '['}{ends[1]}, {ends[2]}{ends[3]}"


@changes(50)
def other_kind_of_upper_end(gold: str) -> Result:
    ends = interval(gold)
    if ends is None or is_infinite(ends[2]):
        return None
    return f"{ends[0]}{ends[1]}, {ends[2]}{')' if ends[3] == ']' else ']'}"


@changes(50)
def another_end(gold: str) -> Result:
    ends = interval(gold)
    if ends is None or (is_infinite(ends[2]) and is_infinite(ends[1])):
        return None
    place = 1 if is_infinite(ends[2]) else 2
    answer = bumped(ends[place])
    return answer and gold.replace(ends[place], answer, 1) if gold.count(ends[place]) == 1 else None


@changes(15)
def a_large_end_for_infinity(gold: str) -> Result:
    ends = interval(gold)
    return f"{ends[0]}{ends[1]}, 1000000)" if ends and is_infinite(ends[2]) else None


@changes(15)
def minus_infinity(gold: str) -> Result:
    ends = interval(gold)
    if ends is None or not is_infinite(ends[2]):
        return None
    return rf"{ends[0]}{ends[1]}, -\infty)"


@changes(15)
def inequality_the_other_way(gold: str) -> Result:
    ends = interval(gold)
    if ends is None or not is_infinite(ends[2]) or is_infinite(ends[1]):
        return None
    return f"x < {ends[1]}"


@changes(20)
def inequality_of_another_kind(gold: str) -> Result:
    ends = interval(gold)
    if ends is None or is_infinite(ends[1]) or is_infinite(ends[2]):
        return None
    above, below = ("<", r"\le") if ends[0] == "[" else (r"\le", "<")
    return rf"{ends[1]} {above} x {below} {ends[2]}"


@changes(35)
def union_without_its_last(gold: str) -> Result:
    parts = union(gold)
    return parts and r" \cup ".join(parts[:-1])


@changes(20)
def intersection_for_union(gold: str) -> Result:
    return gold.replace(r"\cup", r"\cap") if union(gold) else None


@changes(80)
def another_entry(gold: str) -> Result:
    rows = entries(gold)
    answer = bumped(rows[-1][-1]) if rows else None
    if rows is None or answer is None or not differs(rows[-1][-1], answer):
        return None
    return matrix([*rows[:-1], [*rows[-1][:-1], answer]])


@changes(20)
def transposed(gold: str) -> Result:
    rows = entries(gold)
    if rows is None or len(rows) != len(rows[0]) or all_symmetric(rows):
        return None
    return matrix(list(zip(*rows, strict=True)))


def all_symmetric(rows: list[list[str]]) -> bool:
    size = range(len(rows))
    return all(not differs(rows[i][j], rows[j][i]) for i in size for j in size if i < j)


@changes(60)
def rows_exchanged(gold: str) -> Result:
    rows = entries(gold)
    if not rows or len(rows) < 2 or not any(map(differs, rows[0], rows[-1])):
        return None
    return matrix([rows[-1], *rows[1:-1], rows[0]])


@changes(60)
def doubled_matrix(gold: str) -> Result:
    rows = entries(gold)
    if rows is None or not any(value(cell) for row in rows for cell in row):
        return None
    return f"2 {matrix(rows)}"


@changes(60)
def row_dropped(gold: str) -> Result:
    rows = entries(gold)
    return matrix(rows[:-1]) if rows and len(rows) > 1 else None
