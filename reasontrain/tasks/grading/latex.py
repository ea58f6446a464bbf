r"""A reader of LaTeX and plain notation that gives SymPy expressions, and drops nothing.

It is a recursive-descent parser: a token that it does not know, or that stands where it cannot,
makes the whole text unreadable. No part of a text is evaluated as Python code. Only the grader's
worker imports this module, because SymPy is slow to import.

Readings that mathematics leaves open: `\log` has base 10, `e` and `i` are the constants, products
without a sign bind more closely than `/` (`1/2x` is `1/(2x)`), and letters in other cases are other
variables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import sympy
from sympy import Expr, Integer, Rational, Symbol

from reasontrain.tasks.grading import vocabulary
from reasontrain.tasks.grading.tokens import END, Token, tokens
from reasontrain.tasks.grading.vocabulary import UnreadableError

MAX_BITS = 200_000
"""The most bits of a power of rational numbers."""
DEGREE = Symbol("degree", positive=True)
"""The unit of an angle outside of functions, which take it in radians."""
SIGN = Symbol("sign", real=True)
r"""The sign of `\pm`: plus or minus one, the same at all places of an expression."""


@dataclass(frozen=True)
class Reading:
    """A text as expressions with relations between them.

    Attributes:
        sides: one expression, or the sides of a chain of relations.
        relations: the relation after each side but the last: `=`, `<`, `<=`, `>`, `>=` or `!=`.
        decimal: a number has a decimal point, so the values may be rounded.
        signs: the number of signs `\\pm` and `\\mp`.
    """

    sides: Sequence[Expr]
    relations: Sequence[str] = ()
    decimal: bool = False
    signs: int = 0


def read(text: str) -> Reading:
    """Read a text as an expression, an equation or a chain of inequalities.

    Raises UnreadableError if any part of it is unknown.
    """
    return read_tokens(tokens(text))


def read_tokens(parts: Sequence[Token]) -> Reading:
    """Read tokens as `read` does."""
    return _Reader(list(parts)).reading()


@dataclass
class _Reader:
    """The parser: one method per rule of the grammar, each from the token at `index`."""

    tokens: list[Token]
    index: int = 0
    decimal: bool = False
    signs: int = 0
    bars: int = 0
    """Open bars of absolute values since the innermost bracket."""
    bound: dict[str, Symbol] = field(default_factory=dict)
    """Variables of the sums, integrals and limits around the token."""

    def reading(self) -> Reading:
        sides = [self._infix()]
        relations = []
        while self._peek().text in vocabulary.RELATIONS:
            relations.append(vocabulary.RELATIONS[self._next().text])
            sides.append(self._infix())
        if self._peek() is not END:
            raise UnreadableError(self._peek().text)
        if any(side.has(sympy.nan, sympy.zoo) for side in sides):
            raise UnreadableError("division by zero")
        return Reading(sides, relations, self.decimal, self.signs)

    # tokens

    def _peek(self, ahead: int = 0) -> Token:
        index = self.index + ahead
        return self.tokens[index] if index < len(self.tokens) else END

    def _next(self) -> Token:
        token = self._peek()
        self.index += 1
        return token

    def _accept(self, *texts: str) -> bool:
        if self._peek().text in texts and self._peek() is not END:
            self.index += 1
            return True
        return False

    def _expect(self, *texts: str) -> None:
        if not self._accept(*texts):
            raise UnreadableError(f"{self._peek().text} for {texts[0]}")

    # sums and products

    def _infix(self) -> Expr:
        r"""Read a sum, or two with `\choose` or `\over` between them."""
        value = self._sum()
        if self._accept(r"\choose"):
            return _binomial([value, self._sum()])
        return _quotient(value, self._sum()) if self._accept(r"\over") else value

    def _sum(self) -> Expr:
        total: Expr = sympy.S.Zero
        first = True
        while first or self._peek().text in ("+", "-", r"\pm", r"\mp"):
            factor = self._sign()
            total = total + factor * self._product()
            first = False
        return total

    def _sign(self) -> Expr:
        """Read any signs before a term."""
        factor: Expr = sympy.S.One
        while self._peek().text in ("+", "-", r"\pm", r"\mp"):
            text = self._next().text
            if text in (r"\pm", r"\mp"):
                self.signs += 1
                factor = factor * SIGN
            if text in ("-", r"\mp"):
                factor = -factor
        return factor

    def _product(self) -> Expr:
        value = self._juxtaposed()
        while True:
            operator = self._peek().text
            if operator not in vocabulary.TIMES | vocabulary.OVER | {r"\bmod", r"\mod"}:
                return value
            self._next()
            right = self._sign() * self._juxtaposed()
            if operator in vocabulary.TIMES:
                value = value * right
            elif operator in vocabulary.OVER:
                value = _quotient(value, right)
            else:
                value = sympy.Mod(value, right)

    def _juxtaposed(self) -> Expr:
        """Read factors without a sign between them; `1\\frac{1}{2}` is a mixed number."""
        start = self.index
        value = self._power()
        value = value + self._fraction_of_mixed(start)
        while self._starts_factor(start):
            value = value * self._power()
        return value

    def _fraction_of_mixed(self, start: int) -> Expr:
        """Read the fraction of a mixed number whose whole part is the token at `start`."""
        if self.index != start + 1 or not self.tokens[start].text.isdigit():
            return sympy.S.Zero
        if self._peek().kind == "number" and self._peek(1).text == "/":
            digits = [self._peek().text, self._peek(2).text]
            after = 3
        elif self._peek().text in vocabulary.FRACTIONS and self._peek(1).text == "{":
            digits = [self._peek(2).text, self._peek(5).text]
            braces = [self._peek(ahead).text for ahead in (3, 4, 6)]
            after = 7 if braces == ["}", "{", "}"] else 0
        else:
            return sympy.S.Zero
        if not after or not all(part.isdigit() for part in digits):
            return sympy.S.Zero
        top, bottom = (int(part) for part in digits)
        if top >= bottom or self._peek(after).text in ("^", "_", "!"):
            return sympy.S.Zero
        self.index += after
        return Rational(top, bottom)

    def _starts_factor(self, start: int) -> bool:
        """Return True if a factor follows without a sign.

        Raises UnreadableError for a number after a number or, without a space, after a letter.
        """
        token = self._peek()
        if token.kind == "number":
            before = self.tokens[self.index - 1]
            if before.kind == "number" or (before.kind == "letter" and not token.spaced):
                raise UnreadableError(f"{before.text}{token.text}")
            return True
        if token.kind == "letter":
            return True
        if token.kind == "command":
            name = token.text[1:]
            return (
                name in vocabulary.FUNCTIONS
                or name in {*vocabulary.SEVERAL, "binomial"}
                or name in vocabulary.CONSTANTS
                or name in vocabulary.GREEK
                or name in vocabulary.ACCENTS
                or name in vocabulary.LETTER_FACES
                or token.text
                in vocabulary.FRACTIONS | vocabulary.BINOMIALS | vocabulary.BIG | {r"\sqrt"}
                or token.text in vocabulary.BRACKETS
                or (token.text == r"\vert" and not self.bars)
            )
        return token.text in vocabulary.BRACKETS or (token.text == "|" and not self.bars)

    # factors

    def _power(self) -> Expr:
        """Read an atom and what is behind it: powers, factorials, percent signs, degrees."""
        start = self.index
        value = self._atom()
        value = self._in_base(start, value)
        while True:
            token = self._peek()
            if token.text == "^":
                self._next()
                if self._is_degree():
                    value = value * DEGREE
                elif primes := self._primes():
                    for _ in range(primes):
                        value = self._primed(value)
                else:
                    value = _raised(value, self._exponent())
            elif token.text == "'":
                self._next()
                value = self._primed(value)
            elif token.text == "!":
                self._next()
                value = vocabulary.factorial(value)
            elif token.text == "!!":
                self._next()
                value = sympy.factorial2(value)
            elif token.text in ("%", r"\%"):
                self._next()
                value = value / 100
            elif token.text in (r"\circ", r"\degree"):
                self._next()
                value = value * DEGREE
            else:
                return value

    def _is_degree(self) -> bool:
        if self._accept(r"\circ"):
            return True
        if [self._peek(ahead).text for ahead in range(3)] == ["{", r"\circ", "}"]:
            self.index += 3
            return True
        return False

    def _primes(self) -> int:
        r"""Read a script of primes alone (`\prime`, `{\prime\prime}`); return their number."""
        start = self.index
        closed = self._accept("{")
        number = 0
        while self._accept(r"\prime"):
            number += 1
        if not number or (closed and not self._accept("}")):
            self.index = start
            return 0
        return number

    def _primed(self, value: Expr) -> Expr:
        if not isinstance(value, Symbol):
            raise UnreadableError("a prime behind an expression")
        return _symbol(value.name + "'")

    def _exponent(self) -> Expr:
        """Read a script that may be a power itself."""
        value = self._script()
        if self._accept("^"):
            value = _raised(value, self._exponent())
        return value

    def _script(self) -> Expr:
        sign = self._sign()
        if self._peek().text in ("{", "("):
            return sign * self._bracketed()
        return sign * self._atom()

    def _in_base(self, start: int, value: Expr) -> Expr:
        """Read the base behind a whole number, bare or in brackets: `1101_2`, `(1101)_{2}`."""
        if self._peek().text != "_":
            return value
        digits = [token.text for token in self.tokens[start : self.index]]
        if len(digits) == 3 and digits[0] in "({" and digits[2] in ")}":
            digits = digits[1:2]
        self._next()
        base = self._group() if self._peek().text == "{" else self._atom()
        if len(digits) != 1 or not digits[0].isdigit() or not isinstance(base, Integer):
            raise UnreadableError("a subscript behind an expression")
        if not 2 <= int(base) <= 36:
            raise UnreadableError("a base")
        try:
            return Integer(int(digits[0], int(base)))
        except ValueError as error:
            raise UnreadableError("a digit that the base lacks") from error

    def _atom(self) -> Expr:
        token = self._next()
        if token.kind == "number":
            return self._number(token)
        if token.kind == "letter":
            return self._variable(token)
        if token.text == "{" and self._peek().text == "}":
            return self._combinations()
        if token.text in ("^", "_"):
            self.index -= 1
            return self._combinations()
        if token.text in vocabulary.BRACKETS or token.text in ("|", r"\vert"):
            self.index -= 1
            return self._bracketed()
        if token.kind == "command":
            return self._command(token)
        raise UnreadableError(token.text)

    def _number(self, token: Token) -> Expr:
        self.decimal |= not token.text.isdigit()
        if "." in token.text and self._peek().text in (r"\overline", r"\dot", r"\bar"):
            return self._repeating(token.text)
        return Rational(token.text + ("0" if token.text.endswith(".") else ""))

    def _repeating(self, text: str) -> Expr:
        r"""Read the period of `0.1\overline{6}` or `0.\dot{1}4\dot{2}`."""
        self.decimal = False
        period = ""
        while self._accept(r"\overline", r"\bar", r"\dot"):
            token = self._next()
            if token.text == "{":
                token = self._next()
                self._expect("}")
            if not token.text.isdigit():
                raise UnreadableError(token.text)
            period += token.text
            # digits between the dots of the first and the last digit of a period
            if self._peek().kind == "number" and self._peek(1).text == r"\dot":
                period += self._next().text
        digits = len(text.partition(".")[2])
        return Rational(text + "0") + Rational(int(period), (10 ** len(period) - 1) * 10**digits)

    def _variable(self, token: Token) -> Expr:
        if token.text in self.bound:
            return self.bound[token.text]
        if token.text in ("C", "P") and self._peek().text in ("(", "_", "^"):
            chosen = self._chosen(token.text)
            if chosen is not None:
                return chosen
        name = token.text + self._subscript()
        while self._accept("'"):
            name += "'"
        constant = {"e": sympy.E, "i": sympy.I}.get(name)
        if constant is not None:
            return constant
        if self._peek().text == "(":
            # `I(0)` is a value of a function, of which the number is no factor
            of_number = self._peek(1).kind == "number" and self._peek(2).text == ")"
            if name[0] in "fgFG" or of_number:
                return sympy.Function(name)(*self._arguments())
        return _symbol(name)

    def _subscript(self) -> str:
        """Read the subscript of a letter as text."""
        if not self._accept("_"):
            return ""
        if self._peek().text != "{":
            return "_" + self._next().text
        start = self.index
        self._skip_group()
        return "_" + "".join(token.text for token in self.tokens[start + 1 : self.index - 1])

    def _skip_group(self) -> None:
        depth = 0
        while True:
            token = self._next()
            if token is END:
                raise UnreadableError("an open brace")
            depth += (token.text == "{") - (token.text == "}")
            if depth == 0:
                return

    def _chosen(self, letter: str) -> Expr | None:
        """Read what is chosen, behind a letter C or P: `(5, 2)`, `_5^2`, `^2_5`."""
        start = self.index
        if self._peek().text == "(":
            arguments = self._arguments()
            if len(arguments) == 2:
                return _choice(letter, *arguments)
        else:
            scripts: dict[str, Expr] = {}
            while self._peek().text in ("_", "^") and len(scripts) < 2:
                place = self._next().text
                scripts[place] = self._script()
            if len(scripts) == 2 and self._peek().text not in ("_", "^"):
                return _choice(letter, scripts["_"], scripts["^"])
        self.index = start
        return None

    def _combinations(self) -> Expr:
        """Read `{}_{5}C_{2}`, `^5C_2` and `_5C_2`."""
        self._accept("}")
        if not self._accept("_", "^"):
            raise UnreadableError("empty braces")
        total = self._script()
        letter = self._next().text
        if letter not in ("C", "P"):
            raise UnreadableError(letter)
        self._expect("_")
        return _choice(letter, total, self._script())

    # brackets

    def _group(self) -> Expr:
        if self._peek().text != "{":
            raise UnreadableError("no brace")
        return self._bracketed()

    def _bracketed(self) -> Expr:
        """Read an expression in brackets of any kind, with its floor, ceiling or absolute value."""
        opening = self._next().text
        bars = self.bars
        if opening in ("|", r"\vert"):
            self.bars = 1
            value = self._sum()
            self._expect(opening)
        else:
            self.bars = 0
            value = self._infix()
            self._expect(vocabulary.BRACKETS[opening])
        self.bars = bars
        if opening in ("|", r"\vert", r"\lvert"):
            return sympy.Abs(value)
        if opening == r"\lfloor":
            return sympy.floor(value)
        return sympy.ceiling(value) if opening == r"\lceil" else value

    def _arguments(self) -> list[Expr]:
        """Read arguments in brackets, with commas between them."""
        opening = self._next().text
        if opening not in ("(", "[", "{", r"\{"):
            raise UnreadableError(opening)
        bars = self.bars
        self.bars = 0
        arguments = [self._sum()]
        while self._accept(","):
            arguments.append(self._sum())
        self.bars = bars
        self._expect(vocabulary.BRACKETS[opening])
        return arguments

    def _argument(self) -> Expr:
        r"""Read the argument of a command like `\frac`: a group, or one digit or letter."""
        token = self._peek()
        if token.text == "{":
            return self._group()
        if token.kind == "number" and token.text.isdigit() and len(token.text) > 1:
            self.tokens[self.index] = Token("number", token.text[1:])
            return Integer(int(token.text[0]))
        return self._atom()

    # commands

    def _command(self, token: Token) -> Expr:
        name = token.text[1:]
        if name in vocabulary.FUNCTIONS and not (
            name in vocabulary.CALLED_ONLY and self._peek().text != "("
        ):
            return self._function(name)
        if token.text in vocabulary.FRACTIONS:
            return self._fraction()
        if name == "sqrt":
            return self._root()
        if token.text in vocabulary.BINOMIALS:
            return _binomial([self._argument(), self._argument()])
        if name == "binomial":
            return _binomial(self._arguments())
        if name in vocabulary.SEVERAL:
            return _of_several(name, self._arguments())
        constant = vocabulary.CONSTANTS.get(name)
        if constant is not None:
            return constant
        if token.text in vocabulary.BIG:
            return {r"\int": self._integral, r"\lim": self._limit}.get(
                token.text, lambda: self._series(token.text)
            )()
        return self._named(name)

    def _named(self, name: str) -> Expr:
        """Read a variable that is written as a command."""
        if name in vocabulary.GREEK:
            name = "\\" + name
            if name in self.bound:
                return self.bound[name]
        elif name in vocabulary.ACCENTS:
            start = self.index
            if self._peek().text == "{":
                self._skip_group()
            else:
                self._next()
            letters = self.tokens[start : self.index]
            if any(token.kind == "number" for token in letters):
                raise UnreadableError("an accent over a number")
            name = "\\" + name + "".join(token.text for token in letters if token.text not in "{}")
        elif name in vocabulary.LETTER_FACES:
            texts = [self._peek(ahead).text for ahead in range(3)]
            if not (texts[0] == "{" and len(texts[1]) == 1 and texts[2] == "}"):
                raise UnreadableError("text")
            self.index += 3
            return self._variable(self.tokens[self.index - 2])
        else:
            raise UnreadableError(name)
        name += self._subscript()
        while self._accept("'"):
            name += "'"
        if self._peek().text == "(" and name.partition("_")[0] in (r"\phi", r"\varphi", r"\psi"):
            return sympy.Function(name)(*self._arguments())
        return _symbol(name)

    def _fraction(self) -> Expr:
        start = self.index
        top = self._argument()
        middle = self.index
        bottom = self._argument()
        numerator = [token.text for token in self.tokens[start:middle] if token.text != "{"]
        denominator = [token.text for token in self.tokens[middle : self.index]]
        for sign in ("d", r"\partial"):
            # the letters of a derivative are no factors, and do not cancel
            if numerator[:1] == [sign] and denominator[:2] == ["{", sign] and len(denominator) > 3:
                return _symbol("".join([*numerator, "/", *denominator]))
        return _quotient(top, bottom)

    def _root(self) -> Expr:
        degree: Expr = Integer(2)
        if self._peek().text == "[":
            degree = self._bracketed()
        value = self._bracketed() if self._peek().text == "(" else self._argument()
        return vocabulary.root(value, degree)

    def _function(self, name: str) -> Expr:
        function = vocabulary.FUNCTIONS[name]
        power: Expr = sympy.S.One
        base: Expr | None = None
        if name == "log" and self._is_glued_base():
            base = self._number(self._next())
        while self._peek().text in ("^", "_"):
            if self._next().text == "^":
                power = self._exponent()
            elif name in vocabulary.LOGARITHMS and base is None:
                base = self._base()
            else:
                raise UnreadableError("a subscript of a function")
        if power == -1 and name in vocabulary.INVERSES:
            function = vocabulary.INVERSES[name]
            power = sympy.S.One
        argument = self._function_argument(name)
        value = function(argument) if base is None else vocabulary.logarithm(argument, base)
        return _raised(value, power)

    def _is_glued_base(self) -> bool:
        """Return True for the base of `log2(x)`."""
        token = self._peek()
        return token.text in ("2", "10") and not token.spaced and self._peek(1).text == "("

    def _base(self) -> Expr:
        r"""Read the base of a logarithm: of `\log_28` one digit, of `log_10(5)` the number."""
        following = self._peek(1)
        has_argument = following.kind != "sign" or following.text in vocabulary.BRACKETS
        if self._peek().kind == "number" and following is not END and has_argument:
            return self._number(self._next())
        return self._argument()

    def _function_argument(self, name: str) -> Expr:
        """Read an argument in brackets, or the factors up to the next sign or function."""
        if self._peek().text in ("(", "{", "[", "|", r"\vert", r"\lvert", r"\lfloor", r"\lceil"):
            value = self._bracketed()
            if self._peek().text == "^" and self._peek(1).text == r"\circ":
                self.index += 2
                value = value * DEGREE
        else:
            value = self._sign()
            start = self.index
            value = value * (self._power() + self._fraction_of_mixed(start))
            while self._starts_factor(start) and not self._ends_argument():
                value = value * self._power()
            if (
                name not in vocabulary.LOGARITHMS
                and self._peek().text == "/"
                and self._peek(1).kind == "number"
            ):
                self._next()
                value = _quotient(value, self._power())
        return value.subs(DEGREE, sympy.pi / 180) if name in vocabulary.ANGLES else value

    def _ends_argument(self) -> bool:
        token = self._peek()
        name = token.text[1:]
        return (
            token.text in vocabulary.BRACKETS
            or token.text in vocabulary.BIG
            or token.text in ("|", r"\vert")
            or (
                token.kind == "command"
                and (name in vocabulary.FUNCTIONS or name in vocabulary.SEVERAL)
            )
        )

    def _series(self, command: str) -> Expr:
        """Read a sum or product with its limits; its body is one product."""
        self._expect("_")
        self._expect("{")
        letter = self._next()
        self._expect("=")
        first = self._sum()
        self._expect("}")
        self._expect("^")
        last = self._script()
        variable = Symbol(f"index {len(self.bound)}", integer=True)
        with_bound = self._with(letter, variable, self._product)
        kind = sympy.Sum if command == r"\sum" else sympy.Product
        return kind(with_bound, (variable, first, last)).doit()

    def _with(self, letter: Token, variable: Symbol, rule: Callable[[], Expr]) -> Expr:
        """Apply a rule while a letter is a bound variable."""
        if letter.kind != "letter" and letter.text[1:] not in vocabulary.GREEK:
            raise UnreadableError(letter.text)
        before = self.bound
        self.bound = {**before, letter.text: variable}
        value = rule()
        self.bound = before
        return value

    def _limit(self) -> Expr:
        self._expect("_")
        self._expect("{")
        letter = self._next()
        self._expect(*vocabulary.ARROWS)
        point = self._sum_without_direction()
        direction = "+-"
        if self._accept("^"):
            closed = self._accept("{")
            direction = self._next().text
            if closed:
                self._expect("}")
        self._expect("}")
        if point in (sympy.oo, -sympy.oo):
            direction = "-" if point == sympy.oo else "+"
        if direction not in ("+", "-", "+-"):
            raise UnreadableError(direction)
        variable = Symbol(f"index {len(self.bound)}", real=True)
        value = self._with(letter, variable, self._product)
        return sympy.limit(value, variable, point, direction)

    def _sum_without_direction(self) -> Expr:
        """Read the point of a limit, up to the sign of a one-sided one (`0^+`, `0^{-}`)."""
        for ahead in range(len(self.tokens) - self.index):
            texts = [self._peek(ahead + offset).text for offset in range(4)]
            one_sided = texts[0] == "^" and (
                (texts[1] in ("+", "-") and texts[2] == "}")
                or (texts[1] == "{" and texts[2] in ("+", "-") and texts[3] == "}")
            )
            if one_sided:
                end = self.index + ahead
                point = _Reader(self.tokens[self.index : end], bound=self.bound).reading()
                self.index = end
                return point.sides[0]
            if texts[0] == "}":
                break
        return self._sum()

    def _integral(self) -> Expr:
        """Read an integral up to its differential."""
        limits: dict[str, Expr] = {}
        while self._peek().text in ("_", "^"):
            place = self._next().text
            limits[place] = self._script()
        differential, end = self._differential()
        letter = self.tokens[differential + 1]
        variable = Symbol(f"index {len(self.bound)}", real=True)
        integrand = [*self.tokens[self.index : differential], *self.tokens[differential + 2 : end]]
        alone = differential == self.index or (
            self.tokens[differential - 1].text == "{" and self.tokens[differential + 2].text == "}"
        )
        if alone:
            integrand.insert(differential - self.index, Token("number", "1"))
        reader = _Reader(integrand, bound=self.bound)
        value = self._with(letter, variable, lambda: reader.bounded(self.bound))
        self.decimal |= reader.decimal
        self.index = end
        if set(limits) == {"_", "^"}:
            return sympy.integrate(value, (variable, limits["_"], limits["^"]))
        if limits:
            raise UnreadableError("a limit of an integral")
        return sympy.integrate(value, variable).subs(
            variable, self.bound.get(letter.text, _symbol(letter.text))
        )

    def bounded(self, bound: dict[str, Symbol]) -> Expr:
        """Read an integrand, in which `bound` are the bound variables."""
        self.bound = bound
        return self.reading().sides[0]

    def _differential(self) -> tuple[int, int]:
        """Find the letter d that closes the integral before `index`, and the integral's end."""
        open_integrals = 1
        depth = 0
        place = None
        for index in range(self.index, len(self.tokens)):
            text = self.tokens[index].text
            depth += (text in vocabulary.BRACKETS) - (text in vocabulary.BRACKETS.values())
            if depth < 0:
                break
            follower = self.tokens[index + 1] if index + 1 < len(self.tokens) else END
            if place is not None:
                # a differential in a numerator: the fraction ends with its denominator
                if depth == 0 and text == "}" and follower.text != "{":
                    return place, index + 1
                continue
            open_integrals += text == r"\int"
            if text == "d" and (follower.kind == "letter" or follower.text[1:] in vocabulary.GREEK):
                open_integrals -= 1
                if open_integrals == 0:
                    if depth == 0:
                        return index, index + 2
                    place = index
        raise UnreadableError("an integral without its differential")


