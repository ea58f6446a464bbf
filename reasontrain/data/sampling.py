"""Sampling settings: the distribution of the next token, and the end of a response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from reasontrain.data.environment import EnvironmentSettings
from reasontrain.data.thought import Thought
from reasontrain.types import AtLeastOne, NotNegative, Probability, Ratio


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The distribution that the next token is drawn from, and the end of a response.

    The truncations apply in the order of the list; the rest is renormalised. With a `thought`, all
    settings but `max_tokens` apply to the answer that follows it.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: keep this many likeliest tokens; 0 keeps all.
        top_p: keep the fewest likeliest tokens that hold this share of what is left (nucleus
            sampling, Holtzman et al. 2020).
        min_p: keep tokens at least this probable relative to the likeliest (Nguyen et al. 2024).
        max_tokens: most tokens of a response, its thought and observations included.
        stop: a response ends after the token that completes one of these texts.
        stop_ids: a response ends after one of these ids, or one of the model's end-of-sequence ids.
        thought: settings of the chain of thought; None for plain sampling.
        environment: what answers the policy between its turns; None for responses of one turn.
    """

    learned: ClassVar[bool] = False
    """True if rollouts keep the embeddings that were fed in place of tokens."""

    temperature: NotNegative = 1.0
    top_p: Ratio = 1.0
    top_k: Annotated[int, Ge(0)] = 0
    min_p: Probability = 0.0
    max_tokens: AtLeastOne = 1024
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    thought: Thought | None = None
    environment: EnvironmentSettings | None = None

    def __post_init__(self) -> None:
        if "" in self.stop:
            raise ValueError(
                "`stop` holds an empty text, which would end every response at once; remove it"
            )
        thought = self.thought
        if thought is not None and self.environment is not None:
            raise ValueError(
                "`thought` and `environment` cannot be combined: a separate thought ends with an "
                "answer, and not with a turn; remove one of them"
            )
        if (
            thought is not None
            and thought.max_tokens + thought.max_answer_tokens >= self.max_tokens
        ):
            raise ValueError(
                f"`max_tokens` is {self.max_tokens}, but a thought of {thought.max_tokens} tokens, "
                f"an answer of {thought.max_answer_tokens} and the text forced between them need "
                f"more; raise `max_tokens`, or lower the limits of `thought`"
            )

    @property
    def has_environment_reward(self) -> bool:
        """True if the environment computes the reward of a rollout, in place of the task."""
        return self.environment is not None and self.environment.gives_reward

    @property
    def truncates(self) -> bool:
        """True if tokens with positive probability can be cut from the distribution."""
        return self.temperature == 0 or self.top_p < 1 or self.top_k > 0 or self.min_p > 0
