"""A claim from its row to the table, on real runs of two steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasontrain.claims.page import BEGIN, END
from reasontrain.cli import main
from tests.claims.test_settings import table

pytestmark = pytest.mark.integration


def test_a_claim_on_runs_of_two_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    arms = (
        "arms={top: {set: {token_selection: {kind: tip, keep_ratio: 0.5}}}, random: {set: "
        "{token_selection: {kind: random, keep_ratio: 0.5}}}}"
    )
    recipe_with_suites = (
        "sampling: {temperature: 1.0, max_tokens: 12}, limit: 4, num_samples: 2, task: {kind: "
        "arithmetic, num_problems: 4, split"
    )
    table(
        tmp_path,
        arms,
        "difference={of: top, minus: random}",
        "equal_mass=[top, random]",
        "rates=[1.0e-3]",
        f"evaluate={{before: false, suites: [{{name: dev, {recipe_with_suites}: train}}}}, {{name: "
        f"held, {recipe_with_suites}: test}}}}]}}",
        "measure={kind: pass, suite: held, k: 2}",
    )
    (tmp_path / "README.md").write_text(f"{BEGIN}\n{END}\n")
    assert main(["claims", "claims.yaml", "one", "--jobs", "2"]) == 0
    record = json.loads((tmp_path / "records/one.json").read_text())
    assert (record["num_problems"], len(record["arms"][0]["runs"]), record["steps"]) == (4, 3, 2)
    top, random = record["arms"]
    assert all(0 <= score <= 1 for score in top["scores"])
    assert 0 < top["trained_tokens"] < 0.6 * top["sampled_tokens"]
    assert random["trained_tokens"] == pytest.approx(top["trained_tokens"], rel=0.2)
    assert (
        "pass@2 on `held` of 4 held-out problems, 2 steps" in (tmp_path / "README.md").read_text()
    )
