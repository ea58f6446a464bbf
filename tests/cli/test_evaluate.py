"""`reasontrain evaluate`, `show`, `validate`, `report` and `compare` as a person types them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from reasontrain.cli import main
from reasontrain.models import ModelSettings
from reasontrain.models.fingerprints import fingerprint
from reasontrain.models.testbed import TinyShape, build

SHAPE = TinyShape(
    hidden_size=32,
    intermediate_size=48,
    num_layers=1,
    num_heads=2,
    num_key_value_heads=1,
    head_dim=16,
)
RECIPE = Path(__file__).parents[2] / "recipes" / "tiny" / "tip.yaml"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    where = tmp_path_factory.mktemp("model")
    build(where, SHAPE)
    return str(where)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with five short problems and one that does not fit the model, under the names that
    suites look for.
    """
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": f"p{i}", "problem": "What is 1+1?" * (1000 if i == 5 else 1), "answer": str(i)}
        for i in range(6)
    ]
    for name in ("gsm8k_test.jsonl", "math500.jsonl", "aime24.jsonl", "mine.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_suites_by_name_and_file_with_every_answer_kept(
    model: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = [
        "--set",
        "sampling.max_tokens=5",
        "sha256=null",
        "num_samples=2",
        "pass_at=[2]",
        "--dtype",
        "float32",
        "--data",
        str(data),
        "--out",
        "reports",
    ]
    assert (
        main(["evaluate", model, "--suite", "gsm8k", "math500", "aime24", "mine.jsonl", *short])
        == 0
    )
    said = capsys.readouterr().out
    assert "1 of 6 prompts do not fit the model and count as wrong" in said
    folder = next(Path("reports").iterdir())
    report = json.loads((folder / "report.json").read_text())
    assert [suite["suite"] for suite in report["suites"]] == ["gsm8k", "math500", "aime24", "mine"]
    assert all((suite["num_problems"], suite["dropped"]) == (6, 1) for suite in report["suites"])
    assert report["fingerprint"] == fingerprint(ModelSettings(path=model))
    assert report["versions"]["torch"] == torch.__version__
    first_suite = report["suites"][0]
    assert (
        first_suite["asked"]["sha256"]
        == hashlib.sha256((data / "gsm8k_test.jsonl").read_bytes()).hexdigest()
    )
    assert (first_suite["version"], len(first_suite["problems_sha256"])) == (1, 64)
    assert first_suite["metrics"].keys() == {"accuracy", "pass@2", "maj@2"}
    assert sum(first_suite["reasons"].values()) == 10
    answers = [json.loads(line) for line in (folder / "gsm8k.jsonl").read_text().splitlines()]
    assert [answer["problem"] for answer in answers] == [f"p{i // 2}" for i in range(10)]
    assert all(
        {"gold", "response", "correct", "extracted", "reason", "truncated"} < answer.keys()
        for answer in answers
    )
    first = (folder / "report.json").read_text()
    assert (
        main(["evaluate", model, "--suite", "gsm8k", "math500", "aime24", "mine.jsonl", *short])
        == 0
    )
    assert (folder / "report.json").read_text() == first


REFUSED = {
    "a suite that is not there": (
        ["--suite", "gms8k"],
        "there is no suite 'gms8k'; use one of: aime24, aime25, aime26, amc23, arithmetic, "
        "gsm8k, math500, minerva, olympiadbench",
    ),
    "a folder that is not there": (
        ["--suite", "gsm8k", "--data", "nowhere"],
        "nowhere is not a folder",
    ),
    "a file that is not in the folder": (
        ["--suite", "gsm8k", "--data", "empty"],
        "gsm8k_test.jsonl, which does not exist",
    ),
    "another file than the suite's": (
        ["--suite", "gsm8k", "--data", "."],
        "suite gsm8k was made for another gsm8k_test.jsonl",
    ),
    "a style that is not there": (
        ["--suite", "gsm8k", "--prompt", "bsae"],
        "there is no prompt style 'bsae'",
    ),
    "a limit of nothing": (
        ["--suite", "math500.jsonl", "--limit", "0"],
        "--limit must be at least 1, got 0",
    ),
    "a setting that does not exist": (
        ["--suite", "math500.jsonl", "--set", "sampling.temprature=1"],
        "did you mean `temperature`?",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_one_sentence(
    model: str, data: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    (data / "empty").mkdir()
    arguments, message = REFUSED[case]
    assert main(["evaluate", model, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_model_without_a_chat_template_is_asked_as_a_base_model_or_not_at_all(
    model: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model, "base")
    Path("base/chat_template.jinja").unlink()
    asked = [
        "--suite",
        "gsm8k",
        "--data",
        str(data),
        "--set",
        "sha256=null",
        "sampling.max_tokens=3",
    ]
    assert main(["evaluate", "base", *asked]) == 2
    assert (
        "prompt.style is `chat`, and the tokenizer has no chat template; use `plain` or "
        "another model" in capsys.readouterr().err
    )
    assert main(["evaluate", "base", *asked, "--prompt", "base"]) == 0
    (suite,) = json.loads(Path("out/evaluations/base/report.json").read_text())["suites"]
    assert (suite["asked"]["prompt"]["style"], suite["asked"]["task"]["instruction"]) == (
        "plain",
        "",
    )


@pytest.mark.parametrize(
    ("row", "message"), [(None, "is empty"), ({"problem": "?", "answer": "{"}, "gold unreadable")]
)
def test_nothing_to_ask_and_nothing_to_grade_by(
    model: str,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    row: dict[str, str] | None,
    message: str,
) -> None:
    (data / "x.jsonl").write_text("" if row is None else json.dumps(row))
    assert main(["evaluate", model, "--suite", "x.jsonl"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_model_that_is_none(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "nothing/here", "--suite", "math500.jsonl"]) == 2
    assert "the model nothing/here cannot be loaded" in capsys.readouterr().err


def test_show_prints_every_setting_and_validate_every_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(RECIPE), "seed=7"]) == 0
    shown = capsys.readouterr().out
    assert "seed: 7" in shown
    assert "delta_clip_quantile: 0.98" in shown
    bad = [tmp_path / name for name in ("a.yaml", "b.yaml")]
    for path in bad:
        path.write_text("name: x\nstpes: 3\n")
    assert main(["validate", str(RECIPE), *map(str, bad)]) == 2
    captured = capsys.readouterr()
    assert f"{RECIPE}: ok" in captured.out
    assert captured.err.count("stpes: no such setting; did you mean `steps`?") == 2


@pytest.mark.parametrize("command", ["report", "compare", "leaderboard"])
def test_a_folder_that_is_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command, str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    ["train", "evaluate", "grade", "show", "validate", "report", "compare", "leaderboard"],
)
def test_every_command_helps_with_an_example(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"example:\n  reasontrain {command} " in capsys.readouterr().out
