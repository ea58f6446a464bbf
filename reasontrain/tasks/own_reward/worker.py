"""The worker process of an own reward or environment: loads the user's file once and calls it.

It runs as a script and is never imported, so that it starts without torch. It forks before anything
of the user's runs: the child serves calls, and the first process waits for the child's end or for
that of the driver, and then kills the process group, whatever state the user's code is in.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from importlib.abc import SourceLoader
from importlib.util import module_from_spec, spec_from_loader
from multiprocessing.connection import Connection
from pathlib import Path
from typing import SupportsFloat, TypeVar

DRIVER_CHECK_S = 5.0
"""Interval at which the first process checks that the driver is alive."""
REWARD = "reward"
"""The key of the reward in a dict that the function returns."""
MAX_SHOWN = 500
"""Characters of a value or an error that are shown in a message."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals that a scheduler sends to all processes of a job before it ends the job."""

T = TypeVar("T")
Handler = Callable[[int, object], None] | signal.Handlers
Reply = Mapping[str, object]
Score = Callable[..., object]
Call = tuple[dict[str, object], str, dict[str, bool]]
EpisodeCall = tuple[int, int, int, dict[str, object], list[str]]


def main(fd: int) -> None:
    """Serve the driver at the other end of this socket."""
    driver = os.getppid()
    # The driver decides when a run stops. A handler, not SIG_IGN, which programs that the user's
    # code starts would inherit.
    for number in STOP_SIGNALS:
        signal.signal(number, _do_nothing)
    child = os.fork()
    if child == 0:
        # whatever happens, the child must not return into the first process's code
        try:
            _serve(Connection(fd))
        finally:
            os._exit(1)
    _guard(child, fd, driver)


def _do_nothing(number: int, frame: object) -> None:
    """Handle a signal."""


def _replace_handlers(old: Handler, new: Handler) -> None:
    """Replace a handler wherever the user's code has not set its own."""
    with suppress(ValueError):  # not in the main thread, where Python sets no handlers
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is old:
                signal.signal(number, new)


