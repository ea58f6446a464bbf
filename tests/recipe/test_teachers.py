"""The `teacher` section: its kinds, and what each cannot be combined with."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasontrain.recipe import (
    RecipeError,
    ServedTeacher,
    StoredTeacher,
    TeacherMixture,
    WeightsTeacher,
    as_yaml,
    read_recipe,
    unused_settings,
)

RECIPES = Path(__file__).resolve().parents[2] / "recipes/tiny"
STORED = "teacher={kind: stored, model: {path: testbed:teacher}, store: out/scores}"
SERVED = "teacher={kind: served, url: http://127.0.0.1:8000/v1, model: t}"


SAMPLED = SERVED.replace("model: t", "model: t, scores: sampled")
MIXED = "teacher={kind: mixed, teachers: [{path: x, weight: 3}, {path: y}]}"


def test_several_teachers_are_models_of_the_run(tmp_path: Path) -> None:
    recipe = read_recipe(RECIPES / "tip.yaml", [MIXED, "teacher.teachers.1.dtype=bfloat16"])
    assert isinstance(recipe.teacher, TeacherMixture)
    assert recipe.teacher.weights == (0.75, 0.25)
    assert recipe.teacher_model is None
    assert {role: model.path for role, model in recipe.other_models.items()} == {
        "teacher.teachers.0": "x",
        "teacher.teachers.1": "y",
    }
    assert recipe.teacher.teachers[1].dtype == "bfloat16"
    assert unused_settings(recipe) == []
    written = tmp_path / "recipe.yaml"
    written.write_text(as_yaml(recipe))
    assert read_recipe(written) == recipe


def test_the_sampled_token_alone_serves_rules_without_a_teacher() -> None:
    for rule in ("{kind: all}", "{kind: top_entropy, keep_ratio: 0.2}"):
        recipe = read_recipe(RECIPES / "tip.yaml", [SAMPLED, f"token_selection={rule}"])
        assert isinstance(recipe.teacher, ServedTeacher)
        assert recipe.teacher.scores == "sampled"
        assert unused_settings(recipe) == []
    for objective in ("{kind: sampled_distill}", "{kind: distill}"):  # evidence at that token
        overrides = [SAMPLED, "token_selection={kind: iw_opd}", f"objective={objective}"]
        assert unused_settings(read_recipe(RECIPES / "tip.yaml", overrides)) == []
    recipe = read_recipe(
        RECIPES / "tip.yaml", [SAMPLED, "teacher.top_k=4", "token_selection={kind: all}"]
    )
    assert unused_settings(recipe) == [
        "teacher.top_k, tail: `scores: sampled` asks for the sampled tokens alone"
    ]


def test_a_section_without_a_kind_has_weights(tmp_path: Path) -> None:
    recipe = read_recipe(RECIPES / "tip.yaml")
    assert recipe.teacher == recipe.teacher_model == WeightsTeacher(path="testbed:teacher")
    written = tmp_path / "recipe.yaml"
    written.write_text(as_yaml(recipe))
    assert read_recipe(written) == recipe


def test_kinds_without_weights_name_no_model_to_load() -> None:
    stored = read_recipe(RECIPES / "tip.yaml", [STORED, "sample=null"])
    served = read_recipe(RECIPES / "tip.yaml", [SERVED])
    assert isinstance(stored.teacher, StoredTeacher)
    assert isinstance(served.teacher, ServedTeacher)
    assert stored.teacher_model is served.teacher_model is None
    assert {role: model.path for role, model in stored.other_models.items()} == {
        "teacher": "testbed:teacher"
    }
    assert served.other_models == {}


REFUSED = {
    "kind": (["teacher.kind=servd"], "teacher.kind: no such kind 'servd'; did you mean `served`?"),
    "key": ([STORED, "teacher.stor=x"], "teacher.stor: no such setting; did you mean `store`"),
    "no store": (["teacher={kind: stored, model: {path: x}}"], "teacher.store: is needed"),
    "no path": (["teacher={top_k: 4}"], "teacher.path: is needed"),
    "sampling": ([STORED], "teacher.kind: stored log-probs belong to written responses"),
    "evidence": (
        [SERVED, "token_selection.mode=teachability"],
        "teacher: the evidence compatibility, disagreement needs the teacher's probabilities of "
        "all ids",
    ),
    "evidence of few ids": (
        ["teacher.top_k=16", "token_selection.mode=compatibility"],
        "teacher: the evidence compatibility needs the teacher's probabilities of all ids",
    ),
    "entropy": (
        [SERVED, "token_selection={kind: fire_opd}"],
        "teacher: the evidence teacher_entropy, teacher_logp needs the teacher's probabilities of "
        "all ids",
    ),
    "objective": (
        ["teacher.top_k=16", "objective={kind: entropy_aware_distill}"],
        "teacher: the evidence teacher_entropy needs the teacher's probabilities of all ids",
    ),
    "rank": (
        [SERVED, "token_selection={kind: shuffled, of: {kind: selectkd, top: 17}}"],
        "token_selection.top: selectkd looks among the teacher's 17 likeliest ids, and it gives 16",
    ),
    "temperature": (
        [
            SERVED,
            "objective={kind: grpo}",
            "advantage.kind=group_normalized",
            "sample.group_size=4",
            "sample.temperature=0.7",
        ],
        "log-probs of its likeliest ids are those at temperature 1, and grpo compares at 0.7",
    ),
    "processes": (
        [SERVED, "cluster.teachers=1"],
        "cluster.teachers: only a teacher of kind weights has processes; set it to 0",
    ),
    "tail": (["teacher.tail=rest"], "teacher.tail: Input should be 'bucket' or 'renormalise'"),
    "no ids": (["teacher.top_k=0"], "teacher.top_k: Input should be greater than or equal to 1"),
    "one of a mixture": (
        ["teacher={kind: mixed, teachers: [{path: x}]}"],
        "teacher.teachers: Tuple should have at least 2 items",
    ),
    "sampled for a rule": (
        [SAMPLED],
        "teacher.scores: kl_reverse is of the teacher's whole distribution, and `sampled` gives "
        "the log-prob of one token",
    ),
    "sampled for an entropy": (
        [SAMPLED, "token_selection={kind: fire_opd}", "objective={kind: sampled_distill}"],
        "teacher: the evidence teacher_entropy needs the teacher's probabilities of all ids",
    ),
    "sampled forward": (
        [SAMPLED, "objective.divergence=forward_kl"],
        "teacher.scores: `sampled` estimates the reverse KL alone, and the objective is forward_kl",
    ),
    "sampled elsewhere": (
        [SAMPLED, "sample.temperature=0.7"],
        "teacher.scores: `sampled` needs tokens drawn from the student's own distribution",
    ),
    "sampled and truncated": (
        [SAMPLED, "sample.top_p=0.9"],
        "teacher.scores: `sampled` needs tokens drawn from the student's own distribution",
    ),
    "sampled and updated": (
        [SAMPLED, "learn.updates_per_batch=2"],
        "teacher.scores: after the first update of a batch its tokens are no longer drawn from",
    ),
    "value": (
        ["teacher={kind: by_column, column: c, teachers: [{path: x}]}"],
        "teacher.teachers.0.value: is needed",
    ),
    "two of a value": (
        [
            "teacher={kind: by_column, column: c, teachers: "
            "[{path: x, value: a}, {path: y, value: a}]}"
        ],
        "`teachers` has two teachers of the value 'a'",
    ),
    "processes of several": (
        [MIXED, "cluster.teachers=1"],
        "cluster.teachers: only a teacher of kind weights has processes; set it to 0",
    ),
    "ranks that share": (
        [MIXED, "cluster.learners=2", "learn.zero.stage=1", "learn.sequence_parallel=2"],
        "learn.sequence_parallel: ranks do not share the sequences of several teachers",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_teacher_that_cannot_give_what_is_needed_is_refused(case: str) -> None:
    overrides, message = REFUSED[case]
    with pytest.raises(RecipeError) as error:
        read_recipe(RECIPES / "tip.yaml", overrides)
    assert message in str(error.value)


def test_a_tail_of_no_ids_has_no_effect() -> None:
    recipe = read_recipe(RECIPES / "tip.yaml", ["teacher.tail=renormalise"])
    assert unused_settings(recipe) == ["teacher.tail: `top_k` is null, so no id is left out"]
