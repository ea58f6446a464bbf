"""What the mixins rely on in TRL and transformers, and the check that the installed TRL has it.

TRL has no interface for a weight of each token, so the mixins override methods and depend on lines
inside others. Both are listed here and compared with the installed source when a trainer is built.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from importlib import import_module
from importlib.metadata import version

from reasontrain.types import RunError, UserError

TRL = "1.16"
"""The release of TRL that the mixins are written for."""
_GRPO = "trl.trainer.grpo_trainer:GRPOTrainer"
_SFT = "trl.trainer.sft_trainer:SFTTrainer"
_DPO = "trl.trainer.dpo_trainer:DPOTrainer"
_DISTILLATION = "trl.trainer.distillation_trainer:DistillationTrainer"
_COMPUTE_LOSS = "self model inputs return_outputs num_items_in_batch"

PARAMETERS: Mapping[str, str] = {
    "transformers:Trainer.get_batch_samples": "self epoch_iterator num_batches device",
    "transformers:Trainer.training_step": "self model inputs num_items_in_batch",
    "trl.trainer.utils:add_fused_lm_head": "model temperature cast_lm_head_to_fp32 outputs",
    "trl.trainer.utils:split_tensor_dict": "tensor_dict num_chunks",
    "trl.trainer.utils:split_pixel_values_by_grid": "batch",
    "trl.trainer.utils:unsplit_pixel_values_by_grid": "batch",
    "trl.trainer.utils:maybe_gather_lm_head_ctx": "params",
    f"{_SFT}.compute_loss": _COMPUTE_LOSS,
    f"{_DPO}.compute_loss": _COMPUTE_LOSS,
    f"{_DPO}._compute_loss": "self model inputs return_outputs",
    f"{_DPO}.compute_ref_log_probs": "self model inputs",
    f"{_GRPO}._generate_and_score_completions": "self inputs",
    f"{_GRPO}._prepare_inputs": "self generation_batch",
    f"{_GRPO}._compute_loss": "self model inputs",
    f"{_GRPO}.get_high_entropy_mask": "self entropies mask threshold",
    f"{_GRPO}._get_per_token_logps_and_entropies": "self model input_ids attention_mask "
    "logits_to_keep batch_size compute_entropy compute_aux_loss pixel_values image_grid_thw "
    "num_images pixel_attention_mask spatial_shapes num_tiles image_sizes token_type_ids "
    "mm_token_type_ids image_position_ids",
    f"{_DISTILLATION}._generate_and_score_completions": "self inputs",
    f"{_DISTILLATION}._prepare_inputs": "self generation_batch",
    f"{_DISTILLATION}._compute_loss": "self unwrapped_student inputs num_items_in_batch",
    "trl.kernels.chunked_divergence:ChunkedDivergenceFunction.forward": "ctx student_hidden "
    "student_weight student_bias teacher_hidden teacher_weight teacher_bias beta temperature "
    "student_logit_scale student_final_logit_softcapping teacher_logit_scale "
    "teacher_final_logit_softcapping",
}
"""Function -> its parameters, in order."""

LINES: Mapping[str, tuple[str, ...]] = {
    f"{_SFT}.compute_loss": (
        "outputs = model(**inputs, fused_lm_head=True)",
        "per_token_loss = -outputs.log_probs",
        "loss = per_token_loss.sum() / torch.as_tensor(num_tokens).clamp(min=1)",
        "loss = loss * (self.accelerator.num_processes // self.get_tp_size())",
    ),
    f"{_SFT}.__init__": ('outputs=("log_probs", "entropy", "is_top1")',),
    f"{_DPO}._compute_loss": (
        "outputs = model(**model_kwargs, labels=labels, fused_lm_head=True)",
        "per_token_logps = outputs.log_probs[:, -seq_len:]",
        "logps = per_token_logps.sum(dim=1)",
        "ref_per_token_logps = ref_outputs.log_probs[:, -seq_len:]",
        "loss += per_sequence_loss.mean() * loss_weight",
    ),
    f"{_DPO}.compute_ref_log_probs": (
        "model(**model_kwargs, labels=labels, fused_lm_head=True).log_probs",
    ),
    f"{_GRPO}._compute_loss": (
        "if self.top_entropy_quantile < 1.0:",
        "entropy_mask = self.get_high_entropy_mask(entropies, mask, 1 - self.top_entropy_quantile)",
        "per_token_loss = per_token_loss * entropy_mask",
        "per_token_loss = per_token_loss + self.beta * per_token_kl",
        "loss = ((per_token_loss * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).mean()",
        "loss = (per_token_loss * mask).sum() / mask.sum().clamp(min=1.0)",
        "loss = (per_token_loss * mask).sum() / (per_token_loss.size(0) * "
        "self.max_completion_length)",
        'normalizer = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes',
        "normalizer = normalizer * self.current_gradient_accumulation_steps / "
        "self.args.steps_per_generation",
        "loss = (per_token_loss * mask).sum() / normalizer",
        "loss = (per_token_loss * mask).sum(-1).mean()",
    ),
    f"{_GRPO}._prepare_inputs": (
        "self._buffered_inputs[self._step % self.args.steps_per_generation]",
    ),
    f"{_DISTILLATION}._compute_loss": ("_chunked_divergence_loss(",),
    f"{_DISTILLATION}._prepare_inputs": (
        "self._buffered_inputs[self._step % self.args.gradient_accumulation_steps]",
    ),
    "trl.trainer.distillation_trainer:_chunked_divergence_loss": (
        "per_token_divergence, per_token_entropy = ChunkedDivergenceFunction.apply(",
        "valid = completion_mask.reshape(-1) != 0",
        "loss = loss / num_items_in_batch",
    ),
}
"""Function -> lines of its source that the mixins depend on."""

FIELDS: Mapping[str, str] = {
    "trl:SFTConfig": "loss_type packing packing_strategy padding_free label_smoothing_factor "
    "average_tokens_across_devices",
    "trl:DPOConfig": "loss_type use_weighting precompute_ref_log_probs",
    "trl:GRPOConfig": "top_entropy_quantile steps_per_generation beta loss_type num_generations",
    "trl.trainer.distillation_config:DistillationConfig": "beta temperature",
    "trl.trainer.utils:FusedCausalLMOutput": "log_probs entropy",
}
"""Dataclass -> fields that are read."""


def violations() -> Iterator[str]:
    """Differences of the installed TRL and transformers from what the mixins expect."""
    for path, expected in PARAMETERS.items():
        function = _at(path)
        if function is None:
            yield f"{path} does not exist"
        elif (parameters := _parameters(function)) != expected.split():
            yield f"{path} has the parameters {', '.join(parameters)}"
    for path, lines in LINES.items():
        function = _at(path)
        source = "" if function is None else " ".join(_source(function).split())
        for line in lines:
            if line not in source:
                yield f"{path} has no line `{line}`"
    for path, names in FIELDS.items():
        cls = _at(path)
        known = set() if not isinstance(cls, type) else {field.name for field in fields(cls)}
        for name in names.split():
            if name not in known:
                yield f"{path} has no field {name}"


def _at(path: str) -> object | None:
    """The object at `module:name.name`; None if there is none."""
    module, _, names = path.partition(":")
    try:
        value: object = import_module(module)
        for name in names.split("."):
            value = getattr(value, name)
    except (ImportError, AttributeError):
        return None
    return value


def _parameters(function: object) -> list[str]:
    assert callable(function), "only functions are listed"
    return list(inspect.signature(function).parameters)


def _source(function: object) -> str:
    assert callable(function), "only functions are listed"
    return inspect.getsource(inspect.unwrap(function))


@cache
def check_trl() -> None:
    """Raise unless TRL is the release that the mixins are written for, with all they rely on.

    Raises:
        UserError: another release is installed.
        RunError: this release differs from the one that was tested.
    """
    installed = version("trl")
    major, minor = TRL.split(".")
    if installed.split(".")[:2] != [major, minor]:
        raise UserError(
            f"token selection in TRL's trainers is written for TRL {TRL}, and {installed} is "
            f"installed; run `pip install 'trl>={TRL},<{major}.{int(minor) + 1}'`"
        )
    if moved := list(violations()):
        raise RunError(
            f"TRL {installed} differs from the TRL {TRL} that token selection was tested with: "
            f"{'; '.join(moved)}; run `pip install trl=={TRL}.0`"
        )
