"""Updates of a pre-trained model with adapters: both sides learn the same from real texts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from reasontrain.bench import peers, reasontrain_side, tune
from reasontrain.bench.step import GRPO, OPD, on_policy
from reasontrain.bench.tune import LORA, SFT, TunedWorkload, WorkContext, tuned_workload
from reasontrain.models import DType
from reasontrain.types import UserError
from tests.bench.pretrained_problems import pretrained_machine, write_problems

Sides = tuple[Callable[[], WorkContext], Callable[[], WorkContext]]


def workload(folder: Path, dtype: DType) -> TunedWorkload:
    file = write_problems(folder / "problems.jsonl")
    return tuned_workload(pretrained_machine(file, dtype=dtype, teacher=True), 4)


def sides(name: str, work: TunedWorkload) -> Sides:
    match name:
        case "sft":
            return (
                partial(reasontrain_side.update, work, work.batch, SFT, 1024, "packed"),
                partial(peers.sft_update, work, 2, None, True),
            )
        case "grpo":
            return (
                partial(
                    reasontrain_side.update, work, partial(on_policy, work), GRPO, 1024, "packed"
                ),
                partial(peers.grpo_update, work, 4, 2),
            )
        case _:
            return (
                partial(reasontrain_side.update, work, work.batch, OPD, 1024, "packed"),
                partial(peers.opd_update, work, 2),
            )


@pytest.mark.parametrize(
    ("name", "dtype", "steps"),
    [
        ("sft", "float32", 2),
        ("opd", "float32", 2),
        ("grpo", "float32", 1),
        ("sft", "bfloat16", 1),
        ("opd", "bfloat16", 1),
        ("grpo", "bfloat16", 1),
    ],
)
def test_adapters_learn_what_trls_learn(
    name: str, dtype: DType, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps, at a rate at which adapters that began otherwise would be seen in the second one:
    the first moves B away from zero, and then the loss depends on A. (TRL's GRPO takes the
    log-probs of the moment for old ones from its second step on, and in bfloat16 the first step of
    Adam depends on the sign of gradients that rounding decides.)
    """
    for module in (reasontrain_side, peers):
        monkeypatch.setattr(module, "LEARNING_RATE", 1e-2)
    results = []
    for setup in sides(name, workload(tmp_path, dtype)):
        with setup() as work:
            results.append([dict(work()) for _ in range(steps)])
    subject, peer = results
    for numbers, expected in zip(subject, peer, strict=True):
        assert numbers == pytest.approx(expected, rel=tune.TOLERANCE[dtype])
        assert numbers["grad_norm"] > 1e-3
    if steps == 2:
        assert abs(subject[1]["loss"] / subject[0]["loss"] - 1) > 2 * tune.TOLERANCE[dtype]


def test_both_sides_train_adapters_alone(tmp_path: Path) -> None:
    work = workload(tmp_path, "float32")
    models = (work.policy().model, work.peer_model())
    trained, frozen = (
        [sum(p.numel() for p in m.parameters() if p.requires_grad is flag) for m in models]
        for flag in (True, False)
    )
    assert trained[0] == trained[1] > 0
    assert frozen[0] == frozen[1] > trained[0]
    assert work.settings()["LoRA rank"] == LORA.rank


def test_a_whole_step_samples_responses_as_long_as_the_solutions(tmp_path: Path) -> None:
    work = workload(tmp_path, "float32")
    for setup in (
        reasontrain_side.opd_step(work, OPD, 1024, "padded"),
        peers.opd_step(work, 4),
    ):
        with setup as run:
            assert run() == {"tokens": float(work.tokens)}


def test_distillation_is_measured_with_a_teacher_only(tmp_path: Path) -> None:
    file = write_problems(tmp_path / "problems.jsonl", tune.ROLLOUTS)
    plain = [case.name for case in tune.rows(pretrained_machine(file))]
    assert plain == ["sft update", "grpo update"]
    cases = tune.rows(pretrained_machine(file, teacher=True))
    assert [case.name for case in cases] == [*plain, "opd update", "opd step"]
    assert (cases[0].work["model"], cases[0].work["rollouts"]) == ("testbed:student", 8)
    assert cases[-1].work["teacher"] == "testbed:teacher"


@pytest.mark.parametrize(
    ("num", "solved", "message"),
    [
        (tune.ROLLOUTS, False, "p0"),
        (3, True, r"problems.jsonl has 3 problems, and 8 are measured"),
    ],
)
def test_problems_that_cannot_be_learned_from_are_refused(
    num: int, solved: bool, message: str, tmp_path: Path
) -> None:
    file = write_problems(tmp_path / "problems.jsonl", num, solved=solved)
    with pytest.raises(UserError, match=message):
        tune.rows(pretrained_machine(file))
