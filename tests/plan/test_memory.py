"""State as ZeRO divides it, by the figure of its paper; and what else a process holds, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasontrain.plan.machine import GIB, Machine, MemoryPart
from reasontrain.plan.memory import roles
from reasontrain.plan.roles import PlannedJob
from reasontrain.plan.shape import num_parameters
from reasontrain.plan.suggestions import remedy
from tests.plan.jobs import QWEN3_4B, job, shape

PARAMETERS = 4_022_468_096
TABLE = 151936 * 2560


def parts(given: PlannedJob, role: str = "learner") -> dict[str, MemoryPart]:
    (found,) = (found for found in roles(given) if found.name == role)
    return {part.name: part for part in found.parts}


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_zero_divides_as_in_figure_1_of_its_paper(stage: int, gigabytes: float) -> None:
    # arXiv 1910.02054, figure 1: 7.5 billion parameters, 64 ranks, Adam in mixed precision: 2 + 2 +
    # 12 bytes each
    found = parts(job("cluster.learners=64", f"learn.zero.stage={stage}"))
    state = sum(found[name].most for name in ("weights", "gradients", "optimiser"))
    assert round(state * 7.5 / PARAMETERS, 1) == gigabytes


def test_the_plain_learner_keeps_float32() -> None:
    found = parts(job())
    assert found["weights"].most == found["gradients"].most == 4 * PARAMETERS
    assert found["optimiser"].most == 8 * PARAMETERS
    assert found["weights in bfloat16"].held["sample"] == 2 * 36 * 100_925_440


def test_muon_keeps_one_moment_of_the_matrices() -> None:
    assert (
        parts(job("learn.optimizer={kind: muon}"))["optimiser"].most
        == 8 * PARAMETERS - 4 * 36 * 100_925_440
    )


def test_adapters_alone_have_gradients_and_moments() -> None:
    found = parts(job("model.lora={rank: 16}"))
    # rank 16 x (q 6656, k and v 3584 each, o 6656, gate, up and down 12288 each) x 36 layers
    adapters = 36 * 16 * (6656 + 2 * 3584 + 6656 + 3 * 12288)
    assert found["weights"].most == 2 * PARAMETERS + 4 * adapters  # the base is frozen
    assert (found["gradients"].most, found["optimiser"].most) == (4 * adapters, 8 * adapters)
    assert "head's gradient dW" not in found


def test_the_heads_gradient_is_counted_once_more_when_tied() -> None:
    tied, untied = parts(job()), parts(job("model.shape.tied=false"))
    assert tied["head's gradient dW"].held == {
        "loss": 4 * TABLE,
        "backward": 4 * TABLE,
        "gradients": 4 * TABLE,
    }
    assert untied["head's gradient dW"].held["gradients"] == 0


def test_the_cache_of_all_rows() -> None:
    # 36 layers x 256 rows x (512 + 1536) columns x keys and values x 8 heads x 128 x 2 bytes
    assert parts(job())["key-value cache"].most == 36 * 256 * 2048 * 2 * 8 * 128 * 2 == 72 * GIB
    assert (
        parts(job("sample.engine={kind: local, max_num_seqs: 64}"))["key-value cache"].most
        == 18 * GIB
    )


def test_checkpointing_keeps_the_inputs_of_layers() -> None:
    kept, whole = (
        parts(job(f"model.gradient_checkpointing={on}"))["activations"].most
        for on in ("true", "false")
    )
    tokens = 8 * 2048
    # of the residual stream in float32, 36 layers; then ids, rotary tables in float32, and the last
    # norm
    assert kept == tokens * (36 * 4 * 2560 + 8 + 2 * 4 * 128 + 8 * 2560 + 4)
    assert whole > 8 * kept


def test_separate_samplers_and_teachers_take_their_parts_along() -> None:
    distil = (
        "objective={kind: distill}",
        "advantage={kind: none}",
        "teacher={path: testbed:teacher}",
        "token_selection={kind: tip}",
    )
    together = parts(job(*distil))
    apart = job(*distil, "cluster.samplers=2", "cluster.teachers=1")
    assert {"key-value cache", "teacher"} <= together.keys()
    assert not {"key-value cache", "teacher"} & parts(apart).keys()
    assert parts(apart, "sampler")["weights"].most == 2 * PARAMETERS
    assert parts(apart)["teacher's head"].most == 4 * 512 * 128


def test_what_is_offloaded_is_not_on_the_device() -> None:
    zero = ("cluster.learners=2", "learn.zero.stage=3")
    (here,), (away,) = (
        roles(job(*zero, f"learn.zero.offload_optimizer={place}")) for place in ("none", "cpu")
    )
    assert away.host == 6 * PARAMETERS
    assert here.peak - away.peak == away.host
    assert here.host == 4 * GIB + 4 * TABLE  # the embeddings, from the file and in bfloat16


LLAMA_70B = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_layers": 80,
    "num_heads": 64,
    "num_kv_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "tied": False,
}


def test_eight_ranks_read_a_model_of_70_billion_parameters() -> None:
    given = job(f"model.shape={json.dumps(LLAMA_70B)}", "cluster.learners=8", "learn.zero.stage=3")
    (rank,) = roles(given)
    total = num_parameters(shape(LLAMA_70B))
    assert round(total / 1e9, 1) == 70.6
    table = 128256 * 8192
    # its part, and while the model is tried embeddings, head and one matrix of 8192 x 28672
    assert rank.total("load") == GIB + total * 2 // 8 + 2 * (2 * table + 8192 * 28672)
    assert rank.host == 4 * GIB + 4 * table  # one tensor, from the file and in bfloat16
    assert 8 * rank.host < 400e9


def test_several_teachers_lie_beside_each_other() -> None:
    small, large = ({**QWEN3_4B, "hidden_size": size} for size in (1024, 4096))
    teachers = [
        {"path": "x", "dtype": "bfloat16", "shape": small, "value": "a"},
        {"path": "y", "dtype": "bfloat16", "shape": large, "value": "b"},
    ]
    distil = ("objective={kind: distill}", "advantage={kind: none}", "token_selection={kind: tip}")
    chosen = {"kind": "by_column", "column": "domain", "teachers": teachers}
    found = parts(job(*distil, f"teacher={json.dumps(chosen)}"))
    for number, sizes in enumerate((small, large), 1):
        assert found[f"teacher {number}"].most == 2 * num_parameters(shape(sizes))
    for each in teachers:
        del each["value"]
    mixture = job(*distil, f"teacher={json.dumps({'kind': 'mixed', 'teachers': teachers})}")
    # Of a choice the states of the widest, at every response token; of a mixture those of both.
    states = found["teacher's states"].most
    assert parts(mixture)["teacher's states"].most * 4096 == states * (1024 + 4096)
    assert found["teacher 2"].most == parts(mixture)["teacher 2"].most


def test_a_teacher_is_divided_before_the_policy_is_read() -> None:
    distil = (
        "objective={kind: distill}",
        "advantage={kind: none}",
        f"teacher={json.dumps({'path': 'nobody/large', 'dtype': 'bfloat16', 'shape': LLAMA_70B})}",
        f"model.shape={json.dumps(LLAMA_70B | {'num_layers': 16})}",
        "cluster.learners=8",
    )
    teacher = num_parameters(shape(LLAMA_70B))
    student = num_parameters(shape(LLAMA_70B | {"num_layers": 16}))
    ends = 2 * (2 * 128256 * 8192 + 8192 * 28672)
    for zero, held in (
        ("{stage: 3, frozen: sharded}", 2 * teacher // 8 + 2 * student // 8 + ends),
        ("{stage: 3}", 2 * teacher + 2 * student // 8 + ends),
        ("{stage: 2}", 2 * teacher + 2 * student),
        ("{stage: 0}", 2 * teacher + 4 * student),
    ):
        (rank,) = roles(job(*distil, f"learn.zero={zero}"))
        assert rank.total("load") == GIB + held, zero


def test_a_model_that_is_an_adapter_is_merged_in_float32(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    plain, merged = (parts(job(f"model.path={path}")) for path in ("nobody/nothing", tmp_path))
    name = "weights while they are read"
    assert name not in plain
    assert merged[name].held == {"load": 4 * PARAMETERS}


VLLM = "sample.engine={kind: vllm}"


def test_vllm_takes_its_share_and_nothing_of_what_our_own_loop_takes() -> None:
    found = parts(job(VLLM, "cluster={}"))
    assert found["vLLM's share"].held["sample"] == int(0.45 * 80 * GIB)
    assert found["vLLM's share"].held["backward"] == GIB  # asleep
    assert not {"key-value cache", "decoding"} & found.keys()
    assert found["weights in bfloat16"].held["sample"] == 0


def test_an_engine_of_its_own_has_a_buffer_beside_its_share() -> None:
    found = parts(job(VLLM, "cluster={samplers: 2}"), "sampler")
    assert found["vLLM's share"].most == int(0.9 * 80 * GIB)
    assert found["buffer for new weights"].most == 2 * TABLE  # of the largest tensor
    assert found.keys() == {"process", "vLLM's share", "buffer for new weights"}


def test_a_share_that_cannot_hold_the_weights_does_not_fit() -> None:
    # 2 bytes each of 4,022,468,096 weights and 36 layers x 2048 columns x keys and values x 8 heads
    # x 128, over two GPUs
    least = 2 * (PARAMETERS + 36 * 2048 * 2 * 1024) // 2
    engine = "sample.engine={kind: vllm, tensor_parallel_size: 2, gpu_memory_utilization: 0.5}"
    fitting, short = (
        parts(
            job(engine, "cluster={samplers: 1}", machine=Machine(memory_gib=2 * size / GIB)),
            "sampler",
        )["vLLM's share"].most
        for size in (least + 2, least - 2)
    )
    assert abs(fitting - least) <= 2
    assert short == 2 * least


SSTOKEN = (
    "objective={kind: nll}",
    "advantage={kind: none}",
    "sample=null",
    "token_selection={kind: sstoken}",
)


@pytest.mark.parametrize(
    ("overrides", "size"),
    [
        ((), 4 * PARAMETERS),  # float32 under autocast, as the policy it is compared with
        (("history={kind: ema}",), 4 * PARAMETERS),
        (("history={kind: checkpoint, path: nobody/earlier}",), 4 * PARAMETERS),
        (("cluster.learners=2", "learn.zero.stage=3"), 2 * PARAMETERS),
        (("cluster.learners=2", "learn.zero.stage=0"), 4 * PARAMETERS),
        (("cluster.learners=2", "learn.zero={stage: 3, frozen: sharded}"), PARAMETERS),
        (("cluster.learners=2", "learn.zero.stage=3", "history={kind: ema}"), 4 * PARAMETERS),
    ],
    ids=["start", "ema", "checkpoint", "ZeRO-3", "ZeRO-0", "sharded", "ema under ZeRO-3"],
)
def test_a_history_is_one_more_model(overrides: tuple[str, ...], size: int) -> None:
    assert parts(job(*SSTOKEN, *overrides))["history"].most == size
    assert job(*SSTOKEN, *overrides).passes == 1


def test_adapters_that_are_switched_off_cost_a_forward_and_no_memory() -> None:
    lora = job(*SSTOKEN, "model.lora={rank: 16}")
    assert "history" not in parts(lora)
    assert lora.passes == 2
    assert "history" in parts(job(*SSTOKEN, "model.lora={rank: 16}", "history={kind: ema}"))
    assert "history" not in parts(job(*SSTOKEN, "token_selection={kind: sstoken, gamma: 0}"))


def test_a_moving_average_is_never_advised_to_be_sharded() -> None:
    small = Machine(memory_gib=20.0)
    for history, advised in (("{kind: start}", True), ("{kind: ema}", False)):
        given = job(
            *SSTOKEN,
            "cluster.learners=2",
            "learn.zero.stage=3",
            f"history={history}",
            machine=small,
        )
        assert given.shardable is advised
        found = remedy(given)
        assert ("learn.zero.frozen=sharded" in (found.overrides if found else ())) is advised
