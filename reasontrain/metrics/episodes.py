"""Metrics of conversations with an environment."""

from __future__ import annotations

from collections.abc import Sequence

from reasontrain.types import Rollout, Stats, TokenKind


def episode_numbers(rollouts: Sequence[Rollout]) -> Stats:
    """Metrics of the conversations of a step; empty if there were none.

    - `turns_mean`: turns of the policy.
    - `tool_use_share`: conversations with an observation after a turn.
    - `tool_tokens_mean`: tokens of observations, with the marks of their turns.
    - `observations_cut_share`: observations that were cut at `observation_tokens`.
    """
    episodes = [rollout.episode for rollout in rollouts if rollout.episode is not None]
    if not episodes:
        return {}
    num_observations = sum(episode.num_observations for episode in episodes)
    num_tokens = sum(rollout.kinds.count(TokenKind.TOOL) for rollout in rollouts)
    return {
        "turns_mean": sum(episode.num_turns for episode in episodes) / len(episodes),
        "tool_use_share": sum(episode.num_observations > 0 for episode in episodes) / len(episodes),
        "tool_tokens_mean": num_tokens / len(episodes),
        "observations_cut_share": sum(episode.num_cut for episode in episodes)
        / max(num_observations, 1),
    }
