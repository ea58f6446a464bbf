r"""Rewritings that keep the value of a gold answer: other spellings of the same."""

from __future__ import annotations

import re

from tests.tasks.grading.rewritings import (
    BASE,
    COMPLEX,
    DECIMAL,
    DEGREES,
    DOLLARS,
    EQUATION,
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
    bracketed,
    decimal,
    entries,
    integer_entries,
    interval,
    is_infinite,
    is_plain,
    keeps,
    listed,
    matrix,
    measured,
    number,
    point,
    split,
    union,
    whole,
)

_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_FULL_WIDTH = str.maketrans(
    {chr(code): chr(code + 0xFEE0) for code in range(ord("0"), ord("9") + 1)}
)
_VULGAR = {(1, 2): "½", (1, 3): "⅓", (2, 3): "⅔", (1, 4): "¼", (3, 4): "¾", (1, 5): "⅕",
           (2, 5): "⅖", (3, 5): "⅗", (4, 5): "⅘", (1, 6): "⅙", (5, 6): "⅚", (1, 8): "⅛",
           (3, 8): "⅜", (5, 8): "⅝", (7, 8): "⅞"}  # fmt: skip
_SMALLER = {"m": ("cm", 100), "km": ("m", 1000), "kg": ("g", 1000), "hours": ("minutes", 60),
            "minutes": ("seconds", 60), "feet": ("inches", 12), "ft": ("inches", 12),
            "inches": ("cm", None), "yards": ("feet", 3), "cm": ("mm", 10)}  # fmt: skip


# --- All golds ---


@keeps(5000)
def as_it_stands(gold: str) -> Result:
    return gold


@keeps(5000)
def with_a_period(gold: str) -> Result:
    return f"{gold}."


@keeps(5000)
def between_dollars(gold: str) -> Result:
    return None if "$" in gold else f"${gold}$"


@keeps(5000)
def in_display_brackets(gold: str) -> Result:
    return Response(rf"The final answer is \[ \boxed{{{gold}}} \]")


@keeps(5000)
def boxed_twice(gold: str) -> Result:
    return rf"\boxed{{{gold}}}"


@keeps(5000)
def boxed_twice_apart(gold: str) -> Result:
    return Response(
        rf"We get $\boxed{{{gold}}}$. The final answer is therefore $\boxed{{{gold}}}$."
    )


@keeps(5000)
def in_braces(gold: str) -> Result:
    return f"{{{gold}}}"


@keeps(5000)
def in_colour(gold: str) -> Result:
    return rf"\textcolor{{blue}}{{{gold}}}"


@keeps(5000)
def coloured(gold: str) -> Result:
    return rf"{{\color{{red}} {gold}}}"


@keeps(5000)
def display_style(gold: str) -> Result:
    return rf"\displaystyle {gold}"


@keeps(5000)
def enlarged(gold: str) -> Result:
    return rf"\large {gold}"


@keeps(5000)
def between_spaces(gold: str) -> Result:
    return rf" \, {gold} \quad"


@keeps(5000)
def before_special_tokens(gold: str) -> Result:
    return Response(rf"Thus \boxed{{{gold}}}<|im_end|>" + "\n<|im_start|>user\nThanks!")


@keeps(5000)
def in_answer_tags(gold: str) -> Result:
    return Response(f"<think>Let me see.</think>\n<answer>{gold}</answer>")


@keeps(5000)
def aligned(gold: str) -> Result:
    if "\\begin" in gold or "\\\\" in gold or "&" in gold:
        return None
    return rf"\begin{{aligned}} {gold} \end{{aligned}}"


@keeps(5000)
def after_words_in_the_box(gold: str) -> Result:
    return rf"\text{{The answer is }} {gold}"


@keeps(4500)
def in_a_sentence(gold: str) -> Result:
    return None if "$" in gold else Response(f"Hence the answer is ${gold}$.")


@keeps(4500)
def in_bold_after_a_mark(gold: str) -> Result:
    return None if "$" in gold or "*" in gold else Response(f"So:\n\n**Answer:** ${gold}$")


