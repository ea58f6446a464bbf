"""Steps beside TRL's trainers: both sides do the same work, or it is said what differs."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from reasontrain.bench import large, peers, ranks, reasontrain_side, step
from reasontrain.bench.case import BenchCase, BenchMachine
from reasontrain.bench.measure import measure
from reasontrain.bench.workload import Workload, qwen3
from reasontrain.data.micro_batches import Layout
from reasontrain.learner.policy_learner import PolicyLearner
from reasontrain.models import Shape
from reasontrain.plan.shape import num_parameters
from reasontrain.types import Batch, RunError

TINY = Shape(
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=600,
    tied=True,
    qk_norm=True,
)
WORKLOAD = Workload(
    shape=TINY, teacher=TINY, rollouts=8, limit=24, device=torch.device("cpu"), dtype=torch.float32
)
MACHINE = BenchMachine(device=torch.device("cpu"), quick=True, threads=1)
STEPS = 3


def row(name: str, monkeypatch: pytest.MonkeyPatch, machine: BenchMachine = MACHINE) -> BenchCase:
    """A row of the table, with a model and rollouts of a test's size."""
    monkeypatch.setattr(step, "_workload", lambda machine: WORKLOAD)
    return next(row for row in step.rows(machine) if row.name == name)


# ---- both sides do the same


UPDATES = {
    "opd update": (
        partial(reasontrain_side.update, WORKLOAD, WORKLOAD.batch, step.OPD),
        partial(peers.opd_update, WORKLOAD),
        (1, 4, 8),
    ),
    "cdpo update": (
        partial(reasontrain_side.update, WORKLOAD, partial(step.pairs, WORKLOAD), step.CDPO),
        partial(peers.dpo_update, WORKLOAD, step.REFERENCE_LOGP),
        (1, 4),
    ),
    "prior update": (
        partial(
            reasontrain_side.update, WORKLOAD, partial(step.demonstrations, WORKLOAD), step.PRIOR
        ),
        lambda variant: peers.sft_update(WORKLOAD, *variant),
        ((4, None, False), (1, None, True), (1, 64, False)),
    ),
}


