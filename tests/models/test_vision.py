"""Image models: as many placeholders as an image has tokens, and the hidden states of
transformers' own forward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoProcessor, AutoTokenizer

from reasontrain import models
from reasontrain.data.images import decode_image, draw_shapes
from reasontrain.data.prompts import Encoder, PromptSettings, without_image
from reasontrain.models import ModelSettings, Policy
from reasontrain.models.testbed_vision import BUILDERS
from reasontrain.types import Image, Message, Problem, UserError

ONE = Problem(
    id="one", prompt="What is it?", image=draw_shapes([("red", "circle"), ("blue", "square")])
)
TWO = replace(ONE, id="two", image=draw_shapes([("green", "triangle"), ("black", "circle")]))
BLIND = replace(ONE, id="blind", image=None)
Made = Callable[[str], tuple[Policy, Encoder]]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    where = tmp_path_factory.mktemp("vision")
    for name, build in BUILDERS.items():
        build(where / name)
    return {name: where / name for name in BUILDERS}


@pytest.fixture(scope="module")
def made(paths: dict[str, Path]) -> Made:
    """A policy and its encoder."""
    found = {}
    for name, path in paths.items():
        policy = models.load(ModelSettings(path=str(path)))
        assert policy.vision is not None
        found[name] = (
            policy,
            Encoder(policy.tokenizer, PromptSettings(), policy.context, policy.vision),
        )
    return found.__getitem__


each = pytest.mark.parametrize("name", BUILDERS)


def test_a_qwen_image_is_one_token_per_four_patches_between_its_marks(made: Made) -> None:
    policy, encoder = made("qwen2.5-vl")
    text = policy.tokenizer.decode(list(encoder.prompt_ids(ONE)))
    # 56 x 56 pixels: 4 x 4 patches of 14, merged two by two
    seen = "<|vision_start|>" + "<|image_pad|>" * 4 + "<|vision_end|>"
    assert text == f"<|im_start|>user\n{seen}What is it?<|im_end|>\n<|im_start|>assistant\n"


def test_llavas_ids_and_pixels_are_those_of_its_own_processor(
    made: Made, paths: dict[str, Path]
) -> None:
    policy, encoder = made("llava")
    tokenizer = AutoTokenizer.from_pretrained(paths["llava"])
    whole = AutoProcessor.from_pretrained(paths["llava"])
    turns = [{"role": "user", "content": "<image>What is it?"}]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    expected = whole(
        images=decode_image(ONE.image, "one"),
        text=text,
        return_tensors="pt",
        add_special_tokens=False,
    )
    assert list(encoder.prompt_ids(ONE)) == expected["input_ids"][0].tolist()
    assert torch.equal(
        policy.vision.inputs(torch.tensor([[0]]), [ONE.image])["pixel_values"],
        expected["pixel_values"],
    )


@each
def test_hidden_states_are_those_of_the_models_own_forward_padded_or_alone(
    made: Made, name: str
) -> None:
    policy, encoder = made(name)
    rows = [[*encoder.prompt_ids(ONE), 7, 8, 9], [*encoder.prompt_ids(TWO), 10]]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    position = torch.arange(width)[None].expand(2, width)
    found = policy.hidden(ids, position=position, images=[ONE.image, TWO.image])
    for index, (row, problem) in enumerate(zip(rows, (ONE, TWO), strict=True)):
        alone = torch.tensor([row])
        given = policy.vision.inputs(alone, [problem.image])
        with torch.no_grad():
            expected = policy.model(
                input_ids=alone, use_cache=False, output_hidden_states=True, **given
            )
            logits = policy.head.logits(found[index, : len(row)])
        assert_close(logits, expected.logits[0], rtol=1e-4, atol=1e-4)
    other = policy.hidden(ids, position=position, images=[TWO.image, TWO.image])
    assert not torch.allclose(found[0], other[0], atol=1e-4)
    assert_close(found[1], other[1])


@each
def test_a_row_without_an_image_is_read_as_text_beside_one_with(made: Made, name: str) -> None:
    policy, encoder = made(name)
    with_image, without = list(encoder.prompt_ids(ONE)), list(encoder.text_ids(BLIND))
    assert policy.vision.image_id not in without
    ids = torch.tensor([with_image, without + [0] * (len(with_image) - len(without))])
    mixed = policy.hidden(ids, images=[ONE.image, None])
    alone = policy.hidden(torch.tensor([without]), position=torch.arange(len(without))[None])
    assert_close(mixed[1, : len(without)], alone[0], rtol=1e-4, atol=1e-5)


def test_a_conversations_image_stands_in_its_first_user_turn(made: Made) -> None:
    policy, encoder = made("llava")
    turns = (
        Message(role="system", content="Look."),
        Message(role="user", content="What?"),
        Message(role="user", content="And?"),
    )
    text = policy.tokenizer.decode(list(encoder.prompt_ids(replace(ONE, prompt=turns))))
    assert text.count("<image>") == 16
    assert "user\n<image>" in text
    assert text.index("<image>What?") < text.index("And?")


@each
def test_an_image_stands_where_the_text_says_so(made: Made, name: str) -> None:
    policy, encoder = made(name)
    before, after = policy.vision.placeholder, "\nWhat is it?"
    text = policy.tokenizer.decode(
        list(encoder.prompt_ids(replace(ONE, prompt="See <image>\nWhat is it?")))
    )
    alone = policy.tokenizer.decode(list(encoder.prompt_ids(ONE)))
    shown = alone.partition("user\n")[2].partition("What")[0]
    assert shown.startswith(before[:3])
    assert f"user\nSee {shown}{after}" in text
    told = without_image(replace(ONE, prompt="<image>\nWhat is it?"))
    assert (told.image, told.prompt) == (None, "What is it?")
    turns = (
        Message(role="user", content="What is it?\n<image>"),
        Message(role="assistant", content="A dog."),
    )
    assert [turn["content"] for turn in without_image(replace(ONE, prompt=turns)).prompt] == [
        "What is it?",
        "A dog.",
    ]


# ---- what is refused


def test_an_image_model_without_an_image_and_an_image_without_an_image_model_are_refused(
    made: Made,
) -> None:
    policy, encoder = made("qwen2.5-vl")
    with pytest.raises(
        UserError, match="problem blind has no image, and the model is an image model"
    ):
        encoder.prompts([ONE, BLIND])
    with pytest.raises(UserError, match="problem one has an image, and the model reads text only"):
        Encoder(policy.tokenizer, PromptSettings(), 512).prompts([ONE])


def test_bytes_that_are_no_image_and_a_prompt_with_a_place_of_its_own_are_refused(
    made: Made,
) -> None:
    _, encoder = made("llava")
    with pytest.raises(
        UserError, match="the image of problem one is in no format that Pillow knows"
    ):
        encoder.prompts([replace(ONE, image=Image(content=b"no image"))])
    with pytest.raises(
        UserError, match="problem one has one image, and its prompt has 2 places for it"
    ):
        encoder.prompts([replace(ONE, prompt="Is <image> or <image> it?")])
