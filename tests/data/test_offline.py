"""Rows with their responses: TRL's preference format, ids that are never encoded again, and what is
refused.
"""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path

import pytest

from reasontrain.algo.advantages import NoAdvantage
from reasontrain.data.collate import collate
from reasontrain.data.files import Table
from reasontrain.data.offline import (
    OfflineSample,
    WrittenResponse,
    encode,
    fingerprint,
    read_pairs,
    read_rollouts,
)
from reasontrain.data.order import Order
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.data.replies import trained_weights
from reasontrain.data.sampling import Sampling
from reasontrain.sampler.offline import OfflineSampler
from reasontrain.types import Image, Message, Problem, Prompt, TokenKind, UserError, Weights
from tests.tiny import tokenizer

USER = Message(role="user", content="2+2?")
FOUR, FIVE = Message(role="assistant", content="4"), Message(role="assistant", content="5")


def table(*rows: dict[str, object]) -> Table:
    return Table(source="pairs.jsonl", rows=rows, lines=range(1, len(rows) + 1))


def encoder() -> Encoder:
    return Encoder(tokenizer(), PromptSettings(), 256)


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "2+2?", "chosen": "4", "rejected": "5"}, "2+2?"),
        ({"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]}, (USER,)),
        ({"chosen": [USER, FOUR], "rejected": [USER, FIVE]}, (USER,)),
        ({"question": "2+2?", "chosen": "4", "rejected": "5"}, "2+2?"),
        ({"prompt": "2+2?", "chosen": [FOUR], "rejected": [FIVE]}, "2+2?"),
    ],
)
def test_pairs_are_read_in_every_form_of_trl(row: dict[str, object], prompt: object) -> None:
    (found,) = read_pairs(table(row))
    assert found.problem == Problem(id="0", prompt=prompt, source="pairs.jsonl, line 1")
    assert [response.text for response in found.responses] == ["4", "5"]


