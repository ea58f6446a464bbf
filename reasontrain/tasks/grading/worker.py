"""The worker process: reads pairs of expressions, says whether math-verify holds them for equal. Run as a script, never imported.

It ends when its standard input closes or its parent is gone, and dies by SIGALRM when one request outlasts its limit,
whatever the interpreter is doing then. It reads LaTeX only: SymPy's own parser, which evaluates code, is not asked.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import sys

PARENT_CHECK_S = 5.0


def main(memory_bytes: int) -> None:
    """Answer requests `[limit_s, [[gold, answer], ...]]`, one JSON line each, by a line `[bool, ...]` or `"memory"`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    sys.set_int_max_str_digits(20_000)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # macOS has the name of this limit and refuses it
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is not a reply
    equal = _equality()
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file can be written from here on
    print(json.dumps("ready"), file=replies, flush=True)
    parent, pending = os.getppid(), b""
    while os.getppid() == parent:
        if not select.select([0], [], [], PARENT_CHECK_S)[0]:
            continue
        chunk = os.read(0, 1 << 20)
        if not chunk:
            return
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            limit_s, pairs = json.loads(line)
            signal.setitimer(signal.ITIMER_REAL, limit_s)
            try:
                reply: object = [equal(gold, answer) for gold, answer in pairs]
            except MemoryError:
                reply = "memory"
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(json.dumps(reply), file=replies, flush=True)


def _equality():  # type: ignore[no-untyped-def]
    """The comparison; imports math-verify (slow)."""
    import logging

    from math_verify import LatexExtractionConfig, parse, verify
    from sympy import Expr, Float, N

    logging.disable(logging.CRITICAL)
    config = [LatexExtractionConfig(boxed_match_priority=0)]

    def parsed(text: str) -> list[object]:
        boxed = f"\\boxed{{{as_latex(text)}}}"
        found: list[object] = parse(
            boxed, config, fallback_mode="no_fallback", extraction_mode="first_match", parsing_timeout=None
        )
        return [part for part in found if not isinstance(part, str)]

    def close(gold: object, answer: object) -> bool:
        """Constants must agree relatively too: math-verify rounds to six decimals, where small numbers all look alike."""
        if not (isinstance(gold, Expr) and isinstance(answer, Expr) and gold.is_number and answer.is_number):
            return True
        share = 1e-6 if gold.has(Float) or answer.has(Float) else 1e-9
        return bool(abs(N(gold - answer)) <= share * abs(N(gold)))

    def equal(gold: str, answer: str) -> bool:
        try:
            golds, answers = parsed(gold), parsed(answer)
            return bool(
                golds and answers and verify(golds, answers, float_rounding=6, strict=True, timeout_seconds=None)
            ) and close(golds[0], answers[0])
        except MemoryError:
            raise
        except Exception:  # whatever a parser says of a model's text: it is not equal
            return False

    return equal


def as_latex(text: str) -> str:
    """Plain notation (`sqrt(2)`, `**`, `2*x`, `x^10`) as LaTeX."""
    text = re.sub(r"(?<![\\a-zA-Z])sqrt\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<![\\a-zA-Z])(pi|sin|cos|tan|log|ln|exp|sqrt)(?![a-zA-Z])", r"\\\1", text)
    text = re.sub(r"\s*\*\*\s*", "^", text)
    text = re.sub(r"(?<![\\a-zA-Z])\s*\*\s*|(?<=[a-zA-Z])\*", r" \\cdot ", text)
    text = re.sub(r"\^\s*\(([^()]*)\)", r"^{\1}", text)
    return re.sub(r"\^\s*(-?\d{2,}|-\d)", r"^{\1}", text)


if __name__ == "__main__":
    main(int(sys.argv[1]))
