"""Which of the ways to compute the vocabulary is taken, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from reasontrain.types import UserError
from reasontrain.vocab import Head, Vocabulary, backend, check_vocabulary, measure

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _ask_again() -> Iterator[None]:
    """What is found of a device is kept; other tests must not see what these made up."""
    yield
    backend._build_error.cache_clear()
    backend._auto_uses_triton.cache_clear()


def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="Triton is for Linux")
    monkeypatch.setattr("reasontrain.vocab.triton_kernels.INTERPRETED", False)


@pytest.mark.parametrize("vocabulary", ["auto", "torch", "full_logits"])
def test_what_runs_anywhere_is_never_refused(vocabulary: Vocabulary) -> None:
    check_vocabulary(vocabulary, CPU)
    assert not backend.uses_triton(vocabulary, CPU)


def test_triton_is_refused_away_from_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(monkeypatch)
    with pytest.raises(
        UserError,
        match=r"^model\.vocabulary is triton, and the model is not on a GPU; use auto, torch or "
        r"full_logits$",
    ):
        check_vocabulary("triton", CPU)
    head = Head(torch.zeros(3, 2), vocabulary="triton")
    with pytest.raises(UserError, match="not on a GPU"):
        measure(torch.zeros(1, 2), head, torch.zeros(1, dtype=torch.long), ["logp"])


def test_triton_is_refused_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match="the package triton is not installed; use auto, torch or full_logits"
    ):
        check_vocabulary("triton", torch.device("cuda"))
    assert not backend.uses_triton("auto", torch.device("cuda", 3))  # nor is it missed


def test_a_gpu_takes_kernels_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(monkeypatch)
    monkeypatch.setattr(backend, "_build_error", lambda device: None)
    gpu = torch.device("cuda", 1)
    assert [
        backend.uses_triton(name, gpu) for name in ("auto", "torch", "triton", "full_logits")
    ] == [True, False, True, False]


def test_a_gpu_that_cannot_build_kernels_falls_back_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled(monkeypatch)
    monkeypatch.setattr(
        backend,
        "_build_error",
        lambda device: "kernels cannot be built (RuntimeError: no C compiler)",
    )
    gpu = torch.device("cuda", 2)
    with pytest.warns(UserWarning, match="no C compiler"):
        assert not backend.uses_triton("auto", gpu)
    with pytest.raises(
        UserError, match=r"model\.vocabulary is triton, and kernels cannot be built"
    ):
        check_vocabulary("triton", gpu)


def test_why_a_kernel_cannot_be_built_is_read_from_what_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("triton", reason="Triton is for Linux")

    def fail(self: object, name: str) -> None:
        raise RuntimeError("Failed to find C compiler.\nmore")

    monkeypatch.setattr("reasontrain.vocab.triton_backend.TritonDistribution.value", fail)
    assert (
        backend._build_error(CPU)
        == "kernels cannot be built (RuntimeError: Failed to find C compiler.)"
    )