def test_texts_and_conversations_of_one_pair_are_the_same_tokens() -> None:
    forms = [
        {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
        {"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]},
        {"chosen": [USER, FOUR], "rejected": [USER, FIVE]},
    ]
    found = [encode(read_pairs(table(row)), encoder(), 256)[0][0] for row in forms]
    for chosen, rejected in found:
        assert (chosen.prompt_ids, chosen.response_ids) == (
            found[0][0].prompt_ids,
            found[0][0].response_ids,
        )
        assert chosen.prompt_ids == rejected.prompt_ids
        assert rejected.response_ids == found[0][1].response_ids
        assert tokenizer().decode(list(chosen.response_ids)) == "4" + tokenizer().eos_token


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"prompt": "a", "chosen": "b", "rejected": ""},
            "line 1: column 'rejected' is missing or empty; a pair needs",
        ),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "column 'rejected' is missing or empty"),
        ({"prompt": "a", "chosen": [], "rejected": "c"}, "column 'chosen' is missing or empty"),
        (
            {"chosen": "b", "rejected": "c"},
            "line 1: there is no prompt (looked for: problem, question, prompt",
        ),
        (
            {"prompt": [FOUR], "chosen": "b", "rejected": "c"},
            "the conversation in column 'prompt' has no user turn",
        ),
        (
            {"prompt": [USER], "chosen": [USER], "rejected": [FIVE]},
            "column 'chosen' holds a turn of role user where the assistant's reply",
        ),
        (
            {"prompt": [USER], "chosen": [FOUR, FIVE], "rejected": [FIVE]},
            "column 'chosen', turn 2: a second assistant turn in succession",
        ),
        (
            {"prompt": "a", "chosen": {"x": 1}, "rejected": "c"},
            "column 'chosen', turn 1: no known role (it has x",
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "chosen_ids": [1]},
            "are present; give all of them or none",
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "prompt_ids": ["x"]},
            "'prompt_ids' should hold a list of token ids",
        ),
    ],
)
def test_a_pair_that_is_none_is_refused_with_its_line(row: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read_pairs(table(row))


def test_a_file_without_a_rejected_column_is_refused() -> None:
    with pytest.raises(UserError, match=r"pairs\.jsonl has no column 'rejected'"):
        read_pairs(table({"prompt": "a", "chosen": "b"}))
    with pytest.raises(UserError, match="has no column for the response"):
        read_rollouts(table({"prompt": "a"}))


def test_ids_are_taken_as_they_are_and_never_encoded_again() -> None:
    """`1` and `2` as two tokens, though the text might be one; and no end is added."""
    row = {
        "prompt": "x",
        "chosen": "12",
        "rejected": "3",
        "prompt_ids": [7],
        "chosen_ids": [11, 12],
        "rejected_ids": [13],
    }
    rows, dropped = encode(read_pairs(table(row)), encoder(), 256)
    assert [(r.prompt_ids, r.response_ids) for r in rows[0]] == [((7,), (11, 12)), ((7,), (13,))]
    assert dropped == 0


def test_ids_of_another_tokenizer_are_refused() -> None:
    row = OfflineSample(
        problem=Problem(id="p", prompt="x"),
        responses=(WrittenResponse(text="a", ids=(1,)),),
        prompt_ids=(2,),
        tokenizer="other",
    )
    with pytest.raises(UserError, match="problem p has token ids of another tokenizer"):
        encode([row], encoder(), 256)
    encode([replace(row, tokenizer=fingerprint(tokenizer()))], encoder(), 256)


def test_a_pair_of_which_one_side_is_too_long_is_dropped_whole() -> None:
    chosen = WrittenResponse(text="", ids=(1,))
    rows = [
        OfflineSample(
            problem=Problem(id=name, prompt=""),
            responses=(chosen, WrittenResponse(text="", ids=ids)),
            prompt_ids=(5,),
        )
        for name, ids in (("short", (1, 2)), ("long", (1, 2, 3)))
    ]
    found, dropped = encode(rows, encoder(), 3)
    assert ([row[0].problem.id for row in found], dropped) == (["short"], 1)
    with pytest.raises(UserError, match="none of 2 samples fits"):
        encode(rows, encoder(), 2)


def test_through_the_loop_pairs_lie_side_by_side_with_their_columns() -> None:
    rows = [{"id": str(i), "prompt": "a", "chosen": "bb", "rejected": "ccc"} for i in range(3)]
    encoded, _ = encode(read_pairs(table(*rows)), encoder(), 256)
    scored = [
        (a, replace(b, evidence={"ce_logscore": (-1.0,) * len(b.response_ids)})) for a, b in encoded
    ]
    sampler = OfflineSampler({row[0].problem.id: row for row in scored})
    prompts = [Prompt(problem=row[0].problem, ids=row[0].prompt_ids) for row in scored]
    asked = Order(prompts, 3, 0, tokenizer()).at(0)
    rollouts = sampler.sample(asked, Sampling(), num=2, first_id=12)
    assert [r.id for r in rollouts] == [12, 13, 14, 15, 16, 17]
    assert [r.group for r in rollouts] == [12, 12, 14, 14, 16, 16]
    assert [r.text for r in rollouts] == ["bb", "ccc"] * 3
    batch = collate(rollouts, advantage=NoAdvantage(), paired=True)
    assert batch.pair_B is not None
    assert batch.pair_B.tolist() == [0, 1, 2, 3, 4, 5]
    assert batch.ce_logscore_BT[1][batch.is_response_BT[1]].tolist() == [-1.0] * len(
        rollouts[1].response_ids
    )
    assert batch.ce_logscore_BT[0][batch.is_response_BT[0]].isnan().all()
    assert (batch.ce_logscore_BT[:, 0] == 0).all()
    sampler.load(Weights(version=3, tensors=lambda: iter(())))
    assert sampler.version == 3


# ---- images


def test_an_image_is_a_path_from_a_folder_or_bytes_in_every_form_of_data_sets(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.png").write_bytes(b"png")
    path = Image(path=str(tmp_path / "a.png"))
    forms: list[tuple[dict[str, object], Image | None]] = [
        ({"image": "a.png"}, path),
        ({"images": ["a.png"]}, path),
        ({"image": {"bytes": None, "path": "a.png"}}, path),
        ({"image": {"bytes": b"png", "path": "elsewhere.png"}}, Image(content=b"png")),
        ({"images": [b"png"]}, Image(content=b"png")),
        ({"image": None}, None),
        ({}, None),
    ]
    rows = [{"prompt": "What?", "response": "A dog.", **form} for form, _ in forms]
    assert [row.problem.image for row in read_rollouts(table(*rows), tmp_path)] == [
        expected for _, expected in forms
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "gone.png"}, r"line 1: there is no image .*gone\.png; set `images`"),
        ({"image": "x" * 5000}, "line 1: there is no image .*xxx; set `images`"),
        ({"images": [b"a", b"b"]}, "line 1: column 'images' has 2 images; expected one per prompt"),
        ({"image": 3}, "line 1: the image is int; expected the path of a file, or its bytes"),
        (
            {"image": b"png", "prompt_ids": [1], "response_ids": [2]},
            "line 1: a row with an image cannot have token ids",
        ),
    ],
)
def test_what_is_no_image_is_refused(row: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_rollouts(table({"prompt": "What?", "response": "A dog.", **row}))


def test_llavas_conversations_end_in_what_is_learned() -> None:
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A dog."}]
    more = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "Yours."}]
    short, long = read_rollouts(table({"conversations": turns}, {"conversations": turns + more}))
    said = (Message(role="user", content="What?"), Message(role="assistant", content="A dog."))
    assert (short.problem.prompt, short.responses[0].text) == (said[:1], "A dog.")
    assert long.problem.prompt == (*said, Message(role="user", content="Which?"))
    assert long.responses[0].text == "Yours."
    with pytest.raises(UserError, match="line 1: column 'conversations', turn 1: no known role"):
        read_rollouts(
            table({"conversations": [{"from": "dog", "value": "?"}, {"from": "gpt", "value": "!"}]})
        )


