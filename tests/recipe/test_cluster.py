"""What cannot go together when a run is spread over ranks and processes."""

from __future__ import annotations

import pytest
import yaml

from reasontrain.recipe import Cluster, Recipe, RecipeError, Zero, apply_overrides, build
from reasontrain.recipe.validation import validation_errors

SMALL = """
name: small
steps: 4
model: {path: "testbed:student"}
task: {kind: arithmetic}
objective: {kind: grpo}
loss_aggregation: token_mean
advantage: {kind: group_normalized}
sample: {group_size: 2}
learn: {lr: 1.0e-3, rollouts_per_step: 8}
"""
WHOLE_GPUS = (
    "learner ranks, and the GPUs of an engine, are connected by NCCL, which needs a whole GPU for "
    "each; use 1, or `cluster.learners: 1` and `tensor_parallel_size: 1`"
)


def read(*overrides: str) -> Recipe:
    return build(Recipe, apply_overrides(yaml.safe_load(SMALL), list(overrides)), "small")


def faults(*overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as error:
        read(*overrides)
    return [line.strip() for line in str(error.value).splitlines()[1:]]


OFFLOAD_REASON = (
    "activation_offload: moves the inputs of layers, and without gradient checkpointing everything "
    "inside them is saved too; set `model.gradient_checkpointing: true`"
)
SHARED = ["learn.sequence_parallel=2", "learn.zero.stage=1"]


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["learn.activation_offload=true"], f"learn.{OFFLOAD_REASON}"),
        (
            ["learn.sequence_parallel=2"],
            "learn.sequence_parallel: 1 learner ranks do not divide into groups of 2 that share "
            "sequences; set `cluster.learners` to a multiple of 2",
        ),
        (
            [*SHARED, "cluster.learners=3"],
            "learn.sequence_parallel: 3 learner ranks do not divide into groups of 2 that share "
            "sequences; set `cluster.learners` to a multiple of 2",
        ),
        (
            [*SHARED, "cluster.learners=2", "objective.kind=gspo"],
            "learn.sequence_parallel: gspo sums log-probs over whole responses, of which each rank "
            "has a part; use an objective of tokens, such as grpo, or 1",
        ),
        (
            [*SHARED, "cluster.learners=2", "token_selection.kind=sstoken"],
            "learn.sequence_parallel: the evidence `attention` compares a token with its whole "
            "sequence, of which each rank has a part; use a rule that does not need it, or 1",
        ),
        (
            [
                *SHARED,
                "cluster.learners=2",
                "objective={kind: soft_reinforce}",
                "sample.thought={kind: soft}",
            ],
            "learn.sequence_parallel: the embeddings of soft thoughts are not divided over ranks; "
            "use `thought.kind: hard`, or 1",
        ),
        (
            [*SHARED, "cluster.learners=2", "model.attention=sdpa"],
            "model.attention: sdpa would attend to the columns of one rank only, with "
            "learn.sequence_parallel 2; use auto",
        ),
        (
            [
                *SHARED,
                "cluster.learners=2",
                "reference={path: 'testbed:teacher', attention: eager}",
            ],
            "reference.attention: eager would attend to the columns of one rank only, with "
            "learn.sequence_parallel 2; use auto",
        ),
        (
            ["learn.zero.stage=2"],
            "learn.zero: DeepSpeed runs in the learner ranks of a cluster; add a `cluster` section",
        ),
        (
            ["cluster.learners=2"],
            "learn.zero: 2 learner ranks share their work through DeepSpeed; set `learn.z"
            "ero.stage`",
        ),
        (
            ["cluster={}", "learn.zero.stage=1", "learn.optimizer.kind=muon"],
            "learn.optimizer: Muon needs whole matrices, and ZeRO divides them over the r"
            "anks; use adamw",
        ),
        (
            ["cluster.teachers=1"],
            "cluster.teachers: the recipe has no `teacher`; set it to 0, or set `teacher.path`",
        ),
        (
            ["cluster.overlap=1"],
            "cluster.overlap: sampling ahead needs its own processes; set `cluster.samplers`",
        ),
        (
            ["cluster={overlap: 1, samplers: 1}", "objective.kind=reinforce"],
            "cluster.overlap: reinforce has no importance ratio, which corrects for rollo"
            "uts of older weights; use grpo, gspo or cispo, or set `correction.kind`",
        ),
        (
            ["cluster={overlap: 1, samplers: 1}", "learn.old_logp=learner"],
            "cluster.overlap: the importance ratio needs the sampler's own log-probs; use"
            " `learn.old_logp: auto`, without top_p, top_k and min_p, or set `correction.kind`",
        ),
        (
            ["cluster={overlap: 1, samplers: 1}", "sample.top_p=0.9"],
            "cluster.overlap: the importance ratio needs the sampler's own log-probs; use"
            " `learn.old_logp: auto`, without top_p, top_k and min_p, or set `correction.kind`",
        ),
        (
            ["cluster={learners: 2, gpus_per_process: 0.5}", "learn.zero.stage=1"],
            f"cluster.gpus_per_process: {WHOLE_GPUS}",
        ),
        (
            [
                "cluster={samplers: 1, gpus_per_process: 0.5}",
                "sample.engine={kind: vllm, tensor_parallel_size: 2}",
            ],
            f"cluster.gpus_per_process: {WHOLE_GPUS}",
        ),
    ],
)
def test_each_contradiction_has_its_sentence(overrides: list[str], fault: str) -> None:
    assert validation_errors(read(*overrides)) == [fault]


