"""Extraction of the answer from a response.

The answer format says what counts as an answer: `boxed` takes the content of the last box; `marked`
also the text after `####` or after "the answer is", and a response that is nothing but an answer;
`any` also the last formula or number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from reasontrain.data.thought_marks import KNOWN

AnswerFormat = Literal["boxed", "marked", "any"]

TAIL = 100_000
"""Characters from the end of a text that are searched; an answer before them is ignored."""
NEAR = 4_000
"""Characters from the end that are searched for an unmarked formula or number."""

_BOX = re.compile(r"(?:\\?f?boxed|\\fbox|\\framebox)\s*\{|\\boxed\s+(?=[\w+-])")
_BARE = re.compile(r"[\w+-][\w.+/-]*(?<!\.)")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_JOINED = re.compile(
    r"(?:[\s$\\()\[\]]|quad\b)*(?:,|;|\b(?:and|or)\b|\\text\s*\{\s*(?:,?\s*and|or)\s*\})"
    r"(?:[\s$\\()\[\],]|quad\b)*(?:and\b\s*\$?)?"
)
_MARK = re.compile(
    r"(?:\banswer\b(?:\s+to\s+[^.\n]{1,80}?)?\*{0,2}\s*(?:\bis\b|[:：=])|^[^\S\n]*A:"
    r"|答案(?:是|为|[:：])?)",
    re.IGNORECASE | re.MULTILINE,
)
_MATH = re.compile(
    r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$((?:[^$\\]|\\.)+)\$", re.DOTALL
)
_NUMBER = re.compile(r"[-+]?(?<![\w.])\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s*/\s*\d+)?(?:\s*\\?%)?")
_LAST_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.)])[-−]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:/\d+)?(?:\\?%)?"
)
_FINAL = re.compile(
    r"\bfinal answer "
    r"is:?\s*(?:\$[^$\n]{1,999}\$|\\\([^\n]{1,999}?\\\)|\\\[[^\n]{1,999}?\\\]|-?\d[\d,./]*\d|\d)",
    re.IGNORECASE,
)
"""A final answer after the last box, which outranks the box."""
_FINAL_START = re.compile(r"\bfinal answer\b", re.IGNORECASE)
_OPEN_BOX = re.compile(rf"(?:{_BOX.pattern})(?!\s*\}})")
"""A box that is not empty, after the last one that is closed."""
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s)|[。！？]")
_BOLD = re.compile(r"(?<![\w)}])\*\*([^*\n]+)\*\*(?!\w)")
_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}")
_SENTENCE = re.compile(r"\s*(?:[A-Za-z][a-z']*\s+){2,}[-+$\\]*[\d({\\]")
"""Two words and then a number or formula (`it is 5`): short, but not a bare answer."""
_TEXT = re.compile(r"\\(?:text|mbox|textnormal|textbf|mathrm|operatorname|begin|end)\s*\{[^{}]*\}")


def extract(
    text: str, *, answer_format: AnswerFormat = "marked", truncated: bool = False
) -> str | None:
    """Extract the answer of a response.

    Nothing within a chain of thought is an answer. In a truncated response, an answer counts only
    if it is complete before the cut: a closed box after which no other answer begins, or a marked
    answer in a sentence or line that ends.

    Args:
        text: the response.
        answer_format: what counts as an answer.
        truncated: the response was cut at its length limit.

    Returns:
        The answer; "" if there is none in this format, None if a chain of thought did not end.
    """
    reading = KNOWN.read(text, truncated=truncated)
    if reading.unfinished:
        return None
    text = text[reading.start :][-TAIL:]
    tagged = _in_answer_tag(text)
    if tagged is not None:
        text, is_closed = tagged
        truncated = truncated and not is_closed
    text = _BOLD.sub(r"\1", text)
    complete, rest = _until_sentence_end(text) if truncated else (text, "")
    box = _last_box(text)
    if box is not None:
        content, end = box
        if truncated and _continues(text, end):
            return ""
        final = None if answer_format == "boxed" else _FINAL.search(complete, end)
        return _after_mark(final.group()) if final else content.strip()
    # a statement that was cut replaces those before it
    if answer_format == "boxed" or "####" in rest or _MARK.search(rest) or _BOX.search(rest):
        return ""
    if "####" in complete:
        return complete.rpartition("####")[2].strip().partition("\n")[0].strip()
    marked = _after_mark(complete)
    if marked:
        return marked
    # the end of a response that was cut is not the end of its reasoning
    if truncated:
        return ""
    if _is_expression(text) and not _SENTENCE.match(text) and not _OPEN_BOX.search(text):
        return text.strip()
    if answer_format == "marked":
        return ""
    return _last_formula(text[-NEAR:]) or _last_number(text[-NEAR:])


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last box that is closed and not empty; None if there is none.

    Boxes with nothing but a comma or "and" between them (`\boxed{1}, \boxed{2}`) are one answer, a
    list.
    """
    box = _last_box(text[-TAIL:])
    return None if box is None else box[0]