@keeps(1500)
def zero_width_characters(gold: str) -> Result:
    return "\u200b" + re.sub(r"(?<=\d)(?=\d)", "\u200b", gold) if re.search(r"\d\d", gold) else None


# --- Signs and spacing ---


@keeps(200)
def spaced_operators(gold: str) -> Result:
    if not is_plain(gold):
        return None
    wide = re.sub(r"(?<=[\w})])\s*([-+])\s*(?=[\w\\(])", r" \1 ", gold)
    return None if "e" in gold or wide == gold else wide


@keeps(400)
def dense(gold: str) -> Result:
    if "\\text" in gold or "\\mbox" in gold or not re.search(r"\s", gold):
        return None
    squeezed = re.sub(r"(?<![a-zA-Z\d])\s+|\s+(?![a-zA-Z\d])", "", gold)
    return None if squeezed == gold or "$" in gold else squeezed


@keeps(1000)
def unicode_minus(gold: str) -> Result:
    plain = "\\text" not in gold and "\\mbox" not in gold and not re.search(r"\de-", gold)
    return gold.replace("-", "−") if "-" in gold and plain else None


@keeps(250)
def unicode_pi_and_root(gold: str) -> Result:
    new = re.sub(r"\\pi(?![a-zA-Z])", "π", gold)
    new = re.sub(r"\\sqrt\s*\{(\d+)\}", lambda match: f"√{match[1]}", new)
    return None if new == gold or re.search(r"√\d+\s*\d", new) else new


@keeps(60)
def superscript_exponents(gold: str) -> Result:
    if not is_plain(gold):
        return None
    new = re.sub(
        r"(?<=[a-z\d)])\^(?:(\d)|\{(-?\d+)\})",
        lambda match: (match[1] or match[2]).translate(_SUPERSCRIPTS),
        gold,
    )
    return None if new == gold or "^" in new else new


@keeps(1500)
def full_width_digits(gold: str) -> Result:
    return gold.translate(_FULL_WIDTH) if number(gold) is not None else None


@keeps(150)
def full_width_tuple(gold: str) -> Result:
    if point(gold) is None:
        return None
    bare = re.sub(r"\\left|\\right", "", gold).strip()
    inside = bare[1:-1].replace(",", "，").translate(_FULL_WIDTH)
    return f"（{inside}）"


@keeps(250)
def sized_brackets(gold: str) -> Result:
    bare = re.sub(r"\\left|\\right", "", gold).strip()
    if bracketed(gold) is None:
        return None
    return rf"\left{bare[0]}{bare[1:-1]}\right{bare[-1]}"


@keeps(250)
def big_brackets(gold: str) -> Result:
    bare = re.sub(r"\\left|\\right", "", gold).strip()
    if bracketed(gold) is None:
        return None
    return rf"\bigl{bare[0]}{bare[1:-1]}\bigr{bare[-1]}"


# --- Numbers ---


@keeps(1300)
def plus_sign(gold: str) -> Result:
    result = number(gold)
    return f"+{gold}" if result is not None and result > 0 else None


@keeps(1000)
def trailing_zeros(gold: str) -> Result:
    return f"{gold}.00" if INTEGER.fullmatch(gold) else None


@keeps(200)
def one_more_zero(gold: str) -> Result:
    return f"{gold}0" if DECIMAL.fullmatch(gold) else None


@keeps(600)
def leading_zero(gold: str) -> Result:
    return f"0{gold}" if re.fullmatch(r"\d{1,3}", gold) else None


@keeps(50)
def no_zero_before_the_point(gold: str) -> Result:
    match = DECIMAL.fullmatch(gold)
    if match is None or match[2] not in ("", "0"):
        return None
    return f"{match[1]}.{match[3]}" if match[2] else f"{match[1]}0.{match[3]}"


def _grouped(gold: str, mark: str) -> Result:
    result = whole(gold)
    return None if result is None or abs(result) < 1000 else f"{result:,}".replace(",", mark)


@keeps(500)
def thousands_commas(gold: str) -> Result:
    return _grouped(gold, ",")