# ---- responses of several turns


def test_a_side_of_several_turns_is_one_sequence_or_refused() -> None:
    """Turns of a tool stand between the assistant's; only those of the assistant are compared."""
    result = Message(role="tool", content="2")
    first = Message(role="assistant", content="<think>a</think>1+1")
    row = {"prompt": [USER], "chosen": [first, result, FOUR], "rejected": [FIVE]}
    (((chosen, rejected),), _) = encode(read_pairs(table(row)), encoder(), 256)
    assert chosen.prompt_ids == rejected.prompt_ids
    assert set(chosen.kinds) == {TokenKind.RESPONSE, TokenKind.TOOL}
    assert rejected.kinds == ()
    # A user's turn makes the template leave the thought before it out.
    asked = {"prompt": [USER], "chosen": [first, USER, FOUR], "rejected": [FIVE]}
    with pytest.raises(
        UserError, match=r"pairs.jsonl, line 1: problem 0: the chat template changes earlier turns"
    ):
        encode(read_pairs(table(asked)), encoder(), 256)
    rows, _ = encode(
        read_rollouts(table({"prompt": [USER], "response": [first, USER, FOUR]})), encoder(), 256
    )
    assert [rollout.problem.id for (rollout,) in rows] == ["0", "0#turn4"]


@pytest.mark.parametrize("row", [{"response": "4"}, {"chosen": "4", "rejected": "5"}])
def test_a_tokenizer_without_end_of_text_gets_one_sentence(row: dict[str, object]) -> None:
    endless = copy.deepcopy(tokenizer())
    endless.eos_token = None
    endless.chat_template = None
    samples = (read_pairs if "chosen" in row else read_rollouts)(table({"prompt": "2+2?", **row}))
    with pytest.raises(UserError, match="the tokenizer has no end-of-text token"):
        encode(samples, Encoder(endless, PromptSettings(), 256), 256)


def test_fields_of_turns_reach_the_template_from_a_file() -> None:
    turns = [USER, {**FOUR, "mood": "sad", "state": None}]
    with pytest.raises(UserError, match=r"line 1: problem 0, turn 2: .* `mood` of the assistant's"):
        encode(read_rollouts(table({"messages": turns})), encoder(), 256)


def test_weights_of_sampled_ids_are_one_per_id() -> None:
    row = {"prompt": "x", "response": "12", "prompt_ids": [7], "response_ids": [11, 12]}
    (((rollout,),), _) = encode(
        read_rollouts(table({**row, "loss_weight": [0.5, 0]})), encoder(), 256
    )
    assert rollout.loss_weight == (0.5, 0.0)
    assert rollout.kinds == (TokenKind.RESPONSE, TokenKind.MASKED)
    assert trained_weights(rollout) == [0.5, 0.0]
    with pytest.raises(UserError, match="`loss_weight` has 1 numbers, and 2 tokens are trained"):
        encode(read_rollouts(table({**row, "loss_weight": [0.5]})), encoder(), 256)


def test_a_row_with_another_number_of_weights_is_dropped_where_bad_rows_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = Encoder(tokenizer(), PromptSettings(), 256, bad_rows="drop")
    weights = ([1, 0.5], [1, 0.5, 1], [0.25, 1])
    ids = {"prompt_ids": [7], "response_ids": [11, 12]}
    for extra in ({}, ids):
        rows = [{"prompt": "x", "response": "2", "loss_weight": each, **extra} for each in weights]
        encoded, _ = encode(read_rollouts(table(*rows)), own, 256)
        assert [rollout.loss_weight for (rollout,) in encoded] == [(1.0, 0.5), (0.25, 1.0)]
        assert [rollout.problem.id for (rollout,) in encoded] == ["0", "2"]
        with pytest.raises(UserError, match=r"line 2: .*`loss_weight` has 3 numbers, and 2 tokens"):
            encode(read_rollouts(table(*rows)), encoder(), 256)
        with pytest.raises(UserError, match=r"none of 1 rows can be used; the first: .* 3 numbers"):
            encode(read_rollouts(table(rows[1])), own, 256)
    assert caplog.text.count("1 of 3 rows cannot be used and were dropped") == 2


def test_a_reply_of_several_turns_does_not_go_with_a_template_for_one_question() -> None:
    settings = PromptSettings(template="Q: {problem}")
    row = {"prompt": "2+2?", "completion": [FOUR, USER, FOUR]}
    with pytest.raises(UserError, match=r"line 1: .* several turns, and `prompt.template`"):
        encode(read_rollouts(table(row)), Encoder(tokenizer(), settings, 256), 256)
    row = {"prompt": "2+2?", "completion": [FOUR]}
    (((rollout,),), _) = encode(read_rollouts(table(row)), Encoder(tokenizer(), settings, 256), 256)
    assert "Q: 2+2?" in tokenizer().decode(list(rollout.prompt_ids))
