"""Facts about a model's input embeddings that soft chains of thought need.

They are measured once, on the weights before any training, so that the noise of soft tokens keeps
its size while the embeddings are trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONFIG_KEY = "embedding_rms"
"""Key in a model's configuration for the `rms` of the weights that its training started from."""
CHUNK_ROWS = 4096
"""Rows of the embedding matrix that are cast to float32 at a time."""


@dataclass(frozen=True)
class InputSpace:
    """The space of a model's token embeddings, at the input of its first layer.

    Attributes:
        num_tokens: rows of the embedding matrix that are tokens; the rest is padding.
        scale: factor that the model multiplies its embeddings by (Gemma).
        rms: root mean square of the coordinates at the start of training; the unit of noise.
    """

    num_tokens: int
    scale: float
    rms: float


@torch.no_grad()
def input_space(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> InputSpace:
    """The input space of a model; `rms` is its configuration's if an earlier run wrote one."""
    module = model.get_input_embeddings()
    weight_VD = module.weight
    num_tokens = min(len(weight_VD), 1 + max(tokenizer.get_vocab().values()))
    # The embedding module may scale its rows. The factor is measured on the row with the largest
    # coordinates, where rounding matters least.
    largest = int(weight_VD[:CHUNK_ROWS].abs().sum(-1).argmax())
    fed_D = module(torch.tensor([largest], device=weight_VD.device))[0].double()
    stored_D = weight_VD[largest].double()
    scale = float(
        (fed_D @ stored_D) / stored_D.square().sum().clamp(min=torch.finfo(torch.float64).tiny)
    )
    rms = model.config.to_dict().get(CONFIG_KEY)
    if rms is None:
        total = sum(
            float(rows.float().square().sum(dtype=torch.float64))
            for rows in weight_VD[:num_tokens].split(CHUNK_ROWS)
        )
        rms = scale * (total / (num_tokens * weight_VD.shape[1])) ** 0.5
    return InputSpace(num_tokens, scale, float(rms))


def keep_rms(model: PreTrainedModel, space: InputSpace) -> None:
    """Write `rms` into the configuration, so that it is saved with the model."""
    model.config.update({CONFIG_KEY: space.rms})
