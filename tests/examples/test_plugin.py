"""The plug-in of `examples/plugin`: its numbers by hand, and a run with it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from reasontrain.algo.custom_evidence import with_custom
from reasontrain.cli import main
from reasontrain.recipe import read_recipe
from reasontrain.report.build import curves
from reasontrain.report.run import read_run
from reasontrain.types import Batch, RunError, TokenFields, TokenKind, TokenStats
from tests.graders import IdleWorkers

EXAMPLE = Path(__file__).parents[2] / "examples/plugin"
SMALL = (
    "task.num_problems=50",
    "sample.max_tokens=12",
    "learn.rollouts_per_step=4",
    "learn.warmup_steps=0",
    "learn.schedule=constant",
    "evaluate=null",
    "checkpoint.every=1",
)


def batch() -> Batch:
    """A rollout of two prompt tokens and three response tokens, padded by one."""
    kinds = [TokenKind.PROMPT] * 2 + [TokenKind.RESPONSE] * 3 + [TokenKind.PAD]
    return Batch(
        ids_BT=torch.arange(6)[None],
        kind_BT=torch.tensor([[int(kind) for kind in kinds]]),
        rollout_B=torch.tensor([0]),
        group_B=torch.tensor([0]),
        reward_B=torch.zeros(1),
        advantage_B=torch.zeros(1),
        evidence={"sampled_logp": torch.tensor([[-9.0, -9.0, -1.0, -3.0, -0.5, -9.0]])},
    )


def test_a_rule_reads_the_evidence_of_another_plugin() -> None:
    recipe = read_recipe(
        EXAMPLE / "surprise.yaml",
        ["evidence.local_surprise.window=2", "token_selection.least=1.8"],
    )
    observed = with_custom(batch(), recipe.required_evidence, recipe.custom_evidence)
    # windows of two response tokens: 1 / 1, (1 + 3) / 2, (3 + 0.5) / 2
    assert observed.local_surprise_BT.tolist() == [[0, 0, 1.0, 2.0, 1.75, 0]]
    assert recipe.token_selection(observed).tolist() == [[0, 0, 0, 1, 0, 0]]
    assert with_custom(batch(), frozenset(), recipe.custom_evidence).evidence.keys() == {
        "sampled_logp"
    }


def test_the_objective_stops_at_its_cap() -> None:
    objective = read_recipe(EXAMPLE / "surprise.yaml", ["objective.cap=2"]).objective
    divergence_N = torch.tensor([0.5, 3.0], requires_grad=True)
    losses = objective(
        TokenStats({"kl_reverse": divergence_N}.__getitem__),
        TokenFields(ids_N=torch.zeros(2, dtype=torch.long), advantage_N=torch.zeros(2)),
    )
    assert losses.loss.tolist() == [0.5, 2.0]
    losses.loss.sum().backward()
    assert divergence_N.grad is not None
    assert divergence_N.grad.tolist() == [1.0, 0.0]
    assert losses.stats["capped_share"].tolist() == [0.0, 1.0]


RETURNS = {
    "batch.is_response_BT.float()[0]": "a tensor of shape [6]; expected [1, 6]",
    "batch.is_response_BT": "a tensor of torch.bool; expected floats",
    "batch.is_response_BT.float() * float('nan')": "weights that are not finite",
    "(batch.ids_BT >= 0).float()": "weights at tokens of no response; multiply by",
    "None": "None; expected a tensor of shape [1, 6]",
}


def test_what_a_rule_may_not_return_is_refused(tmp_path: Path) -> None:
    """Each would be broadcast, or trained on, without a word."""
    shutil.copy(EXAMPLE / "surprise.yaml", tmp_path)
    source = (EXAMPLE / "surprise.py").read_text()
    returned = "(batch.is_response_BT & kept_BT).float()"
    assert source.count(returned) == 1
    for wrong, sentence in RETURNS.items():
        (tmp_path / "surprise.py").write_text(source.replace(returned, wrong))
        recipe = read_recipe(tmp_path / "surprise.yaml")
        observed = with_custom(batch(), recipe.required_evidence, recipe.custom_evidence)
        with pytest.raises(RunError) as raised:
            recipe.token_selection(observed)
        assert f"{tmp_path}/surprise.py: Surprise returned {sentence}" in str(raised.value)


def test_a_run_trains_with_its_plugins_keeps_them_and_notices_their_change(
    tmp_path: Path, idle_workers: IdleWorkers, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("surprise.yaml", "surprise.py"):
        shutil.copy(EXAMPLE / name, tmp_path)

    def train(steps: int, *more: str) -> int:
        words = ["train", str(tmp_path / "surprise.yaml"), f"steps={steps}", f"out={tmp_path}/out"]
        with idle_workers.shared():
            return main([*words, *SMALL, *more])

    assert train(1) == 0
    run = tmp_path / "out/surprise-tiny"
    code = tmp_path / "surprise.py"
    before = code.read_text()
    assert (run / "plugins/surprise.py").read_text() == before
    code.write_text(f"{before}\n# another\n")
    assert train(2) == 2
    assert "has changed: plugin: surprise.py. Restore it," in " ".join(
        capsys.readouterr().err.split()
    )
    assert train(2, "resume.accept=[plugin]") == 0
    assert (run / "plugins/surprise.py").read_text() == code.read_text()
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2]
    for record in records:
        assert 0 < record["kept_share"] <= 1
        assert record["local_surprise_mean"] > 0
        assert math.isfinite(record["capped_share"])
        assert record["loss"] <= record["divergence"]
    assert [chart.title for chart in curves(read_run(run))].count("local_surprise") == 1
    # the run directory is complete: its recipe is read with its own copies
    code.unlink()
    assert read_recipe(run / "recipe.yaml").token_selection.kind == "surprise.py:Surprise"
