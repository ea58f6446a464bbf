"""Evidence: per-token numbers measured on the policy and the models it is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain import vocab
from reasontrain.algo import evidence
from reasontrain.data.micro_batches import MicroBatch, MicroBatchTokens
from reasontrain.data.teacher_view import teacher_sequence
from reasontrain.learner.engine import TrainingEngine
from reasontrain.learner.history import History, switched_off
from reasontrain.learner.lora import is_adapted
from reasontrain.learner.policy_module import FrozenModel, HeadComputation
from reasontrain.learner.teacher_states import PartialStates, SeveralTeachers, TeacherStates
from reasontrain.learner.top_k_teacher import TopKSource, teacher_at
from reasontrain.metrics.working import working
from reasontrain.models import Importance
from reasontrain.models.attention import measure_attention
from reasontrain.recipe import WeightsTeacher
from reasontrain.types import Batch, TokenKind

IN_FLIGHT = 2
"""Micro-batches that a teacher in another process works on: the one that is awaited, and the next,
which it computes while the learner uses the first."""


class Observer:
    """Measures evidence without gradient.

    The teacher's hidden states, which are wide, stay here from `columns` until `forget`: learning
    reads them again.
    """

    def __init__(
        self,
        engine: TrainingEngine,
        *,
        temperature: float = 1.0,
        teacher: FrozenModel | SeveralTeachers | TopKSource | None = None,
        compared: WeightsTeacher | None = None,
        reference: FrozenModel | None = None,
        history: History | None = None,
        importance: Importance | None = None,
    ) -> None:
        """Build the observer of an engine's policy.

        Args:
            engine: runs the policy.
            temperature: divides the policy's logits, and those of models it is compared with.
            teacher: measures divergences, if evidence or objective needs them.
            compared: how many ids of a single teacher with weights are compared; None: all.
            reference: measures `ref_logp`; without it, the policy with its adapters switched off.
            history: an earlier version of the policy, for `history_logp`.
            importance: which attention is looked at.
        """
        self.engine = engine
        self.temperature = temperature
        self.reference = reference
        self.history = history or History()
        self.importance = importance or Importance()
        self._source = teacher if isinstance(teacher, TopKSource) else None
        self._states = (
            None
            if teacher is None or isinstance(teacher, TopKSource)
            else TeacherStates(teacher, compared)
        )

    @property
    def teacher_states(self) -> TeacherStates:
        """The teachers with weights, if something is compared with them."""
        assert self._states is not None, "the recipe refuses a comparison without a teacher"
        return self._states

    def forget(self) -> None:
        """Drop the teacher's hidden states, or its log-probabilities of the step."""
        if self._states is not None:
            self._states.forget()
        if self._source is not None:
            self._source.forget()

    def columns(
        self,
        batch: Batch,
        micro_batches: Sequence[MicroBatch],
        required_evidence: frozenset[str],
    ) -> dict[str, Float[Tensor, "B T"]]:
        """The required evidence at the response tokens of these micro-batches, zero elsewhere."""
        self.forget()
        columns = {name: torch.zeros(batch.ids_BT.shape) for name in sorted(required_evidence)}
        if not columns or not micro_batches:
            return columns
        device = self.engine.policy.device
        parts: list[Float[Tensor, "E N"]] = []
        total = sum(micro.num_tokens(batch) for micro in micro_batches)
        cut = [micro.tokens(batch.is_response_BT) for micro in micro_batches]
        needs_teacher = "teacher" in evidence.forward_passes(required_evidence)
        if needs_teacher:
            self.fetch_teacher(batch, cut)
        with working("measuring evidence", "tokens", total) as work:
            for index, (micro, tokens) in enumerate(zip(micro_batches, cut, strict=True)):
                if needs_teacher:
                    self.request_teacher(batch, cut[index : index + IN_FLIGHT])
                measured = self._measure(batch, tokens, required_evidence)
                unmeasured = required_evidence - measured.keys()
                assert not unmeasured, f"no code here measures {', '.join(sorted(unmeasured))}"
                parts.append(torch.stack([measured[name].float().to(device) for name in columns]))
                work.done += micro.num_tokens(batch)
        # One copy for the batch. A copy for each micro-batch would wait until the device has done
        # it, and the device would wait for the host before the next.
        value_EN = torch.cat(parts, 1).cpu()
        rollout_N = torch.cat([tokens.rollout_N for tokens in cut])
        token_N = torch.cat([tokens.token_N for tokens in cut])
        for column_BT, value_N in zip(columns.values(), value_EN, strict=True):
            column_BT[rollout_N, token_N] = value_N
        return columns

    @property
    def keeps_teacher_hidden(self) -> bool:
        """True if `columns` has run the teacher on the batch."""
        return self._states is not None and self._states.are_kept

    def request_teacher(self, batch: Batch, upcoming: Sequence[MicroBatchTokens]) -> None:
        """Let a teacher in another process start on these."""
        if self._states is not None:
            self._states.request(batch, upcoming)

    def fetch_teacher(self, batch: Batch, cut: Sequence[MicroBatchTokens]) -> None:
        """Fetch the log-probabilities of a teacher without weights for all of these at once."""
        if self._source is not None:
            rollouts = [int(i) for tokens in cut for i in tokens.rollout_N.unique()]
            with self.engine.timer("frozen_forward"):
                self._source.fetch(teacher_sequence(batch, index) for index in rollouts)

    @contextmanager
    def teacher_at(self, batch: Batch, tokens: MicroBatchTokens) -> Iterator[vocab.AnyTeacher]:
        """The teacher at these tokens, for use within the block."""
        if self._source is not None:
            yield teacher_at(self._source, batch, tokens).to(self.engine.policy.device)
            return
        states = self._teacher_states_at(batch, tokens)
        with (
            self.engine.timer("frozen_forward"),
            self.teacher_states.compare(states, len(tokens)) as teacher,
        ):
            yield teacher

    def _teacher_states_at(self, batch: Batch, tokens: MicroBatchTokens) -> list[PartialStates]:
        """The hidden states that predict these tokens, kept by `columns` or computed now."""
        if self.teacher_states.are_kept:
            return self.teacher_states.at(batch, tokens)
        with self.engine.timer("frozen_forward"):
            return self.teacher_states.run(batch, tokens)

    @torch.no_grad()
    def _measure(
        self, batch: Batch, tokens: MicroBatchTokens, required_evidence: frozenset[str]
    ) -> dict[str, Float[Tensor, " N"]]:
        """Evidence at these tokens: one forward of each model that is needed."""
        micro = tokens.micro_batch
        position_N = tokens.logit_position_N
        ids_N = tokens.of(batch.ids_BT)
        timer = self.engine.timer
        models = evidence.forward_passes(required_evidence)
        columns: dict[str, Float[Tensor, " N"]] = {}
        if "policy" in models:
            names = evidence.statistics(required_evidence, "policy", "teacher")
            statistics = sorted({*names.values()})
            needs_attention = "attention" in required_evidence
            watch = self._watching(batch, micro) if needs_attention else nullcontext([])
            with watch as attention:
                if "teacher" in models:
                    with timer("frozen_forward"):
                        measured = self._beside_teacher(batch, tokens, statistics)
                else:
                    compute = self._statistics(ids_N, statistics, None)
                    measured = self.forward(micro, position_N, compute)
            columns = {name: measured[statistic] for name, statistic in names.items()}
            if needs_attention:  # at the token's own position, not at the one that predicts it
                share_M = attention[0].flatten()
                columns["attention"] = share_M[tokens.place_N.to(share_M.device, non_blocking=True)]
        if names := evidence.statistics(required_evidence, "reference"):
            compute = self._statistics(ids_N, sorted({*names.values()}), None)
            with timer("frozen_forward"):
                measured = self._by_reference(micro, position_N, compute)
            columns |= {name: measured[statistic] for name, statistic in names.items()}
        if names := evidence.statistics(required_evidence, "history"):
            compute = self._statistics(ids_N, sorted({*names.values()}), None)
            with timer("frozen_forward"):
                measured = self.history.measure(self.forward, micro, position_N, compute)
            columns |= {name: measured[statistic] for name, statistic in names.items()}
        return columns

    def forward(
        self, micro: MicroBatch, position_N: Int[Tensor, " N"], compute: HeadComputation
    ) -> Mapping[str, Tensor]:
        """The policy's forward, timed as evidence."""
        with self.engine.timer("evidence_forward"):
            return self.engine.forward(micro, position_N, compute)

    def _beside_teacher(
        self, batch: Batch, tokens: MicroBatchTokens, names: list[str]
    ) -> Mapping[str, Tensor]:
        """Statistics of policy and teacher together; the teacher's hidden states are kept."""
        micro = tokens.micro_batch
        ids_N = tokens.of(batch.ids_BT)
        if self._source is not None:
            source = teacher_at(self._source, batch, tokens).to(self.engine.policy.device)
            compute = self._statistics(ids_N, names, source)
            return self.forward(micro, tokens.logit_position_N, compute)
        states = self.teacher_states.measure(batch, tokens)
        with self.teacher_states.compare(states, len(tokens)) as teacher:
            compute = self._statistics(ids_N, names, teacher)
            return self.forward(micro, tokens.logit_position_N, compute)

    def _by_reference(
        self, micro: MicroBatch, position_N: Int[Tensor, " N"], compute: HeadComputation
    ) -> Mapping[str, Tensor]:
        """`compute` on the reference, or on the policy with its adapters switched off."""
        if self.reference is None:
            assert is_adapted(self.engine.policy.model), (
                "a run that needs ref_logp has a reference, or adapters to switch off"
            )
            with switched_off(self.engine.policy.model):
                return self.forward(micro, position_N, compute)
        hidden_ND = self.reference.hidden(micro, position_N)
        with self.reference.head() as head:
            return compute(hidden_ND, head)

    def _watching(
        self, batch: Batch, micro: MicroBatch
    ) -> AbstractContextManager[list[Float[Tensor, "R T"]]]:
        """A block whose forwards measure how much attention each token pays to the prompt.

        Text that the policy did not choose, such as the answer of a tool, counts as prompt.
        """
        prompt_BT = (batch.kind_BT == TokenKind.PROMPT) | (batch.kind_BT == TokenKind.TOOL)
        prompt_BT[:, : self.importance.skip_first] = False
        return measure_attention(
            self.engine.policy.model,
            micro.to_layout(prompt_BT).to(self.engine.policy.device),
            self.importance.layer,
        )

    def _statistics(
        self,
        ids_N: Int[Tensor, " N"],
        names: list[str],
        teacher: vocab.AnyTeacher | None,
    ) -> HeadComputation:
        """The computation that measures these statistics of a model's distribution."""

        def compute(hidden_ND: Float[Tensor, "N D"], head: vocab.Head) -> Mapping[str, Tensor]:
            with self.engine.timer("vocabulary"):
                return vocab.measure(
                    hidden_ND,
                    head,
                    ids_N.to(hidden_ND.device, non_blocking=True),
                    names,
                    temperature=self.temperature,
                    teacher=teacher,
                )

        return compute