def _last_box(text: str) -> tuple[str, int] | None:
    """Return the content of the last box and its end."""
    boxes = list(_boxes(text))
    if not boxes:
        return None
    start, last_end, content = boxes[-1]
    contents = [content]
    for earlier_start, earlier_end, earlier in reversed(boxes[:-1]):
        if start - earlier_end > 40 or not _JOINED.fullmatch(text, earlier_end, start):
            break
        contents.append(earlier)
        start = earlier_start
    return ", ".join(dict.fromkeys(reversed(contents))), last_end


def _boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, content) of the outermost closed boxes that are not empty, in order."""
    closing = _closing_braces(text)
    position = 0
    while match := _BOX.search(text, position):
        start = match.end()
        position = start
        if match.group().endswith("{"):
            if start - 1 not in closing:
                continue
            end = closing[start - 1]
            position = end + 1
        else:
            bare = _BARE.match(text, start)
            assert bare is not None, "the pattern of boxes looks ahead for a bare argument"
            end = bare.end()
            position = end
        if text[start:end].strip():
            yield match.start(), position, text[start:end]


def _closing_braces(text: str) -> dict[int, int]:
    """Map the index of every closed opening brace to its closing brace, ignoring escaped ones."""
    closing: dict[int, int] = {}
    waiting: list[int] = []
    for match in _BRACE.finditer(text):
        if match.group() == "{":
            waiting.append(match.start())
        elif match.group() == "}" and waiting:
            closing[waiting.pop()] = match.start()
    return closing


def _in_answer_tag(text: str) -> tuple[str, bool] | None:
    """Return the content of the last `<answer>` and True if it is closed; None without one."""
    _, opened, after = text.rpartition("<answer>")
    content, closed, _ = after.partition("</answer>")
    return (content, bool(closed)) if opened else None


def _until_sentence_end(text: str) -> tuple[str, str]:
    """Split a truncated text after its last complete sentence or line."""
    end = max((match.end() for match in _SENTENCE_END.finditer(text)), default=0)
    return text[:end], text[end:]


def _continues(text: str, end: int) -> bool:
    """Return True if another answer begins after the box that ends at `end`, and was cut."""
    after = text[end:]
    _, rest = _until_sentence_end(after)
    is_cut = not after and not text.endswith("}")  # `\boxed 12`, without braces
    return (
        is_cut
        or _OPEN_BOX.search(after) is not None
        or _JOINED.fullmatch(after) is not None
        or _FINAL_START.search(rest) is not None
    )


def _after_mark(text: str) -> str:
    """Return the text after the last "the answer is", up to the end of formula or sentence."""
    marks = list(_MARK.finditer(text))
    if not marks:
        return ""
    rest = text[marks[-1].end() :].lstrip(" *:_`\n\t：")
    formula = _MATH.search(rest[:2000])
    if formula and not _WORD.search(rest[: formula.start()].replace("approximately", "")):
        return _with_unit(rest, formula)
    line = rest.partition("\n")[0][:2000].replace("**", "").strip()
    sentence = re.split(r"\.(?:\s|$)|[。！]", line)[0].strip(" .`_")
    if _is_expression(sentence):
        return sentence
    number = _NUMBER.match(sentence)
    if number:
        return number.group().strip()
    after_verb = re.split(r"\b(?:is|are|equals)\b", sentence)[-1].strip()
    return after_verb if _is_expression(after_verb) else sentence


def _with_unit(text: str, formula: re.Match[str]) -> str:
    """Return a formula with the percent sign that follows it."""
    content = next(group for group in formula.groups() if group is not None)
    percent = re.match(r"\s*(?:\\?%|percent\b|pct\b)", text[formula.end() :])
    return f"{content.strip()}\\%" if percent else content.strip()


def _is_expression(text: str) -> bool:
    """Return True if a text is a bare answer: one formula or number, or a word or two."""
    if len(text.strip()) > NEAR:
        return False
    bare = _TEXT.sub(" ", text.strip())
    formula = _MATH.search(bare)
    if formula and _WORD.search(bare[: formula.start()]):
        return False
    if not bare.strip() or "\n\n" in bare:
        return bool(text.strip()) and not bare.strip()
    words = [word for word in _WORD.findall(bare) if word.lower() not in _MATH_WORDS]
    return len(words) <= (2 if len(bare.split()) <= 3 else 1) and not re.search(
        r"[.:。：]\s+\S|[\u0600-\u06ff\u4e00-\u9fff]", bare
    )


_MATH_WORDS = frozenset(
    [
        "sqrt",
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "log",
        "exp",
        "arcsin",
        "arccos",
        "arctan",
        "and",
        "mod",
        "inf",
    ]
)


def _last_formula(text: str) -> str:
    """Return the last formula between dollars or \\(...\\) that contains no prose.

    Two dollar amounts in a sentence look like one formula with prose in it.
    """
    for formula in reversed(list(_MATH.finditer(text))):
        content = next(group for group in formula.groups() if group is not None)
        if len(_WORD.findall(_TEXT.sub(" ", content))) <= 1:
            return _with_unit(text, formula)
    return ""


def _last_number(text: str) -> str:
    numbers = [
        match.group()
        for match in _LAST_NUMBER.finditer(text)
        if any(char.isdigit() for char in match.group())
    ]
    return numbers[-1].replace("$", "") if numbers else ""
