"""The worker's processes, with a comparison of our own in place of algebra: what they say, and
how they end.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

WORKER = Path(__file__).parents[3] / "reasontrain" / "tasks" / "grading" / "worker.py"
OWN = f"""
import os, sys
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("worker", {str(WORKER)!r})
worker = module_from_spec(spec)
spec.loader.exec_module(worker)

def equal(gold, answer):
    if gold == "eat":
        return len(bytearray(1 << 40)) == 0
    while gold == "turn":
        pass
    if gold == "wait":
        os.read(os.pipe()[0], 1)
    if gold == "die":
        os.kill(os.getpid(), 9)
    if gold == "print":
        print("[0.0, [true]]", flush=True)
    if gold == "write":
        with suppress(OSError):
            os.write(os.open(answer, os.O_WRONLY | os.O_CREAT), b"x")
    return answer == str(os.getpid()) if gold == "who" else gold == answer

worker._equality = lambda: equal
worker.MAX_REQUESTS = 3
worker.main(1 << 30)
"""


class Asked:
    """A worker spoken to by hand."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.answer() == "ready"

    def ask(self, *pairs: tuple[str, str], limit_s: float = 5.0, wall_s: float = 60.0) -> object:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([limit_s, wall_s, pairs]).encode() + b"\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> object:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else "nothing"

    def same(self, *pairs: tuple[str, str]) -> object:
        reply = self.ask(*pairs)
        assert isinstance(reply, list)
        assert 0.0 <= reply[0] < 5.0
        return reply[1]

    def children(self) -> list[int]:
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        ).stdout
        return [int(pid) for pid in found.split()]


@pytest.fixture
def worker() -> Iterator[Asked]:
    asked = Asked()
    yield asked
    assert asked.process.stdin is not None
    assert asked.process.stdout is not None
    asked.process.stdin.close()
    assert asked.process.wait(60) == 0
    asked.process.stdout.close()


def test_pairs_are_answered_in_order(worker: Asked) -> None:
    assert worker.same(("1", "1"), ("1", "2"), ("3", "3")) == [True, False, True]


def test_computing_too_long_or_waiting_too_long_is_a_timeout(worker: Asked) -> None:
    assert worker.ask(("turn", ""), limit_s=0.1) == "timeout"
    assert worker.ask(("wait", ""), wall_s=0.1) == "timeout"
    assert worker.same(("1", "1")) == [True]


def test_too_much_memory_is_said_and_left_behind(worker: Asked) -> None:
    assert worker.ask(("eat", "")) == "memory"
    assert worker.same(("1", "1")) == [True]


def test_a_child_makes_room_after_so_many_requests(worker: Asked) -> None:
    assert worker.same(("1", "1")) == [True]  # so it has a child
    (first,) = worker.children()
    for _ in range(2):
        assert worker.same(("who", str(first))) == [True]
    assert worker.same(("who", str(first))) == [False]


def test_what_is_printed_is_no_reply_and_no_file_can_be_written(
    worker: Asked, tmp_path: Path
) -> None:
    assert worker.same(("print", "x")) == [False]
    assert worker.same(("write", str(tmp_path / "x"))) == [False]
    assert (tmp_path / "x").read_text() == ""


def test_any_other_death_ends_the_worker(worker: Asked) -> None:
    assert worker.ask(("die", "")) == "nothing"


def test_a_child_without_its_parent_ends() -> None:
    asked = Asked()
    assert asked.same(("1", "1")) == [True]  # so it has a child
    assert len(asked.children()) == 1
    asked.process.kill()
    asked.process.wait()
    assert asked.process.stdin is not None
    assert asked.process.stdout is not None
    asked.process.stdin.close()
    assert asked.process.stdout.read() == b""  # the child held it open
    asked.process.stdout.close()
