"""Batch arithmetic, traffic, placement: by hand."""

from __future__ import annotations

import pytest

from reasontrain.plan.machine import Machine
from reasontrain.plan.memory import roles
from reasontrain.plan.placement import PlacementGroup, placement
from reasontrain.plan.scaling import predictions
from reasontrain.plan.traffic import collective_bytes, flows
from reasontrain.types import UserError
from tests.plan.jobs import job

PARAMETERS = 4_022_468_096


def test_a_step_by_hand() -> None:
    # 256 rollouts of 512 + 1536 tokens in groups of 8; 86 on the fullest of 3 ranks; 16384 // 2048
    # = 8 in a micro-batch
    work = job(
        "cluster.learners=3", "learn.zero.stage=2", "token_selection={kind: tip, keep_ratio: 0.25}"
    ).work
    assert (work.prompts, work.tokens, work.rollouts_per_rank) == (32, 256 * 2048, 86)
    assert (work.rollouts_per_micro_batch, work.micro_batches_per_rank) == (8, 11)
    assert work.micro_batch_rows == 8 * 1536 // 4
    assert work.rows_per_sampler == 86


def test_ranks_that_share_sequences_hold_a_part_of_each() -> None:
    # 4 groups of 2 ranks: 64 rollouts of 2048 tokens for each; 16384 // 2048 = 8 in a micro-batch,
    # of which each rank holds 1024 columns, and the second of the two responses only.
    shared = job("cluster.learners=8", "learn.zero.stage=3", "learn.sequence_parallel=2")
    work = shared.work
    assert (work.rollouts_per_group, work.rollouts_per_rank) == (64, 32)
    assert (work.rollouts_per_micro_batch, work.micro_batches_per_rank) == (8, 8)
    assert (work.micro_batch_tokens, work.tokens_per_rank) == (8 * 1024, 64 * 1024)
    assert work.rows_per_rank == 64 * 1024
    assert work.micro_batch_rows == 8 * 1024
    plain = job("cluster.learners=8", "learn.zero.stage=3")
    half, whole = (
        next(part for part in roles(one)[0].parts if part.name == "activations").held["loss"]
        for one in (shared, plain)
    )
    assert 2 * half == whole
    # Qwen3-4B: 36 layers, queries of 32 x 128, keys of 8 x 128; half of what a rank holds leaves it
    # in forward, backward and one pass of evidence, in bfloat16.
    moved = {flow.name: flow.size for flow in flows(shared)}["positions exchanged for heads"]
    assert moved == 64 * 1024 * 3 * 36 * 2 * 2 * (4096 + 1024) // 2


def test_lengths_are_the_commands_before_the_recipes() -> None:
    work = job("prompt.max_tokens=100", machine=Machine(response_tokens=50)).work
    assert (work.prompt_tokens, work.response_tokens) == (100, 50)


def test_shuffled_weights_keep_what_their_rule_keeps() -> None:
    assert (
        job("token_selection={kind: shuffled, of: {kind: tip, keep_ratio: 0.25}}").work.kept_share
        == 0.25
    )


def test_budgets_that_change_count_at_most_for_memory_and_on_average_for_time() -> None:
    """Half of the rollouts on loss_aggregation: half of the forward and backward; 28 bytes a
    parameter for the optimiser remain.
    """
    keep = "rollout_filter={kind: max_variance, keep_ratio: {init: 0.25, final: 0.75}}"
    work = job(
        keep, "token_selection={kind: advantage_entropy, keep_ratio: {init: 0.1, final: 0.4}}"
    ).work
    assert (work.kept_share, work.rollouts_kept_share) == (0.4, 0.5)
    fewer, all_of_them = (
        predictions(job(*more))[0].learning_s - 28 * PARAMETERS / 3.3e12 for more in ([keep], [])
    )
    assert fewer == pytest.approx(all_of_them / 2)


def test_a_machine_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="--memory-gib must be above 0"):
        Machine(memory_gib=0.0)


@pytest.mark.parametrize(("stage", "volumes"), [(0, 2), (1, 2), (2, 2), (3, 5)])
def test_collectives_move_what_the_paper_says(stage: int, volumes: int) -> None:
    # arXiv 1910.02054, section 7: 2 volumes of the model, 3 at stage 3; here two gathers more, with
    # which the ranks sample and, in bfloat16, score the rollouts again. One micro-batch; 4 ranks
    # pass 3/4 of every volume on. Stage 0 keeps float32 weights, and gradients of their size.
    found = job(
        "cluster.learners=4", f"learn.zero.stage={stage}", "learn.micro_batch_tokens=131072"
    )
    assert found.work.micro_batches_per_rank == 1
    size = 4 if stage == 0 else 2
    assert collective_bytes(found) == volumes * size * PARAMETERS * 3 // 4


def test_one_process_moves_nothing() -> None:
    assert flows(job()) == []


def test_samplers_of_their_own_get_weights_and_send_rollouts() -> None:
    found = {flow.name: flow.size for flow in flows(job("cluster.samplers=2"))}
    assert found == {
        "weights to 2 samplers": 2 * 2 * PARAMETERS,
        "rollouts": 256 * (2048 * 8 + 1536 * 4),
    }


def test_packed_processes_fill_one_node_after_the_other() -> None:
    found = placement(
        job("cluster={learners: 6, samplers: 4, graders: 2, cpus: 4}", "learn.zero.stage=2")
    )
    assert found == [
        PlacementGroup("learner", 0, 6, 4.0, 1.0, 0),
        PlacementGroup("sampler", 0, 2, 4.0, 1.0, 0),
        PlacementGroup("sampler", 2, 2, 4.0, 1.0, 1),
        PlacementGroup("grader", 0, 2, 4.0, 0.0, None),
    ]


def test_processes_that_share_a_gpu_lie_on_its_node_and_have_a_part_of_its_memory() -> None:
    shared = job("cluster={samplers: 1, gpus_per_process: 0.5}", machine=Machine(gpus_per_node=1))
    assert placement(shared) == [
        PlacementGroup("learner", 0, 1, 1.0, 0.5, 0),
        PlacementGroup("sampler", 0, 1, 1.0, 0.5, 0),
    ]
    assert shared.memory_bytes == 40 * 2**30
    vllm = job(
        "sample.engine={kind: vllm}", "cluster={samplers: 1, gpus_per_process: 0.5}"
    ).reserving_engine
    assert vllm is not None
    assert vllm.gpu_memory_share(colocated=False) == 0.45


def test_spread_processes_take_turns() -> None:
    cluster = "cluster={learners: 3, placement: spread}"
    found = placement(job(cluster, "learn.zero.stage=2", machine=Machine(gpus_per_node=2)))
    assert [group.node for group in found] == [0, 1, 0]


def test_an_engine_of_many_gpus_lies_on_one_node() -> None:
    cluster = "cluster={learners: 6, samplers: 2, teachers: 1}"
    distil = (
        "objective={kind: distill}",
        "advantage={kind: none}",
        "teacher={path: testbed:teacher}",
    )
    engine = "sample.engine={kind: vllm, tensor_parallel_size: 4}"
    assert placement(job(cluster, engine, *distil, "learn.zero.stage=2")) == [
        PlacementGroup("learner", 0, 6, 1.0, 1.0, 0),
        PlacementGroup("sampler", 0, 2, 1.0, 4.0, 1),
        PlacementGroup("teacher", 0, 1, 1.0, 1.0, 0),
    ]


def test_processes_without_a_gpu_go_anywhere() -> None:
    assert placement(job("model.device=cpu")) == [PlacementGroup("learner", 0, 1, 1.0, 0.0, None)]