@keeps(500)
def thousands_commas_in_braces(gold: str) -> Result:
    return _grouped(gold, "{,}")


@keeps(500)
def thousands_commas_and_thin_spaces(gold: str) -> Result:
    return _grouped(gold, r",\!")


@keeps(500)
def thousands_thin_spaces(gold: str) -> Result:
    return _grouped(gold, r"\,")


@keeps(500)
def no_thousands_marks(gold: str) -> Result:
    return _grouped(gold, "")


@keeps(500)
def scientific(gold: str) -> Result:
    result = whole(gold)
    if not result or abs(result) < 1000:
        return None
    exponent = len(str(abs(result))) - 1
    mantissa = decimal(abs(result) / (number("1") or 1) / 10**exponent) if exponent <= 12 else None
    return mantissa and rf"{'-' if result < 0 else ''}{mantissa} \times 10^{{{exponent}}}"


@keeps(50)
def scientific_in_latex(gold: str) -> Result:
    match = re.fullmatch(r"(-?\d(?:\.\d+)?)e([-+]?\d+)", gold)
    return match and rf"{match[1]} \times 10^{{{int(match[2])}}}"


# --- Fractions ---


@keeps(900)
def display_fractions(gold: str) -> Result:
    new = re.sub(r"\\[td]?frac(?![a-zA-Z])", r"\\dfrac", gold)
    return None if new == gold else new


@keeps(900)
def text_fractions(gold: str) -> Result:
    new = re.sub(r"\\[td]?frac(?![a-zA-Z])", r"\\tfrac", gold)
    return None if new == gold else new


def _fraction(gold: str) -> tuple[str, int, int] | None:
    match = FRACTION.fullmatch(gold)
    if match is None:
        return None
    top, bottom = (int(part) for part in match.group(3, 4, 5, 6) if part)
    return match[1], top, bottom


@keeps(600)
def slash(gold: str) -> Result:
    parts = _fraction(gold)
    return parts and f"{parts[0]}{parts[1]}/{parts[2]}"


@keeps(600)
def unreduced(gold: str) -> Result:
    parts = _fraction(gold)
    return parts and rf"{parts[0]}\frac{{{3 * parts[1]}}}{{{3 * parts[2]}}}"


@keeps(70)
def minus_in_the_numerator(gold: str) -> Result:
    parts = _fraction(gold)
    return rf"\frac{{-{parts[1]}}}{{{parts[2]}}}" if parts and parts[0] else None


@keeps(20)
def fraction_without_braces(gold: str) -> Result:
    parts = _fraction(gold)
    if parts is None or max(parts[1:]) > 9:
        return None
    return rf"{parts[0]}\frac{parts[1]}{parts[2]}"


@keeps(12)
def vulgar_fraction(gold: str) -> Result:
    parts = _fraction(gold)
    return (parts and parts[1:] in _VULGAR and parts[0] + _VULGAR[parts[1:]]) or None


@keeps(100)
def fraction_as_decimal(gold: str) -> Result:
    if _fraction(gold) is None and MIXED.fullmatch(gold) is None:
        return None
    result = number(gold)
    try:
        return None if result is None else decimal(result)
    except ValueError:
        return None


@keeps(200)
def decimal_as_fraction(gold: str) -> Result:
    result = number(gold)
    if result is None or DECIMAL.fullmatch(gold) is None:
        return None
    sign = "-" if result < 0 else ""
    return rf"{sign}\frac{{{abs(result.numerator)}}}{{{result.denominator}}}"


@keeps(60)
def repeating_decimal(gold: str) -> Result:
    parts = _fraction(gold)
    if parts is None or parts[2] in (1, 0):
        return None
    _, top, bottom = parts
    for period in (1, 2, 3):
        if (10**period - 1) * top % bottom == 0 and top % bottom:
            digits = (10**period - 1) * (top % bottom) // bottom
            return rf"{parts[0]}{top // bottom}.\overline{{{digits:0{period}d}}}"
    return None


@keeps(15)
def mixed_as_fraction(gold: str) -> Result:
    result = number(gold) if MIXED.fullmatch(gold) else None
    return result and rf"\frac{{{result.numerator}}}{{{result.denominator}}}"


