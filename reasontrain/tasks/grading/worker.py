"""The worker process: reads pairs of expressions, says whether math-verify holds them for equal.

Run as a script, never imported.

It loads math-verify once and forks; the child answers and, when one request outlasts its limit,
dies by a signal whatever the interpreter is doing then. The next child is there at once. Both end
when standard input closes or who started them is gone. It reads LaTeX only: SymPy's own parser,
which evaluates code, is not asked.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import sys
from collections.abc import Callable
from typing import IO

PARENT_CHECK_S = 5.0
MAX_REQUESTS = 2_000
"""A child makes room for a fresh one after so many: what SymPy remembers does not grow for ever."""
DONE, FAILED, RENEW = range(3)
"""Exit codes of a child."""

Equal = Callable[[str, str], bool]


def main(memory_bytes: int) -> None:
    """Answer requests `[limit_s, wall_s, [[gold, answer], ...]]`, one JSON line each.

    A reply is `[seconds of computing, [bool, ...]]`, "timeout" (more than `limit_s` of computing,
    or `wall_s` by the clock) or "memory". A child that dies of anything else ends the process.
    """
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    for limit in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(limit, signal.SIG_DFL)
    sys.set_int_max_str_digits(20_000)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is not a reply
    equal = _equality()
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file can be written from here on
    _send(replies, "ready")
    while True:
        alive, open_while_alive = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(alive)
            _child(equal, replies, memory_bytes)
        os.close(open_while_alive)
        died_of = _end_of(child, alive, parent)
        os.close(alive)
        if died_of in (-signal.SIGPROF, -signal.SIGALRM):
            _send(replies, "timeout")
        elif died_of != RENEW:
            return


def _end_of(child: int, alive: int, parent: int) -> int:
    """Wait for the child's end, or end it where nobody waits for its answer: its exit code, or the
    signal (negative).
    """
    poll = select.poll()
    poll.register(0, 0)  # the end of standard input alone; what is in it is the child's
    poll.register(alive, select.POLLIN)
    while not (ready := poll.poll(PARENT_CHECK_S * 1000)) and os.getppid() == parent:
        continue
    if alive not in dict(ready):
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _child(equal: Equal, replies: IO[str], memory_bytes: int) -> None:
    """Answer, and never return."""
    code = FAILED
    try:
        if sys.platform == "linux":  # macOS has the name of this limit and refuses it
            resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        code = _answer(equal, replies)
    finally:
        os._exit(code)


def _answer(equal: Equal, replies: IO[str]) -> int:
    """Answer requests until there is none (DONE), or until a fresh process should (RENEW)."""
    parent, pending, number = os.getppid(), b"", 0
    while os.getppid() == parent:
        if not select.select([0], [], [], PARENT_CHECK_S)[0]:
            continue
        chunk = os.read(0, 1 << 20)
        if not chunk:
            return DONE
        pending += chunk
        if not pending.endswith(b"\n"):
            continue
        limit_s, wall_s, pairs = json.loads(pending)
        pending, number = b"", number + 1
        signal.setitimer(signal.ITIMER_REAL, wall_s)
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        try:
            same = [equal(gold, answer) for gold, answer in pairs]
        except MemoryError:
            same = None
        left_s, _ = signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(replies, "memory" if same is None else [max(0.0, limit_s - left_s), same])
        if same is None or number == MAX_REQUESTS:
            return RENEW
    return DONE


def _send(replies: IO[str], reply: object) -> None:
    print(json.dumps(reply), file=replies, flush=True)


def _equality() -> Equal:
    """The comparison; imports math-verify (slow)."""
    import logging

    from math_verify import LatexExtractionConfig, parse, verify
    from sympy import Expr, Float, N

    logging.disable(logging.CRITICAL)
    config = [LatexExtractionConfig(boxed_match_priority=0)]

    def parsed(text: str) -> list[object]:
        boxed = f"\\boxed{{{as_latex(text)}}}"
        found: list[object] = parse(
            boxed,
            config,
            fallback_mode="no_fallback",
            extraction_mode="first_match",
            parsing_timeout=None,
        )
        return [part for part in found if not isinstance(part, str)]

    def close(gold: object, answer: object) -> bool:
        """Constants must agree relatively too: math-verify rounds to six decimals, where small
        numbers all look alike.
        """
        if not (
            isinstance(gold, Expr)
            and isinstance(answer, Expr)
            and gold.is_number
            and answer.is_number
        ):
            return True
        share = 1e-6 if gold.has(Float) or answer.has(Float) else 1e-9
        return bool(abs(N(gold - answer)) <= share * abs(N(gold)))

    def equal(gold: str, answer: str) -> bool:
        try:
            golds, answers = parsed(gold), parsed(answer)
            return bool(
                golds
                and answers
                and verify(golds, answers, float_rounding=6, strict=True, timeout_seconds=None)
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