@pytest.mark.parametrize("name", UPDATES)
def test_updates_move_the_weights_as_trls_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses and gradient norms of three steps, at a rate at which an optimiser that differs would
    be seen, by every way.
    """
    for module in (reasontrain_side, peers):
        monkeypatch.setattr(module, "LEARNING_RATE", 3e-3)
    mine, theirs, variants = UPDATES[name]
    layouts: tuple[tuple[int, Layout], ...] = ((40, "padded"), (1000, "packed"))
    found = []
    for made in [
        *(partial(mine, *variant) for variant in layouts),
        *(partial(theirs, variant) for variant in variants),
    ]:
        with made() as work:
            found.append([dict(work()) for _ in range(STEPS)])
    for other in found[1:]:
        for numbers, expected in zip(other, found[0], strict=True):
            assert numbers == pytest.approx(expected, rel=2e-4)
    assert abs(found[0][-1]["loss"] - found[0][0]["loss"]) > 0.01 * abs(found[0][0]["loss"])


@pytest.mark.parametrize("size", [2, 8])
def test_grpo_is_trls_in_its_first_step(size: int) -> None:
    """Afterwards TRL takes the log-probs of the moment for old ones, where ours stay those of the
    rollouts.
    """
    with reasontrain_side.update(
        WORKLOAD, partial(step.on_policy, WORKLOAD), step.GRPO, 60, "packed"
    ) as work:
        found = work()
    with peers.grpo_update(WORKLOAD, step.GROUP, size) as work:
        assert work() == pytest.approx(found, rel=1e-4)
    assert found["grad_norm"] > 0.1


def test_a_whole_step_trains_the_tokens_that_both_sides_were_told_to_sample() -> None:
    for made in (
        reasontrain_side.opd_step(WORKLOAD, step.OPD, 60, "padded"),
        peers.opd_step(WORKLOAD, 4),
    ):
        with made as work:
            assert [work(), work()] == [{"tokens": float(WORKLOAD.tokens)}] * 2


def test_trl_ends_each_response_at_its_own_length() -> None:
    end_at_length = peers.EndAtLength(torch.tensor([2, 1]), prompt_width=3, end=0)
    scores = end_at_length(torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 4))
    assert scores[0].isneginf().tolist() == [True, False, False, False]
    assert scores[1].isneginf().tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    "name",
    ["opd step", "opd update", "grpo update", "cdpo update", "prior update", "sstoken update"],
)
def test_rows_are_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(
        row(name, monkeypatch),
        MACHINE,
        runs=1,
    )
    assert found.difference <= 1e-4
    assert found.units == ("tokens", WORKLOAD.tokens)
    assert found.memory_ratio is not None


def test_a_peer_that_learns_another_loss_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = replace(step.OPD.objective, divergence="forward_kl")
    other = partial(
        reasontrain_side.update, WORKLOAD, WORKLOAD.batch, replace(step.OPD, objective=forward)
    )
    plain = row("opd update", monkeypatch)
    with pytest.raises(
        RunError,
        match=r"grad_norm is .* so they did different work and their times are not compared",
    ):
        measure(
            replace(plain, subject=step._reasontrain(WORKLOAD, MACHINE, other)),
            MACHINE,
            runs=1,
        )


# ---- where they do not


class Recorder(PolicyLearner):
    """A learner that only remembers what it was to learn from."""

    def __init__(self) -> None:
        """Nothing to learn with."""

    @property
    def steps_done(self) -> int | None:
        return 0

    def observe(self, batch: Batch, required_evidence: frozenset[str]) -> Batch:
        return batch.with_evidence(
            {name: torch.rand(batch.ids_BT.shape) for name in required_evidence}
        )

    def step(
        self, batch: Batch, weight_BT: Tensor, objective: object, loss_aggregation: object
    ) -> dict[str, float]:
        self.rollouts, self.tokens = len(batch.rollout_B), int(batch.is_response_BT.sum())
        self.kept = int((weight_BT != 0).sum())
        return {}


@pytest.mark.parametrize("limit", [64, 128])
def test_d3s_learns_from_half_of_the_rollouts_and_of_the_tokens(limit: int) -> None:
    workload, recorder = replace(WORKLOAD, rollouts=16, limit=limit), Recorder()
    batch = step.on_policy(workload)
    step.GRPO.learn(recorder, batch)
    assert (recorder.rollouts, recorder.tokens, recorder.kept) == (
        16,
        workload.tokens,
        workload.tokens,
    )
    step.HALVED.learn(recorder, batch)
    assert (recorder.rollouts, recorder.kept) == (8, recorder.tokens)
    assert 0.45 < recorder.tokens / workload.tokens < 0.55
    step.D3S.learn(recorder, batch)
    assert recorder.kept == int(0.3 * recorder.tokens)


@pytest.mark.parametrize("name", ["grpo update, half", "d3s update", "sstoken update"])
def test_rows_that_differ_say_so_and_agree_on_the_tokens_of_the_batch(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = row(name, monkeypatch)
    with chosen.subject.variants[0].setup() as work:
        assert work() == {"tokens of the batch": float(WORKLOAD.tokens)}
    assert "only the numbers of tokens in the batch must agree" in chosen.remark


# ---- what is given


def test_lengths_are_skewed_and_their_mean_is_a_third_of_the_limit() -> None:
    length_B = replace(WORKLOAD, rollouts=64, limit=300).lengths().float()
    assert 90 < length_B.mean() < 110
    assert length_B.median() < 0.8 * length_B.mean()
    assert length_B.max() == 300
    assert length_B.log().std() == pytest.approx(0.8, abs=0.05)


def test_copies_are_the_same_rollouts_under_other_numbers() -> None:
    once, twice = WORKLOAD.batch(), WORKLOAD.batch(copies=2)
    assert torch.equal(twice.ids_BT, once.ids_BT.repeat(2, 1))
    assert len(set(twice.rollout_B.tolist())) == 2 * len(once.rollout_B)


def test_models_have_the_shape_that_is_stated_and_begin_alike() -> None:
    once, again = (qwen3(TINY, 1, torch.device("cpu"), torch.float32) for _ in range(2))
    assert sum(p.numel() for p in once.parameters()) == num_parameters(TINY)
    assert all(
        torch.equal(left, right)
        for left, right in zip(once.parameters(), again.parameters(), strict=True)
    )


# ---- ranks and the GPU


def test_two_ranks_learn_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(
        row("two ranks", monkeypatch),
        MACHINE,
        runs=1,
    )
    assert found.difference < 1e-5
    assert found.memory_ratio is None
    assert not multiprocessing.active_children()


def test_a_rank_that_ends_is_noticed() -> None:
    here, there = multiprocessing.Pipe()
    there.close()
    with pytest.raises(RunError, match="a rank of the benchmark ended"):
        ranks._answer(here)


@pytest.mark.parametrize(("gigabytes", "large_row"), [(80, False), (140, True)])
def test_a_gpu_has_its_own_sizes_and_the_large_row_where_it_fits(
    gigabytes: int, large_row: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda _: SimpleNamespace(total_memory=gigabytes * 2**30),
    )
    rows = step.rows(BenchMachine(device=torch.device("cuda"), quick=False, threads=1))
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert ("opd update, 4B" in names) is large_row
    assert "two ranks" not in names
    assert rows[0].work["dtype"] == "bfloat16"


def test_the_large_row_counts_operations_and_runs_in_bfloat16_with_recomputation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(large, "SIDE", 64)
    workload = replace(WORKLOAD, dtype=torch.bfloat16, checkpointing=True)
    length_B = workload.batch().length_B
    # a trunk's matrices: 2 layers x (2 x 32 x 8 x (4 + 2) + 3 x 32 x 48) = 15,360; its attention: 2
    # layers x 4 x 32 for each pair
    once = 2 * 15_360 * int(length_B.sum()) + 256 * int((length_B * (length_B + 1)).sum()) // 2
    # the student's trunk four times and its head of 600 x 32 three times, the teacher's once
    assert large.flops(workload) == 5 * once + 4 * 2 * 19_200 * workload.tokens
    chosen = large.row(workload, MACHINE)
    found = measure(
        replace(chosen, subject=replace(chosen.subject, variants=chosen.subject.variants[:1])),
        MACHINE,
        runs=1,
    )
    assert found.difference == 0
    assert found.goals[0].goal.at_most == workload.tokens / 6000


def test_quick_searches_nothing_and_a_full_run_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def variants(quick: bool) -> dict[str, tuple[int, int]]:
        monkeypatch.setattr(step, "_workload", lambda machine: replace(WORKLOAD, rollouts=16))
        return {
            each.name: (len(each.subject.variants), len(each.peer.variants))
            for each in step.rows(replace(MACHINE, quick=quick))
        }

    assert set(variants(True).values()) == {(1, 1)}
    assert variants(False)["prior update"] == (6, 13)
    assert variants(False)["cdpo update"] == (6, 4)
