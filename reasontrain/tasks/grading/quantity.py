r"""Grammar of quantities: a number or expression, magnitude words, a unit, and what is counted.

`\$3 \text{ million}`, `5 feet 10 inches`, `12\sqrt{3} \text{ cm}`, `9.8 \frac{m}{s^2}`, `12个苹果`.
Nothing behind a number is dropped unless it is known: other words make the quantity opaque.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from reasontrain.tasks.grading import flat, lexicon, number, units
from reasontrain.tasks.grading import nouns as counted
from reasontrain.tasks.grading.flat import FlatToken
from reasontrain.tasks.grading.number import Number
from reasontrain.tasks.grading.units import Unit

LONGEST = 400
"""Characters of the longest text that is read as a quantity; longer ones are numbers at most."""
MAX_COMPOUND = 3
"""The most units that one quantity adds, as in degrees, minutes and seconds."""

_ROUNDED = re.compile(
    r"[\s\x02,]*\(?\s*(?:(?:correct |rounded )?to (?:the )?(?:nearest [a-z]+(?: [a-z]+)?"
    r"|\d{1,2} ?(?:decimal places?|decimals|d\.? ?p\.?|significant (?:figures|digits)|s\.? ?f\.?))"
    r"|rounded(?: up| down)?|approx\.?|approximately|in (?:total|all))\s*\)?[\s\x03.]*$",
    re.IGNORECASE,
)
"""Remarks behind a value that say nothing of it."""
_EXPONENT = re.compile(r"(?:\^|\*\*)\s*(?:\{\s*([-+]?\s*\d)\s*\}|\(\s*([-+]?\d)\s*\)|([-+]?\d))")
_TOWARDS = re.compile(r"(?:to\s+the|due|towards?(?:\s+the)?)\s+(?=(?:north|south|east|west)[a-z]*)")
_TRIGONOMETRIC = re.compile(r"\\?(?:arc)?(?:sin|cos|tan|cot|sec|csc|tg|ctg)")
_RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne|in|equiv|approx|to|mid)(?![a-zA-Z])")
_OTHER_VALUE = re.compile(r",?\s*(?:and |but )?(?:not|rather than|instead of)\s+(?:\x03\s*)?")
_DECIMAL_COMMA = re.compile(
    r"\d+,(?:\d{1,2}|\d{4,9})(?=\s*[^\W\d_]{2}|\s*\x02\s*[^\W\d_]|\s*[€%°])"
)
_REPEATED = re.compile(r"\s*\x03?\s*\(\s*")
_IN_WORDS = re.compile(r"\(([a-z -]{3,60})\)", re.IGNORECASE)
_DEGREES = units.SYMBOLS["°"]
_OF_ANGLES = {
    units.SYMBOLS["minute"]: units.SYMBOLS["arcmin"],
    units.SYMBOLS["second"]: units.SYMBOLS["arcsec"],
}
"""Minutes and seconds behind degrees."""
_ONE = Number(Fraction(1))
_AFTER_A = lexicon.MAGNITUDES.keys() | lexicon.PARTS.keys() | lexicon.LEADS


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number or an expression with its unit.

    Attributes:
        number: the number, with magnitude words multiplied; None if it is an expression.
        expression: the text of the number or expression.
        unit: its unit; without base units if it has none.
        spelling: the text behind the number.
        labels: nouns and adjectives of what is counted.
        parts: words that are part of the value: directions and bounds.
        scale: the product of the magnitude words.
        is_compound: it adds several units, as in `5 feet 10 inches`.
        is_letter: its unit is a letter that may be a variable; behind a space if not `is_glued`.
        is_glued: its unit follows the number without a space.
        is_ordinal: it is written as `12th`.
        has_unknown: a word behind it is not known as a noun.
        is_opaque: words behind it may change its value; `spelling` has them.
        money: its currency, if it is an amount of money or one per something.
    """

    number: Number | None
    expression: str
    unit: Unit = units.NONE
    spelling: str = ""
    labels: frozenset[str] = frozenset()
    parts: frozenset[str] = frozenset()
    scale: Fraction = Fraction(1)
    is_compound: bool = False
    is_letter: bool = False
    is_glued: bool = False
    is_ordinal: bool = False
    has_unknown: bool = False
    is_opaque: bool = False
    money: Unit | None = None


