"""The learner: measures evidence of a batch of rollouts, and learns from it in optimiser steps.

There is one, made of parts: an engine that runs the policy (in one process or as a rank of many)
and an observer that measures evidence. `factory` builds both from a recipe.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain import vocab
from reasontrain.algo.objectives import KlCov, Objective, SequenceObjective
from reasontrain.algo.objectives.reference_kl import ReferenceKl
from reasontrain.data.micro_batches import (
    MicroBatch,
    MicroBatchTokens,
    MiniBatch,
    make_mini_batches,
)
from reasontrain.learner import LossAggregationFn, weight_export
from reasontrain.learner.engine import TrainingEngine
from reasontrain.learner.lora import ADAPTER_FOLDER, is_adapted
from reasontrain.learner.losses import LOSS, NUM_LOSSES, sequence_loss, token_loss
from reasontrain.learner.observer import IN_FLIGHT, Observer
from reasontrain.learner.optimizer import rate
from reasontrain.learner.policy_module import HeadComputation
from reasontrain.learner.rounding import (
    EXCESS_LOSS,
    EXCESS_NOISE,
    can_measure,
    full_precision,
    span_of_noise,
)
from reasontrain.learner.soft_tokens import means, soft_loss
from reasontrain.metrics.memory import peak_gb
from reasontrain.metrics.throughput import matrix_rate
from reasontrain.metrics.timing import LEARNER_PARTS, key
from reasontrain.metrics.working import working
from reasontrain.models import DType, Policy
from reasontrain.recipe import LearnSettings
from reasontrain.types import Batch, Stats, Weights

NOISE_FILE = "excess_noise.json"


class PolicyLearner:
    """The implementation of `Learner`, on one rank.

    All ranks get the same calls with the same batch; each works on its share, and `observe` and
    `step` return the same on every rank.
    """

    def __init__(
        self,
        engine: TrainingEngine,
        observer: Observer,
        settings: LearnSettings,
        *,
        steps: int,
        export_dtype: DType = "float32",
    ) -> None:
        """Compose a learner.

        Args:
            engine: the trainable policy and its optimiser.
            observer: measures evidence of that policy.
            settings: how a batch is learned from.
            steps: the steps that the learning rate's schedule spans.
            export_dtype: the dtype of the final model.
        """
        assert settings.updates_per_batch % settings.epochs_per_batch == 0, (
            "every pass over a batch takes as many updates"
        )
        self.engine = engine
        self.observer = observer
        self.settings = settings
        self.steps = steps
        self.export_dtype = export_dtype
        self.nonfinite_in_a_row = 0
        self._steps_done = 0
        self._inside_batch = False
        self._cut: tuple[Batch, LearnSettings, list[MiniBatch]] | None = None
        self._timed_B: Tensor | None = None
        self._noise: float | None = None

    @property
    def policy(self) -> Policy:
        """The model that is trained."""
        return self.engine.policy

    @property
    def steps_done(self) -> int | None:
        """See `Learner`."""
        return None if self._inside_batch else self._steps_done

    # ---- evidence

    def observe(self, batch: Batch, required_evidence: frozenset[str]) -> Batch:
        """See `Learner`."""
        self._start_timing(batch)
        micro_batches = [
            micro for mini_batch in self.mini_batches(batch) for micro in mini_batch.micro_batches
        ]
        noise = {}
        if EXCESS_NOISE in required_evidence:
            # Before the others, because it drops the teacher's hidden states.
            span = self._excess_noise(batch, micro_batches)
            noise[EXCESS_NOISE] = torch.full(batch.ids_BT.shape, span)
        columns = self._columns(batch, micro_batches, required_evidence - frozenset(noise))
        return batch.with_evidence({**columns, **noise})

    def _columns(
        self, batch: Batch, micro_batches: Sequence[MicroBatch], names: frozenset[str]
    ) -> dict[str, Float[Tensor, "B T"]]:
        """The measured evidence of all ranks."""
        columns = self.observer.columns(batch, micro_batches, names)
        return {name: self.engine.all_reduce_sum(column_BT) for name, column_BT in columns.items()}

    def _excess_noise(self, batch: Batch, micro_batches: Sequence[MicroBatch]) -> float:
        """The evidence `excess_noise`, measured at the first batch that needs it."""
        among_BT = batch.is_response_BT
        if self._noise is None and among_BT.any():
            policies = [self.policy, *self.observer.history.policies]
            if self.policy.dtype == torch.float32 or not can_measure(policies):
                self._noise = 0.0
            else:
                rounded = self._columns(batch, micro_batches, EXCESS_LOSS)
                with full_precision(policies):
                    exact = self._columns(batch, micro_batches, EXCESS_LOSS)
                self._noise = span_of_noise(rounded, exact, among_BT)
        return self._noise or 0.0

    # ---- learning

    def step(
        self,
        batch: Batch,
        weight_BT: Float[Tensor, "B T"],
        objective: Objective,
        loss_aggregation: LossAggregationFn,
    ) -> Stats:
        """See `Learner` for arguments.

        Numbers of several updates are combined: `lr` is that of the last, `nonfinite_in_a_row` the
        longest streak, `skipped` and `empty_updates` are numbers of updates, and the others are
        means over the updates that have them: of `loss` and `grad_norm`, those that were neither
        empty nor skipped. `<name>_update_<n>` gives each update's own, n from 1, if there are
        several.
        """
        self._start_timing(batch)
        totals = batch.totals(weight_BT)
        mini_batches = self.mini_batches(batch)
        terms = [
            _loss_terms(batch, weight_BT, objective, loss_aggregation, mini_batch.index_M)
            for mini_batch in mini_batches
        ]
        updates: list[Stats] = []
        has_loss: list[bool] = []
        for _ in range(self.settings.epochs_per_batch):
            for mini_batch, (part, loss_weight_BT) in zip(mini_batches, terms, strict=True):
                stats = self._accumulate(part, weight_BT, loss_weight_BT, objective, mini_batch)
                has_loss.append(bool((loss_weight_BT != 0).any()))
                updates.append(stats | self._update(len(updates), has_loss=has_loss[-1]))
        self.observer.forget()
        self._cut = None
        self._steps_done += 1
        self._inside_batch = False
        return {
            **combined(updates, has_loss),
            "kept_share": totals.kept_tokens / max(totals.response_tokens, 1),
            "optimizer_steps": float(self._steps_done * self.settings.updates_per_batch),
            **self._times(),
        }

    def _update(self, number: int, *, has_loss: bool) -> Stats:
        """Optimiser step `number` of this batch, counted from 0."""
        settings = self.settings
        share = rate(
            settings,
            self._steps_done * settings.updates_per_batch + number,
            self.steps * settings.updates_per_batch,
        )
        with self.engine.timer("optimizer"):
            # From here to the end of the batch the weights belong to no step: see `steps_done`.
            self._inside_batch = True
            norm = self.engine.update(share)
            self.observer.history.follow(self._tensors())
        finite = math.isfinite(norm)
        if has_loss:  # an update without a loss has no gradient, which tells nothing of the streak
            self.nonfinite_in_a_row = 0 if finite else self.nonfinite_in_a_row + 1
        return {
            "grad_norm": norm,
            "lr": settings.lr * share,
            "skipped": float(not finite),
            "nonfinite_in_a_row": float(self.nonfinite_in_a_row),
        }

    def gradient(
        self,
        batch: Batch,
        weight_BT: Float[Tensor, "B T"],
        objective: Objective,
        loss_aggregation: LossAggregationFn,
    ) -> Stats:
        """Accumulate the gradient of the whole batch's loss, sum(loss_weight x loss).

        Args:
            batch: the rollouts, with the evidence that the objective reads.
            weight_BT: the selection's weight of each token; zero leaves it out.
            objective: the loss of a token, a response or a pair.
            loss_aggregation: divides the sum of losses.

        Returns:
            The loss, and the mean of each statistic of the objective.
        """
        mini_batch = MiniBatch(
            torch.arange(len(batch.rollout_B)),
            [micro for part in self.mini_batches(batch) for micro in part.micro_batches],
        )
        batch, loss_weight_BT = _loss_terms(
            batch, weight_BT, objective, loss_aggregation, mini_batch.index_M
        )
        return self._accumulate(batch, weight_BT, loss_weight_BT, objective, mini_batch)

    def mini_batches(self, batch: Batch) -> list[MiniBatch]:
        """The mini-batches of a step, cut once and shared by `observe` and `step`."""
        if self._cut is not None:
            cut, settings, mini_batches = self._cut
            if settings == self.settings and _same_rollouts(cut, batch):
                return mini_batches
        mini_batches = make_mini_batches(
            batch,
            self.settings.mini_batches,
            micro_batch_tokens=self.settings.micro_batch_tokens,
            layout=self.settings.layout,
            rank=self.engine.rank,
            num_ranks=self.engine.num_ranks,
            sequence_parallel=self.settings.sequence_parallel,
        )
        self._cut = (batch, self.settings, mini_batches)
        return mini_batches

    def _accumulate(
        self,
        batch: Batch,
        weight_BT: Float[Tensor, "B T"],
        loss_weight_BT: Float[Tensor, "B T"],
        objective: Objective,
        mini_batch: MiniBatch,
    ) -> Stats:
        """Forward and backward of the micro-batches of one optimiser step.

        Tokens without loss weight are gathered away before the loss: they can neither overflow nor
        cost anything. A sequence objective sees all response tokens of a rollout or pair of which
        any token counts.
        """
        among_BT = loss_weight_BT != 0
        if not bool(among_BT.any()):
            return {LOSS: 0.0}
        if isinstance(objective, SequenceObjective):
            among_BT = batch.is_response_BT & among_BT.any(1, keepdim=True)
        results: list[Mapping[str, Tensor]] = []
        cut = [micro.tokens(among_BT) for micro in mini_batch.micro_batches]
        run = [tokens for tokens in cut if len(tokens) or self.engine.runs_empty_micro_batches]
        sizes = [tokens.micro_batch.num_tokens(batch) for tokens in run]
        needs_teacher = objective.needs_teacher and not self.observer.keeps_teacher_hidden
        if objective.needs_teacher:
            self.observer.fetch_teacher(batch, run)
        with working("learning", "tokens", sum(sizes)) as work:
            for index, tokens in enumerate(run):
                if needs_teacher:
                    self.observer.request_teacher(batch, run[index : index + IN_FLIGHT])
                result = self._forward_backward(batch, tokens, weight_BT, loss_weight_BT, objective)
                results.append({name: value.detach() for name, value in result.items()})
                work.done += sizes[index]
        sums = _sums(results)
        names = sorted(sums)
        totals_S = self.engine.all_reduce_sum(
            torch.tensor([sums[name] for name in names], dtype=torch.float64)
        )
        totals = dict(zip(names, totals_S.tolist(), strict=True))
        num_losses = totals.pop(NUM_LOSSES)
        return {LOSS: totals.pop(LOSS), **means(totals, num_losses)}

    def _forward_backward(
        self,
        batch: Batch,
        tokens: MicroBatchTokens,
        weight_BT: Float[Tensor, "B T"],
        loss_weight_BT: Float[Tensor, "B T"],
        objective: Objective,
    ) -> Mapping[str, Tensor]:
        """Forward and backward of one micro-batch: the loss and sums over its tokens."""
        temperature = self.observer.temperature
        if isinstance(objective, SequenceObjective):
            return self._run(
                tokens,
                sequence_loss(
                    batch, tokens, weight_BT, loss_weight_BT, objective, temperature=temperature
                ),
            )
        loss_weight_N = tokens.of(loss_weight_BT)
        if batch.soft:
            return self._run(
                tokens,
                soft_loss(
                    batch,
                    tokens,
                    loss_weight_N,
                    objective,
                    lambda: self.policy.basis,
                    temperature=temperature,
                ),
            )
        fields = tokens.fields(batch)
        if not objective.needs_teacher:
            return self._run(
                tokens,
                token_loss(fields, loss_weight_N, objective, temperature=temperature, teacher=None),
            )
        with self.observer.teacher_at(batch, tokens) as teacher:
            return self._run(
                tokens,
                token_loss(
                    fields, loss_weight_N, objective, temperature=temperature, teacher=teacher
                ),
            )

    def _run(self, tokens: MicroBatchTokens, compute: HeadComputation) -> Mapping[str, Tensor]:
        """Forward with this computation at these tokens, and backward, timed by part."""
        timer = self.engine.timer

        def timed(hidden_ND: Float[Tensor, "N D"], head: vocab.Head) -> Mapping[str, Tensor]:
            # The trunk's backward begins when the gradient of its output arrives.
            timer.start_phase_on_grad(hidden_ND, "trunk_backward")
            with timer("vocabulary"):
                return compute(hidden_ND, head)

        with timer("trunk_forward"):
            result = self.engine.forward(tokens.micro_batch, tokens.logit_position_N, timed)
        with timer("vocabulary"):
            self.engine.backward(result[LOSS])
        return result

    def attention(self) -> str:
        """See `Learner`."""
        return str(self.policy.model.config._attn_implementation)

    # ---- time

    def matrix_rate(self) -> float:
        """See `Learner`; ranks measure at the same time."""
        num_parameters = sum(p.numel() for p in self.policy.model.parameters())
        rate = matrix_rate(self.policy.device, self.policy.dtype, num_parameters)
        rate_1 = torch.tensor([rate], dtype=torch.float64)
        return float(self.engine.all_reduce_sum(rate_1))

    def _start_timing(self, batch: Batch) -> None:
        """Start the step's timing, unless `observe` did.

        What was observed between two steps, such as a canary, belongs to no step.
        """
        if self._timed_B is None or not torch.equal(self._timed_B, batch.rollout_B):
            self.engine.timer.read()
            self._timed_B = batch.rollout_B

    def _times(self) -> Stats:
        """Seconds of each part of this step, and the peak of memory.

        Seconds are means over ranks, so that the parts add up; the peak is the largest of a rank.
        """
        seconds = self.engine.timer.read()
        self._timed_B = None
        num_ranks = self.engine.num_ranks
        peaks = [0.0] * num_ranks
        peaks[self.engine.rank] = peak_gb(self.policy.device)
        values = [*peaks, *(seconds.get(part, 0.0) for part in LEARNER_PARTS)]
        sums = self.engine.all_reduce_sum(torch.tensor(values, dtype=torch.float64)).tolist()
        return {
            "memory_peak_gb": max(sums[:num_ranks]),
            **{
                key(part): total / num_ranks
                for part, total in zip(LEARNER_PARTS, sums[num_ranks:], strict=True)
            },
        }

    # ---- weights

    def weights(self) -> Weights:
        """See `Learner`: the weights as they are, without a copy; adapters merged."""
        assert not self._inside_batch, "weights between two updates of a batch are of no step"
        return Weights(version=self._steps_done, tensors=self._tensors)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        return weight_export.tensors(self.policy.model, self.engine.materialize)

    def save(self, directory: Path) -> None:
        """See `Learner`: the model in float32 (or its adapters alone), tokenizer and optimiser."""
        progress = {"steps_done": self._steps_done, "nonfinite": self.nonfinite_in_a_row}
        writes = self.engine.rank == 0
        weight_export.save_policy(self.policy, directory, self.engine.materialize, writes=writes)
        self.engine.save(directory, progress)
        if writes:
            self.observer.history.save(directory)  # every rank has the same
            if self._noise is not None:
                noise = json.dumps({EXCESS_NOISE: self._noise})
                (directory / NOISE_FILE).write_text(noise, encoding="utf-8")
        self.engine.barrier()

    def restore(self, directory: Path) -> None:
        """See `Learner`; raises UserError for a directory that another kind of engine wrote."""
        progress = self.engine.restore(directory)
        self._steps_done = progress["steps_done"]
        self._inside_batch = False
        self.nonfinite_in_a_row = progress["nonfinite"]
        self.observer.history.restore(directory)
        noise = directory / NOISE_FILE
        if noise.exists():
            self._noise = json.loads(noise.read_text(encoding="utf-8"))[EXCESS_NOISE]

    def export(self, directory: Path) -> None:
        """See `Learner`: in the recipe's dtype, adapters merged and once more alone."""
        dtype = getattr(torch, self.export_dtype)
        writes = self.engine.rank == 0
        weight_export.save_model(
            self.policy, directory, dtype, self.engine.materialize, writes=writes
        )
        if is_adapted(self.policy.model):
            adapter = directory / ADAPTER_FOLDER
            if writes:
                adapter.mkdir()
            weight_export.save_policy(self.policy, adapter, self.engine.materialize, writes=writes)
        self.engine.barrier()


