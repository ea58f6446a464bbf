"""The page: self-contained, escaped, and whole or in part."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from reasontrain.algo.evidence import EVIDENCE
from reasontrain.report import write_report
from reasontrain.report.build import _axis
from tests.report.conftest import write_lines

SECTIONS = {"results", "curves", "quadrants", "tokens", "time", "details"}
VOID = {"meta", "br", "hr", "img", "input", "link", "path", "line", "rect", "circle"}


class Page(HTMLParser):
    """What a browser would find: elements in order, attributes, text; and that every element is
    closed.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def read(run_dir) -> tuple[Page, str, dict]:
    html, report = write_report(run_dir)
    text = html.read_text(encoding="utf-8")
    return (
        Page(text),
        text,
        json.loads(report.read_text(encoding="utf-8"), parse_constant=pytest.fail),
    )


def test_a_whole_run(run_dir):
    page, text, report = read(run_dir)
    assert {h["id"] for h in page.named("h2")} == SECTIONS
    assert page.open == []
    assert len(text.encode()) < 400_000
    charts = [svg["aria-label"] for svg in page.named("svg") if "aria-label" in svg]
    titles = [
        "Accuracy",
        "Loss",
        "Reward",
        "Entropy",
        "Divergence",
        "Kept tokens",
        "Quadrants",
        "Gradient norm",
        "Speed",
    ]
    assert [label.partition(" by")[0] for label in charts[:-1]] == titles
    assert charts[-1].startswith("A step of 1.2\u202fs: sampling 42.0\u202f%, ")
    assert charts[0] == "Accuracy by training step: arithmetic-test from 26.0\u202f% to 44.5\u202f%"
    assert len([a for a in page.named("article") if a["class"] == "rollout"]) == 6
    assert report["headlines"][0]["gain"]["value"] == pytest.approx(0.185)
    assert report["name"] == "tiny-tip"
    assert sorted(p.name for p in run_dir.iterdir() if p.suffix in (".part", ".html")) == [
        "report.html"
    ]


@pytest.mark.parametrize(("problems_before", "paired"), [(100, True), (99, False)])
def test_the_gain_is_paired_where_both_evaluations_have_answers(run_dir, problems_before, paired):
    """26 of 100 right before, the same and 18 more after: no problem was lost, so that the paired
    half-width is 1.96 sqrt(.185 x .815 / 100) = 0.075 at most; that of two independent evaluations
    with the half-widths of 0.03 that the records state is 0.042. With another set of problems in
    one file, the records' intervals count.
    """
    for step, right, total in ((0, 26, problems_before), (60, 44, 100)):
        rows = [{"problem": f"p{i}", "correct": i < right} for i in range(total)]
        write_lines(run_dir / f"answers/arithmetic-test-step-{step}.jsonl", rows)
    _, text, report = read(run_dir)
    head = next(h for h in report["headlines"] if h["metric"] == "accuracy")
    half_width = (head["gain"]["high"] - head["gain"]["low"]) / 2
    assert head["gain_paired"] is paired
    assert head["gain"]["value"] == pytest.approx(0.18 if paired else 0.185)
    assert half_width == pytest.approx(0.075 if paired else 0.0424, abs=0.003)
    assert ("paired by problem" in text) is paired
    assert ("treats the two evaluations as independent" in text) is not paired
    passes = next(h for h in report["headlines"] if h["metric"] == "pass@4")
    assert not passes["gain_paired"]


def test_a_run_that_drops_rollouts_shows_what_it_saved(run_dir):
    """Two steps of 1,000 sampled tokens, of which 100 and 300 were trained on: 400 of 2,000."""
    thinned = [
        {
            "sampled_tokens": 1000,
            "trained_tokens": trained,
            "rollouts_kept_share": kept,
            "useful_share": 0.7,
        }
        | {"useful_share_kept": 1.0, "advantage_var": 0.7, "advantage_var_kept": 1.5}
        for trained, kept in ((100, 0.25), (300, 0.75))
    ]
    write_lines(
        run_dir / "metrics.jsonl", [{"step": step, **row} for step, row in enumerate(thinned)]
    )
    page, text, _ = read(run_dir)
    charts = [svg["aria-label"] for svg in page.named("svg") if "aria-label" in svg]
    assert any(
        label.startswith("Rollouts by training step: kept from 25.0\u202f% to 75.0\u202f%")
        for label in charts
    )
    assert any(
        label.startswith("Variance of advantages by training step: sampled from 0.7 to 0.7")
        for label in charts
    )
    assert "400 of 2,000 sampled" in text


def test_nothing_is_asked_from_outside(run_dir):
    page, text, _ = read(run_dir)
    assert not {"link", "img", "iframe", "object", "embed", "base", "form"} & {
        tag for tag, _ in page.elements
    }
    assert not re.search(r"url\(|@import|https?:|//[a-z]+\.[a-z]", text.replace("// Reads", ""))
    assert not any(
        name in attrs
        for _, attrs in page.elements
        for name in ("src", "href", "xlink:href", "style", "onclick", "onload")
    )
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        page.named("meta")[1]["content"]
        == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


