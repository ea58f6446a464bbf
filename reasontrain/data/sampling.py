"""How the next token is drawn from a policy's distribution, and where a response ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from reasontrain.data.thought import Thought
from reasontrain.types import AtLeastOne, NotNegative, Probability, Ratio


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """One law for the next token.

    `temperature` divides the logits; 0 takes the likeliest token. Of the scaled distribution
    `top_k` keeps that many likeliest tokens (0 keeps all), then `top_p` the fewest likeliest ones
    that hold this share of what is left (nucleus sampling, Holtzman et al. 2020), then `min_p`
    those at least this probable relative to the likeliest (Nguyen et al. 2024); what is left is
    renormalised. A response ends after the model's own end-of-sequence ids, one of `stop_ids`, the
    token that completes one of the texts `stop`, or `max_tokens`. With a `thought` all this is said
    of the answer that follows it, but for `max_tokens`, which bounds the two together.
    """

    learned: ClassVar[bool] = False
    """Whether rollouts keep what was fed to the model in place of tokens."""

    temperature: NotNegative = 1.0
    top_p: Ratio = 1.0
    top_k: Annotated[int, Ge(0)] = 0
    min_p: Probability = 0.0
    max_tokens: AtLeastOne = 1024
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    thought: Thought | None = None

    def __post_init__(self) -> None:
        if "" in self.stop:
            raise ValueError(
                "`stop` holds an empty text, which would end every response at once; remove it"
            )
        thought = self.thought
        if (
            thought is not None
            and thought.max_tokens + thought.max_answer_tokens >= self.max_tokens
        ):
            raise ValueError(
                f"`max_tokens` is {self.max_tokens}, and a thought of {thought.max_tokens} "
                f"with an answer of "
                f"{thought.max_answer_tokens} and the text forced between them need more; "
                f"raise it, or lower those of `thought`"
            )

    @property
    def truncates(self) -> bool:
        """Whether some tokens that the model gives probability can never be drawn."""
        return self.temperature == 0 or self.top_p < 1 or self.top_k > 0 or self.min_p > 0
