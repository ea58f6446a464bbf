"""What an image model adds to a language model: its image processor, and the placeholders that
stand for an image.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.image_processing_utils import BaseImageProcessor

from reasontrain.data.images import blank_image, decode_image
from reasontrain.types import Image, Problem, UserError

if TYPE_CHECKING:
    from reasontrain.data.images import PilImage

QWEN, LLAVA = "qwen2_5_vl", "llava"
KEPT = 64
"""Images whose pixels are kept; others are made again."""


@dataclass
class Vision:
    """Turns images into what the model takes; each is one run of `image_id` in the ids, and text
    around it.

    Qwen2.5-VL marks an image on both sides and merges patches in squares; LLaVA has one token per
    patch. How many tokens there are depends on the size of the image alone. Rows with images
    are padded, never packed. `whole` is what is saved beside the weights.
    """

    processor: BaseImageProcessor
    whole: BaseImageProcessor | ProcessorMixin
    config: PreTrainedConfig
    placeholder: str
    image_id: int
    _tokens_at: dict[tuple[int, int], int] = field(default_factory=dict)
    _pixels: OrderedDict[Image, dict[str, Tensor]] = field(default_factory=OrderedDict)

    def expand(self, ids: Sequence[int], problem: Problem) -> tuple[int, ...]:
        """The ids with the one placeholder of the problem's image repeated for each of its
        tokens.
        """
        assert problem.image is not None, "there is an image to make room for"
        places = [place for place, token in enumerate(ids) if token == self.image_id]
        if len(places) != 1:
            raise UserError(
                f"problem {problem.id} has one image, and its prompt has {len(places)} "
                f"places for it"
            )
        (place,) = places
        size = decode_image(problem.image, f"problem {problem.id}").size
        if size not in self._tokens_at:
            self._tokens_at[size] = self._num_tokens(self._processed(blank_image(size)))
        return (*ids[:place], *[self.image_id] * self._tokens_at[size], *ids[place + 1 :])

    def shift(self, image: Image) -> int:
        """How far positions run ahead of columns after this image: Qwen2.5-VL counts its longer
        side alone.
        """
        pixels = self._pixels_of(image, "a prompt")
        if self.config.model_type != QWEN:
            return 0
        return int(
            pixels["image_grid_thw"].max()
        ) // self.config.vision_config.spatial_merge_size - self._num_tokens(pixels)

    def inputs(
        self, ids_RT: Int[Tensor, "R T"], images: Sequence[Image | None]
    ) -> dict[str, Tensor]:
        """What the model takes beside these ids; nothing where no row has an image."""
        found = [self._pixels_of(image, "a prompt") for image in images if image is not None]
        if not found:
            return {}
        joined = {
            name: torch.cat([pixels[name] for pixels in found]).to(ids_RT.device)
            for name in found[0]
        }
        if self.config.model_type == QWEN:
            joined["mm_token_type_ids"] = (ids_RT == self.image_id).int()
        return joined

    def save(self, directory: Path) -> None:
        """Write what makes images into pixels, as transformers reads it."""
        self.whole.save_pretrained(directory)

    def _num_tokens(self, pixels: dict[str, Tensor]) -> int:
        """Placeholders of an image."""
        if self.config.model_type == QWEN:
            return (
                int(pixels["image_grid_thw"].prod())
                // self.config.vision_config.spatial_merge_size**2
            )
        height, width = pixels["pixel_values"].shape[-2:]
        patch = self.config.vision_config.patch_size
        return (height // patch) * (width // patch) + (
            self.config.vision_feature_select_strategy == "full"
        )

    def _pixels_of(self, image: Image, where: str) -> dict[str, Tensor]:
        """What the model takes of one image."""
        if image not in self._pixels:
            self._pixels[image] = self._processed(decode_image(image, where))
            if len(self._pixels) > KEPT:
                self._pixels.popitem(last=False)
        return self._pixels[image]

    def _processed(self, image: PilImage) -> dict[str, Tensor]:
        made = self.processor(images=[image], return_tensors="pt")
        return {name: made[name] for name in made if name in ("pixel_values", "image_grid_thw")}


def vision_of(
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, path: str, revision: str | None
) -> Vision | None:
    """The eyes of an image model, None for a language model; UserError for an architecture that is
    not known.

    LLaVA's processor is loaded whole. Qwen's asks for torchvision: its image processor alone does
    not.
    """
    if "vision_config" not in config.to_dict():
        return None
    if config.model_type not in (QWEN, LLAVA):
        raise UserError(
            f"{config.model_type} is an image model that reasontrain does not know; it "
            f"knows {QWEN} and {LLAVA}"
        )
    image = config.image_token_id
    if config.model_type == LLAVA:
        whole = AutoProcessor.from_pretrained(path, revision=revision)
        return Vision(
            whole.image_processor, whole, config, tokenizer.convert_ids_to_tokens(image), image
        )
    marks = [config.vision_start_token_id, image, config.vision_end_token_id]
    eyes = AutoImageProcessor.from_pretrained(path, revision=revision)
    return Vision(eyes, eyes, config, "".join(tokenizer.convert_ids_to_tokens(marks)), image)
