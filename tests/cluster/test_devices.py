"""A process uses the device that its models lie on, whatever GPUs the machine has."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import ray
import torch
from ray.util.placement_group import PlacementGroup

from reasontrain.cluster import remote_teacher
from reasontrain.cluster.actors import engine_of, transfer_device
from reasontrain.cluster.group import Slot, actor_environment
from reasontrain.cluster.remote_teacher import RemoteTeacher
from reasontrain.learner import distributed
from reasontrain.learner.deepspeed_settings import configuration
from reasontrain.learner.distributed import RankAddress
from reasontrain.recipe import LearnSettings, Recipe, VllmEngine, Zero, apply_overrides, build
from tests.tiny import policy

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)
NO_GROUP = PlacementGroup.empty()


@pytest.fixture(autouse=True)
def _machine_with_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_only_settings_that_leave_it_open_ask_what_the_machine_has() -> None:
    """Elsewhere a CPU recipe on a machine with GPUs would be answered wrongly."""
    asking = {
        path.relative_to(ROOT / "reasontrain").as_posix()
        for path in (ROOT / "reasontrain").rglob("*.py")
        if "cuda.is_available()" in path.read_text(encoding="utf-8")
    }
    assert asking == {
        "cli/bench.py",  # --device
        "cli/doctor.py",  # the device to try
        "doctor/machine.py",  # which GPUs there are
        "models/loading.py",  # model.device: auto
        "models/quiet.py",  # a warning of DeepSpeed's where there is no GPU
        "sampler/vllm_engine.py",  # the build of vLLM for model.device: auto
        "stages/unconditional.py",  # memory to give back
    }


@pytest.mark.parametrize(("device", "backend"), [(CPU, "gloo"), (GPU, "nccl")])
def test_ranks_are_joined_by_the_backend_of_their_models(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, backend: str
) -> None:
    calls: list[tuple[str, torch.device | None]] = []
    monkeypatch.setattr(distributed, "open_store", lambda *_, **__: None)
    monkeypatch.setattr(
        distributed.dist,
        "init_process_group",
        lambda name, *, device_id, **_: calls.append((name, device_id)),
    )
    monkeypatch.setattr(distributed.os, "environ", {})
    distributed.join(RankAddress(1, 2, "127.0.0.1:4"), device)
    assert calls == [(backend, GPU if device.type == "cuda" else None)]
    assert distributed.os.environ["DS_ACCELERATOR"] == device.type


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize(("device", "gpu"), [(CPU, False), (GPU, True)])
def test_memory_is_pinned_only_for_gpus(stage: int, device: torch.device, gpu: bool) -> None:
    settings = LearnSettings(lr=1.0, rollouts_per_step=1)
    zero = Zero(stage=stage, offload_optimizer="cpu")
    chosen = configuration(zero, settings, bf16=False, device=device)["zero_optimization"]
    assert chosen["overlap_comm"] == (gpu and stage > 1)
    pinned = [part["pin_memory"] for part in chosen.values() if isinstance(part, dict)]
    assert pinned == [gpu] * (2 if stage == 3 else 1)


def test_a_remote_teachers_head_lies_with_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    head = policy().head
    monkeypatch.setattr(remote_teacher.ray, "get", lambda ref: ref)
    actor = Mock(spec=ray.actor.ActorHandle)
    actor.head = SimpleNamespace(remote=lambda: head)
    with RemoteTeacher(actor, CPU).head() as copy:
        assert copy.weight_VD.device == CPU


@pytest.mark.parametrize("gpus", [0.0, 0.5, 4.0])
def test_a_process_without_gpus_sees_none(gpus: float) -> None:
    environment = actor_environment(Slot(NO_GROUP, 0, cpus=1.0, gpus=gpus, threads=1))
    if gpus:  # Ray names those that it gives
        assert "CUDA_VISIBLE_DEVICES" not in environment
        assert environment["DS_ACCELERATOR"] == "cuda"
    else:
        assert environment["CUDA_VISIBLE_DEVICES"] == ""
        assert environment["DS_ACCELERATOR"] == "cpu"


def test_a_process_has_the_threads_of_its_place_unless_the_driver_names_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slot = Slot(NO_GROUP, 0, cpus=1.0, gpus=1.0, threads=12)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert actor_environment(slot)["OMP_NUM_THREADS"] == "12"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert actor_environment(slot)["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_segments_expand_on_gpus_unless_an_engine_opens_them_or_the_user_has_settings(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    gpu, cpu = (Slot(NO_GROUP, 0, cpus=1.0, gpus=gpus, threads=1) for gpus in (1.0, 0.0))
    expanding = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    assert expanding.items() <= actor_environment(gpu).items()
    assert expanding.keys().isdisjoint(actor_environment(cpu))
    assert expanding.keys().isdisjoint(actor_environment(gpu, exports_memory=True))
    monkeypatch.setenv(name, "max_split_size_mb:512")
    assert expanding.keys().isdisjoint(actor_environment(gpu))


def shared(*overrides: str) -> Recipe:
    content = {
        "name": "shared",
        "steps": 1,
        "model": {"path": "testbed:student"},
        "task": {"kind": "arithmetic"},
        "objective": {"kind": "grpo"},
        "advantage": {"kind": "group_normalized"},
        "loss_aggregation": "token_mean",
        "sample": {"group_size": 2, "engine": {"kind": "vllm"}},
        "learn": {"lr": 1e-3, "rollouts_per_step": 8},
        "cluster": {"samplers": 1},
    }
    return build(Recipe, apply_overrides(content, list(overrides)), "shared")


def test_processes_that_share_a_gpu_send_weights_through_main_memory() -> None:
    assert transfer_device(shared(), GPU) == GPU
    assert transfer_device(shared(), CPU) == CPU
    assert transfer_device(shared("cluster.gpus_per_process=0.5"), GPU) == CPU


@pytest.mark.parametrize(
    ("overrides", "device", "utilization"),
    [
        ([], GPU, 0.9),
        (["cluster.gpus_per_process=0.5"], GPU, 0.45),
        (["cluster={samplers: 0, gpus_per_process: 0.5}"], GPU, 0.225),
        (
            ["cluster.gpus_per_process=0.5", "sample.engine.gpu_memory_utilization=0.3"],
            GPU,
            0.3,  # of the whole GPU, as the user has set it
        ),
        (["cluster.gpus_per_process=0.5"], CPU, None),
    ],
)
def test_an_engine_takes_its_part_of_the_memory(
    overrides: list[str], device: torch.device, utilization: float | None
) -> None:
    engine = engine_of(shared(*overrides), device)
    assert isinstance(engine, VllmEngine)
    assert engine.gpu_memory_utilization == utilization


@pytest.mark.parametrize("target", ["test", "integration", "release-check"])
def test_tests_of_ranks_see_no_gpu_and_those_of_a_gpu_do(target: str) -> None:
    def commands(name: str) -> list[str]:
        made = subprocess.run(
            ["make", "--dry-run", name], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return [line.strip() for line in made.stdout.splitlines() if "/pytest" in line]

    on_cpu = commands(target)
    assert on_cpu
    assert all(line.startswith("CUDA_VISIBLE_DEVICES= ") for line in on_cpu)
    (on_gpu,) = commands("test-gpu")
    assert "CUDA_VISIBLE_DEVICES" not in on_gpu
    assert on_gpu.split("/pytest")[1].strip() == "-m gpu"
