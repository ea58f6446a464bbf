"""The reference learner: one process, plain PyTorch.

Every other learner must give the same gradients.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from reasontrain import vocab
from reasontrain.algo.objectives import Objective, SequenceObjective, TokenObjective
from reasontrain.data.micro_batches import (
    MicroBatch,
    atomic_units,
    build,
    pack_micro_batches,
    token_fields_at,
    unit_rollouts,
)
from reasontrain.learner import LossAggregationFn, weight_export
from reasontrain.learner.history import History
from reasontrain.learner.lora import is_adapted, load_adapter
from reasontrain.learner.observer import Observer
from reasontrain.learner.optimizer import Optimizer, rate
from reasontrain.learner.policy_module import FrozenModel, HeadComputation, PolicyModule
from reasontrain.learner.soft_tokens import LOSS, means, soft_loss
from reasontrain.metrics.throughput import matrix_rate
from reasontrain.metrics.timing import LEARNER_PARTS, Stopwatch, key
from reasontrain.models import DType, Importance, Policy
from reasontrain.recipe import LearnSettings
from reasontrain.types import Batch, SequenceStats, Stats, UserError, Weights

OPTIMIZER_FILE = "optimizer.pt"


class LocalLearner:
    """A trainable policy, its optimiser, and the frozen models it is compared with.

    What ranks do in another way is in methods of their own: which rollouts are
    `local_micro_batches`, `forward`, `backward`, `update`, `all_reduce_sum`.
    """

    def __init__(
        self,
        policy: Policy,
        settings: LearnSettings,
        *,
        steps: int,
        temperature: float = 1.0,
        teacher: FrozenModel | None = None,
        reference: FrozenModel | None = None,
        history: History | None = None,
        importance: Importance | None = None,
        export_dtype: DType = "float32",
    ) -> None:
        """`steps` is the length of the run, for the schedule; `temperature` divides the policy's
        logits wherever it is scored.
        """
        self.policy, self.history = policy, history or History()
        self.settings, self.steps, self.temperature, self.export_dtype = (
            settings,
            steps,
            temperature,
            export_dtype,
        )
        self.policy_module, self.timer = PolicyModule(policy), Stopwatch(policy.device)
        self._timed_B: Tensor | None = None
        self.observer = Observer(
            policy,
            self.forward_no_grad,
            self.timer,
            temperature=temperature,
            teacher=teacher,
            reference=reference,
            history=self.history,
            importance=importance or Importance(),
        )
        self.steps_done = self.nonfinite_in_a_row = 0
        self.prepare()

    # ---- what ranks do in another way

    single_process: ClassVar[bool] = True
    """False where other ranks wait for this one in every forward and backward, so that none may be
    left out.
    """

    def prepare(self) -> None:
        """Make the optimiser."""
        self.optimizer = Optimizer(self.policy.model, self.settings)

    def local_micro_batches(self, batch: Batch) -> list[list[int]]:
        """The micro-batches of this rank, as indices of rollouts; an empty one is run for the
        company of other ranks.
        """
        length_U, size = atomic_units(batch, self.settings.layout)
        return [
            unit_rollouts(part, size)
            for part in pack_micro_batches(
                length_U, self.settings.micro_batch_tokens, self.settings.layout
            )
        ]

    def forward(
        self, micro: MicroBatch, row_N: Int[Tensor, " N"], work: HeadComputation
    ) -> Mapping[str, Tensor]:
        """`work` on the policy's hidden states at these rows, and its head."""
        return self.policy_module(micro, row_N, work)

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Add the gradient of one micro-batch."""
        loss.backward()

    def update(self, share: float) -> Float[Tensor, ""]:
        """Clip, and step at this share of the peak rate, unless a gradient is not finite; the
        gradient's norm before clipping.
        """
        norm = self.clip()
        if torch.isfinite(norm):
            self.optimizer.step(
                share
            )  # where nothing was selected there is no gradient, and nothing moves
        self.optimizer.zero_grad()
        return norm

    def clip(self) -> Float[Tensor, ""]:
        """Scale gradients that lie whole in this process down to `max_grad_norm`; their norm
        before.
        """
        parameters = [p for p in self.policy.model.parameters() if p.grad is not None]
        limit = self.settings.max_grad_norm
        return torch.nn.utils.clip_grad_norm_(parameters, float("inf") if limit is None else limit)

    def all_reduce_sum(self, numbers: Tensor) -> Tensor:
        """The sum of these numbers over all ranks."""
        return numbers

    def materialize(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
        """A block in which these parameters are whole on this rank; all ranks enter it together."""
        return weight_export.in_place(parameters)

    def materialized(self) -> AbstractContextManager[None]:
        """A block in which the policy's weights are whole on this rank, for sampling."""
        return nullcontext()

    # ---- evidence

    def observe(self, batch: Batch, required_evidence: frozenset[str]) -> Batch:
        """The batch with the evidence in `required_evidence`; the teacher's hidden states at
        response rows are kept for the step.
        """
        self._time(batch)
        columns = self.observer.columns(batch, self._micro_batches(batch), required_evidence)
        return batch.with_evidence(
            {name: self.all_reduce_sum(column_BT) for name, column_BT in columns.items()}
        )

    def forward_no_grad(
        self, micro: MicroBatch, row_N: Int[Tensor, " N"], work: HeadComputation
    ) -> Mapping[str, Tensor]:
        """`forward`, where nothing is learned."""
        with self.timer("evidence_forward"):
            return self.forward(micro, row_N, work)

    # ---- learning

    def step(
        self,
        batch: Batch,
        weight_BT: Float[Tensor, "B T"],
        objective: Objective,
        loss_aggregation: LossAggregationFn,
    ) -> Stats:
        """One optimiser step: coefficients first, for the whole step, then one backward per
        micro-batch.

        A step whose gradient is not finite is skipped and counted; `nonfinite_in_a_row` says how
        many came one after another.
        """
        self._time(batch)
        totals = batch.totals(weight_BT)
        stats = self.gradient(batch, weight_BT, objective, loss_aggregation)
        share = rate(self.settings, self.steps_done, self.steps)
        with self.timer("optimizer"):
            norm = self.update(share)
            self.history.follow(self.weights().tensors())
        finite = bool(torch.isfinite(norm))
        self.nonfinite_in_a_row = 0 if finite else self.nonfinite_in_a_row + 1
        stats |= {
            "grad_norm": float(norm),
            "kept_share": totals.kept_tokens / max(totals.response_tokens, 1),
        }
        stats |= {"lr": self.settings.lr * share, "skipped": float(not finite)}
        stats["nonfinite_in_a_row"] = float(self.nonfinite_in_a_row)
        self.observer.teacher_rows.clear()
        self.steps_done += 1
        return stats | self._times()

    def gradient(
        self,
        batch: Batch,
        weight_BT: Float[Tensor, "B T"],
        objective: Objective,
        loss_aggregation: LossAggregationFn,
    ) -> Stats:
        """Accumulate the gradient of sum(coefficient x loss), by micro-batches; rows without
        coefficient never meet the loss.

        A pair counts whole, and the weights of its rows are the objective's business; a row
        objective's weight is in the coefficient.
        """
        counted_BT = (
            weight_BT
            if objective.granularity == "token"
            else batch.is_response_BT.to(weight_BT.dtype)
        )
        coefficient_BT = loss_aggregation(counted_BT, batch.totals(weight_BT))
        sums = defaultdict[str, float](float)
        if not bool((coefficient_BT != 0).any()):
            return {"loss": 0.0}
        among_BT = coefficient_BT != 0
        if isinstance(objective, SequenceObjective):
            among_BT = batch.is_response_BT & among_BT.any(1, keepdim=True)
        for micro in self._micro_batches(batch):
            local_N, token_N = among_BT[micro.index_K].nonzero(as_tuple=True)
            if self.single_process and not len(local_N):
                continue
            rows = _Rows(micro, local_N, token_N, weight_BT, coefficient_BT)
            if isinstance(objective, SequenceObjective):
                result = self._sum_gradient(batch, rows, objective)
            else:
                result = self._row_gradient(batch, rows, objective)
            for name, value in result.items():
                sums[name] += float(value.detach())
        all_reduce_sum = self.all_reduce_sum(
            torch.tensor([sums[name] for name in sorted(sums)], dtype=torch.float64)
        )
        numbers = dict(zip(sorted(sums), all_reduce_sum.tolist(), strict=True))
        num_losses, loss = numbers.pop(_NUMBER), numbers.pop(_LOSS)
        return {"loss": loss, **means(numbers, num_losses)}

    def _row_gradient(
        self, batch: Batch, rows: _Rows, objective: TokenObjective
    ) -> Mapping[str, Tensor]:
        """Forward and backward of one micro-batch: the loss and sums over its rows."""
        columns, coefficient_N = (
            token_fields_at(batch, rows.rollout_N, rows.token_N),
            rows.coefficient_N,
        )
        hidden_ND = (
            self.observer.kept_rows(batch, rows.micro, rows.local_N, rows.token_N)
            if objective.needs_teacher
            else None
        )

        def run(teacher: vocab.Teacher | None) -> Mapping[str, Tensor]:
            def loss(student_ND: Float[Tensor, "N D"], head: vocab.Head) -> Mapping[str, Tensor]:
                device, temperature = student_ND.device, self.temperature
                here = columns.to(device), coefficient_N.to(device)
                found = vocab.fused(
                    student_ND, head, *here, objective, temperature=temperature, teacher=teacher
                )
                return {_LOSS: found.loss, **found.stats}

            return self._learn(rows, loss)

        if batch.soft:
            parts = (
                rows.local_N,
                rows.token_N,
                coefficient_N,
                objective,
                lambda: self.policy.basis,
                self.temperature,
            )
            return self._learn(rows, soft_loss(batch, rows.micro, *parts))
        if hidden_ND is None:
            return run(None)
        with self.timer("frozen_forward"), self.observer.teacher.head() as head:
            return run(vocab.Teacher(hidden_ND, head))

    def _learn(self, rows: _Rows, work: HeadComputation) -> Mapping[str, Tensor]:
        """Forward with this work, which gives the loss and sums over these rows, and backward."""
        return {_NUMBER: torch.tensor(len(rows.row_N)), **self.forward_backward(rows, work)}

    def forward_backward(self, rows: _Rows, work: HeadComputation) -> Mapping[str, Tensor]:
        """Forward with this work and backward; the trunk's backward begins where the gradient of
        its rows is there.
        """

        def watched(hidden_ND: Float[Tensor, "N D"], head: vocab.Head) -> Mapping[str, Tensor]:
            self.timer.start_phase_on_grad(hidden_ND, "trunk_backward")
            with self.timer("vocabulary"):
                return work(hidden_ND, head)

        with self.timer("trunk_forward"):
            result = self.forward(rows.micro, rows.row_N, watched)
        with self.timer("vocabulary"):
            self.backward(result[_LOSS])
        return result

    def _sum_gradient(
        self, batch: Batch, rows: _Rows, objective: SequenceObjective
    ) -> Mapping[str, Tensor]:
        """Forward and backward of one micro-batch of whole responses."""
        columns = token_fields_at(batch, rows.rollout_N, rows.token_N)

        def loss(hidden_ND: Float[Tensor, "N D"], head: vocab.Head) -> Mapping[str, Tensor]:
            device = hidden_ND.device
            ids_N = columns.ids_N.to(device)
            seen = SequenceStats(
                logp_N=vocab.logp(hidden_ND, head, ids_N, temperature=self.temperature),
                weight_N=rows.weight_N.to(device),
                rollout_N=rows.local_N.to(device),
                token_N=rows.token_N.to(device),
                num_rollouts=len(rows.micro.index_K),
                columns=columns.to(device),
            )
            losses = objective(seen)
            coefficient = (
                rows.coefficient_N
                if objective.granularity == "token"
                else rows.coefficient_of_pairs
            ).to(device)
            kept = coefficient != 0
            sums = {
                name: torch.where(kept, value.detach().to(coefficient), 0).sum()
                for name, value in losses.stats.items()
            }
            return {
                _LOSS: torch.where(kept, coefficient * losses.loss, 0).sum(),
                _NUMBER: kept.sum(),
                **sums,
            }

        return self.forward_backward(rows, loss)

    def _micro_batches(self, batch: Batch) -> Iterator[MicroBatch]:
        """The step's rollouts in micro-batches, the same ones for `observe` and `step`."""
        for index in self.local_micro_batches(batch):
            yield build(batch, index, self.settings.layout)

    # ---- time

    def matrix_rate(self) -> float:
        """See `Learner`; ranks measure at the same time."""
        return float(
            self.all_reduce_sum(
                torch.tensor(
                    [matrix_rate(self.policy.device, self.policy.dtype)], dtype=torch.float64
                )
            )
        )

    def _time(self, batch: Batch) -> None:
        """Time this batch's step: what was observed of others between two steps (a canary) is of no
        step.
        """
        if self._timed_B is None or not torch.equal(self._timed_B, batch.rollout_B):
            self.timer.read()
            self._timed_B = batch.rollout_B

    def _times(self) -> Stats:
        """Seconds of each part of this step, the mean over the ranks, so that they add up: all are
        as long under way.
        """
        seconds, self._timed_B = self.timer.read(), None
        told = [1.0, *(seconds.get(part, 0.0) for part in LEARNER_PARTS)]
        ranks, *sums = self.all_reduce_sum(torch.tensor(told, dtype=torch.float64)).tolist()
        return {
            key(part): all_reduce_sum / ranks
            for part, all_reduce_sum in zip(LEARNER_PARTS, sums, strict=True)
        }

    # ---- weights

    def weights(self) -> Weights:
        """The policy's weights as they are, without a copy; adapters merged."""
        return Weights(
            version=self.steps_done,
            tensors=lambda: weight_export.tensors(self.policy.model, self.materialize),
        )

    def save(self, directory: Path) -> None:
        """The model in float32 (or its adapters alone), its tokenizer, and the optimiser's state."""
        weight_export.save_policy(self.policy, directory)
        kept = {
            "optimizer": self.optimizer.state(),
            "steps_done": self.steps_done,
            "nonfinite": self.nonfinite_in_a_row,
        }
        torch.save(kept, directory / OPTIMIZER_FILE)
        self.history.save(directory)

    def restore(self, directory: Path) -> None:
        """Go on from a directory that `save` wrote; raises UserError for one that ranks wrote."""
        if not (directory / OPTIMIZER_FILE).exists():
            raise UserError(
                f"{directory} has no {OPTIMIZER_FILE}: it was not written by one process "
                f"without ZeRO, as this run is; set "
                "cluster.learners and learn.zero as they were, or begin a new run with its "
                "directory as model.path"
            )
        if is_adapted(self.policy.model):
            load_adapter(self.policy.model, directory)
        else:
            source = type(self.policy.model).from_pretrained(directory, dtype=torch.float32)
            self.policy.model.load_state_dict(source.state_dict())
        kept = torch.load(directory / OPTIMIZER_FILE, map_location="cpu", weights_only=True)
        self.optimizer.load(kept["optimizer"])
        self.steps_done, self.nonfinite_in_a_row = kept["steps_done"], kept["nonfinite"]
        self.history.restore(directory)

    def export(self, directory: Path) -> None:
        """The model as others load it, in the recipe's dtype, adapters merged."""
        weight_export.save_model(self.policy, directory, getattr(torch, self.export_dtype))


