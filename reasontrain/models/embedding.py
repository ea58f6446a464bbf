"""Facts about a model's input embeddings that soft chains of thought need.

They are measured once, on the weights before any training, so that the noise of soft tokens keeps
its size while the embeddings are trained.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasontrain.types import Problem, text_of

logger = logging.getLogger(__name__)

CONFIG_KEY = "embedding_rms"
"""Key in a model's configuration for the `rms` of the weights that its training started from."""
ALL_KEY = "embedding_rms_of_all_tokens"
"""Key in a model's configuration for the `rms_of_all` of those weights."""
SAMPLED_PROBLEMS = 512
"""Problems of a task, evenly spaced, whose ids are counted."""
LARGEST_RATIO = 1.5
"""Ratio of `rms_of_all` to `rms` above which a warning says that they differ."""
CHUNK_ROWS = 4096
"""Rows of the embedding matrix that are cast to float32 at a time."""


@dataclass(frozen=True)
class InputSpace:
    """The space of a model's token embeddings, at the input of its first layer.

    Attributes:
        num_tokens: rows of the embedding matrix that are tokens; the rest is padding.
        scale: factor that the model multiplies its embeddings by (Gemma).
        rms: root mean square of the coordinates at the start of training; the unit of noise. It is
            over the ids that a task uses, weighted by how often they occur, once
            `measure_ids_in_use` has counted them, and over all tokens before.
        rms_of_all: the same over all tokens, each counted once.
    """

    num_tokens: int
    scale: float
    rms: float
    rms_of_all: float


@torch.no_grad()
def input_space(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> InputSpace:
    """The input space of a model, with the figures that an earlier run wrote, if one did."""
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
    stored = model.config.to_dict()
    rms_of_all = stored.get(ALL_KEY)
    if rms_of_all is None:
        one_each_V = torch.ones(num_tokens, dtype=torch.long, device=weight_VD.device)
        rms_of_all = scale * _rms(weight_VD[:num_tokens], one_each_V)
    rms = stored.get(CONFIG_KEY, rms_of_all)
    return InputSpace(num_tokens, scale, float(rms), float(rms_of_all))


@torch.no_grad()
def measure_ids_in_use(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    space: InputSpace,
    problems: Sequence[Problem],
) -> InputSpace:
    """The input space with the `rms` of the ids in prompts and solutions, by frequency.

    Rows of ids that never occur can dominate the plain mean: a tied head suppresses their logits
    by growing them. Templates are not counted. Both figures are written to the configuration, so
    that they are saved with the model; if it has them already, they stay.

    Args:
        model: the model, with the weights that training starts from.
        tokenizer: its tokenizer.
        space: its input space.
        problems: the task's; some of them are counted.

    Returns:
        The input space whose `rms` is the unit of noise.
    """
    if CONFIG_KEY in model.config.to_dict():
        return space
    weight_VD = model.get_input_embeddings().weight[: space.num_tokens]
    counts = Counter[int]()
    for problem in problems[:: max(1, len(problems) // SAMPLED_PROBLEMS)]:
        for text in _texts(problem):
            counts.update(tokenizer(text, add_special_tokens=False)["input_ids"])
    count_V = torch.zeros(space.num_tokens, dtype=torch.long)
    for index, number in counts.items():
        count_V[index] = number
    if counts:
        space = replace(space, rms=space.scale * _rms(weight_VD, count_V.to(weight_VD.device)))
    if space.rms_of_all > LARGEST_RATIO * space.rms:
        logger.warning(
            f"the root mean square of the embeddings is {space.rms:.4g} over the {len(counts)} ids "
            f"in use, by frequency, and {space.rms_of_all:.4g} over all {space.num_tokens} tokens; "
            f"the noise of soft thoughts is gamma times the former, so a gamma meant for the "
            f"latter would have to be {space.rms_of_all / space.rms:.3g} times as large"
        )
    model.config.update({CONFIG_KEY: space.rms, ALL_KEY: space.rms_of_all})
    return space


def _texts(problem: Problem) -> list[str]:
    """The texts of a problem: its prompt or turns, and its solution."""
    prompt = problem.prompt
    turns = [prompt] if isinstance(prompt, str) else [text_of(turn) for turn in prompt]
    return [*turns, problem.solution]


def _rms(weight_VD: Float[Tensor, "V D"], count_V: Int[Tensor, " V"]) -> float:
    """Root mean square of the coordinates of these rows, each counted so many times."""
    total = sum(
        float((rows.float().square().sum(1, dtype=torch.float64) * count).sum())
        for rows, count in zip(weight_VD.split(CHUNK_ROWS), count_V.split(CHUNK_ROWS), strict=True)
    )
    return (total / (int(count_V.sum()) * weight_VD.shape[1])) ** 0.5