@pytest.mark.parametrize(
    "evil",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "{{ 7 * 7 }}",
        "</style><b>",
        "a & b 'c'",
    ],
)
def test_text_from_anywhere_is_escaped(run_dir, evil):
    before, _, _ = read(run_dir)
    path = run_dir / "tokens/step-60.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row |= {
            "prompt": evil,
            "answer": evil,
            "problem": evil,
            "rollout": evil,
            "tokens": [evil] * len(row["tokens"]),
        }
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run_dir / "environment.json").write_text(json.dumps({"seed": evil, evil: evil}))
    (run_dir / "recipe.yaml").write_text(f"name: {json.dumps(evil)}\n")
    scored = json.loads((run_dir / "evaluations.jsonl").read_text().splitlines()[0]) | {
        "suite": evil
    }
    (run_dir / "evaluations.jsonl").write_text(
        "".join(json.dumps(scored | {"step": step}) + "\n" for step in (0, 9))
    )
    with (run_dir / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps({"step": 61, evil: 1.0}) + "\n")
    page, _, report = read(run_dir)
    assert len(page.named("script")) == len(before.named("script")) == 1
    assert not page.named("img")
    assert len(page.named("b")) <= len(before.named("b"))
    assert page.texts.count(evil) > 40
    assert report["name"] == evil


@pytest.mark.parametrize(
    ("absent", "sections"),
    [
        (["metrics.jsonl"], {"results", "curves", "tokens", "details"}),
        (["evaluations.jsonl"], SECTIONS - {"results"}),
        (["tokens"], SECTIONS - {"tokens"}),
        (["recipe.yaml", "environment.json"], SECTIONS),
        (["metrics.jsonl", "evaluations.jsonl", "tokens", "environment.json"], {"details"}),
        (["metrics.jsonl", "recipe.yaml", "environment.json", "tokens"], {"results", "curves"}),
    ],
)
def test_absent_parts_are_left_out(run_dir, absent, sections):
    for name in absent:
        path = run_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    page, _, _ = read(run_dir)
    assert {h["id"] for h in page.named("h2")} == sections


def test_an_old_page_gives_way(run_dir):
    (run_dir / "report.html").write_text("old")
    (run_dir / "report.json").write_text("old")
    assert "tiny-tip" in read(run_dir)[1]


def test_numbers_that_are_not_finite_are_shown_as_such(run_dir):
    rows = [
        {"step": 1, "loss": 1.0, "grad_norm": float("nan")},
        {"step": 2, "loss": float("inf"), "grad_norm": float("nan")},
    ]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = {"accuracy": {"value": float("nan"), "low": float("nan"), "high": float("nan")}}
    scored = {
        "suite": "s",
        "num_problems": 1,
        "num_samples": 1,
        "temperature": 0,
        "metrics": metrics,
    }
    (run_dir / "evaluations.jsonl").write_text(
        "".join(json.dumps(scored | {"step": step}) + "\n" for step in (0, 2))
    )
    page, text, report = read(run_dir)
    assert report["metrics"]["grad_norm"]["mean"] == "NaN"
    assert report["metrics"]["loss"]["last"] == "Infinity"
    assert report["headlines"][0]["after"]["value"] == "NaN"
    assert "∞" in text
    assert "1 step without a finite value" in text
    assert "NaN" in page.texts


@pytest.mark.parametrize("row", [row for row in EVIDENCE.values() if row.source != "plugin"])
def test_the_axis_of_evidence_holds_all_that_it_can_be(row):
    axis = _axis(row)
    low, high = row.bounds
    assert axis.floor is None or axis.floor <= low
    assert axis.ceiling is None or axis.ceiling >= high
    assert axis.shares == (row.unit in ("probability", "share"))


def test_a_page_of_demonstrations_shows_no_reward(run_dir):
    path = run_dir / "tokens" / "step-1.jsonl"
    path.parent.mkdir(exist_ok=True)
    token = {"tokens": ["a"], "kind": [2], "weight": [1.0], "evidence": {}}
    rows = [
        {"rollout": i, "reward": 0.0, "correct": c, **token} for i, c in enumerate((None, True))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for other in path.parent.glob("step-*.jsonl"):
        if other != path:
            other.unlink()
    page, _ = write_report(run_dir)
    assert page.read_text().count('class="reward"') == 1


def test_only_entropy_is_a_legend_of_one_row(run_dir):
    for path in (run_dir / "tokens").iterdir():
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            del row["evidence"]["kl_reverse"]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, text, _ = read(run_dir)
    assert "Across:" in text
    assert "Upwards:" not in text


def test_a_long_run_with_long_rollouts_stays_below_a_megabyte(run_dir):
    row = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[0])
    (run_dir / "metrics.jsonl").write_text(
        "".join(json.dumps(row | {"step": step}) + "\n" for step in range(1000))
    )
    path = run_dir / "tokens/step-60.jsonl"
    rollout = json.loads(path.read_text().splitlines()[0])
    times = 30
    longer = {name: rollout[name] * times for name in ("tokens", "kind", "weight")}
    longer["evidence"] = {name: column * times for name, column in rollout["evidence"].items()}
    for step in (1, 60):
        (run_dir / f"tokens/step-{step}.jsonl").write_text(
            (json.dumps(rollout | longer) + "\n") * 4
        )
    _, text, _ = read(run_dir)
    assert len(text.encode()) < 1_000_000
