"""A hub without an address fails at once; one that may be reached is left to its libraries."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from reasontrain import models
from reasontrain.data import hub
from reasontrain.data.files import read_hub
from reasontrain.data.hub import hub_or_cache
from reasontrain.learner.lora import adapt
from reasontrain.models import Lora, ModelSettings, located
from reasontrain.types import UserError


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited on a machine where no name has an address."""
    seconds: list[float] = []

    def no_address(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    monkeypatch.setattr(time, "sleep", seconds.append)
    monkeypatch.setattr(hub, "getproxies", dict)
    return seconds


def test_what_is_not_in_the_cache_is_refused_within_seconds(waits: list[float]) -> None:
    with pytest.raises(UserError, match="the model nobody/nothing cannot be loaded: it is no dir"):
        models.describe(ModelSettings(path="nobody/nothing"))
    with pytest.raises(UserError, match=r"hub data set 'nobody/nothing' .* cannot be read"):
        read_hub("nobody/nothing", subset=None, split="train", revision=None)
    assert sum(waits) <= 2 * hub.NUM_LOOKUPS * hub.WAIT_S
    assert not constants.HF_HUB_OFFLINE


def test_a_local_model_needs_no_hub(waits: list[float]) -> None:
    models.describe(ModelSettings(path="testbed:student"))
    assert not waits


def test_a_model_of_the_folder_needs_no_hub(
    waits: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with located("testbed:student") as place:
        (tmp_path / "student").symlink_to(place)
    monkeypatch.setenv("REASONTRAIN_MODELS", str(tmp_path))
    settings = ModelSettings(path="owner/student", lora=Lora(rank=1, alpha=1.0))
    models.describe(settings)
    adapt(models.load(settings, trainable=True), Lora(rank=1, alpha=1.0))
    assert not waits


def test_an_unreachable_hub_is_named_once(
    waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    hub._warn_unreachable.cache_clear()
    for _ in range(2):
        with hub_or_cache():
            assert constants.is_offline_mode()
    assert caplog.text.count("cannot be reached") == 1


@pytest.mark.parametrize("way", ["address", "late address", "proxy", "no proxy for it"])
def test_a_hub_that_may_be_reached_is_left_to_its_libraries(
    way: str, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    if way.endswith("address"):
        missing = socket.getaddrinfo

        def lookup(*args: object, **kwargs: object) -> object:
            return missing() if way.startswith("late") and len(waits) < 2 else [args]  # type: ignore[call-arg]

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
    else:
        monkeypatch.setattr(hub, "getproxies", lambda: {"https": "http://proxy:3128"})
        monkeypatch.setattr(hub, "proxy_bypass", lambda host: way.startswith("no"))
    with hub_or_cache():
        assert constants.is_offline_mode() == way.startswith("no")
    assert not constants.is_offline_mode()
