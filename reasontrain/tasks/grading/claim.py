"""The answer in a sentence that states one: the whole value, without remarks around it."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from reasontrain.tasks.grading import formulas
from reasontrain.tasks.grading.languages import LANGUAGES, TOTALS, Language
from reasontrain.tasks.grading.marks import Mark, alternatives, is_alphabetic

LONGEST = 2_000
"""Characters after a mark in which its answer ends."""
MAX_WORDS = 12
"""An answer of more words that has no value at its start is prose."""

VALUE = (
    r"(?:[-+−–±~≈<>≤≥]\s*)?(?:[A-Z]{0,2}[$€£¥₹₩]|(?:Rs|USD|EUR|GBP|RMB|Rp)\.?)?\s*"
    r"(?:[\d(\[{|√π∞½⅓⅔¼¾]|\.\d|\\(?!text|n\b)|\$|[-+−]\s?\d)"
)
_STARTS_WITH_VALUE = re.compile(rf"{VALUE}|[a-zA-Z](?:_\w|\([a-z]\))?\s*[=<>≤≥]")
_ANY_VALUE = re.compile(r"\d|[$\\]")
_NOISE = " \t\r\n*_:：=`>\"'«»“”→"
_BOLD = re.compile(r"(?<![\w)])\*\*|\*\*(?![\w(-])")
_END = re.compile(r"\n|[.!?](?=\s|$)|[。！？।؟۔]")
_ABBREVIATION = re.compile(
    r"(?:\b(?:[ap]\.m|i\.e|e\.g|rs|no|nr|st|approx|ca|vs|fig|eq|ft|in|hrs?|mins?|secs?|oz|lbs?|mr"
    r"|mrs|dr|sq|yrs?)|\.[a-z])$",
    re.IGNORECASE,
)
_CHOICE = re.compile(r"\(?[A-J]$")
_PHRASE = re.compile(
    rf"[.)]\s+(?:{VALUE}[^.!?\n]{{0,60}}(?:[.!?]|\n|$)"
    r"|(?!(?:This|It|That|So|Because|Therefore|We|I|Since|Hence|Thus|Here|The)\b)"
    r"[^\s.!?][^.!?\n]{0,60}?[.\s]*(?:\n|$))"
)
"""The text of a choice after its letter."""
_RULES = re.compile(r"(?:\s*(?:[-_=*]{3,}\s*\n|\$?\\f?boxed\s*\{\s*\}\$?))+")
"""Horizontal rules, and boxes that were left empty."""
_TAG = re.compile(r"</?(?:b|strong|em|i|u|p|br|span|div|center|code)\s*/?>", re.IGNORECASE)
_LIST = re.compile(r"[\s:*_]*\n\s*(?P<first>(?:[-*•]|\d{1,2}[.)])\s+)")
_ITEM = re.compile(r"\s*(?:[-*•]|\d{1,2}[.)])\s+(.+)")
_TOTAL = re.compile(rf"[\s*_-]*{alternatives(TOTALS)}\b[^:：=\n]{{0,40}}[:：=]+(.+)", re.IGNORECASE)
_NEUTRAL = (
    *("approximately", "approx.", "approx", "about", "roughly", "around", "exactly", "precisely"),
    *("simply", "just", "therefore", "thus", "then", "now", "indeed", "clearly", "hence", "either"),
    *("probably", "likely", "perhaps", "maybe", "possibly", "found to be", "given by", "equal to"),
    *("option", "choice", "donc", "alors", "also", "dunque", "quindi", "portanto", "entonces"),
    *("environ", "etwa", "ungefähr", "约", "大约", "約"),
)
"""Words before a value that change nothing."""
_LEAD = re.compile(rf"{alternatives(_NEUTRAL)}(?=[\s\d$\\(]):?\s*", re.IGNORECASE)
_QUALIFIER = (
    r"(?:at (?:least|most)|less than|more than|fewer than|not|minus|negative|about|approximately"
    r"|exactly|only|just|around|roughly|up to|between|a total of|equal to)"
)
_LABEL = re.compile(rf"[^\W\d_][^\d$\\:\n]{{1,40}}[:：]\s*(?={VALUE})")
_PREPOSITION = (
    r"(?<![^\W\d_])(?<!out )(?:in|on|at|for|from|by|with|of|under|during)\s+"
    r"(?:the|a|an|his|her|their|its|our|this|that|these|those|each|every|all)\b"
)
_COMPARISON = rf"(?:more|fewer|less|\b[a-z]{{3,9}}er) than(?!\s+{VALUE})"
_REST = (
    r"(?P<comma>[,;，；]\s*)|(?P<dash>\s[—–-]{1,2}\s+(?=[^\W\d_]{3}))|(?P<paren>\s*[(（])"
    rf"|(?P<remark>{_PREPOSITION}|{_COMPARISON}"
)
_HEDGE = r"(?:maybe|perhaps|possibly|probably|also|else|either|it|is|could|might|may|be|even)"
_SENTENCE = re.compile(
    r"(?:it|that|this|there|we|they|he|she|i|the|you|these|those)\b", re.IGNORECASE
)
_GOES_ON = re.compile(
    rf"(?:but\s+(?={_HEDGE}))?(?:(?:and|or|{_HEDGE}|et|ou|und|oder|y|o|e|и|или)\s+)*(?:{VALUE}"
    r"|\\text\{|[a-zA-Z](?:_\w|\([a-z]\))?\s*[=<>≤≥]|[A-H](?=\s*(?:[,;.)]|(?:and|or)\b|$)))",
    re.IGNORECASE,
)
_ALTERNATIVE = re.compile(
    rf"[\s.!?*]*(?:Or|Alternatively|Maybe|Perhaps|Possibly|It (?:could|might|may))\b"
    rf"(?:\W*\b{_HEDGE}\b)*\W*?(?={VALUE})"
)
_SOFT = re.compile(r"[\s.!?*,;(—-]*(?:wait|hmm|hold on|let me|no|actually)\b", re.IGNORECASE)
_HARD = re.compile(
    r"[\s.!?*,;(—-]*(?:(?:wait|no)\W+)*(?:oops|sorry|correction|scratch that|i (?:made|was|forgot)"
    r"|i mean|(?:that|this|which)(?:'s| is| was) (?:wrong|incorrect|not right|a mistake))\b",
    re.IGNORECASE,
)
_NEW_VALUE = re.compile(
    rf"(?:\b(?:it|that|this|answer|result)(?:'s| is| was)|should be|must be|i meant?|correction:?"
    rf"|(?:wait|no|sorry|actually|oops|hmm))\W+"
    rf"(?:(?:it's|it is|i meant?|wait|no|sorry|actually|really|rather|make that)\W+)*(?={VALUE})",
    re.IGNORECASE,
)
_IN_PARENTHESES = re.compile(r"\s*[(（]([^()（）]*)[)）]")
_ONLY_VALUE = re.compile(r"[-+−$\d.,/\\%\s]*\d[-+−$\d.,/\\%\s]*")
_ASIDE = re.compile(
    r"(?:given|found|shown|stated|obtained|expressed|rounded|written|computed|calculated|derived"
    r"|correct|incorrect|right|wrong|reasonable|consistent|verified|valid|unique|clear|below|above"
    r"|as|in|based|for|to be|what|therefore|an? (?:integer|number|whole|fraction|decimal|positive"
    r"|negative)|(?:positive|negative)(?!\s+[\d$\\])|not|also|indeed|obvious|the same)\b(?!\s*\()",
    re.IGNORECASE,
)
_INITIALS = re.compile(r"\b[a-zA-Z]\.[a-zA-Z]\.$")
"""`p.m.`, which keeps its last point."""
_TWICE = re.compile(r"(.+?),? or \1")
_CLOSERS = {")": "(", "]": "[", "}": "{"}


class Claim(NamedTuple):
    """What a statement gives.

    Attributes:
        text: the answer.
        is_answer: False if it reads like a remark about an answer.
        denied: it is what the answer is not.
    """

    text: str
    is_answer: bool
    denied: bool = False


def read(text: str, mark: Mark) -> Claim:
    """Read the answer after a mark."""
    window = text[mark.end : mark.end + LONGEST]
    language = mark.language or LANGUAGES["en"]
    if mark.language is None:
        return Claim(value(window.partition("\n")[0], language), True)
    listed = _list(window, language) if "\n" in window else None
    if listed:
        return Claim(listed, True)
    body = window.lstrip(_NOISE)
    if rules := _RULES.match(body):
        body = body[rules.end() :].lstrip(_NOISE)
    if "<" in body:
        body = _TAG.sub("", body).lstrip(_NOISE)
    if "**" in body:
        body = _BOLD.sub("", body)
    end = _sentence_end(body)
    sentence = body[:end]
    rest = body[end:]
    retracted = _retraction(rest, language) if rest else None
    if retracted is not None:
        return Claim(retracted, True)
    if mark.denied:
        affirmed = _affirmed(sentence, rest, language)
        if affirmed is None:
            return Claim(f"not {value(sentence, language)}", False, denied=True)
        return Claim(value(affirmed, language), True)
    claim = value(sentence, language)
    alternative = _ALTERNATIVE.match(rest) if rest else None
    if alternative:
        other = rest[alternative.end() :]
        second = value(other[: _sentence_end(other)], language)
        claim = f"{claim} or {second}"
    if twice := _TWICE.fullmatch(claim):
        claim = twice[1]
    return Claim(claim, _is_answer(claim))


def value(sentence: str, language: Language) -> str:
    """Return the value that a sentence states, without remarks before and after it."""
    sentence = sentence.strip(_NOISE)
    while lead := _LEAD.match(sentence):
        sentence = sentence[lead.end() :]
    if not _STARTS_WITH_VALUE.match(sentence):
        sentence = _after_lead(sentence, language)
    sentence = _clean(_without_remark(sentence, language), language)
    spans = formulas.find(sentence)
    if not spans:
        return sentence
    first = spans[0]
    if first.start == 0 and not sentence[first.end :].strip(" .,"):
        return first.content
    return formulas.without_delimiters(sentence)


def _sentence_end(body: str) -> int:
    """Return the end of the first sentence or line that is outside of formulas."""
    spans = formulas.find(body)
    for match in _END.finditer(body):
        start = match.start()
        if any(span.start < start < span.end for span in spans):
            continue
        head = body[:start]
        if match.group() == "\n":
            if head.count("\\begin") <= head.count("\\end"):
                return start
        elif match.group() == ".":
            following = body[match.end() :].lstrip()[:1]
            abbreviated = _ABBREVIATION.search(head[-8:])
            if abbreviated and (following.islower() or following.isdigit()):
                continue
            if _CHOICE.fullmatch(head) and _PHRASE.match(body, start):
                continue
            return start + (1 if abbreviated else 0)
        elif match.group() == "!" and not body[match.end() :].strip():
            continue
        else:
            return start
    return len(body)


def _list(window: str, language: Language) -> str | None:
    """Return the total of a list that follows a mark, or its items; None without a list."""
    listed = _LIST.match(window)
    if listed is None:
        return None
    items = []
    for line in window[listed.start("first") :].splitlines():
        if not line.strip():
            continue
        total = _TOTAL.match(line)
        if total:
            return value(total[1], language)
        item = _ITEM.match(line)
        if item is None:
            break
        items.append(value(_BOLD.sub("", item[1]), language))
    return ", ".join(items)


def _retraction(rest: str, language: Language) -> str | None:
    """Return the value that replaces the one before; "" if it is only taken back, else None."""
    hard = _HARD.match(rest)
    if not hard and not _SOFT.match(rest):
        return None
    new = list(_NEW_VALUE.finditer(rest))
    if new:
        body = rest[new[-1].end() :]
        return value(body[: _sentence_end(body)], language)
    return "" if hard else None


def _affirmed(sentence: str, rest: str, language: Language) -> str | None:
    """Return what is put in the place of a denied answer (not 12 but 15); None if nothing is.

    Args:
        sentence: the sentence after "is not".
        rest: the text after it, which may affirm (`It is 15.`).
        language: the language of the statement.
    """
    if language.affirmations:
        words = _word(language.affirmations, is_alphabetic(language.nouns[0]))
        if match := re.search(rf"\S\W*{words}\s*(.+)", sentence, re.IGNORECASE):
            return match[1]
    following = rest.lstrip(" .!*\n")
    new = _NEW_VALUE.match(following)
    if new is None:
        return None
    body = following[new.end() :]
    return body[: _sentence_end(body)]


def _word(words: tuple[str, ...], spaced: bool) -> str:
    """A pattern of any of some words, as whole words in a script with spaces."""
    pattern = alternatives(words)
    return rf"(?<![^\W\d_]){pattern}(?![^\W\d_])" if spaced else pattern


def _after_lead(sentence: str, language: Language) -> str:
    """Remove the words before a value, up to their verb: `she has at least 5` -> `at least 5`."""
    label = _LABEL.match(sentence)
    if label and sentence.count(":") == 1:
        return sentence[label.end() :]
    has_value = _ANY_VALUE.search(sentence) is not None
    if not has_value:
        sentence = _without_remark(sentence, language)
    matches = list(_verbs(language).finditer(sentence))
    if has_value:
        before_value = [match for match in matches if match["value"] is not None]
        return sentence[before_value[-1].end() :] if before_value else sentence
    if not matches:
        return sentence
    last = matches[-1]
    rest = sentence[last.end() :]
    return rest if len(rest.split()) <= 3 and rest.strip() and last.start() > 0 else sentence


@cache
def _verbs(language: Language) -> re.Pattern[str]:
    verb = _word(language.verbs or LANGUAGES["en"].verbs, is_alphabetic(language.nouns[0]))
    return re.compile(rf"{verb}\s*(?P<value>(?={_QUALIFIER}\s+{VALUE}|{VALUE}))?", re.IGNORECASE)


def _without_remark(sentence: str, language: Language) -> str:
    """Cut a sentence before the first remark: 12 of `12, which is the total`."""
    spans = _closed_spans(sentence)
    value_end = 0
    for match in _remarks(language).finditer(sentence):
        start = match.start()
        head = sentence[:start]
        if (
            start < value_end
            or not head.strip()
            or any(first < start < last for first, last in spans)
        ):
            continue
        has_value = _ANY_VALUE.search(head) is not None
        rest = sentence[match.end() :]
        kind = match.lastgroup
        if kind == "cause":
            return head
        if kind == "comma":
            if goes_on := _GOES_ON.match(rest):
                value_end = match.end() + goes_on.end()
                continue
            if not has_value:
                if _SENTENCE.match(rest):
                    return head
                continue
            replaced = _NEW_VALUE.match(rest)
            return rest[replaced.end() :] if replaced else head
        if kind == "paren":
            remark = _parenthesis(head, sentence[start:], has_value=has_value)
            if remark is not None:
                return remark
        elif has_value:
            return head
    return sentence


def _parenthesis(head: str, tail: str, *, has_value: bool) -> str | None:
    """Return the value beside a parenthesis; None if the parenthesis is part of the value."""
    inside = _IN_PARENTHESES.match(tail)
    content = inside[1].strip() if inside else tail.strip(" (（")
    if not has_value:
        number_word = _ONLY_VALUE.fullmatch(content) and re.fullmatch(
            r"[^\W\d_ -]{3,}", head.strip()
        )
        return content if number_word else None
    if _ONLY_VALUE.fullmatch(content) and tail[:1].isspace():
        return head
    if not tail[:1].isspace() or re.match(r"(?:mod|or|and|\\)\b|\\", content):
        return None
    is_remark = re.search(r"[^\W\d_]{3}", content) or content.startswith(("=", "≈", "in "))
    return head if is_remark else None


@cache
def _remarks(language: Language) -> re.Pattern[str]:
    spaced = is_alphabetic(language.nouns[0])
    pattern = _REST
    if language.remarks:
        pattern += rf"|(?<![^\W\d_])(?:{alternatives(language.remarks)})(?![^\W\d_])"
    pattern += ")"
    if language.causes:
        cause = alternatives(language.causes)
        pattern += (
            rf"|(?P<cause>(?<![^\W\d_]){cause}(?![^\W\d_]))" if spaced else f"|(?P<cause>{cause})"
        )
    return re.compile(pattern, re.IGNORECASE)


def _closed_spans(sentence: str) -> list[tuple[int, int]]:
    """Return the spans of formulas and of brackets."""
    spans = [(formula.start, formula.end) for formula in formulas.find(sentence)]
    waiting: list[tuple[str, int]] = []
    for match in re.finditer(r"[()\[\]{}]", sentence):
        char = match.group()
        if char in "([{":
            waiting.append((char, match.start()))
        elif waiting:
            _, start = waiting.pop()
            if not waiting:
                spans.append((start, match.start()))
    return spans


def _clean(claim: str, language: Language) -> str:
    """Remove the end of a sentence, markup, quotes and brackets that only close."""
    claim = claim.strip(_NOISE).rstrip(" ,;:`*_✓✅🎉\"'”»")
    if claim.endswith(".") and not _INITIALS.search(claim):
        claim = claim.rstrip(". ")
    for end in sorted(language.ends, key=len, reverse=True):
        if claim.endswith(end) and len(claim) > len(end):
            claim = claim[: -len(end)].rstrip(" *_`'’")
            break
    while _closes_only(claim):
        claim = claim[:-1].rstrip(" \"'")
    return claim.strip()


def _closes_only(claim: str) -> bool:
    """Return True for `5}` and `12)`, whose bracket is no interval's, set's or formula's."""
    opening = _CLOSERS.get(claim[-1:])
    if opening is None or claim.endswith(("\\)", "\\]", "\\}")):
        return False
    is_interval = opening != "{" and claim[0] in "([]"
    return not is_interval and claim.count(claim[-1]) > claim.count(opening)


def _is_answer(claim: str) -> bool:
    if not claim:
        return False
    if _STARTS_WITH_VALUE.match(claim):
        return True
    return not _ASIDE.match(claim) and len(claim.split()) <= MAX_WORDS
