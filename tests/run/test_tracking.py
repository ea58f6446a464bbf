"""What a run writes down, line by line, and what is dropped when it is written again."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from reasontrain.algo.advantages import GroupNormalized, NoAdvantage
from reasontrain.algo.token_selection import LinearSchedule, MaxVariance
from reasontrain.data.collate import collate
from reasontrain.recipe import TrackSettings
from reasontrain.run.directory import RunDirectory
from reasontrain.run.tracking import Tracker, check_service, open_service, write_tokens
from reasontrain.types import Problem, Rollout, UserError
from tests.tiny import tokenizer


def tracker(where: Path, *, from_step: int = 0, **settings: object) -> Tracker:
    return Tracker(RunDirectory(where), TrackSettings(**settings), from_step=from_step)


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_on_the_disk_as_soon_as_it_is_written_and_numbers_that_are_none_are_named(
    tmp_path: Path,
) -> None:
    track = tracker(tmp_path, tensorboard=False)
    track.metrics(1, {"loss": 1.5, "grad_norm": float("nan")})
    assert records(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 1.5, "grad_norm": "nan"}]


def test_going_on_drops_what_will_be_made_again_and_a_line_that_was_cut_short(
    tmp_path: Path,
) -> None:
    track = tracker(tmp_path, tensorboard=False)
    for step in range(5):
        if step:
            track.metrics(step, {"loss": float(step)})
        track.evaluation(step, {"suite": "s"}, {})
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 5, "lo')
    track = tracker(tmp_path, from_step=2, tensorboard=False)
    assert [r["step"] for r in records(tmp_path / "metrics.jsonl")] == [1, 2]
    assert [r["step"] for r in records(tmp_path / "evaluations.jsonl")] == [0, 1, 2]
    track.rewind(0)  # a process was lost in the first step, before which the model was evaluated
    assert records(tmp_path / "metrics.jsonl") == []
    assert [r["step"] for r in records(tmp_path / "evaluations.jsonl")] == [0]
    tracker(tmp_path, from_step=0, tensorboard=False)  # the run starts over
    assert records(tmp_path / "evaluations.jsonl") == []


def test_tensorboard_gets_metrics_and_evaluations(tmp_path: Path) -> None:
    def write(steps: Sequence[int], loss: float, evaluated: int) -> None:
        for step in steps:
            track.metrics(step, {"loss": loss})
        track.evaluation(evaluated, {"suite": "s"}, {"s/accuracy": 0.25})
        track.close()

    def shown(name: str) -> list[tuple[int, float]]:
        events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
        return [(event.step, event.value) for event in events.Scalars(name)]

    track = tracker(tmp_path)
    write([1, 2, 3, 4], 0.5, evaluated=3)
    assert shown("loss") == [(1, 0.5), (2, 0.5), (3, 0.5), (4, 0.5)]
    assert shown("evaluate/s/accuracy") == [(3, 0.25)]
    # the fourth step is taken again; the evaluation after the third, which is not, stays
    track = tracker(tmp_path, from_step=3)
    write([4, 5], 0.75, evaluated=5)
    assert shown("loss") == [(1, 0.5), (2, 0.5), (3, 0.5), (4, 0.75), (5, 0.75)]
    assert shown("evaluate/s/accuracy") == [(3, 0.25), (5, 0.25)]


@pytest.mark.parametrize("service", ["wandb", "trackio"])
def test_a_service_gets_the_recipe_and_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    calls: list[object] = []
    fake = SimpleNamespace(
        init=lambda *, project, name, config: calls.append((project, name, config)),
        log=lambda values, step: calls.append((values, step)),
        finish=lambda: calls.append("finish"),
    )
    monkeypatch.setitem(sys.modules, service, fake)
    settings = TrackSettings(tensorboard=False, service=service, project="p")
    track = Tracker(
        RunDirectory(tmp_path), settings, open_service(settings, "run", {"seed": 1}), from_step=0
    )
    track.metrics(1, {"loss": 1.0})
    track.close()
    assert calls == [("p", "run", {"seed": 1}), ({"loss": 1.0}, 1), "finish"]


def test_a_service_that_is_not_installed_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"track.service is trackio, which is not installed; `pip install trackio`"
    ):
        check_service(TrackSettings(service="trackio"))


def test_a_service_that_does_not_start_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def init(*, project: str, name: str, config: dict[str, object]) -> None:
        raise RuntimeError("no network:\n  timed out")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, log=None, finish=None))
    assert open_service(TrackSettings(service="wandb"), "run", {}) is None
    assert caplog.messages == [
        "track.service: wandb did not start, and metrics are written to the run directory only "
        "(no network: timed out)"
    ]


def test_a_service_that_fails_later_is_one_warning_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def log(values: dict[str, float], step: int) -> None:
        if step:
            raise OSError("gone")

    monkeypatch.setitem(
        sys.modules, "wandb", SimpleNamespace(init=lambda **_: None, log=log, finish=print)
    )
    settings = TrackSettings(tensorboard=False, service="wandb")
    service = open_service(settings, "run", {})
    track = Tracker(RunDirectory(tmp_path), settings, service, from_step=0)
    for step in range(4):
        track.metrics(step, {"loss": 1.0})
    track.close()
    assert caplog.messages == [
        "track.service: no more metrics are sent, and metrics are written to the run directory "
        "only (gone)"
    ]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


def test_an_evaluation_is_found_by_step_and_suite(tmp_path: Path) -> None:
    track = tracker(tmp_path, tensorboard=False)
    track.evaluation(3, {"suite": "a"}, {})
    assert [
        track.has_evaluation(3, "a"),
        track.has_evaluation(3, "b"),
        track.has_evaluation(2, "a"),
    ] == [True, False, False]


def test_scores_of_a_suite_by_step(tmp_path: Path) -> None:
    track = tracker(tmp_path, tensorboard=False)
    assert track.scores("s") == {}
    for step, suite, value in [(2, "s", 0.25), (2, "t", 0.5), (4, "s", 0.75)]:
        track.evaluation(
            step,
            {"suite": suite, "metrics": {"accuracy": {"value": value, "low": 0.0, "high": 1.0}}},
            {},
        )
    assert track.scores("s") == {2: 0.25, 4: 0.75}


def test_tokens_with_their_weights_and_evidence(tmp_path: Path) -> None:
    words = tokenizer()
    rollout = Rollout(
        problem=Problem(id="p", prompt="", answer="7"),
        id=5,
        group=5,
        prompt_ids=tuple(words("2+5?")["input_ids"]),
        response_ids=tuple(words("=7")["input_ids"]),
        reward=1.0,
    )
    batch = collate([rollout], advantage=NoAdvantage())
    start = len(rollout.prompt_ids)
    entropy_BT = torch.zeros(batch.ids_BT.shape)
    entropy_BT[0, start:] = torch.tensor([0.25, float("inf")])
    weight_BT = torch.zeros(batch.ids_BT.shape)
    weight_BT[0, start] = 1.0
    tracker(tmp_path, tensorboard=False, tokens_every=2).tokens(
        2, batch, weight_BT, [rollout], words, sampled=batch
    )
    assert not (tmp_path / "tokens").exists()
    tracker(tmp_path, tensorboard=False, tokens_every=2).tokens(
        3,
        batch.with_evidence({"entropy": entropy_BT}),
        weight_BT,
        [rollout],
        words,
        sampled=batch,
    )
    (line,) = records(tmp_path / "tokens" / "step-3.jsonl")
    assert (line["prompt"], line["tokens"], line["answer"], line["reward"]) == (
        "2+5?",
        ["=", "7"],
        "7",
        1.0,
    )
    assert (line["weight"], line["kind"], line["evidence"]) == (
        [1.0, 0.0],
        [2, 2],
        {"entropy": [0.25, "inf"]},
    )


def test_a_filters_choice_can_be_made_again_from_a_token_file(tmp_path: Path) -> None:
    """Every rollout has its group, reward, verdict and advantage, dropped ones too."""
    words = tokenizer()
    ids = tuple(words("2+5?")["input_ids"])
    rewards = [10.0, 0.0, 0.0, 100.0, 10.0, 10.0, 10.0, 10.0]
    rollouts = [
        Rollout(
            problem=Problem(id=str(i // 4), prompt=""),
            id=i,
            group=i // 4,
            prompt_ids=ids,
            response_ids=ids,
            reward=reward,
            correct=reward > 10,
            truncated=i == 2,
        )
        for i, reward in enumerate(rewards)
    ]
    advantage = GroupNormalized()
    sampled = collate([r for r in rollouts if not r.truncated], advantage=advantage)
    keep = MaxVariance(scope="group", keep_ratio=LinearSchedule(init=0.7))
    batch = keep(sampled)
    assert batch.rollout_B.tolist() in ([0, 3], [1, 3])
    path = tmp_path / "tokens.jsonl"
    weight_BT = batch.is_response_BT.float()
    write_tokens(path, batch, weight_BT, rollouts, words, sampled=sampled)
    rows = records(path)
    assert [row["rollout"] for row in rows] == list(range(8))
    assert [row["group"] for row in rows] == [0] * 4 + [1] * 4
    assert [row["correct"] for row in rows] == [False, False, False, True] + [False] * 4
    assert rows[2]["advantage"] is None  # it was dropped before any was computed
    known = [row for row in rows if row["advantage"] is not None]
    assert [row["advantage"] for row in known] == sampled.advantage_B.tolist()
    assert [row["rollout"] for row in rows if not row["dropped"]] == batch.rollout_B.tolist()
    for row in rows:
        assert len(row["weight"]) == len(row["kind"]) == len(row["tokens"])
        assert set(row["weight"]) == ({0.0} if row["dropped"] else {1.0})
    again = replace(sampled, advantage_B=torch.tensor([row["advantage"] for row in known]))
    assert keep(again).rollout_B.tolist() == batch.rollout_B.tolist()
