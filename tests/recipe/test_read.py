"""A recipe is read, or every fault of it is named at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from reasontrain.algo.token_selection import AllTokens, Tip
from reasontrain.recipe import (
    LocalEngine,
    Muon,
    Recipe,
    RecipeError,
    VllmEngine,
    YamlValue,
    apply_overrides,
    as_mapping,
    as_yaml,
    build,
    changed_keys,
    read_recipe,
)
from reasontrain.recipe.validation import validation_errors
from reasontrain.types import UserError

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(set(FOLDER.rglob("*.yaml")) - {FOLDER / "claims.yaml"})
GOOD = """
name: small
steps: 4
model: {path: "testbed:student"}
task: {kind: arithmetic}
objective: {kind: nll}
loss_aggregation: token_mean
learn: {lr: 1.0e-3, rollouts_per_step: 8}
"""


@dataclass(frozen=True, kw_only=True)
class Wanting(AllTokens):
    """A rule that asks the sampler."""

    required_evidence: ClassVar[frozenset[str]] = frozenset({"sampled_logp"})


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(GOOD)
    return path


def fault(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        read_recipe(path, overrides)
    return str(error.value)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_parses_and_reads_back_as_itself(path: Path, tmp_path: Path) -> None:
    recipe = read_recipe(path)
    again = tmp_path / "again.yaml"
    again.write_text(as_yaml(recipe))
    assert read_recipe(again) == recipe
    assert changed_keys(as_mapping(recipe), yaml.safe_load(as_yaml(recipe))) == []


def test_the_baselines_differ_from_tip_by_their_rule_alone() -> None:
    tip, opd = (
        read_recipe(p)
        for stem in ("tip", "opd")
        for p in RECIPES
        if p.parent.name == "tiny" and p.stem == stem
    )
    assert {key.partition(".")[0] for key in changed_keys(as_mapping(tip), as_mapping(opd))} == {
        "name",
        "token_selection",
        "baseline",
    }


def test_the_arms_of_sstoken_differ_by_their_rule_alone() -> None:
    tiny = {path.stem: read_recipe(path) for path in RECIPES if path.parent.name == "tiny"}
    for arm in ("sstoken_full", "sstoken_random"):
        changed = changed_keys(as_mapping(tiny["sstoken"]), as_mapping(tiny[arm]))
        assert {key.partition(".")[0] for key in changed} - {"baseline"} == {
            "name",
            "token_selection",
        }


def test_priors_baseline_and_controls_differ_from_it_by_their_rule_alone() -> None:
    tiny = {p.stem: read_recipe(p) for p in RECIPES if p.parent.name == "tiny"}
    differing = {
        stem: {
            key.partition(".")[0]
            for key in changed_keys(as_mapping(tiny["prior"]), as_mapping(tiny[stem]))
        }
        for stem in ("sft", "prior_shuffled", "prior_flipped")
    }
    only = {"name", "token_selection"}
    # with everything kept, response_token_mean and token_mean are the same average
    assert differing == {
        "sft": only | {"baseline", "loss_aggregation", "unconditional"},
        "prior_shuffled": only,
        "prior_flipped": only,
    }


@pytest.mark.parametrize(
    ("stem", "keys"),
    [
        ("d3s", {"name", "baseline", "rollout_filter", "token_selection"}),
        ("pods", {"name", "baseline", "rollout_filter", "advantage"}),
        ("entropy20", {"name", "baseline", "token_selection", "loss_aggregation"}),
        ("dr_grpo", {"name", "baseline", "advantage", "loss_aggregation"}),
        ("cispo", {"name", "baseline", "objective", "correction", "learn"}),
        ("dapo", {"name", "baseline", "sample", "objective", "overlong", "learn"}),
        ("gtpo", {"name", "baseline", "token_advantage"}),
        ("stapo", {"name", "baseline", "token_selection"}),
        ("clip_cov", {"name", "baseline", "token_selection", "loss_aggregation", "learn"}),
        ("kl_cov", {"name", "baseline", "objective", "learn"}),
        ("gfpo", {"name", "baseline", "rollout_filter", "advantage", "loss_aggregation"}),
    ],
)
def test_what_drops_rollouts_and_tokens_differs_from_grpo_by_that_alone(
    stem: str, keys: set[str]
) -> None:
    grpo, other = (
        read_recipe(p)
        for name in ("grpo", stem)
        for p in RECIPES
        if p.parent.name == "tiny" and p.stem == name
    )
    assert {
        key.partition(".")[0] for key in changed_keys(as_mapping(grpo), as_mapping(other))
    } == keys


def test_dpo_is_cdpo_on_the_same_pairs_without_scores_and_weights() -> None:
    cdpo, dpo = (
        as_mapping(read_recipe(p))
        for stem in ("cdpo", "dpo")
        for p in RECIPES
        if (p.parent.name, p.stem) == ("tiny", stem)
    )
    assert {key.partition(".")[0] for key in changed_keys(cdpo, dpo)} == {
        "name",
        "baseline",
        "token_selection",
        "evidence",
        "stages",
    }
    assert cdpo["stages"][:2] == dpo["stages"]


def test_defaults_are_filled_in_and_overrides_win(recipe: Path) -> None:
    read = read_recipe(
        recipe,
        [
            "learn.lr=1e-6",
            "seed=3",
            "token_selection.kind=tip",
            "token_selection.keep_ratio=0.25",
            "teacher.path=x",
            "learn.optimizer.kind=muon",
        ],
    )
    assert (read.learn.lr, read.seed, read.token_selection) == (
        1e-6,
        3,
        Tip(keep_ratio=0.25),
    )  # YAML reads 1e-6 as text; pydantic makes it a number
    assert read.learn.optimizer == Muon()
    assert read_recipe(recipe).learn.optimizer.kind == "adamw"


def test_an_engine_is_chosen_by_its_kind(recipe: Path) -> None:
    assert read_recipe(recipe, ["sample={}"]).sample.engine == LocalEngine()
    asked = [
        "sample.engine={kind: vllm, tensor_parallel_size: 2, max_model_len: 4096}",
        "cluster.samplers=2",
    ]
    assert read_recipe(recipe, asked).sample.engine == VllmEngine(
        tensor_parallel_size=2, max_model_len=4096
    )


@pytest.mark.parametrize("share", [0.05, 1])
def test_the_share_of_a_gpus_memory_may_be_all_of_it(recipe: Path, share: float) -> None:
    engine = f"sample.engine={{kind: vllm, gpu_memory_utilization: {share}}}"
    read = read_recipe(recipe, [engine, "cluster.samplers=1"])
    assert read.sample.engine.gpu_memory_utilization == share


def test_vllm_gives_no_log_probs_before_truncation(recipe: Path) -> None:
    known = read_recipe(recipe, ["sample={engine: {kind: vllm}, top_p: 0.9}", "cluster.samplers=1"])
    wanting = replace(known, token_selection=Wanting())
    assert validation_errors(wanting) == [
        "token_selection: sampled_logp is taken before truncation, and vLLM reports it only if "
        "top_p, top_k and min_p are off"
    ]
    assert (
        validation_errors(replace(wanting, sample=replace(known.sample, engine=LocalEngine())))
        == []
    )
    assert validation_errors(replace(wanting, sample=replace(known.sample, top_p=1.0))) == []
    assert (
        validation_errors(
            replace(wanting, sample=replace(known.sample, top_p=1.0, temperature=0.0))
        )
        == []
    )


@pytest.mark.parametrize("order", [1, -1])
def test_another_kind_keeps_what_it_has_too_and_names_what_it_drops(
    caplog: pytest.LogCaptureFixture, order: int
) -> None:
    task = {"kind": "arithmetic", "max_depth": 3, "num_problems": 9}
    changed = apply_overrides({"task": task}, ["task.kind=gsm8k", "task.path=x.jsonl"][::order])
    assert changed == {"task": {"kind": "gsm8k", "path": "x.jsonl"}}
    assert caplog.messages == [
        "task.kind=gsm8k: dropped max_depth, num_problems, which gsm8k does not take"
    ]
    hub = {"kind": "math", "hub": "a/b", "columns": {"problem": "x"}, "limit": 3}
    assert apply_overrides({"task": hub}, ["task.kind=gsm8k"]) == {"task": hub | {"kind": "gsm8k"}}
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("content", "override", "expected", "dropped"),
    [
        (
            {"token_selection": {"kind": "tip", "keep_ratio": 0.3, "alpha": 1}},
            "token_selection.kind=random",
            {"token_selection": {"kind": "random", "keep_ratio": 0.3}},
            "alpha",
        ),
        (  # a number for one, a schedule for the other
            {"token_selection": {"kind": "tip", "keep_ratio": 0.3}},
            "token_selection.kind=advantage_entropy",
            {"token_selection": {"kind": "advantage_entropy"}},
            "keep_ratio",
        ),
        (
            {"learn": {"lr": 1, "optimizer": {"kind": "muon", "beta1": 0.8, "matrix_lr": 0.1}}},
            "learn.optimizer.kind=adamw",
            {"learn": {"lr": 1, "optimizer": {"kind": "adamw", "beta1": 0.8}}},
            "matrix_lr",
        ),
        (
            {"stages": [{"name": "a", "kind": "pairs", "rollouts": "x", "cover": 0.5}]},
            "stages.0.kind=trajectories",
            {"stages": [{"name": "a", "kind": "trajectories"}]},
            "rollouts, cover",
        ),
        (
            {"evaluate": {"suites": [{"name": "a", "task": {"kind": "math", "path": "x"}}]}},
            "evaluate.suites.0.task.kind=gsm8k",
            {"evaluate": {"suites": [{"name": "a", "task": {"kind": "gsm8k", "path": "x"}}]}},
            "",
        ),
        (
            {"stages": [{"name": "a", "kind": "sample", "sample": {"engine": {"kind": "vllm"}}}]},
            "stages.0.sample.engine.kind=local",
            {"stages": [{"name": "a", "kind": "sample", "sample": {"engine": {"kind": "local"}}}]},
            "",
        ),
        ({"task": {"kind": "math", "path": "x"}}, "task.kind=mth", None, ""),
    ],
)
def test_every_kind_at_every_depth_does_so(
    caplog: pytest.LogCaptureFixture,
    content: dict[str, YamlValue],
    override: str,
    expected: dict[str, YamlValue] | None,
    dropped: str,
) -> None:
    if expected is None:  # an unknown kind is an error by itself, and drops nothing
        expected = {"task": {"kind": "mth", "path": "x"}}
    assert apply_overrides(content, [override]) == expected
    assert [
        message.partition("dropped ")[2].partition(", which")[0] for message in caplog.messages
    ] == ([dropped] if dropped else [])


def test_an_override_reaches_into_lists() -> None:
    content: dict[str, YamlValue] = {"stages": [{"name": "a"}, {"name": "b", "task": {"limit": 1}}]}
    assert apply_overrides(content, ["stages.1.task.limit=48", "stages.0.name=c"]) == {
        "stages": [{"name": "c"}, {"name": "b", "task": {"limit": 48}}]
    }
    assert content["stages"] == [{"name": "a"}, {"name": "b", "task": {"limit": 1}}]
    for key in ("2", "-1", "b", "1_0", "\N{SUPERSCRIPT TWO}"):
        with pytest.raises(UserError, match="is no item of a list of 2; they are counted from 0"):
            apply_overrides(content, [f"stages.{key}.name=c"])
    with pytest.raises(UserError, match="limit is not a section, but 1"):
        apply_overrides(content, ["stages.1.task.limit.more=2"])


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["token_selection={kind: tip, keep_ratio: 2}"],
            "token_selection.keep_ratio: Input should be less than or equal to 1 (got 2)",
        ),
        (
            ["stages=[{kind: sample, name: a, task: {kind: math, limit: 0}, sample: {top_p: 2}}]"],
            "stages.0.task.limit: Input should be greater than or equal to 1 (got 0)",
        ),
        (
            ["learn.optimizer={kind: muon, momentum: 1}"],
            "learn.optimizer.momentum: Input should be less than 1 (got 1)",
        ),
        (["evidence={ce_logscore: [1]}"], "evidence.ce_logscore: Input should be a valid string"),
        (["model.lora={rank: x}"], "model.lora.rank: Input should be a valid integer"),
        (["steps=true"], "steps: a number is expected (got true)"),
        (
            [
                "stages=[{kind: tune, name: a, demonstrations: x, learn: {lr: yes, "
                "rollouts_per_step: 2}}]"
            ],
            "stages.0.learn.lr: a number is expected (got true)",
        ),
        (["learn.lr=.inf"], "learn.lr: Input should be a finite number (got inf)"),
        (
            ["name='a b'"],
            "name: 'a b' is not a name; use letters, digits, `_`, `-` and `.`, with a letter, a "
            "digit or `_` at the start",
        ),
    ],
)
def test_an_error_is_located_as_the_file_has_it(
    recipe: Path, overrides: list[str], line: str
) -> None:
    assert f"\n  {line}" in fault(recipe, *overrides)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("steps: 4", "steps: 4\nsteps: 5", "`steps` is set twice, in line 3 and in line 4"),
        (
            "{kind: nll}",
            "{kind: nll, kind: dpo}",
            "`kind` is set twice, in line 6 and in line 6",
        ),
        ("steps: 4", "steps: 010", "line 3, column 8: 010 is octal in YAML 1.1; write it without"),
        ("steps: 4", "1: 4", "line 3, column 1: the key `1` is not text; quote it"),
        ("steps: 4", "[a]: 4", "line 3, column 1: the key that is a list or a section is not text"),
        ("steps: 4", "steps: !!python/object:os.system 4", "line 3, column 8: could not determine"),
        ("steps: 4", "steps: &a [*a]", "an anchor contains itself"),
        ("steps: 4", "steps: " + "[" * 5000, "is not YAML: "),
        ("steps: 4", "steps: \x00", "is not YAML: unacceptable character"),
        ("steps: 4", "steps: 2020-99-99", "is not YAML: month must be in 1..12"),
        (
            "steps: 4",
            "\n".join(
                f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10) if n else 1}]" for n in range(9)
            ),
            "it has more than 100,000 values",
        ),
    ],
)
def test_what_yaml_would_misread_is_refused(recipe: Path, old: str, new: str, reason: str) -> None:
    recipe.write_text(GOOD.replace(old, new))
    said = fault(recipe)
    assert str(recipe) in said
    assert reason in said


def test_a_number_is_read_as_people_write_it(recipe: Path) -> None:
    recipe.write_text(GOOD.replace("1.0e-3", "1e-3").replace("steps: 4", "steps: 1_000"))
    read = read_recipe(recipe)
    assert (read.learn.lr, read.steps) == (0.001, 1000)
    named = replace(read, name="1e3", out="1:30")  # text that looks like numbers is written as text
    recipe.write_text(as_yaml(named))
    assert read_recipe(recipe) == named
    assert read_recipe(recipe, ["out=1:30"]).out == "1:30"


def test_an_override_changes_one_use_of_an_anchor(recipe: Path) -> None:
    recipe.write_text(
        GOOD.replace('{path: "testbed:student"}', '&model {path: "testbed:student"}')
        + "teacher: *model\n"
    )
    read = read_recipe(recipe, ["teacher.path=testbed:teacher"])
    assert read.teacher is not None
    assert (read.model.path, read.teacher.path) == ("testbed:student", "testbed:teacher")


def test_all_faults_are_named_at_once(recipe: Path) -> None:
    recipe.write_text(
        GOOD.replace("nll", "grpo, clip_hihg: 0.2")
        .replace("rollouts_per_step: 8", "rollouts_per_step: 0, schedule: cosin")
        .replace("steps: 4", "steps: many")
        + "sample: {group_size: 0}\ntoken_selektion: {kind: tip}\n"
    )
    lines = fault(recipe).splitlines()
    assert lines[0] == f"{recipe} is not a recipe:"
    assert "  objective.clip_hihg: no such setting; did you mean `clip_high`?" in lines
    assert "  token_selektion: no such setting; did you mean `token_selection`?" in lines
    assert "  learn.rollouts_per_step: Input should be greater than or equal to 1 (got 0)" in lines
    assert (
        "  learn.schedule: Input should be 'constant', 'linear' or 'cosine' (got 'cosin')" in lines
    )
    assert "  sample.group_size: Input should be greater than or equal to 1 (got 0)" in lines
    assert any(line.startswith("  steps: Input should be a valid integer") for line in lines)
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["objective.kind=grppo"],
            "objective.kind: no such kind 'grppo'; did you mean `grpo`?; there is nll, "
            "distill, grpo, cispo, kl_cov, reinforce, soft_reinforce, sampled_distill, "
            "entropy_aware_distill, gspo, dpo",
        ),
        (["objective={}"], "objective: `kind` is needed, to say which"),
        (
            ["model.vocabulary=cuda"],
            "model.vocabulary: Input should be 'auto', 'torch', 'triton' or 'full_logits' "
            "(got 'cuda')",
        ),
        (
            ["model.dtype=float16"],
            "model.dtype: Input should be 'float32' or 'bfloat16' (got 'float16')",
        ),
        (
            ["token_selection.kind=tip", "token_selection.keep_ratio=1.5"],
            "token_selection.keep_ratio: Input should be less than or equal to 1 (got 1.5)",
        ),
        (
            ["objective.kind=distill"],
            "teacher: the objective distill needs a teacher; set `teacher.path`",
        ),
        (["objective.kind=grpo"], "sample: grpo learns from rollouts; add a `sample` section"),
        (
            ["token_selection={kind: sstoken}", "model.attention=eager"],
            "model.attention: the evidence `attention` needs a fused kernel, which eager is not; "
            "use sdpa or flash_attention_2",
        ),
        (
            ["history={kind: ema}"],
            "history: neither all nor nll compares with an earlier model; remove the section",
        ),
        (
            [
                "token_selection={kind: sstoken}",
                "history={kind: ema}",
                "cluster.learners=2",
                "learn.zero={stage: 3, frozen: sharded}",
            ],
            "history: every rank holds the whole moving average; set `learn.zero.frozen: "
            "whole`, or use `kind: start`",
        ),
        (
            ["token_selection={kind: sstoken, gamma: 1.5}"],
            "token_selection.gamma: Input should be less than or equal to 1 (got 1.5)",
        ),
        (
            ["history={kind: ema, decay: 1}"],
            "history.decay: Input should be less than 1 (got 1)",
        ),
        (["history={kind: checkpoint}"], "history.path: is needed"),
        (["importance.layer=0"], "importance.layer: Input should be less than 0 (got 0)"),
        (
            ["learn.warmup_steps=4"],
            "learn.warmup_steps: 4 must be less than the 4 steps of the run",
        ),
        (["name=../elsewhere"], "name: "),
        (["model.trust_remote_code=true"], "model: trust_remote_code needs a `revision`"),
        (
            ["objective.kind=grpo", "advantage.kind=group_normalized", "sample={}"],
            "sample.group_size: group_normalized compares the rollouts of a group; use 2 or more",
        ),
        (
            ["token_selection.kind=paced"],
            "token_selection: paced measures how often sampled answers to a prompt are right; add "
            "a `sample` section",
        ),
        (
            ["token_selection={kind: shuffled, of: {kind: paced}}", "sample={}"],
            "sample.group_size: paced compares the answers to one prompt, and a single one is "
            "always or never right; use 2 or more",
        ),
        (
            ["objective.kind=reinforce", "sample.group_size=3"],
            "learn.rollouts_per_step: 8 is not a multiple of sample.group_size 3",
        ),
        (
            ["objective.kind=reinforce", "sample={}"],
            "advantage: reinforce learns from advantages; set `advantage.kind`",
        ),
        (
            ["token_selection={kind: shuffled, of: {kind: tip, keep_rato: 0.5}}"],
            "token_selection.of.keep_rato: no such setting; did you mean `keep_ratio`?",
        ),
        (
            ["checkpoint.best=hold"],
            "checkpoint.best: `evaluate` has no suite named 'hold'; its suites are none",
        ),
        (
            ["checkpoint.best=s", "evaluate={every: 2, suites: [{name: s}]}"],
            "checkpoint.best: the best checkpoint is chosen among steps that are both sav"
            "ed and evaluated; set `checkpoint.every` and `evaluate.every`",
        ),
        (
            ["loss_aggregation=pair_mean"],
            "loss_aggregation: nll gives one loss per token; pair_mean is for objectives of pairs",
        ),
        (
            ["objective={kind: dpo}"],
            "loss_aggregation: dpo gives one loss per pair; use pair_mean",
        ),
        (
            ["objective={kind: dpo}"],
            "objective: dpo compares the two sides of a pair; use `task: {kind: pairs}`, "
            "without `sample`",
        ),
        (
            [
                "objective={kind: dpo}",
                "loss_aggregation=pair_mean",
                "task={kind: pairs, path: p.jsonl}",
                "sample={}",
            ],
            "objective: dpo compares the two sides of a pair; use `task: {kind: pairs}`, "
            "without `sample`",
        ),
        (
            ["objective={kind: nll}", "task={kind: pairs, path: p.jsonl}"],
            "task: nll learns from single responses, and this task holds pairs; use the o"
            "bjective dpo",
        ),
        (
            [
                "objective={kind: dpo}",
                "task={kind: pairs, path: p.jsonl}",
                "learn.rollouts_per_step=7",
            ],
            "learn.rollouts_per_step: 7 is odd, and a pair is two rollouts; use an even number",
        ),
        (
            ["objective={kind: dpo, padded_length: 9}"],
            "padded_length is for `aggregation: position`",
        ),
        (
            ["token_selection={kind: contrast}"],
            "token_selection: nothing in this recipe provides the evidence ce_logscore; n"
            "ame its file in `evidence`",
        ),
        (
            ["token_selection={kind: contrast}"],
            "token_selection: contrast weighs the rejected side of pairs; use the objective dpo",
        ),
        (
            ["evidence={ce_score: x.parquet}"],
            "evidence: ce_score is unknown; the kinds of evidence are attention, ce_logsc"
            "ore, compatibility",
        ),
        (
            ["evidence={ref_logp: x.parquet}"],
            "evidence: stored evidence belongs to written responses; use a task of kind p"
            "airs or rollouts",
        ),
        (
            ["task={kind: rollouts, path: 'stage:a/final'}"],
            "stages: stage:a/final names no earlier stage; the earlier stages are none",
        ),
        (
            [
                "stages=[{name: a, kind: trajectories, path: x.jsonl}]",
                "task={kind: rollouts, path: 'stage:a/pairs.jsonl'}",
            ],
            "stages: stage:a/pairs.jsonl: a stage of kind trajectories writes rollouts.jsonl",
        ),
        (
            ["stages=[{name: a, kind: pairs, rollouts: 'stage:a/rollouts.jsonl'}]"],
            "stages.a: stage:a/rollouts.jsonl names no earlier stage",
        ),
        (
            [
                "stages=[{name: a, kind: trajectories, path: x}, {name: a, kind: "
                "trajectories, path: x}]"
            ],
            "stages: two stages are named 'a'",
        ),
        (
            [
                "stages=[{name: a, kind: sample, task: {kind: arithmetic}, sample: "
                "{engine: {kind: vllm}}}]"
            ],
            "stages.a: a stage samples in this process, which vLLM does not support",
        ),
        (
            ["stages=[{name: a, kind: tun}]"],
            "stages.0.kind: no such kind 'tun'; did you mean `tune`?",
        ),
        (["evaluate.suites=[{name: a}, {name: a}]"], "evaluate.suites: two suites are named 'a'"),
        (
            ["evaluate.suites=[{name: a, pass_at: [8]}]"],
            "evaluate.suites.0: pass_at 8 needs as many samples, and num_samples is 1",
        ),
        (
            ["learn.optimizer={kind: muon, momentum: 1}"],
            "learn.optimizer.momentum: Input should be less than 1 (got 1)",
        ),
        (["seed=18446744073709551616"], "seed: Input should be less than 4611686018427387904"),
        (["evaluate.suites=[]"], "evaluate.suites: Tuple should have at least 1 item"),
        (["seed"], "'seed' is no override; write key.path=value"),
        (["name.first=x"], "'name.first=x': name is not a section, but 'small'"),
        (
            ["sample.engine={kind: vlm}"],
            "sample.engine.kind: no such kind 'vlm'; did you mean `vllm`?; there is local, vllm",
        ),
        *(
            (
                ["sample.engine={kind: vllm, tensor_parallel_size: 2}", cluster],
                "sample.engine.tensor_parallel_size: a learner rank shares its one GPU, and 2"
                " are needed; set `cluster.samplers`",
            )
            for cluster in ("cluster={}", "cluster=null")
        ),
        (
            ["sample={engine: {kind: vllm}, temperature: 2.5}", "cluster.samplers=1"],
            "sample.temperature: vLLM supports 0 (greedy) and 0.01 to 2, not 2.5",
        ),
        (
            ["rollout_filter.kind=max_variance", "sample.group_size=4"],
            "rollout_filter: max_variance compares advantages; add a `sample` section and"
            " set `advantage.kind`",
        ),
        (
            ["token_selection={kind: shuffled, of: {kind: advantage_entropy}}"],
            "token_selection: advantage_entropy compares advantages; add a `sample` secti"
            "on and set `advantage.kind`",
        ),
        (
            ["rollout_filter={kind: max_variance, keep_ratio: 0.5}"],
            "rollout_filter.keep_ratio: Input should be a dictionary or an "
            "instance of LinearSchedule",
        ),
        (
            ["rollout_filter={kind: max_variance, keep_ratio: {init: 0}}"],
            "rollout_filter.keep_ratio.init: Input should be greater than 0 (got 0)",
        ),
        (
            ["rollout_filter={kind: max_variance, keep_ratio: {final: 1}}"],
            "rollout_filter.keep_ratio.init: is needed",
        ),
        (
            ["rollout_filter={kind: max_varience}"],
            "no such kind 'max_varience'; did you mean `max_variance`?",
        ),
        (
            ["objective={kind: dpo}", "rollout_filter={kind: random}"],
            "rollout_filter: random drops single rollouts and would separate the two side"
            "s of a pair",
        ),
        (
            [
                "sample={group_size: 4}",
                "advantage.kind=mean_centred",
                "rollout_filter={kind: max_variance, scope: group, keep_ratio: {init: "
                "0.25}, renormalise: true}",
            ],
            "rollout_filter.keep_ratio: 0.25 of 4 rollouts keeps one of a group, and `ren"
            "ormalise` compares at least two; use 0.5 or more",
        ),
        (
            [
                "sample={group_size: 1}",
                "advantage.kind=group_normalized",
                "rollout_filter={kind: max_variance, scope: group}",
            ],
            "sample.group_size: group_normalized compares the rollouts of a group; use 2 or more",
        ),
        (
            ["sample={thought: {kind: soft}}", "objective={kind: reinforce}"],
            "objective: reinforce needs tokens, and a soft thought has none; use soft_rei"
            "nforce, or thought.kind=hard",
        ),
        (
            ["sample={thought: {kind: fuzzy, gamma: 0}}", "objective={kind: soft_reinforce}"],
            "sample.thought.gamma: a step without noise has no probability to learn from;"
            " use a value above 0",
        ),
        (
            [
                "sample={thought: {kind: soft}}",
                "objective={kind: soft_reinforce}",
                "token_selection={kind: tip}",
            ],
            "token_selection: `tip` needs kl_reverse, which is defined per token; soft th"
            "oughts have no tokens. Use one without it, or thought.kind=hard.",
        ),
        (
            [
                "sample={temperature: 1, thought: {kind: hard, tau: 0.5}}",
                "objective={kind: reinforce}",
            ],
            "sample.thought.tau: reinforce scores thought and answer at one temperature; "
            "tau 0.5 must equal sample.temperature 1",
        ),
        (
            ["sample={max_tokens: 500, thought: {kind: soft}}"],
            "sample: `max_tokens` is 500, but a thought of 512 tokens, an answer of 32 and the "
            "text forced between them need more",
        ),
        (
            ["sample={thought: {kind: soft, stop_text: ''}}"],
            "sample.thought: `stop_text` is empty",
        ),
        (["sample={thought: {kind: sof}}"], "sample.thought"),
        (
            ["sample={thought: {kind: soft, tau: 0}}"],
            "sample.thought.tau: Input should be greater than 0",
        ),
        (
            ["sample={engine: {kind: vllm}, thought: {kind: hard}}", "cluster={}"],
            "sample.engine: a `thought` needs forced tokens and embeddings as input, which vLLM "
            "does not support; use `kind: local`",
        ),
        (
            [
                "sample={engine: {kind: vllm}}",
                "cluster={}",
                "evaluate.suites=[{name: a, sampling: {thought: {kind: soft}}}]",
            ],
            "sample.engine: a `thought` needs forced tokens and embeddings as input, which vLLM "
            "does not support; use `kind: local`",
        ),
        (
            ["reward.right=100"],
            "reward: these rewards are for sampled answers that the verifier grades",
        ),
        (
            ["evaluate.suites=[{name: a, answer_format: boxed, task: {kind: images}}]"],
            "evaluate: suite a sets answer_format, which a task of kind images does not use",
        ),
        (
            ["sample.engine={kind: vllm, gpu_memory_utilization: 1.5}"],
            "sample.engine.gpu_memory_utilization: Input should be less than",
        ),
    ],
)
def test_each_fault_has_its_sentence(recipe: Path, overrides: list[str], message: str) -> None:
    assert message in fault(recipe, *overrides)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b\n", "a mapping of settings is expected, it is a list"),
        ("a: [1,\n", "is not YAML"),
        ("", "a mapping of settings is expected, it is empty"),
        ("a: !!python/object/apply:os.system [ls]\n", "is not YAML"),
    ],
)
def test_a_file_that_holds_no_recipe(recipe: Path, content: str, message: str) -> None:
    recipe.write_text(content)
    assert message in fault(recipe)


def test_a_rule_inside_a_rule_is_explained_by_the_kind_that_was_asked_for(recipe: Path) -> None:
    assert (
        len(
            fault(
                recipe, "token_selection={kind: shuffled, of: {kind: tip, keep_rato: 0.5}}"
            ).splitlines()
        )
        == 2
    )
    assert "of" in fault(recipe, "token_selection={kind: shuffled, of: {kind: tipp}}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no file" in fault(tmp_path / "none.yaml")


def test_keys_that_differ_are_named_by_their_path() -> None:
    assert changed_keys({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 5}, "e": 3}) == [
        "a.c",
        "d",
        "e",
    ]


def test_a_wrong_type_at_the_top_is_a_recipe_error() -> None:
    with pytest.raises(RecipeError, match="name: is needed"):
        build(Recipe, {}, "nothing")
