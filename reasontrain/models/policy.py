"""A model as a trunk, which computes hidden states, and a head, which computes logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache

from reasontrain.models.description import context_of, stop_ids_of
from reasontrain.models.embedding import input_space, measure_ids_in_use
from reasontrain.models.kernels import choose_sdpa_kernels
from reasontrain.models.varlen import (
    SequenceGroup,
    group_arguments,
    length_arguments,
    register_varlen,
)
from reasontrain.models.vision import Vision
from reasontrain.types import Image, Problem
from reasontrain.vocab import EmbeddingBasis, Head, Vocabulary


class Policy:
    """A causal language model, split into trunk and head.

    The head never runs on all positions at once: losses and evidence run it in chunks (`vocab`).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        dtype: torch.dtype = torch.float32,
        vision: Vision | None = None,
        vocabulary: Vocabulary = "auto",
    ) -> None:
        """Wrap a loaded model.

        Args:
            model: the model, on its device.
            tokenizer: its tokenizer.
            dtype: dtype of matrix products, whatever the weights are stored in.
            vision: image processing of an image model; None for a language model.
            vocabulary: backend of the head's statistics and gradients.
        """
        choose_sdpa_kernels()
        register_varlen()
        self.model = model
        self.tokenizer = tokenizer
        self.dtype = dtype
        self.vision = vision
        self.vocabulary = vocabulary
        self.input_space = input_space(model, tokenizer)
        # The ranks that share the rows of micro-batches with this one, each a part of every row.
        self.sequence_group: SequenceGroup | None = None

    def measure_ids_in_use(self, problems: Sequence[Problem]) -> None:
        """Make the embeddings of these problems' ids the unit of a soft thought's noise.

        Called on the weights that training starts from.
        """
        self.input_space = measure_ids_in_use(
            self.model, self.tokenizer, self.input_space, problems
        )

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.model.device

    @property
    def head(self) -> Head:
        """The output head with its current weights and the architecture's transforms of logits."""
        # Not cached: ZeRO-3 replaces the weight's storage when it gathers it. A tied model returns
        # its embedding matrix here, so that both gradients go to one parameter.
        linear = self.model.get_output_embeddings()
        config = self.model.config.to_dict()
        scale = (config.get("logit_scale") or 1.0) / (config.get("logits_scaling") or 1.0)
        softcap = config.get("final_logit_softcapping")
        num_tokens = self.input_space.num_tokens
        return Head(
            linear.weight,
            linear.bias,
            scale,
            softcap,
            matmul_dtype=self.dtype,
            vocabulary=self.vocabulary,
            # Rows beyond the tokenizer are neither drawn nor given probability: no text has them,
            # and another model may have fewer.
            num_tokens=None if num_tokens == len(linear.weight) else num_tokens,
        )

    @property
    def basis(self) -> EmbeddingBasis:
        """The current input embeddings as a basis of mixtures."""
        space = self.input_space
        weight_VD = self.model.get_input_embeddings().weight
        return EmbeddingBasis(
            weight_VD, space.num_tokens, scale=space.scale, matmul_dtype=self.dtype
        )

    def embed(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """The input embeddings of these ids."""
        embeds: Tensor = self.model.get_input_embeddings()(ids)
        return embeds

    @property
    def context(self) -> int:
        """The longest sequence of the model, in tokens."""
        return context_of(self.model.config)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Token ids that end a response."""
        return stop_ids_of(self.model.generation_config, self.tokenizer)

    def position_shift(self, image: Image | None) -> int:
        """Position id minus column of the tokens after this image; 0 without an image."""
        if self.vision is None or image is None:
            return 0
        return self.vision.position_shift(image)

    def save_tokenizer(self, directory: Path) -> None:
        """Write the tokenizer, and the image processor of an image model, to a directory."""
        self.tokenizer.save_pretrained(directory)
        if self.vision is not None:
            self.vision.save(directory)

    def hidden(
        self,
        ids: Int[Tensor, "B T"] | None = None,
        *,
        embeds: Float[Tensor, "B T D"] | None = None,
        position: Int[Tensor, "B T"] | None = None,
        cu_seq_lens: Sequence[int] | None = None,
        mask: Int[Tensor, "B S"] | Bool[Tensor, "B 1 T S"] | None = None,
        cache: Cache | None = None,
        images: Sequence[Image | None] = (),
        sequence_group: SequenceGroup | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Last hidden states, after the final norm.

        Args:
            ids: token ids; None if `embeds` is given.
            embeds: input embeddings instead of ids.
            position: the position of each token in its sequence.
            cu_seq_lens: where each sequence of a packed row begins, and the length of the row. By
                these, or by positions that restart at 0, attention separates packed sequences; the
                attention `varlen` needs them. None if the rows are not packed.
            mask: True or 1 at columns that are not padding; or, for torch's attention only, at the
                columns S that each token sees.
            cache: key-value cache that the T tokens are appended to; None for none.
            images: the image of each of the B sequences, or None.
            sequence_group: the ranks that share the rows: the T tokens are this rank's columns of
                them, and `cu_seq_lens` is of the whole row. None if the rows are whole.

        Returns:
            Hidden states in the policy's dtype.
        """
        image_inputs = {} if self.vision is None or ids is None else self.vision.inputs(ids, images)
        inputs: dict[str, object] = {"attention_mask": mask, **image_inputs}
        if not image_inputs:
            if cu_seq_lens is not None:
                inputs |= length_arguments(self.model, cu_seq_lens)
            if sequence_group is not None:
                inputs |= group_arguments(self.model, sequence_group)
        with torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        ):
            output = self.model.base_model(
                input_ids=ids,
                inputs_embeds=embeds,
                # Qwen2.5-VL computes positions from the grids of its images.
                position_ids=None if "image_grid_thw" in image_inputs else position,
                past_key_values=cache,
                use_cache=cache is not None,
                **inputs,
            )
        hidden: Tensor = output.last_hidden_state
        # A norm that is kept in float32 returns float32 under autocast.
        return hidden.to(self.dtype)
