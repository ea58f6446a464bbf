"""The end of a response's own turn."""

from __future__ import annotations

import pytest

from reasontrain.tasks.grading.extract import extract


@pytest.mark.parametrize(
    "end",
    [
        *("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>", "<end_of_turn>", "<|end|>", "<eos>"),
        *("<|return|>", "<｜end▁of▁sentence｜>", "<|end_of_text|>", "<turn|>", "</answer>"),
        *("\n<|im_start|>user\n", "<start_of_turn>user\n", "[INST] ", "<|user|>\n", "<｜User｜>"),
        *(
            "<|start_header_id|>user<|end_header_id|>\n\n",
            "\nUser: ",
            "\n\nHuman: ",
            "\n**User:** ",
        ),
        *("\n### Instruction: ", "\n\nQuestion: ", "\nQ: ", "\n**Problem 2:** "),
    ],
)
@pytest.mark.parametrize("answer", ["The answer is 5.", "\\boxed{5}", "#### 5", "5"])
def test_what_follows_the_turn_is_no_answer(end: str, answer: str) -> None:
    following = "what is 6+1? The answer is 7. #### 7 \\boxed{7}"
    for truncated in (False, True):
        assert extract(f"{answer}{end}{following}", truncated=truncated) == "5"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>\nUser: wants 5\n</think>The answer is 6.", "6"),
        ("<think>It ends in <|im_end|> or </s>.</think>The answer is 6.", "6"),
        ("it ends in </s>, as \nUser: asked</think>The answer is 6.", "6"),
        ("The answer is 6.<|im_end|>\n<|im_start|>user\n7?<think>a</think>The answer is 7.", "6"),
        ("<|im_start|>assistant\nThe answer is 6.<|im_end|>", "6"),
        ("Question: how many?\nAnswer: 6", "6"),
        ("I restate it.\nQuestion: how many?\nAnswer: 6", "6"),
        ("The user: a person. The answer is 6.", "6"),
        ("<think>a<|im_end|>", None),
    ],
)
def test_thoughts_and_restated_problems_do_not_end_the_turn(text: str, answer: str | None) -> None:
    assert extract(text) == answer
