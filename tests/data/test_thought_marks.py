"""Thoughts of every model family: where they begin, where they end, and what is no answer."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerBase

from reasontrain.data import thought_marks
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.data.thought_marks import KNOWN
from reasontrain.sampler.sequence import SequenceState
from reasontrain.tasks import Grader, Gsm8k, Response, Reward, Verdict
from reasontrain.tasks.grading.extract import extract
from reasontrain.types import NO_THOUGHT, Problem, Rollout, ThoughtState
from tests.thoughts import PAIRS
from tests.tiny import tokenizer


@pytest.mark.parametrize("opening", PAIRS)
def test_nothing_inside_a_thought_is_an_answer(opening: str) -> None:
    closing = PAIRS[opening]
    thought = "Maybe \\boxed{4}. The answer is 4.\n#### 4\n"
    for text in (f"{opening}{thought}", f"{opening}{thought}{opening} so 4", f"{opening}So"):
        assert extract(text, answer_format="any") is None
        assert extract(text, truncated=True) is None
    assert extract(f"{opening}{thought}{closing}", answer_format="any") == ""
    assert extract(f"{opening}{thought}{closing}I cannot say what it is.") == ""
    assert extract(f"{opening}{thought}{closing}The answer is 5.") == "5"
    # a mark that is quoted within a thought of the same kind opens nothing
    assert extract(f"{opening}I open {opening} and \\boxed{{4}}{closing}\\boxed{{6}}") == "6"
    # the last end counts
    assert extract(f"{opening}a{closing}\\boxed{{4}}{closing}\\boxed{{6}}") == "6"


@pytest.mark.parametrize("opening", [opening for opening in PAIRS if opening != "analysis"])
def test_a_thought_that_the_prompt_opens_ends_in_the_response(opening: str) -> None:
    state = KNOWN.state(f"<|assistant|>\n{opening}\n", chat=True, thinking=None)
    assert state.open_kind is not None
    assert KNOWN.read(r"so \boxed{4}", state=state).unfinished
    assert KNOWN.read(f"{opening} so", state=state).unfinished
    text = rf"so \boxed{{4}}{PAIRS[opening]}"
    for response in (text, f"{opening}{text}"):  # R1's opens it a second time
        reading = KNOWN.read(f"{response} 5", state=state)
        assert (reading.unfinished, f"{response} 5"[reading.start :]) == (False, " 5")
    # without the prompt, the end alone shows the thought
    assert extract(text) == ""
    closed = KNOWN.state(f"{opening}\n\n{PAIRS[opening]}\n\n", chat=True, thinking=True)
    assert closed == NO_THOUGHT


def test_another_kind_of_mark_does_not_end_a_thought() -> None:
    state = ThoughtState(open_kind="think")
    assert KNOWN.read("<reasoning>a</reasoning> b", state=state).unfinished
    assert extract(r"<think><reflection>a</reflection>\boxed{4}") is None
    assert extract(r"<think><reflection>a</think>\boxed{5}") == "5"


@pytest.mark.parametrize(
    ("prompt", "is_open"),
    [
        ("Think in <think> tags.\n", False),
        ("Write <think>...</think>, then the answer.", False),
        ("Assistant: Let me solve this.\n<think>", True),
        ("Assistant: <thinking>\n", True),
    ],
)
def test_a_plain_prompt_opens_a_thought_only_at_its_end(prompt: str, is_open: bool) -> None:
    state = KNOWN.state(prompt, chat=False, thinking=None)
    assert (state.open_kind is not None) == is_open


def test_a_model_told_to_think_has_no_answer_before_its_mark() -> None:
    state = KNOWN.state("<|im_start|>assistant\n", chat=True, thinking=True)
    assert state == ThoughtState(expected=True)
    assert KNOWN.read("The answer is 4.\nBut", truncated=True, state=state).unfinished
    assert not KNOWN.read("The answer is 4.", state=state).unfinished
    for thinking in (False, None):
        assert KNOWN.state("<|im_start|>assistant\n", chat=True, thinking=thinking) == NO_THOUGHT


def test_prose_and_long_texts() -> None:
    assert extract("I think [think] <3 is fine. The answer is 5.") == "5"
    assert extract("Our analysis shows it. The answer is 5.") == "5"
    assert extract(r"\boxed{5} is what the assistantfinal says") == "5"
    # the mark stands far before the part of a text that is searched for answers
    assert extract("<think>" + "a " * 100_000 + r"\boxed{4}") is None


TURN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
HEADER = "{% if add_generation_prompt %}<|im_start|>assistant\n"
TEMPLATES = {
    "Qwen3": (
        TURN + HEADER + "{% if enable_thinking is defined and not enable_thinking %}"
        "<think>\n\n</think>\n\n{% endif %}{% endif %}",
        (),
    ),
    "DeepSeek-R1": (TURN + HEADER + "<think>\n{% endif %}", ()),
    "Magistral": (TURN + HEADER + "{% endif %}", ("[THINK]", "[/THINK]")),
    "gpt-oss": (
        TURN + "{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        ("<|start|>", "<|end|>", "<|channel|>", "<|message|>"),
    ),
    "Pangu": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.reasoning_content %}[unused16]{{ m.reasoning_content }}[unused17]{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}" + HEADER + "{% endif %}",
        ("[unused16]", "[unused17]"),
    ),
    "Pangu, opened": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.thinking %}[unused16]\n{{ m.thinking }}\n[unused17]\n{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}" + HEADER + "[unused16]\n{% endif %}",
        ("[unused16]", "[unused17]"),
    ),
}
"""Chat template and special tokens, rebuilt from the public ones."""
THOUGHTS = {
    "Qwen3": ("<think>\n", "\n</think>\n\n"),
    "DeepSeek-R1": ("", "\n</think>\n\n"),
    "Magistral": ("[THINK]", "[/THINK]"),
    "gpt-oss": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    "Pangu": ("[unused16]", "[unused17]"),
    "Pangu, opened": ("", "[unused17]"),
}
PROBLEM = Problem(id="a", prompt="What is <think> 2+3?", answer="5")


def tokenizer_of(model: str) -> PreTrainedTokenizerBase:
    template, special = TEMPLATES[model]
    made = copy.deepcopy(tokenizer())
    made.chat_template = template
    made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


def sampled(
    model: str, response: str, *, truncated: bool = False, thinking: bool | None = None
) -> Rollout:
    """The rollout of a response to `PROBLEM`."""
    own = tokenizer_of(model)
    prompt = Encoder(own, PromptSettings(enable_thinking=thinking), 4096).prompt(PROBLEM)
    ids = own(response, add_special_tokens=False)["input_ids"]
    return SequenceState(prompt, 0, 0, 0, ids, [0.0] * len(ids), stopped=not truncated).rollout(own)


@pytest.mark.parametrize("model", TEMPLATES)
def test_rollouts_of_every_family(model: str) -> None:
    opening, closing = THOUGHTS[model]
    thought = f"{opening}2+3 may be \\boxed{{5}}. The answer is 5.\n"
    responses = {
        "cut": sampled(model, thought, truncated=True),
        "ended inside": sampled(model, thought),
        "silent": sampled(model, f"{thought}{closing}"),
        "wrong": sampled(model, rf"{thought}{closing}It is \boxed{{6}}"),
        "right": sampled(model, rf"{opening}6? \boxed{{6}}{closing}The answer is \boxed{{5}}."),
        "cut after": sampled(model, rf"{thought}{closing}\boxed{{5", truncated=True),
    }
    with Grader(num_workers=1) as grader:
        graded = Gsm8k(path="x").grade(
            [
                Response(
                    problem=PROBLEM,
                    text=rollout.text,
                    truncated=rollout.truncated,
                    unfinished=rollout.unfinished,
                    answer_start=rollout.answer_start,
                )
                for rollout in responses.values()
            ],
            grader,
            Reward(right=2.0, boxed=1.0),
            answer_format="any",
        )
    assert {
        name: (rollout.unfinished, scored.reward, scored.verdict.reason)
        for (name, rollout), scored in zip(responses.items(), graded, strict=True)
    } == {
        "cut": (True, 0.0, "unfinished"),
        "ended inside": (True, 0.0, "unfinished"),
        "silent": (False, 0.0, "no answer"),
        "wrong": (False, 1.0, "exact"),
        "right": (False, 2.0, "exact"),
        "cut after": (False, 0.0, "no answer"),
    }


def test_a_template_without_thinking_closes_the_thought_in_the_prompt() -> None:
    assert not sampled("Qwen3", "It is 5.\nSo", truncated=True, thinking=False).unfinished
    assert not sampled("Qwen3", "It is 5.\nSo", truncated=True).unfinished
    assert sampled("Qwen3", "It is 5.\nSo", truncated=True, thinking=True).unfinished


def test_text_without_thoughts_is_decoded_as_before() -> None:
    own = tokenizer_of("gpt-oss")
    ids = own("It is <|end|>5.<|im_end|>", add_special_tokens=False)["input_ids"]
    assert thought_marks.decode(own, ids) == own.decode(ids, skip_special_tokens=True)


def test_a_template_that_prints_lists_of_parts_has_no_marks() -> None:
    own = tokenizer_of("Qwen3")
    own.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert thought_marks.marks_of(own) == KNOWN


def test_a_template_that_fails_on_a_question_is_named_and_has_the_usual_marks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = tokenizer_of("Qwen3")
    own.chat_template = "{{ raise_exception('no turns') }}"
    with caplog.at_level("INFO", logger="reasontrain"):
        assert thought_marks.marks_of(own) == KNOWN
    (message,) = [record.getMessage() for record in caplog.records]
    assert "recognised by the usual marks alone" in message
    assert "'no turns'" in message
    # a template that knows no thought of a turn refuses it, which is no fault
    own.chat_template = TURN + "{% if messages|length > 1 %}{{ raise_exception('one') }}{% endif %}"
    caplog.clear()
    assert thought_marks.marks_of(own) == KNOWN
    assert not caplog.records


TRUNCATED = {
    r"\boxed{12": "",
    r"\boxed 12": "",
    r"It is \boxed{12}, which is": "12",
    r"\boxed{12}. Wait, \boxed{1": "",
    r"$\boxed{1}$, $\boxed{2": "",
    r"\boxed{1} and": "",
    r"\boxed{255}. Final answer: the final answer is $10,4": "",
    r"\boxed{255}. The final answer is $10,455$. I": "10,455",
    "The answer is 12": "",
    "The answer is 12.": "",
    "The answer is 12. So": "12",
    "The answer is 12.5": "",
    "The answer is 12\nSo": "12",
    "The answer is $12$ or": "",
    "The answer is 3. No, wait: the answer is 1": "",
    "答案是12。所以": "12",
    "#### 12": "",
    "#### 12\n": "12",
    "<answer>12": "",
    "<answer>12</answer>": "12",
    "12": "",
    "x^2 + 1": "",
    "Okay, let me think. 3*4 is 12, but maybe I should also add": "",
}
"""Truncated text -> the answer in the formats `marked` and `any`."""


@pytest.mark.parametrize("text", TRUNCATED)
def test_an_answer_before_a_cut_counts_if_it_is_complete(text: str) -> None:
    assert extract(text, truncated=True) == TRUNCATED[text]
    assert extract(text, truncated=True, answer_format="any") == TRUNCATED[text]
    is_boxed = "boxed{" in text and TRUNCATED[text] != ""
    assert (extract(text, truncated=True, answer_format="boxed") != "") == is_boxed


def test_every_prefix_of_a_response_has_the_whole_answer_or_none() -> None:
    for response in (
        r"<think>1? \boxed{1}</think>So 120 is right. The answer is \boxed{120}. I am sure.",
        "3 * 40 is 120.\n#### 120\nDone.",
        "We get 120. The answer is 120. Good.",
    ):
        for length in range(len(response)):
            assert extract(response[:length], truncated=True, answer_format="any") in (
                None,
                "",
                "120",
            )


def test_a_box_in_a_thought_earns_nothing() -> None:
    response = Response(problem=PROBLEM, text=r"<think>\boxed{7}</think> I give up on this one.")
    worth = Reward(right=100.0, boxed=10.0)
    with Grader(num_workers=1) as grader:
        for given in (response, replace(response, text=r"<think>\boxed{7}")):
            (scored,) = Gsm8k(path="x").grade([given], grader, worth)
            assert (scored.reward, scored.verdict.correct) == (0.0, False)
    assert worth(Verdict(False, "7", "exact"), r"\boxed{7}") == 10.0
