"""A short computation that decides if the local decode loop can sample from a model."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from reasontrain.models import Policy
from reasontrain.models.layouts import (
    example_ids,
    in_float32,
    relative_difference,
    tolerance,
)
from reasontrain.sampler.decode_batch import DecodeInputs, merge, prefill
from reasontrain.sampler.sequence import start_sequences
from reasontrain.types import Problem, Prompt, UserError

PROMPTS = (3, 6)
"""Lengths of two prompts, of which the shorter one is padded."""
STEPS = 3
"""Tokens that follow each prompt: enough for a step that reads what another has written."""


def check_decoding(policy: Policy) -> None:
    """Raise UserError if decoding with the cache is not one forward pass over all tokens.

    The model is in evaluation mode and in inference mode, as when it samples.
    """
    try:
        with in_float32(policy):
            error = _difference(policy)
    except Exception as failure:  # a model with a state of another kind fails in its own code
        lines = str(failure).strip().splitlines() or [type(failure).__name__]
        raise UserError(
            _refusal(policy, f"its layers do not work with it: {lines[0]}")
        ) from failure
    if error > tolerance(policy):
        reason = f"decoding with it changes hidden states by {error:.2g} of their size"
        raise UserError(_refusal(policy, reason))


def _refusal(policy: Policy, reason: str) -> str:
    return (
        f"{policy.model.config.model_type} cannot be sampled with the local engine, whose cache "
        f"holds keys and values of past tokens ({reason}); use `engine: {{kind: vllm}}`, or train "
        f"on written responses without `sample` and `evaluate`"
    )


def _difference(policy: Policy) -> float:
    """The largest relative difference between decoded hidden states and those of one pass."""
    sequences_T = example_ids(policy, tuple(length + STEPS for length in PROMPTS))
    prompts = [
        Prompt(problem=Problem(id=str(index), prompt=""), ids=tuple(ids_T[:length].tolist()))
        for index, (ids_T, length) in enumerate(zip(sequences_T, PROMPTS, strict=True))
    ]
    states = start_sequences(
        prompts, num=1, first_id=0, max_tokens=STEPS, context=max(PROMPTS) + STEPS
    )
    batch = merge([prefill(policy, states)], room=STEPS)
    inputs = DecodeInputs(batch, STEPS, 0, policy)
    decoded: list[Float[Tensor, "N D"]] = [batch.hidden_ND]
    for step in range(STEPS):
        next_N1 = torch.stack(
            [ids_T[length + step] for ids_T, length in zip(sequences_T, PROMPTS, strict=True)]
        )[:, None]
        decoded.append(inputs.advance(next_N1, batch.cache))
    decoded_NSD = torch.stack(decoded, 1)
    return max(
        relative_difference(decoded_NSD[row], policy.hidden(ids_T[None])[0, length - 1 :])
        for row, (ids_T, length) in enumerate(zip(sequences_T, PROMPTS, strict=True))
    )
