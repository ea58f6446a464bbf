"""One table of evidence: a row that is added to it is known everywhere, without another edit."""

from __future__ import annotations

import copy
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reasontrain import models
from reasontrain.algo import evidence
from reasontrain.algo.evidence import EVIDENCE, Evidence
from reasontrain.algo.token_selection import AllTokens, TopEntropy
from reasontrain.data import stored_evidence
from reasontrain.learner.factory import make_learner
from reasontrain.metrics.step import step_metrics
from reasontrain.plan.flops import operations_of
from reasontrain.plan.machine import Machine
from reasontrain.plan.roles import job_of
from reasontrain.recipe import Recipe, read_recipe
from reasontrain.report.build import _evidence_curves
from reasontrain.report.tokens import show_tokens
from reasontrain.run.tracking import write_tokens
from reasontrain.types import (
    Batch,
    Problem,
    Rollout,
    TokenFields,
    TokenKind,
    UserError,
)

RECIPES = Path(__file__).parents[2] / "recipes" / "tiny"


def batch(**columns: list[float]) -> Batch:
    """One rollout of a prompt token and two response tokens."""
    return Batch(
        ids_BT=torch.tensor([[1, 2, 3]]),
        kind_BT=torch.tensor([[TokenKind.PROMPT, TokenKind.RESPONSE, TokenKind.RESPONSE]]),
        rollout_B=torch.tensor([0]),
        group_B=torch.tensor([0]),
        reward_B=torch.zeros(1),
        advantage_B=torch.zeros(1),
        evidence={name: torch.tensor([values]) for name, values in columns.items()},
    )


def test_the_table_names_each_row_and_bounds_its_unit():
    assert len(EVIDENCE) == len(evidence._ROWS)
    for name, row in EVIDENCE.items():
        assert name == row.name
        assert row.bounds[0] < row.bounds[1]
        assert (row.bounds == (0.0, 1.0)) == (row.unit in ("probability", "share")), name
        assert row.source in evidence._FORWARD_PASSES
    for row in EVIDENCE.values():  # one axis serves all of a chart
        for other in EVIDENCE.values():
            if row.chart == other.chart:
                assert (row.unit, row.bounds) == (other.unit, other.bounds)


def test_forward_passes_of_each_source():
    assert evidence.forward_passes([]) == frozenset()
    assert evidence.forward_passes(["sampled_logp", "uncond_logp", "ce_logscore"]) == frozenset()
    assert evidence.forward_passes(["entropy", "attention", "old_logp"]) == {"policy"}
    assert evidence.forward_passes(["compatibility"]) == {"policy", "teacher"}
    assert evidence.forward_passes(["ref_logp", "history_logp"]) == {"reference", "history"}


def test_statistics_are_those_of_the_sources_asked_for():
    names = frozenset(EVIDENCE)
    assert evidence.statistics(names, "policy", "teacher") == {
        "entropy": "entropy",
        "kl_forward": "kl_forward",
        "kl_reverse": "kl_reverse",
        "old_logp": "logp",
        "compatibility": "compatibility",
        "disagreement": "disagreement",
        "teacher_entropy": "teacher_entropy",
        "teacher_logp": "teacher_logp",
        "teacher_rank_of_argmax": "teacher_rank_of_argmax",
        "sampled_rank": "rank",
        "entropy_top20": "entropy_top20",
    }
    assert evidence.statistics(names, "reference") == {"ref_logp": "logp"}
    assert evidence.from_sources(names, "stored", "sampler") == {
        "ce_logscore",
        "log_ratio",
        "sampled_logp",
    }


def test_an_accessor_has_the_shape_of_its_columns():
    one = batch(entropy=[0.0, 1.0, 2.0])
    assert one.entropy_BT.tolist() == [[0.0, 1.0, 2.0]]
    rows = TokenFields(
        ids_N=torch.tensor([2]),
        advantage_N=torch.zeros(1),
        evidence={"entropy": torch.tensor([1.0])},
    )
    assert rows.entropy_N.tolist() == [1.0]
    for columns, attribute in ((one, "entropy_N"), (rows, "entropy_BT"), (one, "entropie_BT")):
        with pytest.raises(AttributeError, match=attribute):
            getattr(columns, attribute)


