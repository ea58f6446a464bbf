"""Record metrics, evaluations and tokens of a run as they happen, and forward them to services."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module, util
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from reasontrain.data import storage
from reasontrain.recipe import TrackSettings, is_due
from reasontrain.run.directory import RunDirectory
from reasontrain.tasks.python import output_logger
from reasontrain.types import Batch, Rollout, Stats, TokenKind, UserError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


@runtime_checkable
class Service(Protocol):
    """The common interface of Weights & Biases and Trackio."""

    def init(self, *, project: str, name: str, config: dict[str, object]) -> object: ...

    def log(self, values: dict[str, float], step: int) -> object: ...

    def finish(self) -> object: ...


class Tracker:
    """Append to the run directory line by line; forward to TensorBoard and a service."""

    def __init__(
        self,
        directory: RunDirectory,
        settings: TrackSettings,
        service: Service | None = None,
        *,
        from_step: int,
    ) -> None:
        """Drop the records of steps after `from_step`, which an interrupted run left behind.

        An evaluation after `from_step` steps is of the weights that the run resumes with, and
        stays; one after 0 steps does not, so that a run without a checkpoint starts over.

        Args:
            directory: The run directory.
            settings: The recipe's `track`.
            service: An open service to forward to.
            from_step: The number of steps done already.
        """
        self.directory = directory
        self.settings = settings
        self.service = service
        directory.rewind(from_step or None)
        self.board = _board(directory, from_step) if settings.tensorboard else None

    def rewind(self, done: int) -> None:
        """Drop records of later steps than these, which will be taken again."""
        self.directory.rewind(done)

    def metrics(self, step: int, stats: Stats) -> None:
        """One line for one step, counted from 1."""
        self.directory.append_metrics(step, stats)
        self._forward(step, stats)

    def evaluation(self, step: int, record: storage.JsonRecord, scalars: Stats) -> None:
        """One line for one suite after `step` steps."""
        self.directory.append_evaluation(step, record)
        self._forward(step, {f"evaluate/{name}": value for name, value in scalars.items()})

    def has_evaluation(self, step: int, suite: str) -> bool:
        """True if a suite has been evaluated after `step` steps."""
        return any(
            (record["step"], record["suite"]) == (step, suite)
            for record in self.directory.read_evaluations()
        )

    def scores(self, suite: str) -> dict[int, float]:
        """Accuracy on a suite by number of steps, as far as it was evaluated."""
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
        *,
        sampled: Batch,
    ) -> None:
        """Write some rollouts of a step, if token files are due.

        Args:
            step: The number of the step, from 1.
            batch: Its tokens with their evidence.
            weight_BT: The weight of each token.
            rollouts: The rollouts of the step, of which the first few are written.
            tokenizer: Decodes the tokens.
            sampled: The step's tokens before the rollout filter.
        """
        if is_due(self.settings.tokens_every, step - 1):
            write_tokens(
                self.directory.tokens_at(step),
                batch,
                weight_BT,
                rollouts[: self.settings.tokens_rollouts],
                tokenizer,
                sampled=sampled,
            )

    def close(self) -> None:
        """Flush everything."""
        if self.board is not None:
            self.board.close()
        if self.service is not None:
            self._serve(self.service.finish)

    def _forward(self, step: int, stats: Stats) -> None:
        if self.board is not None:
            for name, value in stats.items():
                self.board.add_scalar(name, value, step)
        if self.service is not None:
            self._serve(partial(self.service.log, dict(stats), step=step))

    def _serve(self, call: Callable[[], object]) -> None:
        """Call the service; one that fails is left out from then on, and the run goes on."""
        try:
            call()
        except Exception as error:  # each service has errors of its own
            self.service = None
            logger.warning(f"track.service: no more metrics are sent, {_kept(error)}")


def write_tokens(
    path: Path,
    batch: Batch,
    weight_BT: Tensor,
    rollouts: Sequence[Rollout],
    tokenizer: PreTrainedTokenizerBase,
    *,
    sampled: Batch,
) -> None:
    """Write rollouts with their tokens, kinds, weights and evidence, one JSON line per rollout.

    A dropped rollout has weights of 0 and no evidence, and no advantage if it was dropped before
    advantages were computed.

    Args:
        path: The file.
        batch: Tokens with their evidence; a rollout that is not in it was dropped.
        weight_BT: The weight of each token.
        rollouts: The rollouts to write.
        tokenizer: Decodes the tokens.
        sampled: The step's tokens before the rollout filter.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    row_of = {int(rollout): row for row, rollout in enumerate(batch.rollout_B)}
    with path.open("w", encoding="utf-8") as stream:
        for rollout in rollouts:
            row = row_of.get(rollout.id)
            start = len(rollout.prompt_ids)
            span = slice(start, start + len(rollout.response_ids))
            record = {
                "rollout": rollout.id,
                "problem": rollout.problem.id,
                "prompt": tokenizer.decode(list(rollout.prompt_ids)),
                "prompt_tokens": start,  # random numbers of rules depend on positions
                "answer": rollout.problem.answer,
                "group": rollout.group,
                "reward": rollout.reward,
                "correct": rollout.correct,
                "advantage": _advantage(batch, sampled, rollout.id),
                "dropped": row is None,
                **({"reward_parts": dict(rollout.reward_parts)} if rollout.reward_parts else {}),
                "truncated": rollout.truncated,
                "ids": list(rollout.response_ids),
                "tokens": [tokenizer.decode([i]) for i in rollout.response_ids],
                "kind": _kinds(rollout) if row is None else batch.kind_BT[row, span].tolist(),
                "weight": [0.0] * len(rollout.response_ids)
                if row is None
                else _rounded(weight_BT[row, span]),
                "evidence": {
                    name: _rounded(column_BT[row, span])
                    for name, column_BT in batch.evidence.items()
                    if row is not None
                },
            }
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")


