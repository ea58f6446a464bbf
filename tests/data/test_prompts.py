"""Problems become ids once, through the chat template; what does not fit is refused or counted."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from reasontrain.data.prompts import NUM_CHECKED, Encoder, LazyPrompts, PromptSettings
from reasontrain.data.replies import encode_demonstrations
from reasontrain.tasks.problems import GeneratedProblems
from reasontrain.types import Message, Problem, RunError, UserError
from tests.tiny import tokenizer

SHORT = Problem(id="a", prompt="What is 1+1?", answer="2", solution="1+1=2")
LONG = Problem(id="b", prompt="What is 1" + "+1" * 50 + "?", answer="51")


REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not "
    "supported') }}{% endif %}"
    "{% if messages|length > 1 %}{{ raise_exception('Roles must alternate') }}{% endif "
    "%}{{ messages[0]['content'] }}"
)


def encoder(context: int = 256, **settings: object) -> Encoder:
    return Encoder(tokenizer(), PromptSettings(**settings), context)


def shown(ids: tuple[int, ...]) -> str:
    return tokenizer().decode(list(ids))


def test_a_plain_prompt_becomes_a_user_turn() -> None:
    assert (
        shown(encoder().prompt_ids(SHORT))
        == "<|im_start|>user\nWhat is 1+1?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_system_prompt_thinking_and_conversations() -> None:
    turns = (
        Message(role="user", content="1?"),
        Message(role="assistant", content="One."),
        Message(role="user", content="2?"),
    )
    found = shown(
        encoder(system="Be brief.", enable_thinking=False).prompt_ids(Problem(id="c", prompt=turns))
    )
    assert found == (
        "<|im_start|>system\nBe "
        "brief.<|im_end|>\n<|im_start|>user\n1?<|im_end|>\n<|im_start|>assistant\nOne.<|im_end|>\n"
        "<|im_start|>user\n2?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_a_plain_style_feeds_the_text_as_it_is() -> None:
    assert shown(encoder(style="plain").prompt_ids(SHORT)) == "What is 1+1?"
    with pytest.raises(UserError, match="problem c is a conversation"):
        encoder(style="plain").prompt_ids(
            Problem(id="c", prompt=(Message(role="user", content="1?"),))
        )
    with pytest.raises(UserError, match=r"prompt.system needs a chat template"):
        encoder(style="plain", system="Be brief.")


def test_plain_prompts_cannot_think() -> None:
    with pytest.raises(UserError, match=r"prompt.enable_thinking needs a chat template"):
        encoder(style="plain", enable_thinking=False)


def test_there_is_one_system_turn() -> None:
    turns = (Message(role="system", content="Be kind."), Message(role="user", content="1?"))
    asked = Problem(id="c", prompt=turns)
    assert shown(encoder().prompt_ids(asked)).startswith("<|im_start|>system\nBe kind.<|im_end|>")
    with pytest.raises(
        UserError, match=r"problem c begins with a system turn, and `prompt.system` is a second one"
    ):
        encoder(system="Be brief.").prompt_ids(asked)


def test_what_a_template_refuses_is_said() -> None:
    gemma = copy.deepcopy(tokenizer())
    gemma.chat_template = REFUSES_SYSTEM
    user = Message(role="user", content="1?")
    with pytest.raises(
        UserError, match=r"problem a: .*'System role not supported'; leave out `prompt.system`"
    ):
        Encoder(gemma, PromptSettings(system="Be brief."), 256).prompt_ids(SHORT)
    with pytest.raises(
        UserError,
        match=r"problem c: .*'System role not supported'; remove the system turn from the data",
    ):
        Encoder(gemma, PromptSettings(), 256).prompt_ids(
            Problem(id="c", prompt=(Message(role="system", content="x"), user))
        )
    with pytest.raises(
        UserError, match=r"problem c: .*'Roles must alternate'; correct the order of the turns"
    ):
        Encoder(gemma, PromptSettings(), 256).prompt_ids(Problem(id="c", prompt=(user, user)))


def test_a_demonstration_needs_a_token_to_end_with() -> None:
    endless = copy.deepcopy(tokenizer())
    endless.eos_token = None
    (written,), _ = encode_demonstrations(Encoder(endless, PromptSettings(), 256), [SHORT])
    assert shown(written.response_ids) == "1+1=2<|im_end|>"  # the template's own
    with pytest.raises(UserError, match="the tokenizer has no end-of-text token"):
        encode_demonstrations(Encoder(endless, PromptSettings(style="plain"), 256), [SHORT])


def test_what_is_too_long_is_refused_or_dropped_and_counted() -> None:
    with pytest.raises(
        UserError,
        match=r"1 of 2 prompts have more than 30 tokens \(the longest is problem b with 1\d\d\)",
    ):
        encoder(max_tokens=30).prompts([SHORT, LONG])
    kept, dropped = encoder(max_tokens=30, too_long="drop").prompts([LONG, SHORT])
    assert ([p.problem.id for p in kept], dropped) == (["a"], 1)
    with pytest.raises(UserError, match="none of 1 prompts fits into 30 tokens"):
        encoder(max_tokens=30, too_long="drop").prompts([LONG])


def test_a_lazy_prompt_is_made_when_it_is_read_and_refused_then_where_it_is_too_long() -> None:
    made: list[int] = []

    def generate(index: int) -> Problem:
        made.append(index)
        return replace(LONG if index in (70, 90) else SHORT, id=str(index))

    problems = GeneratedProblems(generate, 100)
    prompts = LazyPrompts(encoder(max_tokens=30), problems)
    # The tests' type checks read items of sequences, one at random per call.
    assert len(set(made)) < 16
    assert len(prompts) == 100
    assert prompts[80] == encoder().prompt(replace(SHORT, id="80"))
    assert [prompt.problem.id for prompt in prompts[97:]] == ["97", "98", "99"]
    with pytest.raises(
        RunError, match=r"the prompt of problem 70 has 1\d\d tokens, more than 30; begin a new run"
    ):
        prompts[70]
    with pytest.raises(IndexError):
        prompts[100]


def test_prompts_are_lazy_only_if_the_limit_is_far_from_all_that_were_checked() -> None:
    def problems(made: list[int]) -> GeneratedProblems:
        def generate(index: int) -> Problem:
            made.append(index)
            return replace(LONG if index == 90 else SHORT, id=str(index))

        return GeneratedProblems(generate, 100)

    length = len(encoder().prompt_ids(SHORT))
    lazy: list[int] = []
    assert isinstance(encoder(max_tokens=2 * length).lazy_prompts(problems(lazy)), LazyPrompts)
    assert set(range(NUM_CHECKED)) <= set(lazy)
    assert len(set(lazy)) < 80
    with pytest.raises(UserError, match="1 of 100 prompts have more than"):
        encoder(max_tokens=2 * length - 1).lazy_prompts(problems([]))
    with pytest.raises(UserError, match="64 of 64 prompts have more than 10 tokens"):
        encoder(max_tokens=10).lazy_prompts(problems([]))


def test_a_prompt_that_fills_the_context_leaves_no_room_for_a_response() -> None:
    length = len(encoder().prompt_ids(SHORT))
    assert encoder(context=length + 1).prompts([SHORT])[1] == 0
    with pytest.raises(UserError, match=f"more than {length - 1} tokens"):
        encoder(context=length).prompts([SHORT])


def test_demonstrations_end_their_turn_and_must_fit() -> None:
    (written,), dropped = encode_demonstrations(encoder(), [SHORT])
    assert shown(written.response_ids) == "1+1=2<|im_end|>"
    assert (written.prompt_ids, dropped) == (encoder().prompt_ids(SHORT), 0)
    with pytest.raises(
        UserError, match="none of 1 demonstrations fits into a context of 20 tokens"
    ):
        encode_demonstrations(encoder(context=20), [SHORT])
    with pytest.raises(UserError, match="problem b has no `solution` or reply to learn from"):
        encode_demonstrations(encoder(), [LONG])


def test_a_header_is_what_stands_before_any_answer() -> None:
    assert shown(encoder().header_ids()) == "<|im_start|>assistant\n"
    assert (
        shown(encoder(enable_thinking=False).header_ids())
        == "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert shown(encoder(system="Be brief.").header_ids()) == "<|im_start|>assistant\n"
    assert shown(encoder(style="plain").header_ids()) == "Answer:"
    assert shown(encoder().header_ids("It follows:")) == "It follows:"


def test_a_header_begins_with_the_token_that_prompts_begin_with() -> None:
    words = copy.deepcopy(tokenizer())
    words.add_special_tokens({"bos_token": "<|endoftext|>"})
    words.chat_template = (
        "{{ bos_token }}{{ messages[0]['content'] }}{% if add_generation_prompt %} Answer:{% "
        "endif %}"
    )
    assert (
        words.decode(list(Encoder(words, PromptSettings(), 256).header_ids()))
        == "<|endoftext|> Answer:"
    )


def test_a_template_without_a_header_asks_for_one() -> None:
    words = copy.deepcopy(tokenizer())
    words.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(
        UserError, match=r"writes no header before an answer .* `unconditional.header`"
    ):
        Encoder(words, PromptSettings(), 256).header_ids()
