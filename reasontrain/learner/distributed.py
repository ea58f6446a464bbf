"""Joining the ranks of a learner into one process group, on one machine or many."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class RankAddress:
    """Which of how many ranks a process is, and where rank 0 listens (`host:port`)."""

    rank: int
    num_ranks: int
    address: str
    timeout_s: float = 1800.0


def free_port(host: str = "") -> int:
    """A port on which nobody listens now."""
    with socket.socket() as found:
        found.bind((host, 0))
        return int(found.getsockname()[1])


def join(place: RankAddress) -> None:
    """Make this process that rank: nccl where it sees a GPU, gloo elsewhere.

    Returns when all ranks are there.
    """
    host, _, port = place.address.rpartition(":")
    gpu = torch.cuda.is_available()
    os.environ |= {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.num_ranks),
        "LOCAL_RANK": "0",  # every process sees its own GPU alone
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
    }
    dist.init_process_group(
        "nccl" if gpu else "gloo",
        init_method=f"tcp://{place.address}",
        rank=place.rank,
        world_size=place.num_ranks,
        timeout=timedelta(seconds=place.timeout_s),
        device_id=torch.device("cuda", 0) if gpu else None,
    )


def leave() -> None:
    """Part from the other ranks; a process that ends without it may abort in gloo's threads."""
    if dist.is_initialized():
        dist.destroy_process_group()
