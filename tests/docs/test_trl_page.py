"""Every snippet of the page about TRL's trainers runs and takes a step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from transformers import Trainer

PAGE = Path(__file__).resolve().parents[2] / "docs/trl.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


# TRL 1.16 uses activation checkpointing by default, by names that transformers 5.20 renamed.
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("snippet", SNIPPETS, ids=["tip", "grpo", "rho1", "cdpo"])
def test_a_snippet_takes_a_step(
    snippet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CI", "true")  # TRL sends no telemetry then
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    names: dict[str, object] = {"__name__": "script"}
    exec(snippet, names)
    trainer = names["trainer"]
    assert isinstance(trainer, Trainer)
    assert trainer.state.global_step == 1
    key = "token_selection/kept_share"
    shares = [log[key] for log in trainer.state.log_history if key in log]
    assert shares
    assert all(0 < share <= 1 for share in shares)
