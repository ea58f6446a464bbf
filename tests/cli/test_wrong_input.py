"""Mistakes of a user, made on the command line: each is one sentence that says what to do, and
nothing is written or lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pytest
from pyarrow.parquet import read_table, write_table
from transformers import Gemma2Config, Gemma2ForCausalLM

from reasontrain.cli import main
from reasontrain.models.testbed import VOCABULARY_SIZE, TinyShape, build
from tests.tiny import tokenizer

COMMON = """
name: run
steps: 3
model: {path: ../models/student}
learn: {lr: 1.0e-2, rollouts_per_step: 4, micro_batch_tokens: 300}
track: {tokens_every: 1}
"""
TASK = "task: {kind: arithmetic, num_problems: 12}\n"
PAIRS = """
task: {kind: pairs, path: pairs.jsonl}
objective: {kind: dpo}
loss_aggregation: pair_mean
"""
RECIPES = {
    "tip": f"""{TASK}
teacher: {{path: ../models/teacher}}
sample: {{max_tokens: 8}}
token_selection: {{kind: tip}}
objective: {{kind: distill}}
loss_aggregation: seq_mean_token_mean
""",
    "d3s": f"""{TASK}
sample: {{max_tokens: 8, group_size: 2}}
advantage: {{kind: group_normalized}}
rollout_filter: {{kind: max_variance}}
token_selection: {{kind: advantage_entropy}}
objective: {{kind: grpo}}
loss_aggregation: token_mean
""",
    "dpo": PAIRS,
    "cdpo": f"""{PAIRS}
evidence: {{ce_logscore: scores.parquet}}
token_selection: {{kind: contrast}}
""",
    "scores": f"""{PAIRS}
stages:
  - name: score
    kind: contrast
    pairs: pairs.jsonl
    positive: ../models/student
    negative: ../models/teacher
    alarm: [0, 1]
evidence: {{ce_logscore: "stage:score/ce_logscore.parquet"}}
token_selection: {{kind: contrast}}
""",
    "soft": f"""{TASK}
sample:
  max_tokens: 40
  group_size: 2
  thought: {{kind: soft, max_tokens: 8, max_answer_tokens: 4}}
advantage: {{kind: leave_one_out}}
objective: {{kind: soft_reinforce}}
loss_aggregation: seq_mean_token_sum
""",
    "sstoken": f"""{TASK}
token_selection: {{kind: sstoken}}
objective: {{kind: nll}}
loss_aggregation: token_mean
""",
    "prior": f"""{TASK}
unconditional: {{kind: uncond_base}}
token_selection: {{kind: prior}}
objective: {{kind: nll}}
loss_aggregation: response_token_mean
""",
}
Reasontrain = Callable[..., int]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student, a teacher of other weights, and a model that changes its attention before the
    softmax.
    """
    where = tmp_path_factory.mktemp("models")
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_layers": 1,
        "num_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
    }
    for seed, name in enumerate(("student", "teacher")):
        build(where / name, TinyShape(**sizes, seed=seed))
    sizes |= {
        "num_hidden_layers": sizes.pop("num_layers"),
        "num_attention_heads": sizes.pop("num_heads"),
    }
    Gemma2ForCausalLM(Gemma2Config(**sizes, vocab_size=VOCABULARY_SIZE)).save_pretrained(
        where / "softcap"
    )
    tokenizer().save_pretrained(where / "softcap")
    return where


@pytest.fixture
def reasontrain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_dir: Path) -> Reasontrain:
    """Run a command on one of the recipes, beside data of which some are wrong; the exit code."""
    (tmp_path / "models").symlink_to(model_dir)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    pairs = [
        {
            "id": str(i),
            "prompt": f"{i}+1=?",
            "chosen": f"It is {i + 1}.",
            "rejected": f"It is {i + 2}.",
        }
        for i in range(6)
    ]
    write("pairs.jsonl", pairs)
    write("empty_side.jsonl", [*pairs[:2], pairs[2] | {"rejected": ""}])
    write(
        "one_side.jsonl", [{"prompt": pair["prompt"], "chosen": pair["chosen"]} for pair in pairs]
    )
    write("no_gold.jsonl", [{"prompt": f"Say {i}"} for i in range(12)])
    for name, recipe in RECIPES.items():
        Path(f"{name}.yaml").write_text(COMMON + recipe)
    (Path("out") / "thesis").mkdir(parents=True)
    (Path("out") / "thesis" / "chapter.txt").write_text("dear")

    def run(recipe: str, *overrides: str, command: str = "train") -> int:
        return main([command, f"{recipe}.yaml", *overrides])

    return run


