"""Size of a step: rollouts, tokens and micro-batches, in total and per rank."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reasontrain.plan.machine import DEFAULT_PROMPT, DEFAULT_RESPONSE, Machine
from reasontrain.recipe import Recipe

_PROGRESS = tuple(i / 100 for i in range(101))
"""The points of a run at which schedules of keep ratios are evaluated."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A step of the run, with the assumed length for every prompt and response.

    `ranks` learner ranks form groups of `sequence_parallel` that share every sequence;
    `rollouts_per_group` are those of one group. `micro_batches_per_rank` counts those of one pass
    over the batch, in all its mini-batches. `kept_share` is the largest fraction of response tokens
    that selection keeps in any step, which bounds memory; `rollouts_kept_share` is the mean
    fraction of rollouts over the run.
    """

    ranks: int
    prompts: int
    rollouts: int
    prompt_tokens: int
    response_tokens: int
    sequence_parallel: int
    rollouts_per_rank: int
    rollouts_per_group: int
    rollouts_per_micro_batch: int
    micro_batches_per_rank: int
    micro_batches_per_update: int
    rows_per_sampler: int
    kept_share: float
    rollouts_kept_share: float

    @property
    def length(self) -> int:
        """Tokens of a rollout."""
        return self.prompt_tokens + self.response_tokens

    @property
    def tokens(self) -> int:
        """Tokens of a step that go through the trunk."""
        return self.rollouts * self.length

    @property
    def length_per_rank(self) -> int:
        """Tokens of a rollout that one rank holds."""
        return _share(self.length, self.sequence_parallel)

    @property
    def responses_per_rank(self) -> int:
        """Response tokens of a rollout on the rank that holds most of them, the last of a group."""
        return min(self.response_tokens, self.length_per_rank)

    @property
    def micro_batch_tokens(self) -> int:
        """Tokens that one forward holds on a rank."""
        return self.rollouts_per_micro_batch * self.length_per_rank

    @property
    def micro_batch_responses(self) -> int:
        """Response tokens of one forward on a rank."""
        return self.rollouts_per_micro_batch * self.responses_per_rank

    @property
    def micro_batch_rows(self) -> int:
        """Tokens of one forward that have a loss, on a rank."""
        # Selection may keep more on one rank of a group than on the others.
        kept = int(self.rollouts_per_micro_batch * self.response_tokens * self.kept_share)
        return max(1, min(kept, self.micro_batch_responses))

    @property
    def tokens_per_rank(self) -> int:
        """Tokens of a step that go through the trunk of a rank."""
        return self.rollouts_per_group * self.length_per_rank

    @property
    def rows_per_rank(self) -> int:
        """Response tokens of a rank's rollouts."""
        return self.rollouts_per_group * self.responses_per_rank


def work_of(recipe: Recipe, machine: Machine, ranks: int, samplers: int) -> Work:
    """The size of a step of this recipe.

    Args:
        recipe: the recipe.
        machine: assumed lengths of prompts and responses in tokens; None for the recipe's.
        ranks: learner ranks.
        samplers: sampler processes; with none, the ranks sample.

    Returns:
        Numbers of rollouts, tokens and micro-batches.
    """
    prompt = machine.prompt_tokens or recipe.prompt.max_tokens or DEFAULT_PROMPT
    response = machine.response_tokens or (
        recipe.sample.max_tokens if recipe.sample else DEFAULT_RESPONSE
    )
    rollouts = recipe.learn.rollouts_per_step
    sequence_parallel = recipe.learn.sequence_parallel
    groups = ranks // sequence_parallel
    per_update = _share(_share(rollouts, recipe.learn.mini_batches), groups)
    fitting = min(per_update, max(1, recipe.learn.micro_batch_tokens // (prompt + response)))
    micro_batches_per_update = _share(per_update, fitting)
    rows = (
        min(recipe.sample.engine.max_num_seqs, _share(rollouts, samplers or ranks))
        if recipe.sample
        else 0
    )
    return Work(
        ranks=ranks,
        prompts=rollouts // (recipe.sample.group_size if recipe.sample else 1),
        rollouts=rollouts,
        prompt_tokens=prompt,
        response_tokens=response,
        sequence_parallel=sequence_parallel,
        rollouts_per_rank=_share(rollouts, ranks),
        rollouts_per_group=_share(rollouts, groups),
        rollouts_per_micro_batch=fitting,
        micro_batches_per_rank=recipe.learn.mini_batches * micro_batches_per_update,
        micro_batches_per_update=micro_batches_per_update,
        rows_per_sampler=rows,
        kept_share=max(map(recipe.token_selection.kept_share, _PROGRESS)),
        rollouts_kept_share=math.fsum(map(recipe.rollout_filter.kept_share, _PROGRESS))
        / len(_PROGRESS),
    )


def _share(total: int, parts: int) -> int:
    """The size of the largest of nearly equal parts."""
    return -(-total // parts)
