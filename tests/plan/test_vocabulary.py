"""What whole logits take, as a plan counts it, beside what torch allocates; tensors of N x V."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from reasontrain.algo.objectives import Distill, EntropyAwareDistill, Nll, TokenObjective
from reasontrain.plan.vocabulary import chunks
from reasontrain.types import TokenFields
from reasontrain.vocab import Head, Teacher, fused, measure
from tests.plan.jobs import job

ROWS, WIDTH = 32, 4096
DISTIL = ("advantage={kind: none}", "teacher={path: testbed:teacher}")


class Live(TorchDispatchMode):
    """The most bytes that storages made meanwhile had at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def counted(phase: str, *overrides: str) -> float:
    """Tensors of rows x V in a plan for float32."""
    given = job("model.vocabulary=full_logits", "model.dtype=float32", *overrides)
    assert given.mode == "float32"
    num = 100_000
    return (chunks(given, 2 * num)[phase] - chunks(given, num)[phase]) / (
        4 * num * given.shape.vocab_size
    )


@pytest.mark.parametrize(
    ("objective", "override"),
    [
        (Nll(), "objective={kind: nll}"),
        *(
            (Distill(divergence=name), f"objective={{kind: distill, divergence: {name}}}")
            for name in ("reverse_kl", "forward_kl", "jsd")
        ),
        (EntropyAwareDistill(), "objective={kind: entropy_aware_distill}"),
    ],
)
def test_whole_logits_at_the_loss(objective: TokenObjective, override: str) -> None:
    hidden_ND, weight_VD = (
        torch.randn(ROWS, 2, requires_grad=True),
        torch.randn(WIDTH, 2, requires_grad=True),
    )
    head = Head(weight_VD, softcap=3.0, vocabulary="full_logits")
    teacher = (
        Teacher(torch.randn(ROWS, 2), Head(torch.randn(WIDTH, 2), softcap=3.0))
        if objective.needs_teacher
        else None
    )
    columns = TokenFields(
        ids_N=torch.zeros(ROWS, dtype=torch.long),
        advantage_N=torch.zeros(ROWS),
        evidence={"teacher_entropy": torch.ones(ROWS)},
    )
    with Live() as live:
        fused(
            hidden_ND, head, columns, torch.ones(ROWS), objective, teacher=teacher
        ).loss.backward()
    most = live.most / (4 * ROWS * WIDTH)
    extra = DISTIL if objective.needs_teacher else ()
    assert (
        most - 0.3 < counted("loss", override, *extra) < most + 0.3
    )  # 0.06 for each of the heads' own tensors


@pytest.mark.parametrize(
    ("names", "mode"),
    [
        (["entropy"], None),
        (["entropy", "kl_reverse"], "soft_or"),
        (["compatibility", "disagreement"], "teachability"),
    ],
)
def test_whole_logits_where_evidence_is_measured(names: list[str], mode: str | None) -> None:
    head, hidden_ND = (
        Head(torch.randn(WIDTH, 2), softcap=3.0, vocabulary="full_logits"),
        torch.randn(ROWS, 2),
    )
    teacher = Teacher(hidden_ND, Head(torch.randn(WIDTH, 2), softcap=3.0))
    with Live() as live:
        measure(hidden_ND, head, torch.zeros(ROWS, dtype=torch.long), names, teacher=teacher)
    most = live.most / (4 * ROWS * WIDTH)
    looks = (
        _observed(
            f"token_selection={{kind: tip, mode: {mode}}}", *DISTIL, "objective={kind: distill}"
        )
        if mode is not None
        else _observed("token_selection={kind: top_entropy}")
    )
    assert most - 0.3 < looks < most + 0.3


def _observed(*overrides: str) -> float:
    """Tensors of rows x V while evidence of all response rows is measured."""
    given = job("model.vocabulary=full_logits", "model.dtype=float32", *overrides)
    rows = given.work.rollouts_per_micro_batch * given.work.response_tokens
    return chunks(given, rows)["observe"] / (4 * rows * given.shape.vocab_size)