def write(name: str, rows: list[dict[str, str]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def files() -> dict[str, bytes]:
    """Everything that there is, by name."""
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


# ---- what is wrong before a step is taken


@dataclass(frozen=True)
class Mistake:
    """A recipe with what is wrong in it, and what is said of that: what was found, what was
    expected, what to do.
    """

    recipe: str
    overrides: tuple[str, ...]
    said: tuple[str, ...]


MISTAKES = {
    # TIP
    "a comparison without a teacher": Mistake(
        "tip",
        ("teacher=null",),
        ("teacher: the objective distill needs a teacher", "set `teacher.path`"),
    ),
    "no token kept": Mistake(
        "tip",
        ("token_selection.keep_ratio=0",),
        ("token_selection.keep_ratio: Input should be greater than 0 (got 0)",),
    ),
    "a mode that is none": Mistake(
        "tip",
        ("token_selection.mode=softor",),
        ("token_selection.mode", "'soft_or'", "(got 'softor')"),
    ),
    "no teacher there": Mistake(
        "tip", ("teacher.path=nothing",), ("the model nothing cannot be loaded",)
    ),
    # D3S
    "a group of one": Mistake(
        "d3s",
        ("sample.group_size=1",),
        (
            "sample.group_size: group_normalized compares the rollouts of a group; use 2 or more",
            "use 2 or more",
        ),
    ),
    "a group cut in two": Mistake(
        "d3s",
        ("sample.group_size=3",),
        ("learn.rollouts_per_step: 4 is not a multiple of sample.group_size 3",),
    ),
    "advantages without credit": Mistake(
        "sstoken",
        ("rollout_filter={kind: max_variance}",),
        ("rollout_filter: max_variance compares advantages", "set `advantage.kind`"),
    ),
    "one rollout left to be normalised": Mistake(
        "d3s",
        (
            "rollout_filter.scope=group",
            "rollout_filter.renormalise=true",
            "rollout_filter.keep_ratio.init=0.5",
        ),
        (
            "rollout_filter.keep_ratio: 0.5 of 2 rollouts keeps one of a group",
            "use 1 or more",
        ),
    ),
    "a budget above all": Mistake(
        "d3s",
        ("rollout_filter.keep_ratio={init: 0.5, final: 1.5}",),
        ("rollout_filter.keep_ratio.final: Input should be less than or equal to 1",),
    ),
    "rewards without gold answers": Mistake(
        "d3s",
        ("task={kind: math, path: no_gold.jsonl}",),
        (
            "no_gold.jsonl, line 1: problem 0 has no gold answer, which grading needs",
            "12 of 12 rows have none",
            "add it, name its column under `task.columns`, or set `task.bad_rows: drop`",
        ),
    ),
    # cDPO
    "a pair without a rejected answer": Mistake(
        "dpo",
        ("task.path=empty_side.jsonl",),
        (
            "empty_side.jsonl, line 3: column 'rejected' is missing or empty",
            "a pair needs a chosen and a rejected response",
        ),
    ),
    "pairs without rejected answers": Mistake(
        "dpo",
        ("task.path=one_side.jsonl",),
        ("one_side.jsonl has no column 'rejected'", "prompt, chosen"),
    ),
    "half a pair": Mistake(
        "dpo",
        ("learn.rollouts_per_step=3",),
        ("learn.rollouts_per_step: 3 is odd, and a pair is two",),
    ),
    "pairs dropped by halves": Mistake(
        "dpo",
        ("rollout_filter.kind=random",),
        ("rollout_filter: random drops single rollouts and would separate",),
    ),
    "an average of tokens for pairs": Mistake(
        "dpo",
        ("loss_aggregation=token_mean",),
        ("loss_aggregation: dpo gives one loss per pair; use pair_mean", "use pair_mean"),
    ),
    "contrast without scores": Mistake(
        "cdpo",
        ("evidence={}",),
        (
            "token_selection: nothing in this recipe provides the evidence ce_logscore; n"
            "ame its file in `evidence`",
        ),
    ),
    "scores that are not there": Mistake("cdpo", (), ("ce_logscore", "scores.parquet")),
    "a stage that is not there": Mistake(
        "scores",
        ("evidence={ce_logscore: 'stage:scor/x'}",),
        ("stage:scor/x names no earlier stage; the earlier stages are score",),
    ),
    # Soft Tokens
    "one soft rollout alone": Mistake(
        "soft",
        ("sample.group_size=1",),
        ("sample.group_size: leave_one_out compares the rollouts of a group",),
    ),
    "soft steps as tokens": Mistake(
        "soft",
        ("objective.kind=reinforce",),
        ("objective: reinforce needs tokens", "use soft_reinforce"),
    ),
    "no noise": Mistake(
        "soft",
        ("sample.thought.gamma=0",),
        ("sample.thought.gamma: a step without noise", "use a value above 0"),
    ),
    "no room for an answer": Mistake(
        "soft",
        ("sample.max_tokens=12",),
        (
            "sample: `max_tokens` is 12, but a thought of 8 tokens, an answer of 4",
            "raise `max_tokens`, or lower the limits of `thought`",
        ),
    ),
    "an ending that is empty": Mistake(
        "soft", ("sample.thought.late=''",), ("`late` is empty; give the text",)
    ),
    "an answer asked without heat": Mistake(
        "soft",
        ("sample.temperature=0",),
        ("sample.temperature: soft_reinforce needs random rollouts", "temperature 0 is greedy"),
    ),
    # ssToken
    "attention that cannot give the importance": Mistake(
        "sstoken",
        ("model.attention=eager",),
        (
            "model.attention: the evidence `attention` needs a fused kernel, which eager "
            "is not; use sdpa or flash_attention_2",
            "use sdpa",
        ),
    ),
    "attention with another softmax": Mistake(
        "sstoken",
        ("model.path=../models/softcap",),
        (
            "the evidence `attention` needs a fused attention kernel, and gemma2 uses `eager`",
            "set model.attention to sdpa or flash_attention_2",
            "choose a rule that does not need `attention`",
        ),
    ),
    "attention of a kernel that is not installed": Mistake(
        "sstoken",
        ("model.attention=flash_attention_2",),
        ("model.attention is flash_attention_2", "flash_attn is not installed", "use sdpa"),
    ),
    "a layer that is not there": Mistake(
        "sstoken", ("importance.layer=-2",), ("importance.layer is -2, and the model has 1 layers",)
    ),
    "more than all": Mistake(
        "sstoken",
        ("token_selection.keep_ratio=1.5",),
        ("token_selection.keep_ratio: Input should be less than or equal to 1",),
    ),
    "a history that nobody reads": Mistake(
        "sstoken",
        ("token_selection={kind: all}", "history.kind=ema"),
        ("history: neither all nor nll", "remove the section"),
    ),
    "a past that is not there": Mistake(
        "sstoken",
        ("history={kind: checkpoint, path: nothing}",),
        ("the model nothing cannot be loaded",),
    ),
    # PRIOR
    "a stored column of new responses": Mistake(
        "prior",
        ("sample={max_tokens: 8}",),
        ("token_selection: uncond_logp is stored for demonstrations", "remove one of them"),
    ),
    "a weight below zero": Mistake(
        "prior",
        ("token_selection.alpha=-1",),
        ("token_selection.alpha: Input should be greater than or equal",),
    ),
    "demonstrations that show nothing": Mistake(
        "prior",
        ("task={kind: math, path: no_gold.jsonl}",),
        ("problem 0 has no solution (a reply to learn from)",),
    ),
    "a reference that is not there": Mistake(
        "prior",
        ("unconditional.model={path: nothing}",),
        ("the model nothing cannot be loaded",),
    ),
    # any of them
    "a directory of somebody else": Mistake(
        "tip",
        ("name=thesis",),
        ("out/thesis exists and is not a run directory; choose another `name`",),
    ),
    "no GPU": Mistake(
        "sstoken",
        ("model.device=cuda",),
        ("model.device is `cuda`, and no CUDA GPU is visible", "use `auto`"),
    ),
    "adapters on nothing": Mistake(
        "sstoken",
        ("model.lora={targets: [c_attn]}",),
        ("model.lora.targets: the model has no matrix called c_attn", "q_proj"),
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_everything_as_it_was(
    reasontrain: Reasontrain, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    mistake, before = MISTAKES[case], files()
    assert reasontrain(mistake.recipe, *mistake.overrides) == 2
    assert_sentence(capsys.readouterr().err, mistake.said)
    assert files() == before


def test_kernels_that_cannot_run_here_are_refused_before_anything_is_written(
    reasontrain: Reasontrain, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton", reason="Triton is for Linux")
    monkeypatch.setattr("reasontrain.vocab.triton_kernels.INTERPRETED", False)
    before = files()
    assert reasontrain("tip", "model.vocabulary=triton", "model.device=cpu") == 2
    assert_sentence(
        capsys.readouterr().err,
        ("model.vocabulary is triton, and the model is not on a GPU", "use auto, torch or"),
    )
    assert files() == before


def assert_sentence(error: str, said: tuple[str, ...]) -> None:
    """One sentence, or one below the name of the recipe; no traceback."""
    first, *rest = error.splitlines()
    assert first.startswith("reasontrain: ")
    assert len(rest) == (1 if "is not a recipe" in first or "cannot work" in first else 0), error
    assert all(part in error for part in said), error


# ---- what is wrong in what was stored


def column(path: Path, name: str, change: Callable[[list[str], list[list[float]]], None]) -> None:
    """Change the numbers of a stored column, sample by sample."""
    table = read_table(path)
    (key,) = {"id", "sample_id"} & {*table.column_names}
    values = table[name].to_pylist()
    change(table[key].to_pylist(), values)
    changed = pyarrow.array(values, type=pyarrow.list_(pyarrow.float32()))
    write_table(table.set_column(table.column_names.index(name), name, changed), path)


def spoil(ids: list[str], values: list[list[float]]) -> None:
    """A NaN in the middle of the third sample."""
    values[2][1] = float("nan")


def test_a_nan_in_a_stored_column_is_one_sentence(
    reasontrain: Reasontrain, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reasontrain("prior", command="score") == 0
    (path,) = Path("out/stages").rglob("*.parquet")
    column(path, "uncond_logp", spoil)
    before = files()
    capsys.readouterr()
    for command in ("train", "score"):
        assert reasontrain("prior", command=command) == 2
        assert_sentence(
            capsys.readouterr().err,
            ("'uncond_logp' of sample 'arithmetic/train/", "nan at response token 1"),
        )
    assert files() == before


def scored(reasontrain: Reasontrain) -> None:
    """A run whose pairs' scores lie in scores.parquet."""
    assert reasontrain("scores", "name=scored", "learn.rollouts_per_step=2") == 0
    (path,) = Path("out/stages").rglob("ce_logscore.parquet")
    Path("scores.parquet").write_bytes(path.read_bytes())


def test_a_nan_in_the_scores_of_a_pair_is_one_sentence(
    reasontrain: Reasontrain, capsys: pytest.CaptureFixture[str]
) -> None:
    scored(reasontrain)
    column(Path("scores.parquet"), "ce_logscore", spoil)
    before = files()
    capsys.readouterr()
    assert reasontrain("cdpo") == 2
    assert_sentence(capsys.readouterr().err, ("ce_logscore", "nan at response token 1"))
    assert files() == before


def test_weights_that_sum_to_zero_stop_the_run_and_the_steps_before_are_saved(
    reasontrain: Reasontrain, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every score of one pair is 1, and one pair is asked a step: the run ends where it comes to
    that pair, in its third step.
    """
    scored(reasontrain)
    last = json.loads(Path("out/scored/tokens/step-3.jsonl").read_text().splitlines()[0])["problem"]

    def certain(ids: list[str], values: list[list[float]]) -> None:
        values[ids.index(last)] = [0.0] * len(values[ids.index(last)])

    column(Path("scores.parquet"), "ce_logscore", certain)
    capsys.readouterr()
    assert reasontrain("cdpo", "learn.rollouts_per_step=2") == 1
    said = (
        "the weights of all rejected tokens of a step sum to zero",
        "look at the scores before training on them",
    )
    assert_sentence(capsys.readouterr().err, said)
    assert [path.name for path in Path("out/run/checkpoints").iterdir()] == ["step-2"]
    assert len(Path("out/run/metrics.jsonl").read_text().splitlines()) == 2
    Path("scores.parquet").unlink()
    scored(reasontrain)
    assert reasontrain("cdpo", "learn.rollouts_per_step=2") == 2
    assert "scores.parquet" in capsys.readouterr().err
    accepted = "resume={accept: [data, evidence]}"
    assert reasontrain("cdpo", "learn.rollouts_per_step=2", accepted) == 0
