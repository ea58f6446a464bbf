"""A group of actors of one role: the same call on all of them, with a deadline, signs of life, and
a sentence for every death.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from reasontrain.cluster.actors import Worker
from reasontrain.data.storage import replace_text
from reasontrain.types import LostError, RunError, UserError

LOG_LINES = 8
POLL_S = 1.0
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "DS_ACCELERATOR": "",
}
PING_S = 5.0
LOST_PEER = ("onnection", "Gloo", "gloo", "NCCL")
"""Words of the errors that a rank raises when another one is gone."""
MEMORY_WORDS = ("running low on memory", "OutOfMemory")


@dataclass(frozen=True)
class Slot:
    """Where actor number `rank` of a role goes: a bundle of the placement group."""

    group: PlacementGroup
    bundle: int
    cpus: float
    gpus: float


class ActorGroup:
    """Actors of one role, in order of rank."""

    def __init__(
        self,
        role: str,
        cls: type[Worker],
        slots: Sequence[Slot],
        logs: Path,
        *,
        deadline_s: float,
        heartbeat_s: float,
    ) -> None:
        self.role, self.cls, self.slots, self.logs = role, cls, slots, logs
        self.deadline_s, self.heartbeat_s = deadline_s, heartbeat_s
        self.arguments: tuple[object, ...] = ()
        self.actors: list[ray.actor.ActorHandle] = []
        self.about: list[dict[str, str]] = []

    def start(self, *arguments: object) -> None:
        """Start every actor; its class takes its log and these arguments."""
        self.arguments = arguments
        self.actors = [self._started(rank) for rank in range(len(self.slots))]
        self.about = [{} for _ in self.slots]
        self._meet(range(len(self.slots)))

    def restart(self, ranks: Sequence[int]) -> None:
        """Put new actors in the places of these."""
        self.stop(ranks)
        for rank in ranks:
            self.actors[rank] = self._started(rank)
        self._meet(ranks)

    def note(self) -> None:
        """Write down how long each actor worked until now."""
        self._meet(range(len(self.actors)))

    def _meet(self, ranks: Sequence[int]) -> None:
        """Learn where these actors run, and write it down beside their logs."""
        found = self.wait(
            [self.actors[rank].facts.remote() for rank in ranks], ranks, starting=True
        )
        for rank, about in zip(ranks, found, strict=True):
            self.about[rank] = cast("dict[str, str]", about)
            replace_text(self.log(rank).with_suffix(".json"), json.dumps(about))

    def stop(self, ranks: Sequence[int] | None = None) -> None:
        """End actors at once."""
        for rank in range(len(self.actors)) if ranks is None else ranks:
            ray.kill(self.actors[rank])

    def all(self, method: str, *arguments: object) -> list[object]:
        """The same call on every actor; large arguments should be `ray.put` before."""
        return self.each(method, [arguments] * len(self.actors))

    def each(self, method: str, arguments: Sequence[tuple[object, ...]]) -> list[object]:
        """A call on every actor, each with arguments of its own."""
        return self.wait(self.submit(method, arguments))

    def submit(self, method: str, arguments: Sequence[tuple[object, ...]]) -> list[ray.ObjectRef]:
        """Begin such a call."""
        return [
            getattr(actor, method).remote(*given)
            for actor, given in zip(self.actors, arguments, strict=True)
        ]

    def wait(
        self,
        refs: Sequence[ray.ObjectRef],
        ranks: Sequence[int] | None = None,
        *,
        starting: bool = False,
    ) -> list[object]:
        """What the calls answered, by rank; a process that is `starting` gives no sign of life yet.

        Raises LostError when an actor died, is silent, or takes longer than the deadline; and
        whatever the call itself raised.
        """
        ranks = range(len(refs)) if ranks is None else ranks
        started = beat = time.monotonic()
        waiting = dict(zip(refs, ranks, strict=True))
        found: dict[int, object] = {}
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=POLL_S)
            for ref in ready:  # an error of one ends the wait for all
                rank = waiting.pop(ref)
                found[rank] = self._value(ref, rank)
            now = time.monotonic()
            if waiting and not starting and now - beat > self.heartbeat_s:
                self._check_life(ranks)
                beat = now
            if waiting and now - started > self.deadline_s:
                late = next(iter(waiting.values()))
                raise LostError(
                    self.role,
                    late,
                    f"{self.name(late)} did not answer within cluster.deadline_s = "
                    f"{self.deadline_s:g} s",
                )
        return [found[rank] for rank in ranks]

    def ready(self, refs: Sequence[ray.ObjectRef]) -> Sequence[ray.ObjectRef]:
        """One of these calls if any is done, with an answer or without; it waits a little for the
        first.
        """
        done: list[ray.ObjectRef] = ray.wait(list(refs), num_returns=1, timeout=POLL_S)[0]
        return done

    def name(self, rank: int) -> str:
        """Role, rank and where it runs."""
        about = self.about[rank]
        return f"{self.role} {rank}" + (
            f" on {about['host']} (process {about['pid']})" if about else ""
        )

    def log(self, rank: int) -> Path:
        """Where an actor's output goes."""
        return self.logs / f"{self.role}-{rank}.log"

    def _started(self, rank: int) -> ray.actor.ActorHandle:
        slot = self.slots[rank]
        options = {
            "num_cpus": slot.cpus,
            "num_gpus": slot.gpus,
            "max_restarts": 0,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                slot.group, placement_group_bundle_index=slot.bundle
            ),
            "runtime_env": {
                "env_vars": ENVIRONMENT | {"DS_ACCELERATOR": "cuda" if slot.gpus else "cpu"}
            },
        }
        return (
            ray.remote(concurrency_groups={"watch": 1})(self.cls)
            .options(**options)
            .remote(self.log(rank), *self.arguments)
        )

    def _check_life(self, ranks: Sequence[int]) -> None:
        """Every actor answers a ping, or is taken for dead."""
        silent = self._silent(ranks, self.heartbeat_s)
        if silent:
            why = (
                f"{self.name(silent[0])} gave no sign of life for cluster.heartbeat_s = "
                f"{self.heartbeat_s:g} s"
            )
            raise LostError(self.role, silent[0], why + self.tail(silent[0]))

    def _silent(self, ranks: Sequence[int], within_s: float) -> list[int]:
        """Those that do not answer a ping, which each does from a thread of its own; raises
        LostError for one that is dead.
        """
        pings = [self.actors[rank].ping.remote() for rank in ranks]
        silent = []
        for ping, rank in zip(pings, ranks, strict=True):
            try:
                ray.get(ping, timeout=within_s)
            except GetTimeoutError:
                silent.append(rank)
            except RayActorError as error:
                raise self._lost(rank, error) from None
        return silent

    def check(self) -> None:
        """Raises LostError for the first actor that is dead or silent."""
        self._check_life(range(len(self.actors)))

    def is_alive(self, rank: int) -> bool:
        """Whether the actor in this place answers."""
        try:
            self._check_life([rank])
        except LostError:
            return False
        return True

    def _value(self, ref: ray.ObjectRef, rank: int) -> object:
        try:
            return ray.get(ref)
        except RayTaskError as error:
            raise self._explained(rank, error) from error
        except RayActorError as error:
            if error.actor_init_failed:  # it would fail again
                raise RunError(f"{self.name(rank)} could not start: {_last_line(error)}") from None
            raise self._lost(rank, error) from None
        except RayError as error:
            raise self._lost(rank, error) from None

    def _explained(self, rank: int, error: RayTaskError) -> Exception:
        """What was raised inside of an actor, as it would be in one process."""
        cause = error.cause
        if isinstance(cause, UserError | RunError):
            return cause
        if isinstance(cause, torch.OutOfMemoryError):
            return RunError(
                f"{self.name(rank)} ran out of GPU memory; lower learn.micro_batch_tokens "
                f"or sample.max_tokens, set "
                "model.gradient_checkpointing, or raise learn.zero.stage"
            )
        if isinstance(cause, RayError):
            return LostError(
                self.role, rank, f"{self.name(rank)} lost another process: {_first_line(cause)}"
            )
        text = (
            f"{self.name(rank)} failed: {type(cause).__name__}: "
            f"{_first_line(cause)}{self.tail(rank)}"
        )
        if not isinstance(cause, torch.distributed.DistError) and not any(
            word in str(cause) for word in LOST_PEER
        ):
            return RunError(text)
        try:
            self._silent(range(len(self.actors)), PING_S)
        except LostError as death:  # it was this one that the others noticed
            return death
        return LostError(self.role, rank, text)

    def _lost(self, rank: int, error: RayError) -> LostError:
        """The death of an actor, with its reason and its last words."""
        text = str(error)
        if any(word in text for word in MEMORY_WORDS):
            reason = "was ended because its machine ran out of memory"
        elif "node" in text and "died" in text and "process" not in text:
            reason = "died with its node"
        elif "SIGKILL" in text or "Unexpectedly" in text or "unexpectedly" in text:
            reason = (
                "was killed or crashed (signal 9 is what the system sends when memory runs "
                "out; see dmesg)"
            )
        else:
            reason = f"died: {_first_line(error)}"
        return LostError(self.role, rank, f"{self.name(rank)} {reason}{self.tail(rank)}")

    def tail(self, rank: int) -> str:
        """The last lines that an actor wrote."""
        path = self.log(rank)
        if not path.exists():
            return ""
        with path.open(encoding="utf-8", errors="replace") as stream:
            lines = [line.rstrip() for line in deque(stream, LOG_LINES) if line.strip()]
        return f"; the end of {path}:\n  " + "\n  ".join(lines) if lines else f"; {path} is empty"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _last_line(error: BaseException) -> str:
    """The end of a traceback, which is what was raised: `module.Class: message`."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
