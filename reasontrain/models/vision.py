"""Image processing of image models: pixels for the model, placeholder tokens for the prompt."""

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

QWEN = "qwen2_5_vl"
LLAVA = "llava"
CACHED_IMAGES = 64
"""Number of images whose pixels are cached; the oldest are dropped and decoded again."""


@dataclass
class Vision:
    """Image processing of one model.

    An image is a run of `image_id` in the ids, whose length depends on the image's size only.
    Qwen2.5-VL has one token per square of merged patches and a mark on both sides; LLaVA has one
    token per patch. Sequences with images are padded, never packed.

    Attributes:
        processor: turns an image into pixels.
        saved_processor: the processor that is saved beside the weights; LLaVA's includes the
            tokenizer.
        config: the model's configuration.
        placeholder: text of one image in a prompt before `expand`.
        image_id: token id that stands for the image.
    """

    processor: BaseImageProcessor
    saved_processor: BaseImageProcessor | ProcessorMixin
    config: PreTrainedConfig
    placeholder: str
    image_id: int
    _tokens_at: dict[tuple[int, int], int] = field(default_factory=dict)
    _pixels: OrderedDict[Image, dict[str, Tensor]] = field(default_factory=OrderedDict)

    def expand(self, ids: Sequence[int], problem: Problem) -> tuple[int, ...]:
        """The ids with the placeholder of the problem's image repeated for each of its tokens.

        Raises UserError if the ids do not have exactly one placeholder.
        """
        assert problem.image is not None, "the problem has an image"
        places = [place for place, token in enumerate(ids) if token == self.image_id]
        if len(places) != 1:
            raise UserError(
                f"{problem.label} has one image, and its prompt has {len(places)} places for it"
            )
        (place,) = places
        # The number of tokens depends on the size only: it is measured on a blank image, once.
        size = decode_image(problem.image, problem.label).size
        if size not in self._tokens_at:
            self._tokens_at[size] = self._num_tokens(self._processed(blank_image(size)))
        return (*ids[:place], *[self.image_id] * self._tokens_at[size], *ids[place + 1 :])

    def position_shift(self, image: Image) -> int:
        """Position id minus column of the tokens after this image.

        Negative for Qwen2.5-VL, whose positions advance by the image's longer side only; else 0.
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
        """Inputs of the model besides these ids; none if there is no image."""
        pixels_by_image = [
            self._pixels_of(image, "a prompt") for image in images if image is not None
        ]
        if not pixels_by_image:
            return {}
        joined = {
            name: torch.cat([pixels[name] for pixels in pixels_by_image]).to(ids_RT.device)
            for name in pixels_by_image[0]
        }
        if self.config.model_type == QWEN:
            joined["mm_token_type_ids"] = (ids_RT == self.image_id).int()
        return joined

    def save(self, directory: Path) -> None:
        """Write the processor to a directory, for transformers to load."""
        self.saved_processor.save_pretrained(directory)

    def _num_tokens(self, pixels: dict[str, Tensor]) -> int:
        """The number of tokens of an image."""
        if self.config.model_type == QWEN:
            return (
                int(pixels["image_grid_thw"].prod())
                // self.config.vision_config.spatial_merge_size**2
            )
        height, width = pixels["pixel_values"].shape[-2:]
        patch = self.config.vision_config.patch_size
        # "full" keeps the class token of the vision tower.
        return (height // patch) * (width // patch) + (
            self.config.vision_feature_select_strategy == "full"
        )

    def _pixels_of(self, image: Image, where: str) -> dict[str, Tensor]:
        """The processed image, cached."""
        if image not in self._pixels:
            self._pixels[image] = self._processed(decode_image(image, where))
            if len(self._pixels) > CACHED_IMAGES:
                self._pixels.popitem(last=False)
        return self._pixels[image]

    def _processed(self, image: PilImage) -> dict[str, Tensor]:
        outputs = self.processor(images=[image], return_tensors="pt")
        used = ("pixel_values", "image_grid_thw")
        return {name: outputs[name] for name in outputs if name in used}


def vision_of(
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, path: str, revision: str | None
) -> Vision | None:
    """The image processing of an image model; None for a language model.

    Args:
        config: the model's configuration.
        tokenizer: the model's tokenizer.
        path: directory or hub id of the model.
        revision: commit, branch or tag of a hub model.

    Returns:
        The image processing, or None.

    Raises:
        UserError: an image model of an architecture that is not supported.
    """
    if "vision_config" not in config.to_dict():
        return None
    if config.model_type not in (QWEN, LLAVA):
        raise UserError(
            f"image models of type {config.model_type} are not supported; supported are {QWEN} and "
            f"{LLAVA}"
        )
    image_id = config.image_token_id
    if config.model_type == LLAVA:
        processor = AutoProcessor.from_pretrained(path, revision=revision)
        placeholder = tokenizer.convert_ids_to_tokens(image_id)
        return Vision(processor.image_processor, processor, config, placeholder, image_id)
    # Qwen's full processor needs torchvision (for videos); its image processor does not.
    image_processor = AutoImageProcessor.from_pretrained(path, revision=revision)
    marks = [config.vision_start_token_id, image_id, config.vision_end_token_id]
    placeholder = "".join(tokenizer.convert_ids_to_tokens(marks))
    return Vision(image_processor, image_processor, config, placeholder, image_id)
