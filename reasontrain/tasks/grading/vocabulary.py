"""Commands and words that the reader of LaTeX knows.

Only the grader's worker imports this module, because SymPy is slow to import.
"""

from __future__ import annotations

from collections.abc import Callable

import sympy
from sympy import Expr, Integer


class UnreadableError(Exception):
    """A text that is not wholly mathematics that this reader knows."""


MAX_INTEGER = 3_000
"""The largest integer of which SymPy computes factorials and binomial coefficients."""


def factorial(value: Expr) -> Expr:
    """The factorial, unless it is too large for algebra."""
    if value.is_Integer and value > MAX_INTEGER:
        raise UnreadableError("too large a factorial")
    return sympy.factorial(value)


def root(value: Expr, degree: Expr) -> Expr:
    """The root, which is real for odd degrees of negative numbers."""
    if degree == 0:
        raise UnreadableError("division by zero")
    if isinstance(degree, Integer) and degree % 2 == 1 and value.is_negative:
        return -((-value) ** (1 / degree))
    return value ** (1 / degree)


def logarithm(value: Expr, base: Expr | int | None = None) -> Expr:
    """The logarithm, of which an even power becomes a factor: `2 ln |x|` for `ln x^2`."""
    factor = sympy.S.One
    if value.is_Pow and value.exp.is_even and value.base.is_real:
        factor = value.exp
        value = sympy.Abs(value.base)
    return factor * (sympy.log(value) if base is None else sympy.log(value, base))


TRIGONOMETRY: dict[str, Callable[..., Expr]] = {
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tan": sympy.tan,
    "tg": sympy.tan,
    "cot": sympy.cot,
    "ctg": sympy.cot,
    "sec": sympy.sec,
    "csc": sympy.csc,
    "sinh": sympy.sinh,
    "cosh": sympy.cosh,
    "tanh": sympy.tanh,
    "coth": sympy.coth,
}
INVERSES: dict[str, Callable[..., Expr]] = {
    "sin": sympy.asin,
    "cos": sympy.acos,
    "tan": sympy.atan,
    "tg": sympy.atan,
    "cot": sympy.acot,
    "ctg": sympy.acot,
    "sec": sympy.asec,
    "csc": sympy.acsc,
    "sinh": sympy.asinh,
    "cosh": sympy.acosh,
    "tanh": sympy.atanh,
    "coth": sympy.acoth,
}
FUNCTIONS: dict[str, Callable[..., Expr]] = {
    **TRIGONOMETRY,
    **{f"arc{name}": inverse for name, inverse in INVERSES.items()},
    **{f"a{name}": inverse for name, inverse in INVERSES.items()},
    **{f"ar{name}": INVERSES[name] for name in ("sinh", "cosh", "tanh", "coth")},
    "exp": sympy.exp,
    "ln": logarithm,
    "log": lambda x: logarithm(x, 10),
    "lg": lambda x: logarithm(x, 10),
    "lb": lambda x: logarithm(x, 2),
    "cis": lambda x: sympy.cos(x) + sympy.I * sympy.sin(x),
    "cbrt": lambda x: root(x, Integer(3)),
    "abs": sympy.Abs,
    "sgn": sympy.sign,
    "sign": sympy.sign,
    "factorial": factorial,
    "floor": sympy.floor,
    "ceil": sympy.ceiling,
    "Re": sympy.re,
    "Im": sympy.im,
    "Gamma": sympy.gamma,
    "zeta": sympy.zeta,
}
"""Functions of one argument, as commands and as words."""
LOGARITHMS = frozenset(["log", "ln", "lg", "lb"])
ANGLES = frozenset([*TRIGONOMETRY, "cis"])
"""Functions of an angle, which may be in degrees."""
CALLED_ONLY = frozenset(["Gamma", "zeta", "Re", "Im"])
"""Functions only in front of a bracket; alone these commands are letters."""
SEVERAL = frozenset(["gcd", "lcm", "max", "min"])
WORDS = frozenset(
    [
        *(name for name in FUNCTIONS if name not in CALLED_ONLY),
        *SEVERAL,
        "sqrt",
        "pi",
        "infinity",
        "infty",
        "inf",
        "oo",
        "binom",
        "binomial",
        "choose",
        "mod",
    ]
)
"""Commands that may be written without a backslash."""
GREEK = frozenset([
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta",
    "vartheta", "iota", "kappa", "lambda", "mu", "nu", "xi", "omicron", "rho", "varrho",
    "sigma", "varsigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega", "Gamma",
    "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega", "ell",
    "hbar", "nabla", "partial", "aleph",
])  # fmt: skip
ACCENTS = frozenset([
    "vec", "hat", "bar", "tilde", "dot", "ddot", "overline", "underline", "widehat",
    "widetilde", "overrightarrow", "mathbb", "mathcal", "mathfrak", "mathscr", "mathsf",
])  # fmt: skip
"""Commands that make a letter of their argument another letter."""
LETTER_FACES = frozenset([
    "text", "mbox", "textit", "textrm", "mathrm", "mathit", "mathbf", "rm", "bf", "it",
])  # fmt: skip
CONSTANTS = {
    "pi": sympy.pi,
    "infty": sympy.oo,
    "infinity": sympy.oo,
    "inf": sympy.oo,
    "oo": sympy.oo,
    "imath": sympy.I,
}
BRACKETS = {
    "(": ")",
    "[": "]",
    "{": "}",
    r"\{": r"\}",
    r"\lfloor": r"\rfloor",
    r"\lceil": r"\rceil",
    r"\lvert": r"\rvert",
    r"\lbrace": r"\rbrace",
    r"\lbrack": r"\rbrack",
}
RELATIONS = {
    "=": "=",
    "<": "<",
    ">": ">",
    "<=": "<=",
    ">=": ">=",
    "!=": "!=",
    r"\lt": "<",
    r"\gt": ">",
    **dict.fromkeys([r"\le", r"\leq", r"\leqslant", r"\leqq"], "<="),
    **dict.fromkeys([r"\ge", r"\geq", r"\geqslant", r"\geqq"], ">="),
    **dict.fromkeys([r"\ne", r"\neq"], "!="),
}
TIMES = frozenset(["*", r"\cdot", r"\times", r"\ast"])
OVER = frozenset(["/", r"\div"])
FRACTIONS = frozenset([r"\frac", r"\dfrac", r"\tfrac", r"\cfrac"])
BINOMIALS = frozenset([r"\binom", r"\dbinom", r"\tbinom"])
BIG = frozenset([r"\sum", r"\prod", r"\int", r"\lim"])
ARROWS = frozenset([r"\to", r"\rightarrow", r"\longrightarrow"])
