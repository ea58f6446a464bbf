"""Checkpoints are complete or absent; a damaged one is named and the one before is used."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import Nll
from reasontrain.learner.factory import make_learner
from reasontrain.models import describe
from reasontrain.recipe import Recipe, apply_overrides, build
from reasontrain.run import checkpoint
from reasontrain.run.directory import RunDirectory
from reasontrain.types import RunError, UserError
from tests.tiny import batch

RECIPE = {
    "name": "x",
    "steps": 10,
    "model": {"path": "testbed:student"},
    "task": {"kind": "arithmetic"},
    "sample": {"max_tokens": 32, "group_size": 4},
    "advantage": {"kind": "group_normalized"},
    "objective": {"kind": "grpo"},
    "loss_aggregation": "token_mean",
    "learn": {"lr": 0.001, "rollouts_per_step": 8},
}


def writer(content: bytes) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        (directory / "model.bin").write_bytes(content)
        (directory / "more").mkdir()
        (directory / "more" / "state.bin").write_bytes(content[::-1])

    return write


def test_the_newest_few_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (2, 4, 10):
        checkpoint.save(RunDirectory(tmp_path), step, writer(b"%d" % step), keep=2)
    assert sorted(p.name for p in RunDirectory(tmp_path).checkpoints.iterdir()) == [
        "step-10",
        "step-4",
    ]
    assert checkpoint.newest(RunDirectory(tmp_path)) == (
        10,
        RunDirectory(tmp_path).checkpoints / "step-10",
    )
    assert caplog.messages == []


def test_the_best_one_is_kept_beside_the_newest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scores: dict[int, float] = {}
    for step, score in [(1, 0.2), (2, 0.5), (3, 0.5), (4, 0.1), (5, 0.3)]:
        checkpoint.save(RunDirectory(tmp_path), step, writer(b"%d" % step), keep=1, scores=scores)
        scores[step] = score  # a step is measured after it is saved
    assert sorted(p.name for p in RunDirectory(tmp_path).checkpoints.iterdir()) == [
        "step-3",
        "step-5",
    ]
    assert checkpoint.newest(RunDirectory(tmp_path)) == (
        5,
        RunDirectory(tmp_path).checkpoints / "step-5",
    )
    assert caplog.messages == []
    checkpoint.save(
        RunDirectory(tmp_path), 6, writer(b"6"), keep=1, scores=scores | {9: 1.0}
    )  # of a step that is not there
    assert sorted(p.name for p in RunDirectory(tmp_path).checkpoints.iterdir()) == [
        "step-3",
        "step-6",
    ]


@pytest.mark.parametrize("file", ["model.bin", "more/state.bin", "manifest.json"])
@pytest.mark.parametrize("fault", ["truncated", "flipped", "missing"])
def test_every_damaged_file_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, fault: str
) -> None:
    checkpoint.save(RunDirectory(tmp_path), 1, writer(b"first"), keep=3)
    newest = checkpoint.save(RunDirectory(tmp_path), 2, writer(b"second"), keep=3)
    path = newest / file
    content = path.read_bytes()
    if fault == "missing":
        path.unlink()
    else:
        half = len(content) // 2
        path.write_bytes(
            content[:half]
            if fault == "truncated"
            else content[:half] + bytes([content[half] ^ 4]) + content[half + 1 :]
        )
    assert checkpoint.newest(RunDirectory(tmp_path)) == (
        1,
        RunDirectory(tmp_path).checkpoints / "step-1",
    )
    assert len(caplog.messages) == 1
    assert "step-2" in caplog.messages[0]


def test_going_on_before_a_damaged_checkpoint_removes_it_and_not_the_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint.save(RunDirectory(tmp_path), 50, writer(b"good"), keep=1)
    torn = RunDirectory(tmp_path).checkpoints / "step-100"
    torn.mkdir()
    (torn / "model.bin").write_bytes(b"torn")
    saved = checkpoint.save(RunDirectory(tmp_path), 60, writer(b"new"), keep=1)
    assert [p.name for p in RunDirectory(tmp_path).checkpoints.iterdir()] == ["step-60"]
    assert checkpoint.newest(RunDirectory(tmp_path)) == (60, saved)
    assert caplog.messages == []


def test_a_full_disk_is_known_by_its_room_where_the_error_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torch_save(directory: Path) -> None:
        raise RuntimeError(
            "[enforce fail at inline_container.cc:783] . PytorchStreamWriter failed "
            "writing file data.pkl"
        )

    with pytest.raises(RuntimeError, match="inline_container"):
        checkpoint.save(RunDirectory(tmp_path), 1, torch_save, keep=1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(RunError, match="the disk is full"):
        checkpoint.save(RunDirectory(tmp_path), 1, torch_save, keep=1)


@pytest.mark.parametrize(
    "reason",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "I/O error: Disk quota exceeded (os error 122)",
        "write failed: No space left on device",
    ],
)
def test_a_full_disk_is_known_by_what_a_library_quotes(tmp_path: Path, reason: str) -> None:
    """A file that is refused as a whole leaves room for smaller ones."""

    def refused(directory: Path) -> None:
        raise RuntimeError(reason)

    with pytest.raises(RunError, match="the disk is full"):
        checkpoint.save(RunDirectory(tmp_path), 1, refused, keep=1)


def test_a_save_that_fails_leaves_no_trace_and_the_older_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint.save(RunDirectory(tmp_path), 1, writer(b"first"), keep=1)

    def full(directory: Path) -> None:
        (directory / "model.bin").write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device", str(directory / "model.bin"))

    with pytest.raises(RunError, match=r"the disk is full: .* earlier checkpoints are intact"):
        checkpoint.save(RunDirectory(tmp_path), 2, full, keep=1)
    assert [p.name for p in RunDirectory(tmp_path).checkpoints.iterdir()] == ["step-1"]
    assert checkpoint.newest(RunDirectory(tmp_path)) == (
        1,
        RunDirectory(tmp_path).checkpoints / "step-1",
    )
    assert caplog.messages == []


def test_a_directory_without_its_manifest_is_no_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (RunDirectory(tmp_path).checkpoints / "step-7").mkdir(parents=True)
    assert checkpoint.newest(RunDirectory(tmp_path)) is None
    assert "manifest.json is missing" in caplog.messages[0]


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"GB free, and this run needs .* GB for its checkpoints"):
        checkpoint.check_space(RunDirectory(tmp_path / "run"), 10**15)
    assert not (tmp_path / "run").exists()
    checkpoint.check_space(RunDirectory(tmp_path / "run"), 1000)


def test_a_run_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"written, because .*file is not a writable folder"):
        checkpoint.check_space(RunDirectory(tmp_path / "file" / "run"), 10)


def size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("model.lora={rank: 8}", "model.export=bfloat16"),
        ("learn.optimizer.kind=muon",),
        ("objective.kind=nll", "token_selection.kind=sstoken", "history={kind: ema}"),
    ],
    ids=["adamw", "lora", "muon", "moving-average"],
)
def test_the_room_that_a_run_needs_is_what_it_takes(
    tmp_path: Path, changes: tuple[str, ...]
) -> None:
    recipe = build(Recipe, apply_overrides(RECIPE, changes), "test")
    learner = make_learner(recipe)
    data = batch()
    learner.step(data, data.is_response_BT.float(), Nll(), LOSS_AGGREGATIONS["token_mean"])
    saved = tmp_path / "saved"
    final = tmp_path / "final"
    for directory in (saved, final):
        directory.mkdir()
    learner.save(saved)
    learner.export(final)
    described = describe(recipe.model)
    assert checkpoint.checkpoint_bytes(recipe, described) == pytest.approx(size(saved), rel=0.04)
    assert checkpoint.final_bytes(recipe, described) == pytest.approx(size(final), rel=0.04)


@pytest.mark.parametrize(("every", "saved"), [(0, 1), (5, 2), (4, 3), (1, 3)])
def test_room_is_counted_for_the_checkpoints_that_there_will_be(
    tmp_path: Path, every: int, saved: int
) -> None:
    recipe = build(Recipe, apply_overrides(RECIPE, [f"checkpoint.every={every}"]), "test")
    described = describe(recipe.model)
    one = checkpoint.checkpoint_bytes(recipe, described)
    final = checkpoint.final_bytes(recipe, described)
    run = RunDirectory(tmp_path / "run")
    expected = max(saved * one, min(saved, 2) * one + final) + checkpoint.SMALL_FILES
    assert checkpoint.needed_bytes(run, recipe, described) == expected
    for step in (1, 2):  # left by a run that was interrupted
        run.checkpoint_at(step).mkdir(parents=True)
    assert checkpoint.needed_bytes(run, recipe, described) == 3 * one + checkpoint.SMALL_FILES
