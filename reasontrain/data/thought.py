"""Settings of a separate chain of thought: the distribution of its steps, and its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reasontrain.types import AtLeastOne, NotNegative, Positive


@dataclass(frozen=True, kw_only=True)
class _Bounds:
    r"""Limits of a thought and the text that leads from it to the answer.

    A thought ends when its text ends with `stop_text`; the tokens of `early` are then fed. If it
    reaches `max_tokens` or an end-of-sequence token first, `late` is fed instead. Then the answer
    is sampled, at most `max_answer_tokens` long. The defaults are those of Soft Tokens (arXiv
    2509.19170, appendix C), whose prompt requests this ending.
    """

    max_tokens: AtLeastOne = 512
    max_answer_tokens: AtLeastOne = 32
    stop_text: str = "The final answer is:"
    early: str = r"\boxed{"
    late: str = r"The final answer is: \boxed{"

    def __post_init__(self) -> None:
        for name, text in (
            ("stop_text", self.stop_text),
            ("early", self.early),
            ("late", self.late),
        ):
            if not text:
                raise ValueError(
                    f"`{name}` is empty; give the text, or leave it out for the paper's"
                )


@dataclass(frozen=True, kw_only=True)
class HardThought(_Bounds):
    """Each step is a token, drawn at temperature `tau` (0: the likeliest)."""

    kind: Literal["hard"] = "hard"
    tau: NotNegative = 1.0


@dataclass(frozen=True, kw_only=True)
class SoftThought(_Bounds):
    """Each step is softmax(z / tau) E plus normal noise (Soft Tokens, arXiv 2509.19170, eq. 5-6).

    The noise has the standard deviation gamma times the root mean square of the embeddings of the
    ids in use (see `models.embedding`); 0 adds none. The thought's text is decoded from the
    likeliest token at each step; these tokens are never fed.
    """

    kind: Literal["soft"] = "soft"
    tau: Positive = 0.5
    gamma: NotNegative = 0.33


@dataclass(frozen=True, kw_only=True)
class FuzzyThought(_Bounds):
    """As `soft`, at such a low temperature that the mixture is nearly always one token."""

    kind: Literal["fuzzy"] = "fuzzy"
    tau: Positive = 1e-4
    gamma: NotNegative = 0.33


Thought = HardThought | SoftThought | FuzzyThought
