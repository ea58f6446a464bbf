"""`reasontrain evaluate` stopped and typed again, for weights, adapters and endpoints: the same
bytes, or one sentence.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model

from reasontrain import models
from reasontrain.cli import main
from reasontrain.evaluation import candidate
from reasontrain.leaderboard import write_leaderboard
from reasontrain.models import ModelSettings
from reasontrain.models.testbed import TinyShape, build
from tests.evaluation.server import Body, Turn, chat, serving
from tests.integration.processes import environment

SHAPE = TinyShape(
    hidden_size=32,
    intermediate_size=48,
    num_layers=1,
    num_heads=2,
    num_key_value_heads=1,
    head_dim=16,
)
KEY = "sk-secret-7f3a"
SUITE = ["--suite", "arithmetic"]
SHORT = [*SUITE, "--dtype", "float32", "--set", "task.num_problems=5", "sampling.max_tokens=6"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("model") / "m"
    build(where, SHAPE)
    return where


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "*")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def folder(out: str) -> Path:
    (found,) = Path(out).iterdir()
    return found


def evaluate(*words: str) -> int:
    return main(["evaluate", *words])


def killed(words: Sequence[str], answers: Path, after: int) -> None:
    """Run the command in a process of its own, and kill it once so many answers are there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "reasontrain.cli", "evaluate", *words],
        env=environment(),
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not answers.exists() or answers.read_bytes().count(b"\n") < after:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_an_evaluation_that_was_killed_ends_with_the_same_bytes() -> None:
    """Sampled at temperature 1: 520 problems are chunks of 256, 256 and 8."""
    words = ["testbed:student", *SUITE, "--dtype", "float32"]
    words += [
        "--set",
        "task.num_problems=520",
        "sampling.temperature=1.0",
        "sampling.max_tokens=16",
    ]
    assert evaluate(*words, "--out", "whole") == 0
    answers = Path("torn/testbed-student/arithmetic.jsonl")
    killed([*words, "--out", "torn"], answers, after=300)  # in the second chunk
    there = answers.read_bytes().count(b"\n")
    assert 300 <= there < 520
    assert not answers.with_name("report.json").exists()
    with answers.open("ab") as stream:
        stream.write(b'{"problem": "arithm')  # as if the machine had stopped within a line
    assert evaluate(*words, "--out", "torn") == 0
    assert files(folder("torn")) == files(folder("whole"))
    assert len(answers.read_bytes().splitlines()) == 520


