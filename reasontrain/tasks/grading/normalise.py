r"""Normalisation of LaTeX and plain text: dollars, wrappers, spacing, Unicode signs.

The result is plain LaTeX: text stands in `\text{...}`, wrappers that only change the look are gone,
synonyms have one spelling. No sign, digit or subscript is lost, and nothing is evaluated.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_SIGNS = {
    "−": "-",
    "–": "-",
    "—": "-",
    "‐": "-",
    "‑": "-",
    "‒": "-",
    "×": r"\times ",
    "⋅": r"\cdot ",
    "·": r"\cdot ",
    "÷": "/",
    "∕": "/",
    "⁄": "/",
    "∞": r"\infty ",
    "°": r"^\circ ",
    "º": r"^\circ ",
    "℃": r"^\circ\text{C}",
    "℉": r"^\circ\text{F}",
    "′": "'",
    "″": "''",
    "’": "'",
    "‘": "'",
    "≤": r"\le ",
    "⩽": r"\le ",
    "≥": r"\ge ",
    "⩾": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "≃": r"\approx ",
    "≡": r"\equiv ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∉": r"\notin ",
    "∖": r"\setminus ",
    "∧": r"\land ",
    "∨": r"\lor ",
    "∣": r"\mid ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}",
    "∅": r"\emptyset ",
    "⌀": r"\emptyset ",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "〈": r"\langle ",
    "〉": r"\rangle ",
    "⌊": r"\lfloor ",
    "⌋": r"\rfloor ",
    "⌈": r"\lceil ",
    "⌉": r"\rceil ",
    "…": "...",
    "⋯": "...",
    "→": r"\to ",
    "、": ", ",
    "。": ".",
    "✓": "",
    "✔": "",
    "✅": "",
    "\x00": " ",
    "\u00ad": "",
    "\u200b": "",
    "\u200c": "",
    "\u200d": "",
    "\u200e": "",
    "\u200f": "",
    "\u2060": "",
    "\ufe0f": "",
    "\ufeff": "",
}
_GREEK = {
    "α": "alpha",
    "β": "beta",
    "γ": "gamma",
    "δ": "delta",
    "ε": "epsilon",
    "ζ": "zeta",
    "η": "eta",
    "θ": "theta",
    "κ": "kappa",
    "λ": "lambda",
    "μ": "mu",
    "ξ": "xi",
    "π": "pi",
    "ρ": "rho",
    "σ": "sigma",
    "τ": "tau",
    "φ": "phi",
    "χ": "chi",
    "ψ": "psi",
    "ω": "omega",
    "Γ": "Gamma",
    "Δ": "Delta",
    "Θ": "Theta",
    "Λ": "Lambda",
    "Π": "Pi",
    "Σ": "Sigma",
    "Φ": "Phi",
    "Ψ": "Psi",
    "Ω": "Omega",
}
_TABLE = str.maketrans(_SIGNS | {char: f"\\{name} " for char, name in _GREEK.items()})
_RAISED = re.compile(r"[⁰¹²³⁴-⁹⁺⁻⁼⁽⁾ⁿⁱ]+")
_LOWERED = re.compile(r"[₀-₉₊₋₌₍₎ₐₑₒₓₙₘᵢⱼ]+")
_ROOT = re.compile(r"([√∛∜])\s*(?:\(([^()]*)\)|(\d+(?:\.\d+)?|[a-zA-Z])|)")
_ROOTS = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}
_BLOCKS = re.compile(r"[\ufe50-\ufe6b\uff01-\uff5e\u3000\U0001d400-\U0001d7ff\ufb00-\ufb06]+")
"""Full-width forms, mathematical letters and ligatures, whose compatibility form is plain."""

_PLAIN = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?")
_TOKEN = re.compile(r"\\[a-zA-Z]+\*?|\\.|[{}]|[^\\{}]+|\\", re.DOTALL)
_LOOKS = frozenset(
    [
        *("boxed", "fbox", "framebox", "mathbf", "mathit", "mathsf", "mathtt", "mathnormal"),
        *("boldsymbol", "bm", "pmb", "ensuremath", "underline", "uline", "emph", "textcolor"),
        *("colorbox", "displaystyle", "textstyle", "scriptstyle", "scriptscriptstyle"),
        *("large", "Large", "LARGE", "huge", "Huge", "small", "footnotesize", "tiny"),
        *("normalsize", "bf", "it", "bfseries", "itshape", "limits", "nolimits", "left", "right"),
        *("middle", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "biggl"),
        *("biggr", "Biggl", "Biggr", "bigm", "Bigm", "mathstrut", "strut", "operatorname"),
        *("operatorname*", "mathop", "mathord", "mathrel", "mathbin", "color", "hfill"),
    ]
)
"""Commands that change the look of their argument or of what follows, and are dropped."""
_TEXTS = frozenset(
    [
        *("text", "mbox", "hbox", "textnormal", "textrm", "textsf", "texttt", "textbf", "textit"),
        *("textup", "textmd", "rm", "mathrm"),
    ]
)
_WITHOUT_ARGUMENT = frozenset(
    ["tag", "tag*", "label", "phantom", "hphantom", "vphantom", "hspace", "hspace*", "vspace"]
)
"""Commands that are dropped with their argument."""
_ALIASES = {
    "dfrac": r"\frac",
    "tfrac": r"\frac",
    "cfrac": r"\frac",
    "nicefrac": r"\frac",
    "sfrac": r"\frac",
    "flatfrac": r"\frac",
    "xfrac": r"\frac",
    "dbinom": r"\binom",
    "tbinom": r"\binom",
    "geq": r"\ge ",
    "geqslant": r"\ge ",
    "geqq": r"\ge ",
    "leq": r"\le ",
    "leqslant": r"\le ",
    "leqq": r"\le ",
    "neq": r"\ne ",
    "gt": ">",
    "lt": "<",
    "dots": "...",
    "ldots": "...",
    "cdots": "...",
    "dotsc": "...",
    "dotsb": "...",
    "lvert": "|",
    "rvert": "|",
    "vert": "|",
    "lbrace": r"\{",
    "rbrace": r"\}",
    "lbrack": "[",
    "rbrack": "]",
    "lparen": "(",
    "rparen": ")",
    "quad": " ",
    "qquad": " ",
    "thinspace": " ",
    "enspace": " ",
    "space": " ",
    "varnothing": r"\emptyset ",
    "empty": r"\emptyset ",
    "vee": r"\lor ",
    "wedge": r"\land ",
    "lnot": r"\neg ",
    "smallsetminus": r"\setminus ",
    "backslash": r"\setminus ",
    "degree": r"^\circ ",
    "degrees": r"^\circ ",
    "colon": ":",
    "R": r"\mathbb{R}",
    "Reals": r"\mathbb{R}",
    "reals": r"\mathbb{R}",
    "simeq": r"\approx ",
    "approxeq": r"\approx ",
    "doteq": r"\approx ",
    "bigcup": r"\cup ",
    "bigcap": r"\cap ",
    "div": "/",
    "ast": "*",
    "textdollar": r"\$",
    "euro": "€",
    "pounds": "£",
    "coloneqq": "=",
    "coloneq": "=",
    "cr": r"\\",
    "newline": r"\\",
    "textpercent": r"\%",
    "lang": r"\langle ",
    "rang": r"\rangle ",
    "infin": r"\infty ",
    "isin": r"\in ",
}
_SPACES = frozenset([r"\,", r"\;", r"\:", r"\>", r"\ ", "\\\n", "\\\t", r"\/"])
_THOUSANDS = re.compile(r"(?<=\d)(?<!(?<!\d)0)\s*(?:\{,\}|,\s*\\!|\\!\s*,|\\!)\s*(?=\d{3}(?!\d))")
"""A mark between thousands that cannot be the comma of a list."""
_GROUPED = re.compile(r"(?<![\w.\\}])\d{1,3}(?:\\?_\d{3})+(?![\w{])")
"""Digits in groups of three, as in `12_345`; a base has two digits at most."""
_DECIMAL_COMMA = re.compile(r"(?<![\d}.,])(\d+)\{,\}(\d{1,2}|\d{4,})(?![\d.,]|\{,\})")
"""The comma of a decimal, which is in braces in LaTeX because that of a list is not."""
_FACE_OF_NUMBER = re.compile(r"\\math(?:bb|cal|frak|scr|ds)\s*\{\s*(-?\d[\d.,]*)\s*\}")
_DEGREE_LETTER = re.compile(
    r"(?<=\d)\s*\^\s*(?:\{\s*)?(?:\\text\s*\{\s*o\s*\}|o(?![a-zA-Z]))(?:\s*\})?"
)
"""A small letter for the sign of degrees."""
_CASE_CONDITION = re.compile(r"[\s,]*&[\s,]*(?:\\text\s*\{[\s,]*(?:if|for|when|where)\s*\})?\s*")
"""What separates a case from its condition."""
_CASE_END = re.compile(r"[,;]\s*(?=\\\\|\\end\{cases\})")
_ALIGNED = re.compile(
    r"\\(?:begin|end)\s*\{(?:aligned|align|gathered|gather|split|equation|multline|eqnarray"
    r"|flalign|alignedat|alignat)\*?\}(?:\{\d*\}|\[[tcb]\])?"
)
_WIDE_SPACE = re.compile(
    r"(?:\\q?quad\s*)+(?=[a-zA-Z]\w*\s*=|\\text\s*\{\s*\((?:[a-h]|[ivx]{1,4}|\d)\))"
)
"""What separates two equations or labelled parts on one line."""
_SINGLE_CELL = re.compile(
    r"(?<![\[(.{])\\begin\s*\{array\}\{[lcr]\}((?:(?!\\begin|\\\\)[^&])*)\\end\s*\{array\}"
)
_LINES = re.compile(
    r"(?<![\[(.{])\s*\\begin\s*\{(cases|array)\}(?:\{[lcr|\s]*\})?((?:(?!\\begin)[^&=])*"
    r"(?:=|&\s*=)(?:(?!\\begin).)*?)\\end\s*\{\1\}",
    re.DOTALL,
)
"""One or more equations below each other."""
_QUOTED = re.compile(r"([\"`])([^\"`]+)\1")
_REMARKS = re.compile(
    r"\A(?:\\(?:therefore|implies|(?:R|r|Long|long)?[rR]ightarrow)(?![a-zA-Z])\s*)+(?=\S)"
    r"|(?<=[\w})\]])(?:\s|\\[,;:! ])*\\(?:checkmark|blacksquare|qed)\Z"
)
"""Signs before and behind an answer that say nothing of it."""
_BOLD = re.compile(r"\*\*([^*]+)\*\*\.?")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_SET_SIGN = re.compile(r",|\\mid|:|\|")
"""A sign that makes braces a set; without one they group a value."""
TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
MAX_ROOTS = 100
"""The most root signs that are read."""
_SHORT_WORDS = frozenset(["no", "of", "in", "at", "to", "is", "am", "pm", "or", "on"])


def normalise(text: str) -> str:
    """Normalise the spelling of a text, keeping words and single spaces; evaluates nothing."""
    text = text.strip()
    return text if _PLAIN.fullmatch(text) else _normalised(text)


@lru_cache(maxsize=16_384)
def _normalised(text: str) -> str:
    if not text.isascii():
        text = _ascii_signs(text)
    if text.startswith("**"):
        text = _BOLD.sub(r"\1", text)
    if text[:1] in '"`' and (quoted := _QUOTED.fullmatch(text)) is not None:
        text = quoted[2]
    if "\\" in text:
        text = _REMARKS.sub("", text)
    if "$" in text:
        text = _without_delimiters(text)
    if "\\" in text or "{" in text:
        if r"\begin" in text:
            text = _without_alignment(text)
        if r"\begin" not in text:
            # a text that was escaped twice
            text = re.sub(r"\\\\(?=[a-zA-Z]{2}|[%{}$])", lambda _: "\\", text)
        if "quad" in text:
            text = _WIDE_SPACE.sub(", ", text)
        text = _THOUSANDS.sub("", text)
        if "{,}" in text and not re.search(r"[(\[]|\\\{", text):
            text = _DECIMAL_COMMA.sub(r"\1.\2", text)
        text = text.replace("{,}", ",")
        text = re.sub(r"\\([()]|[\[\]](?![a-zA-Z\d]*\{))", "", text)
        text = re.sub(r"\^\s*\{\s*\\circ\s*\}", r"^\\circ ", text)
        text = _arguments(_without_looks(text))
        text = _FACE_OF_NUMBER.sub(r"\1", text) if r"\math" in text else text
        if r"\begin{cases}" in text:
            text = _CASE_END.sub("", _CASE_CONDITION.sub(" & ", text))
    if "^" in text and "o" in text:
        text = _DEGREE_LETTER.sub(r"^\\circ ", text)
    if "_" in text:
        text = _GROUPED.sub(lambda match: re.sub(r"[\\_]", "", match.group()), text)
    if "=" in text:
        text = text.replace(">=", r"\ge ").replace("<=", r"\le ").replace("!=", r"\ne ")
    text = re.sub(r"\s+", " ", text.replace("~", " ")).strip()
    bare = _without_group(_without_stop(text))
    return bare if bare == text else _without_stop(bare)


def _without_stop(text: str) -> str:
    """Remove punctuation at the end, unless it is the dots of a list."""
    while text and text[-1] in ".,;:\\ " and not text.endswith("..."):
        text = text[:-1]
    return text


def squeezed(text: str) -> str:
    """Remove spaces (except between digits), text wrappers and braces around one character."""
    if text.isalnum():
        return text
    text = TEXT.sub(r"\1", text)
    # a space between digits, and one that tells the list `1, 300` from a number, has a meaning
    text = re.sub(r"(?<![\d,])\s+|\s+(?!\d)|(?<=,)\s+(?!\d{3}(?!\d))", "", text)
    return re.sub(r"([\^_])\{(\w)\}", r"\1\2", text) if "{" in text else text


def _ascii_signs(text: str) -> str:
    """Write Unicode signs, digits and letters in LaTeX."""
    # a circled number is one alone; several (`①③`) are a choice of statements
    if len(text) == 1 and (number := _compatible(text)).isdecimal():
        return number
    text = _BLOCKS.sub(lambda block: unicodedata.normalize("NFKC", block.group()), text)
    text = _RAISED.sub(lambda digits: f"^{{{_compatible(digits.group())}}}", text)
    text = _LOWERED.sub(lambda digits: f"_{{{_compatible(digits.group())}}}", text)
    if not text.isascii():
        text = _ROOT.sub(_root, text, count=MAX_ROOTS)
        text = "".join(char if char.isascii() else _plain_char(char) for char in text)
    return text.translate(_TABLE)


def _compatible(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("−", "-")


def _root(match: re.Match[str]) -> str:
    sign, group, digits = match.groups()
    radicand = group or digits
    return f"{_ROOTS[sign]}{{{radicand}}}" if radicand else _ROOTS[sign]


def _plain_char(char: str) -> str:
    """Write vulgar fractions, foreign digits and foreign spaces plainly; keep other characters."""
    category = unicodedata.category(char)
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category == "Zs":
        return " "
    if category == "No" and "\u2044" in (fraction := unicodedata.normalize("NFKC", char)):
        top, _, bottom = fraction.partition("\u2044")
        return f"\\frac{{{top}}}{{{bottom}}}" if bottom else char
    return char


def _without_delimiters(text: str) -> str:
    r"""Remove the dollars around formulas; a single one before a number is a currency, `\$`."""
    dollars = len(re.findall(r"(?<!\\)\$", text))
    if dollars % 2:
        text = re.sub(r"(?<!\\)\$(?=\s*\d)", r"\\$", text, count=1)
    # `$1$,$300$` is a list, and not the number 1,300
    text = re.sub(r"(?<!\\)\$\s*,\s*(?<!\\)\$", ", ", text)
    return re.sub(r"(?<!\\)\$", "", text)


def _without_alignment(text: str) -> str:
    """Remove environments that put equations below each other; rows become a list or a chain."""
    text = _SINGLE_CELL.sub(r"\1", _LINES.sub(r" \2", _ALIGNED.sub(" ", text)))
    # without another environment, no cell is left
    ampersand = r"&\s*(?==)" if r"\begin" in text else "&"
    text = re.sub(ampersand, " ", text)
    return re.sub(r"\\\\\s*(?==)", " ", text)


def _without_looks(text: str) -> str:
    r"""Remove commands that only change the look, in one pass; text commands become `\text`."""
    output: list[str] = []
    # what takes the place of the brace that closes each open one
    closings: list[str] = []
    opening: str | None = None
    depth_of_text: int | None = None
    tokens = _TOKEN.findall(text)
    closing = _closing_braces(tokens)
    index = 0
    while index < len(tokens):
        token = tokens[index]
        index += 1
        if token == "{":
            is_closed = index - 1 in closing
            if index < len(tokens) and tokens[index] == r"\rm":
                opening = "text"
                index += 1
            if depth_of_text is not None:
                closings.append("")
            elif opening is None or not is_closed:
                output.append("{")
                closings.append("}")
            elif opening == "text":
                output.append(r"\text{")
                closings.append("}")
                depth_of_text = len(closings)
            else:
                closings.append("")
            opening = None
            continue
        if token == "}":
            if closings:
                if depth_of_text == len(closings):
                    depth_of_text = None
                output.append(closings.pop())
            else:
                output.append("}")
            continue
        if opening is not None:
            if not token.strip():
                continue
            if opening == "text" and not token.startswith("\\"):
                # one character is the argument: `\mathrm d`
                token = token.lstrip()
            opening = None
        if token[0] != "\\":
            output.append(token)
            continue
        name = token[1:]
        if name in _TEXTS:
            opening = "text"
        elif name in _LOOKS:
            if name in ("color", "textcolor", "colorbox"):
                index = _after_argument(tokens, index, closing)
            if name in ("left", "right") and index < len(tokens) and tokens[index][0] == ".":
                tokens[index] = tokens[index][1:] or " "
            opening = None if name in ("left", "right") else "look"
        elif name in _WITHOUT_ARGUMENT:
            index = _after_argument(tokens, index, closing)
        elif token in _SPACES:
            output.append(" ")
        elif token != r"\!":
            output.append(_ALIASES.get(name, token))
    return "".join(output)


def _after_argument(tokens: list[str], index: int, closing: dict[int, int]) -> int:
    """The index after the group in braces that begins at `index`, or `index` without one."""
    start = index
    while index < len(tokens) and not tokens[index].strip():
        index += 1
    return closing.get(index, start - 1) + 1


def _closing_braces(tokens: list[str]) -> dict[int, int]:
    """Map the index of every closed opening brace to the index of its closing brace."""
    closing: dict[int, int] = {}
    waiting: list[int] = []
    for index, token in enumerate(tokens):
        if token == "{":
            waiting.append(index)
        elif token == "}" and waiting:
            closing[waiting.pop()] = index
    return closing


def _arguments(text: str) -> str:
    r"""Add braces around one-character arguments of \frac and \sqrt: `\frac12` -> `\frac{1}{2}`."""
    text = re.sub(r"\\sqrt\s*(\d|[a-zA-Z])", r"\\sqrt{\1}", text)
    if r"\frac" not in text:
        return _plain_texts(text)
    text = re.sub(r"\\frac\s*\{", r"\\frac{", text)
    text = re.sub(r"\\frac\s*([a-zA-Z\d])\s*", r"\\frac{\1}", text)
    text = re.sub(r"(\\frac\{[^{}]*\})\s*([a-zA-Z\d])", r"\1{\2}", text)
    return _plain_texts(re.sub(r"(\\frac\{[^{}]*\})\s*\{", r"\1{", text))


def _plain_texts(text: str) -> str:
    r"""Remove `\text` around what has no letters, and around one letter of a formula."""
    if r"\text{" not in text:
        return text
    text = re.sub(r"\\text\{([^{}a-zA-Z]*)\}", _unless_foreign, text)
    # a conjunction is a text of its own
    text = re.sub(r"\\text\{([^{}]*\S)\s+(and|or)\s*\}", r"\\text{\1} \\text{ \2 }", text)
    text = re.sub(r"\\text\{\s*,?\s*(and|or)\s+([^{}]*\S)\s*\}", r"\\text{ \1 } \\text{\2}", text)
    return re.sub(r"\\text\{([ide])\}", r"\1", text)


def _unless_foreign(match: re.Match[str]) -> str:
    return match[1] if match[1].isascii() else match.group()


def _without_group(text: str) -> str:
    """Remove braces around the whole text, unless they may mean a set."""
    if not (text.startswith("{") and text.endswith("}")):
        return text
    waiting: list[int] = []
    closing: dict[int, int] = {}
    for match in _BRACE.finditer(text):
        if match.group() == "{":
            waiting.append(match.start())
        elif match.group() == "}" and waiting:
            closing[waiting.pop()] = match.start()
    start = 0
    end = len(text)
    while start < end and closing.get(start) == end - 1:
        start += 1
        end -= 1
        while start < end and text[start] == " ":
            start += 1
        while start < end and text[end - 1] == " ":
            end -= 1
    inside = text[start:end]
    return f"{{{inside}}}" if start and _SET_SIGN.search(inside) else inside


def words(text: str) -> str | None:
    r"""Return the plain words of an answer (`\text{Evelyn}`, `(C)`, `east`), in lower case.

    A single letter keeps its case and loses its brackets; `(C) Plane` is reduced to the letter. The
    result is None for a formula.
    """
    bare = TEXT.sub(r"\1", text).strip(" .,")
    if re.fullmatch(r"\(?\s*[A-Za-z]\s*\)?", bare):
        return bare.strip("() ")
    choice = re.match(r"\(([A-Z])\)\s*[A-Za-z]{2}", bare)
    if choice:
        return choice[1]
    plain = re.fullmatch(r"[A-Za-z][A-Za-z '.-]*[A-Za-z.]", bare)
    meant = bare != text.strip(" .,") or all(
        len(word) > 2 or word.lower() in _SHORT_WORDS for word in bare.split()
    )
    return " ".join(bare.lower().split()) if plain and meant else None
