"""Evidence in a column of the data: numbers of tokens and of characters, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasontrain.data.evidence_columns import EvidenceColumn, read
from reasontrain.data.files import RowError, Table
from reasontrain.models.description import describe
from reasontrain.recipe import RecipeError, read_recipe
from reasontrain.run.datasets import training_data
from reasontrain.tasks import Grader
from reasontrain.tasks.offline import PairTask, RolloutTask
from reasontrain.types import Problem, Rollout, TokenKind, UserError
from tests.tiny import tokenizer

RECIPES = Path(__file__).parents[2] / "recipes/tiny"
TEXT = "12 + 3 = 15"


def table(path: Path, **row: object) -> Table:
    """A file of one row."""
    path.write_text(json.dumps({"prompt": "?", "response": TEXT, **row}))
    return RolloutTask(path=str(path)).table(lambda error: None)


def rollout(path: Path, text: str = TEXT, *, kinds: tuple[int, ...] = (), end: str = "") -> Rollout:
    """A response with this text, and this mark after it, in the first line of the file."""
    return Rollout(
        problem=Problem(id="0", prompt="?", source=f"{path}, line 1"),
        id=0,
        group=0,
        prompt_ids=(1,),
        response_ids=tuple(tokenizer().encode(text + end, add_special_tokens=False)),
        text=text,
        kinds=kinds,
    )


def column(path: Path, numbers: object) -> EvidenceColumn:
    return read(table(path, q=numbers), "teacher_logp", "q", tokenizer())


def joined(path: Path, numbers: object, response: Rollout) -> tuple[float, ...]:
    (found,) = column(path, numbers).joined([response])
    return found.evidence["teacher_logp"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.jsonl"


def test_a_number_per_token(path: Path) -> None:
    size = len(rollout(path).response_ids)
    numbers = [-0.5 * index for index in range(size)]
    assert joined(path, numbers, rollout(path)) == tuple(numbers)


def test_a_number_per_token_that_the_assistant_wrote(path: Path) -> None:
    size = len(rollout(path).response_ids)
    kinds = (TokenKind.TOOL, TokenKind.MASKED, *[TokenKind.RESPONSE] * (size - 2))
    response = rollout(path, kinds=tuple(map(int, kinds)))
    numbers = [float(index) for index in range(1, size)]
    assert joined(path, numbers, response) == (0.0, *numbers)


@pytest.mark.parametrize("text", [TEXT, "a €µ 漢字 b", "the answer is 42."])
def test_a_number_per_character_is_averaged_over_a_token(path: Path, text: str) -> None:
    end = tokenizer().eos_token
    response = rollout(path, text, end=end)
    numbers = [float(index) for index in range(len(text))]
    found = joined(path, numbers, response)
    # Every character belongs to one token, or to the tokens of its bytes, so values rise.
    assert list(found) == sorted(found)
    assert found[0] < 1.5 * max(map(len, tokenizer().convert_ids_to_tokens(response.response_ids)))
    assert found[-1] == numbers[-1]  # the mark that ends the response has no character
    flat = joined(path, [7.0] * len(text), response)
    assert flat == (7.0,) * len(response.response_ids)


def test_characters_of_each_token(path: Path) -> None:
    response = rollout(path)
    pieces = [tokenizer().decode([token]) for token in response.response_ids]
    assert "".join(pieces) == TEXT
    expected = []
    start = 0
    for piece in pieces:
        expected.append(start + (len(piece) - 1) / 2)  # the mean of start, ..., start + length - 1
        start += len(piece)
    assert joined(path, list(range(len(TEXT))), response) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([0.0] * 99, r"line 1: .*column 'q' holds 99 numbers, and the response has \d+ tokens and"),
        ([float("nan")], "expected a list of numbers, one per token or character"),
        ([True] * len(TEXT), "expected a list of numbers"),
        ("0.5", "expected a list of numbers"),
        (None, "expected a list of numbers"),
    ],
)
def test_a_cell_that_does_not_fit_is_named(path: Path, numbers: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        joined(path, numbers, rollout(path))


def test_a_response_without_text_has_no_number_per_character(path: Path) -> None:
    """The mark that ends it is a token, and there is no character before it."""
    response = rollout(path, "", end=tokenizer().eos_token)
    assert joined(path, [1.5], response) == (1.5,)
    with pytest.raises(UserError, match="holds 0 numbers, and the response has 1 tokens and 0"):
        joined(path, [], response)


def test_a_file_without_the_column_is_refused(path: Path) -> None:
    with pytest.raises((UserError, RowError), match="'p'"):
        read(table(path), "teacher_logp", "p", tokenizer())


def test_sides_of_a_pair_have_columns_of_their_own(path: Path) -> None:
    row = {"prompt": "?", "chosen": TEXT, "rejected": TEXT, "rejected_q": [1.0] * len(TEXT)}
    path.write_text(json.dumps(row))
    pairs = PairTask(path=str(path)).table(lambda error: None)
    scores = read(pairs, "ce_logscore", "q", tokenizer())
    sides = (rollout(path), rollout(path))
    chosen, rejected = scores.joined(sides, optional=1)
    assert chosen.evidence == {}
    assert set(rejected.evidence["ce_logscore"]) == {1.0}
    with pytest.raises(UserError, match="column 'chosen_q' holds nothing"):
        scores.joined(sides)


def test_a_recipe_reads_a_column(path: Path) -> None:
    """IW-OPD on written responses, whose teacher's log-probs are in the file; no teacher."""
    rows = [{"prompt": f"{i}+1?", "response": TEXT, "q": [-1.0 * i] * len(TEXT)} for i in range(8)]
    path.write_text("\n".join(map(json.dumps, rows)))
    overrides = [
        f"task={{kind: rollouts, path: {path}}}",
        "evidence={teacher_logp: 'column:q'}",
        "token_selection={kind: iw_opd}",
        "learn.rollouts_per_step=4",
        "evaluate=null",
        "teacher=null",
        "baseline=null",
    ]
    recipe = read_recipe(RECIPES / "sft.yaml", overrides)
    assert recipe.measured_evidence == {"old_logp"}
    with Grader(num_workers=1) as grader:
        written, _ = training_data(recipe, describe(recipe.model), grader)
    assert written is not None
    for number, rollouts in written.written.items():
        values = rollouts[0].evidence["teacher_logp"]
        assert len(values) == len(rollouts[0].response_ids)
        assert set(values) == {-1.0 * int(number)}
    with pytest.raises(RecipeError, match="teacher: the evidence teacher_logp compares with a"):
        read_recipe(RECIPES / "sft.yaml", [*overrides, "evidence={}"])
