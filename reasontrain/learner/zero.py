"""The engine of many ranks: DeepSpeed's engine around the policy, with its averaging undone."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path

import deepspeed
import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from reasontrain.data.micro_batches import MicroBatch
from reasontrain.learner import optimizer_state
from reasontrain.learner.deepspeed_settings import configuration
from reasontrain.learner.engine import Progress
from reasontrain.learner.lora import is_adapted
from reasontrain.learner.optimizer import adamw, clip_gradients
from reasontrain.learner.optimizer_state import (
    WEIGHT,
    HeldFragment,
    RankLayout,
    StateFiles,
    described,
)
from reasontrain.learner.policy_module import HeadComputation, PolicyModule
from reasontrain.metrics.timing import Stopwatch
from reasontrain.models import Policy
from reasontrain.recipe import LearnSettings, Zero
from reasontrain.types import UserError
from reasontrain.vocab import Head

NVME_FOLDER = "deepspeed"
"""The folder of DeepSpeed's own checkpoint, for state that is offloaded to nvme."""
TAG = "ranks"
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
        self.policy_module = PolicyModule(policy, offload=settings.activation_offload)
        self.zero = settings.zero
        self.rank = dist.get_rank()
        self.num_ranks = dist.get_world_size()
        self.max_grad_norm = settings.max_grad_norm
        bf16 = policy.dtype == torch.bfloat16 and self.zero.stage > 0
        if bf16:
            # DeepSpeed casts all weights, but not beside ones that were divided while they were
            # read: then adapters would stay in float32, and a stage 3 has one dtype.
            for parameter in policy.model.parameters():
                parameter.data = parameter.data.to(policy.dtype)
        self.optimizer = adamw(policy.model, settings)
        self.peak_lrs = [group["lr"] for group in self.optimizer.param_groups]
        # At stage 0 every rank has float32 weights and autocast, as the plain engine has; from
        # stage 1 on it has bfloat16 weights, and its part of the float32 masters.
        config = configuration(self.zero, settings, bf16=bf16, device=policy.device)
        with redirect_stdout(io.StringIO()):  # its bfloat16 optimiser prints the free memory
            self.deepspeed, *_ = deepspeed.initialize(
                model=self.policy_module, optimizer=self.optimizer, config=config
            )
        self._has_gradient = False
        self._norm = 0.0
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

    def update(self, lr_share: float) -> float:
        """See `TrainingEngine`; the norm is infinite if DeepSpeed skipped the step."""
        if not self._has_gradient:  # on no rank: nothing was selected
            return 0.0
        self._has_gradient = False
        for group, peak_lr in zip(self.optimizer.param_groups, self.peak_lrs, strict=True):
            group["lr"] = peak_lr * lr_share
        self.deepspeed.step()
        if self.zero.stage == 0:
            return self._norm
        return float(self.deepspeed.get_global_grad_norm())

    def _clip_at_stage_0(self) -> None:
        """Clip before torch's own optimiser steps, which it does at stage 0.

        A gradient that is not finite is cleared, so that the step finds none.
        """
        self._norm = float(clip_gradients(self.policy.model, self.max_grad_norm))
        if not math.isfinite(self._norm):
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
        if self._is_on_nvme:
            self.deepspeed.save_checkpoint(
                str(directory / NVME_FOLDER),
                tag=TAG,
                save_latest=False,
                exclude_frozen_parameters=is_adapted(self.policy.model),
                client_state={},
            )
        elif self.zero.stage > 0 or self.rank == 0:
            optimizer_state.write(directory, self.rank, self._fragments())
        if self.rank == 0:
            optimizer_state.write_layout(directory, self._layout, progress)

    def restore(self, directory: Path) -> Progress:
        """See `TrainingEngine`.

        Raises UserError if the state is in DeepSpeed's own files of offloaded tensors, or would be,
        and the ranks or the stage are others.
        """
        layout, progress = optimizer_state.read_layout(directory)
        was_on_nvme = (directory / NVME_FOLDER).exists()
        if self._is_on_nvme or was_on_nvme:
            self._restore_from_nvme(directory, layout, was_on_nvme=was_on_nvme)
            return progress
        if self.zero.stage == 3:
            self.deepspeed.optimizer.checkpoint_event_prologue()  # nothing is gathered after it
        sizes = {name: _size(parameter) for name, parameter in self._trained()}
        files = optimizer_state.load(directory, self._fragments(), sizes)
        self._load_weights(files)
        if self.zero.stage == 3:
            self.deepspeed.optimizer.checkpoint_event_epilogue()  # gathers the persistent ones
        return progress

    @property
    def _layout(self) -> RankLayout:
        return {"num_ranks": self.num_ranks, "stage": self.zero.stage}

    @property
    def _is_on_nvme(self) -> bool:
        """True if DeepSpeed swaps tensors to files, of which only it knows the state."""
        return "nvme" in (self.zero.offload_optimizer, self.zero.offload_parameters)

    def _restore_from_nvme(self, directory: Path, layout: RankLayout, *, was_on_nvme: bool) -> None:
        """Let DeepSpeed restore what it has saved, on as many ranks at the same stage."""
        if layout != self._layout or not (was_on_nvme and self._is_on_nvme):
            raise UserError(
                f"{directory} was written by {described(layout)} "
                f"{'with' if was_on_nvme else 'without'} offload to nvme, and this run has "
                f"{described(self._layout)} {'with' if self._is_on_nvme else 'without'} it: state "
                f"on nvme cannot be divided anew; set learn.zero and cluster.learners as they were"
            )
        loaded, _ = self.deepspeed.load_checkpoint(
            str(directory / NVME_FOLDER),
            tag=TAG,
            load_module_strict=not is_adapted(self.policy.model),
        )
        assert loaded is not None, f"DeepSpeed found nothing in {directory / NVME_FOLDER}"

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self.policy.model.named_parameters() if p.requires_grad]

    def _fragments(self) -> Iterator[HeldFragment]:
        """The fragments of trained parameters whose float32 weights this rank holds."""
        # The optimiser that DeepSpeed was given, whose parameters it has replaced by flat groups.
        state = self.optimizer.state
        sharded = self.deepspeed.optimizer
        for name, parameter in self._trained():
            held: Tensor = parameter
            start = offset = 0
            numel = parameter.numel()
            if self.zero.stage == 3:
                group, offset, size = sharded.grad_position[sharded.get_param_id(parameter)]
                held = sharded.fp32_partitioned_groups_flat[group]
                start = self.rank * size
                numel = min(size, _size(parameter) - start)  # the last is padded
            elif self.zero.stage > 0:
                fragment = vars(parameter)["_hp_mapping"]
                if fragment is None:
                    continue  # all of it is on other ranks
                held = self.optimizer.param_groups[fragment.param_group_index]["params"][0]
                start = fragment.lp_fragment_address.start
                numel = fragment.lp_fragment_address.numel
                offset = fragment.hp_fragment_address.start
            if numel > 0:
                yield HeldFragment(
                    name=name,
                    start=start,
                    numel=numel,
                    held=held,
                    offset=offset,
                    state=state[held],
                )

    @torch.no_grad()
    def _load_weights(self, files: StateFiles) -> None:
        """Read the weights that the forward uses, of which the optimiser's are float32 copies."""
        if self.zero.stage == 0:
            return  # they are the same
        for name, parameter in self._trained():
            if self.zero.stage < 3:
                values_N = files.read(name, WEIGHT, 0, parameter.numel())
                parameter.data.view(-1).copy_(values_N)
                continue
            partition = vars(parameter)["ds_tensor"]
            start = self.rank * partition.numel()
            numel = min(partition.numel(), _size(parameter) - start)
            if numel > 0:
                partition.data[:numel].copy_(files.read(name, WEIGHT, start, numel))

    def barrier(self) -> None:
        """See `TrainingEngine`."""
        dist.barrier()


def _size(parameter: nn.Parameter) -> int:
    """Number of elements of the whole parameter, also where this rank holds a part of it."""
    size: int = vars(parameter).get("ds_numel", parameter.numel())
    return size


def sharded_settings(zero: Zero) -> Zero:
    """ZeRO's settings for a frozen model beside a policy with these."""
    return Zero(
        offload_parameters=zero.offload_parameters,
        nvme_path=zero.nvme_path,
        persist_below=zero.persist_below,
    )


class ShardedModel:
    """A frozen model whose weights the ranks share, gathered layer by layer.

    ZeRO stage 3 without an optimiser.
    """

    def __init__(self, policy: Policy, zero: Zero, settings: LearnSettings) -> None:
        self.policy = policy
        self.policy_module = PolicyModule(policy)
        bf16 = policy.dtype == torch.bfloat16
        config = configuration(sharded_settings(zero), settings, bf16=bf16, device=policy.device)
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
