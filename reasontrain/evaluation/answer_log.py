"""A suite's file of answers while it grows: what is in it survives `kill -9`, and belongs to one
protocol.

Beside `gsm8k.jsonl` lies `gsm8k.protocol.json`: everything that changes an answer (weights,
problems, prompts, sampling, seed, precision, versions). It is written before the first answer, and
answers of another protocol are never mixed with these.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from reasontrain.data import storage
from reasontrain.evaluation.answers import Answer, ProblemSample, from_line
from reasontrain.recipe import YamlValue, changed_keys
from reasontrain.types import Problem, UserError

MAX_NAMED, MAX_SAID = 3, 60
REMEDY = "give another --out, or --restart to discard them"


@dataclass
class AnswerLog:
    """The answers at `path`, which belong to `protocol`: plain values, as JSON has them."""

    path: Path
    protocol: Mapping[str, YamlValue]
    _num_bytes: int = field(default=0, init=False)
    _num_good: int = field(default=0, init=False)

    @property
    def beside(self) -> Path:
        """Where the protocol is stated."""
        return self.path.with_suffix(".protocol.json")

    def forget(self) -> None:
        """Begin anew."""
        self.path.unlink(missing_ok=True)
        self.beside.unlink(missing_ok=True)

    def kept(self, problems: Sequence[Problem]) -> dict[ProblemSample, Answer]:
        """The answers that are there already; a last line that was cut short is none.

        Raises UserError where they belong to another protocol, or the file is damaged.
        """
        content = self.path.read_bytes() if self.path.exists() else b""
        self._num_bytes = self._num_good = len(content)
        if not content:
            return {}
        self._check()
        number, by_id = (
            {problem.id: m for m, problem in enumerate(problems)},
            {problem.id: problem for problem in problems},
        )
        found: dict[ProblemSample, Answer] = {}
        lines = content.split(b"\n")
        self._num_good -= len(lines.pop())  # what follows the last end of a line is torn
        for count, line in enumerate(lines, 1):
            try:
                answer = from_line(json.loads(line), by_id)
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{self.path}: line {count} is no answer of this suite ({error}); {REMEDY}"
                ) from error
            found[number[answer.problem.id], answer.sample] = answer
        return found

    @contextmanager
    def writing(self) -> Iterator[Callable[[Answer], None]]:
        """What appends an answer, on the disk when it returns.

        Raises UserError where another process writes here too.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as stream:
            self._lock(stream.fileno())
            stream.truncate(self._num_good)
            if self._num_good == 0:
                self._state()

            def append(answer: Answer) -> None:
                stream.write(answer.line().encode())
                stream.flush()
                os.fsync(stream.fileno())

            yield append

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_alone = False
        else:
            is_alone = os.fstat(handle).st_size == self._num_bytes
        if not is_alone:
            raise UserError(
                f"another process evaluates into {self.path}; wait for it, or give another --out"
            )

    def _state(self) -> None:
        """Write the protocol, and make sure that it is on the disk before any answer is."""
        storage.replace_text(
            self.beside, json.dumps(self.protocol, indent=1, ensure_ascii=False) + "\n"
        )
        for place in (self.beside, self.beside.parent):
            handle = os.open(place, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _check(self) -> None:
        """Refuse answers of another protocol, naming what differs."""
        try:
            stated: dict[str, YamlValue] = json.loads(self.beside.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.path} holds answers, and {self.beside.name} beside it does not say "
                f"to what they belong; {REMEDY}"
            ) from error
        changed = sorted(
            changed_keys(stated, self.protocol), key=lambda key: ("sha256" in key, key)
        )  # what a person can read first
        if changed:
            shown = ", ".join(
                f"{key} was {_said(stated, key)} and is {_said(self.protocol, key)}"
                for key in changed[:MAX_NAMED]
            )
            more = f" and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
            raise UserError(
                f"{self.path} holds answers of another protocol ({shown}{more}); {REMEDY}"
            )


def _said(protocol: Mapping[str, YamlValue], key: str) -> str:
    """The value at a dotted key, cut to a readable length; names of packages may hold dots of their
    own, so the longest wins.
    """
    value: YamlValue = dict(protocol)
    rest = key
    while rest and isinstance(value, dict):
        name = max(
            (name for name in value if rest == name or rest.startswith(f"{name}.")),
            key=len,
            default=None,
        )
        if name is None:
            return "absent"
        value, rest = value[name], rest[len(name) + 1 :]
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SAID else f"{text[:MAX_SAID]}..."
