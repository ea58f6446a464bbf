"""The same figures for other readers."""

from __future__ import annotations

import csv
import io
import json

import yaml
from huggingface_hub import ModelCard

from reasontrain.leaderboard.columns import columns
from reasontrain.leaderboard.entries import read_entries
from reasontrain.leaderboard.files import card, content, csv_text, markdown
from tests.leaderboard.conftest import single


def board(make_run):
    entries = read_entries(
        [make_run("a", {3: single("10000000")}), make_run("b", {5: single("11111111")})]
    )
    return entries, columns(entries, apart=False)


def test_markdown_ranks_rows_and_marks_the_best(make_run):
    """Wilson's interval of 1 of 8 is [2.2, 47.1], of 8 of 8 [67.6, 100]."""
    lines = markdown(*board(make_run)).splitlines()
    assert lines[:4] == [
        "| model | heldout (accuracy) |",
        "| --- | ---: |",
        "| b | **100.0** [67.6, 100.0] (1 cut, 2 no answer) |",
        "| a | 12.5 [2.2, 47.1] (1 cut, 2 no answer) |",
    ]
    assert lines[-1].endswith("heldout: 8 problems, one sample each, greedy.")


def test_csv_holds_a_line_for_each_cell(make_run):
    rows = list(csv.DictReader(io.StringIO(csv_text(*board(make_run)))))
    assert [(row["model"], row["metric"], row["value"], row["step"]) for row in rows] == [
        ("b", "accuracy", "1.0", "5"),
        ("a", "accuracy", "0.125", "3"),
    ]
    assert rows[0]["sampling.max_tokens"] == "120"


def test_a_name_is_no_formula(make_report):
    entries = read_entries([make_report("=1+1", {"s": single("10")})])
    assert "'=1+1" in csv_text(entries, columns(entries, apart=False))


def test_json_holds_every_difference(make_run):
    found = json.loads(json.dumps(content(*board(make_run)), allow_nan=False))
    (column,) = found["columns"]
    assert column["cells"]["a"]["value"] == 0.125
    assert column["not_told_apart_from_best"] == ["b"]
    assert {(d["of"], d["minus"]): d["value"] for d in column["differences"]} == {
        ("a", "b"): -0.875,
        ("b", "a"): 0.875,
    }


def test_the_hub_reads_our_model_cards(make_run):
    """What `huggingface_hub` makes of the front matter, with the figures in percent."""
    entries, _ = board(make_run)
    read = ModelCard(card(entries[0])).data
    (result,) = read.eval_results
    assert (read.model_name, result.dataset_name, result.metric_type, result.metric_value) == (
        "a",
        "heldout",
        "accuracy",
        12.5,
    )
    assert result.dataset_args["sampling.max_tokens"] == "120"
    assert yaml.safe_load(card(entries[0]).strip("-\n"))["model-index"][0]["name"] == "a"


def test_a_card_names_the_data_set_on_the_hub(make_report):
    on_hub = {
        "task": {"kind": "math", "hub": "x/y", "subset": "main", "split": "test"},
        "file": None,
    }
    from_file = {
        "task": {"kind": "gsm8k", "path": "gsm8k_test.jsonl", "hub": None},
        "file": "gsm8k_test.jsonl",
    }
    entries = read_entries(
        [
            make_report("a", {"s": single("10")}, **on_hub),
            make_report("b", {"gsm8k": single("10")}, **from_file),
        ]
    )
    first, other = (ModelCard(card(entry)).data.eval_results[0] for entry in entries)
    assert (first.dataset_type, first.dataset_config, first.dataset_split) == (
        "x/y",
        "main",
        "test",
    )
    assert (other.dataset_type, other.dataset_config) == ("openai/gsm8k", "main")
