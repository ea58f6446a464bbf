"""Products with an output matrix in half precision, which a CPU casts panel by panel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from reasontrain.vocab import head as heads
from reasontrain.vocab.head import Head, HeadGradient, add_matmul, matmul, matmul_transposed

POSITIONS, WIDTH, IDS = 5, 12, 50


@pytest.fixture(autouse=True)
def small_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Panels of seven rows, so that the last has one."""
    monkeypatch.setattr(heads, "PANEL_FLOATS", 7 * WIDTH)


class Casts(TorchDispatchMode):
    """Values that were cast out of half precision at once, at most."""

    largest = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("_to_copy", "copy_"):
            source = args[1] if func.overloadpacket.__name__ == "copy_" else args[0]
            if source.dtype == torch.bfloat16 and result.dtype != torch.bfloat16:
                self.largest = max(self.largest, source.numel())
        return result


def drawn(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_products_are_those_of_the_weight_cast_whole(dtype: torch.dtype) -> None:
    weight_VD, hidden_ND = drawn(IDS, WIDTH, dtype=dtype), drawn(POSITIONS, WIDTH)
    gradient_NV = drawn(POSITIONS, IDS, dtype=torch.float32)
    whole_VD = weight_VD.float()
    out_NV = torch.full((POSITIONS, IDS), torch.nan)
    assert_close(matmul_transposed(hidden_ND, weight_VD), hidden_ND.float() @ whole_VD.t())
    assert matmul_transposed(hidden_ND, weight_VD, out_NV) is out_NV
    assert_close(out_NV, hidden_ND.float() @ whole_VD.t())
    assert_close(matmul(gradient_NV, weight_VD), gradient_NV @ whole_VD)
    total_ND = torch.full((POSITIONS, WIDTH), torch.nan)
    add_matmul(total_ND, gradient_NV, weight_VD, first=True)
    assert_close(total_ND, gradient_NV @ whole_VD)
    add_matmul(total_ND, gradient_NV, weight_VD)
    assert_close(total_ND, 2 * (gradient_NV @ whole_VD))


def test_a_head_never_casts_its_weight_whole() -> None:
    head = Head(drawn(IDS, WIDTH), bias_V=drawn(IDS, dtype=torch.float32))
    hidden_ND = drawn(POSITIONS, WIDTH)
    gradient = HeadGradient(hidden_ND, head, hidden=True, weight=False, bias=False)
    with Casts() as casts:
        logits_NV = head.project(hidden_ND)
        head.project(hidden_ND, logits_NV)
        head.logits(hidden_ND[:1])
        gradient.add(slice(0, POSITIONS), hidden_ND, logits_NV)
    assert 0 < casts.largest <= heads.PANEL_FLOATS


def test_a_weight_in_float32_is_not_copied() -> None:
    head = Head(drawn(IDS, WIDTH, dtype=torch.float32))
    hidden_ND = drawn(POSITIONS, WIDTH)
    with Casts() as casts:
        head.project(hidden_ND)
    assert casts.largest == hidden_ND.numel()