def _advantage(batch: Batch, sampled: Batch, rollout: int) -> float | None:
    """The advantage that a rollout was learned from, or that it was dropped with."""
    for one in (batch, sampled):
        row = (one.rollout_B == rollout).nonzero()
        if len(row):
            return float(one.advantage_B[int(row[0])])
    return None


def _kinds(rollout: Rollout) -> list[int]:
    """The kinds of the tokens of a rollout that was dropped."""
    return list(rollout.kinds) or [int(TokenKind.RESPONSE)] * len(rollout.response_ids)


@contextmanager
def rewards_log(directory: RunDirectory) -> Iterator[None]:
    """Write what own reward functions print, and their errors, to a file within the block.

    The file is there once they print or fail. None of it reaches the terminal.
    """
    handler = logging.FileHandler(directory.rewards_log, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    output_logger.addHandler(handler)
    output_logger.setLevel(logging.DEBUG)
    output_logger.propagate = False
    try:
        yield
    finally:
        output_logger.removeHandler(handler)
        output_logger.setLevel(logging.NOTSET)
        output_logger.propagate = True
        handler.close()


def check_service(settings: TrackSettings) -> None:
    """Raise UserError for a service that is not installed, before anything is written."""
    if settings.service is not None and util.find_spec(settings.service) is None:
        raise UserError(
            f"track.service is {settings.service}, which is not installed; `pip install "
            f"{settings.service}` or leave it out"
        )


def open_service(settings: TrackSettings, name: str, config: storage.JsonRecord) -> Service | None:
    """Start the service that the recipe names; its library finds its own credentials.

    Returns:
        The service; None, with a warning, if it does not start, as without a network.
    """
    if settings.service is None:
        return None
    service: Service = import_module(settings.service)
    try:
        service.init(project=settings.project, name=name, config=dict(config))
    except Exception as error:  # each service has errors of its own
        logger.warning(f"track.service: {settings.service} did not start, {_kept(error)}")
        return None
    return service


def _kept(error: Exception) -> str:
    """The end of a warning: what is left, and the service's reason in one line."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"and metrics are written to the run directory only ({reason})"


def _board(directory: RunDirectory, from_step: int) -> SummaryWriter:
    """TensorBoard's writer, which is imported only for runs that have one."""
    from torch.utils.tensorboard import SummaryWriter

    # An evaluation after `from_step` steps is not repeated; one before the first step is.
    first = from_step + 1 if from_step else 0
    return SummaryWriter(str(directory.tensorboard), purge_step=first)


def _rounded(values: Tensor) -> list[float | str]:
    """Numbers with five decimals, enough for a plot; non-finite ones by name."""
    return [round(v, 5) if math.isfinite(v) else str(v) for v in values.tolist()]