@pytest.mark.parametrize(
    "overrides",
    [
        ["cluster={}"],
        ["cluster.learners=2", "learn.zero.stage=3"],
        ["cluster={overlap: 1, samplers: 2}"],
        ["cluster.teachers=1", "teacher.path=testbed:teacher"],
        ["cluster={}", "learn.optimizer.kind=muon"],
        ["cluster={samplers: 1, gpus_per_process: 0.3}"],
    ],
)
def test_what_goes_together_passes(overrides: list[str]) -> None:
    assert validation_errors(read(*overrides)) == []


@pytest.mark.parametrize(
    ("zero", "message"),
    [
        ("{stage: 0, offload_optimizer: cpu}", "offload_optimizer needs stage 1, 2 or 3"),
        ("{stage: 2, offload_parameters: cpu}", "offload_parameters needs stage 3"),
        ("{stage: 3, offload_optimizer: nvme}", "offload to nvme needs an `nvme_path`"),
        ("{stage: 3, offload_parameters: nvme}", "offload to nvme needs an `nvme_path`"),
        ("{stage: 2, offload_optimizer: nvme, nvme_path: /fast}", "offload to nvme needs stage 3"),
        ("{stage: 4}", "learn.zero.stage: Input should be 0, 1, 2 or 3 (got 4)"),
        (
            "{persist_below: -1}",
            "learn.zero.persist_below: Input should be greater than or equal to 0 (got -1)",
        ),
    ],
)
def test_offload_asks_for_a_stage_and_a_place(zero: str, message: str) -> None:
    (fault,) = faults("cluster={}", f"learn.zero={zero}")
    assert message in fault


@pytest.mark.parametrize(
    "zero",
    [
        Zero(stage=1, offload_optimizer="cpu"),
        Zero(stage=3, offload_optimizer="cpu", offload_parameters="cpu"),
        Zero(stage=3, offload_parameters="nvme", nvme_path="/fast"),
    ],
)
def test_what_can_be_offloaded(zero: Zero) -> None:
    text = (
        f"stage: {zero.stage}, offload_optimizer: {zero.offload_optimizer}, "
        f"offload_parameters: {zero.offload_parameters}"
    )
    assert (
        read("cluster={}", f"learn.zero={{{text}, nvme_path: {zero.nvme_path or '~'}}}").learn.zero
        == zero
    )


@pytest.mark.parametrize(
    "key",
    ["learners=0", "samplers=-1", "overlap=2", "max_restarts=-1", "deadline_s=0", "placement=here"],
)
def test_bounds_of_a_cluster(key: str) -> None:
    (fault,) = faults(f"cluster.{key}")
    assert fault.startswith(f"cluster.{key.partition('=')[0]}: Input should be")


def test_a_cluster_is_one_learner_unless_it_says_more() -> None:
    assert read("cluster={}").cluster == Cluster(
        learners=1, samplers=0, teachers=0, graders=0, overlap=0
    )
