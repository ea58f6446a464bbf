"""`reasontrain grade`: add verdicts to a stream of lines with gold answer and prediction."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Queue
from threading import Thread

from reasontrain.data.files import Row, json_object, text
from reasontrain.data.thought_marks import KNOWN
from reasontrain.tasks import AnswerFormat, Grader, GradeRequest, Verdict
from reasontrain.tasks.grading.grader import num_cores
from reasontrain.types import UserError

Grade = Callable[[str, str, bool, bool, str], Verdict]
MAX_PENDING = 256
"""The most lines that are read ahead of grading."""
DAY_S = 86_400.0
PROBLEMS = ("problem", "question")
"""Columns that may have the text of the problem."""


@dataclass(frozen=True, kw_only=True)
class GradeOptions:
    """The options of the command line.

    `file` is `-` for standard input; `num_workers` None means one worker per core. `explain` adds
    the gold answer as it was read, and the rule by which the two were compared.
    """

    file: str
    timeout_s: float
    num_workers: int | None
    answer_format: AnswerFormat
    explain: bool = False


def grade(options: GradeOptions) -> None:
    """Write each line with its verdict, in order and as soon as it is graded.

    At the end, write the counts to standard error.
    """
    if not 0 < options.timeout_s < DAY_S:
        raise UserError(
            f"--timeout-s must be more than 0 and less than a day, got {options.timeout_s:g}"
        )
    if options.num_workers is not None and options.num_workers < 1:
        raise UserError(f"--workers must be at least 1, got {options.num_workers}")
    num_workers = options.num_workers or num_cores()
    grader = Grader(num_workers=num_workers, limit_s=options.timeout_s)
    counts: Counter[tuple[bool, str]] = Counter()
    with _rows(options.file) as rows, grader:
        try:
            for row, verdict in _graded(
                rows, partial(grader.grade, answer_format=options.answer_format), num_workers
            ):
                _write(row, verdict, explain=options.explain)
                counts[verdict.correct, verdict.reason] += 1
        # the reader closed the pipe (`| head`); without this, Python would fail again at exit
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    summary = ", ".join(
        f"{'correct' if right else 'wrong'} by {reason} {n}"
        for (right, reason), n in sorted(counts.items())
    )
    print(f"graded {counts.total()} lines: {summary or 'there are none'}", file=sys.stderr)


def _write(row: Row, verdict: Verdict, *, explain: bool) -> None:
    """Print one line of JSON."""
    explanation = {"gold_read": verdict.gold, "rule": verdict.rule} if explain else {}
    # ASCII only: JSON may contain lone surrogates, which UTF-8 cannot encode
    print(
        json.dumps(
            {
                **row,
                "correct": verdict.correct,
                "extracted": verdict.extracted,
                "reason": verdict.reason,
                **explanation,
            }
        ),
        flush=True,
    )


@contextmanager
def _rows(file: str) -> Iterator[Iterator[tuple[Row, str]]]:
    """Yield each row with its position in the file; skip blank lines."""
    name = "standard input" if file == "-" else file
    if file != "-" and not Path(file).is_file():
        raise UserError(
            f"there is no file {file}; expected JSON lines with `gold` and `prediction`, or - for "
            "standard input"
        )
    with sys.stdin.buffer if file == "-" else Path(file).open("rb") as stream:
        places = (
            (raw, f"{name}, line {number}")
            for number, raw in enumerate(stream, start=1)
            if raw.strip()
        )
        yield ((json_object(raw, where, allow_halves=True), where) for raw, where in places)


def _graded(
    rows: Iterator[tuple[Row, str]], grade_one: Grade, num_workers: int
) -> Iterator[tuple[Row, Verdict]]:
    """Yield rows with their verdicts, in order, while a thread reads more lines.

    An invalid line is raised after the lines before it.
    """
    pending: Queue[tuple[Row, Future[Verdict]] | Exception | None] = Queue(MAX_PENDING)
    threads = ThreadPoolExecutor(num_workers)

    def read() -> None:
        try:
            for row, where in rows:
                pending.put((row, threads.submit(grade_one, *_request(row, where))))
            pending.put(None)
        except Exception as error:  # raised in the consumer's thread, after the lines before it
            pending.put(error)

    Thread(target=read, daemon=True).start()
    try:
        while (item := pending.get()) is not None:
            if isinstance(item, Exception):
                raise item
            row, verdict = item
            yield row, verdict.result()
    finally:
        threads.shutdown(cancel_futures=True)


def _request(row: Row, where: str) -> GradeRequest:
    """The response of a row.

    What the text does not show is read from the columns that an answer log has: `truncated` and
    `unfinished`, and a prompt as text, which may open the thought. The text of the problem, from
    `problem` or `question`, has the nouns that may follow a number.
    """
    gold = _cell(row, "gold", where)
    text = _cell(row, "prediction", where)
    truncated = _flag(row, "truncated", where)
    unfinished = _flag(row, "unfinished", where)
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        state = KNOWN.state(prompt, chat=False, thinking=None)
        reading = KNOWN.read(text, truncated=truncated, state=state)
        unfinished = unfinished or reading.unfinished
    problem = next((row[name] for name in PROBLEMS if isinstance(row.get(name), str)), "")
    return GradeRequest(gold, text, truncated, unfinished, str(problem))


def _flag(row: Row, column: str, where: str) -> bool:
    value = row.get(column)
    if value is not None and not isinstance(value, bool):
        raise UserError(f"{where}: column {column!r} is {value!r}; expected true or false")
    return bool(value)


def _cell(row: Row, column: str, where: str) -> str:
    if column not in row:
        raise UserError(
            f"{where}: no `{column}` (it has: {', '.join(row) or 'nothing'}); every line needs "
            "`gold` and `prediction`"
        )
    return text(row[column], column=column, where=where)
