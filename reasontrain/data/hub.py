"""The Hugging Face hub, where it cannot be reached: what is in the cache, without retries."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

logger = logging.getLogger(__name__)

NUM_LOOKUPS = 3
"""Look-ups of the hub's address that fail before it counts as unreachable."""
WAIT_S = 0.5
"""Seconds between two of them."""


@contextmanager
def hub_or_cache() -> Iterator[None]:
    """Use only the hub's cache inside the block if the hub's name has no address.

    Libraries would try each file again for half a minute. A hub that has an address, or is reached
    through a proxy, which looks names up itself, is left to them.
    """
    from huggingface_hub import constants

    if constants.is_offline_mode() or _is_reachable(constants.ENDPOINT):
        yield
        return
    _warn_unreachable(constants.ENDPOINT)
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


@cache
def _warn_unreachable(endpoint: str) -> None:
    """Warn once in this process: a run reads several things from a hub."""
    logger.warning(f"{endpoint} cannot be reached; only what is in its cache is used")


def _is_reachable(endpoint: str) -> bool:
    """False if no proxy is set for the endpoint and its host has no address."""
    url = urlsplit(endpoint)
    host = url.hostname or ""
    proxies = getproxies()
    if (url.scheme in proxies or "all" in proxies) and not proxy_bypass(host):
        return True
    for attempt in range(NUM_LOOKUPS):
        if attempt:
            time.sleep(WAIT_S)
        try:
            socket.getaddrinfo(host, url.port or url.scheme)
        except socket.gaierror:
            continue
        return True
    return False
