"""The part of a text that is the response itself: up to the end of its turn."""

from __future__ import annotations

import re

_END = re.compile(
    # tokens that end a turn or a text
    r"<[|｜](?:im_end|endoftext|end_of_text|eot_id|eom_id|end|eos|end_of_turn|end▁of▁sentence"
    r"|endofturn|end_of_sentence|return|eot|im_sep)[|｜]>"
    r"|</s>|<eos>|<end_of_turn>|<turn\|>|\[EOS\]|<\|END_OF_TURN_TOKEN\|>|<EOT>"
    # the head of another's turn
    r"|<[|｜](?:im_start|start|start_header_id)[|｜]>\s{0,3}(?:user|system|tool|human)\b"
    r"|<[|｜](?:user|User|human|system|observation)[|｜]>|<start_of_turn>\s{0,3}user\b"
    # behind a text, padding and the head of another turn of the model
    r"|(?<=[^\s>\]])\s{0,3}(?:<[|｜](?:assistant|Assistant|pad)[|｜]>|<pad>|<unk>|\[PAD\])"
    r"|\[/INST\]\s*\Z"
    r"|<\|turn>\s{0,3}user\b|\[INST\]|<\|USER_TOKEN\|>|<(?:human|user)>:"
)
_NAME = re.compile(r"(?:User|Human|USER|HUMAN|用户|Instruction)\*{0,2}[:：]")
_LINE_START = re.compile(r"[^\S\n]*(?:#{1,4} ?)?\*{0,2}")
_HEAD = re.compile(
    r"\A(?:\s|<bos>|<s>|<[|｜](?:im_start|start|start_header_id|start_of_turn)[|｜]>|<start_of_turn>"
    r"|<[|｜](?:assistant|Assistant|end_header_id|begin_of_text)[|｜]>|\[/INST\]"
    r"|(?<=>)(?:assistant|model)\b)+"
)
_PROBLEM = re.compile(r"(?:Q|Question|Problem|题目|问题)(?: ?\d{1,3})?\*{0,2}[:：]")


def ends(text: str) -> list[int]:
    """Positions at which the turn may end, in order."""
    positions = _at_line_start(_NAME, text)
    if "<" in text or "[" in text:
        positions += [match.start() for match in _END.finditer(text)]
        positions.sort()
    return positions


def head(text: str) -> int:
    """The length of the special tokens and role names that begin a response."""
    match = _HEAD.match(text) if text[:1] in "< \n[" else None
    return match.end() if match else 0


def next_problems(text: str) -> list[int]:
    """Positions at which a model may have gone on with another problem, in order."""
    return _at_line_start(_PROBLEM, text)


def _at_line_start(heads: re.Pattern[str], text: str) -> list[int]:
    """The line ends before lines that begin with one of some heads."""
    positions = []
    for match in heads.finditer(text):
        line_end = text.rfind("\n", max(0, match.start() - 12), match.start())
        if line_end >= 0 and _LINE_START.fullmatch(text, line_end + 1, match.start()):
            positions.append(line_end)
    return positions
