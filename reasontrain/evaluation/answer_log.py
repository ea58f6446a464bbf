"""The answer log of a suite: every answer is on disk as soon as it is graded.

The log survives `kill -9`. The log `gsm8k.jsonl` has a `gsm8k.fingerprint.json`, the fingerprint of
the evaluation: everything that changes an answer (weights, problems, prompts, sampling, seed,
precision, versions). It is written before the first answer, and answers with different fingerprints
never share a log.
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

MAX_DIFFERENCES = 3
"""The most differences between two fingerprints that an error message lists."""
MAX_VALUE_LENGTH = 60
"""The length to which a message shortens values."""
REMEDY = "give another --out, or --restart to discard them"


@dataclass
class AnswerLog:
    """The answers at `path`, all with this fingerprint (plain JSON values)."""

    path: Path
    fingerprint: Mapping[str, YamlValue]
    _num_bytes: int = field(default=0, init=False)
    _num_complete_bytes: int = field(default=0, init=False)

    @property
    def fingerprint_path(self) -> Path:
        """The file that holds the fingerprint."""
        return self.path.with_suffix(".fingerprint.json")

    def discard(self) -> None:
        """Delete the log and its fingerprint."""
        self.path.unlink(missing_ok=True)
        self.fingerprint_path.unlink(missing_ok=True)

    def read(self, problems: Sequence[Problem]) -> dict[ProblemSample, Answer]:
        """Read the answers in the log, without an incomplete last line.

        Raises UserError if they have another fingerprint, or the file is damaged.
        """
        content = self.path.read_bytes() if self.path.exists() else b""
        self._num_bytes = len(content)
        self._num_complete_bytes = len(content)
        if not content:
            return {}
        self._check_fingerprint()
        index_by_id = {problem.id: index for index, problem in enumerate(problems)}
        problem_by_id = {problem.id: problem for problem in problems}
        answers: dict[ProblemSample, Answer] = {}
        lines = content.split(b"\n")
        # after the last newline: empty, or a line that was cut when the process was killed
        self._num_complete_bytes -= len(lines.pop())
        for count, line in enumerate(lines, 1):
            try:
                answer = from_line(json.loads(line), problem_by_id)
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{self.path}: line {count} is no answer of this suite ({error}); {REMEDY}"
                ) from error
            answers[index_by_id[answer.problem.id], answer.sample] = answer
        return answers

    @contextmanager
    def writing(self) -> Iterator[Callable[[Answer], None]]:
        """Open the log; yield a function that appends an answer and returns once it is on disk.

        Raises UserError if another process writes to the log.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as stream:
            self._lock(stream.fileno())
            stream.truncate(self._num_complete_bytes)
            if self._num_complete_bytes == 0:
                self._write_fingerprint()

            def append(answer: Answer) -> None:
                stream.write(answer.line().encode())
                stream.flush()
                os.fsync(stream.fileno())

            yield append

    def _lock(self, descriptor: int) -> None:
        """Lock the log; raise UserError if another process writes to it or wrote after `read`."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_unchanged = False
        else:
            is_unchanged = os.fstat(descriptor).st_size == self._num_bytes
        if not is_unchanged:
            raise UserError(
                f"another process evaluates into {self.path}; wait for it, or give another --out"
            )

    def _write_fingerprint(self) -> None:
        """Write the fingerprint, and return once it is on disk."""
        storage.replace_text(
            self.fingerprint_path,
            json.dumps(self.fingerprint, indent=1, ensure_ascii=False) + "\n",
        )
        # the folder too: without it, a crash may lose the name of a file whose content is safe
        for path in (self.fingerprint_path, self.fingerprint_path.parent):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _check_fingerprint(self) -> None:
        """Raise UserError, with the differences, if the log has another fingerprint."""
        try:
            logged: dict[str, YamlValue] = json.loads(
                self.fingerprint_path.read_text(encoding="utf-8")
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.path} holds answers, but their fingerprint {self.fingerprint_path.name} "
                f"is missing or damaged, so what they belong to is unknown; {REMEDY}"
            ) from error
        # hashes last: the other differences are easier to understand
        changed = sorted(
            changed_keys(logged, self.fingerprint), key=lambda key: ("sha256" in key, key)
        )
        if changed:
            shown = ", ".join(
                f"{key} was {_shown(logged, key)} and is {_shown(self.fingerprint, key)}"
                for key in changed[:MAX_DIFFERENCES]
            )
            num_more = len(changed) - MAX_DIFFERENCES
            more = f" and {num_more} more" if num_more > 0 else ""
            raise UserError(
                f"{self.path} holds answers of another evaluation ({shown}{more}); {REMEDY}"
            )


def _shown(fingerprint: Mapping[str, YamlValue], key: str) -> str:
    """The value at a dotted key, shortened for an error message."""
    value: YamlValue = dict(fingerprint)
    rest = key
    while rest and isinstance(value, dict):
        # names of packages contain dots themselves, so the longest matching name wins
        name = max(
            (name for name in value if rest == name or rest.startswith(f"{name}.")),
            key=len,
            default=None,
        )
        if name is None:
            return "absent"
        value = value[name]
        rest = rest[len(name) + 1 :]
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}..."
