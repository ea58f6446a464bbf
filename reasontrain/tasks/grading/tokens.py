"""Tokens of LaTeX and of plain notation, in which functions are words (`sqrt(2)`, `2*x`)."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

from reasontrain.tasks.grading import vocabulary
from reasontrain.tasks.grading.vocabulary import UnreadableError


class Token(NamedTuple):
    """A number, letter, word, command or sign, and a flag for a space before it."""

    kind: str
    text: str
    spaced: bool = False


END = Token("end", "")

_SPACE = re.compile(
    r"(?:\s|~|\\[,;:! ]|\\(?:text|mbox|mathrm)\s*\{\s*\}|\\(?:left|right|quad|qquad|displaystyle"
    r"|limits|nolimits|thinspace|[bB]igg?[lr]?)(?![a-zA-Z]))+"
)
_NUMBER = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3}(?![a-zA-Z\d]))?")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_LETTERS = re.compile(r"[a-zA-Z]+")
_FACE = re.compile(
    r"\\(?:operatorname\*?|text|mbox|mathrm|mathit|mathbf|textit|textrm|textbf)"
    r"\s*\{\s*([a-zA-Z]+)\s*\}"
)
_SIGNS = re.compile(r"\*\*|!!|<=|>=|!=|\\[{}%|]|[-+*/^_=<>()\[\]{}|!',%°]")

_SYNONYMS = {"**": "^", "°": r"\circ", r"\lbrack": "[", r"\rbrack": "]"}

_AFFIXES = r"arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|log|ln|exp|sqrt"
_PREFIX = re.compile(rf"({_AFFIXES})([a-zA-Z])")
_SUFFIX = re.compile(rf"([a-zA-Z]{{1,2}})({_AFFIXES}|pi)")
_DIFFERENTIALS = re.compile(r"(?:d[a-zA-Z]){2,}")
LONGEST_PRODUCT = 3
"""Letters in a row that may be a product; longer rows are words, unless in order (`abcd`)."""
_PROSE = frozenset([
    "all", "am", "an", "and", "any", "are", "as", "at", "but", "by", "even", "for", "had",
    "has", "he", "if", "is", "it", "its", "no", "nor", "not", "odd", "of", "on", "one", "or",
    "pm", "she", "so", "the", "then", "to", "was", "we",
])  # fmt: skip


def spelling(text: str) -> str:
    """Return the tokens of a text, without spaces and braces around single tokens."""
    words = " ".join(token.text for token in tokens(text))
    return re.sub(r"\{ (\S+) \}", r"\1", words)


def tokens(text: str) -> list[Token]:
    """Split a text; raise UnreadableError at a character that no token has."""
    result: list[Token] = []
    index = 0
    depth = 0
    while index < len(text):
        space = _SPACE.match(text, index)
        if space:
            index = space.end()
            if index == len(text):
                break
        spaced = space is not None
        # commas inside brackets separate arguments
        number = (_THOUSANDS.match(text, index) if depth == 0 else None) or _NUMBER.match(
            text, index
        )
        if face := _FACE.match(text, index):
            # a word in upright letters is one function or one word, and no product
            letter = len(face[1]) == 1
            result += _words(face[1], spaced) if letter else [_word(face[1], spaced)]
            index = face.end()
        elif number:
            result.append(Token("number", number[0].replace(",", ""), spaced))
            index = number.end()
        elif letters := _LETTERS.match(text, index):
            result += _words(letters[0], spaced)
            index = letters.end()
        elif match := _COMMAND.match(text, index) or _SIGNS.match(text, index):
            sign = _SYNONYMS.get(match[0], match[0])
            result.append(Token("command" if match[0][1:2].isalpha() else "sign", sign, spaced))
            depth += (sign in ("(", "[", "{", r"\{")) - (sign in (")", "]", "}", r"\}"))
            index = match.end()
        else:
            raise UnreadableError(text[index])
    return result


def _word(letters: str, spaced: bool) -> Token:
    if letters in vocabulary.WORDS:
        return Token("command", "\\" + letters, spaced)
    return Token("word", letters, spaced)


def _words(letters: str, spaced: bool) -> list[Token]:
    """Split letters without a backslash into functions, words and variables."""
    if letters in vocabulary.WORDS:
        return [_word(letters, spaced)]
    if match := _PREFIX.fullmatch(letters):
        return [Token("command", "\\" + match[1], spaced), Token("letter", match[2])]
    if match := _SUFFIX.fullmatch(letters):
        return [*_words(match[1], spaced), Token("command", "\\" + match[2])]
    is_product = (
        len(letters) <= LONGEST_PRODUCT
        or all(first < second for first, second in pairwise(letters))
        or _DIFFERENTIALS.fullmatch(letters)
    )
    if not is_product and letters.isupper():
        return [Token("letter", letters, spaced)]
    if letters in _PROSE or not is_product:
        return [Token("word", letters, spaced)]
    return [Token("letter", letter, spaced and index == 0) for index, letter in enumerate(letters)]
