"""Operations that a step cannot avoid: matrix products of tokens with weights, and attention.

A product with a matrix of n parameters takes 2 n operations per token, its backward twice that
(Kaplan et al. 2020, arXiv 2001.08361); a layer's attention takes 4 x width for each pair of a token
and one that it attends to, itself included (scores and weighted sum). Only real tokens are counted,
not padding. Not counted: adapters, norms, embedding lookups, image encoders, the optimiser.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reasontrain.algo.evidence import forward_passes
from reasontrain.algo.objectives import SequenceObjective
from reasontrain.algo.objectives.reference_kl import ReferenceKl
from reasontrain.algo.token_selection import unread_evidence
from reasontrain.data.collate import num_sampled_tokens
from reasontrain.models import ModelSettings, Shape
from reasontrain.plan import shape as shapes
from reasontrain.plan.machine import Machine
from reasontrain.plan.roles import PlannedJob, job_of
from reasontrain.recipe import Recipe, Teacher, TeacherByColumn, TeacherMixture, WeightsTeacher
from reasontrain.types import Batch, Rollout, Stats, TokenKind

ModelT = TypeVar("ModelT", bound=ModelSettings)

TERA = 1e12
Amount = int | float


def trunk(shape: Shape, tokens: Amount, pairs: Amount) -> float:
    """Operations of one forward pass of `tokens` tokens through all layers.

    `pairs` is the number of (token, attended token) pairs.
    """
    return shape.num_layers * (
        2.0 * shapes.num_linear(shape) * tokens + 4.0 * shapes.width_q(shape) * pairs
    )


def head(shape: Shape, rows: Amount, products: int = 1) -> float:
    """Operations of `products` products of `rows` positions with a vocabulary-wide matrix."""
    return 2.0 * shapes.num_table(shape) * rows * products


@dataclass(frozen=True)
class Operations:
    """Counter of the operations of a recipe's steps, in 10^12 (TFLOP)."""

    job: PlannedJob

    def __call__(
        self, rollouts: Sequence[Rollout], batch: Batch, weight_BT: Float[Tensor, "B T"]
    ) -> Stats:
        """Count one step.

        Args:
            rollouts: all sampled rollouts, including those that were filtered out.
            batch: the kept rollouts.
            weight_BT: token weights; tokens of weight 0 need no loss.

        Returns:
            `tflop_sampled`, `tflop_evidence`, `tflop_learned`, and `tflop_recomputed`, the
            operations that are repeated to save memory.
        """
        # Mini-batches share a pass over the batch; evidence is measured once, before the first.
        epochs = self.job.recipe.learn.epochs_per_batch
        learned, recomputed = self._learned(batch, weight_BT)
        counts = {
            "sampled": self._sampled(rollouts) if self.job.recipe.sample is not None else 0.0,
            "evidence": self._evidence(batch),
            "learned": epochs * learned,
            "recomputed": epochs * recomputed,
        }
        return {f"tflop_{name}": count / TERA for name, count in counts.items()}

    def _sampled(self, rollouts: Sequence[Rollout]) -> float:
        """Operations of sampling.

        Every token passes through the trunk once, and the prompt of a group once for the group. The
        head runs at each sampled token; a soft token needs one more product, for its mixture. The
        local engine reads a conversation anew at every turn, which is not counted.
        """
        prompt = {rollout.group: len(rollout.prompt_ids) for rollout in rollouts}
        responses = [(len(rollout.prompt_ids), len(rollout.response_ids)) for rollout in rollouts]
        tokens = sum(prompt.values()) + sum(response for _, response in responses)
        pairs = sum(map(_seen, prompt.values())) + sum(
            _seen(p + r) - _seen(p) for p, r in responses
        )
        rows = num_sampled_tokens(rollouts) + sum(
            kind == TokenKind.SOFT for rollout in rollouts for kind in rollout.kinds
        )
        return trunk(self.job.shape, tokens, pairs) + head(self.job.shape, rows)

    def _evidence(self, batch: Batch) -> float:
        """Forward passes of every model that measures evidence, and their heads at response tokens.

        The head of a teacher in another process runs in the learner, so it is counted.
        """
        job = self.job
        extent = _extent(batch.length_B)
        rows = float(batch.is_response_BT.sum())
        shapes_of = {
            "policy": job.shape,
            "reference": job.shape if job.reference is None else job.reference.shape,
            "history": job.shape if job.history is None else job.history.shape,
        }
        recipe = job.recipe
        unread = unread_evidence(recipe.token_selection, recipe.loss_evidence, batch.progress)
        observed = job.observed & forward_passes(recipe.measured_evidence - unread)
        total = math.fsum(
            trunk(shape, *extent) + head(shape, rows)
            for model, shape in shapes_of.items()
            if model in observed
        )
        if job.observes_teacher:
            everyone_B = torch.ones(len(batch.rollout_B), dtype=torch.bool)
            for shape, taught, taught_rows in self._lessons(
                batch, everyone_B, batch.is_response_BT
            ):
                total += taught + head(shape, taught_rows)
        return total

    def _learned(self, batch: Batch, weight_BT: Float[Tensor, "B T"]) -> tuple[float, float]:
        """Operations of one pass over the batch, and the part of them that is recomputed.

        They are forward and backward of the rollouts with a kept token, and the loss at kept
        tokens.
        """
        job = self.job
        objective = self.job.recipe.objective
        kept_BT = weight_BT != 0
        if isinstance(objective, ReferenceKl) and objective.penalises_all:
            kept_BT = batch.is_response_BT
        # Sequence objectives need whole responses, and project them again in backward.
        if isinstance(objective, SequenceObjective):
            whole_BT = (
                torch.ones_like(kept_BT)
                if objective.granularity == "pair"
                else kept_BT.any(1, keepdim=True)
            )
            kept_BT = batch.is_response_BT & whole_BT
        rows = float(kept_BT.sum())
        extent = _extent(batch.length_B[kept_BT.any(1)])
        backward = 2 if job.trains_head else 1  # frozen weights have no gradient
        forward = trunk(job.shape, *extent)
        learned = (1 + backward) * forward + head(job.shape, rows, 1 + backward)
        soft = float((kept_BT & (batch.kind_BT == TokenKind.SOFT)).sum())
        learned += head(job.shape, soft, 1 + backward)  # forward and backward of the mixture
        if objective.needs_teacher:
            for shape, taught, taught_rows in self._lessons(batch, kept_BT.any(1), kept_BT):
                learned += head(shape, taught_rows) + (0.0 if job.observes_teacher else taught)
        recomputed = forward if job.recipe.model.gradient_checkpointing else 0.0
        return learned, recomputed + (
            head(job.shape, rows) if isinstance(objective, SequenceObjective) else 0.0
        )

    def _lessons(
        self, batch: Batch, among_B: Bool[Tensor, " B"], among_BT: Bool[Tensor, "B T"]
    ) -> Iterator[tuple[Shape, float, float]]:
        """Of each teacher: its shape, the operations of its trunk, and positions of its head.

        Args:
            batch: the batch, whose `teacher_index` divides it among teachers.
            among_B: rollouts that go through a trunk.
            among_BT: tokens whose distribution is needed.
        """
        for number, teacher in enumerate(self.job.teachers):
            own_B = among_B
            if batch.teacher_index:
                index = [batch.teacher_index[rollout] for rollout in batch.rollout_B.tolist()]
                own_B = among_B & (torch.tensor(index) == number)
            extent = _extent(batch.teacher_length_B[own_B])
            # A teacher in processes of its own costs the learner its head alone.
            taught = 0.0 if self.job.cluster.teachers else trunk(teacher.shape, *extent)
            yield teacher.shape, taught, float((among_BT & own_B[:, None]).sum())


