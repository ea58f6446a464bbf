"""What a run writes down as it happens: metrics, evaluations, tokens with their evidence; and what
outside services get of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from importlib import import_module, util
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from reasontrain.data import storage
from reasontrain.recipe import TrackSettings, is_due
from reasontrain.run.directory import RunDirectory
from reasontrain.types import Batch, Rollout, Stats, UserError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@runtime_checkable
class Service(Protocol):
    """What Weights & Biases and Trackio have in common."""

    def init(self, *, project: str, name: str, config: dict[str, object]) -> object: ...

    def log(self, values: dict[str, float], step: int) -> object: ...

    def finish(self) -> object: ...


class Tracker:
    """Appends to the run directory, one line at a time, and forwards to TensorBoard and a service."""

    def __init__(
        self,
        directory: RunDirectory,
        settings: TrackSettings,
        service: Service | None = None,
        *,
        from_step: int,
    ) -> None:
        """Records of `from_step` and later are those of a run that was cut short: they are dropped,
        since they are made again.

        An evaluation after `from_step` steps is of the very weights that the run goes on with, and
        stays; that of step 0 does not, so that a run without a checkpoint begins anew.
        """
        self.directory = directory
        self.settings = settings
        self.service = service
        directory.rewind(from_step, evaluations_through=from_step if from_step else -1)
        self.board = _board(directory, from_step) if settings.tensorboard else None

    def rewind(self, step: int) -> None:
        """Drop what was written of this step and later: they are made again."""
        self.directory.rewind(step, evaluations_through=step)

    def metrics(self, step: int, stats: Stats) -> None:
        """One line for one step."""
        self.directory.append_metrics(step, stats)
        self._forward(step, stats)

    def evaluation(self, step: int, record: storage.JsonRecord, scalars: Stats) -> None:
        """One line for one suite after `step` steps."""
        self.directory.append_evaluation(step, record)
        self._forward(step, {f"evaluate/{name}": value for name, value in scalars.items()})

    def has_evaluation(self, step: int, suite: str) -> bool:
        """Whether a suite was measured after `step` steps already."""
        return any(
            (record["step"], record["suite"]) == (step, suite)
            for record in self.directory.read_evaluations()
        )

    def scores(self, suite: str) -> dict[int, float]:
        """The accuracy on a suite after so many steps, where it was measured."""
        return {
            record["step"]: record["metrics"]["accuracy"]["value"]
            for record in self.directory.read_evaluations()
            if record["suite"] == suite
        }

    def tokens(
        self,
        step: int,
        batch: Batch,
        weight_BT: Tensor,
        rollouts: Sequence[Rollout],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        """Some rollouts of a step, with the evidence and the weight of each of their tokens."""
        if is_due(self.settings.tokens_every, step):
            write_tokens(
                self.directory.tokens_at(step),
                batch,
                weight_BT,
                rollouts[: self.settings.tokens_rollouts],
                tokenizer,
            )

    def close(self) -> None:
        """Flush everything."""
        if self.board is not None:
            self.board.close()
        if self.service is not None:
            self.service.finish()

    def _forward(self, step: int, stats: Stats) -> None:
        if self.board is not None:
            for name, value in stats.items():
                self.board.add_scalar(name, value, step)
        if self.service is not None:
            self.service.log(dict(stats), step=step)


def write_tokens(
    path: Path,
    batch: Batch,
    weight_BT: Tensor,
    rollouts: Sequence[Rollout],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Rollouts with their tokens, kinds, weights and evidence, one line each, for the report and
    the lens.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    row_of = {int(rollout): row for row, rollout in enumerate(batch.rollout_B)}
    with path.open("w", encoding="utf-8") as stream:
        for rollout in rollouts:
            if rollout.id not in row_of:
                continue  # dropped before it was observed
            row, start = row_of[rollout.id], len(rollout.prompt_ids)
            span = slice(start, start + len(rollout.response_ids))
            record = {
                "rollout": rollout.id,
                "problem": rollout.problem.id,
                "prompt": tokenizer.decode(list(rollout.prompt_ids)),
                "answer": rollout.problem.answer,
                "reward": rollout.reward,
                "truncated": rollout.truncated,
                "ids": list(rollout.response_ids),
                "tokens": [tokenizer.decode([i]) for i in rollout.response_ids],
                "kind": batch.kind_BT[row, span].tolist(),
                "weight": _rounded(weight_BT[row, span]),
                "evidence": {
                    name: _rounded(column_BT[row, span])
                    for name, column_BT in batch.evidence.items()
                },
            }
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")


def check_service(settings: TrackSettings) -> None:
    """Refuse a service that is not installed before anything is written."""
    if settings.service is not None and util.find_spec(settings.service) is None:
        raise UserError(
            f"track.service is {settings.service}, which is not installed; `pip install "
            f"{settings.service}` or leave it out"
        )


def open_service(settings: TrackSettings, name: str, config: storage.JsonRecord) -> Service | None:
    """The service named in the recipe, logged in as its own library finds its secrets; UserError
    where it will not start.
    """
    if settings.service is None:
        return None
    service: Service = import_module(settings.service)
    try:
        service.init(project=settings.project, name=name, config=dict(config))
    except Exception as error:  # each service has errors of its own
        raise UserError(
            f"track.service: {settings.service} did not start: "
            f"{str(error).strip() or type(error).__name__}"
        ) from error
    return service


def _board(directory: RunDirectory, from_step: int) -> SummaryWriter:
    """TensorBoard's writer, which is imported only for runs that have one."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(directory.tensorboard), purge_step=from_step)


def _rounded(values: Tensor) -> list[float | str]:
    """Numbers with five digits, enough for a picture."""
    return [round(v, 5) if math.isfinite(v) else str(v) for v in values.tolist()]
