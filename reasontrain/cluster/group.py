"""A group of actors of one role: calls with deadlines, heartbeats and readable errors."""

from __future__ import annotations

import json
import os
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
from reasontrain.models import MODEL_VARIABLES
from reasontrain.types import LostError, RunError, UserError

LOG_LINES = 8
POLL_S = 1.0
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Environment variables of every actor."""
PING_S = 5.0
LOST_PEER = ("onnection", "Gloo", "gloo", "NCCL")
"""Substrings of the errors that a rank raises when a peer is gone."""
MEMORY_WORDS = ("running low on memory", "OutOfMemory")
"""Substrings of Ray's errors after its memory monitor killed a process."""


@dataclass(frozen=True)
class Slot:
    """A bundle of the placement group, for one actor."""

    group: PlacementGroup
    bundle: int
    cpus: float
    gpus: float
    threads: int


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
        """Create the group without starting it.

        Args:
            role: The role's name in messages and logs.
            cls: The actor class.
            slots: One bundle per actor.
            logs: The folder of log files.
            deadline_s: Limit of a call, in seconds.
            heartbeat_s: Seconds between heartbeats, and the limit of each.
        """
        self.role = role
        self.cls = cls
        self.slots = slots
        self.logs = logs
        self.deadline_s = deadline_s
        self.heartbeat_s = heartbeat_s
        self.arguments: tuple[object, ...] = ()
        self.actors: list[ray.actor.ActorHandle] = []
        self.about: list[dict[str, str]] = []

    def start(self, *arguments: object) -> None:
        """Start every actor with its log file and these arguments."""
        self.arguments = arguments
        self.actors = [self._started(rank) for rank in range(len(self.slots))]
        self.about = [{} for _ in self.slots]
        self._record_facts(range(len(self.slots)))

    def restart(self, ranks: Sequence[int]) -> None:
        """Replace the actors of these ranks."""
        self.stop(ranks)
        for rank in ranks:
            self.actors[rank] = self._started(rank)
        self._record_facts(ranks)

    def note(self) -> None:
        """Record the seconds of work of each actor so far."""
        self._record_facts(range(len(self.actors)))

    def _record_facts(self, ranks: Sequence[int]) -> None:
        """Fetch the facts of these actors and write them beside their logs."""
        facts = self.wait(
            [self.actors[rank].facts.remote() for rank in ranks], ranks, starting=True
        )
        for rank, about in zip(ranks, facts, strict=True):
            self.about[rank] = cast("dict[str, str]", about)
            replace_text(self.log(rank).with_suffix(".json"), json.dumps(about))

    def stop(self, ranks: Sequence[int] | None = None) -> None:
        """Kill the actors of these ranks; all by default."""
        for rank in range(len(self.actors)) if ranks is None else ranks:
            ray.kill(self.actors[rank])

    def all(self, method: str, *arguments: object) -> list[object]:
        """Call a method on every actor with the same arguments.

        Put large arguments into the object store first.
        """
        return self.each(method, [arguments] * len(self.actors))

    def each(self, method: str, arguments: Sequence[tuple[object, ...]]) -> list[object]:
        """Call a method on every actor, each with its own arguments."""
        return self.wait(self.submit(method, arguments))

    def submit(self, method: str, arguments: Sequence[tuple[object, ...]]) -> list[ray.ObjectRef]:
        """Start a call on every actor, and return one reference per actor."""
        return [
            getattr(actor, method).remote(*own_arguments)
            for actor, own_arguments in zip(self.actors, arguments, strict=True)
        ]

    def wait(
        self,
        refs: Sequence[ray.ObjectRef],
        ranks: Sequence[int] | None = None,
        *,
        starting: bool = False,
    ) -> list[object]:
        """Wait for calls and return their results in order.

        Args:
            refs: References of the calls.
            ranks: The rank of each call; all ranks in order by default.
            starting: Skip heartbeats: a process that is still starting cannot answer any.

        Raises:
            LostError: An actor died, missed a heartbeat, or exceeded the deadline.
            RunError: A call failed.
            UserError: A call raised it.
        """
        ranks = range(len(refs)) if ranks is None else ranks
        started = beat = time.monotonic()
        waiting = dict(zip(refs, ranks, strict=True))
        results: dict[int, object] = {}
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=POLL_S)
            for ref in ready:  # an error of one actor ends the wait for all
                rank = waiting.pop(ref)
                results[rank] = self._value(ref, rank)
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
        return [results[rank] for rank in ranks]

    def ready(self, refs: Sequence[ray.ObjectRef]) -> Sequence[ray.ObjectRef]:
        """At most one finished call, successful or not; none if none finishes within `POLL_S`."""
        done: list[ray.ObjectRef] = ray.wait(list(refs), num_returns=1, timeout=POLL_S)[0]
        return done

    def name(self, rank: int) -> str:
        """Role, rank, host and process id, as far as they are known."""
        about = self.about[rank]
        return f"{self.role} {rank}" + (
            f" on {about['host']} (process {about['pid']})" if about else ""
        )

    def log(self, rank: int) -> Path:
        """The log file of an actor."""
        return self.logs / f"{self.role}-{rank}.log"

    def _started(self, rank: int) -> ray.actor.ActorHandle:
        slot = self.slots[rank]
        options = {
            "num_cpus": slot.cpus,
            "num_gpus": slot.gpus,
            # Ray would restart an actor without its weights and its process group.
            "max_restarts": 0,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                slot.group, placement_group_bundle_index=slot.bundle
            ),
            "runtime_env": {"env_vars": actor_environment(slot)},
        }
        # Heartbeats have their own thread, so that a busy actor still answers.
        return (
            ray.remote(concurrency_groups={"watch": 1})(self.cls)
            .options(**options)
            .remote(self.log(rank), *self.arguments)
        )

    def _check_life(self, ranks: Sequence[int]) -> None:
        """Raise LostError for the first actor that is dead or misses a heartbeat."""
        silent = self._silent(ranks, self.heartbeat_s)
        if silent:
            why = (
                f"{self.name(silent[0])} gave no sign of life for cluster.heartbeat_s = "
                f"{self.heartbeat_s:g} s"
            )
            raise LostError(self.role, silent[0], why + self.tail(silent[0]))

    def _silent(self, ranks: Sequence[int], within_s: float) -> list[int]:
        """Ranks that do not answer a ping in time; raises LostError for one that is dead."""
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
        """Check all actors; raises LostError for the first that is dead or misses a heartbeat."""
        self._check_life(range(len(self.actors)))

    def is_alive(self, rank: int) -> bool:
        """True if the actor of this rank answers."""
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
            if error.actor_init_failed:  # a restart would fail for the same reason
                raise RunError(f"{self.name(rank)} could not start: {_last_line(error)}") from None
            raise self._lost(rank, error) from None
        except RayError as error:
            raise self._lost(rank, error) from None

    def _explained(self, rank: int, error: RayTaskError) -> Exception:
        """Convert an error of an actor into the error that a single process would raise."""
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
        # A collective failed because a peer is gone: blame the peer, not the rank that noticed.
        try:
            self._silent(range(len(self.actors)), PING_S)
        except LostError as death:
            return death
        return LostError(self.role, rank, text)

    def _lost(self, rank: int, error: RayError) -> LostError:
        """Describe the loss of an actor, with the likely reason and the end of its log."""
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
        """The last lines of an actor's log."""
        path = self.log(rank)
        if not path.exists():
            return ""
        with path.open(encoding="utf-8", errors="replace") as stream:
            lines = [line.rstrip() for line in deque(stream, LOG_LINES) if line.strip()]
        return f"; the end of {path}:\n  " + "\n  ".join(lines) if lines else f"; {path} is empty"


def actor_environment(slot: Slot) -> dict[str, str]:
    """Environment variables of the actor in this slot."""
    environment = {
        **ENVIRONMENT,
        "DS_ACCELERATOR": "cuda" if slot.gpus else "cpu",
        # Ray would take the cores that the actor reserves.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(slot.threads)),
    }
    if not slot.gpus:
        # Ray leaves every GPU of the node visible to an actor that reserves none.
        environment["CUDA_VISIBLE_DEVICES"] = ""
    # A Ray that was started before has the environment of that time.
    return environment | {name: os.environ[name] for name in MODEL_VARIABLES if name in os.environ}


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _last_line(error: BaseException) -> str:
    """The last line of a traceback: `module.Class: message`."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
