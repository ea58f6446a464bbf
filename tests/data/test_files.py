"""Files are read strictly, and what is wrong with them is said exactly."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from reasontrain.data.files import Columns, Source, Table, read_file, text
from reasontrain.data.progress import with_progress
from reasontrain.types import UserError

ROWS = [
    {"id": "a", "problem": "2 + 2?", "answer": "4"},
    {"id": "b", "problem": "½ – ∞?", "answer": "-∞"},
]


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "\n".join([json.dumps(ROWS[0]), "", json.dumps(ROWS[1], ensure_ascii=False), ""]),
        encoding="utf-8",
    )
    return path


def test_jsonl_keeps_line_numbers_over_blank_lines(jsonl: Path) -> None:
    table = read_file(jsonl)
    assert (list(table.rows), list(table.lines)) == (ROWS, [1, 3])
    assert table.where(1) == f"{jsonl}, line 3"


def test_a_line_separator_inside_a_string_ends_no_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        json.dumps({"problem": "a\u2028b\x85c"}, ensure_ascii=False) + "\r\n",
        encoding="utf-8",
        newline="",
    )
    assert read_file(path).rows == [{"problem": "a\u2028b\x85c"}]


def test_parquet_reads_as_jsonl_does(tmp_path: Path) -> None:
    from pyarrow import Table as ArrowTable
    from pyarrow.parquet import write_table

    path = tmp_path / "rows.parquet"
    write_table(ArrowTable.from_pylist(ROWS), path)
    assert list(read_file(path).rows) == ROWS


def test_hub_reads_through_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[object] = []

    def load(hub: str, subset: str | None, *, split: str, revision: str | None) -> datasets.Dataset:
        asked.extend([hub, subset, split, revision])
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    table = Source(hub="openai/gsm8k", subset="main", split="test", revision="abc", limit=1).table()
    assert (list(table.rows), asked) == (ROWS[:1], ["openai/gsm8k", "main", "test", "abc"])


def test_a_hub_id_that_cannot_be_had_is_a_user_error() -> None:
    with pytest.raises(UserError, match="hub data set 'nobody/nothing'"):
        Source(hub="nobody/nothing").table()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected at least one row"),
        (b"\n \n", "is empty; expected at least one row"),
        (
            b'{"a": 1}\n{"a": \n',
            r"line 2: expected one JSON object per line \(Expecting value: .*\); the line "
            r"starts '\{\"a\": '",
        ),
        (
            b'{"a": 1}\n\n[1]\n',
            r"line 3: expected a JSON object, found list; the line starts '\[1\]'",
        ),
        (b'{"a": "\xff"}\n', r"line 1: byte 8 \(0xff\) is not UTF-8"),
        (b"[" * 100_000, "line 1: nested too deeply"),
    ],
)
def test_malformed_jsonl_is_told_by_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}.*{message}"):
        read_file(path)


def test_files_that_are_none(jsonl: Path) -> None:
    folder = jsonl.parent
    (folder / "rows.xlsx").write_text("a,b")
    (folder / "bad.parquet").write_text("no parquet")
    for name, message in {
        "rows.jsnl": "does not exist; did you mean `rows.jsonl`?",
        "rows.xlsx": r"has the suffix '\.xlsx'; expected \.jsonl, \.ndjson, \.json, \.csv, ",
        "bad.parquet": "cannot be read as Parquet",
        ".": r"is a folder; .* \(data files in it: bad\.parquet, rows\.jsonl\)",
        "no/such.jsonl": "does not exist",
    }.items():
        with pytest.raises(UserError, match=message):
            read_file(folder / name)


def test_a_source_has_one_place() -> None:
    with pytest.raises(UserError, match="both a path"):
        Source(path="a.jsonl", hub="b/c").table()
    with pytest.raises(UserError, match="neither `path` nor `hub` is set"):
        Source().table()


def test_columns_are_named_when_one_is_missing() -> None:
    table = Table(source="x.jsonl", rows=ROWS, lines=[1, 2])
    assert table.require("answer") == "answer"
    assert table.find(["question", "problem"]) == "problem"
    assert table.find(["q"]) is None
    with pytest.raises(
        UserError,
        match=r"x\.jsonl has no column 'anwser'; did you mean `answer`\? \(it has: id, problem, "
        r"answer\)",
    ):
        table.require("anwser")
    assert list(Columns(problem="q", id="n").named()) == [("problem", "q"), ("id", "n")]


def test_cells_are_text_or_numbers() -> None:
    assert [text(cell, column="c", where="w") for cell in ("a", 3, 0.5)] == ["a", "3", "0.5"]
    for cell, found in ((None, "nothing"), ([1], r"list '\[1\]'"), (True, "bool 'True'")):
        with pytest.raises(
            UserError, match=f"w: column 'c' holds {found}; expected text or a number"
        ):
            text(cell, column="c", where="w")


def test_long_work_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = iter([0.0, 4.0, 11.0, 11.0, 12.0, 25.0, 25.0])
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    caplog.set_level("INFO")
    assert list(with_progress("abcd", "rows read")) == list("abcd")
    assert [record.message for record in caplog.records] == [
        "1 of 4 rows read",
        "3 of 4 rows read",
    ]
