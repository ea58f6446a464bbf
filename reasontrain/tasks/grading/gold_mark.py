"""GSM8K's mark in gold cells: `#### 7` on the last line of a solution."""

from __future__ import annotations

import re

HASHES = "####"
NUMBER = re.compile(r"[-+]?\$?[-+]?[\d.,/]*\d[\d.,/]*\s*%?")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def marked_gold(cell: str) -> str | None:
    """The answer after the mark of a gold cell, without separators of thousands.

    Returns None if the cell has no mark. A Markdown heading of the same level is none: the mark is
    in the last line, or has nothing but a number after it.
    """
    if HASHES not in cell:
        return None
    lines = [line.strip() for line in cell.splitlines() if line.strip()]
    for position, line in enumerate(reversed(lines)):
        _, mark, rest = line.rpartition(HASHES)
        answer = rest.strip().rstrip("#").strip()
        if mark and answer and (position == 0 or NUMBER.fullmatch(answer)):
            return THOUSANDS.sub("", answer)
    return None