@dataclass(frozen=True)
class _Rows:
    """The rows of a micro-batch that meet the loss: `local_N` counts its rollouts, `token_N` is the
    position in each.
    """

    micro: MicroBatch
    local_N: Int[Tensor, " N"]
    token_N: Int[Tensor, " N"]
    weight_BT: Float[Tensor, "B T"]
    coefficient_BT: Float[Tensor, "B T"]

    @property
    def rollout_N(self) -> Int[Tensor, " N"]:
        """Indices in the batch."""
        return self.micro.index_K[self.local_N]

    @property
    def row_N(self) -> Int[Tensor, " N"]:
        """Flat hidden rows that predict these tokens."""
        return self.micro.logit_positions(self.local_N, self.token_N)

    @property
    def weight_N(self) -> Float[Tensor, " N"]:
        """What selection gave these rows."""
        return self.weight_BT[self.rollout_N, self.token_N]

    @property
    def coefficient_N(self) -> Float[Tensor, " N"]:
        """What their losses are multiplied by."""
        return self.coefficient_BT[self.rollout_N, self.token_N]

    @property
    def coefficient_of_pairs(self) -> Float[Tensor, " P"]:
        """What the losses of pairs are multiplied by: that of any row of the chosen side."""
        return self.coefficient_BT[self.micro.index_K[::2]].amax(1)


_LOSS, _NUMBER = LOSS, "number of losses"