def combined(updates: Sequence[Stats], has_loss: Sequence[bool]) -> Stats:
    """The numbers of a batch from those of its optimiser steps; see `PolicyLearner.step`.

    `has_loss` is false for an update whose mini-batch had no token with a loss.
    """
    if len(updates) == 1:
        return dict(updates[0])
    stats: Stats = {}
    applied = [
        update
        for update, learned in zip(updates, has_loss, strict=True)
        if learned and not update["skipped"]
    ]
    for name in dict.fromkeys(name for update in updates for name in update):
        among = applied or updates if name in ("loss", "grad_norm") else updates
        values = [update[name] for update in among if name in update]
        stats[name] = sum(values) / len(values)
    stats["lr"] = updates[-1]["lr"]
    # The longest streak: one that ended inside the batch must stop the run as well.
    stats["nonfinite_in_a_row"] = max(update["nonfinite_in_a_row"] for update in updates)
    stats["skipped"] = sum(update["skipped"] for update in updates)
    stats["empty_updates"] = float(has_loss.count(False))
    for number, update in enumerate(updates, start=1):
        stats |= {
            f"{name}_update_{number}": value
            for name, value in update.items()
            if name not in ("skipped", "nonfinite_in_a_row")
        }
    return stats


def _loss_terms(
    batch: Batch,
    weight_BT: Float[Tensor, "B T"],
    objective: Objective,
    loss_aggregation: LossAggregationFn,
    index_M: Int[Tensor, " M"],
) -> tuple[Batch, Float[Tensor, "B T"]]:
    """The advantages and the factor of each loss in the loss of one optimiser step.

    Penalties may be at all response tokens, and the policy gradient at those that are selected. As
    the latter is proportional to the advantage, tokens then have the factor of the penalty, and
    their advantages what is left of the selection's: nothing, if they are not selected.

    Args:
        batch: the rollouts of the step.
        weight_BT: the selection's weight of each token.
        objective: its `penalised_tokens` decides.
        loss_aggregation: divides by totals of the optimiser step.
        index_M: the rollouts of that optimiser step, over all ranks.

    Returns:
        The batch, with what the objective reads of the whole step, and the factors (see
        `_loss_weights`).
    """
    parts = (objective, loss_aggregation, index_M)
    loss_weight_BT = _loss_weights(batch, weight_BT, *parts)
    if isinstance(objective, KlCov):
        batch = replace(batch, penalty_BT=objective.penalty(batch, weight_BT))
    if not (isinstance(objective, ReferenceKl) and objective.penalises_all):
        return batch, loss_weight_BT
    every_BT = batch.weighted(batch.is_response_BT.to(weight_BT.dtype))
    every_BT = _loss_weights(batch, every_BT, *parts)
    share_BT = torch.where(every_BT != 0, loss_weight_BT.double() / every_BT, 0.0)
    advantage_BT = batch.advantage_B[:, None] if batch.advantage_BT is None else batch.advantage_BT
    advantage_BT = (advantage_BT * share_BT).to(batch.advantage_B.dtype)
    return replace(batch, advantage_BT=advantage_BT), every_BT


