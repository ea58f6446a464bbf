"""Lists that are kept by hand equal the unions that they copy, so that forgetting is red."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml

import reasontrain.recipe
from reasontrain.algo.correction import Correction
from reasontrain.algo.evidence import EVIDENCE
from reasontrain.algo.objectives import Objective, SequenceObjective, SoftReinforce, TokenObjective
from reasontrain.algo.rollout_filter import RolloutFilter
from reasontrain.algo.token_advantage import TokenAdvantage
from reasontrain.algo.token_selection import ShuffledWeights, TokenSelection
from reasontrain.recipe import OUTPUTS, Recipe, Stage, Suite
from reasontrain.recipe.read import _settings_classes
from reasontrain.recipe.renamed import KEYS, VALUES
from reasontrain.types import Vocabulary
from tests.algo.objectives import test_promises as objective_promises
from tests.algo.token_selection.test_promises import RULES
from tests.learner import test_local

ROOT = Path(__file__).resolve().parents[2]
CLASSES = tuple(dict.fromkeys(_settings_classes(Recipe)))
"""Every settings class that can occur in a recipe."""


def kind_of(cls: type) -> str:
    """The `kind` that chooses a settings class."""
    (kind,) = get_args(get_type_hints(cls)["kind"])
    return kind


def classes_in(choice: object) -> set[type]:
    """The settings classes of a union, without its member for plug-ins."""
    return {member for member in get_args(choice) if inspect.isclass(member)}


def kinds_in(value: object) -> set[str]:
    """Every `kind` that a YAML value names."""
    if isinstance(value, dict):
        own = {value["kind"]} if isinstance(value.get("kind"), str) else set()
        return own.union(*map(kinds_in, value.values()))
    return set().union(*map(kinds_in, value)) if isinstance(value, list) else set()


def test_every_rule_is_in_the_promises_and_the_products() -> None:
    assert {*RULES, ShuffledWeights} == classes_in(TokenSelection)


def test_every_token_objective_is_in_the_promises_and_the_products() -> None:
    # soft_reinforce scores embeddings as well: tests/learner/test_soft_tokens.py
    expected = classes_in(TokenObjective) - {SoftReinforce}
    assert {type(objective) for objective in objective_promises.OBJECTIVES} == expected
    assert {type(objective) for objective in test_local.OBJECTIVES.values()} == expected
    assert classes_in(Objective) == classes_in(TokenObjective) | classes_in(SequenceObjective)


@pytest.mark.parametrize(
    "choice", [TokenSelection, RolloutFilter, Objective, TokenAdvantage, Correction]
)
def test_every_kind_has_a_recipe_that_uses_it(choice: object) -> None:
    used: set[str] = set()
    for path in (ROOT / "recipes").rglob("*.yaml"):
        used |= kinds_in(yaml.safe_load(path.read_text()))
    # another kind makes gspo of recipes/tiny/grpo.yaml, `entropy` of recipes/tiny/gtpo.yaml and
    # `mask` of recipes/tiny/cispo.yaml
    unused = {kind_of(cls) for cls in classes_in(choice)} - used
    assert unused <= {"gspo", "chain", "entropy", "rollout", "none", "mask"}


@pytest.mark.parametrize("choice", [TokenSelection, Objective])
def test_every_kind_has_a_test_of_its_name(choice: object) -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for cls in classes_in(choice):
        assert (
            f"import {cls.__name__}\n" in tests
            or f"    {cls.__name__},\n" in tests
            or (f"{cls.__name__}(" in tests)
        ), cls


def test_the_package_exports_every_settings_class_of_its_own() -> None:
    own = {c.__name__ for c in CLASSES if c.__module__.startswith("reasontrain.recipe")}
    assert own - set(reasontrain.recipe.__all__) == set()


def test_every_stage_states_its_outputs() -> None:
    assert set(OUTPUTS) == {kind_of(cls) for cls in get_args(Stage)}


def test_a_kind_chooses_one_class_of_a_union() -> None:
    for cls in CLASSES:
        for hint in get_type_hints(cls).values():
            members = [c for c in get_args(hint) if inspect.isclass(c) and c in CLASSES]
            kinds = [kind_of(c) for c in members if "kind" in get_type_hints(c)]
            assert len(kinds) == len(set(kinds)), (cls, kinds)


def test_renamed_keys_lead_to_keys_that_exist() -> None:
    # a file of suites has its keys at the top, too
    fields: dict[str, set[str]] = {"": {*get_type_hints(Recipe), *get_type_hints(Suite)}}
    for cls in CLASSES:
        for name, hint in get_type_hints(cls).items():
            for chosen in _settings_classes(hint):
                fields.setdefault(name, set()).update(get_type_hints(chosen))
    for (section, old), new in KEYS.items():
        assert new in fields[section], (section, new)
        assert section or old not in fields[section], old


def test_renamed_values_lead_to_values_that_exist() -> None:
    known: dict[str, set[object]] = {}
    for cls in CLASSES:
        for name, hint in get_type_hints(cls).items():
            known.setdefault(name, set()).update(get_args(hint))
            for chosen in get_args(hint):
                if chosen in CLASSES and "kind" in get_type_hints(chosen):
                    known[name].add(kind_of(chosen))
    for (key, old), new in VALUES.items():
        assert new in known[key], (key, new)
        assert old not in known[key], (key, old)


def test_every_vocabulary_backend_is_compared_with_the_reference() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "tests/vocab").glob("test_*.py"))
    for backend in get_args(Vocabulary):
        assert f'"{backend}"' in text, backend


def test_every_kind_of_evidence_is_read_by_a_rule_or_an_objective() -> None:
    """Nothing is in the table that nobody asks for.

    The sampler's log-probs are always there, and the rank of the token is for rules of plug-ins.
    """
    text = "\n".join(path.read_text() for path in (ROOT / "reasontrain/algo").rglob("*.py"))
    for name in EVIDENCE.keys() - {"sampled_logp", "sampled_rank"}:
        assert text.count(f'"{name}"') >= 2, name
