"""The files of the lens: what the scripts hold, and that nothing in them can harm."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from reasontrain.algo.evidence import EVIDENCE
from reasontrain.algo.token_selection import Prior, Random, Tip, TopEntropy
from reasontrain.cli import main
from reasontrain.lens import write_lens
from reasontrain.lens.pack import ascii_json, column
from reasontrain.lens.recorded import read_rollouts
from reasontrain.lens.scales import scale_of
from reasontrain.lens.site import CHUNK_ROLLOUTS
from reasontrain.lens.steps import view_step
from reasontrain.report import write_report
from reasontrain.types import UserError
from tests.lens.conftest import change

CALL = re.compile(r'lens\("(\w+)","([\w-]+)",(.*)\)\n')
EVIL = (
    "<script>document.title='broken'</script><!--</script><img src=x onerror=alert(1)>",
    "\u2028\u2029\x00\x1b\u202eabc\u200f",
    "\ud800 and \udfff",
    '"});alert(1);({"',
    "__proto__",
)


def script(path: Path) -> tuple[str, str, dict]:
    """The call that a script is: kind, key, value."""
    text = path.read_bytes().decode("ascii")
    match = CALL.fullmatch(text)
    assert match, text[:200]
    return match[1], match[2], json.loads(match[3])


def floats(text: str) -> list[float]:
    """The numbers of a packed column."""
    if not text.startswith("~"):
        return [float(digit) for digit in text]
    return np.frombuffer(base64.b64decode(text[1:]), dtype="<f4").tolist()


@pytest.mark.parametrize("values", [[], [0, 1, 1], [0.5, 1], [float("nan"), float("-inf"), 2]])
def test_numbers_survive_packing(values):
    array = np.array(values, dtype=np.float32)
    np.testing.assert_array_equal(floats(column(array)), array)


@pytest.mark.parametrize("evil", EVIL)
def test_a_script_is_ascii_without_markup(evil):
    text = ascii_json({"a": [evil, float("nan")]})
    assert text.isascii()
    assert not set("<>&\n") & set(text)
    assert json.loads(text) == {"a": [evil, "NaN"]}


def test_scripts_hold_the_records(record):
    """Everything that the page draws, decoded as the page decodes it."""
    run = record("run", Tip(), steps=(1, 4), dropped=(2,))
    page = write_lens([run], rules=[Tip(), TopEntropy(), Prior()])
    assert page == run / "lens/index.html"
    data = page.parent / "data"
    assert {path.name for path in data.iterdir()} == {
        f"run0-step{step}{part}.js" for step in (1, 4) for part in ("", "-0")
    }
    kind, key, step = script(data / "run0-step4.js")
    assert (kind, key) == ("step", "run0-step4")
    assert step["names"] == ["entropy", "kl_reverse"]
    assert [rule["name"] for rule in step["rules"]] == [
        "trained with",
        "tip",
        "top_entropy",
        "prior",
    ]
    assert step["rules"][3]["reason"] == "the run did not record uncond_logp"
    assert step["rules"][1]["overlap"] == 1
    _, _, chunk = script(data / "run0-step4-0.js")
    rollouts = read_rollouts(run / "tokens/step-4.jsonl")
    view = view_step(4, rollouts, [Tip(), TopEntropy()], None)
    for i, rollout in enumerate(rollouts):
        prompt, answer, _, tokens, kinds, rules, evidence, quadrants = chunk["rollouts"][i]
        assert (prompt, answer) == (rollout.prompt, rollout.answer)
        assert [chunk["texts"][t] for t in tokens] == rollout.pieces
        assert kinds == "2"
        assert rules[3] is None
        for r in (0, 1, 2):
            assert floats(rules[r]) == view.rules[r].weight[i].tolist()
        if rollout.dropped:
            assert evidence == [None, None]
            assert quadrants == "0"
        else:
            assert floats(evidence[0]) == rollout.evidence["entropy"].tolist()
            assert [int(q) for q in quadrants] == list(view.quadrants[i])
        listed = step["rollouts"][i]
        assert listed[:2] == [400 + i, f"p{i // 2}"]
        assert listed[5:10] == [i % 2 == 1, 400 + i // 2, i == 2, i == 4, len(tokens)]
        assert listed[10][0] == int((rollout.weight != 0).sum())
        assert sum(listed[11]) == (0 if rollout.dropped else len(tokens))


def test_many_rollouts_are_several_scripts(record):
    run = record("run", Random(), num=CHUNK_ROLLOUTS + 10)
    data = write_lens([run]).parent / "data"
    _, _, step = script(data / "run0-step1.js")
    assert step["chunks"] == [[0, CHUNK_ROLLOUTS], [CHUNK_ROLLOUTS, CHUNK_ROLLOUTS + 10]]
    assert [row[12] for row in step["rollouts"]] == [0] * CHUNK_ROLLOUTS + [1] * 10
    for number, (start, stop) in enumerate(step["chunks"]):
        _, _, chunk = script(data / f"run0-step1-{number}.js")
        assert len(chunk["rollouts"]) == stop - start


@pytest.mark.parametrize("evil", EVIL)
def test_text_from_anywhere_stays_text(record, evil):
    run = record("run", Tip())

    def edit(i, row):
        size = len(row["tokens"])
        texts = dict.fromkeys(("prompt", "answer", "problem"), evil)
        return texts | {"tokens": [evil] * size, "evidence": {evil: [0.5] * size}}

    change(run / "tokens/step-1.jsonl", edit)
    with (run / "recipe.yaml").open("a") as stream:
        stream.write(f"extra: {json.dumps(evil)}\n")  # an unreadable recipe is quoted in a note
    page = write_lens([run])
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 2
    assert "<img" not in text
    embedded = text.split('id="data">')[1].split("</script>")[0]
    assert json.loads(embedded)["runs"][0]["scales"][0]["name"] == evil
    for path in (page.parent / "data").iterdir():
        script(path)
    _, _, chunk = script(page.parent / "data/run0-step1-0.js")
    assert chunk["texts"] == [evil]


def test_nothing_comes_from_outside(record):
    text = write_lens([record("run", Tip())]).read_text()
    assert not re.search(r"https?:|url\(|@import|innerHTML|eval\(|\bfetch\(", text)
    inline = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}' "
        f"'strict-dynamic'" in text
    )


def test_several_runs_have_a_folder_of_their_own(record, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [record("a", Tip()), record("b", Random(), steps=(1, 2))]
    page = write_lens(runs)
    assert page == Path("lens/index.html")
    embedded = page.read_text().split('id="data">')[1].split("</script>")[0]
    assert [(r["name"], len(r["steps"])) for r in json.loads(embedded)["runs"]] == [
        ("a", 1),
        ("b", 2),
    ]


def test_scripts_of_an_earlier_lens_are_removed(record):
    run = record("run", Tip(), steps=(1, 2))
    data = write_lens([run]).parent / "data"
    (run / "tokens/step-2.jsonl").unlink()
    write_lens([run])
    assert {path.name for path in data.iterdir()} == {"run0-step1.js", "run0-step1-0.js"}


def test_the_report_links_to_the_lens_that_is_there(record):
    run = record("run", Tip())
    page, _ = write_report(run)
    assert "href=" not in page.read_text()
    assert "<code>reasontrain lens</code>" in page.read_text()
    write_lens([run])
    assert '<a href="lens/index.html">' in page.read_text()


def test_notes_say_what_the_numbers_cannot(record):
    run = record("run", Tip())
    assert notes(write_lens([run])) == []
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("rollouts_per_step: 6", "rollouts_per_step: 64"))
    (note,) = notes(write_lens([run]))
    assert note.startswith("The run recorded at most 6 of the 64 rollouts of a step")
    recipe.write_text("name: [")
    (note,) = notes(write_lens([run]))
    assert "recipe.yaml is not YAML" in note


def notes(page: Path) -> list[str]:
    """What the page says above the rollouts."""
    embedded = page.read_text().split('id="data">')[1].split("</script>")[0]
    return json.loads(embedded)["runs"][0]["notes"]


def test_edges_of_colours_are_fixed_for_known_evidence():
    assert scale_of("entropy", []).edges == (0.1, 0.3, 0.7, 1.4)
    assert (scale_of("old_logp", []).sign, scale_of("old_logp", []).edges[1]) == (-1, 0.7)
    assert scale_of("attention", []).edges == (0.2, 0.4, 0.6, 0.8)
    for row in EVIDENCE.values():
        if row.source == "plugin":  # of another test; it has any bounds
            continue
        scale = scale_of(row.name, [])
        least, most = sorted(scale.sign * bound for bound in row.bounds)
        assert least < scale.edges[0] < scale.edges[-1] < most, "levels 0 to 4 all occur"
    values = np.array([*range(101), np.nan, np.inf], dtype=np.float32)
    assert scale_of("own", [values]).edges == (50, 75, 90, 98)
    assert scale_of("own", []).edges == ()


def test_what_cannot_be_shown_is_one_sentence(record, tmp_path, capsys):
    run = record("run", Tip())
    (tmp_path / "empty").mkdir()
    for runs, message in (
        ([tmp_path / "none"], "no run directory at"),
        ([tmp_path / "empty"], "has no token files"),
        ([run, run], "a run is named twice"),
    ):
        with pytest.raises(UserError, match=message):
            write_lens(runs)
    assert main(["lens", str(run), "--rule", "top_entropy", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'out/index.html'}\n"
    assert main(["lens", str(run), "--rule", "tipp"]) == 2
    assert capsys.readouterr().err.count("\n") <= 3
    assert not (run / "lens").exists()
