"""The installed TRL has everything that the mixins rely on, and an error names what has moved."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trl.trainer.utils
from trl import DPOTrainer, GRPOTrainer

from reasontrain.bridge import contract
from reasontrain.types import RunError, UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _asked_again() -> Iterator[None]:
    contract.check_trl.cache_clear()
    yield
    contract.check_trl.cache_clear()


def test_the_installed_trl_keeps_the_contract() -> None:
    assert list(contract.violations()) == []
    contract.check_trl()


def test_the_package_requires_the_release_of_the_contract() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (requirement,) = [
        one for one in tomllib.loads(text)["project"]["dependencies"] if one.startswith("trl")
    ]
    assert requirement.startswith(f"trl>={contract.TRL},")


@pytest.mark.parametrize("installed", ["1.15.3", "1.17.0", "2.0.0"])
def test_another_release_is_one_sentence(installed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "version", lambda _: installed)
    with pytest.raises(UserError, match=rf"{installed} is installed; run `pip install 'trl>=1.16,"):
        contract.check_trl()


def test_what_has_moved_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_high_entropy_mask(self: object, entropies: object, mask: object) -> None: ...

    def compute_ref_log_probs(self: object, model: object, inputs: object) -> None: ...

    monkeypatch.setattr(GRPOTrainer, "get_high_entropy_mask", get_high_entropy_mask)
    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", compute_ref_log_probs)
    monkeypatch.delattr(trl.trainer.utils, "split_tensor_dict")
    with pytest.raises(RunError) as error:
        contract.check_trl()
    for part in (
        "get_high_entropy_mask has the parameters self, entropies, mask",
        "compute_ref_log_probs has no line `model(**model_kwargs, labels=labels",
        "split_tensor_dict does not exist",
    ):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
