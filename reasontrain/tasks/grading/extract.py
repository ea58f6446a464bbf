"""Extraction of the answer from a response.

The answer format says what counts as an answer: `boxed` takes the content of the last box; `marked`
also the text after `####` or after "the answer is", and a response that is nothing but an answer;
`any` also the last formula or number.

The steps: the response's own turn (`turns`), after its thoughts; the last box (`boxes`); the last
statement of an answer (`marks`, in the words of `languages`) and the value that it states
(`claim`); the whole text, if it is nothing but an answer.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from typing import Literal

from reasontrain.data.thought_marks import KNOWN
from reasontrain.tasks.grading import boxes, claim, formulas, marks, turns, units_after, value
from reasontrain.tasks.grading.gold_mark import HASHES
from reasontrain.tasks.grading.languages import ALTERNATIVES, LANGUAGES, Language
from reasontrain.tasks.grading.normalise import TEXT

AnswerFormat = Literal["boxed", "marked", "any"]

TAIL = 100_000
"""Characters from the end of a text that are searched; an answer before them is ignored."""
NEAR = 4_000
"""Characters from the end that are searched for an unmarked formula or number."""

_LAST_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.)])[-−]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:/\d+)?(?:\\?%)?"
)
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s)|[。！？।]")
_BOLD = re.compile(r"(?<![\w)}])\*\*([^*\n]+)\*\*(?!\w)")
_BOLD_LINE = re.compile(r"\n[^\S\n]*\*\*([^*\n]{1,60})\*\*[\s.]*\Z")
_SENTENCE = re.compile(r"\s*(?:[A-Za-z][a-z']*\s+){2,}[-+$\\]*[\d({\\]")
"""Two words and then a number or formula (`it is 5`): short, but not a bare answer."""
_DIGIT = re.compile(r"\d")
_PREDICATE = re.compile(
    r"(?:\A|[.!?:]\s+|\n)[^\S\n]*(?:(?:so|thus|hence|then|therefore|and)\b,?\s+)*"
    rf"(?P<value>(?={value.VALUE})[^\n]{{1,60}}?|\(?(?-i:[A-J])\)?)\s+"
    r"(?:is|are|must be|should be)\s+(?:the|our|my)\s+"
    r"(?:(?:final|correct|right)\s+)*answers?[\s.!*$]*\Z",
    re.IGNORECASE,
)
"""`12 is the answer`, as the last sentence."""
_CHOSEN = re.compile(
    r"(?:\A|[\s。，,；;：:])(?:所以|因此|综上|故|应|應|本题|答案)*[选選](?:择|擇|项|項)?[\s:：]*[（(]?"
    r"([A-H])[）)]?[\s.。]*\Z"
)
"""`选B`, as the last words."""
_DENIED = re.compile(
    r"[\s$*)\]}]*(?:(?:is|was|are|would be|seems)\s+(?:\w+ly\s+)?(?:not|wrong|incorrect|false|never"
    r"|impossible|too\s+(?:big|large|small|low|high))\b"
    r"|(?:is|was|are)n['’]t\b|can(?:not|['’]t)\s+be\b)",
    re.IGNORECASE,
)
"""What takes back the value before it."""
_ANSWER_TAG = re.compile(r"<(?P<closes>/?)answer>", re.IGNORECASE)
_VERB = re.compile(r"\b(?:is|are|was|were|has|have|had|be|makes|gives|costs|needs|left)\b")
_STARTS_WITH_VALUE = re.compile(value.VALUE)


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
    reading = KNOWN.read(text, truncated=truncated, stops=turns.ends(text))
    if reading.unfinished:
        return None
    truncated = truncated and reading.end is None
    text = text[reading.start : reading.end]
    text = text[turns.head(text) :][-TAIL:]
    tagged = _in_answer_tag(text)
    if tagged is not None:
        text, is_closed = tagged
        truncated = truncated and not is_closed
    for position in turns.next_problems(text)[:8]:
        if _is_answered(text[:position], answer_format):
            text = text[:position]
            truncated = False
            break
    return _truncated(text, answer_format) if truncated else _complete(text, answer_format)


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last box that is closed and not empty; None if there is none.

    Boxes that a short connection joins (`\boxed{1}, \boxed{2}`) are one answer, a list.
    """
    box = boxes.last(text[-TAIL:])
    return None if box is None else box.content