def operations_of(recipe: Recipe) -> Operations:
    """The counter for a recipe whose models are available on this machine.

    Sizes come from the models' configurations; a `shape` stated for plans is ignored. Raises
    UserError for an architecture whose sizes do not determine its operations.
    """
    reference = recipe.reference and _at_hand(recipe.reference)
    return Operations(
        job_of(
            replace(
                recipe,
                model=_at_hand(recipe.model),
                teacher=_teacher_at_hand(recipe.teacher),
                reference=reference,
            ),
            Machine(),
        )
    )


def _teacher_at_hand(teacher: Teacher | None) -> Teacher | None:
    """The teacher, or several, without shapes stated for plans."""
    match teacher:
        case WeightsTeacher():
            return _at_hand(teacher)
        case TeacherByColumn():
            return replace(teacher, teachers=tuple(map(_at_hand, teacher.teachers)))
        case TeacherMixture():
            return replace(teacher, teachers=tuple(map(_at_hand, teacher.teachers)))
        case _:
            return teacher


def _at_hand(settings: ModelT) -> ModelT:
    return replace(settings, shape=None)


def _seen(length: int) -> float:
    """Number of (token, attended token) pairs of a causal sequence, with each token itself."""
    return length * (length + 1) / 2


def _extent(length_B: Tensor) -> tuple[float, float]:
    """Number of tokens of these sequences, and of their (token, attended token) pairs."""
    return float(length_B.sum()), float((length_B.double() * (length_B.double() + 1) / 2).sum())
