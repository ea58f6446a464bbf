"""Figures of the board as files: Markdown, CSV, JSON, and metadata for model cards."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

import yaml

from reasontrain.evaluation.suites import suite
from reasontrain.leaderboard.columns import BoardColumn
from reasontrain.leaderboard.entries import Entry, Result
from reasontrain.metrics.accuracy import Interval
from reasontrain.recipe import as_mapping
from reasontrain.report.numbers import Json, portable
from reasontrain.report.summary import setting_text
from reasontrain.types import UserError

_NUMBERS = ("response_tokens_mean", "truncated", "unfinished", "no_answer")
_FIELDS = (
    "model",
    "suite",
    "metric",
    "value",
    "low",
    "high",
    "step",
    "num_problems",
    "num_samples",
    "temperature",
)


def markdown(entries: Sequence[Entry], columns: Sequence[BoardColumn]) -> str:
    """A table of models by suites in percent, for the first metric.

    The best row of a column, and rows that do not differ significantly from it, are bold.
    """
    shown = [column for column in columns if column.metric == columns[0].metric]
    heads = [_cell_text(f"{column.group.name} ({column.metric})") for column in shown]
    lines = ["| model | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(shown)]
    first = shown[0].order if shown else ()
    ranked = sorted(
        entries, key=lambda entry: first.index(entry.slug) if entry.slug in first else len(first)
    )
    for entry in ranked:
        lines.append(
            "| "
            + " | ".join([_cell_text(entry.name), *(_cell(column, entry.slug) for column in shown)])
            + " |"
        )
    how = "; ".join(f"{_cell_text(column.group.name)}: {column.group.setting}" for column in shown)
    note = (
        "In percent, with 95 % intervals over problems. Bold: the best, and models that are not "
        "significantly worse (paired bootstrap)."
    )
    return "\n".join([*lines, "", f"{note} {how}.", ""])


def csv_text(entries: Sequence[Entry], columns: Sequence[BoardColumn]) -> str:
    """One line per model, column and metric, with shares instead of percent."""
    stream = io.StringIO()
    names = {entry.slug: entry.name for entry in entries}
    settings = sorted(
        {key for column in columns for key in column.group.fingerprint} - {"samples", "temperature"}
    )
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_FIELDS, *_NUMBERS, *settings])
    for column in columns:
        for row in column.order:
            result = column.group.results[row]
            cell = column.cells[row]
            e = result.evaluation
            figures = (
                cell.value,
                cell.low,
                cell.high,
                e.step,
                e.num_problems,
                e.num_samples,
                e.temperature,
            )
            numbers = [e.numbers.get(name, "") for name in _NUMBERS]
            stated = [_inert(result.fingerprint.get(key, "")) for key in settings]
            writer.writerow(
                [
                    _inert(names[row]),
                    _inert(column.group.name),
                    column.metric,
                    *figures,
                    *numbers,
                    *stated,
                ]
            )
    return stream.getvalue()


def content(entries: Sequence[Entry], columns: Sequence[BoardColumn]) -> Json:
    """Rows, columns, cells, and the paired differences of all pairs of rows."""
    return portable(
        {
            "models": [
                {"id": entry.slug, "name": entry.name, "about": entry.about} for entry in entries
            ],
            "columns": [
                {
                    "suite": column.group.suite,
                    "name": column.group.name,
                    "metric": column.metric,
                    "fingerprint": dict(column.group.fingerprint),
                    "cells": {
                        row: {
                            **_ends(column.cells[row]),
                            **column.group.results[row].evaluation.outcomes,
                        }
                        for row in column.order
                    },
                    "not_told_apart_from_best": list(column.level),
                    "differences": [
                        {"of": a, "minus": b, **_ends(gap)}
                        for (a, b), gap in column.differences.items()
                    ],
                }
                for column in columns
            ],
        }
    )


def card(entry: Entry) -> str:
    """Front matter for the model card of a row: a `model-index` with every metric, in percent."""
    index = [{"name": entry.name, "results": [_card_result(result) for result in entry.results]}]
    text = yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{text}---\n"


def _card_result(result: Result) -> Mapping[str, Json]:
    """A result in the format of the Hugging Face hub's `model-index`."""
    e = result.evaluation
    args = {key.replace(" ", "_"): value for key, value in result.fingerprint.items()}
    metrics = [
        {
            "type": name,
            "name": f"{name} ({setting_text(e)})",
            "value": round(100 * cell.value, 2),
            "config": f"95 % interval {100 * cell.low:.2f} to {100 * cell.high:.2f}",
        }
        for name, cell in e.metrics.items()
    ]
    return {
        "task": {"type": "text-generation", "name": "Text Generation"},
        "dataset": {"name": e.suite, **_data_set(result), "args": args},
        "metrics": metrics,
    }


def _data_set(result: Result) -> dict[str, Json]:
    """The data set on the hub, or the suite if there is none.

    The data set of a suite in `eval/suites` is on the hub even if its problems were read from a
    file.
    """
    task = result.suite_settings.get("task")
    stated = task if isinstance(task, Mapping) else {}
    if not stated.get("hub"):
        stated = _known(result.evaluation.suite, result.suite_settings.get("file"))
    if not stated.get("hub"):
        return {"type": result.evaluation.suite}
    parts = {"type": stated["hub"], "config": stated.get("subset"), "split": stated.get("split")}
    return {name: value for name, value in parts.items() if value}


def _known(name: str, file: Json) -> Mapping[str, Json]:
    """The task of the suite of this name in `eval/suites`, if its problems are those of `file`."""
    try:
        known = suite(name, (), None)
    except UserError:
        return {}
    return as_mapping(known.task) if known.file and known.file == file else {}


def _cell(column: BoardColumn, row: str) -> str:
    """Value and interval in percent."""
    if row not in column.cells:
        return ""
    cell = column.cells[row]
    value = f"{100 * cell.value:.1f}"
    outcomes = column.group.results[row].evaluation.outcomes_text
    return (
        f"{f'**{value}**' if row in column.level else value} [{100 * cell.low:.1f}, "
        f"{100 * cell.high:.1f}]{f' ({outcomes})' if outcomes else ''}"
    )


def _cell_text(text: str) -> str:
    """Escape a text for a Markdown table."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")


def _inert(text: str) -> str:
    """Escape a text that a spreadsheet would read as a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _ends(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
