"""Plug-ins in recipes: read as built-in kinds are, and every error says where and why."""

from __future__ import annotations

import json
import pickle
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import jsonschema
import pytest
import yaml

import reasontrain
from reasontrain.algo.evidence import EVIDENCE
from reasontrain.plugins import installed
from reasontrain.recipe import Recipe, as_mapping, as_yaml, json_schema, read_recipe
from reasontrain.stages import run as stages_run
from reasontrain.types import UserError

EXAMPLE = Path(__file__).parents[2] / "examples/plugin/surprise.yaml"
MORE = '''
from dataclasses import dataclass
from typing import ClassVar

from reasontrain.recipe import SamplerCapabilities, SamplerEngine
from reasontrain.types import AtLeastOne


@dataclass(frozen=True, kw_only=True)
class FirstHalf:
    def kept_share(self, progress):
        return 0.5
    def __call__(self, batch):
        return batch.take(batch.rollout_B[: len(batch.rollout_B) // 2])


@dataclass(frozen=True, kw_only=True)
class Doubled:
    factor: float = 2.0
    def __call__(self, reward_B, group_B):
        return self.factor * reward_B


@dataclass(frozen=True, kw_only=True)
class Echo(SamplerEngine):
    """Repeats prompts."""
    capabilities: ClassVar[SamplerCapabilities] = SamplerCapabilities(
        label="echo", shares_policy=False, thoughts=False, images=False, adapters=False,
        sampled_logp_under_truncation=False, prompts_per_call=8,
    )
    max_num_seqs: AtLeastOne = 8
    def make_sampler(self, model, *, seed, policy, colocated):
        return "no sampler"


@dataclass(frozen=True, kw_only=True)
class Rule:
    reads: tuple[str, ...] = ()
    @property
    def required_evidence(self):
        return frozenset(self.reads) if "list" not in self.reads else list(self.reads)
    def kept_share(self, progress):
        return 1.0
    def __call__(self, batch):
        return batch.is_response_BT.float()


@dataclass(frozen=True, kw_only=True)
class Untyped:
    required_evidence: ClassVar = frozenset()
    other: "Gone" = None
    def kept_share(self, progress):
        return 1.0
    def __call__(self, batch):
        return batch.is_response_BT.float()
'''


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The example in a folder of its own, with more plug-ins beside it."""
    shutil.copy(EXAMPLE, tmp_path)
    shutil.copy(EXAMPLE.with_name("surprise.py"), tmp_path)
    (tmp_path / "more.py").write_text(MORE)
    return tmp_path / EXAMPLE.name


def error(recipe: Path, *overrides: str) -> list[str]:
    """The lines of the error."""
    with pytest.raises(UserError) as raised:
        read_recipe(recipe, overrides)
    first, *lines = str(raised.value).splitlines()
    assert first == f"{recipe} is not a recipe:"
    return [line.strip() for line in lines]


def test_a_recipe_with_plugins_is_read_written_and_pickled(recipe: Path) -> None:
    read = read_recipe(recipe, ["token_selection.least=0.3"])
    assert read.token_selection.least == 0.3
    assert read.required_evidence == {"local_surprise", "sampled_logp"}
    assert read.measured_evidence == frozenset()
    assert EVIDENCE["local_surprise"].unit == "nats"
    again = recipe.with_name("again.yaml")
    again.write_text(as_yaml(read))
    assert read_recipe(again) == read
    assert pickle.loads(pickle.dumps(read)) == read
    assert as_mapping(read)["objective"] == {"kind": "surprise.py:CappedDivergence", "cap": 2.0}
    jsonschema.validate(yaml.safe_load(as_yaml(read)), json.loads(json_schema()))


def test_files_lie_beside_the_recipe_wherever_the_process_is(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    read = reasontrain.load_recipe(recipe)
    assert stages_run._with_places(read, {}) == read, "outputs of stages are put in their places"
    trained: list[Recipe] = []
    monkeypatch.setattr(
        "reasontrain.cli.train.train_recipe", lambda changed: trained.append(changed) or Path()
    )
    reasontrain.train(read, ["seed=3"])
    assert (trained[0].seed, trained[0].token_selection) == (3, read.token_selection)


def test_every_section_takes_plugins(recipe: Path) -> None:
    read = read_recipe(
        recipe,
        [
            "advantage={kind: 'more.py:Doubled', factor: 3}",
            "sample.group_size=2",
            "sample.engine={kind: 'more.py:Echo', max_num_seqs: 4}",
            "rollout_filter={kind: chain, filters: [{kind: 'more.py:FirstHalf'}, {kind: random}]}",
            "token_selection={kind: shuffled, of: {kind: 'surprise.py:Surprise', least: 0.2}}",
        ],
    )
    assert read.advantage.factor == 3
    assert read.engine.max_num_seqs == 4
    assert [one.kind for one in read.rollout_filter.filters] == ["more.py:FirstHalf", "random"]
    assert read.token_selection.of.least == 0.2
    assert read_recipe(recipe, ["rollout_filter.kind=more.py:FirstHalf"]).rollout_filter.kind


def test_another_kind_keeps_the_settings_that_it_has_too(recipe: Path) -> None:
    text = recipe.read_text()
    recipe.write_text(text.replace("least: 0.1", "least: 0.4"))
    kept = read_recipe(recipe, ["token_selection.kind=./surprise.py:Surprise"])
    assert kept.token_selection.least == 0.4
    for kind in ("all", "more.py:Rule"):
        dropped = read_recipe(recipe, [f"token_selection.kind={kind}", "evidence={}"])
        assert dropped.token_selection.kind == kind


ERRORS = {
    "token_selection.least=-1": "token_selection.least: Input should be greater than or equal to 0",
    "token_selection.least=true": "token_selection.least: a number is expected (got true)",
    "token_selection.leest=1": "token_selection.leest: no such setting; did you mean `least`?",
    "token_selection.kind=gone.py:Rule": "token_selection.kind: {folder}/gone.py is not a Python "
    "file that can be read (No such file or directory)",
    "token_selection.kind=surprise.py": "token_selection.kind: 'surprise.py' names no class of a "
    "file; write FILE.py:CLASS",
    "token_selection.kind=surprise": "token_selection.kind: no such kind 'surprise'; there is all,",
    "token_selection={kind: 'more.py:Rule', reads: [list]}": "token_selection.kind: more.py:Rule "
    "is not a selection rule: its required_evidence is ['list']; expected a frozenset of names",
    "token_selection={kind: 'more.py:Rule', reads: [mood]}": "token_selection: more.py:Rule "
    "requires the evidence mood, which does not exist, or",
    "token_selection={kind: 'more.py:Untyped'}": "token_selection.kind: more.py:Untyped: its "
    "settings have no types that a recipe can be read with: NameError: name 'Gone' is not defined",
    "token_selection={kind: shuffled, of: {kind: 'surprise.py:Surprise', least: -1}}": (
        "token_selection.of.least: Input should be greater than or equal to 0"
    ),
    "objective.kind=surprise.py:Surprise": "objective.kind: {folder}/surprise.py: Surprise is not "
    "a token objective: it lacks granularity, needs_teacher, score_at_sampling_temperature",
    "sample.engine={kind: 'more.py:Rule'}": "sample.engine.kind: {folder}/more.py: Rule is not a "
    "sampler engine: it must inherit from reasontrain.recipe.engines.SamplerEngine",
    "evidence.local_surprise.window=0": "evidence.local_surprise.window: Input should be greater",
    "evidence.local_surprise.kind=gone.py:X": "evidence.local_surprise.kind: {folder}/gone.py is",
    "evidence.entropy={kind: 'surprise.py:LocalSurprise'}": "evidence.entropy: is the name of a "
    "built-in kind of evidence; rename it",
    "evidence.other={kind: 'surprise.py:LocalSurprise'}": "evidence: neither surprise.py:Surprise "
    "nor surprise.py:CappedDivergence reads other; remove it",
    "evidence={}": "token_selection: surprise.py:Surprise requires the evidence local_surprise",
    "rollout_filter={kind: chain, filters: [{kind: 'more.py:Doubled'}]}": "rollout_filter.filters.0"
    ".kind: {folder}/more.py: Doubled is not a rollout filter",
}


def test_every_error_is_one_line_with_its_key(recipe: Path) -> None:
    for override, start in ERRORS.items():
        lines = error(recipe, override)
        expected = start.replace("{folder}", str(recipe.parent))
        assert any(line.startswith(expected) for line in lines), (override, lines)
        assert len(lines) == 1, (override, lines)


def test_a_built_in_kind_of_a_package_too_is_refused_at_any_depth(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("tip", "other.rules:Tip", "reasontrain.token_selection")
    monkeypatch.setattr(installed, "_all", lambda: (point,))
    sentence = "token_selection: the kind 'tip' is defined by reasontrain itself and by an unknown"
    for rule in ("{kind: tip}", "{kind: shuffled, of: {kind: tip}}"):
        (line,) = error(recipe, f"token_selection={rule}", "evidence={}")
        assert line.startswith(sentence)
    assert read_recipe(recipe)  # it names another rule


def test_a_kind_of_a_package_is_named_among_the_kinds(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("hush", "tests.recipe.test_plugins:Hush", "reasontrain.token_selection")
    monkeypatch.setattr(installed, "_all", lambda: (point,))
    (line,) = error(recipe, "token_selection.kind=huch")
    assert line.endswith("shuffled, hush, FILE.py:CLASS")


def test_log_probs_of_written_responses_may_be_a_column(recipe: Path) -> None:
    """Evidence that a sampler reports, of responses that another one has sampled."""
    written = ["sample=null", "task={kind: rollouts, path: x.jsonl}", "evaluate=null"]
    read = read_recipe(recipe, [*written, "evidence.sampled_logp='column:logp'"])
    assert read.required_evidence == {"local_surprise", "sampled_logp"}
    assert read.measured_evidence == frozenset()
    (line,) = error(recipe, *written)
    assert line.startswith("sample: the sampler reports the evidence sampled_logp; add a `sample`")
