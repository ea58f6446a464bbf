"""Stages before a run, end to end on a tiny random model: what they write, how they go on, and what
is not done twice.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reasontrain.cli import main
from reasontrain.data import stored_evidence
from reasontrain.data.files import read_file
from reasontrain.data.offline import encode, read_pairs
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.learner.scoring import logp
from reasontrain.models import ModelSettings, load
from reasontrain.models.testbed import TinyShape, build
from reasontrain.recipe import read_recipe
from reasontrain.run import loop
from reasontrain.stages import run as stages_run
from reasontrain.stages import score
from reasontrain.tasks.arithmetic import Arithmetic
from reasontrain.types import Stats

LEARN = "{lr: 1.0e-2, rollouts_per_step: 4, micro_batch_tokens: 300}"
RECIPE = f"""
name: run
steps: 3
model: {{path: ../model, lora: {{rank: 2}}}}
stages:
  - {{name: solutions, kind: trajectories, path: solutions.jsonl}}
  - {{name: pairs, kind: pairs, rollouts: "stage:solutions/rollouts.jsonl"}}
  - name: positive
    kind: tune
    demonstrations: stage:pairs/positive.jsonl
    lora: {{rank: 2}}
    learn: {LEARN}
    checkpoint: {{every: 1}}
  - name: negative
    kind: tune
    demonstrations: stage:pairs/negative.jsonl
    lora: {{rank: 2}}
    learn: {LEARN}
  - name: score
    kind: contrast
    pairs: stage:pairs/pairs.jsonl
    positive: stage:positive/final
    negative: stage:negative/final
    alarm: [0, 1]
  - {{name: reference, kind: reference, pairs: "stage:pairs/pairs.jsonl"}}
task: {{kind: pairs, path: "stage:pairs/pairs.jsonl"}}
evidence: {{ce_logscore: "stage:score/ce_logscore.parquet"}}
token_selection: {{kind: contrast}}
objective: {{kind: dpo}}
loss_aggregation: pair_mean
learn: {LEARN}
track: {{tokens_every: 2}}
"""
NAMES = ("solutions", "pairs", "positive", "negative", "score", "reference")
STORED = (
    "evidence={ce_logscore: 'stage:score/ce_logscore.parquet', ref_logp: "
    "'stage:reference/ref_logp.parquet'}"
)
Train = Callable[..., int]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the recipe was run to its end."""
    where = tmp_path_factory.mktemp("finished")
    width = {"hidden_size": 32, "intermediate_size": 48, "head_dim": 16}
    build(
        where / "model",
        TinyShape(**width, num_layers=1, num_heads=2, num_key_value_heads=1, seed=1),
    )
    (where / "work").mkdir()
    (where / "work" / "recipe.yaml").write_text(RECIPE)
    write_solutions(where / "work" / "solutions.jsonl")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(where / "work")
        assert main(["train", "recipe.yaml"]) == 0
    return where


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Path) -> Train:
    """Run the recipe in a copy of that directory; the exit code."""
    shutil.copytree(finished, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path / "work")
    return lambda *overrides: main(["train", "recipe.yaml", *overrides])


