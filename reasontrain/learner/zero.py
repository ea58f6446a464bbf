"""The learner of many ranks: DeepSpeed's engine around the scorer, its averaging undone, everything
else as in `local`.
"""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import ClassVar

import torch

if not torch.cuda.is_available():
    os.environ.setdefault(
        "DS_ACCELERATOR", "cpu"
    )  # said before the import, or DeepSpeed warns that it had to guess

import deepspeed
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from reasontrain.data.micro_batches import (
    MicroBatch,
    atomic_units,
    pack_micro_batches,
    shard_across_ranks,
    unit_rollouts,
)
from reasontrain.learner import weight_export
from reasontrain.learner.local import LocalLearner
from reasontrain.learner.lora import is_adapted
from reasontrain.learner.optimizer import adamw
from reasontrain.learner.policy_module import HeadComputation, PolicyModule
from reasontrain.models import Policy
from reasontrain.recipe import LearnSettings, Zero
from reasontrain.types import Batch, UserError
from reasontrain.vocab import Head

STATE, TAG, ABOUT = "deepspeed", "ranks", "ranks.json"
logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
warnings.filterwarnings(
    "ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning
)  # DeepSpeed's calls, one a layer
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = (
    False  # would be compiled at first use; gloo does without it
)


class ZeroLearner(LocalLearner):
    """One rank of a learner.

    All ranks are given the same calls with the same whole batch; each works on its share.

    `observe` and `step` answer the same on every rank. `join` (see `ranks`) comes first.
    """

    single_process: ClassVar[bool] = False

    def prepare(self) -> None:
        """Wrap the scorer in an engine; the optimiser's state is made by it, in the ranks' parts."""
        assert self.settings.zero is not None, "a learner of many ranks has `learn.zero`"
        self.zero = self.settings.zero
        self.rank, self.num_ranks = dist.get_rank(), dist.get_world_size()
        self.optimizer_part = adamw(self.policy.model, self.settings)
        self.peaks = [group["lr"] for group in self.optimizer_part.param_groups]
        # At stage 0 every rank has float32 weights and autocast, as `local` has; else bfloat16
        # ones, and its part of the masters.
        bf16 = self.policy.dtype == torch.bfloat16 and self.zero.stage > 0
        config = configuration(self.zero, self.settings, bf16=bf16)
        with redirect_stdout(
            io.StringIO()
        ):  # its bfloat16 optimiser prints how much memory there is
            self.engine, *_ = deepspeed.initialize(
                model=self.policy_module, optimizer=self.optimizer_part, config=config
            )
        self._norm = torch.zeros(())
        if self.zero.stage == 0:
            self.optimizer_part.register_step_pre_hook(lambda *_: self._clip_whole())

    # ---- what ranks do in another way

    def local_micro_batches(self, batch: Batch) -> list[list[int]]:
        """This rank's micro-batches, filled up with empty ones: every rank runs as many forwards as
        the busiest.
        """
        settings = self.settings
        length_U, size = atomic_units(batch, settings.layout)
        cuts = []
        for units in shard_across_ranks(length_U, self.num_ranks):
            parts = pack_micro_batches(
                length_U[units], settings.micro_batch_tokens, settings.layout
            )
            cuts.append([unit_rollouts([units[i] for i in part], size) for part in parts])
        most = max(1, *map(len, cuts))
        return cuts[self.rank] + [[]] * (most - len(cuts[self.rank]))

    def forward(
        self, micro: MicroBatch, row_N: Int[Tensor, " N"], work: HeadComputation
    ) -> Mapping[str, Tensor]:
        """`work` inside the engine module's forward, where the head is whole."""
        found: Mapping[str, Tensor] = self.engine(micro, row_N, work)
        return found

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Add the gradient of one micro-batch; the engine averages over ranks, and what we want is
        the sum.
        """
        self.engine.backward(loss * self.num_ranks, scale_wrt_gas=False)
        self._went_backward = True

    _went_backward = False

    def update(self, share: float) -> Float[Tensor, ""]:
        """Sum the ranks' gradients, clip and step; the norm, or infinity where the step was
        skipped.
        """
        if not self._went_backward:
            return torch.zeros(())
        self._went_backward = False
        for group, peak in zip(self.optimizer_part.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share
        self.engine.step()
        return (
            self._norm
            if self.zero.stage == 0
            else torch.tensor(float(self.engine.get_global_grad_norm()))
        )

    def _clip_whole(self) -> None:
        """At stage 0 torch's own optimiser steps: clip before it, and leave it no gradient where
        one is not finite.
        """
        self._norm = self.clip()
        if not torch.isfinite(self._norm):
            self.engine.zero_grad()

    def all_reduce_sum(self, numbers: Tensor) -> Tensor:
        """The sum over all ranks."""
        with self.timer("wait"):
            numbers = numbers.to(self.policy.device)
            dist.all_reduce(numbers)
            return numbers.cpu()

    def materialize(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
        """A block in which these parameters are whole on this rank."""
        return materialized(parameters) if self.zero.stage == 3 else nullcontext()

    @contextmanager
    def materialized(self) -> Iterator[None]:
        """All weights whole, in place and without the engine's hooks, which would divide them again
        after each layer.
        """
        if self.zero.stage < 3:
            yield
            return
        offload = self.engine.optimizer.parameter_offload
        with materialized(list(self.policy.model.parameters())):
            for hook in [*offload.forward_hooks, *offload.backward_hooks]:
                hook.remove()
            offload.forward_hooks, offload.backward_hooks = [], []
            for parameter in self.policy_module.parameters():
                vars(parameter)["ds_active_sub_modules"].clear()
            try:
                yield
            finally:
                coordinator = offload.param_coordinator
                if not coordinator.is_invalid_trace():
                    coordinator._invalidate_trace()
                offload._register_deepspeed_module(offload.module)

    # ---- what is kept

    def save(self, directory: Path) -> None:
        """Every rank's part of the state, and from rank 0 the model (or its adapters alone) as
        others load it.
        """
        adapted = is_adapted(self.policy.model)
        self.engine.save_checkpoint(
            str(directory / STATE),
            tag=TAG,
            save_latest=False,
            exclude_frozen_parameters=adapted,
            client_state={},
        )
        weight_export.save_policy(self.policy, directory, self.materialize, writes=self.rank == 0)
        if self.rank == 0:
            about = {
                "num_ranks": self.num_ranks,
                "stage": self.zero.stage,
                "steps_done": self.steps_done,
            }
            about["nonfinite"] = self.nonfinite_in_a_row
            (directory / ABOUT).write_text(json.dumps(about), encoding="utf-8")
            self.history.save(directory)  # every rank has the same
        dist.barrier()

    def restore(self, directory: Path) -> None:
        """Go on from a directory that as many ranks wrote at the same stage; raises UserError for
        another one.
        """
        written = directory / ABOUT
        about = (
            json.loads(written.read_text(encoding="utf-8"))
            if written.exists()
            else {"num_ranks": 0, "stage": 0}
        )
        if (about["num_ranks"], about["stage"]) != (self.num_ranks, self.zero.stage):
            by = (
                f"{about['num_ranks']} ranks at ZeRO stage {about['stage']}"
                if about["num_ranks"]
                else "one process without ZeRO"
            )
            raise UserError(
                f"{directory} was written by {by}, and this run has {self.num_ranks} at "
                f"stage {self.zero.stage}: set "
                "cluster.learners and learn.zero.stage as they were, or begin a new run "
                "with its directory as model.path"
            )
        loaded, _ = self.engine.load_checkpoint(
            str(directory / STATE), tag=TAG, load_module_strict=not is_adapted(self.policy.model)
        )
        assert loaded is not None, f"DeepSpeed found nothing in {directory / STATE}"
        self.steps_done, self.nonfinite_in_a_row = about["steps_done"], about["nonfinite"]
        self.history.restore(directory)

    def export(self, directory: Path) -> None:
        """The model as others load it, written by rank 0."""
        dtype = getattr(torch, self.export_dtype)
        weight_export.save_model(
            self.policy, directory, dtype, self.materialize, writes=self.rank == 0
        )
        dist.barrier()


class ShardedModel:
    """A frozen model whose weights the ranks share, gathered layer by layer (ZeRO stage 3 without
    an optimiser).
    """

    def __init__(self, policy: Policy, zero: Zero, settings: LearnSettings) -> None:
        self.policy, self.policy_module = policy, PolicyModule(policy)
        sharded = Zero(
            offload_parameters=zero.offload_parameters,
            nvme_path=zero.nvme_path,
            persist_below=zero.persist_below,
        )
        config = configuration(sharded, settings, bf16=policy.dtype == torch.bfloat16)
        self.engine, *_ = deepspeed.initialize(model=self.policy_module, config=config)

    @torch.no_grad()
    def hidden(self, micro: MicroBatch, row_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """Hidden states at flat rows; every rank asks for its own at the same time."""
        found: Tensor = self.engine(micro, row_N, lambda hidden_ND, head: {"hidden": hidden_ND})[
            "hidden"
        ]
        return found

    @contextmanager
    def head(self) -> Iterator[Head]:
        """The head, gathered on every rank."""
        linear = self.policy.model.get_output_embeddings()
        with materialized(list(linear.parameters())):
            yield self.policy.head


def materialized(parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
    """These parameters whole on every rank."""
    return deepspeed.zero.GatheredParameters(list(parameters))


def configuration(zero: Zero, settings: LearnSettings, *, bf16: bool) -> dict[str, object]:
    """DeepSpeed's own settings.

    Accumulation is ours: managed by DeepSpeed, two backwards at stage 1 or 2 would be wrong.
    """
    optimization: dict[str, object] = {
        "stage": zero.stage,
        "overlap_comm": zero.stage >= 2 and torch.cuda.is_available(),
        "offload_optimizer": {
            "device": zero.offload_optimizer,
            "nvme_path": zero.nvme_path,
            "pin_memory": torch.cuda.is_available(),
        },
    }
    if zero.stage == 3:
        optimization |= {
            "stage3_param_persistence_threshold": zero.persist_below,
            "offload_param": {
                "device": zero.offload_parameters,
                "nvme_path": zero.nvme_path,
                "pin_memory": torch.cuda.is_available(),
            },
        }
    return {
        "train_micro_batch_size_per_gpu": 1,  # not used: what a micro-batch holds is ours to say
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.0 if zero.stage == 0 else settings.max_grad_norm or 0.0,
        "zero_optimization": optimization,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": bf16, "check_grad_overflow": True},
        "data_types": {
            "grad_accum_dtype": "fp32"
        },  # else bfloat16 micro-batches are summed in eight bits
        "communication_data_type": "fp32",
        "steps_per_print": 1 << 40,
    }