def test_what_is_there_is_not_graded_again_and_what_is_missing_is(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate(str(model), *SHORT, "--out", "a") == 0
    answers = folder("a") / "arithmetic.jsonl"
    lines = answers.read_text().splitlines(keepends=True)
    first = json.loads(lines[0]) | {"reason": "timeout", "extracted": "9^9", "correct": True}
    answers.write_text(
        json.dumps(first) + "\n" + lines[2]
    )  # as an endpoint leaves it: out of order
    assert evaluate(str(model), *SHORT, "--out", "a") == 0
    found = [json.loads(line) for line in answers.read_text().splitlines()]
    assert found == [first, *map(json.loads, lines[1:])]
    (suite,) = json.loads((folder("a") / "report.json").read_text())["suites"]
    assert suite["reasons"]["timeout"] == 1
    assert suite["metrics"]["accuracy"]["value"] == 0.2


def test_a_report_keeps_the_suites_of_earlier_commands_of_the_same_weights(model: Path) -> None:
    def reported() -> list[str]:
        return [
            suite["suite"]
            for suite in json.loads((folder("a") / "report.json").read_text())["suites"]
        ]

    other = Path("other.jsonl")
    other.write_text('{"problem": "1+1", "answer": "2"}\n')
    short = ["--dtype", "float32", "--out", "a", "--set", "sampling.max_tokens=4"]
    assert evaluate(str(model), *SHORT, "--out", "a") == 0
    assert main(["evaluate", str(model), "--suite", str(other), *short]) == 0
    assert reported() == ["arithmetic", "other"]
    before = (folder("a") / "report.json").read_bytes()
    assert evaluate(str(model), *SHORT, "--out", "a") == 0  # in its old place
    assert (folder("a") / "report.json").read_bytes() == before
    assert (
        main(["evaluate", str(model), "--suite", str(other), "--seed", "1", "--restart", *short])
        == 0
    )
    assert reported() == ["other"]  # the rest was asked with another seed


def test_a_finished_one_is_not_asked_again(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(str(model), *SHORT, "--out", "a") == 0
    before = files(folder("a"))
    (folder("a") / "report.json").unlink()
    monkeypatch.setattr(
        candidate.models, "load", lambda settings: pytest.fail("no weights are needed")
    )
    assert evaluate(f"{model}/", *SHORT, "--out", "a") == 0
    assert (
        f"arithmetic: all answers of {model} are logged; nothing to do" in capsys.readouterr().out
    )
    assert files(folder("a")) == before
    # other metrics of the same answers; pass@1 has the name of accuracy alone
    assert evaluate(str(model), *SHORT, "pass_at=[1]", "--out", "a") == 0
    (suite,) = json.loads((folder("a") / "report.json").read_text())["suites"]
    assert suite["metrics"].keys() == {"accuracy"}


def test_one_seed_gives_one_report_and_another_another() -> None:
    words = [
        "testbed:student",
        *SUITE,
        "--set",
        "task.num_problems=20",
        "sampling.temperature=1.0",
        "sampling.max_tokens=40",
    ]
    for out, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert evaluate(*words, "--out", out, "--seed", seed) == 0
    assert files(folder("a")) == files(folder("b"))
    assert files(folder("a"))["arithmetic.jsonl"] != files(folder("c"))["arithmetic.jsonl"]


OTHERS = {
    "another seed": (["--seed", "1"], "seed was 0 and is 1"),
    "another precision": (["--dtype", "bfloat16"], 'dtype was "float32" and is "bfloat16"'),
    "another limit": (["--limit", "4"], "suite.limit was null and is 4"),
    "another length": (
        ["--set", "task.num_problems=5", "sampling.max_tokens=7"],
        "suite.sampling.max_tokens was 6 and is 7",
    ),
    "another prompt": (
        ["--set", "task.num_problems=5", "sampling.max_tokens=6", "prompt.system=x"],
        'suite.prompt.system was null and is "x"',
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_fingerprint_is_refused(
    model: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    assert evaluate(str(model), *SHORT, "--out", "a") == 0
    before = files(folder("a"))
    words, said = OTHERS[case]
    assert evaluate(str(model), *SHORT, *words, "--out", "a") == 2
    error = capsys.readouterr().err
    assert said in error
    assert "give another --out, or --restart to discard them" in error
    assert error.count("\n") == 1
    assert files(folder("a")) == before
    assert evaluate(str(model), *SHORT, *words, "--out", "a", "--restart") == 0
    assert evaluate(str(model), *SHORT, *words, "--out", "b") == 0
    assert files(folder("a")) == files(folder("b"))


def test_other_weights_and_another_template_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(Path("m"), SHAPE)
    assert evaluate("m", *SHORT, "--out", "a") == 0
    template = Path("m/chat_template.jinja")
    kept = template.read_text()
    template.write_text("Q: {{ messages[0]['content'] }}")
    assert evaluate("m", *SHORT, "--out", "a") == 2
    assert "prompts_sha256 was" in capsys.readouterr().err
    template.write_text(kept)
    build(Path("m"), TinyShape(**{**SHAPE.__dict__, "seed": SHAPE.seed + 1}))
    assert evaluate("m", *SHORT, "--out", "a") == 2
    assert "fingerprint was" in capsys.readouterr().err


def test_an_environment_that_changed_is_refused(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file and what it imports from beside it; without them no answer could be repeated."""
    Path("helper.py").write_text("TEXT = '1'")
    code = "from helper import TEXT\nclass E:\n def reset(self, problem): pass\n"
    Path("own.py").write_text(f"{code} def step(self, text): return TEXT, 1.0, True\n")
    settings = "{kind: python, path: own.py, name: E, role: inline, stop: [x], workers: 1}"
    words = [*SHORT, f"sampling.environment={settings}", "--out", "a"]
    assert evaluate(str(model), *words) == 0
    assert evaluate(str(model), *words) == 0
    Path("helper.py").write_text("TEXT = '2'")
    capsys.readouterr()
    assert evaluate(str(model), *words) == 2
    assert "environment helper.py was" in capsys.readouterr().err
    Path("own.py").unlink()
    assert evaluate(str(model), *words) == 2
    assert "own.py is not a Python file that can be read" in capsys.readouterr().err


def test_who_would_share_a_file_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a b.jsonl").write_text(json.dumps({"id": "1", "problem": "?", "answer": "1"}))
    Path("a-b.jsonl").write_text(json.dumps({"id": "1", "problem": "!", "answer": "1"}))
    assert evaluate(str(model), "--suite", "a b.jsonl", "a-b.jsonl") == 2
    assert "the suites a b.jsonl and a-b.jsonl would both write 'a-b'" in capsys.readouterr().err
    assert evaluate("x/y", "x--y", "--suite", "a b.jsonl") == 2
    assert "the models x/y and x--y would both write 'x--y'" in capsys.readouterr().err
    Path("x").mkdir()
    build(Path("x/y"), SHAPE)
    build(Path("x--y"), SHAPE)
    assert evaluate("x/y", *SHORT) == 0
    assert evaluate("x--y", *SHORT) == 2
    assert 'model was "x/y" and is "x--y"' in capsys.readouterr().err


def test_an_adapter_answers_as_its_merged_model(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = models.load(ModelSettings(path=str(model)))
    config = LoraConfig(
        r=4, lora_alpha=64, target_modules=["q_proj", "up_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(base.model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.2)
    adapted.save_pretrained("adapter")
    adapted.merge_and_unload().save_pretrained("merged")
    base.save_tokenizer(Path("merged"))
    for what in ("adapter", "merged", str(model)):
        assert evaluate(what, *SHORT, "--out", "out") == 0
    found = {
        name: (Path("out") / name / "arithmetic.jsonl").read_bytes()
        for name in ("adapter", "merged")
    }
    assert found["adapter"] == found["merged"]
    plain = (
        Path("out") / str(model).strip("/").replace("/", "--") / "arithmetic.jsonl"
    ).read_bytes()
    assert plain != found["merged"]
    report = json.loads(Path("out/adapter/report.json").read_text())
    assert (report["model"], report["base"]) == ("adapter", str(model))
    assert report["fingerprint"].startswith(
        models.fingerprint(ModelSettings(path=str(model))) + " adapter "
    )
    assert (
        evaluate("adapter", *SHORT, "--out", "out", "--base", "merged") == 2
    )  # and so of other weights
    assert "base was" in capsys.readouterr().err
    assert evaluate("merged", *SHORT, "--base", str(model)) == 2
    assert "--base is for adapters" in capsys.readouterr().err


WRONG = {
    "no vLLM": (
        ["--engine", "vllm"],
        "the engine vllm (sample.engine, --engine) needs vLLM, which cannot be imported",
    ),
    "a dtype for a server": (
        ["--endpoint", "http://h/v1", "--dtype", "float32"],
        "--dtype cannot be combined with --endpoint",
    ),
    "workers for a server": (
        ["--endpoint", "http://h/v1", "--workers", "2"],
        "--workers cannot be combined with --endpoint",
    ),
    "engine settings for a server": (
        ["--endpoint", "http://h/v1", "--max-num-seqs", "2"],
        "--max-num-seqs cannot be combined with --endpoint",
    ),
    "settings of another engine": (
        ["--max-model-len", "64", "--tensor-parallel-size", "2"],
        "--tensor-parallel-size, --max-model-len: the local engine has no such setting; leave it "
        "out, or set --engine vllm",
    ),
    "no answer at a time": (
        ["--max-num-seqs", "0"],
        "--max-num-seqs: Input should be greater than or equal to 1 (got 0)",
    ),
    "no room for a token": (
        ["--engine", "vllm", "--max-model-len", "-1"],
        "--max-model-len: Input should be greater than or equal to 1 (got -1)",
    ),
    "more than all memory": (
        ["--engine", "vllm", "--gpu-memory-utilization", "1.5"],
        "--gpu-memory-utilization: Input should be less than or equal to 1 (got 1.5)",
    ),
    "requests for weights": (
        ["--concurrency", "2"],
        "--concurrency applies to an --endpoint only",
    ),
    "no worker": (["--workers", "0"], "--workers must be at least 1, got 0"),
    "no address": (["--endpoint", "h/v1"], "--endpoint must start with http"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_go_together_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # whether it is installed or not
    words, said = WRONG[case]
    assert evaluate("m", *SUITE, *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


REMOTE = ["the/model", *SUITE, "--set", "task.num_problems=12", "num_samples=2", "pass_at=[2]"]


def answered(path: str, body: Body) -> Turn:
    """Every answer is a function of its seed, and some are late."""
    seed = int(str(body["seed"]))
    time.sleep(0.03 * (seed % 3))
    return chat(
        f"I think it is \\boxed{{{seed % 7}}}",
        tokens=seed % 11,
        reasoning_content=f"thought {seed}",
    )


def test_an_endpoint_is_asked_goes_on_and_ends_with_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(answered) as server:
        words = [*REMOTE, "--endpoint", server.url]
        assert evaluate(*words, "--out", "whole", "--concurrency", "1") == 0
        assert len(server.asked) == 24
        assert evaluate(*words, "--out", "many", "--concurrency", "8") == 0
        assert files(folder("many")) == files(folder("whole"))
        answers = Path("torn/the--model/arithmetic.jsonl")
        server.asked.clear()
        killed([*words, "--out", "torn", "--concurrency", "3"], answers, after=9)
        there = answers.read_bytes().count(b"\n")
        server.asked.clear()
        assert evaluate(*words, "--out", "torn", "--concurrency", "5") == 0
        assert len(server.asked) == 24 - there  # every problem stands alone
        assert files(folder("torn")) == files(folder("whole"))
        assert all(headers["authorization"] == f"Bearer {KEY}" for _, headers, _ in server.asked)
        host = server.url.removeprefix("http://").removesuffix("/v1")
    report = json.loads((folder("whole") / "report.json").read_text())
    assert (report["model"], report["endpoint"]) == ("the/model", host)
    assert not {"fingerprint", "dtype", "engine"} & report.keys()
    assert report["suites"][0]["response_tokens_mean"] is not None
    write_leaderboard([folder("whole")], Path("site"), apart=False)
    assert not [
        path for path in Path().rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
    ]


def test_a_server_that_fails_ends_with_one_sentence_and_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    left = [10]

    def script(path: str, body: Body) -> Turn:
        left[0] -= 1
        return answered(path, body) if left[0] >= 0 else Turn(401, f"{KEY} has expired")

    with serving(script) as server:
        words = [*REMOTE, "--endpoint", server.url, "--out", "a"]
        assert evaluate(*words, "--concurrency", "1") == 2
        captured = capsys.readouterr()
        assert "refuses the key in OPENAI_API_KEY (401: '[the key] has expired')" in captured.err
        assert KEY not in captured.out + captured.err
        assert (folder("a") / "arithmetic.jsonl").read_bytes().count(b"\n") == 10
        left[0] = 100
        assert evaluate(*words) == 0
        assert "resuming after 10 of 24 answers" in capsys.readouterr().out
        left[0] = 100
        assert evaluate(*words[:-1], "b") == 0
    assert files(folder("a")) == files(folder("b"))
    assert not [
        path for path in Path().rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
    ]


def test_a_server_that_does_not_count_leaves_lengths_out(tmp_path: Path) -> None:
    with serving(lambda path, body: chat("\\boxed{1}", tokens=None)) as server:
        assert evaluate("m", *SUITE, "--endpoint", server.url, "--set", "task.num_problems=3") == 0
    folder_ = folder("out/evaluations")
    (suite,) = json.loads((folder_ / "report.json").read_text())["suites"]
    assert suite["response_tokens_mean"] is None
    write_leaderboard([folder_], tmp_path / "site", apart=False)