def _complete(text: str, answer_format: AnswerFormat) -> str:
    """Extract the answer of a text that was not cut."""
    box = boxes.last(text)
    if box is not None:
        content = _in_box(box.content)
        if answer_format == "boxed":
            return content
        other = claim.alternative(text, box.end)
        return _after_box(text, box.end) or (f"{content} or {other}" if other else content)
    if answer_format == "boxed":
        return ""
    predicate = _PREDICATE.search(text, max(0, len(text) - NEAR))
    if predicate is not None:
        return value.value_in(predicate["value"], LANGUAGES["en"])
    chosen = _CHOSEN.search(text, max(0, len(text) - NEAR))
    if chosen is not None:
        return chosen[1]
    stated = _stated(text)
    if stated is not None and stated.is_answer:
        return stated.text
    if _is_bare(text) and not boxes.is_unclosed(text):
        bare = _unbold(text)
        return value.value_in(bare, LANGUAGES["en"]) if _is_phrase(bare) else bare
    if answer_format == "any" and not (stated and _DIGIT.search(stated.text)):
        return _unmarked(text) or (stated.text if stated else "")
    return stated.text if stated else ""


def _truncated(text: str, answer_format: AnswerFormat) -> str:
    """Extract the answer of a text that was cut; "" unless it is complete before the cut."""
    complete, rest = _until_sentence_end(text)
    box = boxes.last(text)
    if box is not None:
        if _continues(text, box.end):
            return ""
        final = "" if answer_format == "boxed" else _after_box(complete, box.end)
        return final or _in_box(box.content)
    # a statement that was cut replaces those before it
    if answer_format == "boxed" or HASHES in rest or marks.find(rest) or boxes.is_unclosed(rest):
        return ""
    # the end of a response that was cut is not the end of its reasoning
    stated = _stated(complete)
    return stated.text if stated else ""


def _stated(text: str) -> claim.Claim | None:
    """Return the last stated answer that is not a remark, or else the last statement.

    An answer that is stated as an alternative (`Or the answer is 5`) replaces none before it.
    """
    last = None
    beside: list[str] = []
    for mark in reversed(marks.find(text)[-marks.MAX_MARKS :]):
        stated = claim.read(text, mark)
        if stated.is_answer:
            before = _beside(mark.language or LANGUAGES["en"])
            if before.search(text, max(0, mark.start - 40), mark.start):
                beside.append(stated.text)
                continue
            return stated._replace(text=" or ".join([stated.text, *reversed(beside)]))
        last = last or stated
    return claim.Claim(" or ".join(reversed(beside)), True) if beside else last


@cache
def _beside(language: Language) -> re.Pattern[str]:
    """Compile the words before a statement of an answer that replaces none before it."""
    words = marks.alternatives((*language.ors, *ALTERNATIVES))
    return re.compile(rf"(?<![^\W\d_]){words}[\s,]+(?:[^\W\d_]+\s+){{0,3}}\Z", re.IGNORECASE)


def _after_box(text: str, start: int) -> str:
    """Return a value that is stated after the last box, which outranks the box; "" without one."""
    rest = text[start:]
    for mark in reversed(marks.find(rest)[-marks.MAX_MARKS :]):
        stated = claim.read(rest, mark)
        if stated.is_answer and _STARTS_WITH_VALUE.match(stated.text):
            return stated.text
    return ""


def _in_box(content: str) -> str:
    r"""Return the answer in a box that holds a sentence: `\text{The answer is } 5`."""
    if "text" not in content:
        return content
    plain = TEXT.sub(r"\1", content)
    stated = marks.find(plain)
    if not stated or stated[-1].language is None:
        return content
    return claim.read(plain, stated[-1]).text or content


