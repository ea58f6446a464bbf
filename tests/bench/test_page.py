"""A page and a picture of round figures."""

from __future__ import annotations

import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from reasontrain.bench import page
from reasontrain.bench.measure import Spread
from tests.bench.samples import MIB, RECORD, measured

SVG = "{http://www.w3.org/2000/svg}"


def test_a_row_says_ratio_speed_memory_and_goals():
    # the subject's 2 s for 8192 rows are 4096 a second, the peer's 4 s are 2048
    lines = list(page.table(RECORD))
    assert lines[2] == (
        "| `fast` | they <b> | 2 | **0.50 x** [0.25, 1.00] | 2 s (4,096 rows/s) | 4 s (2,048 "
        "rows/s) | 0.50 x (32 MiB / 64 MiB) | 132 MiB / 164 MiB | "
        "time at most 0.5 x: met; memory at most 0.25 x: **missed** (0.50) |"
    )
    assert lines[3].endswith(
        "|  |  | time at most 0.5 x: **missed** (2.00); memory 0.25: not measured |"
    )


@pytest.mark.parametrize(
    ("ratio", "is_slower"), [(0.5, False), (1.0, False), (1.004, False), (1.006, True), (3.0, True)]
)
def test_where_the_peer_wins_the_table_says_so(ratio: float, is_slower: bool):
    row = measured("case", (ratio, ratio, ratio), memory=ratio)
    row = replace(
        row,
        subject=replace(row.subject, peak_bytes=30 * MIB, resident_bytes=int(100 * ratio * MIB)),
        peer=replace(row.peer, resident_bytes=100 * MIB),
    )
    line = list(page.table(replace(RECORD, rows=(row,))))[2]
    assert ("], slower |" in line) is is_slower
    assert ("(30 MiB / 64 MiB), more |" in line) is is_slower
    assert ("/ 100 MiB, more |" in line) is (ratio > 1)


def test_rows_of_several_numbers_of_threads_are_told_apart():
    one = replace(RECORD.rows[0], threads=1)
    record = replace(RECORD, rows=(one, RECORD.rows[0]), model="owner/Model", dtype="bfloat16")
    text = page.markdown([record], {})
    assert "## toys, cpu, owner/Model, bfloat16" in text
    assert "| `fast` | they <b> | 1 |" in text
    assert "| `fast` | they <b> | 2 |" in text
    assert "- `fast`, 1 thread: a loss; N 8,192, dtype float32, 1 thread." in text
    assert "- `fast`, 2 threads: a loss" in text
    names = [element.text for element in ElementTree.fromstring(page.picture(record)).iter()]
    assert {"fast, 1 thread", "fast, 2 threads"} <= set(names)


def test_a_page_says_where_figures_come_from_and_what_was_searched():
    text = page.markdown([RECORD], {"toys-cpu": "toys-cpu.svg"})
    provenance = (
        "a processor, 2 cores; commit 0123456 with changes; torch 2.13.0, trl 1.16.0; 3 runs of "
        "each contestant. Quick: fewer runs and"
    )
    assert provenance in text
    assert "![ratios of toys](toys-cpu.svg)" in text
    fast = (
        "- `fast`: a loss; N 8,192, dtype float32, 2 threads. reasontrain: chunk 4,096, "
        "packing True. they <b>, the "
    )
    assert fast + "fastest of 2 settings: chunk 4,096, packing True. A remark." in text


def test_a_bar_lies_left_of_one_where_the_subject_is_faster_and_as_long_as_twice_as_slow():
    # the axis runs from 1/4 to 2, three doublings over 760 - 190 - 90 = 480: 160 each, and 1 lies
    # at 190 + 320 = 510
    root = ElementTree.fromstring(page.picture(RECORD))
    bars = {
        r.get("class"): (float(r.get("x", "")), float(r.get("width", "")))
        for r in root.iter(f"{SVG}rect")
    }
    assert bars == {"fast": (350.0, 160.0), "slow": (510.0, 160.0)}
    goals = [
        float(line.get("x1", "")) for line in root.iter(f"{SVG}line") if line.get("class") == "goal"
    ]
    assert goals == [350.0, 350.0]
    spreads = [
        (line.get("x1"), line.get("x2"))
        for line in root.iter(f"{SVG}line")
        if line.get("class") == "spread"
    ]
    assert spreads == [("190.0", "510.0"), ("510.0", "670.0")]
    assert "slow 2.00 times the time of they <b>" in root.get("aria-label", "")


@pytest.mark.parametrize("far", [0.01, 30.0])
def test_the_axis_holds_every_spread(far: float):
    row = replace(
        RECORD.rows[0], time_ratio=Spread(low=min(far, 1.0), median=1.0, high=max(far, 1.0))
    )
    root = ElementTree.fromstring(page.picture(replace(RECORD, rows=(row,))))
    (line,) = (line for line in root.iter(f"{SVG}line") if line.get("class") == "spread")
    ends = [float(line.get(name, "")) for name in ("x1", "x2")]
    share = (0 - math.log(min(far, 0.25))) / (math.log(max(far, 2.0)) - math.log(min(far, 0.25)))
    assert sorted(ends) == pytest.approx(
        sorted([190.0 if far < 1 else 670.0, 190 + 480 * share]), abs=0.05
    )