def _guard(child: int, fd: int, driver: int) -> None:
    """End the process group when the driver ends; end as the child does when that ends."""
    poll = select.poll()
    poll.register(fd, 0)  # hang-up only: what arrives is for the child
    wait_s = DRIVER_CHECK_S
    if sys.platform == "linux":
        poll.register(os.pidfd_open(child), select.POLLIN)
    else:
        wait_s = 0.1
    while True:
        events = dict(poll.poll(wait_s * 1000))
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if fd in events or os.getppid() != driver:
            os.killpg(0, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        # no second core file, by the process that only repeats the signal
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _serve(driver: Connection) -> None:
    """Load the file, then answer requests until the driver hangs up; never returns."""
    # what the user's code forks can be terminated, from its first moment
    os.register_at_fork(
        before=lambda: _replace_handlers(_do_nothing, signal.SIG_DFL),
        after_in_parent=lambda: _replace_handlers(signal.SIG_DFL, _do_nothing),
    )
    # subprocesses of the user's code must not keep the socket open
    os.set_inheritable(driver.fileno(), False)
    path, source, function, folders, is_environment = driver.recv()
    sys.path[:] = folders
    sys.argv = [path]
    loaded = _load(path, source, function)
    if not callable(loaded):
        _send(driver, loaded)
        os._exit(0)
    caller: Episodes | Caller = Episodes(path, loaded) if is_environment else Caller(path, loaded)
    _send(driver, {"concurrent": caller.concurrent})
    while True:
        try:
            calls, limit_s = driver.recv()
        except EOFError:
            os._exit(0)
        _send(driver, caller.replies(calls, limit_s))


def _send(driver: Connection, reply: object) -> None:
    """Send a reply as JSON, which the driver reads without running code."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the user's code may have closed or replaced it
            stream.flush()
    driver.send_bytes(json.dumps(reply).encode())


class FrozenSource(SourceLoader):
    """A file's code as it was when the run began: all workers run the same."""

    def __init__(self, path: str, source: bytes) -> None:
        self.path = path
        self.source = source

    def get_filename(self, fullname: str) -> str:
        """The file's path, for tracebacks."""
        return self.path

    def get_data(self, path: str) -> bytes:
        """The code."""
        return self.source


def _load(path: str, source: bytes, function: str) -> Score | Reply:
    """The function of this name, or an error to reply."""
    name = f"reasontrain_reward_{Path(path).stem}"
    loader = FrozenSource(path, source)
    spec = spec_from_loader(name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    # dataclasses and pickle look up the module of what the file defines
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException as error:
        return _failure(error, path)
    names = vars(module)
    if callable(names.get(function)):
        score: Score = names[function]
        return score
    public = sorted(n for n, value in names.items() if callable(value) and not n.startswith("_"))
    return {"missing": ", ".join(public) or "none"}


class Caller:
    """Calls one function, and turns whatever it does into replies."""

    def __init__(self, path: str, score: Score) -> None:
        self.path = path
        self.score = score
        self.concurrent = inspect.iscoroutinefunction(score) or inspect.iscoroutinefunction(
            type(score).__call__
        )
        self._optional = _parameters(score)
        self._loop: asyncio.AbstractEventLoop | None = None

    def replies(self, calls: list[Call], limit_s: float) -> list[Reply]:
        """One reply per call, in order; calls of an async function run at the same time, each for
        `limit_s` at most.
        """
        if not self.concurrent:
            return [self._reply(call) for call in calls]

        async def together() -> list[Reply]:
            return await asyncio.gather(*(self._reply_async(call, limit_s) for call in calls))

        return self._wait(together())

    def _wait(self, work: Coroutine[object, object, T]) -> T:
        # one loop for all calls: clients that the file holds open belong to a loop
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop.run_until_complete(work)

    def _call(self, call: Call) -> object:
        problem, response, facts = call
        optional = {name: value for name, value in facts.items() if name in self._optional}
        return self.score(problem, response, **optional)

    def _reply(self, call: Call) -> Reply:
        try:
            value = self._call(call)
            if inspect.iscoroutine(value):
                value = self._wait(value)
            return _read(value)
        except BaseException as error:  # SystemExit too: it ends a call, not the run
            return _failure(error, self.path)

    async def _reply_async(self, call: Call, limit_s: float) -> Reply:
        try:
            async with asyncio.timeout(limit_s) as limit:
                value = self._call(call)
                assert inspect.isawaitable(value)
                return _read(await value)
        except BaseException as error:
            return {"timeout": True} if limit.expired() else _failure(error, self.path)


class Episodes:
    """Calls environments, one for each conversation, and turns whatever they do into replies.

    A call repeats the conversation up to its turn if the environment is not there, because another
    worker had it. Environments of an earlier `epoch` are forgotten.
    """

    concurrent = False

    def __init__(self, path: str, make: Score) -> None:
        self.path = path
        self.make = make
        self._epoch: int | None = None
        self._live: dict[int, tuple[object, int]] = {}

    def replies(self, calls: list[EpisodeCall], limit_s: float) -> list[Reply]:
        """One reply per call, in order; the driver alone keeps the limit."""
        return [self._reply(*call) for call in calls]

    def _reply(
        self, epoch: int, rollout: int, seed: int, problem: dict[str, object], turns: list[str]
    ) -> Reply:
        """Reply to a call.

        Args:
            epoch: the conversations that are held at the same time have the same.
            rollout: the conversation's number.
            seed: for `reset`.
            problem: for `reset`.
            turns: all turns so far; none if the conversation begins.
        """
        if epoch != self._epoch:
            self._live.clear()
            self._epoch = epoch
        environment, num_done = self._live.pop(rollout, (None, 0))
        try:
            if environment is None or num_done != len(turns) - 1:
                environment, first = self._begin(seed, problem)
                for turn in turns[:-1]:
                    _step(environment, turn)
                if not turns:
                    self._live[rollout] = environment, 0
                    return _read_observation(first)
            reply = _read_step(_step(environment, turns[-1]))
        except BaseException as error:  # SystemExit too: it ends a call, not the run
            return _failure(error, self.path)
        if not reply.get("done", True):
            self._live[rollout] = environment, len(turns)
        return reply

    def _begin(self, seed: int, problem: dict[str, object]) -> tuple[object, object]:
        """A new environment and what its `reset` returned."""
        environment = self.make()
        reset = environment.reset  # type: ignore[attr-defined]
        options = {"seed": seed} if "seed" in _parameters(reset) else {}
        return environment, reset(problem, **options)


def _step(environment: object, turn: str) -> object:
    return environment.step(turn)  # type: ignore[attr-defined]


def _read_observation(value: object) -> Reply:
    if value is None or isinstance(value, str):
        return {"observation": value or "", "reward": None, "done": False}
    return {"error": f"reset returned {_shown(repr, value)}; expected a text or None"}


def _read_step(value: object) -> Reply:
    """The observation, the reward and the end in what `step` returned."""
    if isinstance(value, tuple | list) and len(value) == 3:
        observation, reward, done = value
        if isinstance(observation, str | None) and isinstance(done, bool) and _is_reward(reward):
            return {"observation": observation or "", "reward": _number(reward), "done": done}
    wanted = "(observation, reward, done): a text or None, a finite number or None, True or False"
    return {"error": f"step returned {_shown(repr, value)}; expected {wanted}"}


def _parameters(score: Score) -> frozenset[str]:
    """The names of the function's parameters; none if it hides them, as some decorators do."""
    try:
        return frozenset(inspect.signature(score).parameters)
    except (TypeError, ValueError):
        return frozenset()


def _read(value: object) -> Reply:
    """The reward and its named parts in what the function returned."""
    if not isinstance(value, Mapping):
        return {"reward": _number(value), "parts": {}} if _is_reward(value) else _refused(value)
    if REWARD not in value or not all(
        isinstance(name, str) and _is_reward(part) for name, part in value.items()
    ):
        return _refused(value)
    parts = {n: _number(part) for n, part in value.items() if n != REWARD and part is not None}
    return {"reward": _number(value[REWARD]), "parts": parts}


def _is_reward(value: object) -> bool:
    number = _number(value)
    return number is None or math.isfinite(number)


def _number(value: object) -> float | None:
    """Convert numbers, including those of numpy and torch; NaN for anything else, but None."""
    if value is None:
        return None
    try:
        return float(value) if isinstance(value, SupportsFloat) else math.nan
    # arrays with several elements, and integers beyond the range of floats
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return math.nan


def _refused(value: object) -> Reply:
    wanted = f"a finite number, None, or a dict of those with the key {REWARD!r}"
    return {"error": f"returned {_shown(repr, value)}; expected {wanted}"}


def _shown(convert: Callable[[object], str], value: object) -> str:
    """The text of a value, cut; "" if the user's class cannot convert it."""
    try:
        text = convert(value)
    except Exception:
        return ""
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def _failure(error: BaseException, path: str) -> Reply:
    """An exception: its text, the user's line that raised it, and the user's frames."""
    text = _shown(str, error)
    name = type(error).__name__
    reply: dict[str, object] = {"error": f"{name}: {text}" if text else name}
    if isinstance(error, SyntaxError) and error.filename == path:
        return reply | {"line": error.lineno}
    frames = list(traceback.extract_tb(error.__traceback__))
    own = [index for index, frame in enumerate(frames) if frame.filename == path]
    if not own:
        return reply
    last = frames[own[-1]]
    return reply | {
        "line": last.lineno,
        "function": last.name,
        "trace": "".join(traceback.format_list(frames[own[0] :])).rstrip(),
    }


if __name__ == "__main__":
    main(int(sys.argv[1]))
