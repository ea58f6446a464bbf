"""The engine of many ranks: DeepSpeed's engine around the policy, with its averaging undone."""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path

import torch

if not torch.cuda.is_available():
    # Set before the import: otherwise DeepSpeed warns that it had to guess.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from reasontrain.data.micro_batches import MicroBatch
from reasontrain.learner.engine import Progress
from reasontrain.learner.lora import is_adapted
from reasontrain.learner.optimizer import adamw, clip_gradients
from reasontrain.learner.policy_module import HeadComputation, PolicyModule
from reasontrain.metrics.timing import Stopwatch
from reasontrain.models import Policy
from reasontrain.recipe import LearnSettings, Zero
from reasontrain.types import UserError
from reasontrain.vocab import Head

STATE_DIRECTORY = "deepspeed"
TAG = "ranks"
RANKS_FILE = "ranks.json"
logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
# DeepSpeed itself makes these calls, once per layer.
warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
# DeepSpeed would compile this extension at its first use; gloo works without it.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


class ZeroEngine:
    """One rank of DeepSpeed ZeRO, stages 0 to 3; `distributed.join` comes first."""

    # A rank without a loss in this micro-batch still has to run it: at stage 3 each layer's
    # forward and backward gather the weights from all ranks.
    runs_empty_micro_batches = True

    def __init__(self, policy: Policy, settings: LearnSettings) -> None:
        """Wrap the policy; DeepSpeed creates the optimiser's state, in the ranks' parts."""
        assert settings.zero is not None, "a learner of many ranks has `learn.zero`"
        self.policy = policy
        self.timer = Stopwatch(policy.device)
        self.policy_module = PolicyModule(policy)
        self.zero = settings.zero
        self.rank = dist.get_rank()
        self.num_ranks = dist.get_world_size()
        self.max_grad_norm = settings.max_grad_norm
        self.optimizer = adamw(policy.model, settings)
        self.peak_lrs = [group["lr"] for group in self.optimizer.param_groups]
        # At stage 0 every rank has float32 weights and autocast, as the plain engine has; from
        # stage 1 on it has bfloat16 weights, and its part of the float32 masters.
        bf16 = policy.dtype == torch.bfloat16 and self.zero.stage > 0
        config = configuration(self.zero, settings, bf16=bf16)
        with redirect_stdout(io.StringIO()):  # its bfloat16 optimiser prints the free memory
            self.deepspeed, *_ = deepspeed.initialize(
                model=self.policy_module, optimizer=self.optimizer, config=config
            )
        self._has_gradient = False
        self._norm = torch.zeros(())
        if self.zero.stage == 0:
            self.optimizer.register_step_pre_hook(lambda *_: self._clip_at_stage_0())

    def forward(
        self, micro: MicroBatch, position_N: Int[Tensor, " N"], compute: HeadComputation
    ) -> Mapping[str, Tensor]:
        """See `TrainingEngine`; `compute` runs in the module's forward, where the head is whole."""
        result: Mapping[str, Tensor] = self.deepspeed(micro, position_N, compute)
        return result

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """See `TrainingEngine`."""
        # DeepSpeed averages gradients over the ranks, and loss weights are already divided by the
        # totals of all ranks: multiplying by the number of ranks turns its mean into the sum.
        # `scale_wrt_gas=False` keeps it from dividing by accumulation steps as well.
        self.deepspeed.backward(loss * self.num_ranks, scale_wrt_gas=False)
        self._has_gradient = True

    def update(self, lr_share: float) -> Float[Tensor, ""]:
        """See `TrainingEngine`; the norm is infinite if DeepSpeed skipped the step."""
        if not self._has_gradient:  # on no rank: nothing was selected
            return torch.zeros(())
        self._has_gradient = False
        for group, peak_lr in zip(self.optimizer.param_groups, self.peak_lrs, strict=True):
            group["lr"] = peak_lr * lr_share
        self.deepspeed.step()
        if self.zero.stage == 0:
            return self._norm
        return torch.tensor(float(self.deepspeed.get_global_grad_norm()))

    def _clip_at_stage_0(self) -> None:
        """Clip before torch's own optimiser steps, which it does at stage 0.

        A gradient that is not finite is cleared, so that the step finds none.
        """
        self._norm = clip_gradients(self.policy.model, self.max_grad_norm)
        if not torch.isfinite(self._norm):
            self.deepspeed.zero_grad()

    def all_reduce_sum(self, numbers: Tensor) -> Tensor:
        """See `TrainingEngine`."""
        with self.timer("wait"):
            numbers = numbers.to(self.policy.device)
            dist.all_reduce(numbers)
            return numbers.cpu()

    def materialize(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
        """See `TrainingEngine`; below stage 3 they are whole."""
        return materialized(parameters) if self.zero.stage == 3 else nullcontext()

    @contextmanager
    def materialize_policy(self) -> Iterator[None]:
        """See `TrainingEngine`."""
        if self.zero.stage < 3:
            yield
            return
        offload = self.deepspeed.optimizer.parameter_offload
        with materialized(list(self.policy.model.parameters())):
            # DeepSpeed's hooks gather a layer's weights before its forward and divide them again
            # after it, gathered by us or not. A sampler calls the bare model thousands of times on
            # whole weights, so its first layer would be divided under its feet. There is no public
            # switch: the hooks are removed and registered again at the end.
            for hook in [*offload.forward_hooks, *offload.backward_hooks]:
                hook.remove()
            offload.forward_hooks = []
            offload.backward_hooks = []
            for parameter in self.policy_module.parameters():
                # Modules that DeepSpeed counts as using this weight: one of a forward that its
                # hooks saw begin and not end would keep the weight from ever being divided.
                vars(parameter)["ds_active_sub_modules"].clear()
            try:
                yield
            finally:
                # The coordinator prefetches by a recorded order of modules, which holds the module
                # ids of the old hooks: it must be recorded anew.
                coordinator = offload.param_coordinator
                if not coordinator.is_invalid_trace():
                    coordinator._invalidate_trace()
                offload._register_deepspeed_module(offload.module)

    def save(self, directory: Path, progress: Progress) -> None:
        """See `TrainingEngine`; every rank writes its part of the state."""
        self.deepspeed.save_checkpoint(
            str(directory / STATE_DIRECTORY),
            tag=TAG,
            save_latest=False,
            exclude_frozen_parameters=is_adapted(self.policy.model),
            client_state={},
        )
        if self.rank == 0:
            about = {"num_ranks": self.num_ranks, "stage": self.zero.stage, **progress}
            (directory / RANKS_FILE).write_text(json.dumps(about), encoding="utf-8")

    def restore(self, directory: Path) -> Progress:
        """See `TrainingEngine`; the directory must come from as many ranks at the same stage."""
        path = directory / RANKS_FILE
        progress: dict[str, int] = {"num_ranks": 0, "stage": 0}
        if path.exists():
            progress = json.loads(path.read_text(encoding="utf-8"))
        num_ranks = progress.pop("num_ranks")
        stage = progress.pop("stage")
        if (num_ranks, stage) != (self.num_ranks, self.zero.stage):
            writer = (
                f"{num_ranks} ranks at ZeRO stage {stage}"
                if num_ranks
                else "one process without ZeRO"
            )
            raise UserError(
                f"{directory} was written by {writer}, and this run has {self.num_ranks} at stage "
                f"{self.zero.stage}: set cluster.learners and learn.zero.stage as they were, or "
                f"start a new run with this directory as model.path"
            )
        loaded, _ = self.deepspeed.load_checkpoint(
            str(directory / STATE_DIRECTORY),
            tag=TAG,
            load_module_strict=not is_adapted(self.policy.model),
        )
        assert loaded is not None, f"DeepSpeed found nothing in {directory / STATE_DIRECTORY}"
        return progress

    def barrier(self) -> None:
        """See `TrainingEngine`."""
        dist.barrier()


class ShardedModel:
    """A frozen model whose weights the ranks share, gathered layer by layer.

    ZeRO stage 3 without an optimiser.
    """

    def __init__(self, policy: Policy, zero: Zero, settings: LearnSettings) -> None:
        self.policy = policy
        self.policy_module = PolicyModule(policy)
        sharded = Zero(
            offload_parameters=zero.offload_parameters,
            nvme_path=zero.nvme_path,
            persist_below=zero.persist_below,
        )
        config = configuration(sharded, settings, bf16=policy.dtype == torch.bfloat16)
        self.deepspeed, *_ = deepspeed.initialize(model=self.policy_module, config=config)

    @torch.no_grad()
    def hidden(self, micro: MicroBatch, position_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """Hidden states at flat positions; every rank calls it, each with its own micro-batch."""
        result: Mapping[str, Tensor] = self.deepspeed(
            micro, position_N, lambda hidden_ND, head: {"hidden": hidden_ND}
        )
        return result["hidden"]

    @contextmanager
    def head(self) -> Iterator[Head]:
        """The head, gathered on every rank."""
        linear = self.policy.model.get_output_embeddings()
        with materialized(list(linear.parameters())):
            yield self.policy.head


def materialized(parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
    """A block in which these parameters are whole on every rank."""
    return deepspeed.zero.GatheredParameters(list(parameters))


def configuration(zero: Zero, settings: LearnSettings, *, bf16: bool) -> dict[str, object]:
    """DeepSpeed's own settings.

    Gradient accumulation is not managed by DeepSpeed: managed, the second backward of an update
    would be silently wrong at stages 1 and 2.
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
        "train_micro_batch_size_per_gpu": 1,  # required and unused: we cut micro-batches ourselves
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.0 if zero.stage == 0 else settings.max_grad_norm or 0.0,
        "zero_optimization": optimization,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": bf16, "check_grad_overflow": True},
        # Otherwise the gradients of bfloat16 micro-batches are summed in 8 bits of mantissa.
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "steps_per_print": 1 << 40,
    }
