"""The value in a sentence that states an answer: whole, without the words and remarks around it."""

from __future__ import annotations

import re
from functools import cache

from reasontrain.tasks.grading import formulas, leaf
from reasontrain.tasks.grading.languages import LANGUAGES, Language
from reasontrain.tasks.grading.marks import alternatives, is_alphabetic
from reasontrain.tasks.grading.normalise import normalise

VALUE = (
    r"(?:[-+−–±~≈<>≤≥]\s*)?(?:[A-Z]{0,2}[$€£¥₹₩₽₫₺₴₦₱₪฿]|(?:Rs|USD|EUR|GBP|RMB|Rp)\.?)?\s*"
    r"(?:[\d(\[{|√π∞½⅓⅔¼¾]|\.\d|\\(?!text|n\b)|\$|[-+−]\s?\d)"
)
STARTS_WITH_VALUE = re.compile(rf"{VALUE}|[a-zA-Z](?:_\w|\([a-z]\))?\s*[=<>≤≥]")
_ANY_VALUE = re.compile(r"\d|[$\\]")
NOISE = " \t\r\n*_:：=`>\"'«»“”→⇒∴✅"
_NEUTRAL = (
    *("approximately", "approx.", "approx", "about", "roughly", "around", "exactly", "precisely"),
    *("simply", "just", "therefore", "thus", "then", "now", "indeed", "clearly", "hence", "either"),
    *("probably", "likely", "perhaps", "maybe", "possibly", "found to be", "given by", "equal to"),
    *("a total of", "option", "choice", "donc", "alors", "also", "dunque", "quindi"),
    *("portanto", "entonces"),
    *("environ", "etwa", "ungefähr", "约", "大约", "約"),
)
"""Words before a value that change nothing."""
_KIND = (
    r"(?:the\s+)?(?:ordered\s+)?(?:point|interval|set|number|value|pair|triple|matrix|vector"
    r"|fraction|function|equation|expression|polynomial|integer|line)|the|la|le|el|il|das"
)
"""Words that name the kind of the value."""
_LEAD = re.compile(
    rf"(?:{alternatives(_NEUTRAL)}(?=[\s\d$\\(])|(?:{_KIND})(?=\s+{VALUE})):?\s*", re.IGNORECASE
)
_QUALIFIER = (
    r"(?:at (?:least|most)|less than|more than|fewer than|not|minus|negative|about|approximately"
    r"|exactly|only|just|around|roughly|up to|between|a total of|equal to)"
)
_LABEL = re.compile(rf"[^\W\d_][^\d$\\:\n]{{1,40}}[:：]\s*(?={VALUE})")
_PREPOSITION = (
    r"(?<![^\W\d_])(?<!out )(?:in|on|at|for|from|by|with|of|under|during)\s+"
    r"(?:the|a|an|his|her|their|its|our|this|that|these|those|each|every|all)\b"
)
_COMPARISON = rf"(?:more|fewer|less|\b[a-z]{{3,9}}er) than(?!\s+(?:{VALUE}|(?![aI]\b)[a-zA-Z]\b))"
_REST = (
    r"(?P<comma>[,;，；]\s*)|(?P<label>\s(?-i:[A-Z][a-z]{3,}):\s)"
    r"|(?P<dash>\s[—–-]{1,2}\s+(?=[^\W\d_]{3}))|(?P<paren>\s*[(（])"
    rf"|(?P<remark>{_PREPOSITION}|{_COMPARISON}"
)
HEDGE = r"(?:maybe|perhaps|possibly|probably|also|else|either|it|is|could|might|may|be|even)"
_SENTENCE = re.compile(
    r"(?:it|that|this|there|we|they|he|she|i|the|you|these|those)\b", re.IGNORECASE
)
_GOES_ON = re.compile(
    rf"(?:but\s+(?={HEDGE}))?(?:(?:and|or|{HEDGE}|et|ou|und|oder|y|o|e|и|или)\s+)*(?:{VALUE}"
    r"|\\text\{|[a-zA-Z](?:_\w|\([a-z]\))?\s*[=<>≤≥]|[A-H](?=\s*(?:[,;.)]|(?:and|or)\b|$)))",
    re.IGNORECASE,
)
_EQUATION = re.compile(r"[\d\s.$]+[+*/×·÷-][\d\s.$+*/×·÷()-]*=")
"""A calculation after a value, which explains it."""
NEW_VALUE = re.compile(
    rf"(?:\b(?:it|that|this|answer|result)(?:'s| is| was)|should be|must be|i meant?|correction:?"
    rf"|(?:wait|no|sorry|actually|oops|hmm))\W+"
    rf"(?:(?:it's|it is|i meant?|wait|no|sorry|actually|really|rather|make that)\W+)*(?={VALUE})",
    re.IGNORECASE,
)
_OPERATOR = re.compile(r"(?:\\[a-zA-Z]+|[-+*/=<>(,^_∪∩×])\s*$")
_WORD = re.compile(r"(?<!\\)(?<![^\W\d_])[^\W\d_]{3}")
_BESIDE = re.compile(rf"or\s+(?:{HEDGE}\s+)*{VALUE}", re.IGNORECASE)
LONGEST_VALUE = 80
"""Characters of the longest sentence that may be one value."""
_DENIAL = re.compile(
    r"\b(?:is|are|was) (?:wrong|incorrect|false|not (?:right|correct|true|the answer))\b"
    r"|\((?:or|but|no|maybe|perhaps)\b[^()]*\d[^()]*\)|\?"
)
"""Words behind a value that take it back."""
_IN_PARENTHESES = re.compile(r"\s*[(（]([^()（）]*)[)）]")
_ONLY_VALUE = re.compile(r"[-+−$\d.,/\\%\s]*\d[-+−$\d.,/\\%\s]*")
_INITIALS = re.compile(r"\b[a-zA-Z]\.[a-zA-Z]\.$")
"""`p.m.`, which keeps its last point."""
_PART = re.compile(r"(?:^|[\s,;]+(?:and\s+)?)\(?([a-h])\)\s*")
"""The label of a part of the question."""
_CLOSERS = {")": "(", "]": "[", "}": "{"}


