"""Greedy responses of a pre-trained model: equal on all sides, or parting at near ties."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reasontrain import models
from reasontrain.bench import greedy, pretrained
from reasontrain.bench.greedy import GENERATE, REASONTRAIN, GreedyWorkload
from reasontrain.bench.measure import measure
from reasontrain.models import ModelSettings
from reasontrain.tasks.gsm8k import Gsm8k
from reasontrain.types import RunError, UserError
from tests.bench.pretrained_problems import pretrained_machine, write_problems

MODEL = ModelSettings(path="testbed:student", device="cpu")


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> GreedyWorkload:
    """Four prompts, answered by the local sampler and by `generate` in two batches."""
    file = write_problems(tmp_path_factory.mktemp("greedy") / "problems.jsonl")
    encoder = pretrained.encoder(MODEL)
    prompts = tuple(encoder.prompt(problem) for problem in Gsm8k(path=str(file)).problems())
    result = GreedyWorkload(model=MODEL, prompts=prompts, tokens=12, source=file.name)
    with greedy.reasontrain_work(result) as ours, greedy.generate_work(result, 3) as peer:
        assert ours() == peer() == {"tokens": 48.0}
    return result


def test_both_sides_write_the_same_tokens_and_none_ends_early(workload: GreedyWorkload) -> None:
    assert workload.responses[REASONTRAIN] == workload.responses[GENERATE]
    assert greedy.compared(workload, GENERATE) == "4 of 4 responses are equal."


def changed(workload: GreedyWorkload, index: int, rank: int) -> GreedyWorkload:
    """The peer's second response with the token of this rank at `index`."""
    policy = models.load(MODEL)
    prompt = workload.prompts[1]
    response = list(workload.responses[REASONTRAIN][1])
    read = torch.tensor([[*prompt.ids, *response[:index]]])
    with torch.inference_mode():
        logit_V = policy.head.logits(policy.hidden(read)[:, -1])[0]
    response[index] = int(logit_V.argsort(descending=True)[rank])
    peer = [*workload.responses[GENERATE]]
    peer[1] = response
    return replace(
        workload, responses={REASONTRAIN: workload.responses[REASONTRAIN], GENERATE: peer}
    )


def test_a_token_that_is_clearly_less_likely_is_refused(workload: GreedyWorkload) -> None:
    with pytest.raises(
        RunError,
        match=r"problem p1: reasontrain and transformers generate part at token 5, where their "
        r"logits are .* apart in float32, more than rounding in float32 explains \(0.0001\)",
    ):
        greedy.compared(changed(workload, 5, 1), GENERATE)


def test_responses_may_part_at_a_near_tie_and_the_gap_is_listed(
    workload: GreedyWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pretrained.NEAR_TIE, "float32", 1e9)
    near, far = (greedy.compared(changed(workload, 5, rank), GENERATE) for rank in (1, 40))
    assert near.startswith("3 of 4 responses are equal; the others part where two logits are at")
    assert "(p1 at token 5: " in near
    gaps = [float(text.rpartition(": ")[2].removesuffix(").")) for text in (near, far)]
    assert 0 < gaps[0] < gaps[1]


def test_rows_are_measured_in_bfloat16_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(greedy, "find_spec", lambda name: None)
    monkeypatch.setattr(greedy, "PROMPTS", 4)
    monkeypatch.setattr(greedy, "QUICK_TOKENS", 8)
    file = write_problems(tmp_path / "problems.jsonl")
    machine = pretrained_machine(file, dtype="bfloat16")
    with caplog.at_level(logging.WARNING):
        (case,) = greedy.rows(machine)
    assert "the case beside vLLM is left out" in caplog.text
    result = measure(case, machine, runs=1)
    assert (result.work["dtype"], result.units) == ("bfloat16", ("tokens", 32.0))
    assert result.subject.resident_bytes is not None
    assert "of 4 responses are equal" in result.remark


def test_the_file_of_problems_is_named_or_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_problems(tmp_path / "mine.jsonl")
    machine = pretrained_machine(file)
    assert pretrained.problem_file(machine) == file
    with pytest.raises(UserError, match=r"has no gsm8k_train.jsonl; give --data that folder"):
        pretrained.problem_file(replace(machine, data=tmp_path))
    monkeypatch.delenv("REASONTRAIN_DATA", raising=False)
    with pytest.raises(UserError, match=r"--model measures on real problems; give --data"):
        pretrained.problem_file(replace(machine, data=None))
    monkeypatch.setenv("REASONTRAIN_DATA", str(tmp_path))
    inside = write_problems(tmp_path / "gsm8k_train.jsonl")
    assert pretrained.problem_file(replace(machine, data=None)) == inside


def test_an_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "testbed:student"}')
    machine = pretrained_machine(tmp_path)
    with pytest.raises(UserError, match="is a LoRA adapter, which the other contestants load"):
        pretrained.model_of(replace(machine, model=ModelSettings(path=str(tmp_path))))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("Qwen/Qwen2.5-Coder-0.5B-Instruct", "Qwen/Qwen2.5-Coder-0.5B-Instruct"),
        ("/home/me/models/qwen", "qwen"),
        ("testbed:student", "testbed:student"),
    ],
)
def test_records_name_models_without_the_path_to_them(path: str, name: str) -> None:
    assert pretrained.label(ModelSettings(path=path)) == name