def write_solutions(path: Path) -> None:
    """Of ten problems, each with two right solutions, three wrong ones of one kind, two of another,
    and one without an answer.
    """
    draw, rows = random.Random(0), []
    for problem in Arithmetic(num_problems=10, max_depth=2).problems():
        right = int(problem.answer)
        for answer in (right, right, right + 1, right + 1, right + 1, right + 2, right + 2, None):
            text = problem.solution.replace(
                f"\\boxed{{{right}}}", "I cannot say" if answer is None else f"\\boxed{{{answer}}}"
            )
            text = text if answer is not None else "<think>\nI cannot say"
            rows.append(
                {
                    "problem_id": problem.id,
                    "problem": problem.prompt,
                    "answer": problem.answer,
                    "completion": text,
                }
            )
    draw.shuffle(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def place(name: str) -> Path:
    """The one output of this stage."""
    (found,) = [path for path in Path("out/stages").glob(f"{name}-*") if path.is_dir()]
    return found


def losses(run: str = "run") -> list[object]:
    return [record["loss"] for record in lines(Path(f"out/{run}/metrics.jsonl"))]


def test_one_command_does_it_all_and_everything_can_be_looked_at(train: Train) -> None:
    run = Path("out/run")
    assert len(losses()) == 3
    assert losses()[0] == pytest.approx(0.693147, abs=1e-5)  # the start is the reference
    assert sorted(p.name for p in (run / "stages").iterdir()) == sorted(NAMES)
    assert (run / "stages" / "pairs" / "pairs.jsonl").samefile(place("pairs") / "pairs.jsonl")
    assert (run / "report.html").exists()
    assert read_recipe(run / "recipe.yaml") == read_recipe(Path("recipe.yaml"))

    solutions = lines(place("solutions") / "rollouts.jsonl")
    assert len(solutions) == 80
    assert sum(bool(row["correct"]) for row in solutions) == 20
    assert sum(not row["extracted"] for row in solutions) == 10
    sizes = {
        name: len(lines(place("pairs") / f"{name}.jsonl"))
        for name in ("pairs", "positive", "negative")
    }
    assert sizes == {
        "pairs": 10,
        "positive": 10,
        "negative": 10,
    }  # three wrong of five are more than half
    summary = json.loads((place("pairs") / "summary.json").read_text())
    assert (summary["num_problems"], summary["correct_share"], summary["wrong_answers_mean"]) == (
        10,
        0.25,
        2.0,
    )
    for row in lines(place("pairs") / "pairs.jsonl"):
        assert f"boxed{{{row['answer']}}}" in str(row["chosen"])
        assert f"boxed{{{int(str(row['answer'])) + 1}}}" in str(row["rejected"])
    last = lines(run / "metrics.jsonl")[-1]
    assert 0 < last["ce_score_mean"] < 1
    assert last["ce_weight_mean"] == pytest.approx(1 - last["ce_score_mean"])
    assert last["kept_share"] == 1.0
    written = json.loads((place("score") / "summary.json").read_text())
    assert set(written) == {"ce_score_mean", "ce_low_share", "ce_weight_mean"}
    shown = lines(run / "tokens" / "step-1.jsonl")
    assert [min(row["weight"]) < 1 for row in shown] == [False, True] * 2


def begun(said: str) -> set[str]:
    """The stages that a run had to do."""
    lines = [line for line in said.splitlines() if ": running in " in line]
    return {line.partition("] ")[2].partition(":")[0] for line in lines}


def test_what_was_done_is_not_done_again_and_only_what_depends_on_a_change_is(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    def redone(*overrides: str) -> set[str]:
        capsys.readouterr()
        assert train("steps=1", *overrides) == 0
        return begun(capsys.readouterr().out)

    assert (
        redone("name=other", "learn.lr=0.1", "objective.beta=1.0") == set()
    )  # recipes share stages
    Path("recipe.yaml").write_text(
        RECIPE.replace("alarm: [0, 1]", "alarm: [0, 1]\n    ce_beta: 0.5")
    )
    assert redone("name=half") == {"score"}
    Path("recipe.yaml").write_text(
        RECIPE.replace("- name: negative\n", "- name: negative\n    epochs: 2\n")
    )
    assert redone("name=longer") == {"negative", "score"}
    Path("recipe.yaml").write_text(RECIPE)
    Path("solutions.jsonl").write_text(
        "".join(Path("solutions.jsonl").read_text().splitlines(keepends=True)[:-1])
    )
    assert redone("name=fewer", "seed=1") == set(NAMES)


def test_an_output_that_was_damaged_is_made_again(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (place("pairs") / "pairs.jsonl").read_bytes()
    (place("pairs") / "pairs.jsonl").write_bytes(before[:-10])
    (place("score") / "ce_logscore.parquet").unlink()
    capsys.readouterr()
    assert train("name=again", "steps=1") == 0
    assert begun(capsys.readouterr().out) == {"pairs", "score"}
    assert (place("pairs") / "pairs.jsonl").read_bytes() == before


@pytest.mark.parametrize("where", ["make_pairs", "tune", "contrast", "run"])
def test_killed_in_the_middle_the_same_command_goes_on(
    train: Train, finished: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """What came before is there; the steps that are taken after it say that no other was taken
    twice.
    """
    first = {"make_pairs": 1, "tune": 2, "contrast": 4, "run": 6}[where]
    for name in NAMES[first:]:
        shutil.rmtree(place(name))
    shutil.rmtree("out/run")
    step, steps = loop.train_step, list[int]()

    def counted(run: loop.Run, number: int) -> Stats:
        """Dies in the third step of the first model, or in the second of the run itself."""
        if (where == "tune" and number == 2 and run.directory.path.name.startswith("positive")) or (
            where == "run" and number == 1
        ):
            raise SystemExit("kill -9")
        return step(run, number)

    def never(*given: object) -> None:
        raise SystemExit("kill -9")

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_step", counted)
        if where == "make_pairs":
            patched.setattr(stages_run, where, never)
        elif where == "contrast":
            patched.setattr(score, where, never)
        with pytest.raises(SystemExit):
            train()
        assert not Path("out/run/final").exists()
    monkeypatch.setattr(
        loop, "train_step", lambda run, number: (steps.append(number), step(run, number))[1]
    )
    assert train() == 0
    tuning = {"make_pairs": [0, 1, 2, 0, 1, 2], "tune": [2, 0, 1, 2]}.get(where, [])
    assert steps == [*tuning, 0, 1, 2]
    ours, theirs = (
        load_file(out / "run/final/model.safetensors")
        for out in (Path("out"), finished / "work" / "out")
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_scores_belong_to_the_tokens_that_were_written(train: Train) -> None:
    """Against whole logits of both models, one response at a time."""
    positive, negative, base = (
        load(ModelSettings(path=str(path)))
        for path in (place("positive") / "final", place("negative") / "final", "../model")
    )
    rows, _ = encode(
        read_pairs(read_file(place("pairs") / "pairs.jsonl")),
        Encoder(base.tokenizer, PromptSettings(), 512),
        512,
    )
    scores = stored_evidence.read(place("score") / "ce_logscore.parquet", "ce_logscore")
    stored = stored_evidence.read(place("reference") / "ref_logp.parquet", "ref_logp")
    assert (len(scores.values), len(stored.values)) == (10, 20)
    for chosen, rejected in rows:
        assert stored_evidence.key_of(chosen) not in scores.values
        ids = torch.tensor([[*rejected.prompt_ids, *rejected.response_ids]])
        with torch.no_grad():
            p, q, r = (
                m.model(ids, use_cache=False).logits[0, :-1].double()
                for m in (positive, negative, base)
            )
        logscore_TV, ref_TV = (2 * p - q).log_softmax(-1), r.log_softmax(-1)
        for table_TV, found in ((logscore_TV, scores), (ref_TV, stored)):
            expected = table_TV.gather(1, ids[0, 1:, None])[len(rejected.prompt_ids) - 1 :, 0]
            torch.testing.assert_close(
                torch.tensor(found.of(rejected)).double(), expected, rtol=1e-4, atol=1e-4
            )


def test_a_stored_reference_gives_the_losses_of_one_asked_on_the_fly(train: Train) -> None:
    assert train(STORED, "name=stored") == 0
    assert losses("stored") == pytest.approx(losses(), abs=1e-6, rel=0)
    assert len(set(losses())) == 3


def test_a_reference_column_of_another_model_is_stale(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, column = place("pairs") / "pairs.jsonl", place("reference") / "ref_logp.parquet"
    own = (
        "stages=[]",
        f"task={{kind: pairs, path: {pairs}}}",
        f"evidence={{ref_logp: {column}}}",
        "token_selection={kind: all}",
    )
    assert train(*own, "name=fits", "steps=1") == 0
    assert train(*own, "name=stale", "model.dtype=bfloat16") == 2
    said = capsys.readouterr().err
    assert (
        "ref_logp.parquet is stale: it was made with another model, other data or other settings "
        "than this run has (different: model)" in said
    )
    assert not Path("out/stale").exists()


def test_score_makes_the_columns_that_train_reads(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("score", "reference"):
        shutil.rmtree(place(name))
    capsys.readouterr()
    assert main(["score", "recipe.yaml", STORED, "name=other"]) == 0
    assert begun(capsys.readouterr().out) == {"score", "reference"}
    assert not Path("out/other").exists()
    assert train(STORED, "name=other", "steps=1") == 0
    assert begun(capsys.readouterr().out) == set()


def test_contrastive_weights_matter_and_both_sides_may_have_them(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("name=plain", "token_selection={kind: all}", "evidence={}") == 0
    assert losses()[2] != pytest.approx(losses("plain")[2], abs=1e-5)
    capsys.readouterr()
    assert train("name=both", "token_selection.only_neg=false") == 2
    assert (
        "the stored column 'ce_logscore' of sample 'arithmetic/train/0/" in capsys.readouterr().err
    )
    Path("recipe.yaml").write_text(
        RECIPE.replace("alarm: [0, 1]", "alarm: [0, 1]\n    only_rejected: false")
    )
    assert train("name=both", "token_selection.only_neg=false") == 0
    # Figures and alarm are of the rejected side, whether the chosen side is scored too or not.
    summaries = [json.loads(path.read_text()) for path in Path("out").rglob("score-*/summary.json")]
    assert len(summaries) == 2
    assert summaries[0] == pytest.approx(summaries[1], rel=1e-5)


def test_the_ratio_of_both_models_weighs_both_sides(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    """TIS-DPO: the stage's numbers are the difference of both models' own log-probs."""
    made = RECIPE[RECIPE.index("  - name: score") : RECIPE.index("  - {name: reference")]
    ratio = (
        "  - {name: ratio, kind: log_ratio, pairs: 'stage:pairs/pairs.jsonl', "
        "positive: 'stage:positive/final', negative: 'stage:negative/final'}\n"
    )
    recipe = RECIPE.replace(made, ratio).replace("kind: contrast", "kind: tis_dpo")
    old, new = 'ce_logscore: "stage:score/ce_logscore', 'log_ratio: "stage:ratio/log_ratio'
    Path("recipe.yaml").write_text(recipe.replace(old, new))
    capsys.readouterr()
    assert train("name=tis") == 0
    assert begun(capsys.readouterr().out) == {"ratio"}
    assert losses("tis")[2] != pytest.approx(losses()[2], abs=1e-5)
    rows = score._rows(str(place("pairs") / "pairs.jsonl"), read_recipe(Path("recipe.yaml")))
    stored = stored_evidence.read(place("ratio") / "log_ratio.parquet", "log_ratio")
    for rollout in rows[0]:
        positive, negative = (
            logp(load(ModelSettings(path=str(place(name) / "final"))), [rollout], 300)[0]
            for name in ("positive", "negative")
        )
        expected = [above - below for above, below in zip(positive, negative, strict=True)]
        assert stored.of(rollout) == pytest.approx(expected, abs=1e-5)


def test_weights_that_are_all_but_one_or_zero_stop_the_run_with_the_scores_kept(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("recipe.yaml").write_text(RECIPE.replace("alarm: [0, 1]", "alarm: [0, 0.001]"))
    assert train("name=alarmed") == 1
    said = capsys.readouterr().err
    assert "score: the mean weight of rejected tokens is " in said
    assert "outside of 0 to 0.001: scores are near 0 everywhere" in said
    assert (place("score") / "ce_logscore.parquet").exists()
    assert not Path("out/alarmed").exists()
    Path("recipe.yaml").write_text(RECIPE.replace("alarm: [0, 1]", "alarm: [1, 1]"))
    assert train("name=alarmed") == 1
    assert (
        "outside of 1 to 1: the positive model is sure of nearly every token"
        in capsys.readouterr().err
    )


def test_a_run_of_another_recipe_is_noticed_before_any_stage(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("out/stages")
    assert train("objective.beta=0.5") == 2
    assert "holds a run of another recipe (different: objective.beta)" in capsys.readouterr().err
    assert not Path("out/stages").exists()


def test_a_pair_file_of_ones_own_trains_and_one_without_a_rejected_answer_is_refused(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    own = (
        "name=own",
        "stages=[]",
        "evidence={}",
        "task={kind: pairs, path: own.jsonl}",
        "token_selection={kind: all}",
    )
    rows: list[dict[str, object]] = [
        {"prompt": f"Say {i}", "chosen": str(i), "rejected": f"{i}!"} for i in range(5)
    ]
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert train(*own) == 0
    assert losses("own")[0] == pytest.approx(0.693147, abs=1e-5)
    released = ("objective.aggregation=position", "objective.padded_length=10", "name=released")
    assert train(*own, *released) == 2
    assert "objective.padded_length is 10, but the longest pair has" in capsys.readouterr().err
    assert train(*own, *released, "objective.padded_length=64") == 0
    assert abs(losses("released")[2] - 0.693147) < 0.01
    del rows[2]["rejected"]
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert train(*own, "name=broken") == 2
    assert "own.jsonl, line 3: column 'rejected' is missing or empty" in capsys.readouterr().err
    assert not Path("out/broken").exists()


def test_scores_of_other_pairs_are_refused(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(place("score") / "ce_logscore.parquet", "old.parquet")
    pairs = [
        {**row, "rejected_ids": [*row["rejected_ids"], 5]}
        for row in lines(place("pairs") / "pairs.jsonl")
    ]
    Path("other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    own = (
        "stages=[]",
        "task={kind: pairs, path: other.jsonl}",
        "evidence={ce_logscore: old.parquet}",
    )
    assert train(*own, "name=stale") == 2
    said = capsys.readouterr().err
    assert "the stored column 'ce_logscore' of sample 'arithmetic/train/0/" in said
    assert (
        "belongs to another response: these token ids were not scored; remove old.parquet and "
        "run `reasontrain score" in said
    )
    assert not Path("out/stale").exists()
