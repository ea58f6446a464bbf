"""Predicted time, where it stops falling, and the change that makes a recipe fit."""

from __future__ import annotations

import pytest

from reasontrain.plan import plan
from reasontrain.plan.machine import GIB, Machine
from reasontrain.plan.memory import roles
from reasontrain.plan.scaling import GPUS, predict, predictions, stops_at
from reasontrain.plan.suggestions import fits, remedy
from tests.plan.jobs import job, recipe

DEMONSTRATIONS = ("sample=null", "advantage={kind: none}", "objective={kind: nll}")
SMALL = ("learn.micro_batch_tokens=2048", "model.gradient_checkpointing=true")
VLLM_HERE = (*SMALL, "sample.engine={kind: vllm}", "cluster={}")
VLLM_APART = (
    *SMALL,
    "sample.engine={kind: vllm}",
    "cluster={learners: 256, samplers: 1}",
    "learn.zero.stage=3",
)


def test_learning_by_hand() -> None:
    # demonstrations: 256 x 1536 tokens, 36 layers of 100,925,440 weights with attention of 4096 x
    # 1536 beside them, three passes; the head's three products at 1024 rows each; then the
    # optimiser's 28 bytes for every parameter
    (first, *_) = predictions(job(*DEMONSTRATIONS))
    trunk = 3 * 256 * 1536 * 36 * (2 * 100_925_440 + 2 * 4096 * 1536)
    head = 256 * 1024 * 3 * 2 * 151936 * 2560
    assert first.learning_s == pytest.approx(
        (trunk + head) / 400e12 + 28 * 4_022_468_096 / 3.3e12, rel=1e-9
    )
    assert (first.sampling_s, first.evidence_s, first.communication_s) == (0, 0, 0)


def test_decoding_by_hand() -> None:
    # 256 rows at once: products of 2 x 4.02e9 x 256 operations take longer than reading 8 GB at
    # 60 % of the peak rate; beside them the cache, half full
    (first, *_) = predictions(job())
    cache = 256 * (512 + 768) * 2 * 1024 * 2 * 36 / (0.6 * 3.3e12)
    token = 2 * 4_022_468_096 * 256 / 400e12 + cache
    prompts = 32 * 512 * 36 * (2 * 100_925_440 + 2 * 4096 * 512) / 400e12
    assert first.sampling_s == pytest.approx(1536 * token + prompts, rel=1e-9)


@pytest.mark.parametrize(
    ("engine", "kernel_s"),
    [
        ("{kind: local}", 30 * 2e-6),
        ("{kind: local, cuda_graphs: false}", 30 * 6e-6),
        ("{kind: vllm}", 12 * 2e-6),
        ("{kind: vllm, enforce_eager: true}", 12 * 6e-6),
    ],
)
def test_a_small_model_decodes_no_faster_than_its_kernels_start(
    engine: str, kernel_s: float
) -> None:
    sizes = "{hidden_size: 64, intermediate_size: 128, num_layers: 4, num_heads: 2, "
    small = f"model.shape={sizes}num_kv_heads: 2, head_dim: 32, vocab_size: 512, tied: true}}"
    (first, *_) = predictions(job(small, f"sample.engine={engine}", "learn.rollouts_per_step=8"))
    assert first.sampling_s == pytest.approx(1536 * 4 * kernel_s, rel=0.02)


def test_every_power_of_two_has_its_line_and_scaling_stops_once() -> None:
    found = predictions(job())
    # One rollout for each GPU is the end: 256 of the step.
    assert tuple(line.gpus for line in found) == (1, 2, 4, 8, 16, 32, 64, 128, 256)
    assert GPUS[-1] == 1024
    found = predictions(job("learn.rollouts_per_step=4096"))
    assert tuple(line.gpus for line in found) == GPUS
    assert found[0].efficiency == 1
    for line in found:
        assert (
            line.step_s
            == line.sampling_s + line.evidence_s + line.learning_s + line.communication_s
        )
        assert line.efficiency == found[0].step_s / line.step_s / line.gpus
    stop = stops_at(found)
    assert stop is not None
    assert all((line.efficiency < 0.5) == (line.gpus >= stop) for line in found)


