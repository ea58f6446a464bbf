"""What is kept is read back the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from reasontrain.bench.record import read, read_all, write
from reasontrain.types import UserError
from tests.bench.samples import RECORD


def test_a_record_round_trips(tmp_path: Path):
    path = write(tmp_path / "new", RECORD)
    assert path == tmp_path / "new" / "toys-cpu.json"
    assert read(path) == RECORD
    assert json.loads(path.read_text(encoding="utf-8"))["rows"][1]["memory_ratio"] is None


def test_records_of_a_folder_come_by_name_and_a_new_one_replaces_its_own(tmp_path: Path):
    gpu = replace(RECORD, device="a-gpu")
    for each in (RECORD, gpu, replace(RECORD, runs=5)):
        write(tmp_path, each)
    assert list(read_all(tmp_path)) == [gpu, replace(RECORD, runs=5)]


def test_a_pretrained_model_and_its_dtype_have_a_file_of_their_own(tmp_path: Path):
    models = {
        "owner/Qwen2.5 Coder_0.5B": "qwen2.5-coder-0.5b",
        "testbed:student": "testbed-student",
    }
    for model, name in models.items():
        record = replace(RECORD, model=model, dtype="bfloat16")
        path = write(tmp_path, record)
        assert path.name == f"toys-cpu-{name}-bfloat16.json"
        assert read(path) == record


def test_something_else_is_not_a_record(tmp_path: Path):
    path = write(tmp_path, RECORD)
    path.write_text(
        path.read_text(encoding="utf-8").replace('"difference"', '"diference"'), encoding="utf-8"
    )
    with pytest.raises(UserError, match="diference"):
        read(path)
