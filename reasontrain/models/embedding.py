"""What a soft chain of thought must know of a model's input embeddings: taken once, from the
weights before any training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONFIG_KEY = "embedding_rms"
"""Where a model's configuration keeps the figure of the weights that its training began with."""
ROWS = 4096


@dataclass(frozen=True)
class InputSpace:
    """Embeddings of tokens, as the model feeds them to itself.

    `num_tokens` rows are tokens, `scale` is what the model multiplies its embeddings by, and `rms`
    is the root mean square of their coordinates at the start of training, which noise is measured
    by.
    """

    num_tokens: int
    scale: float
    rms: float


@torch.no_grad()
def input_space(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> InputSpace:
    """The input space of a model as it is now; the `rms` is its configuration's, where an earlier
    training wrote one.
    """
    module = model.get_input_embeddings()
    weight_VD = module.weight
    num_tokens = min(len(weight_VD), 1 + max(tokenizer.get_vocab().values()))
    largest = int(weight_VD[:ROWS].abs().sum(-1).argmax())
    fed_D, stored_D = (
        module(torch.tensor([largest], device=weight_VD.device))[0].double(),
        weight_VD[largest].double(),
    )
    scale = float(
        (fed_D @ stored_D) / stored_D.square().sum().clamp(min=torch.finfo(torch.float64).tiny)
    )
    found = model.config.to_dict().get(CONFIG_KEY)
    if found is None:
        total = sum(
            float(rows.float().square().sum(dtype=torch.float64))
            for rows in weight_VD[:num_tokens].split(ROWS)
        )
        found = scale * (total / (num_tokens * weight_VD.shape[1])) ** 0.5
    return InputSpace(num_tokens, scale, float(found))


def keep_rms(model: PreTrainedModel, space: InputSpace) -> None:
    """Let every directory that this model is saved to say what noise is measured by."""
    model.config.update({CONFIG_KEY: space.rms})