def _symbol(name: str) -> Symbol:
    return Symbol(name, real=True)


def _quotient(top: Expr, bottom: Expr) -> Expr:
    if bottom == 0:
        raise UnreadableError("division by zero")
    return top / bottom


def _raised(base: Expr, exponent: Expr) -> Expr:
    """Raise to a power, unless the result has more bits than algebra can handle."""
    if isinstance(base, Rational) and isinstance(exponent, Rational):
        bits = max(abs(base.p), base.q).bit_length()
        if bits > 1 and bits * abs(exponent) > MAX_BITS:
            raise UnreadableError("too large a power")
    return base**exponent


def _choice(letter: str, total: Expr, chosen: Expr) -> Expr:
    """The number of combinations (C) or of ordered choices (P)."""
    ordered = vocabulary.factorial(chosen) if letter == "P" else sympy.S.One
    return _binomial([total, chosen]) * ordered


def _binomial(arguments: Sequence[Expr]) -> Expr:
    if len(arguments) != 2:
        raise UnreadableError("a binomial coefficient of more than two numbers")
    if isinstance(arguments[0], Integer) and arguments[0] > vocabulary.MAX_INTEGER:
        raise UnreadableError("too large a binomial coefficient")
    return sympy.binomial(*arguments)


def _of_several(name: str, arguments: Sequence[Expr]) -> Expr:
    if name in ("max", "min"):
        return (sympy.Max if name == "max" else sympy.Min)(*arguments)
    if all(isinstance(argument, Integer) for argument in arguments):
        return (sympy.igcd if name == "gcd" else sympy.ilcm)(*arguments) + sympy.S.Zero
    # SymPy would take the divisors of polynomials, and the order does not matter
    return sympy.Function(name)(*sorted(arguments, key=sympy.default_sort_key))
