"""Inputs of layers in main memory: the same gradients, and fewer bytes kept for backward."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from jaxtyping import Int
from torch import Tensor
from torch.autograd import graph

from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.algo.objectives import Nll
from reasontrain.data.micro_batches import MicroBatch
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.policy_module import HeadComputation
from reasontrain.recipe import LearnSettings
from tests.peak_bytes import PeakBytes
from tests.tiny import SIZES, batch, policy


class Elsewhere(graph.saved_tensors_hooks):
    """Main memory as a GPU sees it: saved tensors are no tensors of the device any more."""

    def __init__(self, *, pin_memory: bool) -> None:
        assert not pin_memory, "nothing is pinned on a CPU"
        super().__init__(
            lambda tensor: tensor.numpy(force=True).copy(), lambda saved: torch.from_numpy(saved)
        )


def gradient(*, offload: bool) -> tuple[dict[str, Tensor], int, int]:
    """Gradients of a batch, bytes alive between forward and backward, and tokens of the forward."""
    used = compose_learner(
        policy(checkpointing=True),
        LearnSettings(lr=0.1, rollouts_per_step=6, activation_offload=offload),
        steps=1,
    )
    forward = used.engine.forward
    kept: list[tuple[int, int]] = []

    def watched(
        micro: MicroBatch, position_N: Int[Tensor, " N"], compute: HeadComputation
    ) -> Mapping[str, Tensor]:
        with PeakBytes() as count:
            result = forward(micro, position_N, compute)
        kept.append((count.alive, micro.ids_RT.numel()))
        return result

    used.engine.forward = watched  # type: ignore[method-assign]
    data = batch()
    used.gradient(data, data.is_response_BT.float(), Nll(), LOSS_AGGREGATIONS["token_mean"])
    named = used.policy.model.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}, *kept[0]


def test_gradients_do_not_change_and_no_layer_input_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, kept, tokens = gradient(offload=False)
    here, _, _ = gradient(offload=True)  # on a CPU nothing moves
    monkeypatch.setattr(graph, "save_on_cpu", Elsewhere)
    moved, fewer, _ = gradient(offload=True)
    inputs = SIZES["num_hidden_layers"] * tokens * SIZES["hidden_size"] * 4
    assert fewer <= kept - inputs
    for name, value in expected.items():
        assert torch.equal(here[name], value), name
        assert torch.equal(moved[name], value), name