def test_beyond_one_rollout_a_rank_nothing_gets_faster() -> None:
    found = {ranks: predict(job(f"cluster.learners={ranks}"), ranks) for ranks in (128, 256, 512)}
    assert found[512].learning_s == pytest.approx(found[256].learning_s, rel=0.02)
    assert found[256].learning_s < found[128].learning_s


def test_the_slower_link_counts_from_the_second_node_on() -> None:
    found = {
        line.gpus: line.communication_s
        for line in predictions(job(machine=Machine(gpus_per_node=8)))
    }
    assert found[16] / found[8] == pytest.approx((15 / 16) / (7 / 8) * 6, rel=1e-6)


@pytest.mark.parametrize(
    ("overrides", "memory_gib", "expected"),
    [
        (
            ("learn.micro_batch_tokens=2048",),
            110.0,
            ("sample.engine.kind=local", "sample.engine.max_num_seqs=128"),
        ),
        (DEMONSTRATIONS, 125.0, ("learn.micro_batch_tokens=8192",)),
        (
            (*DEMONSTRATIONS, "learn.micro_batch_tokens=1536"),
            77.0,
            ("model.gradient_checkpointing=true",),
        ),
        (
            (
                *DEMONSTRATIONS,
                "cluster.learners=8",
                "learn.zero.stage=0",
                "learn.micro_batch_tokens=1536",
            ),
            40.0,
            ("learn.zero.stage=1",),
        ),
        (
            VLLM_HERE,
            80.0,
            ("sample.engine.gpu_memory_utilization=0.4",),
        ),  # beside 45 GiB of weights and moments
        (
            VLLM_APART,
            12.0,
            ("sample.engine.gpu_memory_utilization=0.8",),
        ),  # 0.9 leaves no room for process and buffer
        (
            (*VLLM_APART, "sample.engine.gpu_memory_utilization=0.7"),
            9.4,
            ("sample.engine.tensor_parallel_size=2",),
        ),
    ],
)
def test_the_first_change_that_is_enough_is_named(
    overrides: tuple[str, ...], memory_gib: float, expected: tuple[str, ...]
) -> None:
    found = remedy(job(*overrides, machine=Machine(memory_gib=memory_gib)))
    assert found is not None
    assert found.overrides == expected


@pytest.mark.parametrize("memory_gib", [2.0, 6.0, 12.0, 24.0, 40.0, 80.0, 100.0])
@pytest.mark.parametrize(
    "overrides", [(), ("cluster.learners=4", "learn.zero.stage=1"), DEMONSTRATIONS]
)
def test_a_remedy_keeps_its_promise(memory_gib: float, overrides: tuple[str, ...]) -> None:
    """Its overrides, given on the command line, make the plan that was promised."""
    machine = Machine(memory_gib=memory_gib)
    given = job(*overrides, machine=machine)
    found = remedy(given)
    assert not fits(given)
    if found is None:
        assert memory_gib <= 6  # the head alone, with its gradient
        return
    mended = plan(recipe(*overrides, *found.overrides), machine)
    assert mended.fits
    assert max(role.peak for role in mended.roles) == found.peak <= memory_gib * GIB


def test_an_adapter_is_offered_before_more_gpus() -> None:
    """Full fine-tuning of 4B on a card of 24 GB, by what one card can do."""
    found = remedy(job(*DEMONSTRATIONS, *SMALL, machine=Machine(memory_gib=24.0)))
    assert found is not None
    assert found.overrides == ("model.lora={rank: 64, alpha: 128}",)


def test_nothing_is_proposed_that_the_recipe_would_refuse() -> None:
    """Muon does not go with ZeRO."""
    found = remedy(
        job(*DEMONSTRATIONS, "learn.optimizer={kind: muon}", machine=Machine(memory_gib=20.0))
    )
    assert found is not None
    assert not [override for override in found.overrides if "zero" in override]


def test_a_remedy_is_sought_only_where_one_is_needed() -> None:
    assert plan(recipe(), Machine(memory_gib=500.0)).remedy is None
    assert max(role.peak for role in roles(job())) < 500 * GIB
