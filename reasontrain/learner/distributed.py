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
    """The rank of a process among `num_ranks`, and the address of rank 0 (`host:port`)."""

    rank: int
    num_ranks: int
    address: str
    timeout_s: float = 1800.0


def free_port(host: str = "") -> int:
    """A port that is free at the moment."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


def join(place: RankAddress) -> None:
    """Make this process that rank, over nccl if it sees a GPU and gloo otherwise.

    Returns when all ranks have joined.
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
    """Leave the process group; a process that ends without it may abort in gloo's threads."""
    if dist.is_initialized():
        dist.destroy_process_group()
