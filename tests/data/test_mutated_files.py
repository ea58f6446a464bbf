"""Mutated data files: one sentence that names file and line, or the same problems as before.

A seeded generator rather than hypothesis, because a mutated file is cheap to make and to reproduce
from its number, and 2,000 of them have to fit into a few seconds.
"""

from __future__ import annotations

import copy
import csv
import gzip
import io
import json
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from reasontrain.data.files import Columns, is_data_file
from reasontrain.data.offline import encode
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.data.replies import encode_demonstrations
from reasontrain.tasks import Gsm8k, MathTask, PairTask, PythonTask, RolloutTask, Task
from reasontrain.tasks.problems import with_parts
from reasontrain.types import Problem, UserError
from tests.tiny import tokenizer

USER = {"role": "user", "content": "2+2?"}
FOUR = {"role": "assistant", "content": "4", "reasoning_content": "Add."}
FIVE = {"role": "assistant", "content": "5"}
SYSTEM = {"role": "system", "content": "Be brief."}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c", "function": {"name": "add", "arguments": {"a": 2}}}],
}
TOOL = {"role": "tool", "content": "4", "tool_call_id": "c"}
SHARE = [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]
ROWS: list[tuple[dict[str, object], tuple[int, ...]]] = [
    ({"problem": "2+2?", "answer": "4", "solution": "\\boxed{4}", "level": 1}, (0, 1, 2, 4)),
    ({"question": "2+2?", "answer": "It is 4.\n#### 4"}, (0, 1)),
    ({"prompt": [USER], "reward_model": {"ground_truth": "4"}, "ability": "math"}, (0, 1, 4, 5)),
    ({"prompt": "2+2?", "completion": "4", "id": "a"}, (0, 2, 4)),
    ({"prompt": [USER], "completion": [FOUR]}, (0, 2)),
    ({"messages": [SYSTEM, USER, CALL, TOOL, FOUR], "tools": []}, (0, 2)),
    ({"messages": [USER, FOUR], "loss_weight": 0.5, "chat_template_kwargs": {"x": 1}}, (2,)),
    ({"conversations": SHARE, "system": "Be brief.", "tools": "[]"}, (0, 2)),
    ({"instruction": "Add.", "input": "2+2", "output": "4", "history": [["1+1?", "2"]]}, (1, 2)),
    ({"prompt": "2+2?", "chosen": "4", "rejected": "5"}, (3,)),
    ({"chosen": [USER, FOUR], "rejected": [USER, FIVE]}, (3,)),
    ({"prompt": "?", "response": "4", "prompt_ids": [1], "response_ids": [2, 3]}, (2,)),
]
"""Rows of many formats, each with the numbers of the tasks (see `tasks`) that read it."""
HOSTILE: list[object] = [
    None, "", " ", "nan", "NaT", math.nan, math.inf, True, 0, -1, 2**70, 1e400, 0.1, [], {}, [[]],
    [None], [1], ["a", None], {"a": None}, {"role": "user"}, [{"role": "user"}], [{"from": 3}],
    [{"role": "user", "content": [{}]}], "[{", "[{}]", '[{"role": 1}]', "\ud800", "\x00", "#### ",
    "\\boxed{", {"function": None}, [{"function": {"name": None}}], "x" * 500,
]  # fmt: skip
KEYS = [
    "prompt", "problem", "messages", "conversations", "chosen", "rejected", "answer", "id", "role",
    "from", "content", "value", "label", "image", "images", "tools", "input", "system", "a.b", "",
    "response", "response_ids", "prompt_ids", "tool_calls", "weight", "train", "text", "type",
]  # fmt: skip
ENDINGS = ("jsonl", "jsonl", "json", "csv", "parquet", "jsonl.gz")


def nodes(value: object) -> Iterator[tuple[object, object]]:
    """(container, key) of every cell of a row, at any depth."""
    keys = value.keys() if isinstance(value, dict) else range(len(value))  # type: ignore[arg-type]
    for key in list(keys):
        yield value, key
        child = value[key]  # type: ignore[index]
        if isinstance(child, dict | list):
            yield from nodes(child)


def mutate_rows(rows: list[dict[str, object]], dice: random.Random) -> None:
    """Change one cell, name, or row in place."""
    row = dice.choice(rows)
    places = list(nodes(row))
    if not places:
        return
    container, key = dice.choice(places)
    match dice.randrange(6):
        case 0:
            del container[key]  # type: ignore[attr-defined]
        case 1 if isinstance(container, dict):
            container[dice.choice(KEYS)] = container.pop(key)
        case 2:
            row[dice.choice(KEYS)] = copy.deepcopy(dice.choice(HOSTILE))
        case 3:
            other, place = dice.choice(places)
            container[key] = copy.deepcopy(other[place])  # type: ignore[index]
        case 4 if isinstance(container, list):
            place = dice.randrange(len(container) + 1)
            container.insert(place, copy.deepcopy(dice.choice(HOSTILE)))
        case _:
            container[key] = copy.deepcopy(dice.choice(HOSTILE))  # type: ignore[index]