@keeps(15)
def mixed_with_a_slash(gold: str) -> Result:
    match = MIXED.fullmatch(gold)
    if match is None:
        return None
    top, bottom = (part for part in match.groups()[1:] if part)
    return f"{match[1]} {top}/{bottom}"


# --- Expressions ---


@keeps(2500)
def named(gold: str) -> Result:
    return f"x = {gold}" if is_plain(gold) and "x" not in gold else None


@keeps(2500)
def named_in_words(gold: str) -> Result:
    return rf"\text{{Area}} = {gold}" if is_plain(gold) else None


@keeps(3000)
def in_brackets(gold: str) -> Result:
    return f"({gold})" if is_plain(gold) else None


@keeps(200)
def factors_with_a_dot(gold: str) -> Result:
    if not is_plain(gold) or MIXED.match(gold):
        return None
    new = re.sub(
        r"(?<![\d^_.{])(\d+)\s*(?=\\sqrt|\\pi|[a-df-hj-z](?![a-zA-Z]))", r"\1 \\cdot ", gold
    )
    return None if new == gold else new


@keeps(60)
def terms_in_another_order(gold: str) -> Result:
    match = FIRST_TERM.fullmatch(gold)
    if match is None or not is_plain(gold) or re.search(r"[-+]", re.sub(r"\{.*?\}", "", match[3])):
        return None
    first = match[1] if match[1].startswith("-") else f"+ {match[1]}"
    return f"{'-' if match[2] == '-' else ''}{match[3]} {first}"


@keeps(150)
def root_as_a_power(gold: str) -> Result:
    if not is_plain(gold):
        return None
    new = re.sub(r"\\sqrt\s*\{(\d+)\}", r"(\1)^{1/2}", gold)
    return None if new == gold else new


@keeps(20)
def imaginary_part_first(gold: str) -> Result:
    match = COMPLEX.fullmatch(gold)
    if match is None:
        return None
    return f"{'-' if match[2] == '-' else ''}{match[3]}i {'' if gold[0] == '-' else '+ '}{match[1]}"


@keeps(20)
def sides_exchanged(gold: str) -> Result:
    match = EQUATION.fullmatch(gold)
    return (match and "\\%" not in gold and f"{match[2]} = {match[1]}") or None


# --- Lists, tuples, intervals, matrices ---


@keeps(70)
def reversed_list(gold: str) -> Result:
    members = listed(gold)
    return members and ", ".join(reversed(members))


@keeps(70)
def list_in_braces(gold: str) -> Result:
    members = listed(gold)
    return members and rf"\{{ {', '.join(members)} \}}"


@keeps(70)
def list_with_and(gold: str) -> Result:
    members = listed(gold)
    return members and ", ".join(members[:-1]) + rf" \text{{ and }} {members[-1]}"


@keeps(70)
def list_of_named_values(gold: str) -> Result:
    members = listed(gold)
    if members is None or "x" in gold:
        return None
    return r" \text{ or } ".join(f"x = {member}" for member in members)


@keeps(40)
def members_with_lor(gold: str) -> Result:
    members = listed(gold)
    return (
        r" \lor ".join(f"x = {member}" for member in members)
        if members and "x" not in gold
        else None
    )


@keeps(70)
def a_box_for_each_member(gold: str) -> Result:
    members = listed(gold)
    if members is None:
        return None
    return Response(
        "The solutions are " + " and ".join(rf"$\boxed{{{one}}}$" for one in members) + "."
    )


@keeps(150)
def named_coordinates(gold: str) -> Result:
    members = point(gold)
    if members is None or len(members) > 3:
        return None
    letters = ", ".join("xyz"[: len(members)])
    return f"({letters}) = ({', '.join(members)})"


@keeps(60)
def infinity_with_a_plus(gold: str) -> Result:
    new = re.sub(r"(?<![-+])(?<![-+]\s)\\infty", r"+\\infty", gold)
    return None if new == gold else new


