"""Ids of hub models are looked up in the folder of models first, and the log says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reasontrain import models
from reasontrain.cli.validate import validate
from reasontrain.learner.lora import adapt
from reasontrain.models import Lora, ModelSettings, describe, load, quiet
from reasontrain.models.folder import in_folder
from reasontrain.plan.shape import shape_of
from reasontrain.types import UserError
from tests.tiny import policy

NAME = "Someone/Tiny-1M"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(quiet, "_logged", set())
    monkeypatch.setenv("REASONTRAIN_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def saved(directory: Path, seed: int = 0) -> Path:
    tiny = policy("llama", seed=seed)
    tiny.model.save_pretrained(directory)
    tiny.tokenizer.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("place", ["Tiny-1M", "Someone/Tiny-1M"])
def test_a_hub_id_is_read_from_the_folder(
    folder: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    directory = saved(folder / place)
    settings = ModelSettings(path=NAME)
    loaded = load(settings, trainable=True)
    assert torch.equal(
        loaded.head.weight_VD, load(ModelSettings(path=str(directory))).head.weight_VD
    )
    describe(settings)
    assert models.sources([NAME, str(directory), "testbed:student"]) == {NAME: str(directory)}
    assert models.quick_fingerprint(settings) == models.quick_fingerprint(
        ModelSettings(path=str(directory))
    )
    assert shape_of(settings, "model").hidden_size == 32
    assert [r.getMessage() for r in caplog.records if r.getMessage().startswith(NAME)] == [
        f"{NAME}: read from {directory} (REASONTRAIN_MODELS)"
    ]
    # An adapter names its base as the recipe does.
    adapt(loaded, Lora(rank=2))
    assert loaded.model.peft_config["default"].base_model_name_or_path == NAME


def test_owner_and_name_come_before_the_name_alone(folder: Path) -> None:
    saved(folder / "Tiny-1M")
    assert in_folder("Another/Tiny-1M") == folder / "Tiny-1M"
    own = saved(folder / NAME)
    assert in_folder(NAME) == own


@pytest.mark.parametrize(
    "path", ["./Tiny-1M", "/Tiny-1M", "a/b/Tiny-1M", "Tiny-1M/", "testbed:Tiny-1M", "Tiny-1M.gguf"]
)
def test_what_is_no_hub_id_is_not_looked_up(folder: Path, path: str) -> None:
    saved(folder / "Tiny-1M")
    assert in_folder(path) is None


def test_a_directory_of_that_name_comes_first(folder: Path) -> None:
    saved(folder / "Tiny-1M")
    saved(Path(NAME))
    assert in_folder(NAME) is None


def test_a_revision_is_said_not_to_be_compared(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved(folder / "Tiny-1M")
    describe(ModelSettings(path=NAME, revision="abc"))
    assert f"{NAME}: its `revision` abc is not compared with the directory" in caplog.messages


def test_a_folder_that_is_none_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REASONTRAIN_MODELS", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"^REASONTRAIN_MODELS is .*none, which is not a folder"):
        describe(ModelSettings(path=NAME))
    monkeypatch.setenv("REASONTRAIN_MODELS", "")
    assert in_folder(NAME) is None


def test_validate_names_the_directory(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(folder / "Tiny-1M")
    recipe = Path(__file__).parents[2] / "recipes/tiny/tip.yaml"
    validate([recipe], [f"model.path={NAME}", f"teacher.path={NAME}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        f"  {role}: {NAME} is read from {folder / 'Tiny-1M'}" for role in ("model", "teacher")
    ]