class _OpaqueError(Exception):
    """The words behind a number are not understood."""


class _ExpressionError(Exception):
    """The number is the beginning of an expression."""


def read(text: str, nouns: frozenset[str]) -> Quantity | None:
    """Read a flat text as a quantity; None if it is anything else.

    Args:
        text: a text from `flat.flatten`.
        nouns: words of the problem, in lower case.
    """
    if len(text) > LONGEST:
        return None
    remark = _ROUNDED.search(text) if text[-1:].isalpha() or text[-1:] in ").\x03" else None
    if remark and remark.start() > 0:
        text = text[: remark.start()] + (flat.CLOSE if flat.OPEN in text[: remark.start()] else "")
    if text[:1] == "(" and text[-1:] == ")" and "(" not in text[1:]:
        text = text[1:-1].strip()
    return _Reader(text, nouns).quantity()


class _Reader:
    """One reading of a text, from left to right."""

    def __init__(self, text: str, nouns: frozenset[str]) -> None:
        self.text = text
        self.nouns = nouns
        self.tokens = list(flat.tokens(text))
        self.index = 0
        self.is_text = False
        self.sign = 1
        self._reset(units.NONE)
        self.lead_percent = False
        self.has_comma = False
        self.lead_labels: set[str] = set()
        self.lead_parts: set[str] = set()

    def _reset(self, currency: Unit) -> None:
        self.currency = currency
        self.money = currency if currency.dims else None
        self.unit = currency
        self.scale = Fraction(1)
        self.added = Fraction(0)
        self.decimal = False
        self.percent = False
        self.labels: set[str] = set()
        self.parts: set[str] = set()
        self.is_compound = self.is_letter = self.is_ordinal = self.has_unknown = False
        self.is_glued = False
        self.is_counted = False
        self.is_of = False
        self.is_angle = False
        self.is_minutes = False
        self.last_unit = units.NONE
        self.power = 1
        self.side = 1

    def quantity(self) -> Quantity | None:
        if not self._lead():
            words = {token.text.lower() for token in self.tokens}
            if not counted.STOP & words or not any(char.isdigit() for char in self.text):
                return None
            return self._opaque(None, 0, 0)
        start = self.tokens[self.index].start if self.index < len(self.tokens) else len(self.text)
        first = self.index
        is_text = self.is_text
        head = self._number(start)
        if head is not None:
            value, end = head
            try:
                self._tail(value, end)
            except _OpaqueError:
                return self._opaque(value, start, end)
            except _ExpressionError:
                pass
            else:
                return self._result(value, self.text[start:end], self.text[end:])
        self.index = first
        self.is_text = is_text
        self._reset(self.currency)
        return self._expression(start)

    def _result(self, value: Number | None, expression: str, spelling: str) -> Quantity:
        total = value
        if value is not None:
            exact = self.sign * (value.value * self.scale + self.added)
            percent = self.percent or self.lead_percent
            total = Number(exact, value.decimal or self.decimal, percent)
        text = flat.as_latex(expression)
        return Quantity(
            total,
            f"-({text})" if self.sign < 0 and value is None else text,
            self.unit,
            flat.plain(spelling) or ("$" if self.currency.dims else ""),
            frozenset(self.labels | self.lead_labels),
            frozenset(self.parts | self.lead_parts),
            self.scale * (Fraction(1, 100) if self.percent else 1),
            self.is_compound,
            self.is_letter,
            self.is_glued,
            self.is_ordinal,
            self.has_unknown,
            money=self.money,
        )

    def _opaque(self, value: Number | None, start: int, end: int) -> Quantity:
        return Quantity(
            value and value._replace(value=self.sign * value.value),
            flat.as_latex(self.text[start:end]),
            spelling=flat.plain(self.text[end:]),
            labels=frozenset(self.lead_labels),
            parts=frozenset(self.lead_parts),
            is_opaque=True,
        )

    # what stands before the number

    def _lead(self) -> bool:
        """Skip what stands before the number; return False if it is not known."""
        lower = self.text.lower()
        while self.index < len(self.tokens):
            token = self.tokens[self.index]
            word = lower[token.start : token.end]
            if word[0].isdigit() or word in ("(", "\\frac", "\\sqrt", "\\pi", "["):
                return True
            if word == "." and not self._is_abbreviated() and self._at(1)[:1].isdigit():
                return True
            if word == "." and self._is_abbreviated():
                pass
            elif word in "-+":
                if not self._is_sign():
                    return True
                self.sign = -self.sign if word == "-" else self.sign
            elif word in (flat.OPEN, flat.CLOSE):
                self.is_text = word == flat.OPEN
            elif word == "百分之":
                self.lead_percent = True
            elif (prefixed := self._prefixed_dollar(word)) is not None:
                self._reset(units.SYMBOLS[units.DOLLARS[word]])
                self.index += prefixed
            elif token.text in units.CURRENCY_SIGNS:
                self._reset(units.SYMBOLS[token.text])
            elif word in ("negative", "minus"):
                self.sign = -self.sign
            elif bound := _phrase(lower, token.start, lexicon.BOUNDS):
                self.lead_parts.add(lexicon.BOUNDS[bound])
                end = token.start + len(bound)
                while self.index < len(self.tokens) and self.tokens[self.index].start < end:
                    self.index += 1
                continue
            elif (
                number.in_words([word])
                or self._is_ordinal(word)
                or (word in lexicon.MAGNITUDES and self._at(-1) == "a")
            ):
                return True
            elif token.is_word and (unit := units.find(token.text)) and units.is_currency(unit):
                self._reset(unit)
            elif (
                (word in lexicon.LEADS and (self.is_text or len(word) > 1))
                or (word == "a" and self._next_word().lower() in _AFTER_A)
                or word in (".", ":", "=", "：", "≈", "~", "#")
            ):
                pass
            elif self._is_heading(token, word):
                self.lead_labels.add("#" + counted.label(word))
            else:
                # an expression
                return word in lexicon.FUNCTIONS or not (token.is_word and len(word) > 1)
            self.index += 1
        return False

    def _prefixed_dollar(self, word: str) -> int | None:
        """Return the number of tokens up to the sign of `HK$`; None for anything else."""
        if word not in units.DOLLARS:
            return None
        after = [self._at(1), self._at(2)]
        if after[0] == "$":
            return 1
        return 2 if after == [flat.CLOSE, "$"] else None

    def _is_abbreviated(self) -> bool:
        """Return True for a point that ends a word: `Rs. 5`."""
        before = self.tokens[self.index - 1] if self.index else None
        return before is not None and before.is_word and before.end == self.tokens[self.index].start

    def _is_sign(self) -> bool:
        """Return True for a sign before a currency or a word."""
        following = self._at(1)
        return following in units.CURRENCY_SIGNS or (following == flat.OPEN and self._at(2) == "$")

    def _is_ordinal(self, word: str) -> bool:
        """Return True for `third` and `half`, which are numbers if nothing else is."""
        return word in ("half", "quarter") or (
            word in lexicon.ORDINALS and not any(char.isdigit() for char in self.text)
        )

    def _is_heading(self, token: FlatToken, word: str) -> bool:
        """Return True for the noun in `Day 5` and `Room 12`."""
        return (
            len(word) > 2
            and token.is_word
            and re.match(r"\s*[#:\x03]*\s*\d", self.text[token.end :]) is not None
            and (counted.is_counted(word, self.nouns) or units.find(word) is not None)
        )

    def _number(self, start: int) -> tuple[Number, int] | None:
        """Read the number in digits or words; return it and its end."""
        comma = _DECIMAL_COMMA.match(self.text, start)
        if comma:
            # with a unit behind it, `3,5 km` is no list
            self._skip_to(comma.end())
            self.has_comma = True
            return Number(Fraction(comma.group().replace(",", ".")), decimal=True), comma.end()
        head = number.prefix(self.text, start)
        if head is not None:
            self._skip_to(head[1])
            return head
        words = [
            (position, token.text.lower())
            for position, token in enumerate(self.tokens[self.index : self.index + 24], self.index)
            if token.text not in ("-", flat.OPEN, flat.CLOSE)
        ]
        worded = number.in_words([word for _, word in words])
        if worded is None and words and words[0][1] in lexicon.ORDINALS | lexicon.PARTS:
            word = words[0][1]
            self.index = words[0][0] + 1
            self.is_text = self.is_text or self._at(-2) == flat.OPEN
            is_part = word not in lexicon.ORDINALS or self._at(-2).lower() in ("a", "an")
            self.is_ordinal = not is_part
            self.is_of = is_part
            exact = Fraction(1, lexicon.PARTS[word]) if is_part else lexicon.ORDINALS[word]
            return Number(Fraction(exact)), self.tokens[words[0][0]].end
        if worded is None and words and self._at(-1) == "a":
            # `a dozen`: the magnitude is read with the tail
            return _ONE, self.tokens[self.index - 1].end
        if worded is None:
            return None
        value, num_words = worded
        last = words[num_words - 1][0]
        for token in self.tokens[self.index : last + 1]:
            self.is_text = token.text == flat.OPEN or (self.is_text and token.text != flat.CLOSE)
        self.index = last + 1
        end = self.tokens[last].end
        # `twelve (12)`
        repeated = _REPEATED.match(self.text, end)
        digits = repeated and number.prefix(self.text, repeated.end())
        if (
            repeated
            and digits
            and digits[0].value == value
            and self.text[digits[1] : digits[1] + 1] == ")"
        ):
            self._skip_to(digits[1] + 1)
            self.is_text = self.is_text and flat.CLOSE not in repeated.group()
            end = digits[1] + 1
        return Number(Fraction(value)), end

    def _skip_to(self, end: int) -> None:
        while self.index < len(self.tokens) and self.tokens[self.index].start < end:
            self.index += 1

    def _consume(self, end: int) -> None:
        """Make the last token before a position the current one, which has been read."""
        self._skip_to(end)
        self.index -= 1

    def _exponent(self, offset: int) -> re.Match[str] | None:
        """The power that begins with the token at an offset from the current one."""
        if self._at(offset) not in ("^", "*"):
            return None
        return _EXPONENT.match(self.text, self.tokens[self.index + offset].start)

    def _at(self, offset: int) -> str:
        """The token at an offset from the current one; "" behind the end."""
        position = self.index + offset
        return self.tokens[position].text if position < len(self.tokens) else ""

    def _next_word(self) -> str:
        """The token behind the current one, without marks of texts."""
        offset = 1
        while self._at(offset) in (flat.OPEN, flat.CLOSE, "{", "}", "("):
            offset += 1
        return self._at(offset)

    # what stands behind it

    @property
    def _is_fresh(self) -> bool:
        """Nothing but magnitude words has been read behind the number."""
        return self.unit == self.currency and not (
            self.labels
            or self.parts
            or self.percent
            or self.is_ordinal
            or self.is_counted
            or self.last_unit.dims
        )

    def _tail(self, value: Number, end: int, *, depth: int = 0) -> None:
        """Read everything behind the number, which ends at `end`."""
        begin = self.index
        if self.index < len(self.tokens) and end > 0 and self.text[end - 1] == ".":
            # `2. Pears` is the second point of a list
            raise _OpaqueError
        while self.index < len(self.tokens):
            token = self.tokens[self.index]
            first = self.index == begin
            if token.text in ("not", "rather", "instead", ",") and self._is_contrast(token.start):
                return
            if not self._element(token, first, value, end, depth):
                word = token.text.lower()
                # `2 sqrt 3` is a product
                is_word = token.is_word and word not in lexicon.FUNCTIONS
                changes = is_word and (word in counted.STOP or word in lexicon.PER)
                # `3, 4` is a list
                is_list = self.tokens[begin].text in (",", ";")
                if not is_list and (self.is_text or changes or not (first or self._only_weak())):
                    raise _OpaqueError
                raise _ExpressionError
            self.index += 1
        if self.power != 1:
            raise _OpaqueError
        if self.has_comma and not (self.unit.dims or self.percent):
            raise _ExpressionError

    def _is_contrast(self, start: int) -> bool:
        """Return True for `not 13` and a number alone up to the end: another value is denied."""
        match = _OTHER_VALUE.match(self.text, start)
        other = match and number.prefix(self.text, match.end())
        return other is not None and self.text[other[1] :].strip(" .\x03") == ""

    def _only_weak(self) -> bool:
        """Nothing has been read but a degree sign or a letter, which an expression may have."""
        weak = self.is_letter or self.unit == _DEGREES
        return weak and not (self.labels or self.parts or self.is_compound) and self.scale == 1

    def _element(self, token: FlatToken, first: bool, value: Number, end: int, depth: int) -> bool:
        """Read one element; return False if it is not understood."""
        text = token.text
        if text in (flat.OPEN, flat.CLOSE):
            self.is_text = text == flat.OPEN
            return True
        if token.is_word:
            return self._word(token, glued=token.start == end)
        if text[0].isdigit():
            return self._digits(token, depth)
        if text in "%％":
            return self._percent()
        if text == "°":
            return self._angle(_DEGREES) if self._is_fresh else False
        if text in "\"'":
            return self._prime(text, depth)
        if text in units.CURRENCY_SIGNS:
            return self._measure(units.SYMBOLS[text])
        exponent = self._exponent(0)
        if exponent and self.last_unit.dims:
            self._raise(int(next(filter(None, exponent.groups())).replace(" ", "")))
            self._consume(exponent.end())
            return True
        if text == "^":
            # `12^{th}`
            return first and self._next_word().lower() in ("st", "nd", "rd", "th")
        if text == "/":
            following = self._next_word()
            known = following[:1].isalpha() and (
                units.find(following) is not None
                or following in counted.COUNTERS
                or counted.is_counted(following.lower(), self.nouns)
            )
            self.side = -1
            # a fraction of expressions has no unit below
            return known and (
                not first or self._at(1) == flat.OPEN or len(following) > 1 or following in "hs"
            )
        if text == "\\frac":
            return self._is_fresh and self._fraction(token)
        if text in ("\\times", "\\cdot", "·", "*", "⋅", "×", "-"):
            known = units.find(self._next_word()) is not None and self.last_unit.dims != ()
            return known or (
                text == "-"
                and self._next_word()[:1].isalpha()
                and self.text[token.start - 1] != " "
                and len(self._next_word()) > 1
            )
        repeated = _IN_WORDS.match(self.text, token.start) if first and text == "(" else None
        in_words = repeated and number.in_words(re.findall(r"[a-z]+", repeated[1].lower()))
        if repeated and in_words:
            # `12 (twelve)`
            self._consume(repeated.end())
            return in_words[0] == value.value
        if text in "([{":
            following = self._next_word()
            is_word = following[:1].isalpha() and len(following) > 1
            return not first or self.is_text or (is_word and following not in lexicon.FUNCTIONS)
        return text in (
            ".",
            ",",
            ")",
            "]",
            "}",
            "~",
            "\\quad",
            "\\qquad",
            "\\ ",
            "\\,",
            "\\;",
            "\\!",
        )

    def _digits(self, token: FlatToken, depth: int) -> bool:
        """Read the second measure of `5 feet 10 inches`, or the power in `cm2`."""
        previous = self.tokens[self.index - 1]
        if (
            token.text in ("2", "3")
            and previous.end == token.start
            and previous.is_word
            and self.last_unit.dims
        ):
            self._raise(int(token.text))
            return True
        is_number = self.scale > 1 and self._is_fresh
        if not (self.unit.dims or is_number) or self.labels or self.percent:
            return False
        if depth >= MAX_COMPOUND:
            return False
        second = number.prefix(self.text, token.start)
        if second is None:
            return False
        rest = _Reader(self.text, self.nouns)
        rest.index = self.index
        rest.is_text = self.is_text
        rest._skip_to(second[1])
        rest.is_minutes = self.unit in (units.SYMBOLS["h"], units.SYMBOLS["min"])
        if self.last_unit == _DEGREES or self.unit == _DEGREES:
            rest.is_angle = True
            rest.unit = rest.currency = units.NONE
            rest.last_unit = _DEGREES
        rest._tail(second[0], second[1], depth=depth + 1)
        if previous.text == "'" and not rest.unit.dims and not rest.labels:
            # `5'10`
            rest.unit = units.SYMBOLS["arcsec" if self.last_unit == _DEGREES else "inch"]
        if is_number:
            # `1亿2000万` and `3 thousand 500`
            if second[0].value * rest.scale >= self.scale or second[0].decimal:
                return False
            self.added = second[0].value * rest.scale + rest.added
            self._take(rest)
            return True
        if (
            rest.unit.dims != self.unit.dims
            or rest.unit.factor >= self.unit.factor
            or rest.percent
            or second[0].value < 0
        ):
            return False
        self.added = (second[0].value * rest.scale + rest.added) * rest.unit.factor
        self.added /= self.unit.factor
        self.decimal = second[0].decimal or rest.decimal
        unit = self.unit
        self._take(rest)
        self.unit = unit
        self.is_compound = True
        return True

    def _take(self, rest: _Reader) -> None:
        """Take over what stands behind a second number."""
        self.unit = rest.unit
        self.money = self.money or rest.money
        self.labels |= rest.labels
        self.parts |= rest.parts
        self.has_unknown = rest.has_unknown
        self.is_counted = rest.is_counted
        self.index = len(self.tokens) - 1

    def _prime(self, sign: str, depth: int) -> bool:
        """Read minutes and seconds of a degree, or feet and inches."""
        if self.last_unit == _DEGREES:
            self.unit = units.SYMBOLS["arcmin" if sign == "'" else "arcsec"]
            self.last_unit = _DEGREES
            return True
        if not self._is_fresh or (sign == "'" and not self._at(1)[:1].isdigit()):
            return False
        self.unit = self.last_unit = units.SYMBOLS["ft" if sign == "'" else "inch"]
        return True

    def _percent(self) -> bool:
        fresh = self._is_fresh and not self.currency.dims
        self.percent = True
        self.is_counted = True
        return fresh

    def _angle(self, unit: Unit) -> bool:
        self.unit = self.last_unit = unit
        return True

    def _raise(self, power: int) -> None:
        """Raise the last unit to a power."""
        base = self.last_unit
        self.unit = self.unit.times(base, (power - 1) * self.side)
        self.last_unit = units.NONE

    def _measure(self, unit: Unit) -> bool:
        """Multiply or divide by a unit."""
        if unit.dims and unit.dims[0][0] in ("degC", "degF") and self.unit == _DEGREES:
            self.unit = unit
        elif units.is_currency(unit) and self.currency.dims and self.side == 1:
            # `$5 USD`; not `$50 cents`
            if units.ratio(self.currency, unit) != 1:
                return False
        else:
            if units.is_currency(unit) and self.side == 1:
                self.money = unit
            unit = Unit(unit.factor**self.power, tuple((b, p * self.power) for b, p in unit.dims))
            self.unit = self.unit.times(unit, self.side)
        self.power = 1
        self.last_unit = unit
        return True

    def _fraction(self, token: FlatToken) -> bool:
        r"""Read `\frac{\text{m}}{\text{s}^2}`."""
        group = r"\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
        match = re.compile(rf"\\frac{group}{group}").match(self.text, token.start)
        if match is None:
            return False
        for part, side in zip(match.groups(), (1, -1), strict=True):
            inner = _Reader(part, self.nouns)
            inner.is_text = True
            inner.side = side
            try:
                inner._tail(_ONE, -1)
            except (_OpaqueError, _ExpressionError):
                return False
            if inner.scale != 1 or inner.percent or inner.parts or inner.has_unknown:
                return False
            self.unit = self.unit.times(inner.unit)
            self.labels |= inner.labels
        self.last_unit = units.NONE
        self._consume(match.end())
        return bool(self.unit.dims or self.labels)

    def _word(self, token: FlatToken, *, glued: bool) -> bool:
        """Read a word behind a number."""
        text = token.text
        word = text.lower()
        lower = self.text.lower()
        following = self._next_word()
        if self._is_fresh and (scaled := self._scaling(token, glued=glued)) is not None:
            return scaled
        if bound := _phrase(lower, token.start, lexicon.BOUNDS_BEHIND):
            self.parts.add(lexicon.BOUNDS_BEHIND[bound])
            self._consume(token.start + len(bound))
            return True
        if towards := _TOWARDS.match(lower, token.start):
            self._consume(towards.end())
            return True
        if word in lexicon.DIRECTIONS:
            self.parts.add(word)
            return True
        if word in lexicon.DIMENSIONS and (units.find(following) is not None or following == "."):
            self.power = lexicon.DIMENSIONS[word]
            return True
        if word in lexicon.DIMENSIONS and self.last_unit.dims:
            # `mètres carrés`
            self._raise(lexicon.DIMENSIONS[word])
            return True
        if word in ("squared", "cubed") and self.last_unit.dims:
            self._raise(2 if word == "squared" else 3)
            return True
        if word in lexicon.PER or (
            word in ("a", "an", "each", "every")
            and not self.is_of
            and (unit := units.find(following)) is not None
            and (not self._is_fresh or unit.dims == units.SYMBOLS["s"].dims)
        ):
            self.side = -1
            return following[:1].isalpha()
        if word in lexicon.EVERY:
            return self._measure(units.NONE.times(units.SYMBOLS[lexicon.EVERY[word]], -1))
        if word == "times":
            self.labels.add("time")
            return not following[:1].isdigit()
        if flat.CJK.match(text) and text in counted.COUNTERS:
            self.is_counted = True
            return True
        if word in ("fl", "fluid") and units.find(following) == units.SYMBOLS["oz"]:
            self.index += 1
            return self._measure(units.SYMBOLS["floz"])
        unit = units.find(text)
        if text == "m" and self.is_minutes:
            # `1h 30m`
            return self._measure(units.SYMBOLS["min"])
        if unit is not None and self.is_angle:
            unit = _OF_ANGLES.get(unit, unit)
        if unit is not None and self._is_unit(token, following, glued):
            if self.is_ordinal:
                self.labels.add(counted.label(word))
                return True
            return self._measure(unit)
        if not self.is_text and (
            word in lexicon.FUNCTIONS or (len(word) == 1 and not flat.CJK.match(word))
        ):
            is_article = self.is_of or not self._is_fresh or following.lower() in lexicon.MAGNITUDES
            return word == "a" and is_article
        if word in counted.FILLERS:
            if word == "of" and self.is_ordinal:
                return False
            self.is_of = self.is_of or word in ("of", "de", "von", "di")
            return True
        if counted.is_counted(word, self.nouns) or (self.is_counted and flat.CJK.match(text)):
            self.labels.add(("/" if self.side < 0 else "") + counted.label(word))
            return True
        is_variable = not self.is_text and (glued or len(word) < 4) and not flat.CJK.match(word)
        if word in counted.STOP or is_variable:
            return False
        # `5 cups of gloop`
        self.has_unknown = self.has_unknown or not self.is_of or self._is_fresh
        self.labels.add(word)
        return True

    def _scaling(self, token: FlatToken, *, glued: bool) -> bool | None:
        """Read a word that scales the number before it, or says how it is meant.

        Returns:
            None if it is no such word, False if it is one that cannot stand here.
        """
        text = token.text
        word = text.lower()
        lower = self.text.lower()
        following = self._next_word()
        if word == "and" and re.match(r"and\s+(?:a|one)\s+half\b", lower[token.start :]):
            self.added = Fraction(1, 2)
            self.decimal = True
            self.index += 2
            return True
        is_money = self.currency.dims or following in units.CURRENCY_SIGNS
        if not is_money and (unit := units.find(following)) is not None:
            is_money = units.is_currency(unit)
        if is_money and text in lexicon.MONEY_LETTERS:
            self.scale *= lexicon.MONEY_LETTERS[text]
            return True
        if word in lexicon.MAGNITUDES:
            self.scale *= lexicon.MAGNITUDES[word]
            return True
        if word in lexicon.PARTS and (self.is_text or not glued):
            self.scale /= lexicon.PARTS[word]
            return True
        if word in lexicon.PERCENTS:
            return self._percent()
        if word in ("per", "por", "pour") and following.lower() in ("cent", "ciento"):
            self.index += 1
            return self._percent()
        if word in ("st", "nd", "rd", "th") and (glued or self._at(-1) in ("^", flat.OPEN, "{")):
            self.is_ordinal = True
            return True
        if word == "out" and (
            of := re.match(r"out\s+of[\s\x03]+(\d{1,9})\b", lower[token.start :])
        ):
            self.scale /= int(of[1]) or 1
            self._consume(token.start + of.end())
            self.is_counted = True
            return int(of[1]) > 0
        return None

    def _is_unit(self, token: FlatToken, following: str, glued: bool) -> bool:
        """Return True if a word that may be a unit is one where it stands."""
        text = token.text
        if text == "in":
            return following in ("", "^", "/", ".", ")", "2", "3", ",")
        if text not in units.AMBIGUOUS or self.is_text or self.side < 0 or following == "/":
            return True
        if self.unit == _DEGREES:
            return text in "CF"
        if self.nouns & _NAMES_OF.get(text, frozenset()):
            return True
        if self.unit.dims and (power := self._exponent(1)) is not None and "-" in power[0]:
            # `km h^{-1}`
            return True
        # a variable, as far as the text shows
        self.is_letter = True
        self.is_glued = glued
        return self._is_fresh

    # an expression and its unit

    def _expression(self, start: int) -> Quantity | None:
        """Read an expression that ends in a unit; None if it has none."""
        if _RELATION.search(self.text, start):
            return None
        nesting = 0
        first = self.index
        for position in range(first, len(self.tokens)):
            token = self.tokens[position]
            nesting += (token.text in "([{") - (token.text in ")]}") if len(token.text) == 1 else 0
            if nesting or position == first or not self._may_start_unit(token):
                continue
            head = self.text[start : token.start]
            if "°" in head or (token.text == "°" and _TRIGONOMETRIC.search(head)):
                return None
            self.index = position
            self._reset(self.currency)
            try:
                self._tail(_ONE, -1)
            except (_OpaqueError, _ExpressionError):
                if token.text == flat.OPEN:
                    return self._opaque(None, start, token.start)
                return None
            if self.is_letter or self.is_compound or self.added:
                return None
            return self._result(None, head, self.text[token.start :])
        if self.currency.dims or self.lead_parts or self.lead_labels:
            return self._result(None, self.text[start:], "")
        return None

    def _may_start_unit(self, token: FlatToken) -> bool:
        word = token.text
        if word in (flat.OPEN, "°", "%"):
            return True
        return (
            token.is_word
            and len(word) > 1
            and word not in lexicon.FUNCTIONS
            and self.text[token.start - 1] in " )}0123456789"
            and (units.find(word) is not None or counted.is_counted(word.lower(), self.nouns))
        )


_NAMES_OF = {
    "m": frozenset(["m", "meter", "meters", "metre", "metres"]),
    "g": frozenset(["g", "gram", "grams"]),
    "s": frozenset(["s", "second", "seconds"]),
    "h": frozenset(["h", "hour", "hours"]),
    "L": frozenset(["L", "liter", "liters", "litre", "litres"]),
    "l": frozenset(["l", "liter", "liters", "litre", "litres"]),
    "N": frozenset(["newton", "newtons"]),
    "J": frozenset(["joule", "joules"]),
    "W": frozenset(["watt", "watts"]),
    "V": frozenset(["volt", "volts"]),
    "A": frozenset(["ampere", "amperes", "amps"]),
    "C": frozenset(["celsius"]),
    "F": frozenset(["fahrenheit"]),
    "K": frozenset(["kelvin"]),
}


def _phrase(lower: str, start: int, phrases: dict[str, str]) -> str:
    """Return the longest phrase at a place of a text in lower case; "" without one."""
    matching = [
        phrase
        for phrase in phrases
        if lower.startswith(phrase, start)
        and not (phrase.isascii() and lower[start + len(phrase) :][:1].isalpha())
    ]
    return max(matching, key=len, default="")
