"""Joining the ranks of a learner into one process group, on one machine or many."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore


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


def join(place: RankAddress, device: torch.device) -> None:
    """Make this process that rank; return when all ranks have joined.

    The device of the models decides and not what this process sees: ranks with models on the CPU
    of a machine with GPUs talk over gloo, and NCCL refuses two ranks on one GPU.

    Args:
        place: the rank, and where rank 0 is.
        device: the device of this rank's models; nccl connects GPUs, and gloo CPUs.
    """
    host, _, port = place.address.rpartition(":")
    gpu = device.type == "cuda"
    os.environ |= {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.num_ranks),
        "LOCAL_RANK": "0",  # every process sees its own GPU alone
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        "DS_ACCELERATOR": device.type,  # read when DeepSpeed is imported, which would guess
    }
    store = open_store(
        host,
        int(port),
        first=place.rank == 0,
        timeout_s=place.timeout_s,
        num_processes=place.num_ranks,
    )
    dist.init_process_group(
        "nccl" if gpu else "gloo",
        store=store,
        rank=place.rank,
        world_size=place.num_ranks,
        timeout=timedelta(seconds=place.timeout_s),
        device_id=torch.device("cuda", 0) if gpu else None,
    )


def open_store(
    host: str, port: int, *, first: bool, timeout_s: float, num_processes: int | None = None
) -> TCPStore:
    """The store at which processes find each other; it listens on `host` and nowhere else.

    Args:
        host: Address of the first process.
        port: Its port; in the first process, 0 stands for any free one.
        first: True in the process that keeps the store.
        timeout_s: Limit of every operation, in seconds.
        num_processes: Return when as many have opened it; None: at once.
    """
    listener_fd = None
    if first:
        # A store that opens its socket itself listens on all addresses.
        family = socket.getaddrinfo(host, port)[0][0]
        listener = socket.create_server((host, port), family=family)
        port = int(listener.getsockname()[1])
        listener_fd = listener.detach()
    return TCPStore(
        host,
        port,
        num_processes,
        is_master=first,
        wait_for_workers=num_processes is not None,
        timeout=timedelta(seconds=timeout_s),
        master_listen_fd=listener_fd,
    )


def leave() -> None:
    """Leave the process group; a process that ends without it may abort in gloo's threads."""
    if dist.is_initialized():
        dist.destroy_process_group()
