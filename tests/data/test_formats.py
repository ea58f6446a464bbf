"""Rows as other projects publish them are read as they are, by every kind of task that can."""

from __future__ import annotations

import csv
import gzip
import json
import math
from pathlib import Path

import pytest

from reasontrain.data.files import BadRows, Columns, Row
from reasontrain.tasks import Gsm8k, MathTask, PairTask, PythonTask, RolloutTask, Task
from reasontrain.tasks.offline import PairColumns, RolloutColumns
from reasontrain.tasks.problems import BOXED, with_parts
from reasontrain.types import Message, Problem, UserError

USER: Message = {"role": "user", "content": "2+2?"}
SYSTEM: Message = {"role": "system", "content": "Be brief."}
FOUR: Message = {"role": "assistant", "content": "4"}
FIVE: Message = {"role": "assistant", "content": "5"}
PARTS = {
    "role": "user",
    "content": [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}],
}
HUMAN, GPT = {"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}

DEMONSTRATIONS: dict[str, tuple[Row, object]] = {
    "TRL prompt and completion": ({"prompt": "2+2?", "completion": "4"}, "2+2?"),
    "TRL conversational": ({"prompt": [USER], "completion": [FOUR]}, (USER,)),
    "TRL messages": ({"messages": [SYSTEM, USER, FOUR]}, (SYSTEM, USER)),
    "turns of parts": ({"messages": [PARTS, FOUR]}, (USER,)),
    "turns under prompt": ({"prompt": [USER, FOUR]}, (USER,)),
    "OpenRLHF": ({"input": "2+2?", "output": "4"}, "2+2?"),
    "OpenOrca": (
        {"system_prompt": "Be brief.", "question": "2+2?", "response": "4"},
        (SYSTEM, USER),
    ),
    "Mixture-of-Thoughts": ({"messages": [USER, FOUR], "num_tokens": 3, "source": "x"}, (USER,)),
    "ShareGPT": ({"conversations": [HUMAN, GPT], "id": "a", "tools": ""}, (USER,)),
    "ShareGPT with system": (
        {"conversations": [HUMAN, GPT], "system": "Be brief."},
        (SYSTEM, USER),
    ),
    "conversations with roles": ({"conversations": [USER, FOUR]}, (USER,)),
    "JSON in a text": ({"conversations": json.dumps([HUMAN, GPT])}, (USER,)),
    "Alpaca": ({"instruction": "Add.", "input": "2+2", "output": "4"}, "Add.\n2+2"),
    "Alpaca without input": ({"instruction": "2+2?", "input": "", "output": "4"}, "2+2?"),
    "Alpaca with history": (
        {"instruction": "2+2?", "output": "4", "history": [["1+1?", "2"]], "system": "Be brief."},
        (SYSTEM, {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}, USER),
    ),
    "verl": ({"prompt": [USER], "response": "4", "extra_info": {"index": 0}}, (USER,)),
}

PROBLEMS: dict[str, tuple[Row, object, str]] = {
    "prompt-only": ({"prompt": "2+2?"}, "2+2?", ""),
    "prompt-only conversational": ({"prompt": [USER]}, (USER,), ""),
    "verl": (
        {
            "data_source": "openai/gsm8k",
            "prompt": [USER],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "4"},
            "extra_info": {"split": "train", "index": 0, "answer": "no"},
        },
        (USER,),
        "4",
    ),
    "DAPO": (
        {"prompt": [USER], "reward_model": {"ground_truth": "4"}, "extra_info": {"index": "u-1"}},
        (USER,),
        "4",
    ),
    "Open-R1": (
        {"problem": "2+2?", "solution": "Add: \\boxed{4}", "messages": [USER]},
        "2+2?",
        "4",
    ),
    "GSM8K": ({"question": "2+2?", "answer": "So <<2+2=4>>4.\n#### 4"}, "2+2?", "4"),
    "MATH": (
        {
            "problem": "2+2?",
            "level": "Level 1",
            "type": "Algebra",
            "solution": "It is $\\boxed{4}$.",
        },
        "2+2?",
        "4",
    ),
    "DeepScaleR": ({"problem": "2+2?", "answer": "4", "solution": "Add."}, "2+2?", "4"),
}

