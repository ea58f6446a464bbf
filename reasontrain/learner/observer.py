"""What a learner observes before it learns: numbers of response tokens, of the policy and of what
it is compared with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain import vocab
from reasontrain.data.micro_batches import MicroBatch
from reasontrain.learner.history import Forward, History, switched_off
from reasontrain.learner.lora import is_adapted
from reasontrain.learner.policy_module import FrozenModel, HeadComputation
from reasontrain.metrics.timing import Stopwatch
from reasontrain.models import Importance, Policy
from reasontrain.models.attention import measure_attention
from reasontrain.types import Batch, TokenKind

STUDENT_STATISTICS = {"entropy": "entropy", "old_logp": "logp"}
TEACHER_STATISTICS = frozenset({"kl_reverse", "kl_forward", "teachability"})
_NOBODY = -1
"""The rollout without a row: it knows the width of the teacher's hidden states where a rank has
nothing else.
"""


class Observer:
    """A policy beside the frozen models that it is compared with; no gradient flows here.

    The teacher's hidden states, which are wide, stay here from `columns` until they are forgotten:
    the step reads them again.
    """

    def __init__(
        self,
        policy: Policy,
        forward: Forward,
        timer: Stopwatch,
        *,
        temperature: float,
        teacher: FrozenModel | None,
        reference: FrozenModel | None,
        history: History,
        importance: Importance,
    ) -> None:
        """`forward` is the policy's, as its learner does it; `temperature` divides logits wherever
        a model is scored.
        """
        self.policy, self.forward, self.timer, self.temperature = (
            policy,
            forward,
            timer,
            temperature,
        )
        self.reference, self.history, self.importance = reference, history, importance
        self._teacher = teacher
        self.teacher_rows: dict[int, Float[Tensor, "N D"]] = {}

    @property
    def teacher(self) -> FrozenModel:
        """The teacher, where something is compared with it."""
        assert self._teacher is not None, "the recipe refuses a comparison without a teacher"
        return self._teacher

    def columns(
        self, batch: Batch, micros: Iterable[MicroBatch], required_evidence: frozenset[str]
    ) -> dict[str, Float[Tensor, "B T"]]:
        """The evidence in `required_evidence` at the response tokens of these micro-batches, zeros
        elsewhere.
        """
        self.teacher_rows.clear()
        columns = {name: torch.zeros(batch.ids_BT.shape) for name in sorted(required_evidence)}
        for micro in micros:
            local_N, token_N = batch.is_response_BT[micro.index_K].nonzero(as_tuple=True)
            measured = self._measure(batch, micro, local_N, token_N, required_evidence)
            for name, value_N in measured.items():
                columns[name][micro.index_K[local_N], token_N] = value_N.float().cpu()
        return columns

    def kept_rows(
        self,
        batch: Batch,
        micro: MicroBatch,
        local_N: Int[Tensor, " N"],
        token_N: Int[Tensor, " N"],
    ) -> Float[Tensor, "N D"]:
        """The teacher's hidden states at these rows: what `columns` kept, or a forward now."""
        if not self.teacher_rows:
            with self.timer("frozen_forward"):
                return self.teacher.hidden(micro, micro.logit_positions(local_N, token_N))
        kept = [self.teacher_rows[_NOBODY]]
        for local, index in enumerate(micro.index_K.tolist()):
            rank_T = batch.is_response_BT[index].long().cumsum(0) - 1
            rows_ND = self.teacher_rows[int(batch.rollout_B[index])]
            kept.append(rows_ND[rank_T[token_N[local_N == local]].to(rows_ND.device)])
        return torch.cat(kept)

    @torch.no_grad()
    def _measure(
        self,
        batch: Batch,
        micro: MicroBatch,
        local_N: Int[Tensor, " N"],
        token_N: Int[Tensor, " N"],
        required_evidence: frozenset[str],
    ) -> dict[str, Float[Tensor, " N"]]:
        """Evidence at these rows of a micro-batch: one forward of each model that is asked."""
        row_N = micro.logit_positions(local_N, token_N)
        ids_N = batch.ids_BT[micro.index_K[local_N], token_N]
        logp = self._statistics(ids_N, ["logp"], None)
        found: dict[str, Tensor] = {}
        names = {
            name: STUDENT_STATISTICS.get(name, name)
            for name in required_evidence & (TEACHER_STATISTICS | STUDENT_STATISTICS.keys())
        }
        if names or "attention" in required_evidence:
            with (
                self._watching(batch, micro)
                if "attention" in required_evidence
                else nullcontext([]) as paid
            ):
                if required_evidence & TEACHER_STATISTICS:
                    with self.timer("frozen_forward"):
                        measured = self._beside_teacher(
                            batch, micro, local_N, row_N, ids_N, sorted({*names.values()})
                        )
                else:
                    measured = self.forward(
                        micro, row_N, self._statistics(ids_N, sorted({*names.values()}), None)
                    )
            found = {name: measured[statistic] for name, statistic in names.items()}
            if (
                "attention" in required_evidence
            ):  # at the token's own position, not at the one that predicts it
                found["attention"] = paid[0].flatten().cpu()[row_N + 1]
        if "ref_logp" in required_evidence:
            with self.timer("frozen_forward"):
                found["ref_logp"] = self._by_reference(micro, row_N, logp)["logp"]
        if "history_logp" in required_evidence:
            with self.timer("frozen_forward"):
                found["history_logp"] = self.history.measure(self.forward, micro, row_N, logp)[
                    "logp"
                ]
        return found

    def _beside_teacher(
        self,
        batch: Batch,
        micro: MicroBatch,
        local_N: Int[Tensor, " N"],
        row_N: Int[Tensor, " N"],
        ids_N: Int[Tensor, " N"],
        names: list[str],
    ) -> Mapping[str, Tensor]:
        """Statistics of the policy and the teacher together; the teacher's hidden states are kept
        by rollout.
        """
        hidden_ND = self.teacher.hidden(micro, row_N)
        self.teacher_rows[_NOBODY] = hidden_ND[:0]
        for local, index in enumerate(micro.index_K.tolist()):
            self.teacher_rows[int(batch.rollout_B[index])] = hidden_ND[local_N == local]
        with self.teacher.head() as head:
            return self.forward(
                micro, row_N, self._statistics(ids_N, names, vocab.Teacher(hidden_ND, head))
            )

    def _by_reference(
        self, micro: MicroBatch, row_N: Int[Tensor, " N"], work: HeadComputation
    ) -> Mapping[str, Tensor]:
        """`work` on the reference's hidden states; without one, on those of the policy without its
        adapters.
        """
        if self.reference is None:
            assert is_adapted(self.policy.model), (
                "a run that needs ref_logp is given a reference, or has adapters to switch off"
            )
            with switched_off(self.policy.model):
                return self.forward(micro, row_N, work)
        hidden_ND = self.reference.hidden(micro, row_N)
        with self.reference.head() as head:
            return work(hidden_ND, head)

    def _watching(
        self, batch: Batch, micro: MicroBatch
    ) -> AbstractContextManager[list[Float[Tensor, "R T"]]]:
        """A block in whose forwards it is seen how much attention is paid to the prompt: to what
        the policy did not say.
        """
        prompt_BT = (batch.kind_BT == TokenKind.PROMPT) | (batch.kind_BT == TokenKind.TOOL)
        prompt_BT[:, : self.importance.skip_first] = False
        return measure_attention(
            self.policy.model,
            micro.to_layout(prompt_BT).to(self.policy.device),
            self.importance.layer,
        )

    def _statistics(
        self, ids_N: Int[Tensor, " N"], names: list[str], teacher: vocab.Teacher | None
    ) -> HeadComputation:
        """The work of measuring these statistics of a model's distribution."""

        def work(hidden_ND: Float[Tensor, "N D"], head: vocab.Head) -> Mapping[str, Tensor]:
            with self.timer("vocabulary"):
                ids = ids_N.to(hidden_ND.device)
                return vocab.measure(
                    hidden_ND, head, ids, names, temperature=self.temperature, teacher=teacher
                )

        return work
