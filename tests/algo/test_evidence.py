"""One table of evidence: a row that is added to it is known everywhere, without another edit."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from reasontrain.algo import evidence
from reasontrain.algo.evidence import EVIDENCE, Evidence
from reasontrain.types import Batch, TokenFields, TokenKind


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
        assert (row.bounds == (0.0, 1.0)) == (row.unit != "nats"), name
        assert row.source in evidence._FORWARD_PASSES
    for row in EVIDENCE.values():  # one axis serves all of a chart
        for other in EVIDENCE.values():
            if row.chart == other.chart:
                assert (row.unit, row.bounds) == (other.unit, other.bounds)


def test_forward_passes_of_each_source():
    assert evidence.forward_passes([]) == frozenset()
    assert evidence.forward_passes(["sampled_logp", "uncond_logp", "ce_logscore"]) == frozenset()
    assert evidence.forward_passes(["entropy", "attention", "old_logp"]) == {"policy"}
    assert evidence.forward_passes(["teachability"]) == {"policy", "teacher"}
    assert evidence.forward_passes(["ref_logp", "history_logp"]) == {"reference", "history"}


def test_statistics_are_those_of_the_sources_asked_for():
    names = frozenset(EVIDENCE)
    assert evidence.statistics(names, "policy", "teacher") == {
        "entropy": "entropy",
        "kl_forward": "kl_forward",
        "kl_reverse": "kl_reverse",
        "old_logp": "logp",
        "teachability": "teachability",
    }
    assert evidence.statistics(names, "reference") == {"ref_logp": "logp"}
    assert evidence.from_sources(names, "stored", "sampler") == {"ce_logscore", "sampled_logp"}


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
def surprise(monkeypatch: pytest.MonkeyPatch) -> Evidence:
    """A made-up row: -log p under the policy, by a statistic that exists already."""
    row = Evidence(
        name="surprise",
        description="log-probability under the policy, for a test",
        chart="Surprise",
        label="surprise of a test",
        unit="nats",
        bounds=(0.0, float("inf")),
        source="policy",
        statistic="logp",
    )
    monkeypatch.setitem(EVIDENCE, "surprise", row)
    return row
