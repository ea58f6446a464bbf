"""Every engine: built by one function, with the capabilities that it states."""

from __future__ import annotations

import ast
from functools import partial
from pathlib import Path
from typing import get_args

import pytest

from reasontrain.data.sampling import Sampling
from reasontrain.models import ModelSettings
from reasontrain.models.testbed import TinyShape, build
from reasontrain.recipe import ENGINES
from reasontrain.recipe.engines import BuiltInEngine
from reasontrain.sampler import vllm
from reasontrain.sampler.factory import EngineSampler, SleepingSampler, make_sampler
from reasontrain.types import Problem, Prompt, UserError
from tests.sampler.scripted_vllm import library

PACKAGE = Path(__file__).resolve().parents[2] / "reasontrain"
SHAPE = TinyShape(
    hidden_size=32,
    intermediate_size=48,
    num_layers=1,
    num_heads=2,
    num_key_value_heads=1,
    head_dim=16,
)
PROMPTS = [Prompt(problem=Problem(id="p", prompt="?"), ids=(5, 6, 7))]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSettings:
    monkeypatch.setattr(vllm, "installed", partial(library, cpu=True))
    build(tmp_path / "m", SHAPE)
    return ModelSettings(path=str(tmp_path / "m"), dtype="float32", device="cpu")


def test_engines_are_the_members_of_the_union() -> None:
    assert set(ENGINES.values()) == set(get_args(BuiltInEngine))
    assert all(engine().kind == kind for kind, engine in ENGINES.items())


@pytest.mark.parametrize("kind", ENGINES)
def test_every_engine_samples(model: ModelSettings, kind: str) -> None:
    sampler = make_sampler(ENGINES[kind](), model, seed=0)
    assert isinstance(sampler, EngineSampler)
    (rollout,) = sampler.sample(PROMPTS, Sampling(max_tokens=4), num=1, first_id=3)
    assert (rollout.id, sampler.version, sampler.device.type) == (3, 0, "cpu")


@pytest.mark.parametrize("kind", ENGINES)
def test_log_probs_under_truncation_are_as_stated(model: ModelSettings, kind: str) -> None:
    sampler = make_sampler(ENGINES[kind](), model, seed=0)
    for sampling, has_logp in (
        (Sampling(max_tokens=4), True),
        (
            Sampling(max_tokens=4, top_p=0.9),
            ENGINES[kind].capabilities.sampled_logp_under_truncation,
        ),
    ):
        (rollout,) = sampler.sample(PROMPTS, sampling, num=1, first_id=0)
        assert len(rollout.sampled_logp) == has_logp * len(rollout.response_ids)


@pytest.mark.parametrize("kind", ENGINES)
def test_temperatures_are_refused_as_stated(model: ModelSettings, kind: str) -> None:
    engine = ENGINES[kind]()
    bounds = engine.capabilities.temperature_range
    hot = Sampling(max_tokens=4, temperature=2.0 * (bounds[1] if bounds else 10.0))
    sampler = make_sampler(engine, model, seed=0)
    if bounds is None:
        assert engine.unsupported_temperature(hot) is None
        assert len(sampler.sample(PROMPTS, hot, num=1, first_id=0)) == 1
    else:
        with pytest.raises(UserError, match=r"supports 0 .greedy. and"):
            sampler.sample(PROMPTS, hot, num=1, first_id=0)


@pytest.mark.parametrize("kind", ENGINES)
def test_an_engine_that_reserves_memory_can_sleep_beside_a_learner(
    model: ModelSettings, kind: str
) -> None:
    engine = ENGINES[kind]()
    reserves = engine.gpu_memory_share(colocated=True) is not None
    assert reserves <= (not engine.capabilities.shares_policy)
    assert reserves <= isinstance(make_sampler(engine, model, seed=0), SleepingSampler)


def test_only_the_factory_asks_for_the_class_of_an_engine() -> None:
    """Everything else reads capabilities; the exception suggests values for vLLM's own settings."""
    classes = {engine.__name__ for engine in ENGINES.values()}
    asking = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "isinstance"
        and classes & {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
    }
    assert asking == {"sampler/factory.py", "plan/suggestions.py"}
