"""`reasontrain train` end to end on untrained tiny models: what it writes, how it repeats, stops,
goes on, and refuses.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from reasontrain.cli import main
from reasontrain.metrics.timing import PARTS, key
from reasontrain.models.testbed import TinyShape, build
from reasontrain.run import build as build_run
from reasontrain.run import loop
from reasontrain.types import Stats
from tests.graders import IdleWorkers

RECIPE = """
name: run
steps: 4
model: {path: ../models/student}
teacher: {path: ../models/teacher}
task: {kind: arithmetic, num_problems: 50}
sample: {max_tokens: 16, group_size: 2}
token_selection: {kind: tip, keep_ratio: 0.5}
objective: {kind: distill}
loss_aggregation: seq_mean_token_mean
learn:
  {lr: 1.0e-2, rollouts_per_step: 4, schedule: cosine, warmup_steps: 1, micro_batch_tokens: 200}
track: {tokens_every: 2, tokens_rollouts: 3}
evaluate:
  every: 2
  suites:
  - name: heldout
    limit: 6
    num_samples: 2
    pass_at: [2]
    sampling: {temperature: 1.0, max_tokens: 12}
"""
METHODS = {
    "tip": (),
    "sft": ("objective.kind=nll", "teacher=null", "sample=null", "token_selection.kind=all"),
    "grpo": (
        "objective.kind=grpo",
        "objective.reference_kl=0.1",
        "teacher=null",
        "advantage.kind=group_normalized",
        "token_selection.kind=top_entropy",
    ),
    "reinforce": (
        "objective.kind=reinforce",
        "teacher=null",
        "advantage.kind=leave_one_out",
        "token_selection.kind=random",
        "sample.truncated=mask",
    ),
    "d3s": (
        "objective.kind=gspo",
        "teacher=null",
        "advantage.kind=group_normalized",
        "rollout_filter.kind=max_variance",
        "token_selection.kind=advantage_entropy",
    ),
    "packed": ("learn.layout=packed", "objective.divergence=jsd", "token_selection.kind=all"),
}
IDLE = {
    "sft": {"evidence_forward", "frozen_forward"},
    "reinforce": {"evidence_forward", "frozen_forward"},
    "d3s": {"frozen_forward"},
    "packed": {"evidence_forward"},
}
"""Parts without any time in a step that learns: where nothing is observed, or nothing is compared
with.
"""
Train = Callable[..., int]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student and a teacher of another width, with random weights."""
    where = tmp_path_factory.mktemp("models")
    for name, hidden_size, seed in (("student", 32, 1), ("teacher", 48, 2)):
        shape = TinyShape(
            hidden_size=hidden_size,
            intermediate_size=48,
            num_layers=1,
            num_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            seed=seed,
        )
        build(where / name, shape)
    return where


def workplace(folder: Path, model_dir: Path) -> Path:
    """A directory with the recipe, and the models beside it."""
    (folder / "models").symlink_to(model_dir)
    work = folder / "work"
    work.mkdir()
    (work / "recipe.yaml").write_text(RECIPE)
    return work


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_dir: Path) -> Train:
    """Run the recipe in an empty directory; the exit code."""
    monkeypatch.chdir(workplace(tmp_path, model_dir))
    return lambda *overrides: main(["train", "recipe.yaml", *overrides])


