"""Two ranks that share every sequence, against the one process that they must equal."""

from __future__ import annotations

import fcntl
import os
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import multiprocessing
from torch.testing import assert_close

from reasontrain.data.micro_batches import Layout
from reasontrain.learner.distributed import free_port
from tests.learner import sequence_cases
from tests.learner.sequence_cases import LAYOUTS, METHODS, SIZE, STAGES, STEPS, Numbers

LIMIT_S = 900
"""Far above what all cases take; ranks that wait for each other end with it."""


class Ranks:
    """Answers of the ranks; the first test process that needs one runs them all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, name: str) -> list[dict[str, object]]:
        """The answers of all ranks in this case."""
        with (self.directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (self.directory / "answers").exists():
                run(self.directory / "answers")
        paths = [self.directory / f"answers/{name}.{rank}.pt" for rank in range(SIZE)]
        if not all(path.exists() for path in paths):
            failed = sorted((self.directory / "answers").glob("failed-*.txt"))
            reason = "\n".join(path.read_text(encoding="utf-8") for path in failed)
            pytest.fail(f"{name} did not end: {reason or 'no rank says why'}", pytrace=False)
        return [torch.load(path, weights_only=True) for path in paths]


def run(out: Path) -> None:
    """All cases, on two ranks."""
    out.mkdir()
    address = f"127.0.0.1:{free_port('127.0.0.1')}"
    started = multiprocessing.spawn(
        sequence_cases.work, (SIZE, address, out), nprocs=SIZE, join=False
    )
    try:
        started.join(timeout=LIMIT_S, grace_period=5)
    except (multiprocessing.ProcessRaisedException, multiprocessing.ProcessExitedException):
        pass  # the reason is in the files
    finally:
        for process in started.processes:
            process.kill()


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "sequences"
    directory.mkdir(exist_ok=True)
    return Ranks(directory)


@cache
def alone(case: str, layout: Layout) -> dict[str, list[Numbers]]:
    """The answer of one process."""
    answer: dict[str, list[Numbers]] = getattr(sequence_cases, case)(None, layout)
    return answer


def assert_equal(shared: Numbers, single: Numbers, where: str) -> None:
    """The same evidence and selection of every token, and the same loss and gradient norm."""
    for name in ("loss", "grad_norm"):
        assert shared[name] == pytest.approx(single[name], rel=1e-5), f"{where}: {name}"
    assert torch.equal(shared["weight"], single["weight"]), where
    assert shared["evidence"].keys() == single["evidence"].keys(), where
    for name, column_BT in single["evidence"].items():
        assert_close(
            shared["evidence"][name],
            column_BT,
            rtol=1e-5,
            atol=2e-5,
            msg=lambda m, n=name: f"{where}: {n}: {m}",
        )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("method", METHODS)
def test_four_steps_are_those_of_one_process(
    ranks: Ranks, method: str, stage: int, layout: Layout
) -> None:
    single = alone("methods", layout)[method]
    assert len(single) == STEPS
    for rank, shared in enumerate(ranks(f"methods-{stage}-{layout}")):
        for index, (one, other) in enumerate(zip(shared[method], single, strict=True)):
            assert_equal(one, other, f"rank {rank}, step {index}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_windows_need_no_mask_and_ranks_may_get_the_same_key_value_head(
    ranks: Ranks, layout: Layout
) -> None:
    single = alone("windows", layout)["sft"]
    for rank, shared in enumerate(ranks(f"windows-{layout}")):
        for index, (one, other) in enumerate(zip(shared["sft"], single, strict=True)):
            assert_equal(one, other, f"rank {rank}, step {index}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_of_two_ranks_holds_half_of_the_activations(ranks: Ranks, layout: Layout) -> None:
    single = sequence_cases.activations(None, layout)
    losses = 0.0
    for shared in ranks(f"activations-{layout}"):
        assert shared["kept"] <= 0.6 * single["kept"]
        assert shared["most"] <= 0.6 * single["most"]
        losses += shared["loss"]
    assert losses == pytest.approx(single["loss"], rel=1e-5)


def test_two_ranks_train_on_a_sequence_of_16384_tokens(ranks: Ranks) -> None:
    for shared in ranks("long"):
        assert shared["parameters"] < 10_000_000
        first, second = shared["loss"]
        assert 0 < second < first