def value_in(sentence: str, language: Language) -> str:
    """Return the value that a sentence states, without remarks before and after it."""
    sentence = sentence.strip(NOISE)
    while lead := _LEAD.match(sentence):
        sentence = sentence[lead.end() :]
    if not STARTS_WITH_VALUE.match(sentence):
        sentence = _after_lead(sentence, language)
    value = _clean(_without_remark(sentence, language), language)
    # `5'10"`, `12, remainder 5` and `8:15 in the morning` are values to their ends
    if len(value) < len(sentence.rstrip(".")) and _is_cut(value, sentence):
        value = sentence
    sentence = value
    if parts := _parts(sentence):
        return parts
    spans = formulas.find(sentence)
    if not spans:
        return sentence
    first = spans[0]
    if first.start == 0 and not sentence[first.end :].strip(" .,"):
        return first.content
    return formulas.without_delimiters(sentence)


def _is_cut(value: str, sentence: str) -> bool:
    """Return True if a part of the value was cut off, or words that take it back."""
    if len(sentence) > LONGEST_VALUE or not STARTS_WITH_VALUE.match(sentence):
        return False
    if _DENIAL.search(sentence, len(value)):
        return True
    whole = normalise(sentence)
    return leaf.is_single(whole) and not leaf.equal(whole, normalise(value)).equal


def _parts(sentence: str) -> str | None:
    """Return `3, 4` for `(a) 3 and (b) 4`; None without labels of parts in order."""
    if not sentence.startswith(("(a)", "a)")):
        return None
    _, first, *others = _PART.split(sentence)
    labels = "".join([first, *others[1::2]])
    if len(labels) < 2 or not "abcdefgh".startswith(labels):
        return None
    return ", ".join(part.strip(" .,;") for part in others[::2])


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
    verb = whole_words(language.verbs or LANGUAGES["en"].verbs, is_alphabetic(language.nouns[0]))
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
            if (goes_on := _GOES_ON.match(rest)) and not (has_value and _EQUATION.match(rest)):
                value_end = match.end() + goes_on.end()
                continue
            if not has_value:
                if _SENTENCE.match(rest):
                    return head
                continue
            replaced = NEW_VALUE.match(rest)
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
    if _OPERATOR.search(head):
        return None
    inside = _IN_PARENTHESES.match(tail)
    content = inside[1].strip() if inside else tail.strip(" (（")
    if not has_value:
        number_word = _ONLY_VALUE.fullmatch(content) and re.fullmatch(
            r"[^\W\d_ -]{3,}", head.strip()
        )
        return content if number_word else None
    if _ONLY_VALUE.fullmatch(content) and tail[:1].isspace():
        return head
    if _BESIDE.match(content):
        return f"{head.rstrip()} {content}"
    if not tail[:1].isspace() or re.match(r"(?:mod|or|and|\\)\b|\\", content):
        return None
    is_remark = _WORD.search(content) or content.startswith(("=", "≈", "in "))
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
    claim = claim.strip(NOISE).rstrip(" ,;:`*_✓✅🎉\"'”»")
    if claim.endswith(".") and not _INITIALS.search(claim):
        claim = claim.rstrip(". ")
    for end in sorted(language.ends, key=len, reverse=True):
        if claim.endswith(end) and len(claim) > len(end):
            claim = claim[: -len(end)].rstrip(" *_`'’")
            break
    if claim.endswith("|") and claim.count("|") % 2:
        claim = claim[:-1].rstrip()
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


def whole_words(words: tuple[str, ...], spaced: bool) -> str:
    """A pattern of any of some words, as whole words in a script with spaces."""
    pattern = alternatives(words)
    return rf"(?<![^\W\d_])(?<!\\){pattern}(?![^\W\d_])" if spaced else pattern
