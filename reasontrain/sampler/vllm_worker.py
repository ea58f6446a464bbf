"""Code that runs inside vLLM's workers, which import it by name.

Nothing else imports this module, because it imports vLLM.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from vllm.config import set_current_vllm_config
from vllm.distributed.weight_transfer import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.ipc_engine import (
    IPCWeightTransferEngine,
    IPCWeightTransferUpdateInfo,
)
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.v1.worker.gpu_worker import Worker

from reasontrain.sampler.vllm_weight_transfer import MAIN_MEMORY, map_buffer


class MainMemoryTransfer(IPCWeightTransferEngine):
    """Receive packed weights from a buffer in main memory, where vLLM runs on a CPU."""

    def update_weights(self, update_info: Mapping[str, object]) -> None:
        """Load the weights of one update."""
        # vLLM's own method waits for an accelerator afterwards
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: IPCWeightTransferUpdateInfo) -> None:
        """Copy the weights of one update out of the buffer and load them."""
        path, num_bytes = update_info.ipc_handles[MAIN_MEMORY]
        packed = map_buffer(path, num_bytes)
        weights = []
        start = 0
        for name, dtype, shape, size in zip(
            update_info.names,
            update_info.dtype_names,
            update_info.shapes,
            update_info.tensor_sizes,
            strict=True,
        ):
            # a copy: vLLM keeps it until its layer is complete, and the buffer is filled again
            flat = packed[start : start + size].clone()
            weights.append((name, flat.view(getattr(torch, dtype)).view(shape)))
            start += size
        self.model.load_weights(weights)

    def finish_weight_update(self) -> None:
        """Finish the update, heads that share the embedding's weights included."""
        super().finish_weight_update()
        # On a CPU a head computes with a packed copy of its weights. vLLM renews it for layers
        # that received weights, which a tied head does not.
        for module in self.model.modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)


class WorkerExtension:
    """Methods added to vLLM's worker, for `collective_rpc`."""

    def close_weight_update(self: Worker) -> None:
        """End an update that failed, so that another can start; some weights are old, some new."""
        if self.weight_transfer_engine is None:
            return
        with set_current_vllm_config(self.vllm_config):
            # Layers that wait for the rest of their weights would otherwise take the next update's
            # for it, and mix the two.
            self.weight_transfer_engine.finish_weight_update()
            self.weight_transfer_engine.reset_weight_update_target()
        self._weight_update_active = False

    def limit_ids(self: Worker, num_ids: int) -> None:
        """Give no probability to ids from `num_ids` on, which the tokenizer does not have."""
        model = self.model_runner.get_model()
        compute_logits = model.compute_logits

        def limited(hidden_ND: torch.Tensor) -> torch.Tensor | None:
            logits_NV = compute_logits(hidden_ND)
            if logits_NV is not None:  # only the first worker has them
                logits_NV[..., num_ids:] = -torch.inf
            return logits_NV

        model.compute_logits = limited


WeightTransferEngineFactory.register_engine(MAIN_MEMORY, MainMemoryTransfer)