def test_batches_can_be_copied_and_sent():
    one = batch(entropy=[0.0, 1.0, 2.0])
    for twin in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one)):
        assert torch.equal(twin.entropy_BT, one.entropy_BT)
        with pytest.raises(LookupError, match="kl_reverse"):
            _ = twin.kl_reverse_BT


@pytest.fixture
def surprise(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe whose rule reads a made-up row of the table, measured by a statistic that exists."""
    row = Evidence(
        name="surprise",
        description="a made-up kind",
        chart="Surprise",
        label="how surprised",
        unit="nats",
        bounds=(-math.inf, 0.0),
        source="policy",
        statistic="logp",
    )
    monkeypatch.setitem(EVIDENCE, "surprise", row)
    monkeypatch.setattr(TopEntropy, "required_evidence", frozenset({"surprise"}))
    return read_recipe(RECIPES / "grpo.yaml", ["token_selection={kind: top_entropy}"])


def test_a_new_row_is_measured_by_its_statistic(surprise: Recipe):
    assert surprise.measured_evidence == {"surprise"}
    learner = make_learner(surprise)
    observed = learner.observe(batch(), frozenset({"surprise", "old_logp"}))
    assert observed.surprise_BT[0, 1:].max() < 0
    assert torch.equal(observed.surprise_BT, observed.old_logp_BT)


def test_a_row_that_no_code_measures_is_not_a_column_of_zeros(
    surprise: Recipe, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(EVIDENCE, "surprise", replace(EVIDENCE["surprise"], statistic=None))
    with pytest.raises(AssertionError, match="no code here measures surprise"):
        make_learner(surprise).observe(batch(), frozenset({"surprise"}))


def test_a_new_row_is_in_plans_and_operations(surprise: Recipe):
    plain = replace(surprise, token_selection=AllTokens())
    weight_BT = torch.ones(1, 3)
    counted, without = (operations_of(r)([], batch(), weight_BT) for r in (surprise, plain))
    assert counted["tflop_evidence"] > 0
    assert without["tflop_evidence"] == 0
    assert job_of(surprise, Machine()).observes_student
    assert not job_of(plain, Machine()).observes_student


def test_a_new_row_is_in_recipes_and_their_errors(surprise: Recipe):
    with pytest.raises(UserError, match="needs surprise, which is"):
        read_recipe(RECIPES / "soft_tokens.yaml", ["token_selection={kind: top_entropy}"])
    with pytest.raises(
        UserError, match=r"surprize is unknown; the kinds of evidence are .*surprise"
    ):
        read_recipe(RECIPES / "grpo.yaml", ["evidence={surprize: a.parquet}"])


def test_a_new_row_is_in_metrics_files_and_pages(surprise: Recipe, tmp_path: Path):
    one = batch(surprise=[0.0, -0.25, -1.5])
    rollout = Rollout(
        problem=Problem(id="p", prompt=""), id=0, group=0, prompt_ids=(1,), response_ids=(2, 3)
    )
    stats = step_metrics(one, torch.ones(1, 3), [rollout])
    assert stats["surprise_mean"] == -0.875
    path = tmp_path / "step-0.jsonl"
    words = models.describe(surprise.model).tokenizer
    write_tokens(path, one, torch.ones(1, 3), [rollout], words, sampled=one)
    assert json.loads(path.read_text())["evidence"] == {"surprise": [-0.25, -1.5]}
    page = show_tokens(0, path, 1)
    assert page is not None
    assert page.rollouts[0].tokens[0].numbers == "surprise \u22120.25 · weight 1 · kept"
    (curve,) = (curve for curve in _evidence_curves() if curve.title == "Surprise")
    assert curve.columns == {"surprise_mean": "how surprised"}


def test_a_new_row_can_be_stored(surprise: Recipe, tmp_path: Path):
    rollout = Rollout(
        problem=Problem(id="p", prompt=""), id=0, group=0, prompt_ids=(1,), response_ids=(2, 3)
    )
    path = tmp_path / "surprise.parquet"
    stored_evidence.write(path, "surprise", [rollout], [[-0.5, -1.0]], {})
    assert stored_evidence.read(path, "surprise").of(rollout) == (-0.5, -1.0)