def mutate_bytes(content: bytes, dice: random.Random) -> bytes:
    """Change, remove, repeat or insert a few bytes."""
    if not content:
        return content
    start = dice.randrange(len(content))
    end = min(len(content), start + dice.choice((1, 1, 2, 8, 200)))
    match dice.randrange(5):
        case 0:
            return content[:start]
        case 1:
            return content[:start] + content[end:]
        case 2:
            return content[:end] + content[start:]
        case 3:
            return content[:start] + dice.randbytes(end - start) + content[end:]
        case _:
            return (
                content[:start]
                + dice.choice((b"\xff", b"\x00", b'"', b"}", b"\n"))
                + content[start:]
            )


def written(rows: list[dict[str, object]], ending: str) -> bytes:
    """The content of a data file; cells that a format cannot hold are written as JSON."""
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if ending == "jsonl":
        return lines.encode()
    if ending == "jsonl.gz":
        return gzip.compress(lines.encode(), mtime=0)
    if ending == "json":
        return json.dumps(rows).encode()
    names = list(dict.fromkeys(name for row in rows for name in row))
    if ending == "csv":
        stream = io.StringIO(newline="")
        writer = csv.writer(stream)
        writer.writerow(names)
        for row in rows:
            cells = [row.get(name) for name in names]
            writer.writerow([json.dumps(c) if isinstance(c, dict | list) else c for c in cells])
        return stream.getvalue().encode("utf-8", "surrogatepass")
    import pyarrow
    from pyarrow.parquet import write_table

    buffer = io.BytesIO()
    try:
        write_table(pyarrow.Table.from_pylist(rows), buffer)
    except (pyarrow.ArrowException, OverflowError, UnicodeError, TypeError):  # of several types
        buffer = io.BytesIO()
        cells = {name: [json.dumps(row.get(name)) for row in rows] for name in names}
        write_table(pyarrow.table(cells), buffer)
    return buffer.getvalue()


def tasks(path: str, reward: Path, *, bad_rows: str = "refuse") -> list[Callable[[], Task]]:
    settings: dict[str, object] = {"bad_rows": bad_rows}
    return [
        lambda: MathTask(path=path, **settings),  # type: ignore[arg-type]
        lambda: Gsm8k(path=path, **settings),  # type: ignore[arg-type]
        lambda: RolloutTask(path=path, **settings),  # type: ignore[arg-type]
        lambda: PairTask(path=path, **settings),  # type: ignore[arg-type]
        lambda: PythonTask(path=str(reward), problems_path=path, **settings),  # type: ignore[arg-type]
        lambda: MathTask(path=path, columns=Columns(answer="reward_model.ground_truth")),
    ]


@cache
def encoder() -> Encoder:
    return Encoder(tokenizer(), PromptSettings(), 4096)


def check(path: Path, reward: Path, number: int, kind: int) -> str | None:
    """Read a file in one kind and encode its rows; return the message if it is refused."""
    task = tasks(str(path), reward, bad_rows="drop" if number % 5 == 4 else "refuse")[kind]()
    try:
        problems = list(task.problems())
        if isinstance(task, RolloutTask | PairTask):
            encode(task.samples, encoder(), 4096)
        elif number % 2:
            with_parts(problems, bad_rows=task.bad_rows, answer=True, solution=False)
        else:
            encode_demonstrations(
                encoder(),
                with_parts(problems, bad_rows=task.bad_rows, answer=False, solution=True),
            )
    except UserError as error:
        return str(error)
    for problem in problems:
        assert problem.prompt, number
        assert problem.id.strip(), number
        assert "nan" not in (problem.answer.strip().lower(), problem.solution.strip().lower())
    return None


def mutants(folder: Path, num: int, seed: int) -> Iterator[tuple[int, Path, int]]:
    """Write mutated files one by one: (number, file, number of the task that reads it)."""
    for number in range(num):
        dice = random.Random(f"{seed} {number}")
        ending = dice.choice(ENDINGS)
        formats = [dice.choice(ROWS)] * 3 if dice.random() < 0.8 else dice.choices(ROWS, k=3)
        rows = [copy.deepcopy(row) for row, _ in formats[: dice.choice((1, 2, 3))]]
        if dice.random() < 0.9:
            for index, row in enumerate(rows):
                row |= {"id": f"r{index}"} if "id" in row else {}
        kind = dice.choice(formats[0][1]) if dice.random() < 0.8 else dice.randrange(6)
        by_bytes = dice.random() < 0.3
        if not by_bytes:
            for _ in range(dice.choice((1, 1, 2, 4))):
                mutate_rows(rows, dice)
        content = written(rows, ending)
        if by_bytes:
            for _ in range(dice.choice((1, 1, 3))):
                content = mutate_bytes(content, dice)
        path = folder / f"rows.{ending}"
        path.write_bytes(content)
        yield number, path, kind


