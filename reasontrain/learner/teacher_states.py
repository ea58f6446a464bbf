"""Hidden states of teachers with weights at the tokens of a step, kept from evidence to loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import log

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain import vocab
from reasontrain.data.micro_batches import MicroBatch, MicroBatchTokens
from reasontrain.data.teacher_view import teacher_micro_batch, teacher_tokens
from reasontrain.learner.policy_module import FrozenModel, RequestedModel
from reasontrain.recipe import WeightsTeacher
from reasontrain.types import Batch


@dataclass(frozen=True)
class SeveralTeachers:
    """Several frozen models that are compared with the policy.

    Attributes:
        models: the models.
        weights: the weight of each in a mixture of their distributions, with sum 1; None if every
            rollout has one of them (`Batch.teacher_index`).
    """

    models: tuple[FrozenModel, ...]
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True, eq=False)
class PartialStates:
    """Hidden states of one teacher at M of N tokens, and where these are among the N."""

    hidden_MD: Float[Tensor, "M D"]
    row_M: Int[Tensor, " M"]


class TeacherStates:
    """Runs one teacher or several, and keeps their hidden states until `forget`."""

    def __init__(
        self, teacher: FrozenModel | SeveralTeachers, compared: WeightsTeacher | None = None
    ) -> None:
        """Build from loaded models.

        Args:
            teacher: the model, or several.
            compared: how many ids of a single teacher are compared; None: all.
        """
        several = teacher if isinstance(teacher, SeveralTeachers) else SeveralTeachers((teacher,))
        self.models = several.models
        self._weights = several.weights
        self._compared = compared
        self.hidden: list[dict[int, tuple[Int[Tensor, " M"], Float[Tensor, "M D"]]]] = [
            {} for _ in self.models
        ]
        """Of each model, by rollout: positions in the student's sequence, and the states there."""
        self._width: list[Float[Tensor, "0 D"]] = []
        self._views: dict[tuple[int, int], tuple[MicroBatch, MicroBatch]] = {}

    @property
    def are_kept(self) -> bool:
        """True if `measure` has run on the batch."""
        return bool(self._width)

    def forget(self) -> None:
        """Drop the hidden states of the step."""
        for kept in self.hidden:
            kept.clear()
        self._width.clear()
        self._views.clear()

    def request(self, batch: Batch, upcoming: Sequence[MicroBatchTokens]) -> None:
        """Let a teacher in another process start on these."""
        for number, model in enumerate(self.models):
            if isinstance(model, RequestedModel):
                for tokens in upcoming:
                    seen, _ = self._seen_by(number, batch, tokens)
                    model.request(seen.micro_batch, seen.logit_position_N)

    def measure(self, batch: Batch, tokens: MicroBatchTokens) -> list[PartialStates]:
        """Run every model at its tokens, and keep the hidden states."""
        states = self.run(batch, tokens)
        # Empty slices tell the widths D to a micro-batch of which no rollout is kept.
        self._width = [each.hidden_MD[:0] for each in states]
        for kept, each in zip(self.hidden, states, strict=True):
            local_M = tokens.local_N[each.row_M]
            token_M = tokens.token_N[each.row_M]
            for local in local_M.unique().tolist():
                among_M = local_M == local
                index = int(tokens.micro_batch.index_K[local])
                kept[int(batch.rollout_B[index])] = token_M[among_M], each.hidden_MD[among_M]
        return states

    def run(self, batch: Batch, tokens: MicroBatchTokens) -> list[PartialStates]:
        """Run every model at its tokens.

        A model without any runs on one token: ranks that share its weights run it together.
        """
        states = []
        for number, model in enumerate(self.models):
            seen, row_M = self._seen_by(number, batch, tokens)
            hidden_MD = model.hidden(seen.micro_batch, seen.logit_position_N)
            states.append(PartialStates(hidden_MD, row_M))
        return states

    def at(self, batch: Batch, tokens: MicroBatchTokens) -> list[PartialStates]:
        """The hidden states that `measure` has kept."""
        states = []
        for number, (kept, none) in enumerate(zip(self.hidden, self._width, strict=True)):
            row_M = self._rows(number, batch, tokens)
            parts = [none]
            for local, index in enumerate(tokens.micro_batch.index_K.tolist()):
                token_M = tokens.token_N[row_M][tokens.local_N[row_M] == local]
                if len(token_M):
                    kept_M, hidden_MD = kept[int(batch.rollout_B[index])]
                    place_M = torch.searchsorted(kept_M, token_M)
                    parts.append(hidden_MD[place_M.to(none.device, non_blocking=True)])
            states.append(PartialStates(torch.cat(parts), row_M))
        return states

    @contextmanager
    def compare(
        self, states: Sequence[PartialStates], num_tokens: int
    ) -> Iterator[vocab.AnyTeacher]:
        """The teacher with these hidden states, for use within the block."""
        with ExitStack() as stack:
            heads = [stack.enter_context(model.head()) for model in self.models]
            if len(self.models) > 1:
                yield vocab.MixedTeacher(
                    tuple(
                        vocab.MixedPart(each.hidden_MD, head, each.row_M, log_weight)
                        for each, head, log_weight in zip(
                            states, heads, self._log_weights, strict=True
                        )
                    ),
                    num_tokens,
                )
            elif self._compared is None or self._compared.top_k is None:
                yield vocab.Teacher(states[0].hidden_MD, heads[0])
            else:
                likeliest = vocab.top_k(states[0].hidden_MD, heads[0], self._compared.top_k)
                yield replace(likeliest, tail=self._compared.tail)

    @property
    def _log_weights(self) -> list[float]:
        if self._weights is None:
            return [0.0] * len(self.models)
        return [log(weight) for weight in self._weights]

    def _rows(self, number: int, batch: Batch, tokens: MicroBatchTokens) -> Int[Tensor, " M"]:
        """The tokens, as indices, whose rollouts this model scores."""
        own = self._own(number, batch, tokens.micro_batch)
        if len(own) == len(tokens.micro_batch.index_K):
            return torch.arange(len(tokens))
        return torch.isin(tokens.local_N, own).nonzero().squeeze(1)

    def _own(self, number: int, batch: Batch, micro_batch: MicroBatch) -> Int[Tensor, " K"]:
        """The rollouts of a micro-batch, counted within it, that this model scores."""
        if len(self.models) == 1 or self._weights is not None:
            return torch.arange(len(micro_batch.index_K))
        index_of: Mapping[int, int] = batch.teacher_index
        rollouts = batch.rollout_B[micro_batch.index_K].tolist()
        own = [local for local, rollout in enumerate(rollouts) if index_of[rollout] == number]
        return torch.tensor(own, dtype=torch.long)

    def _seen_by(
        self, number: int, batch: Batch, tokens: MicroBatchTokens
    ) -> tuple[MicroBatchTokens, Int[Tensor, " M"]]:
        """The tokens of this model in the sequences that it reads, and their indices.

        A micro-batch has one view until `forget`: a teacher in another process knows what was
        requested of it by the object.
        """
        row_M = self._rows(number, batch, tokens)
        micro_batch = tokens.micro_batch
        own_K = self._own(number, batch, micro_batch)
        if not batch.teacher_prompts and len(own_K) == len(micro_batch.index_K):
            return tokens, row_M
        key = number, id(micro_batch)
        if key not in self._views:
            # The first of the pair keeps the id from being used again.
            self._views[key] = micro_batch, teacher_micro_batch(batch, micro_batch, own_K)
        return teacher_tokens(batch, tokens, self._views[key][1], own_K, row_M), row_M
