"""Tiny untrained image models: a Qwen2.5-VL and a LLaVA with the testbed's tokenizer.

Their images have a few patches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from reasontrain.data.images import SIDE
from reasontrain.models import testbed

PATCH = 14
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def words(*more: str) -> tuple[PreTrainedTokenizerFast, list[int]]:
    """The testbed's tokenizer with further special tokens, and their ids."""
    extended = testbed.tokenizer()
    extended.add_special_tokens({"additional_special_tokens": list(more)})
    return extended, extended.convert_tokens_to_ids(list(more))


def qwen(path: Path) -> None:
    """Write a tiny Qwen2.5-VL."""
    tokenizer, (start, end, image) = words("<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
    ends = {
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0}
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": TEXT["hidden_size"],
    }
    vision |= {
        "patch_size": PATCH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": SIDE,
    }
    config = Qwen2_5_VLConfig(
        text_config={
            **TEXT,
            **ends,
            "vocab_size": len(tokenizer),
            "rope_parameters": rope,
            "tie_word_embeddings": True,
        },
        vision_config=vision | {"fullatt_block_indexes": [1]},
        vision_start_token_id=start,
        vision_end_token_id=end,
        image_token_id=image,
        tie_word_embeddings=True,
    )
    pixels = (2 * PATCH) ** 2
    _write(
        path,
        lambda: Qwen2_5_VLForConditionalGeneration(config),
        tokenizer,
        Qwen2VLImageProcessorPil(min_pixels=pixels, max_pixels=16 * pixels),
    )


def llava(path: Path) -> None:
    """Write a tiny LLaVA."""
    tokenizer, (image,) = words("<image>")
    ends = {
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    config = LlavaConfig(
        text_config=LlamaConfig(**TEXT, **ends, vocab_size=len(tokenizer)),
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=PATCH,
        ),
        image_token_id=image,
        vision_feature_select_strategy="default",
    )
    size = {"height": SIDE, "width": SIDE}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=size, crop_size=size),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLIP's class token, which the strategy leaves out
        chat_template=tokenizer.chat_template,
    )
    _write(path, lambda: LlavaForConditionalGeneration(config), tokenizer, processor)


def _write(
    path: Path,
    make: Callable[[], PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    processor: BaseImageProcessor | ProcessorMixin,
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        testbed.write(make(), path)
    tokenizer.save_pretrained(path)
    processor.save_pretrained(path)


BUILDERS: Mapping[str, Callable[[Path], None]] = {"qwen2.5-vl": qwen, "llava": llava}
"""Builders by the NAME in `untrained:NAME`."""
