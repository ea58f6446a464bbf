"""DeepSpeed's settings for the engine of many ranks; reading them does not import DeepSpeed."""

from __future__ import annotations

import torch

from reasontrain.recipe import LearnSettings, Zero


def configuration(
    zero: Zero, settings: LearnSettings, *, bf16: bool, device: torch.device
) -> dict[str, object]:
    """DeepSpeed's own settings.

    Gradient accumulation is not managed by DeepSpeed: managed, the second backward of an update
    would be silently wrong at stages 1 and 2.

    Args:
        zero: what the ranks share, and what is offloaded.
        settings: how a batch is learned from.
        bf16: weights are in bfloat16, with float32 masters.
        device: the device of the models. Only transfers to a GPU gain from pinned memory.
    """
    gpu = device.type == "cuda"
    optimization: dict[str, object] = {
        "stage": zero.stage,
        "overlap_comm": zero.stage >= 2 and gpu,
        "offload_optimizer": {
            "device": zero.offload_optimizer,
            "nvme_path": zero.nvme_path,
            "pin_memory": gpu,
        },
    }
    if zero.stage == 3:
        optimization |= {
            "stage3_param_persistence_threshold": zero.persist_below,
            "offload_param": {
                "device": zero.offload_parameters,
                "nvme_path": zero.nvme_path,
                "pin_memory": gpu,
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