PAIRS: dict[str, tuple[Row, object]] = {
    "TRL": ({"prompt": "2+2?", "chosen": "4", "rejected": "5"}, "2+2?"),
    "TRL conversational": ({"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]}, (USER,)),
    "TRL implicit prompt": ({"chosen": [USER, FOUR], "rejected": [USER, FIVE]}, (USER,)),
    "UltraFeedback": (
        {"prompt": "2+2?", "chosen": [USER, FOUR], "rejected": [USER, FIVE], "score_chosen": 9.0},
        (USER,),
    ),
    "orca_dpo_pairs": (
        {"system": "Be brief.", "question": "2+2?", "chosen": "4", "rejected": "5"},
        (SYSTEM, USER),
    ),
    "LLaMA-Factory": (
        {
            "conversations": [HUMAN],
            "chosen": {"from": "gpt", "value": "4"},
            "rejected": {"from": "gpt", "value": "5"},
        },
        (USER,),
    ),
    "Alpaca": (
        {"instruction": "Add.", "input": "2+2", "chosen": "4", "rejected": "5"},
        "Add.\n2+2",
    ),
}


def jsonl(folder: Path, *rows: Row, name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("name", DEMONSTRATIONS)
def test_demonstrations_are_the_same_in_every_kind(tmp_path: Path, name: str) -> None:
    row, prompt = DEMONSTRATIONS[name]
    path = jsonl(tmp_path, row)
    (tmp_path / "reward.py").write_text("def score(problem, response): return 1")
    rollouts = RolloutTask(path=path)
    problems = [
        *rollouts.problems(),
        *MathTask(path=path, instruction="").problems(),
        *Gsm8k(path=path, instruction="").problems(),
        *PythonTask(path=str(tmp_path / "reward.py"), problems_path=path).problems(),
    ]
    assert [(p.prompt, p.solution, p.source) for p in problems] == [
        (prompt, "4", f"{path}, line 1")
    ] * 4
    assert [response.text for response in rollouts.samples[0].responses] == ["4"]
    assert not any(p.reply for p in problems) or all(p.reply == (FOUR,) for p in problems)


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_and_golds(tmp_path: Path, name: str) -> None:
    row, prompt, gold = PROBLEMS[name]
    path = jsonl(tmp_path, row)
    tasks: list[MathTask | Gsm8k] = [MathTask(path=path, instruction="")]
    if "boxed" not in str(row):
        tasks.append(Gsm8k(path=path, instruction=""))
    for task in tasks:
        (problem,) = task.problems()
        assert (problem.prompt, problem.answer) == (prompt, gold)


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(tmp_path: Path, name: str) -> None:
    row, prompt = PAIRS[name]
    (sample,) = PairTask(path=jsonl(tmp_path, row)).samples
    assert sample.problem.prompt == prompt
    assert [response.text for response in sample.responses] == ["4", "5"]


def test_open_r1s_rows_hold_a_solution_and_a_longer_conversation(tmp_path: Path) -> None:
    row = {"problem": "2+2?", "solution": "4", "answer": "4", "messages": [USER, FIVE], "uuid": "x"}
    path = jsonl(tmp_path, row)
    assert [(p.prompt, p.solution) for p in RolloutTask(path=path).problems()] == [((USER,), "5")]
    (problem,) = MathTask(path=path, instruction="").problems()
    assert (problem.prompt, problem.solution, problem.answer) == ("2+2?", "4", "4")


def test_the_default_instruction_follows_texts_and_never_a_conversation(tmp_path: Path) -> None:
    texts = jsonl(tmp_path, {"problem": "2+2?"}, name="texts.jsonl")
    chat = jsonl(tmp_path, {"messages": [SYSTEM, USER, FOUR]}, {"messages": [USER]})
    for kind in (MathTask, Gsm8k):
        assert kind(path=texts).problems()[0].prompt == f"2+2?\n{BOXED}"
        assert kind(path=texts, instruction="").problems()[0].prompt == "2+2?"
        assert [p.prompt for p in kind(path=chat).problems()] == [(SYSTEM, USER), (USER,)]
        asked = kind(path=chat, instruction="Go.").problems()[0].prompt
        assert asked == (SYSTEM, {"role": "user", "content": "2+2?\nGo."})


def test_tools_calls_and_thoughts_reach_the_problem(tmp_path: Path) -> None:
    schema = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    arguments = {"a": 2, "b": 2}
    call = {"type": "function", "function": {"name": "add", "arguments": arguments}}
    written = {"id": "c1", "function": {"name": "add", "arguments": json.dumps(arguments)}}
    openai = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [written]},
        {"role": "tool", "content": "4", "tool_call_id": "c1", "name": "add"},
        {"role": "assistant", "content": "4", "reasoning_content": "Add.", "weight": 1},
    ]
    sharegpt = [
        HUMAN,
        {"from": "function_call", "value": json.dumps({"name": "add", "arguments": arguments})},
        {"from": "observation", "value": "4"},
        GPT,
    ]
    path = jsonl(
        tmp_path,
        {"messages": openai, "tools": [schema]},
        {"conversations": sharegpt, "tools": json.dumps([schema])},
        {"messages": [USER, FOUR], "loss_weight": 0.5, "chat_template_kwargs": {"think": True}},
        name="openai.jsonl",
    )
    first = [json.loads(line) for line in Path(path).read_text().splitlines()]
    (one,) = RolloutTask(path=jsonl(tmp_path, first[0], name="a.jsonl")).problems()
    (two,) = RolloutTask(path=jsonl(tmp_path, first[1], name="b.jsonl")).problems()
    (three,) = MathTask(path=jsonl(tmp_path, first[2], name="c.jsonl")).problems()
    assert one.prompt == two.prompt == (USER,)
    assert one.tools == two.tools == (schema,)
    assert one.reply == (
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", **call}]},
        {"role": "tool", "content": "4", "tool_call_id": "c1", "name": "add"},
        {"role": "assistant", "content": "4", "reasoning_content": "Add.", "loss_weight": 1.0},
    )
    assert two.reply == (
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "4"},
        FOUR,
    )
    assert (three.loss_weight, three.template_kwargs) == (0.5, {"think": True})