def _loss_weights(
    batch: Batch,
    weight_BT: Float[Tensor, "B T"],
    objective: Objective,
    loss_aggregation: LossAggregationFn,
    index_M: Int[Tensor, " M"],
) -> Float[Tensor, "B T"]:
    """The factor of each loss in the sum that is the loss of one optimiser step.

    The selection's weight enters it for losses of tokens. A pair counts whole: the weights of its
    tokens are inside the objective.

    Args:
        batch: the rollouts of the step.
        weight_BT: the selection's weight of each token.
        objective: tells whether losses are of tokens or of pairs.
        loss_aggregation: divides by totals of the optimiser step.
        index_M: the rollouts of that optimiser step, over all ranks.

    Returns:
        Factors of the whole batch, zero at rollouts of other optimiser steps.
    """
    if objective.granularity == "token":
        counted_BT = weight_BT
    else:
        counted_BT = batch.is_response_BT.to(weight_BT.dtype)
    if len(index_M) == len(batch.rollout_B):
        return loss_aggregation(counted_BT, batch.totals(weight_BT))
    # Dropped rollouts belong to no mini-batch: each gets its share of what was sampled.
    share = len(index_M) / len(batch.rollout_B)
    totals = replace(
        batch.take(index_M).totals(weight_BT[index_M]),
        sampled_rollouts=round(batch.sampled_rollouts * share),
        sampled_tokens=round(batch.sampled_tokens * share),
    )
    loss_weight_BT = torch.zeros_like(counted_BT)
    loss_weight_BT[index_M] = loss_aggregation(counted_BT[index_M], totals)
    return loss_weight_BT


def _sums(results: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Sums over micro-batches by name, in double precision; the host waits for the device once."""
    if not results:
        return {}
    pairs = [(name, value.double()) for result in results for name, value in result.items()]
    sums = defaultdict[str, float](float)
    values = torch.stack([value for _, value in pairs]).tolist()
    for (name, _), value in zip(pairs, values, strict=True):
        sums[name] += value
    return sums


def _same_rollouts(first: Batch, second: Batch) -> bool:
    """True if two batches have the same tokens, so that they differ in evidence at most."""
    return (
        torch.equal(first.ids_BT, second.ids_BT)
        and torch.equal(first.kind_BT, second.kind_BT)
        and torch.equal(first.rollout_B, second.rollout_B)
        and (first.pair_B is None) == (second.pair_B is None)
        and (first.seed, first.step) == (second.seed, second.step)
        and first.soft == second.soft
        and first.images == second.images
        and first.teacher_prompts == second.teacher_prompts
    )
