"""A model as a trunk, which makes hidden states, and a head, which makes logits of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache

from reasontrain.models.description import context_of, stop_ids_of
from reasontrain.models.embedding import input_space
from reasontrain.models.vision import Vision
from reasontrain.types import Image
from reasontrain.vocab import EmbeddingBasis, Head, Vocabulary


class Policy:
    """A causal language model split into the trunk, which makes hidden states, and the head, which
    makes logits of them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        dtype: torch.dtype = torch.float32,
        vision: Vision | None = None,
        vocabulary: Vocabulary = "auto",
    ) -> None:
        """`dtype` is what trunk and head compute products in, whatever the weights are kept in;
        `vocabulary` is the Head's.
        """
        self.model, self.tokenizer, self.dtype, self.vision = model, tokenizer, dtype, vision
        self.vocabulary = vocabulary
        self.input_space = input_space(model, tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.model.device

    @property
    def head(self) -> Head:
        """The output head as it is now, with the transforms that this architecture applies to its
        logits.
        """
        linear = self.model.get_output_embeddings()
        config = self.model.config.to_dict()
        scale = (config.get("logit_scale") or 1.0) / (config.get("logits_scaling") or 1.0)
        softcap = config.get("final_logit_softcapping")
        return Head(
            linear.weight,
            linear.bias,
            scale,
            softcap,
            product_dtype=self.dtype,
            vocabulary=self.vocabulary,
        )

    @property
    def basis(self) -> EmbeddingBasis:
        """The input embeddings as they are now, to be mixed."""
        space, weight_VD = self.input_space, self.model.get_input_embeddings().weight
        return EmbeddingBasis(
            weight_VD, space.num_tokens, scale=space.scale, product_dtype=self.dtype
        )

    def embed(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """The input embeddings of these ids."""
        embeds: Tensor = self.model.get_input_embeddings()(ids)
        return embeds

    @property
    def context(self) -> int:
        """The longest sequence, in tokens, that the model was made for."""
        return context_of(self.model.config)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end a response."""
        return stop_ids_of(self.model.generation_config, self.tokenizer)

    def shift(self, image: Image | None) -> int:
        """How far positions run ahead of columns after this image."""
        return 0 if self.vision is None or image is None else self.vision.shift(image)

    def save_words(self, directory: Path) -> None:
        """The tokenizer, and an image model's image processor."""
        self.tokenizer.save_pretrained(directory)
        if self.vision is not None:
            self.vision.save(directory)

    def hidden(
        self,
        ids: Int[Tensor, "B T"] | None = None,
        *,
        embeds: Float[Tensor, "B T D"] | None = None,
        position: Int[Tensor, "B T"] | None = None,
        mask: Int[Tensor, "B S"] | Bool[Tensor, "B 1 T S"] | None = None,
        cache: Cache | None = None,
        images: Sequence[Image | None] = (),
    ) -> Float[Tensor, "B T D"]:
        """Last hidden states (after the final norm), from ids or input embeddings.

        Without `mask` and `cache`, positions that restart separate packed sequences; with `cache`,
        T new tokens are added to it. `mask` says which columns are no padding, or, for attention by
        torch alone, which of them each token sees. `images` are those that these rows show, one
        or none each; with any, Qwen2.5-VL finds positions of its own.
        """
        seen = {} if self.vision is None or ids is None else self.vision.inputs(ids, images)
        with torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        ):
            output = self.model.base_model(
                input_ids=ids,
                inputs_embeds=embeds,
                position_ids=None if "image_grid_thw" in seen else position,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=cache is not None,
                **seen,
            )
        hidden: Tensor = output.last_hidden_state
        return hidden.to(self.dtype)  # a norm that is kept in float32 gives float32