def test_nested_columns_have_dotted_names(tmp_path: Path) -> None:
    row = {"q": {"text": "2+2?"}, "gold": [{"v": 4}], "out": {"good": "4", "bad": "5"}}
    path = jsonl(tmp_path, row)
    (problem,) = MathTask(
        path=path, instruction="", columns=Columns(problem="q.text", answer="gold.0.v")
    ).problems()
    assert (problem.prompt, problem.answer) == ("2+2?", "4")
    (problem,) = RolloutTask(
        path=path, columns=RolloutColumns(prompt="q.text", response="out.good")
    ).problems()
    assert (problem.prompt, problem.solution) == ("2+2?", "4")
    (sample,) = PairTask(
        path=path, columns=PairColumns(prompt="q.text", chosen="out.good", rejected="out.bad")
    ).samples
    assert [response.text for response in sample.responses] == ["4", "5"]
    with pytest.raises(UserError, match=r"no column 'q\.txet'; did you mean `q\.text`\?"):
        MathTask(path=path, columns=Columns(problem="q.txet")).problems()


# ---- files


def test_the_same_rows_in_every_kind_of_file(tmp_path: Path) -> None:
    """Byte-order marks, line ends, packing, wrappers, shards: the same two problems."""
    from pyarrow import Table as ArrowTable
    from pyarrow.parquet import write_table

    rows: list[dict[str, object]] = [
        {"problem": "½+½?", "answer": "1", "n": 1},
        {"problem": 'a, "b"\nc?', "answer": "2", "n": 2},
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    listed = json.dumps(rows, indent=1)
    texts: dict[str, bytes] = {
        "plain.jsonl": lines.encode(),
        "bom.jsonl": b"\xef\xbb\xbf" + lines.encode(),
        "utf16.ndjson": lines.encode("utf-16"),
        "utf16be.jsonl": b"\xfe\xff" + lines.encode("utf-16-be"),
        "crlf.JSONL": ("\n" + lines.replace("\n", "\r\n\r\n") + "  ").encode(),
        "packed.jsonl.gz": gzip.compress(lines.encode()),
        "list.json": listed.encode(),
        "lines.json": lines.encode(),
        "wrapped.json": json.dumps({"version": 1, "data": rows}).encode(),
        "packed.json.gz": gzip.compress(listed.encode("utf-8-sig")),
    }
    for name, content in texts.items():
        (tmp_path / name).write_bytes(content)
    for name, separator in (("a.csv", ","), ("semicolons.csv", ";"), ("a.tsv", "\t")):
        with (tmp_path / name).open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter=separator)
            writer.writeheader()
            writer.writerows(rows)
    write_table(ArrowTable.from_pylist(rows), tmp_path / "a.parquet")
    for i, row in enumerate(rows):
        jsonl(tmp_path, row, name=f"shard-{i}.jsonl")
        (tmp_path / f"single-{i}.json").write_text(json.dumps(row))
    names = [
        *texts,
        "a.csv",
        "semicolons.csv",
        "a.tsv",
        "a.parquet",
        "shard-*.jsonl",
        "single-?.json",
    ]

    def read(name: str) -> list[Problem]:
        return MathTask(path=str(tmp_path / name), instruction="").problems()

    for name in names:
        problems = read(name)
        assert [(p.prompt, p.answer, p.about) for p in problems] == [
            (row["problem"], row["answer"], {"n": str(row["n"])}) for row in rows
        ], name
    second = {name: read(name)[1].source.removeprefix(f"{tmp_path}/") for name in names}
    assert second["plain.jsonl"] == "plain.jsonl, line 2"
    assert second["crlf.JSONL"] == "crlf.JSONL, line 4"
    assert second["a.parquet"] == "a.parquet, row 2"
    assert second["a.csv"] == "a.csv, line 3"
    assert second["shard-*.jsonl"] == "shard-1.jsonl, line 1"
    assert second["single-?.json"] == "single-1.json, row 1"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"a,b\n1,2\n1\n", "line 3: 1 cells, where the header has 2 columns"),
        ("a.csv", b"a,a\n1,2\n", "line 1: the header has column 'a' twice"),
        ("a.csv", b"a,\n1,2\n", "line 1: the header has a column without a name"),
        ("a.csv", b'a,b\n1,2\n"x,3\n', "line 3: cannot be read as CSV: unexpected end of data"),
        ("a.csv", b"a,b\n\xff,2\n", r"line 2: byte 1 \(0xff\) is not UTF-8"),
        ("a.jsonl", b"\xff\xfea", "begins with the mark of UTF-16 and is not valid"),
        ("a.jsonl", b'{"a": 1, "a": 2}\n', r"line 1: .*key 'a' occurs twice"),
        ("a.jsonl", b'{"a": "\\ud800"}\n', r"line 1: .*'\\ud800' is half of a character"),
        ("a.json", b'["x"]', "row 1: expected an object, found str"),
        ("a.json", b"3", "holds one int; expected a list of objects"),
        ("a.json", b'[{"a": \n"\xff"}]', r"line 2: byte 2 \(0xff\) is not UTF-8"),
        ("a.jsonl.gz", b"no gzip", "cannot be read: Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}', mtime=0)[:-9], "cannot be read"),
        ("a.txt", b"x", r"suffix '\.txt'; expected \.jsonl, \.ndjson, \.json, \.csv, \.tsv"),
        ("a.parquet.gz", b"x", r"suffix '\.gz'; expected"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"^{tmp_path / name}.*{message}"):
        MathTask(path=str(tmp_path / name)).problems()


# ---- the kind of task that reads a file


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        (RolloutTask, PAIRS["TRL"][0], "read them with `task.kind: pairs`"),
        (PairTask, {"messages": [USER, FOUR]}, "are read with `task.kind: rollouts`"),
        (PairTask, {"prompt": "?", "completion": "4"}, "are read with `task.kind: rollouts`"),
        (PairTask, {"prompt": "?", "chosen": "4"}, "no column 'rejected'"),
        (RolloutTask, {"problem": "?", "answer": "4"}, "read with `task.kind: math`"),
        (RolloutTask, PROBLEMS["GSM8K"][0], "read with `task.kind: gsm8k`"),
        (RolloutTask, {"prompt": "?"}, r"task\.columns: \{response: "),
        (RolloutTask, {"prompt": "?", "completion": "4", "label": False}, "rated responses"),
        (MathTask, {"prompt": "?", "completion": "4", "label": False}, "rated responses"),
        (RolloutTask, {"prompt": [USER]}, "line 1: there is no reply to learn from"),
        (MathTask, {"text": "2+2? 4"}, r"no column for the problem .*\(|looked for"),
    ],
)
def test_a_file_of_another_kind_names_the_kind_that_reads_it(
    tmp_path: Path, task: type[RolloutTask | PairTask | MathTask], row: Row, message: str
) -> None:
    path = jsonl(tmp_path, row)
    with pytest.raises(UserError, match=message):
        task(path=path).problems()


