"""Who a model is, and who decodes it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from reasontrain import models
from reasontrain.data.sampling import Sampling
from reasontrain.evaluation.candidate import Candidate, candidate
from reasontrain.evaluation.generation import answer_by_sampling, chunk_prompts, sample_with
from reasontrain.models import ModelSettings
from reasontrain.models.testbed import TinyShape, build
from reasontrain.recipe import LocalEngine, VllmEngine
from reasontrain.sampler import vllm
from reasontrain.types import Problem, Prompt, UserError
from tests.sampler.scripted_vllm import library

SHAPE = TinyShape(
    hidden_size=32,
    intermediate_size=48,
    num_layers=1,
    num_heads=2,
    num_key_value_heads=1,
    head_dim=16,
)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    build(tmp_path / "m", SHAPE)
    return "m"


def test_names_are_the_users_and_paths_are_everybodys(model: str, tmp_path: Path) -> None:
    found = candidate("./m/", dtype="float32", engine=LocalEngine(), base=None)
    assert (found.name, found.settings.path) == ("m", str(tmp_path / "m"))
    assert found.facts() == {
        "model": "m",
        "fingerprint": models.fingerprint(ModelSettings(path=model)),
        "dtype": "float32",
        "engine": "local",
    }
    for name in ("testbed:student", "Qwen/Qwen3-8B"):
        assert candidate(
            name, dtype="bfloat16", engine=LocalEngine(), base=None
        ).settings == ModelSettings(path=name, dtype="bfloat16")


def test_vllm_answers_as_our_own_loop_does(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "installed", partial(library, cpu=True))
    prompts = [Prompt(problem=Problem(id=f"p{i}", prompt="?"), ids=(5 + i, 6, 7)) for i in range(5)]
    sampling = Sampling(temperature=0.0, max_tokens=8)

    def said(who: Candidate) -> list[str]:
        respond = answer_by_sampling(
            chunk_prompts(prompts, sampling, num=1, chunk_size=2), sample_with(who.sampler(0))
        )
        return [
            reply.text
            for replies in respond({(m, 0) for m in range(5)})
            for reply in replies.values()
        ]

    ours, theirs = (
        candidate(model, dtype="float32", engine=engine, base=None)
        for engine in (LocalEngine(), VllmEngine())
    )
    assert said(ours) == said(theirs)
    assert (theirs.facts()["engine"], theirs.chunk_size) == ("vllm", 1024)


def test_vllm_is_given_whole_models(model: str) -> None:
    Path("a").mkdir()
    Path("a/adapter_config.json").write_text('{"base_model_name_or_path": "m"}')
    with pytest.raises(UserError, match="a is an adapter, which vLLM does not support here"):
        candidate("a", dtype="float32", engine=VllmEngine(), base=None)