def _is_answered(text: str, answer_format: AnswerFormat) -> bool:
    if boxes.last(text) is not None:
        return True
    if answer_format == "boxed":
        return False
    stated = _stated(text)
    return (stated is not None and stated.is_answer) or _is_phrase(_unbold(text))


def _in_answer_tag(text: str) -> tuple[str, bool] | None:
    """Return the content of the last `<answer>` and True if it is closed; None without a tag.

    A response whose prompt opened the tag only closes it. The contents of tags that nothing but
    space or a conjunction separates are alternatives.
    """
    tags = list(_ANSWER_TAG.finditer(text)) if ">" in text else []
    if not tags:
        return None
    spans: list[tuple[int, int]] = []
    opened: int | None = 0 if tags[0]["closes"] else None
    for tag in tags:
        if tag["closes"] and opened is not None:
            spans.append((opened, tag.start()))
            opened = None
        elif not tag["closes"]:
            opened = tag.end()
    if opened is not None:
        return text[opened:], False
    spans = [span for span in spans if text[span[0] : span[1]].strip()]
    if not spans:
        return "", True
    contents = [text[spans[-1][0] : spans[-1][1]].strip()]
    for before, after in pairwise(reversed(spans)):
        between = _ANSWER_TAG.sub("", text[after[1] : before[0]])
        if between.strip() and not boxes.connects(between):
            break
        content = text[after[0] : after[1]].strip()
        if content not in contents:
            contents.insert(0, content)
    return " or ".join(contents), True


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
        or boxes.is_unclosed(after)
        or (bool(after) and boxes.connects(after))
        or bool(marks.find(rest))
        or "final answer" in rest.lower()
    )


def _unbold(text: str) -> str:
    return _BOLD.sub(r"\1", text).strip()


def _is_bare(text: str) -> bool:
    """Return True if a text is nothing but an answer."""
    if len(text) > NEAR or HASHES in text:
        return False
    text = _unbold(text)
    return _is_phrase(text) or (_is_expression(text) and not _SENTENCE.match(text))


def _is_phrase(text: str) -> bool:
    """Return True for one short line that begins with a value: `3 hours 20 minutes`."""
    # brackets and formulas are no phrases
    return (
        0 < len(text) <= 80
        and "\n" not in text
        and text[0] not in "([{\\$"
        and _STARTS_WITH_VALUE.match(text) is not None
        and len(text.split()) <= 8
        and not _VERB.search(text)
        and not _SENTENCE_END.search(text)
    )


def _is_expression(text: str) -> bool:
    """Return True if a text is a bare answer: one formula or number, or a word or two."""
    spans = formulas.find(text)
    if spans and formulas.words(text[: spans[0].start]):
        return False
    bare = formulas.without_text(text).strip()
    if not bare or "\n\n" in bare:
        return bool(text) and not bare
    words = formulas.words(bare)
    return len(words) <= (2 if len(bare.split()) <= 3 else 1) and not re.search(
        r"[.:。：]\s+\S|[\u0600-\u06ff\u4e00-\u9fff]", re.sub(r"^\(?[A-J][.:)]\s", "", bare)
    )


def _unmarked(text: str) -> str:
    """Return the last line if it is bold, or else the last formula or number."""
    text = text[-NEAR:]
    line = _BOLD_LINE.search(text)
    if line:
        return line[1].strip(" .:")
    text = _BOLD.sub(r"\1", text)
    return _last_formula(text) or _last_number(text)


def _last_formula(text: str) -> str:
    r"""Return the last formula between dollars or \(...\) that contains no prose."""
    for formula in reversed(formulas.find(text)):
        if len(formulas.words(formula.content)) <= 1:
            if _DENIED.match(text, formula.end):
                return ""
            return f"{formula.content}{units_after.find(text, formula.end)}"
    return ""


def _last_number(text: str) -> str:
    numbers = [
        match
        for match in _LAST_NUMBER.finditer(text)
        if any(char.isdigit() for char in match.group())
    ]
    if not numbers:
        return ""
    last = numbers[-1]
    if _DENIED.match(text, last.end()):
        return ""
    return f"{last.group().replace('$', '')}{units_after.find(text, last.end())}"
