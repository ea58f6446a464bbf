"""The chain of thought as a part of its own: how its steps are drawn, and how it is brought to an
answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reasontrain.types import AtLeastOne, NotNegative, Positive


@dataclass(frozen=True, kw_only=True)
class _Bounds:
    r"""A thought ends when its text comes to end with `stop_text`, and `early` is then forced on
    the model.

    At `max_tokens`, or at the end of the text, `late` is. After that the answer is sampled, up to
    `max_answer_tokens`. The defaults are those of Soft Tokens (arXiv 2509.19170, appendix C); its
    prompt asks for this ending.
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
    """Every step is a token, drawn at temperature `tau` (0: the likeliest)."""

    kind: Literal["hard"] = "hard"
    tau: NotNegative = 1.0


@dataclass(frozen=True, kw_only=True)
class SoftThought(_Bounds):
    """Every step is softmax(z / tau) E plus normal noise of gamma times the embeddings' root mean
    square (0: no noise).

    Its text is that of its shadow, the likeliest token at each step, which is never fed (Soft
    Tokens, arXiv 2509.19170, eq. 5-6).
    """

    kind: Literal["soft"] = "soft"
    tau: Positive = 0.5
    gamma: NotNegative = 0.33


@dataclass(frozen=True, kw_only=True)
class FuzzyThought(_Bounds):
    """As `soft`, so cold that the mixture is nearly always one token: a token with noise."""

    kind: Literal["fuzzy"] = "fuzzy"
    tau: Positive = 1e-4
    gamma: NotNegative = 0.33


Thought = HardThought | SoftThought | FuzzyThought
