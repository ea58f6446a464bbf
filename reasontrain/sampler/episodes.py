"""Conversations with an environment, over any engine that completes sequences of tokens.

All conversations of a call take their turns together: the engine samples the turn of each, the
environments answer, and the observations are put behind the turns. The ids of a turn are never
encoded again. Random numbers depend on the rollout and the position in it, so that neither the
other conversations nor an interruption change one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from transformers import PreTrainedTokenizerBase

from reasontrain import rng
from reasontrain.data import thought_marks
from reasontrain.data.environment import EnvironmentSettings
from reasontrain.data.sampling import Sampling
from reasontrain.environments import EpisodeCall, Runners, StepResult
from reasontrain.rng import Stream
from reasontrain.sampler.observations import ObservationEncoder
from reasontrain.sampler.sequence import SequenceState, room_of
from reasontrain.types import Episode, Prompt, Rollout, RunError, TokenKind

logger = logging.getLogger(__name__)


@runtime_checkable
class TurnSampler(Protocol):
    """A sampler that completes the turns of conversations."""

    seed: int
    environments: Runners

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        ...

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end a response of the model."""
        ...

    @property
    def context(self) -> int:
        """The most tokens of a conversation."""
        ...

    def complete(self, sequences: Sequence[SequenceState], sampling: Sampling) -> None:
        """Sample until each sequence has stopped or used up its budget.

        The random numbers of a token depend on the sequence's id, and on its `start` and the index
        in its `response`, alone.
        """


@dataclass
class Conversation:
    """A rollout in progress.

    Attributes:
        prompt: the prompt, with the observation that `reset` gave.
        id: the rollout's id.
        group: the id of the first rollout of its group.
        seed: the environment's random number.
        response: ids of turns and observations.
        kinds: the `TokenKind` of each of them.
        logp: the sampler's log-prob of each of them, 0 in observations.
        turns: the texts of the turns.
        turn_start: index in `response` of the last turn.
        is_over: no turn follows.
        truncated: it ended at a limit.
        has_logp: the sampler reported the log-probs of every turn.
        has_opening: `reset` gave an observation.
        num_observations: observations between turns.
        num_cut: observations that were cut.
        reward: the sum of rewards; None if there was none.
        failure: the way in which a call failed.
    """

    prompt: Prompt
    id: int
    group: int
    seed: int
    response: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    turns: list[str] = field(default_factory=list)
    turn_start: int = 0
    is_over: bool = False
    truncated: bool = False
    has_logp: bool = True
    has_opening: bool = False
    num_observations: int = 0
    num_cut: int = 0
    reward: float | None = None
    failure: str | None = None

    def call(self) -> EpisodeCall:
        """The call of the environment that is due."""
        return EpisodeCall(
            rollout=self.id,
            seed=self.seed,
            problem=self.prompt.problem,
            turns=tuple(self.turns),
        )

    def begin_turn(self, max_tokens: int, context: int) -> SequenceState:
        """The sequence of the next turn, whose prompt is everything before it."""
        prompt = replace(self.prompt, ids=(*self.prompt.ids, *self.response))
        self.turn_start = len(self.response)
        budget = min(max_tokens - len(self.response), room_of(prompt, context))
        return SequenceState(prompt, self.id, self.group, budget, start=len(self.response))

    def add_turn(self, sequence: SequenceState, text: str) -> None:
        """Append a sampled turn; one that was cut is the last."""
        size = len(sequence.response)
        self.has_logp &= len(sequence.logp) == size
        self.response += sequence.response
        self.logp += sequence.logp if self.has_logp else [0.0] * size
        self.kinds += [int(TokenKind.RESPONSE)] * size
        self.turns.append(text)
        self.is_over = self.truncated = not sequence.stopped

    def add_observation(self, ids: Sequence[int], *, is_cut: bool) -> None:
        """Append the ids between this turn and the next."""
        self.response += ids
        self.logp += [0.0] * len(ids)
        self.kinds += [int(TokenKind.TOOL)] * len(ids)
        self.num_observations += 1
        self.num_cut += is_cut

    def rollout(self, tokenizer: PreTrainedTokenizerBase) -> Rollout:
        """The finished rollout, whose answer is in the last turn."""
        text = thought_marks.decode(tokenizer, self.response)
        reading = thought_marks.marks_of(tokenizer).read(
            text, truncated=self.truncated, state=self.prompt.thought
        )
        before = thought_marks.decode(tokenizer, self.response[: self.turn_start])
        return Rollout(
            problem=self.prompt.problem,
            id=self.id,
            group=self.group,
            prompt_ids=self.prompt.ids,
            response_ids=tuple(self.response),
            text=text,
            sampled_logp=tuple(self.logp) if self.has_logp else (),
            truncated=self.truncated,
            unfinished=reading.unfinished,
            answer_start=max(reading.start, len(before)),
            kinds=tuple(self.kinds),
            episode=Episode(
                num_turns=len(self.turns),
                has_opening=self.has_opening,
                num_observations=self.num_observations,
                num_cut=self.num_cut,
                reward=self.reward,
                failure=self.failure,
            ),
        )


