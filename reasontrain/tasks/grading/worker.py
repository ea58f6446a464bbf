"""The worker process of the grader, which compares pairs of expressions by algebra.

It runs as a script and is never imported. It imports SymPy once and forks. The child replies to
requests. If a request exceeds its limit, a signal kills the child in any state of its interpreter,
and a fork replaces it without another import. Both processes end when standard input closes or
their parent is gone. Texts are read by `latex`: SymPy's own parser would evaluate them as code.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import IO

PARENT_CHECK_S = 5.0
"""Interval at which the processes check that their parent is alive."""
MAX_REQUESTS = 2_000
"""Requests after which a child is replaced, because SymPy's caches grow without bound."""
DONE, FAILED, RENEW = range(3)
"""Exit codes of a child."""

Equal = Callable[[str, str], bool]


def main(memory_bytes: int) -> None:
    """Reply to requests `[limit_s, wall_s, [[gold, answer], ...]]`, one JSON line each.

    A reply is `[processor seconds, [bool, ...]]`, "timeout" (more than `limit_s` of processor time
    or `wall_s` of wall time) or "memory". Any other death of a child ends the process.
    """
    parent = os.getppid()
    # Ctrl-C is handled by the parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The timers must kill: a Python handler runs only between bytecodes, and so never during a
    # hang in C code.
    for limit in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(limit, signal.SIG_DFL)
    # converting a longer integer to text takes quadratic time
    sys.set_int_max_str_digits(20_000)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies = os.fdopen(os.dup(1), "w")
    # libraries print to standard output, which must not mix with replies
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    equal = _equality()
    # after the imports, which may write caches: no file can be written from now on
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _send(replies, "ready")
    while True:
        # The child holds the write end, so the read end closes when the child ends.
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
    """Wait for the child's end; kill it if standard input closes or the parent is gone.

    Returns its exit code, or the negative number of the signal that ended it.
    """
    poll = select.poll()
    # only the end of standard input is an event: its content is read by the child
    poll.register(0, 0)
    poll.register(alive, select.POLLIN)
    while not (ready := poll.poll(PARENT_CHECK_S * 1000)) and os.getppid() == parent:
        continue
    if alive not in dict(ready):
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _child(equal: Equal, replies: IO[str], memory_bytes: int) -> None:
    """Reply to requests, and end the process."""
    code = FAILED
    try:
        # macOS defines this limit but does not support setting it
        if sys.platform == "linux":
            # in the child only: a limit cannot be raised again, and the parent forks the next one
            resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        code = _answer(equal, replies)
    finally:
        # not sys.exit: the exit handlers and buffers are the parent's
        os._exit(code)


def _answer(equal: Equal, replies: IO[str]) -> int:
    """Reply to requests until there are no more (DONE), or the child must be replaced (RENEW)."""
    parent = os.getppid()
    pending = b""
    number = 0
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
        pending = b""
        number += 1
        # the limit is processor time; the wall time catches a worker that sleeps or gets no core
        signal.setitimer(signal.ITIMER_REAL, wall_s)
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        try:
            same = [equal(gold, answer) for gold, answer in pairs]
        except MemoryError:
            same = None
        left_s, _ = signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(replies, "memory" if same is None else [max(0.0, limit_s - left_s), same])
        # after a MemoryError the heap is fragmented, and caches may hold half-built objects
        if same is None or number == MAX_REQUESTS:
            return RENEW
    return DONE


def _send(replies: IO[str], reply: object) -> None:
    print(json.dumps(reply), file=replies, flush=True)


def _equality() -> Equal:
    """Import SymPy, which is slow, and return the comparison."""
    _skip_package_imports()
    from reasontrain.tasks.grading import algebra

    def equal(gold: str, answer: str) -> bool:
        try:
            return algebra.equal(gold, answer)
        except MemoryError:
            raise
        # an expression on which SymPy fails is not equal to anything
        except Exception:
            return False

    return equal


def _skip_package_imports() -> None:
    """Make the modules beside this file importable without PyTorch, which the packages import."""
    folder = Path(__file__).parent
    for name in ("reasontrain.tasks.grading", "reasontrain.tasks", "reasontrain"):
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
        folder = folder.parent


if __name__ == "__main__":
    main(int(sys.argv[1]))