# ---- rows that cannot be used

NOTHING: dict[str, object] = {
    "null": None,
    "empty": "",
    "blank": " \n\t",
    "NaN": math.nan,
    "infinity": -math.inf,
    "the text nan": "nan",
    "NaT": "NaT",
    "pandas' NA": "<NA>",
    "the text inf": "inf",
    "a list": [1, 2],
    "an object": {"a": None},
    "a truth value": True,
    "null in a list": [None],
}
GOOD: dict[str, Row] = {
    "math": {"id": "g", "problem": "2+2?", "answer": "4", "solution": "It is 4."},
    "gsm8k": {"id": "g", "question": "2+2?", "answer": "4", "solution": "It is 4."},
    "python": {"id": "g", "prompt": "2+2?", "answer": "4", "completion": "It is 4."},
    "rollouts": {"id": "g", "prompt": "2+2?", "response": "4", "answer": "4"},
    "chat": {"id": "g", "messages": [USER, FOUR]},
    "pairs": {"id": "g", "prompt": "2+2?", "chosen": "4", "rejected": "5", "answer": "4"},
}


def read_all(kind: str, path: str, folder: Path, bad_rows: BadRows = "refuse") -> list[Problem]:
    """The problems of a file that have a gold answer and a demonstration."""
    reward = folder / "reward.py"
    if kind == "python":
        reward.write_text("def score(problem, response): return 1")
    task: Task = {
        "math": lambda: MathTask(path=path, bad_rows=bad_rows),
        "gsm8k": lambda: Gsm8k(path=path, bad_rows=bad_rows),
        "python": lambda: PythonTask(path=str(reward), problems_path=path, bad_rows=bad_rows),
        "rollouts": lambda: RolloutTask(path=path, bad_rows=bad_rows),
        "chat": lambda: RolloutTask(path=path, bad_rows=bad_rows),
        "pairs": lambda: PairTask(path=path, bad_rows=bad_rows),
    }[kind]()
    problems = list(task.problems())
    if kind in ("math", "gsm8k", "python"):
        return list(with_parts(problems, bad_rows=bad_rows, answer=True, solution=True))
    return problems


