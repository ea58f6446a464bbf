"""The reference learner: one process, plain PyTorch. Every other learner must give the same gradients."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain import vocab
from reasontrain.data.micro import MicroBatch, build, columns_at, cut
from reasontrain.learner import AverageFunction
from reasontrain.learner.optimizer import Optimizer, rate
from reasontrain.models import DType, Policy
from reasontrain.objectives import Objective
from reasontrain.recipe import LearnSettings
from reasontrain.types import Batch, Stats, Weights

STUDENT_STATISTICS = {"entropy": "entropy", "old_logp": "logp"}
TEACHER_STATISTICS = frozenset({"kl_reverse", "kl_forward", "teachability"})
OPTIMIZER_FILE = "optimizer.pt"


class LocalLearner:
    """A trainable policy, its optimiser, and the frozen models it is compared with."""

    def __init__(
        self,
        policy: Policy,
        settings: LearnSettings,
        *,
        steps: int,
        temperature: float = 1.0,
        teacher: Policy | None = None,
        reference: Policy | None = None,
        export_dtype: DType = "float32",
    ) -> None:
        """`steps` is the length of the run, for the schedule; `temperature` divides the policy's logits wherever it is scored."""
        self.policy, self.teacher, self.reference = policy, teacher, reference
        self.settings, self.steps, self.temperature, self.export_dtype = settings, steps, temperature, export_dtype
        self.optimizer = Optimizer(policy.model, settings)
        self.steps_done = self.nonfinite_in_a_row = 0
        self._teacher_rows: dict[int, Float[Tensor, "N D"]] = {}

    # ---- evidence

    def observe(self, batch: Batch, needs: frozenset[str]) -> Batch:
        """The batch with the evidence in `needs`; the teacher's hidden states at response rows are kept for the step."""
        self._teacher_rows.clear()
        columns = {name: torch.zeros(batch.ids_BT.shape) for name in sorted(needs)}
        for micro in self._micro_batches(batch):
            local_N, token_N = batch.is_response_BT[micro.index_K].nonzero(as_tuple=True)
            rollout_N = micro.index_K[local_N]
            measured = self._measure(batch, micro, local_N, token_N, needs)
            for name, value_N in measured.items():
                columns[name][rollout_N, token_N] = value_N.float().cpu()
        return batch.with_evidence(columns)

    @torch.no_grad()
    def _measure(
        self, batch: Batch, micro: MicroBatch, local_N: Int[Tensor, " N"], token_N: Int[Tensor, " N"], needs: frozenset[str]
    ) -> dict[str, Float[Tensor, " N"]]:
        """Evidence at these rows of a micro-batch."""
        row_N = micro.predictors(local_N, token_N)
        ids_N = batch.ids_BT[micro.index_K[local_N], token_N]
        found: dict[str, Tensor] = {}
        teacher = self._teacher(micro, row_N, batch, local_N) if needs & TEACHER_STATISTICS else None
        ours = {name: STUDENT_STATISTICS.get(name, name) for name in needs & (TEACHER_STATISTICS | STUDENT_STATISTICS.keys())}
        if ours:
            measured = self._statistics(self.policy, micro, row_N, ids_N, sorted({*ours.values()}), teacher)
            found = {name: measured[statistic] for name, statistic in ours.items()}
        if "ref_logp" in needs:
            assert self.reference is not None, "a run that needs ref_logp is given a reference"
            found["ref_logp"] = self._statistics(self.reference, micro, row_N, ids_N, ["logp"], None)["logp"]
        return found

    def _statistics(
        self,
        policy: Policy,
        micro: MicroBatch,
        row_N: Int[Tensor, " N"],
        ids_N: Int[Tensor, " N"],
        names: list[str],
        teacher: vocab.Teacher | None,
    ) -> dict[str, Float[Tensor, " N"]]:
        """Statistics of a model's distribution at rows of a micro-batch."""
        hidden_ND = _rows(policy, micro, row_N)
        return vocab.measure(
            hidden_ND, policy.head, ids_N.to(hidden_ND.device), names, temperature=self.temperature, teacher=teacher
        )

    @torch.no_grad()
    def _teacher(self, micro: MicroBatch, row_N: Int[Tensor, " N"], batch: Batch, local_N: Int[Tensor, " N"]) -> vocab.Teacher:
        """The teacher's hidden states at these rows, kept per rollout for the step that follows."""
        assert self.teacher is not None, "the recipe refuses a comparison without a teacher"
        hidden_ND = _rows(self.teacher, micro, row_N)
        for local, index in enumerate(micro.index_K.tolist()):
            self._teacher_rows[int(batch.rollout_B[index])] = hidden_ND[local_N == local]
        return vocab.Teacher(hidden_ND, self.teacher.head)

    # ---- learning

    def step(self, batch: Batch, weight_BT: Float[Tensor, "B T"], objective: Objective, average: AverageFunction) -> Stats:
        """One optimiser step: coefficients first, for the whole step, then one backward per micro-batch.

        A step whose gradient is not finite is skipped and counted; `nonfinite_in_a_row` says how many came one after another.
        """
        counts = batch.counts(weight_BT)
        stats = self.gradient(batch, average(weight_BT, counts), objective)
        norm = self._clip()
        stats |= {"grad_norm": float(norm), "kept_share": counts.kept_rows / max(counts.response_rows, 1)}
        share = rate(self.settings, self.steps_done, self.steps)
        stats["lr"] = self.settings.lr * share
        finite = bool(torch.isfinite(norm))
        self.nonfinite_in_a_row = 0 if finite else self.nonfinite_in_a_row + 1
        stats |= {"skipped": float(not finite), "nonfinite_in_a_row": float(self.nonfinite_in_a_row)}
        if finite:
            self.optimizer.step(share)  # where nothing was selected there is no gradient, and nothing moves
        self.optimizer.zero_grad()
        self._teacher_rows.clear()
        self.steps_done += 1
        return stats

    def gradient(self, batch: Batch, coefficient_BT: Float[Tensor, "B T"], objective: Objective) -> Stats:
        """Accumulate the gradient of sum(coefficient x loss), by micro-batches; rows without coefficient never meet the loss."""
        loss, sums, num_rows = 0.0, defaultdict[str, float](float), 0
        for micro in self._micro_batches(batch):
            local_N, token_N = (coefficient_BT[micro.index_K] != 0).nonzero(as_tuple=True)
            if not len(local_N):
                continue
            rollout_N = micro.index_K[local_N]
            hidden_ND = _rows(self.policy, micro, micro.predictors(local_N, token_N))
            result = vocab.fused(
                hidden_ND,
                self.policy.head,
                columns_at(batch, rollout_N, token_N).to(hidden_ND.device),
                coefficient_BT[rollout_N, token_N].to(hidden_ND.device),
                objective,
                temperature=self.temperature,
                teacher=self._teacher_at(batch, micro, local_N, token_N) if objective.teacher else None,
            )
            result.loss.backward()
            loss += float(result.loss.detach())
            num_rows += len(local_N)
            for name, value in result.stats.items():
                sums[name] += float(value)
        return {"loss": loss, **{name: value / max(num_rows, 1) for name, value in sums.items()}}

    def _teacher_at(
        self, batch: Batch, micro: MicroBatch, local_N: Int[Tensor, " N"], token_N: Int[Tensor, " N"]
    ) -> vocab.Teacher:
        """The teacher at these rows: from what `observe` kept, or by a forward now."""
        assert self.teacher is not None, "the recipe refuses an objective that has no teacher"
        if not self._teacher_rows:
            with torch.no_grad():
                return vocab.Teacher(_rows(self.teacher, micro, micro.predictors(local_N, token_N)), self.teacher.head)
        kept = []
        for local, index in enumerate(micro.index_K.tolist()):
            response_T = batch.is_response_BT[index]
            rank_T = response_T.long().cumsum(0) - 1
            rows_ND = self._teacher_rows[int(batch.rollout_B[index])]
            kept.append(rows_ND[rank_T[token_N[local_N == local]].to(rows_ND.device)])
        return vocab.Teacher(torch.cat(kept), self.teacher.head)

    def _micro_batches(self, batch: Batch) -> Iterator[MicroBatch]:
        """The step's rollouts in micro-batches, the same ones for `observe` and `step`."""
        for index in cut(batch.length_B, self.settings.micro_batch_tokens, self.settings.layout):
            yield build(batch, index, self.settings.layout)

    def _clip(self) -> Float[Tensor, ""]:
        """Clip the gradient to the recipe's norm; its norm before that."""
        parameters = [p for p in self.policy.model.parameters() if p.grad is not None]
        limit = self.settings.max_grad_norm
        return torch.nn.utils.clip_grad_norm_(parameters, float("inf") if limit is None else limit)

    # ---- weights

    def weights(self) -> Weights:
        """The policy's weights as they are, without a copy."""
        return Weights(version=self.steps_done, tensors=lambda: iter(self.policy.model.state_dict().items()))

    def save(self, directory: Path) -> None:
        """The model in float32, its tokenizer, and the optimiser's state."""
        self._save_model(directory, torch.float32)
        kept = {"optimizer": self.optimizer.state(), "steps_done": self.steps_done, "nonfinite": self.nonfinite_in_a_row}
        torch.save(kept, directory / OPTIMIZER_FILE)

    def restore(self, directory: Path) -> None:
        """Go on from a directory that `save` wrote."""
        source = type(self.policy.model).from_pretrained(directory, dtype=torch.float32)
        self.policy.model.load_state_dict(source.state_dict())
        kept = torch.load(directory / OPTIMIZER_FILE, map_location="cpu", weights_only=True)
        self.optimizer.load(kept["optimizer"])
        self.steps_done, self.nonfinite_in_a_row = kept["steps_done"], kept["nonfinite"]

    def export(self, directory: Path) -> None:
        """The model as others load it, in the recipe's dtype."""
        self._save_model(directory, getattr(torch, self.export_dtype))

    def _save_model(self, directory: Path, dtype: torch.dtype) -> None:
        """A Hugging Face directory with weights of this dtype."""
        state = {name: tensor.to(dtype) for name, tensor in self.policy.model.state_dict().items()}
        self.policy.model.save_pretrained(directory, state_dict=state)
        _set_dtype(directory / "config.json", dtype)
        self.policy.tokenizer.save_pretrained(directory)


def _rows(policy: Policy, micro: MicroBatch, row_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
    """A model's hidden states at flat rows of a micro-batch."""
    device = policy.device
    hidden = policy.hidden(micro.ids_RT.to(device), position=micro.position_RT.to(device))
    return hidden.flatten(0, 1)[row_N.to(device)]


def _set_dtype(config: Path, dtype: torch.dtype) -> None:
    """Let a saved configuration name the dtype of the weights beside it, for those who load with `dtype="auto"`."""
    content = json.loads(config.read_text(encoding="utf-8"))
    content["dtype"] = str(dtype).removeprefix("torch.")
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
