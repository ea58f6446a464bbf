"""Checks of a tokenizer alone, without a task: its vocabulary, and tokens that it lacks."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from reasontrain.types import UserError

SAMPLE = "What is 1 + 1?"


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise UserError if a tokenizer knows no text, as transformers builds one without files."""
    ids = tokenizer(SAMPLE, add_special_tokens=False)["input_ids"]
    if set(ids) <= {tokenizer.unk_token_id}:
        raise UserError(
            f"the tokenizer of {name} encodes {SAMPLE!r} as {'unknown' if ids else 'nothing'}: "
            f"its files hold no vocabulary; copy tokenizer.json and tokenizer_config.json from the "
            f"model that it was made from"
        )


def facts_about(tokenizer: PreTrainedTokenizerBase, *, chat: bool, samples: bool) -> list[str]:
    """Sentences about what a tokenizer lacks and a run can do without.

    Args:
        tokenizer: the tokenizer.
        chat: prompts are written by a chat template if there is one.
        samples: responses are sampled.

    Returns:
        One sentence for each token or template that is not there.
    """
    facts = []
    if tokenizer.pad_token_id is None:
        facts.append("the tokenizer has no pad token; none is needed, as padding is never read")
    if tokenizer.eos_token_id is None and samples:
        facts.append(
            "the tokenizer has no end-of-text token; a sampled response ends as the chat template "
            "and generation_config.json say, at `stop`, or at `max_tokens`"
        )
    if tokenizer.chat_template is None and chat:
        facts.append("the tokenizer has no chat template; prompts are plain text")
    return facts
