"""Findings of the doctor: right where nothing is wrong, and broken where something is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from torch import Tensor

from reasontrain.cli import main
from reasontrain.doctor import Finding, examination, installation, kernels, machine, runs
from reasontrain.types import Stats, UserError

CPU = torch.device("cpu")


def statuses(findings: Iterator[Finding]) -> dict[str, str]:
    return {finding.name: finding.status for finding in findings}


# ---- packages


def test_this_environment_is_within_range() -> None:
    assert statuses(installation.packages(CPU)) == {"Python": "ok", "packages": "ok"}


@pytest.mark.parametrize(
    ("version", "text"),
    [("2.1", "numpy 2.1 is outside <3,>=2.2"), (None, "numpy is missing"), ("3.0", "numpy 3.0")],
)
def test_a_package_outside_its_range_is_named(version: str | None, text: str) -> None:
    needed = [Requirement("numpy>=2.2,<3"), Requirement("torch>=2.11,<2.14")]
    finding = installation.of_dependencies(needed, {"numpy": version, "torch": "2.13.0+cpu"})
    assert finding.status == "broken"
    assert text in finding.detail
    assert "torch" not in finding.detail
    assert "constraints.txt" in finding.mend


def test_python_outside_its_range_is_broken() -> None:
    assert installation.of_python("3.14.1", ">=3.11,<3.14").status == "broken"
    assert installation.of_python("3.12.1", ">=3.11,<3.14").status == "ok"


# ---- the machine


def test_a_driver_without_visible_gpus_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: "nvidia" not in str(path) and exists(path))
    assert statuses(machine.devices(CPU)) == {"GPUs": "absent"}
    monkeypatch.setattr(Path, "exists", lambda path: True)
    (finding,) = machine.devices(CPU)
    assert (finding.status, "torch for CUDA" in finding.mend) == ("broken", True)


@pytest.mark.parametrize(
    ("policy", "num", "status"),
    [("PASSIVE", 1, "ok"), ("ACTIVE", 1, "slow"), ("PASSIVE", 99, "slow")],
)
def test_threads_that_spin_or_are_too_many_are_slow(
    policy: str, num: int, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    monkeypatch.setattr(torch, "get_num_threads", lambda: num)
    assert statuses(machine.threads(CPU)) == {"threads": status}


def test_little_disk_and_shared_memory_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = machine.shutil.disk_usage("/")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    found = {finding.name: finding for finding in machine.memory(CPU)}
    assert found["main memory"].status == "ok"
    assert found["/dev/shm"].status == "slow"
    assert all(finding.mend for name, finding in found.items() if name != "main memory")


def test_slurm_without_commands_or_a_controller_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert statuses(machine.slurm(CPU)) == {"Slurm": "absent"}
    for name, text in (("sbatch", "echo slurm 24.05"), ("sinfo", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (finding,) = machine.slurm(CPU)
    assert (finding.status, finding.detail) == (
        "absent",
        "slurm 24.05; no controller answers sinfo",
    )
    (tmp_path / "sinfo").write_text("#!/bin/sh\necho 2 nodes idle\n")
    (finding,) = machine.slurm(CPU)
    assert (finding.status, finding.detail) == ("ok", "slurm 24.05; 2 nodes idle")


# ---- kernels


def test_kernels_are_right_here() -> None:
    assert statuses(kernels.attention(CPU)) == {"attention": "ok"}
    assert statuses(kernels.vocabulary(CPU)) == {"vocabulary": "ok"}


def test_a_wrong_attention_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.scaled_dot_product_attention
    monkeypatch.setattr(
        kernels, "scaled_dot_product_attention", lambda q, k, v, **rest: right(q, k, v)
    )
    assert statuses(kernels.attention(CPU)) == {"attention": "broken"}


def test_a_gradient_that_is_not_finite_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args: [g * torch.nan for g in grad(*args)])
    (finding,) = kernels.attention(CPU)
    assert (finding.status, "not finite" in finding.detail) == ("broken", True)


def test_wrong_statistics_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    measure: Callable[..., dict[str, Tensor]] = kernels.measure
    monkeypatch.setattr(
        kernels,
        "measure",
        lambda hidden, head, *rest, **named: {
            name: value + (head.vocabulary == "auto") * 1e-3
            for name, value in measure(hidden, head, *rest, **named).items()
        },
    )
    assert statuses(kernels.vocabulary(CPU)) == {"vocabulary": "broken"}


# ---- runs


def test_a_step_without_a_gradient_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    with runs._folder() as folder:
        assert runs._step("sstoken", folder, CPU).status == "ok"
        stats: Stats = {"loss": 0.0, "grad_norm": 0.0}

        class Context:
            def __enter__(self) -> Context:
                return self

            def __exit__(self, *error: object) -> None:
                pass

            def run(self, report: Callable[[int, Stats], None]) -> None:
                report(1, stats)

        monkeypatch.setattr(runs, "run_context", lambda *args, **named: Context())
        assert runs._step("sstoken", folder, CPU).status == "broken"


# ---- the whole


def test_an_error_is_a_finding_and_the_next_check_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(device: torch.device) -> Iterator[Finding]:
        yield Finding(name="first", status="ok", detail="as it should be")
        raise UserError("the second part cannot run")

    def failed(device: torch.device) -> Iterator[Finding]:
        raise ZeroDivisionError("two\nlines")
        yield

    def fine(device: torch.device) -> Iterator[Finding]:
        yield Finding(name="last", status="ok", detail=str(device))

    checks = (("refused", refused), ("failed", failed), ("fine", fine))
    monkeypatch.setattr(examination, "CHECKS", checks)
    path = tmp_path / "doctor.json"
    assert main(["doctor", "--out", str(path)]) == 1
    captured = capsys.readouterr()
    assert [line.split()[:2] for line in captured.out.splitlines()] == [
        ["ok", "first"],
        ["broken", "refused"],
        ["broken", "failed"],
        ["ok", "last"],
    ]
    assert "ZeroDivisionError: two lines" in captured.out
    assert "broken: refused, failed" in captured.err
    assert [found["name"] for found in json.loads(path.read_text())] == [
        *("first", "refused", "failed", "last")
    ]
    monkeypatch.setattr(examination, "CHECKS", checks[-1:])
    assert main(["doctor"]) == 0
    if not torch.cuda.is_available():
        assert main(["doctor", "--gpu"]) == 1