@pytest.mark.parametrize("kind", GOOD)
def test_a_cell_that_holds_nothing_is_refused_with_file_and_line(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every such value in every cell, in JSON; and dropped, counted and logged once if asked."""
    for column in GOOD[kind]:
        for name, value in NOTHING.items():
            rows = [{**GOOD[kind], "id": "first"}, {**GOOD[kind], column: value}]
            path = jsonl(tmp_path, *rows)
            optional = kind in ("rollouts", "pairs") and column == "answer"
            if optional and name in ("null", "empty", "blank"):
                assert [p.answer for p in read_all(kind, path, tmp_path)] == ["4", ""]
                continue
            with pytest.raises(UserError) as refused:
                read_all(kind, path, tmp_path)
            assert f"{path}, line 2" in str(refused.value), (column, name, str(refused.value))
            caplog.clear()
            assert [p.id for p in read_all(kind, path, tmp_path, "drop")] == ["first"]
            (record,) = caplog.records
            assert "1 of 2 rows" in record.message
            assert f"{path}, line 2" in record.message
            with pytest.raises(UserError, match=r"no row of .* can be used; the first: .*line 1"):
                read_all(kind, jsonl(tmp_path, rows[1]), tmp_path, "drop")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_missing_cells_of_tables_are_refused(tmp_path: Path, ending: str) -> None:
    import datetime

    import pyarrow
    from pyarrow.parquet import write_table

    path = tmp_path / f"rows.{ending}"
    if ending == "csv":
        for value in ("", "nan", "NaN", "NaT", "<NA>", "inf"):
            path.write_text(f"problem,answer,solution\n1+1?,2,2\n2+2?,{value},4\n")
            with pytest.raises(UserError, match=r"rows\.csv, line 3"):
                read_all("math", str(path), tmp_path)
        return
    for values in ([4.0, math.nan], [4.0, None], ["4", None], [datetime.date(2020, 1, 1), None]):
        cells = {"problem": ["1+1?", "2+2?"], "solution": ["2", "4"], "answer": values}
        write_table(pyarrow.table(cells), path)
        with pytest.raises(UserError, match=r"rows\.parquet, row [12]"):
            read_all("math", str(path), tmp_path)


def test_numbers_have_one_spelling(tmp_path: Path) -> None:
    """A column of integers with a gap is one of floats in pandas; 5 and 5.0 are one JSON number."""
    spellings = {
        "5": ["5", "5.0", "5e0", "0.5E1", '"5"'],
        "-0.25": ["-0.25", "-2.5e-1"],
        "12345678901234567890": ["12345678901234567890"],
        "0.0000001": ["1e-7"],
        "0": ["0", "-0.0"],
    }
    for spelling, numbers in spellings.items():
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(f'{{"problem": "?", "answer": {n}}}\n' for n in numbers))
        assert {p.answer for p in MathTask(path=str(path)).problems()} == {spelling}


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([USER, {"role": "assistant", "content": ""}], r"turn 2 \(assistant\) is empty"),
        ([USER, {"role": "assistant", "content": "nan"}], "turn 2 .assistant. is the text 'nan'"),
        ([{"role": "user", "content": " "}, FOUR], r"turn 1 \(user\) is empty"),
        ([USER, {"role": "robot", "content": "4"}], "turn 2: no known role .str 'robot'"),
        ([USER, {"speaker": "x"}], "turn 2: no known role .it has speaker"),
        ([USER, "4"], "turn 2: expected an object with role and content, found str '4'"),
        ([USER, {"role": "assistant", "content": 4}], "turn 2 .assistant. holds int '4'"),
        (
            [{"role": "user", "content": [{"type": "image"}]}, FOUR],
            "turn 1 .user. shows an image; tasks of kind `rollouts`",
        ),
        (
            [{"role": "user", "content": [{"type": "audio"}]}, FOUR],
            "turn 1 .user. has a part .*expected .type: text",
        ),
        ([USER, {**FOUR, "loss_weight": -1}], "turn 2 .assistant.: loss_weight is int '-1'"),
        ([USER, {"role": "assistant", "tool_calls": [{}]}], "turn 2 .*has no function name"),
        (
            [USER, {"from": "function_call", "value": "add 2 and 2"}],
            "turn 2 .function_call.: expected a call",
        ),
        ([FOUR], "has no user turn"),
        ([USER, SYSTEM], "ends with a turn of role system"),
        ([USER, {"role": "tool", "content": "4"}, FOUR], "turn 2: a turn of role tool follows"),
        ([], "holds a conversation without turns"),
    ],
)
def test_a_turn_that_cannot_be_used_is_named(
    tmp_path: Path, turns: list[object], message: str
) -> None:
    path = jsonl(tmp_path, {"messages": turns})
    with pytest.raises(UserError, match=f"line 1: .*column 'messages'.*{message}|{message}"):
        MathTask(path=path).problems()


def test_lines_that_are_no_rows_are_dropped_as_rows_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps(GOOD["rollouts"])
    path.write_text(f'{good}\n[1]\n{good}\n{{"prompt": "cut')
    with pytest.raises(UserError, match="line 2: expected a JSON object, found list"):
        RolloutTask(path=str(path)).problems()
    task = RolloutTask(path=str(path), bad_rows="drop")
    assert [p.id for p in task.problems()] == [p.id for p in task.problems()] == ["g"]
    (record,) = caplog.records  # the repeated id of line 3 is the third
    assert "3 of 4 rows" in record.message
    assert "the first: " in record.message
    assert "line 2: expected a JSON object" in record.message


def test_a_named_cell_that_every_row_leaves_empty_is_refused_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "2+2?", "reward_model": {"ground_truth": None}}) + "\n")
    columns = Columns(answer="reward_model.ground_truth")
    problems = MathTask(path=str(path), columns=columns).problems()
    with pytest.raises(UserError, match=r"rows\.jsonl, line 1: problem 0 has no gold answer"):
        with_parts(problems, bad_rows="refuse", answer=True, solution=False)


@pytest.mark.parametrize("role", ["tool", "user"])
def test_a_conversation_without_a_last_reply_says_how_it_ends(tmp_path: Path, role: str) -> None:
    turns = [
        {"role": "user", "content": "6*7?"},
        {"role": "assistant", "content": "I calculate."},
        {"role": role, "content": "42"},
    ]
    path = tmp_path / "open.jsonl"
    path.write_text(json.dumps({"messages": turns}))
    problems = MathTask(path=str(path)).problems()
    with pytest.raises(UserError, match=rf"line 1: .*ends with a turn of the {role} and has no"):
        with_parts(problems, bad_rows="refuse", answer=False, solution=True)
