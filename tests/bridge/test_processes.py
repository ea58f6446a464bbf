"""Two processes, as threads that exchange what processes gather: the mean of their gradients, as
DDP takes it, is that of one process with all rollouts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier, Lock, local

import pytest
from torch import Tensor
from transformers import Trainer

from reasontrain.algo import objectives
from reasontrain.algo.token_selection import Tip, TopEntropy
from reasontrain.bridge import distillation, selection
from tests.bridge import trainers
from tests.bridge.trainers import Result, assert_same, data, own_step, pair_data

HALF = TopEntropy(keep_ratio=0.5)


class Exchange:
    """What both ranks put in, in the order of ranks."""

    def __init__(self) -> None:
        self.rank = local()
        self.barrier = Barrier(2, timeout=120)
        self.slots: list[object] = [None, None]

    def all(self, value: object) -> list[object]:
        self.slots[self.rank.index] = value
        self.barrier.wait()
        both = list(self.slots)
        self.barrier.wait()
        return both

    def gather_object(self, values: list[object]) -> list[object]:
        return [one for part in self.all(values) for one in part]  # type: ignore[attr-defined]


class RankedAccelerator:
    """A trainer's accelerator as that of one of two processes."""

    def __init__(self, accelerator: object, exchange: Exchange, index: int) -> None:
        self._accelerator = accelerator
        self._exchange = exchange
        self.num_processes = 2
        self.process_index = index

    def __getattr__(self, name: str) -> object:
        return getattr(self._accelerator, name)

    def reduce(self, value: Tensor, reduction: str = "sum") -> Tensor:
        assert reduction == "sum"
        return sum(self._exchange.all(value))  # type: ignore[arg-type]


def of_both(
    build: Callable[[int], Trainer],
    step: Callable[[Trainer, int], Result],
    monkeypatch: pytest.MonkeyPatch,
) -> Result:
    """The mean of the ranks' losses and gradients."""
    exchange = Exchange()
    monkeypatch.setattr(selection, "gather_object", exchange.gather_object)
    ranks = [build(index) for index in range(2)]

    def run(index: int) -> Result:
        exchange.rank.index = index
        trainer = ranks[index]
        trainer.accelerator = RankedAccelerator(trainer.accelerator, exchange, index)
        return step(trainer, index)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, range(2))
    mean = {name: (one + second[1][name]) / 2 for name, one in first[1].items()}
    return (first[0] + second[0]) / 2, mean


def test_sft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = trainers.sft_rows(data())
    result = of_both(
        lambda _: trainers.sft(tmp_path, token_selection=HALF, aggregation="seq_mean_token_mean"),
        # ranks of different sizes: a rank's own rows must be those of its own weights
        lambda trainer, index: trainers.collated_step(trainer, [rows[:4], rows[4:]][index], 2),
        monkeypatch,
    )
    assert_same(result, own_step(data(), HALF, objectives.Nll(), "seq_mean_token_mean"))


def test_dpo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = trainers.dpo_rows(pair_data())
    result = of_both(
        lambda _: trainers.dpo(tmp_path, token_selection=HALF),
        lambda trainer, index: trainers.collated_step(trainer, [rows[:2], rows[2:]][index], 1),
        monkeypatch,
    )
    assert_same(result, own_step(pair_data(), HALF, objectives.Dpo(), "pair_mean"))


@pytest.mark.parametrize("kind", ["grpo", "distillation"])
def test_trainers_that_generate(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts = trainers.generated(data())
    total = rollouts.pop("num_items_in_batch")
    halves: list[dict[str, Tensor]] = [
        {name: value[rows] for name, value in rollouts.items()} | {"num_items_in_batch": total}
        for rows in (slice(0, 4), slice(4, 6))
    ]
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}

    def build(index: int) -> Trainer:
        size = {"per_device_train_batch_size": len(halves[index]["prompt_ids"])}
        if kind == "grpo":
            rule = {"token_selection": HALF, "aggregation": "token_mean"}
            return trainers.grpo(tmp_path, options | size, **rule)
        rule = {"token_selection": Tip(), "aggregation": "seq_mean_token_mean"}
        return trainers.distillation(tmp_path, options | size, **rule)

    def step(trainer: Trainer, index: int) -> Result:
        trainer._generated = halves[index]
        return trainers.stepped(trainer, [[{}]], None)

    cls = {"grpo": trainers.GRPOTrainer, "distillation": trainers.DistillationTrainer}[kind]

    def generate(self: Trainer, inputs: object) -> dict[str, Tensor]:  # TRL's parameters
        return dict(self._generated)

    monkeypatch.setattr(cls, "_generate_and_score_completions", generate)
    lock, original = Lock(), distillation._divergence

    @contextmanager
    def alone(replacement: object) -> Iterator[None]:
        # a process has a module of its own, and threads share it
        with lock, original(replacement):
            yield

    monkeypatch.setattr(distillation, "_divergence", alone)
    result = of_both(build, step, monkeypatch)
    expected = (
        own_step(data(), HALF, objectives.Grpo(), "token_mean", temperature=0.7)
        if kind == "grpo"
        else own_step(data(), Tip(), objectives.Distill(), "seq_mean_token_mean")
    )
    assert_same(result, expected)