@pytest.fixture(scope="module")
def straight(
    tmp_path_factory: pytest.TempPathFactory, model_dir: Path, idle_workers: IdleWorkers
) -> Path:
    """The directory of a run of the recipe that nothing disturbed."""
    work = workplace(tmp_path_factory.mktemp("straight"), model_dir)
    with pytest.MonkeyPatch.context() as patch, idle_workers.shared():
        patch.chdir(work)
        assert main(["train", "recipe.yaml"]) == 0
    return work / "out" / "run"


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def timeless(records: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    return [
        {
            k: v
            for k, v in record.items()
            if not k.startswith(("time_", "mfu_", "hfu_", "memory_")) and not k.endswith("_per_s")
        }
        for record in records
    ]


def assert_divided(record: dict[str, object], idle: set[str]) -> None:
    """The parts of a step make it up; where it learned, each but the idle ones had time, and
    utilisation is a share.
    """
    seconds = {part: float(str(record[key(part)])) for part in PARTS}
    assert all(s >= 0 for s in seconds.values())
    assert sum(seconds.values()) == pytest.approx(float(str(record["time_step_s"])))
    if record["trained_tokens"]:
        assert {part for part, s in seconds.items() if s == 0} == idle
        assert 0 < float(str(record["mfu_step"])) < 1
        assert 0 < float(str(record["mfu_update"])) <= float(str(record["hfu_update"])) < 1


def assert_same_run(a: Path, b: Path) -> None:
    """The same metrics, evaluations and weights, bit for bit."""
    for file in ("metrics.jsonl", "evaluations.jsonl"):
        assert timeless(lines(a / file)) == timeless(lines(b / file))
    ours, theirs = (load_file(run / "final" / "model.safetensors") for run in (a, b))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_writes_what_it_promises_and_repeats_bit_for_bit(train: Train, method: str) -> None:
    assert train(*METHODS[method]) == 0
    run = Path("out/run")
    assert [record["step"] for record in lines(run / "metrics.jsonl")] == [1, 2, 3, 4]
    assert [record["step"] for record in lines(run / "evaluations.jsonl")] == [0, 2, 4]
    assert sorted(p.name for p in (run / "tokens").iterdir()) == ["step-1.jsonl", "step-3.jsonl"]
    answers = lines(run / "answers" / "heldout-step-4.jsonl")
    assert len(answers) == 12
    model = AutoModelForCausalLM.from_pretrained(run / "final")
    assert AutoTokenizer.from_pretrained(run / "final").chat_template is not None
    start = load_file(run / "checkpoints" / "step-4" / "model.safetensors")
    assert all(
        torch.equal(start[name], value)
        for name, value in model.state_dict().items()
        if name in start
    )
    assert json.loads((run / "report.json").read_text())["profile"]["matrix_tflops"] > 0
    for record in lines(run / "metrics.jsonl"):
        assert_divided(record, idle={"wait"} | IDLE.get(method, set()))
    assert "<html" in (run / "report.html").read_text()
    assert train(*METHODS[method], "name=again") == 0
    assert_same_run(run, Path("out/again"))


def test_steps_without_advantages_keep_nothing_learn_nothing_and_say_so(
    train: Train, model_dir: Path
) -> None:
    """The student knows nothing, so every reward is 0."""
    assert train(*METHODS["d3s"], "evaluate=null") == 0
    for record in lines(Path("out/run/metrics.jsonl")):
        assert (
            record["rollouts"],
            record["rollouts_kept_share"],
            record["trained_tokens"],
            record["useful_share"],
        ) == (
            0,
            0,
            0,
            0,
        )
        assert (record["loss"], record["grad_norm"], record["skipped"]) == (0, 0, 0)
        assert record["sampled_tokens"] > 0
    before, after = (
        load_file(path / "model.safetensors")
        for path in (model_dir / "student", Path("out/run/final"))
    )
    assert all(torch.equal(before[name], after[name]) for name in after)


def test_a_seed_reaches_order_samples_and_rule(train: Train) -> None:
    assert (
        train(
            "token_selection.kind=random",
            "token_selection.keep_ratio=0.5",
            "steps=1",
            "learn.warmup_steps=0",
            "evaluate=null",
        )
        == 0
    )
    assert (
        train(
            "token_selection.kind=random",
            "token_selection.keep_ratio=0.5",
            "steps=1",
            "learn.warmup_steps=0",
            "evaluate=null",
            "name=other",
            "seed=1",
        )
        == 0
    )
    ours, theirs = (lines(Path(f"out/{name}/tokens/step-1.jsonl")) for name in ("run", "other"))
    for column in ("problem", "ids", "weight"):
        assert [r[column] for r in ours] != [r[column] for r in theirs]


def test_training_moves_the_student_towards_its_teacher(train: Train) -> None:
    assert (
        train("steps=12", "learn.rollouts_per_step=8", "evaluate=null", "token_selection.kind=all")
        == 0
    )
    losses = [float(str(record["loss"])) for record in lines(Path("out/run/metrics.jsonl"))]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_started_again_it_equals_a_run_that_was_not(
    train: Train,
    straight: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    whole_step, handler = loop.train_step, signal.getsignal(number)

    def interrupted(run: loop.Run, step: int) -> Stats:
        if step == 1:
            os.kill(os.getpid(), number)
        return whole_step(run, step)

    monkeypatch.setattr(loop, "train_step", interrupted)
    assert train() == 1
    said = capsys.readouterr().err
    assert (
        f"stopped by {number.name} after step 2; saved out/run/checkpoints/step-2; the "
        f"same command goes on from there" in said
    )
    assert not Path("out/run/final").exists()
    monkeypatch.setattr(loop, "train_step", whole_step)
    assert train() == 0
    assert_same_run(straight, Path("out/run"))
    assert signal.getsignal(number) == handler


def test_stopped_in_an_evaluation_it_saves_and_goes_on_with_it(
    train: Train,
    straight: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evaluate = build_run.evaluate

    def stopped(*arguments: object, **settings: object) -> object:
        if Path("out/run/metrics.jsonl").exists():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        return evaluate(*arguments, **settings)

    monkeypatch.setattr(build_run, "evaluate", stopped)
    assert train() == 1
    output = capsys.readouterr()
    assert "SIGTERM: stopping at once" in output.out
    assert "stopped by SIGTERM after step 2; saved out/run/checkpoints/step-2" in output.err
    assert not Path("out/run/owner.json").exists()
    monkeypatch.setattr(build_run, "evaluate", evaluate)
    assert train() == 0
    assert_same_run(straight, Path("out/run"))


def test_stopped_while_it_starts_it_leaves_nothing(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(build_run, "make_learner", stopped)
    assert train() == 1
    output = capsys.readouterr()
    assert "SIGTERM: stopping at once" in output.out
    assert "stopped by SIGTERM; the same command resumes" in output.err
    assert not Path("out").exists()


def test_a_second_process_on_a_run_is_refused_before_it_writes(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = Path("out/run/owner.json")
    owner.parent.mkdir(parents=True)
    owner.write_text(
        '{"host": "node-7", "boot": "b", "pid": 42, "ticks": 1, "since": "2026-01-31 12:00:00"}'
    )
    assert train() == 2
    assert "out/run is in use by process 42 on node-7" in capsys.readouterr().err
    assert list(Path("out/run").iterdir()) == [owner]


def test_killed_without_warning_it_goes_on_from_the_last_checkpoint(
    train: Train, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_step = loop.train_step

    def killed(run: loop.Run, step: int) -> Stats:
        stats = whole_step(run, step)
        if step == 2:
            run.tracker.metrics(step + 1, stats)  # written, but the checkpoint after it never was
            raise SystemExit("kill -9")
        return stats

    monkeypatch.setattr(loop, "train_step", killed)
    with pytest.raises(SystemExit):
        train("checkpoint.every=1")
    monkeypatch.setattr(loop, "train_step", whole_step)
    assert train("checkpoint.every=1") == 0
    assert_same_run(straight, Path("out/run"))


@pytest.mark.parametrize("method", ["grpo", "tip"])
def test_a_step_whose_rollouts_are_all_truncated_and_dropped_changes_nothing(
    train: Train, method: str
) -> None:
    short = (
        "sample.truncated=drop",
        "sample.max_tokens=1",
        "evaluate=null",
        "steps=2",
        "learn.warmup_steps=0",
    )
    assert train(*METHODS[method], *short) == 0
    records = lines(Path("out/run/metrics.jsonl"))
    assert [
        (r["rollouts"], r["trained_tokens"], r["loss"], r["truncated_share"]) for r in records
    ] == [(0, 0, 0, 1)] * 2


def test_gradients_that_are_never_finite_stop_the_run_with_their_rollouts_kept(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from reasontrain.learner.engine import PlainEngine

    monkeypatch.setattr(PlainEngine, "update", lambda self, lr_share: math.nan)
    assert train("evaluate=null") == 1
    assert (
        "the gradient was not finite in 3 optimiser steps in a row (the last in step 3)"
        in capsys.readouterr().err
    )
    assert len(list(Path("out/run/tokens").glob("nonfinite-step-*.jsonl"))) == 3
    assert [r["skipped"] for r in lines(Path("out/run/metrics.jsonl"))] == [1, 1, 1]


COUNTING = """
import os
def score(problem, response):
    with open("calls", "a") as file: file.write("x")
    calls = os.path.getsize("calls")
    print("call", calls)
    return {"reward": 1.0 / (calls <= 10), "calls": calls}
"""


def test_a_reward_that_fails_in_the_middle_loses_no_step_and_need_not_stop_the_run(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two steps of four calls, and one that fails in its third call; resumed with `drop`, the last
    two steps have no rewards and change nothing.
    """
    Path("rows.jsonl").write_text(
        "".join(json.dumps({"problem": f"Say {i}", "answer": str(i)}) + "\n" for i in range(5))
    )
    Path("mine.py").write_text(COUNTING)
    own = (
        "task.kind=python",
        "task.path=mine.py",
        "task.problems_path=rows.jsonl",
        "task.workers=1",
        "evaluate=null",
    )
    assert train(*METHODS["grpo"], *own) == 1
    assert "mine.py, line 7, in score: ZeroDivisionError" in capsys.readouterr().err
    assert [p.name for p in Path("out/run/checkpoints").iterdir()] == ["step-2"]
    assert train(*METHODS["grpo"], *own, "task.on_error=drop") == 0
    out = capsys.readouterr().out
    assert out.count("learns nothing: none of its 4 rollouts is left (4 without a reward)") == 2
    records = lines(Path("out/run/metrics.jsonl"))
    assert [r["rewards_missing"] for r in records] == [0, 0, 4, 4]
    assert [r["reward_errors"] for r in records] == [0, 0, 4, 4]
    assert [r.get("reward/calls") for r in records] == [2.5, 6.5, None, None]
    assert [r.get("reward_mean") for r in records] == [1, 1, None, None]
    before, after = (
        load_file(f"out/run/{name}/model.safetensors") for name in ("checkpoints/step-2", "final")
    )
    assert all(torch.equal(before[name], after[name]) for name in after)
    log = Path("out/run/rewards.log").read_text()
    assert "printed:\ncall 1\n" in log
    assert "line 7, in score: ZeroDivisionError" in log
    assert "call 1\n" not in out
    assert Path("out/run/reward.py").read_text() == COUNTING


def test_fewer_steps_than_were_taken_are_refused(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("evaluate=null") == 0
    assert train("evaluate=null", "steps=2") == 2
    assert (
        "out/run has 4 steps already, more than `steps: 2`; raise `steps`, or choose another `name`"
        in (capsys.readouterr().err)
    )


def test_a_finished_run_is_extended_by_more_steps(train: Train) -> None:
    constant = ("learn.schedule=constant", "evaluate=null")
    assert train(*constant) == 0
    assert train(*constant, "steps=6") == 0
    assert train(*constant, "steps=6", "name=straight") == 0
    straight, extended = (
        timeless(lines(Path(f"out/{name}/metrics.jsonl"))) for name in ("straight", "run")
    )
    losses = [[record["loss"] for record in records] for records in (straight, extended)]
    assert losses[0] == losses[1]
    ours, theirs = (
        load_file(f"out/{name}/final/model.safetensors") for name in ("straight", "run")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_real_problems_go_through_the_chat_template(train: Train) -> None:
    rows = [
        {
            "id": f"p{i}",
            "problem": f"Tom has {i} apples and eats one. How many are left?",
            "answer": str(i - 1),
        }
        for i in range(1, 9)
    ]
    Path("gsm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suites = (
        "evaluate.suites=[{name: own, task: {kind: math, path: gsm.jsonl}, sampling: "
        "{max_tokens: 4}}]"
    )
    assert (
        train("task.kind=gsm8k", "task.path=gsm.jsonl", suites, "steps=2", "learn.warmup_steps=0")
        == 0
    )
    prompt = str(lines(Path("out/run/tokens/step-1.jsonl"))[0]["prompt"])
    assert prompt.startswith("<|im_start|>user\nTom has ")
    assert prompt.endswith("within \\boxed{}.<|im_end|>\n<|im_start|>assistant\n")


def test_prompts_and_conversations_without_answers_train_where_nothing_is_graded(
    train: Train,
) -> None:
    Path("ask.jsonl").write_text(
        "".join(json.dumps({"prompt": f"Say {i}"}) + "\n" for i in range(5))
    )
    turns = [{"role": "user", "content": "Say 1"}, {"role": "assistant", "content": "1"}]
    Path("talk.jsonl").write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(5)))
    short = ("evaluate=null", "steps=2", "learn.warmup_steps=0")
    assert train("task.kind=math", "task.path=ask.jsonl", *short) == 0
    assert (
        train(*METHODS["sft"], "task.kind=math", "task.path=talk.jsonl", "name=talk", *short) == 0
    )
    assert (
        train(*METHODS["grpo"], "task.kind=math", "task.path=ask.jsonl", "name=graded", *short) == 2
    )
    assert not Path("out/graded").exists()


def test_an_own_reward_trains(train: Train) -> None:
    Path("rows.jsonl").write_text(
        "".join(json.dumps({"problem": f"Say {i}", "answer": str(i)}) + "\n" for i in range(5))
    )
    Path("mine.py").write_text(
        "def score(problem, response):\n    return 1.0 if problem['answer'] in response else 0.25\n"
    )
    own = (
        "task.kind=python",
        "task.path=mine.py",
        "task.problems_path=rows.jsonl",
        "evaluate=null",
    )
    assert train(*METHODS["grpo"], *own) == 0
    assert {0.25, 1.0} >= {r["reward"] for r in lines(Path("out/run/tokens/step-1.jsonl"))}


# ---- a resumed run depends on the same files


def swap_merges(path: Path) -> None:
    """Another tokenizer with the same ids."""
    content = json.loads(path.read_text())
    merges = content["model"]["merges"]
    merges[-1], merges[-2] = merges[-2], merges[-1]
    path.write_text(json.dumps(content))


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


CHANGES: dict[str, tuple[str, Callable[[], None]]] = {
    "data: rows.jsonl": ("rows.jsonl", lambda: replace_in(Path("rows.jsonl"), "Say 3", "Tell 3")),
    "data: rows.jsonl.": (
        "rows.jsonl",
        lambda: Path("rows.jsonl").write_text(Path("rows.jsonl").read_text().partition("\n")[0]),
    ),
    "reward: mine.py": (
        "mine.py",
        lambda: replace_in(Path("mine.py"), "n RIGHT", "n -RIGHT"),
    ),
    "reward: rules.py": ("rules.py", lambda: replace_in(Path("rules.py"), "1.0", "2.0")),
    "suites: own": ("suite.jsonl", lambda: replace_in(Path("suite.jsonl"), "Say 3", "Tell 3")),
    "model: models/policy": (
        "models/policy/model.safetensors",
        lambda: flip(Path("models/policy/model.safetensors")),
    ),
    "reference: models/other": (
        "models/other/model.safetensors",
        lambda: flip(Path("models/other/model.safetensors")),
    ),
    "tokenizer: models/policy": (
        "models/policy/tokenizer.json",
        lambda: swap_merges(Path("models/policy/tokenizer.json")),
    ),
    "template: models/policy": (
        "models/policy/chat_template.jinja",
        lambda: replace_in(Path("models/policy/chat_template.jinja"), "user", "human"),
    ),
}


def test_a_changed_input_is_named_and_refused_until_it_is_accepted(
    train: Train, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(json.dumps({"problem": f"Say {i}", "answer": str(i)}) + "\n" for i in range(5))
    Path("rows.jsonl").write_text(rows)
    Path("suite.jsonl").write_text(rows)
    Path("rules.py").write_text("RIGHT = 1.0\n")
    Path("mine.py").write_text(
        "from rules import RIGHT\n\ndef score(problem, response):\n    return RIGHT\n"
    )
    for name, source in (("policy", "student"), ("other", "teacher")):
        shutil.copytree(model_dir / source, Path("models") / name)
    own = (
        *METHODS["grpo"],
        "model.path=models/policy",
        "reference={path: models/other}",
        "task={kind: python, path: mine.py, problems_path: rows.jsonl}",
        "evaluate={before: false, suites: [{name: own, task: {kind: math, path: suite.jsonl}, "
        "sampling: {max_tokens: 4}}]}",
        "learn={lr: 1.0e-3, rollouts_per_step: 4}",
    )
    assert train(*own, "steps=1") == 0
    facts = json.loads(Path("out/run/environment.json").read_text())
    assert facts["host"]
    assert {"commit", "gpus", "driver", "versions"} <= facts.keys()
    assert facts["attention"] == "sdpa"  # of a padded layout
    assert facts["sdpa_kernels"] == ["flash", "mem_efficient", "math"]
    before = {path: path.read_bytes() for path in Path("out/run").glob("*.json*")}
    for text, (file, change) in CHANGES.items():
        original = Path(file).read_bytes()
        change()
        assert train(*own, "steps=2") == 2
        role, _, part = text.rstrip(".").partition(": ")
        error = capsys.readouterr().err
        assert (
            f"out/run cannot be resumed, because what it was trained on has changed: {role}: "
            in error
        )
        assert part in error
        assert f"resume.accept=[{role}]" in error
        Path(file).write_bytes(original)
        assert {path: path.read_bytes() for path in Path("out/run").glob("*.json*")} == before
    replace_in(Path("rows.jsonl"), "Say 3", "Tell 3")
    Path("out/run/environment.json").write_text(
        json.dumps(facts | {"versions": facts["versions"] | {"torch": "1.0"}})
    )
    assert train(*own, "steps=2", "resume.accept=[data]") == 0
    output = capsys.readouterr().out
    assert "data: rows.jsonl; accepted (resume.accept)" in output
    assert "library versions have changed: torch 1.0 -> " in output
    (accepted,) = json.loads(Path("out/run/inputs.json").read_text())["accepted"]
    assert (accepted["role"], accepted["after_steps"]) == ("data", 1)
    assert train(*own, "steps=2") == 0  # it is what the run depends on now


def test_an_extended_run_keeps_its_schedule_if_it_is_told_to(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    linear = ("learn.schedule=linear", "evaluate=null", "learn.final_lr_share=0.1")
    assert train(*linear, "steps=2") == 0
    assert train(*linear, "steps=3") == 2
    assert "the learning rate was" in capsys.readouterr().err
    assert train(*linear, "steps=3", "learn.schedule_steps=2") == 0
    # Peak 0.01 after one warm-up step; the one decaying step; then a tenth.
    assert [record["lr"] for record in lines(Path("out/run/metrics.jsonl"))] == pytest.approx(
        [0.005, 0.01, 0.001]
    )


# ---- what is refused: one sentence, exit code 2, nothing written

BAD_MODEL = "a directory that is no model"
REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "unknown key": (
        ("token_selection.keep_rato=0.5",),
        "token_selection.keep_rato: no such setting; did you mean `keep_ratio`?",
    ),
    "missing file": (("task.kind=gsm8k", "task.path=none.jsonl"), "none.jsonl does not exist"),
    "empty file": (("task.kind=gsm8k", "task.path=empty.jsonl"), "empty.jsonl is empty"),
    "malformed file": (
        ("task.kind=gsm8k", "task.path=bad.jsonl"),
        "bad.jsonl, line 2: expected one JSON object per line",
    ),
    "gold that does not pass": (("task.kind=math", "task.path=gold.jsonl"), "gold"),
    "no model": (("model.path=nothing",), "the model nothing cannot be loaded"),
    "prompts too long": (("prompt.max_tokens=20",), "prompts have more than 20 tokens"),
    "own reward": (
        ("task.kind=python", "task.path=no.py", "task.problems_path=short.jsonl"),
        "no.py",
    ),
    "unknown service": (("track.service=wandb",), "track.service is wandb, which is not installed"),
    "testbed name": (("model.path=testbed:nobody",), "there is no testbed model testbed:nobody"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_one_sentence_and_leaves_nothing(
    train: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    Path("empty.jsonl").write_text("")
    Path("bad.jsonl").write_text('{"problem": "a", "answer": "1"}\n{"problem": \n')
    Path("gold.jsonl").write_text('{"problem": "a", "answer": "\\\\boxed{"}\n')
    Path("short.jsonl").write_text('{"problem": "What is 1+1?", "answer": "2"}\n')
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    overrides, message = REFUSED[case]
    assert train(*overrides, *(("evaluate=null",) if "task.kind" in str(overrides) else ())) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("reasontrain: ")
    assert "Traceback" not in said
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("role", "overrides"),
    [
        ("teacher", ("teacher.path=foreign",)),
        ("reference", ("reference={path: foreign}",)),
        (
            "history model",
            ("token_selection={kind: sstoken}", "history={kind: checkpoint, path: foreign}"),
        ),
    ],
)
def test_a_model_with_other_ids_is_refused(
    train: Train, capsys: pytest.CaptureFixture[str], role: str, overrides: tuple[str, ...]
) -> None:
    shutil.copytree("../models/teacher", "foreign")
    path = Path("foreign/tokenizer.json")
    content = json.loads(path.read_text())
    vocab = content["model"]["vocab"]
    first, second = list(vocab)[300:302]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    path.write_text(json.dumps(content))
    assert train(*overrides) == 2
    assert (
        f"the {role} and the model must share one vocabulary, but id 300 is"
        in capsys.readouterr().err
    )
    assert not Path("out").exists()


def test_heads_that_ranks_cannot_share_are_refused_before_anything_starts(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("cluster={learners: 3}", "learn.zero.stage=1", "learn.sequence_parallel=3")
    assert train(*overrides) == 2
    assert (
        "learn.sequence_parallel is 3, and ranks cannot share the sequences of the model: its 2 "
        "attention heads do not divide over 3 ranks; use `sequence_parallel: 1`, or a number that "
        "divides them"
    ) in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_directory_with_another_run_is_left_alone(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("steps=2", "evaluate=null", "learn.warmup_steps=0") == 0
    before = Path("out/run/metrics.jsonl").read_bytes()
    assert train("steps=2", "evaluate=null", "learn.warmup_steps=0", "learn.lr=0.5") == 2
    assert "out/run holds a run of another recipe (different: learn.lr)" in capsys.readouterr().err
    assert Path("out/run/metrics.jsonl").read_bytes() == before


def test_a_disk_that_fills_up_is_a_sentence_and_keeps_what_was_saved(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import errno

    from reasontrain.learner.policy_learner import PolicyLearner

    save = PolicyLearner.save

    def full(self: PolicyLearner, directory: Path) -> None:
        if self.steps_done == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(directory))
        save(self, directory)

    monkeypatch.setattr(PolicyLearner, "save", full)
    assert train("checkpoint.every=1", "evaluate=null") == 1
    assert "the disk is full" in capsys.readouterr().err
    assert [p.name for p in Path("out/run/checkpoints").iterdir()] == ["step-1"]
    monkeypatch.setattr(PolicyLearner, "save", save)
    assert train("checkpoint.every=1", "evaluate=null") == 0
