"""Checks of a tokenizer, in one place for all that encode with it."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from reasontrain.types import UserError

SAMPLE = "What is 1 + 1?"


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise UserError if a tokenizer knows no text, as transformers builds one without files."""
    ids = tokenizer(SAMPLE, add_special_tokens=False)["input_ids"]
    if set(ids) <= {tokenizer.unk_token_id}:
        raise UserError(
            f"the tokenizer of {name} encodes {SAMPLE!r} as {'nothing' if not ids else 'unknown'}: "
            f"its files hold no vocabulary; copy tokenizer.json and tokenizer_config.json from the "
            f"model that it was made from"
        )


def end_of_text_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that ends a written response; raises UserError if there is none."""
    end = tokenizer.eos_token_id
    if end is None:
        raise UserError(
            "the tokenizer has no end-of-text token (eos_token) to end written responses with; "
            "set `eos_token` in its tokenizer_config.json, or use another model"
        )
    return int(end)


def facts_about(tokenizer: PreTrainedTokenizerBase, *, chat: bool) -> list[str]:
    """Sentences about what a tokenizer lacks and a run can do without.

    Args:
        tokenizer: the tokenizer.
        chat: prompts are written by a chat template if there is one.
    """
    facts = []
    if tokenizer.pad_token_id is None:
        facts.append("the tokenizer has no pad token; none is needed, as padding is never read")
    if chat and tokenizer.chat_template is None:
        facts.append("the tokenizer has no chat template; prompts are plain text")
    return facts