def check_mutants(folder: Path, num: int, seed: int) -> None:
    reward = folder.parent / "reward.py"
    reward.write_text("def score(problem, response): return 1")
    refused = 0
    for number, path, kind in mutants(folder, num, seed):
        message = check(path, reward, number, kind)
        assert [file.name for file in folder.iterdir()] == [path.name], number
        path.unlink()
        if message is not None:
            refused += 1
            assert str(path) in message, (number, message)
            assert "\n" not in message, (number, message)
            assert len(message) < 1200, (number, message)
            assert re.search(r"line \d|row \d|column|Parquet|is empty|be read", message), message
    assert num // 3 < refused < num * 9 // 10  # neither all refused nor all accepted


def test_a_mutated_file_is_read_or_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    check_mutants(tmp_path / "data", 2000, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_more_mutated_files(tmp_path: Path, seed: int) -> None:
    (tmp_path / "data").mkdir()
    check_mutants(tmp_path / "data", 10_000, seed=seed)


# ---- mutations that keep the meaning


def shuffled(value: object, dice: random.Random) -> object:
    """The same value with the keys of every object in another order."""
    if isinstance(value, list):
        return [shuffled(each, dice) for each in value]
    if not isinstance(value, dict):
        return value
    items = [(key, shuffled(each, dice)) for key, each in value.items()]
    dice.shuffle(items)
    return dict(items)


def respelled(rows: list[dict[str, object]], dice: random.Random) -> tuple[str, bytes]:
    """A file's ending and content that mean the same rows."""
    rows = [dict(row) for row in rows]
    if dice.random() < 0.5:
        extra = dice.choice([None, math.nan, "x", 3, [1], {"deep": {"a": []}}, True])
        for row in rows:
            row["another column"] = extra
    rows = [shuffled(row, dice) for row in rows]  # type: ignore[misc]
    escape = dice.random() < 0.5
    separators = dice.choice([(",", ":"), (", ", ": "), (" ,\t", " :  ")])

    def dumped(value: object, indent: int | None = None) -> str:
        text = json.dumps(value, ensure_ascii=escape, separators=separators, indent=indent)
        spelling = dice.choice(["7", "7.0", "7e0", "0.7E+1", "70e-1"])
        return text.replace("777", spelling)

    if dice.random() < 0.3:
        text = dumped(rows, dice.choice([None, 1, 4]))
        text = dice.choice([text, f'{{"version": "1", "data": {text}}}', f"\n{text}\n\n"])
        ending = "json"
    else:
        end = dice.choice(["\n", "\r\n", "\n\n", "\n \t\n", "\r\n\r\n"])
        text = end.join(dumped(row) for row in rows) + dice.choice(["", end])
        text = dice.choice(["", end]) + text
        ending = dice.choice(["jsonl", "ndjson", "JSONL", "json"]) if len(rows) > 1 else "jsonl"
    content = dice.choice(
        [
            text.encode("utf-8"),
            text.encode("utf-8-sig"),
            text.encode("utf-16"),
            b"\xfe\xff" + text.encode("utf-16-be"),
        ]
    )
    return (f"{ending}.gz", gzip.compress(content)) if dice.random() < 0.2 else (ending, content)


def test_mutations_that_keep_the_meaning_are_accepted(tmp_path: Path) -> None:
    reward = tmp_path / "reward.py"
    reward.write_text("def score(problem, response): return 1")
    plain = tmp_path / "plain.jsonl"

    def read(path: Path, kind: int) -> list[Problem]:
        problems = tasks(str(path), reward)[kind]().problems()
        return [replace(problem, source="", about={}) for problem in problems]

    kinds = [
        ([{"problem": "2+2=½?", "answer": 777, "solution": "7"}] * 2, 0),
        ([ROWS[1][0]] * 3, 1),
        ([ROWS[2][0]] * 2, 4),
        ([ROWS[5][0], ROWS[6][0]], 2),
        ([ROWS[7][0]] * 2, 2),
        ([ROWS[8][0]], 0),
        ([ROWS[9][0]] * 2, 3),
        ([ROWS[10][0]] * 2, 3),
    ]
    for number in range(240):
        rows, kind = kinds[number % len(kinds)]
        dice = random.Random(number)
        plain.write_text("".join(json.dumps(row) + "\n" for row in rows).replace("777", "7"))
        ending, content = respelled(copy.deepcopy(rows), dice)
        path = tmp_path / f"rows.{ending}"
        path.write_bytes(content)
        assert is_data_file(path)
        assert read(path, kind) == read(plain, kind), number
        path.unlink()