def sample_episodes(
    sampler: TurnSampler, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
) -> list[Rollout]:
    """Sample `num` conversations of every prompt (see `Sampler.sample`).

    Args:
        sampler: completes turns, and holds the processes of environments.
        prompts: the encoded prompts.
        sampling: its `environment`, and the settings of every turn. `max_tokens` is the limit of
            all turns and observations together.
        num: conversations per prompt.
        first_id: the id of the first one.

    Returns:
        `len(prompts) * num` rollouts, prompt by prompt.

    Raises:
        UserError: a prompt leaves no room, or the chat template has no such turns.
        RunError: a call of the environment failed, and `on_error` is `stop`.
    """
    settings = sampling.environment
    assert settings is not None, "a response of one turn has no environment"
    encoder = ObservationEncoder(
        sampler.tokenizer, settings.role, max_tokens=settings.observation_tokens
    )
    driver = _Driver(sampler, settings, encoder, sampling)
    conversations = driver.begin(prompts, num, first_id)
    while live := [each for each in conversations if not each.is_over]:
        driver.take_turns(live)
    return [each.rollout(sampler.tokenizer) for each in conversations]


class _Driver:
    """The turns of the conversations of one call."""

    def __init__(
        self,
        sampler: TurnSampler,
        settings: EnvironmentSettings,
        encoder: ObservationEncoder,
        sampling: Sampling,
    ) -> None:
        self.sampler = sampler
        self.settings = settings
        self.encoder = encoder
        self.max_tokens = sampling.max_tokens
        self.turn_sampling = replace(
            sampling, environment=None, stop=(*sampling.stop, *settings.stop)
        )
        self.ends = sampler.stop_ids | frozenset(sampling.stop_ids)
        self.runner = sampler.environments.of(settings)

    def begin(self, prompts: Sequence[Prompt], num: int, first_id: int) -> list[Conversation]:
        """Begin `num` conversations of every prompt with the observations of `reset`."""
        ids = torch.arange(first_id, first_id + len(prompts) * num)
        uniform = rng.uniform(self.sampler.seed, Stream.ENVIRONMENT_SEEDS, ids)
        seeds: list[int] = (uniform * 2.0**53).long().tolist()
        conversations = [
            Conversation(
                prompts[index // num], first_id + index, first_id + index // num * num, seed
            )
            for index, seed in enumerate(seeds)
        ]
        self.runner.check()
        self.runner.begin()
        for prompt in prompts:
            self.encoder.check(prompt)
        results = self.runner.run([each.call() for each in conversations])
        for conversation, result in zip(conversations, results, strict=True):
            if result.failure is not None:
                self._fail(conversation, result)
            elif result.observation:
                ids_of_prompt = self.encoder.opening(conversation.prompt, result.observation)
                conversation.prompt = replace(conversation.prompt, ids=ids_of_prompt)
                conversation.has_opening = True
        return conversations

    def take_turns(self, live: Sequence[Conversation]) -> None:
        """Sample one turn of every conversation, and let the environments answer."""
        sequences = [each.begin_turn(self.max_tokens, self.sampler.context) for each in live]
        self.sampler.complete(sequences, self.turn_sampling)
        for conversation, sequence in zip(live, sequences, strict=True):
            conversation.add_turn(sequence, self._text(sequence.response))
        # a turn that was cut at the limit is no call that could be answered
        answered = [each for each in live if not each.is_over]
        results = self.runner.run([each.call() for each in answered])
        for conversation, result in zip(answered, results, strict=True):
            self._answer(conversation, result)

    def _text(self, turn: Sequence[int]) -> str:
        """A turn as its environment reads it: without the token that ended it."""
        ids = list(turn[:-1] if turn and turn[-1] in self.ends else turn)
        text = self.sampler.tokenizer.decode(ids, skip_special_tokens=False)
        assert isinstance(text, str)
        return text

    def _answer(self, conversation: Conversation, result: StepResult) -> None:
        """Apply the result of a step, and put the observation behind the turn if it fits."""
        if result.failure is not None:
            self._fail(conversation, result)
            return
        if result.reward is not None:
            conversation.reward = (conversation.reward or 0.0) + result.reward
        response = conversation.response
        # text inside a response follows a stop text; a response that has ended stays so
        is_end = self.settings.role == "inline" and response[-1] in self.ends
        if result.done or is_end:
            conversation.is_over = True
            return
        turn = response[conversation.turn_start :]
        ids, is_cut = self.encoder.following(conversation.prompt, turn, result.observation)
        length = len(response) + len(ids)
        room = self.sampler.context - len(conversation.prompt.ids)
        has_room = length < min(self.max_tokens, room)
        if len(conversation.turns) >= self.settings.max_turns or not has_room:
            conversation.is_over = conversation.truncated = True
            return
        conversation.add_observation(ids, is_cut=is_cut)

    def _fail(self, conversation: Conversation, result: StepResult) -> None:
        """End a conversation whose environment failed; raise RunError if that stops the run."""
        where = f"problem {conversation.prompt.problem.id!r}"
        if self.settings.on_error == "stop":
            trace = f"\n{result.trace}" if result.trace else ""
            raise RunError(
                f"{result.message} ({where}){trace}\n`environment.on_error: drop` leaves such "
                "rollouts out, and `zero` gives them the reward 0"
            )
        if self.sampler.environments.is_first(result.message):
            effect = "are left out" if self.settings.on_error == "drop" else "get the reward 0"
            logger.warning(
                f"{result.message} ({where}); such rollouts {effect} (on_error: "
                f"{self.settings.on_error}) and are counted"
            )
        conversation.is_over = True
        conversation.failure = result.failure