@keeps(60)
def unicode_infinity_and_union(gold: str) -> Result:
    new = gold.replace(r"\infty", "∞").replace(r"\cup", "∪")
    return None if new == gold else new


@keeps(50)
def interval_after_in(gold: str) -> Result:
    return rf"x \in {gold}" if interval(gold) or union(gold) else None


@keeps(50)
def inequality(gold: str) -> Result:
    ends = interval(gold)
    return ends and _relation(*ends)


@keeps(50)
def interval_for_an_inequality(gold: str) -> Result:
    ends = interval(gold)
    relation = ends and _relation(*ends)
    return (relation, gold) if relation else None


@keeps(50)
def set_builder(gold: str) -> Result:
    ends = interval(gold)
    relation = ends and _relation(*ends)
    return rf"\{{x \mid {relation}\}}" if relation else None


def _relation(opening: str, low: str, high: str, closing: str) -> str | None:
    if (is_infinite(low) and is_infinite(high)) or re.search(
        "[a-zA-Z]", re.sub(r"\\[a-z]+", "", low + high)
    ):
        return None
    above = r"\le " if opening == "[" else "< "
    below = r"\le " if closing == "]" else "< "
    if is_infinite(low):
        return f"x {below}{high}"
    if is_infinite(high):
        return rf"x {above.replace('le', 'ge').replace('<', '>')}{low}"
    return f"{low} {above}x {below}{high}"


@keeps(35)
def union_in_another_order(gold: str) -> Result:
    parts = union(gold)
    return parts and r" \cup ".join(reversed(parts))


@keeps(20)
def union_as_inequalities(gold: str) -> Result:
    parts = union(gold)
    ends = [interval(part) for part in parts or []]
    relations = [_relation(*end) for end in ends if end]
    if not parts or len(relations) < len(parts):
        return None
    return r" \text{ or } ".join(str(relation) for relation in relations)


@keeps(70)
def square_matrix_brackets(gold: str) -> Result:
    rows = entries(gold)
    return rows and matrix(rows, "bmatrix")


@keeps(40)
def factor_before_the_matrix(gold: str) -> Result:
    rows = integer_entries(gold)
    return rows and r"\frac{1}{2} " + matrix([[2 * cell for cell in row] for row in rows])


@keeps(40)
def sum_of_matrices(gold: str) -> Result:
    rows = integer_entries(gold)
    if rows is None:
        return None
    ones = [[1 for _ in row] for row in rows]
    return matrix([[cell - 1 for cell in row] for row in rows]) + " + " + matrix(ones)


@keeps(70)
def fractions_in_the_matrix(gold: str) -> Result:
    rows = integer_entries(gold)
    if rows is None:
        return None
    return matrix([[rf"\dfrac{{{2 * cell}}}{{2}}" for cell in row] for row in rows])


# --- Units and other kinds ---


@keeps(60)
def unit_glued(gold: str) -> Result:
    parts = measured(gold)
    return (
        parts
        and rf"{parts[0]}\text{{{parts[1].split('^')[0]}}}{parts[1][len(parts[1].split('^')[0]) :]}"
    )


@keeps(60)
def unit_in_roman(gold: str) -> Result:
    parts = measured(gold)
    if parts is None or " " in parts[1]:
        return None
    unit, _, power = parts[1].partition("^")
    return rf"{parts[0]}\,\mathrm{{{unit}}}" + (f"^{{{power}}}" if power else "")


@keeps(60)
def without_its_unit(gold: str) -> Result:
    parts = measured(gold)
    return parts and parts[0]


@keeps(10)
def in_a_smaller_unit(gold: str) -> Result:
    parts = measured(gold)
    if parts is None or parts[1] not in _SMALLER or (size := whole(parts[0])) is None:
        return None
    unit, factor = _SMALLER[parts[1]]
    return rf"{size * factor} \text{{ {unit}}}" if factor else None


@keeps(1000)
def a_length_glued(gold: str) -> Result:
    size = whole(gold)
    return (rf"{size} \text{{ cm}}", f"{size}cm") if size else None


@keeps(1000)
def a_length_in_metres(gold: str) -> Result:
    size = whole(gold)
    return (rf"{size} \text{{ m}}", rf"{100 * size} \text{{ cm}}") if size else None


