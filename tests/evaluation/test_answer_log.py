"""The file of answers while it grows: torn lines, other fingerprints, damage, and two processes at
once.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reasontrain.evaluation.answer_log import AnswerLog
from reasontrain.evaluation.answers import Answer, Reply
from reasontrain.recipe import YamlValue
from reasontrain.tasks import Verdict
from reasontrain.types import Problem, UserError

PROBLEMS = [Problem(id=f"p{i}", prompt="?", answer="7") for i in range(3)]
FINGERPRINT: dict[str, YamlValue] = {
    "seed": 0,
    "versions": {"torch": "2"},
    "suite": {"sampling": {"stop": ["a"], "top_p": 1.0}},
}


def answer(m: int, sample: int = 0) -> Answer:
    reply = Reply(text=f"said {m} ü", truncated=False, num_tokens=4)
    return Answer(
        problem=PROBLEMS[m], sample=sample, reply=reply, verdict=Verdict(False, "", "timeout")
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two answers and a half, of FINGERPRINT."""
    path = tmp_path / "model" / "x.jsonl"
    log = AnswerLog(path, FINGERPRINT)
    assert log.read(PROBLEMS) == {}
    with log.writing() as keep:
        keep(answer(0))
        keep(answer(2, 1))
    with path.open("a") as stream:
        stream.write(answer(1).line()[:-20])
    return path


def test_a_torn_line_is_dropped_and_what_follows_stands_where_it_stood(path: Path) -> None:
    log = AnswerLog(path, FINGERPRINT)
    assert log.read(PROBLEMS) == {(0, 0): answer(0), (2, 1): answer(2, 1)}
    with log.writing() as keep:
        keep(answer(1))
    assert path.read_text() == answer(0).line() + answer(2, 1).line() + answer(1).line()


def test_a_line_is_on_the_disk_before_the_next_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    log = AnswerLog(path, FINGERPRINT)
    log.read(PROBLEMS)
    with log.writing() as keep:
        keep(answer(1))
        assert synced == [path.stat().st_size]
        keep(answer(1, 1))
    assert synced[1:] == [path.stat().st_size]


def test_the_fingerprint_is_written_before_the_first_answer_and_not_again(path: Path) -> None:
    stated = path.with_suffix(".fingerprint.json")
    before = stated.stat().st_ino
    log = AnswerLog(path, FINGERPRINT)
    log.read(PROBLEMS)
    with log.writing():
        assert stated.stat().st_ino == before
    other = AnswerLog(path.with_name("y.jsonl"), FINGERPRINT)
    other.read(PROBLEMS)
    with other.writing():
        assert other.fingerprint_path.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"fingerprint": "f"}, 'fingerprint was absent and is "f"'),
        (
            {"suite": {"sampling": {"stop": [], "top_p": 1.0}}},
            r'suite.sampling.stop was \["a"\] and is \[\]',
        ),
        ({"a": 1, "b": 1, "c": 1, "seed": 1}, "c was absent and is 1 and 1 more"),
        ({"versions": {"torch": "3"}}, 'versions.torch was "2" and is "3"'),
    ],
)
def test_answers_with_another_fingerprint_are_refused_and_left_alone(
    path: Path, change: dict[str, YamlValue], said: str
) -> None:
    before = path.read_bytes()
    with pytest.raises(
        UserError, match=f"answers of another evaluation .*{said}.*give another --out, or --restart"
    ):
        AnswerLog(path, FINGERPRINT | change).read(PROBLEMS)
    assert path.read_bytes() == before


def test_an_empty_file_belongs_to_nobody(path: Path) -> None:
    path.write_text("")
    log = AnswerLog(path, FINGERPRINT | {"seed": 1})
    assert log.read(PROBLEMS) == {}
    with log.writing() as keep:
        keep(answer(0))
    assert len(AnswerLog(path, FINGERPRINT | {"seed": 1}).read(PROBLEMS)) == 1


def test_answers_that_do_not_say_to_what_they_belong_are_refused(path: Path) -> None:
    path.with_suffix(".fingerprint.json").unlink()
    with pytest.raises(
        UserError, match=r"their fingerprint x\.fingerprint\.json is missing or damaged"
    ):
        AnswerLog(path, FINGERPRINT).read(PROBLEMS)


@pytest.mark.parametrize("line", ["{", "{}", '{"problem": "p9"}', "[]"])
def test_damage_in_the_middle_is_named(path: Path, line: str) -> None:
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(UserError, match=r"x\.jsonl: line 1 is no answer of this suite"):
        AnswerLog(path, FINGERPRINT).read(PROBLEMS)


def test_another_process_in_the_same_file_is_refused(path: Path) -> None:
    path.write_text(answer(0).line())
    first, second, third = (AnswerLog(path, FINGERPRINT) for _ in range(3))
    for log in (first, second, third):
        log.read(PROBLEMS)
    with first.writing() as keep:
        with pytest.raises(UserError, match="another process evaluates into"), second.writing():
            pass
        keep(answer(1))
    with (
        pytest.raises(UserError, match="another process evaluates into"),
        third.writing(),
    ):  # it has read too little
        pass
    assert len(AnswerLog(path, FINGERPRINT).read(PROBLEMS)) == 2


def test_what_is_forgotten_is_gone(path: Path) -> None:
    AnswerLog(path, FINGERPRINT).discard()
    assert list(path.parent.iterdir()) == []