@keeps(1000)
def a_time_in_minutes(gold: str) -> Result:
    size = whole(gold)
    return (rf"{size} \text{{ hours}}", f"{60 * size} minutes") if size and size > 1 else None


@keeps(80)
def degrees_in_words(gold: str) -> Result:
    match = DEGREES.fullmatch(gold)
    return rf"{match[1]} \text{{ degrees}}" if match and is_plain(match[1]) else None


@keeps(80)
def degree_sign(gold: str) -> Result:
    match = DEGREES.fullmatch(gold)
    return match and f"{match[1]}°"


@keeps(80)
def without_degrees(gold: str) -> Result:
    match = DEGREES.fullmatch(gold)
    return match[1] if match and is_plain(match[1]) else None


@keeps(35)
def percent_in_words(gold: str) -> Result:
    match = PERCENT.fullmatch(gold)
    return match and rf"{match[1]} \text{{ percent}}"


@keeps(35)
def percent_as_a_share(gold: str) -> Result:
    match = PERCENT.fullmatch(gold)
    share = match and number(match[1])
    return decimal(share / 100) if share is not None else None


@keeps(50)
def dollars_in_words(gold: str) -> Result:
    match = DOLLARS.fullmatch(gold)
    return match and rf"{match[1]} \text{{ dollars}}"


@keeps(50)
def currency_code(gold: str) -> Result:
    match = DOLLARS.fullmatch(gold)
    return match and rf"\text{{USD }} {match[1]}"


@keeps(60)
def base_in_braces(gold: str) -> Result:
    match = BASE.fullmatch(gold)
    return match and f"{match[1]}_{{{match[2]}}}"


@keeps(60)
def base_after_brackets(gold: str) -> Result:
    match = BASE.fullmatch(gold)
    return (match and not gold.startswith("-") and f"({match[1]})_{{{match[2]}}}") or None


@keeps(5)
def proportional_ratio(gold: str) -> Result:
    match = RATIO.fullmatch(gold)
    return match and f"{3 * int(match[1])} : {3 * int(match[2])}"


@keeps(1000)
def modulus_in_other_words(gold: str) -> Result:
    size = whole(gold)
    return (
        (rf"{size} \pmod{{{size + 3}}}", rf"{size} \mod {size + 3}") if size and size > 0 else None
    )


@keeps(25)
def word_without_text(gold: str) -> Result:
    match = WORD.fullmatch(gold)
    return match[1] if match and len(match[1]) > 2 else None


@keeps(25)
def word_in_bold(gold: str) -> Result:
    match = WORD.fullmatch(gold)
    return rf"\textbf{{{match[1]}}}" if match and len(match[1]) > 2 else None


@keeps(5)
def choice_in_bold(gold: str) -> Result:
    match = LETTER.fullmatch(gold)
    return match and rf"\textbf{{({match[1] or match[2] or match[3]})}}"


@keeps(5)
def choice_bare(gold: str) -> Result:
    match = LETTER.fullmatch(gold)
    return match and (match[1] or match[2] or match[3])


@keeps(1000)
def choice_with_its_number(gold: str) -> Result:
    size = whole(gold)
    return None if size is None else ("C", rf"\textbf{{(C)}}\ {size}")


@keeps(150)
def tuple_members_rewritten(gold: str) -> Result:
    members = point(gold)
    numbers = [number(member) for member in members or []]
    if not members or None in numbers:
        return None
    exact = (one for one in numbers if one is not None)
    return (
        "("
        + ", ".join(rf"\frac{{{2 * one.numerator}}}{{{2 * one.denominator}}}" for one in exact)
        + ")"
    )


@keeps(3)
def both_signs_listed(gold: str) -> Result:
    if gold.count("\\pm") != 1:
        return None
    bare = gold.replace(r"\{", "").replace(r"\}", "")
    members = [
        part.replace("\\pm", sign)
        for part in split(bare)
        for sign in ("+", "-")
        if "\\pm" in part or sign == "+"
    ]
    return ", ".join(members)
