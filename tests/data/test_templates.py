"""What is learned of a conversation is what its chat template adds to the prompt of inference."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from types import SimpleNamespace

import pytest
from datasets import Dataset
from tokenizers.processors import TemplateProcessing
from transformers import GenerationConfig
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from reasontrain.bench.peers import KEEP_ACTIVATIONS
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.data.rendering import THOUGHT_FIELDS, render
from reasontrain.data.replies import encode_demonstrations
from reasontrain.models.description import stop_ids_of
from reasontrain.types import Message, Problem, TokenKind, UserError
from tests import tiny
from tests.chat_templates import (
    CALL,
    TEMPLATES,
    THOUGHT,
    TOOL,
    TRL_DIFFERS,
    Template,
    assistant,
    encoder,
    learned,
    one_turn,
    stop_ids,
    two_turns,
    user,
    with_thought,
    with_tools,
)
from tests.thoughts import GPT_OSS, PAIRS

CHAT = [template for template in TEMPLATES.values() if template.text is not None]
ALL = list(TEMPLATES.values())
CHATML_BASE = TEMPLATES["ChatML on a base model"]


def names(templates: Sequence[Template]) -> list[str]:
    return [template.name for template in templates]


# ---- twelve templates

LEARNED = {
    "Qwen3": "<think>\n\n</think>\n\nIt is 4.<|im_end|>",
    "Qwen2.5": "It is 4.<|im_end|>",
    "Llama 3.x": "It is 4.<|eot_id|>",
    "Gemma 2/3": "It is 4.<end_of_turn>",
    "Mistral": " It is 4.</s>",
    "Phi-4": "It is 4.<|im_end|>",
    "DeepSeek-R1-like": "2 and 2.\n</think>\n\nIt is 4.<｜end▁of▁sentence｜>",
    "SmolLM3": "It is 4.<|im_end|>",
    "gpt-oss": "<|channel|>final<|message|>It is 4.<|return|>",
    "GLM": "\n<think></think>\nIt is 4.<|user|>",
    "ChatML on a base model": "It is 4.<|im_end|>",
    "none": "It is 4.<|endoftext|>",
}


@pytest.mark.parametrize("template", ALL, ids=names(ALL))
def test_a_reply_ends_as_the_template_ends_it_and_generation_stops_there(
    template: Template,
) -> None:
    own = encoder(template)
    assert learned(own, one_turn(template)) == [LEARNED[template.name]]
    ((rollout,), _) = encode_demonstrations(own, [one_turn(template)])
    assert rollout.response_ids[-1] in stop_ids(template, own)
    assert not stop_ids(template, own) & set(rollout.response_ids[:-1])


@pytest.mark.parametrize("template", CHAT, ids=names(CHAT))
def test_every_turn_is_learned_after_the_ids_that_inference_sends(template: Template) -> None:
    own = encoder(template)
    for problem, num_turns in ((two_turns(template), 2), (with_tools(), 2), (with_thought(), 1)):
        try:
            rollouts, _ = encode_demonstrations(own, [problem])
        except UserError:
            continue  # the next test says which
        checked = 0
        for rollout in rollouts:
            assert rollout.prompt_ids == own.prompt_ids(rollout.problem)
            ids = (*rollout.prompt_ids, *rollout.response_ids)
            starts = [len(rollout.prompt_ids)] + [
                len(rollout.prompt_ids) + place
                for place in range(1, len(rollout.kinds))
                if rollout.kinds[place] == TokenKind.RESPONSE != rollout.kinds[place - 1]
            ]
            assert not isinstance(rollout.problem.prompt, str)
            turns = (*rollout.problem.prompt, *rollout.problem.reply)
            replies = [
                number
                for number in range(len(rollout.problem.prompt), len(turns))
                if turns[number]["role"] == "assistant"
            ]
            for number, start in zip(replies, starts, strict=True):
                prompt = own.prompt_ids(replace(rollout.problem, prompt=turns[:number]))
                assert ids[:start] == prompt
                checked += 1
        assert checked == num_turns


RENDERS_THOUGHTS = {"Qwen3", "DeepSeek-R1-like", "gpt-oss", "GLM"}
RENDERS_TOOLS = {"Qwen3", "Qwen2.5", "Llama 3.x", "Mistral", "gpt-oss", "GLM"}


@pytest.mark.parametrize("template", CHAT, ids=names(CHAT))
def test_thoughts_and_calls_are_rendered_or_refused_by_row_and_name(template: Template) -> None:
    own = encoder(template)
    cases = (
        (with_thought(), RENDERS_THOUGHTS, THOUGHT, "`reasoning_content`"),
        (with_tools(), RENDERS_TOOLS, "add", "`tool_calls`"),
    )
    for problem, renders, text, name in cases:
        problem = replace(problem, source="data.jsonl, line 7")
        if template.name in renders:
            assert text in learned(own, problem)[0]
        else:
            with pytest.raises(UserError, match=f"data.jsonl, line 7: problem p, turn 2: .*{name}"):
                learned(own, problem)
    no_call = replace(one_turn(template), tools=(TOOL,))
    if template.name in RENDERS_TOOLS | {"SmolLM3"}:
        learned(own, no_call)
    else:
        with pytest.raises(UserError, match=r"problem p: .* does not render `tools`"):
            learned(own, no_call)


@pytest.mark.parametrize("name", THOUGHT_FIELDS)
def test_a_template_gets_a_thought_by_the_name_that_it_reads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever transformers adds to turns, which depends on its version."""
    tokenizer = CHATML_BASE.tokenizer()
    monkeypatch.setattr(tokenizer, "apply_chat_template", lambda turns, **_: str(turns[0]))
    turn = {"role": "assistant", "content": "It is 4.", name: THOUGHT}
    text = render(tokenizer, [turn], where="p", add_generation_prompt=False)
    for read in ("reasoning_content", "thinking"):
        assert f"{read!r}: {THOUGHT!r}" in text


MASKED = [template for template in CHAT if "generation %}" in str(template.text)]


@pytest.mark.parametrize("template", MASKED, ids=names(MASKED))
def test_what_is_learned_is_the_assistant_mask_of_the_template(template: Template) -> None:
    """The last turn; without the white space behind its end, which nobody generates, and with the
    token that ends it where the template leaves that to the next turn (GLM).
    """
    own = encoder(template)
    problem = two_turns(template)
    masked = own.tokenizer.apply_chat_template(
        [*problem.prompt, *problem.reply], return_assistant_tokens_mask=True, return_dict=True
    )
    groups = [
        [token for token, _ in part]
        for bit, part in groupby(
            zip(masked["input_ids"], masked["assistant_masks"], strict=True), lambda item: item[1]
        )
        if bit
    ]
    header = "<|im_start|>assistant\n" if template.name == "SmolLM3" else ""  # masked too
    expected = own.tokenizer.decode(groups[-1]).removeprefix(header).removesuffix("\n")
    expected += "<|user|>" if template.name == "GLM" else ""
    assert learned(own, problem)[-1].split(" … ")[-1] == expected
    rollout = encode_demonstrations(own, [problem])[0][-1]
    ids = (*rollout.prompt_ids, *rollout.response_ids)
    assert ids[: len(ids) - 1] == tuple(masked["input_ids"][: len(ids) - 1])


def learned_by_trl(template: Template) -> str:
    """The text that TRL's trainer learns of the same prompt and reply, through its collator."""
    tokenizer = template.tokenizer()
    problem = one_turn(template)
    row = (
        {"prompt": problem.prompt, "completion": template.reply}
        if isinstance(problem.prompt, str)
        else {"prompt": list(problem.prompt), "completion": list(problem.reply)}
    )
    trainer = SimpleNamespace(_tokenizer=tokenizer, chat_template=None, completion_only_loss=True)
    config = SFTConfig(max_length=None, report_to=[], bf16=False, use_cpu=True, **KEEP_ACTIVATIONS)
    prepared = SFTTrainer._prepare_dataset(
        trainer, Dataset.from_list([row]), tokenizer, config, False, None, "train"
    )
    batch = DataCollatorForLanguageModeling(pad_token_id=0)(list(prepared))
    (labels,) = batch["labels"].tolist()
    return str(tokenizer.decode([label for label in labels if label != -100]))


@pytest.mark.parametrize("template", ALL, ids=names(ALL))
def test_trl_learns_the_same_up_to_the_end_of_the_turn(template: Template) -> None:
    (own,) = learned(encoder(template), one_turn(template))
    if template.name == "DeepSeek-R1-like":  # TRL trains behind another prompt, and warns
        own = own.partition("</think>")[2]
    if template.name == "GLM":
        own = own.removesuffix("<|user|>")
    assert learned_by_trl(template) == own + template.trl_adds
    assert (template.name in TRL_DIFFERS) == (template.name in ("DeepSeek-R1-like", "GLM"))


# ---- parts of a row


def chatml(body: str, header: str = "<|im_start|>assistant\n") -> Template:
    """A template that writes `body` for each turn, on the tokenizer of ChatML."""
    text = (
        f"{{% for m in messages %}}{body}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{header}{{% endif %}}"
    )
    return replace(CHATML_BASE, text=text)


TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"


def problem(*reply: Message, **fields: object) -> Problem:
    return Problem(id="p", prompt=(user("2+2?"),), reply=reply, source="d.jsonl, line 3", **fields)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (problem(assistant("4", name="Bob")), "turn 2: .* `name` of the assistant's turn"),
        (problem(assistant("4", name="Bob", mood="sad")), "turn 2: .* `name`, `mood` of the"),
        (problem(assistant("4", reasoning="x")), "turn 2: .* `reasoning` of the assistant's turn"),
        (problem(assistant("4"), tools=(TOOL,)), "does not render `tools`"),
        (problem(assistant(" \n")), "turn 2: the assistant's turn is empty"),
        (
            problem(assistant([{"type": "text", "text": "4"}])),
            "turn 2: the chat template takes text, and the content is a list",
        ),
        (
            replace(problem(assistant("4")), prompt=({**user("2+2?"), "mood": "sad"},)),
            "turn 1: .* `mood` of the user's turn",
        ),
        (
            replace(problem(assistant("4")), prompt=({"role": "critic", "content": "x"},)),
            "turn 1: the chat template does not render turns of role 'critic'",
        ),
        (
            replace(problem(assistant("4")), prompt=(user([{"type": "text", "text": "2+2?"}]),)),
            "turn 1: the chat template takes text, and the content is a list",
        ),
        (problem(assistant("4", loss_weight="high")), "`loss_weight` is 'high'; expected a number"),
        (problem(assistant("4", loss_weight=-1)), "`loss_weight` is -1; expected a number"),
        (
            replace(problem(assistant("4")), prompt=({**user("2+2?"), "loss_weight": 0.5},)),
            "turn 1: `loss_weight` stands at a turn of role 'user'",
        ),
        (problem(assistant("4"), loss_weight=(1.0, 1.0, 1.0)), "has 3 numbers, and 2 tokens are"),
    ],
)
def test_what_the_template_drops_is_refused_with_row_and_name(asked: Problem, message: str) -> None:
    body = f"{{% if m.role != 'critic' %}}{TURN}{{% endif %}}"
    with pytest.raises(UserError, match=f"^d.jsonl, line 3: problem p.*{message}"):
        learned(encoder(chatml(body)), asked)


def test_fields_of_turns_may_be_named_as_not_for_the_template() -> None:
    asked = problem(assistant("4", name="Bob", tool_calls=None, loss_weight=1))
    assert learned(encoder(CHATML_BASE, ignored_fields=("name",)), asked) == ["4<|im_end|>"]
    links = {"role": "tool", "content": "4", "tool_call_id": "1", "name": "add"}
    called = problem(assistant("", tool_calls=[{**CALL, "id": "1"}]), links, assistant("4"))
    assert len(learned(encoder(TEMPLATES["Qwen3"]), called)) == 2


def test_a_prompt_without_a_reply_is_checked_too() -> None:
    own = encoder(CHATML_BASE)
    for asked, name in (
        (Problem(id="p", prompt=(user("2+2?"),), tools=(TOOL,)), "`tools`"),
        (Problem(id="p", prompt=({**user("2+2?"), "mood": "sad"},)), "`mood`"),
    ):
        with pytest.raises(UserError, match=f"problem p.*{name}"):
            own.prompts([asked])


def test_rows_that_cannot_be_used_are_dropped_and_counted_if_the_task_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    template = CHATML_BASE
    own = Encoder(template.tokenizer(), PromptSettings(), 1024, bad_rows="drop")
    rows = [problem(assistant("4")), replace(problem(assistant("4", mood="sad")), id="q")]
    rollouts, dropped = encode_demonstrations(own, rows)
    assert ([rollout.problem.id for rollout in rollouts], dropped) == (["p"], 0)
    assert "1 of 2 rows cannot be used and were dropped (task.bad_rows); the first" in caplog.text
    assert "`mood`" in caplog.text


# ---- where a turn begins and ends

OPENS_THOUGHT = "<|im_start|>assistant\n<think>\n"
EMPTY_THOUGHT = "<|im_start|>assistant\n<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("body", "header", "content", "expected"),
    [
        (TURN, OPENS_THOUGHT, "<think>\na\n</think>\n\n4", "a\n</think>\n\n4<|im_end|>"),
        (TURN, OPENS_THOUGHT, "<think>a</think>4", "a</think>4<|im_end|>"),
        (TURN, EMPTY_THOUGHT, "4", "4<|im_end|>"),
        (TURN, EMPTY_THOUGHT, "<think>\n\n</think>\n\n4", "4<|im_end|>"),
        (TURN, "<|im_start|>assistant\n", "<|im_start|>assistant\n4", "4<|im_end|>"),
        (TURN, "<|im_start|>assistant\n", "4<|im_end|>", "4<|im_end|>"),
        (TURN.replace("\n{{", "\n{% if m.role == 'assistant' %}[THINK]{% endif %}{{"),
         "<|im_start|>assistant\n[THINK]", "[THINK]a[/THINK]4", "a[/THINK]4<|im_end|>"),
        ("{{ m.role }}: {{ m.content }}\n\n", "assistant:", "assistant: 4",
         " 4\n\n<|endoftext|>"),
        ("{{ m.role }}: {{ m.content }}\n\n", "assistant:", "4", " 4\n\n<|endoftext|>"),
        (TURN.replace("<|im_end|>\n", "<|im_end|>\n<|endoftext|>"), "<|im_start|>assistant\n", "4",
         "4<|im_end|>"),
    ],
)  # fmt: skip
def test_what_the_prompt_ends_with_is_not_written_twice(
    body: str, header: str, content: str, expected: str
) -> None:
    assert learned(encoder(chatml(body, header)), problem(assistant(content))) == [expected]


@pytest.mark.parametrize(
    ("body", "header", "content", "message"),
    [
        (TURN, OPENS_THOUGHT, "4", "the prompt opens a thought with <think>, and the reply has"),
        (TURN, EMPTY_THOUGHT, "<think>a</think>4", "ends with an empty thought, and the reply has"),
        ("{{ loop.length }}" + TURN, "<|im_start|>assistant\n", "4", "does not begin with its"),
        (
            "{{ m.role }}:{% if m.role == 'user' %}{{ m.content }}{% endif %}",
            "assistant:",
            "4",
            "does not render the content of the assistant's turn",
        ),
    ],
)
def test_a_reply_that_does_not_continue_its_prompt_is_refused(
    body: str, header: str, content: str, message: str
) -> None:
    with pytest.raises(UserError, match=f"d.jsonl, line 3: problem p, turn 2: .*{message}"):
        learned(encoder(chatml(body, header)), problem(assistant(content)))


OPENED = {
    opening.rstrip("\n"): closing for opening, closing in PAIRS.items() if opening not in GPT_OSS
}
"""The mark of a thought that a prompt opens -> the one text that ends it."""


@pytest.mark.parametrize("opening", OPENED)
def test_a_thought_that_the_prompt_opens_is_ended_once_in_every_spelling(opening: str) -> None:
    closing = OPENED[opening]
    own = encoder(chatml(TURN, f"<|im_start|>assistant\n{opening}\n"))
    expected = [f"a\n{closing}\n\n4<|im_end|>"]
    assert learned(own, problem(assistant("4", reasoning_content="a"))) == expected
    for start in (f"{opening}\n", ""):
        assert learned(own, problem(assistant(f"{start}a\n{closing}\n\n4"))) == expected
    with pytest.raises(UserError) as error:
        learned(own, problem(assistant("4")))
    assert f"opens a thought with {opening}, and the reply has none; add it" in str(error.value)
    assert f"inside {opening} and {closing} in the content" in str(error.value)
    empty = encoder(chatml(TURN, f"<|im_start|>assistant\n{opening}\n{closing}\n"))
    with pytest.raises(UserError, match="ends with an empty thought, and the reply has another"):
        learned(empty, problem(assistant(f"{opening}a{closing}4")))


def test_a_thought_in_marks_of_the_template_alone_is_not_opened_twice() -> None:
    """Pangu's marks: no known spelling, but the template writes them around a turn's thought."""
    body = (
        "<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}[unused16]\n"
        "{{ m.reasoning_content }}\n[unused17]\n{% endif %}{{ m.content }}<|im_end|>\n"
    )
    own = encoder(chatml(body, "<|im_start|>assistant\n[unused16]\n"))
    expected = ["a\n[unused17]\n4<|im_end|>"]
    assert learned(own, problem(assistant("4", reasoning_content="a"))) == expected
    assert learned(own, problem(assistant("[unused16]\na\n[unused17]\n4"))) == expected
    with pytest.raises(UserError, match=r"inside \[unused16\] and \[unused17\] in the content"):
        learned(own, problem(assistant("4")))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("{{ raise_exception('no system') }}", "no system"),
        ("{{ messages[7].content }}", "list object has no element 7"),
        ("{{ m.content + 1 }}", "can only concatenate str"),
        ("{{ 1 // 0 }}", "integer division or modulo by zero"),
        ("{{ 2.0 ** 5000 }}", "(34, "),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "maximum recursion depth exceeded"),
        ("{{ m.content.format('{') }}{{ '{'.format(1) }}", "Single '{' encountered"),
        ("{{ ''.nothing() }}", "has no attribute 'nothing'"),
    ],
)
def test_whatever_a_template_raises_is_one_sentence(body: str, reason: str) -> None:
    own = encoder(chatml(body))
    with pytest.raises(UserError) as error:
        learned(own, problem(assistant("4")))
    message = str(error.value)
    assert message.startswith("d.jsonl, line 3: problem p: the model's chat template fails with")
    assert reason in message


def test_no_token_ends_a_turn_but_one_that_is_there() -> None:
    """The template's own end needs no end-of-text token; without both there is one sentence."""
    template = chatml("{{ m.role }}: {{ m.content }}\n", "assistant:")
    for endless, fails in ((CHATML_BASE, False), (template, True)):
        own = encoder(endless)
        own.tokenizer.eos_token = None
        own = Encoder(own.tokenizer, PromptSettings(), 1024)
        if fails:
            with pytest.raises(
                UserError, match="the chat template ends no turn, and the tokenizer"
            ):
                learned(own, problem(assistant("4")))
        else:
            assert learned(own, problem(assistant("4"))) == ["4<|im_end|>"]


def test_an_added_token_ends_turns_even_if_it_is_not_special() -> None:
    """And a token that ends a call's text does not end a turn (GLM's `</tool_call>`)."""
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.add_tokens(["<end>", "</tool_call>"])
    tokenizer.chat_template = str(chatml(TURN.replace("<|im_end|>", "<end>")).text)
    tokenizer.eos_token = None
    own = Encoder(tokenizer, PromptSettings(), 1024)
    assert learned(own, problem(assistant("4"))) == ["4<end>"]
    end = tokenizer.convert_tokens_to_ids("<end>")
    assert stop_ids_of(GenerationConfig(), tokenizer) == {end}
    glm = TEMPLATES["GLM"].tokenizer()
    glm.add_tokens(["</tool_call>"])
    stops = frozenset(glm.convert_tokens_to_ids(["<|user|>", "<|observation|>"]))
    own = Encoder(glm, PromptSettings(), 1024, stop_ids=stops)
    called = problem(assistant("", tool_calls=[CALL]), tools=(TOOL,))
    assert learned(own, called)[0].endswith("</tool_call><|observation|>")


# ---- which turns


def test_which_turns_are_learned_is_a_key_and_a_weight_of_each() -> None:
    asked = two_turns(CHATML_BASE)
    assert learned(encoder(CHATML_BASE), asked) == ["It is 4.<|im_end|> … It is 4.<|im_end|>"]
    assert learned(encoder(CHATML_BASE, train_on="last_assistant"), asked) == ["It is 4.<|im_end|>"]
    # The turns of a prompt beside which the reply stands in a column of its own.
    assert learned(encoder(CHATML_BASE), replace(asked, learn_history=False)) == [
        "It is 4.<|im_end|>"
    ]
    first = (user("2+2?"), assistant("4", loss_weight=0), user("So?"))
    ((rollout,), _) = encode_demonstrations(
        encoder(CHATML_BASE),
        [replace(asked, prompt=first, reply=(assistant("4", loss_weight=0.5),))],
    )
    kinds = [kind for kind, _ in groupby(rollout.kinds)]
    assert kinds == [TokenKind.MASKED, TokenKind.PROMPT, TokenKind.RESPONSE]
    assert [weight for weight, _ in groupby(rollout.loss_weight)] == [0, 1, 0.5]


def test_weights_of_a_row_multiply_those_of_its_turns() -> None:
    def weights(**fields: object) -> tuple[float, ...]:
        asked = problem(assistant("4", loss_weight=0.5), **fields)
        ((rollout,), _) = encode_demonstrations(encoder(CHATML_BASE), [asked])
        return rollout.loss_weight

    assert weights() == (0.5, 0.5)
    assert weights(loss_weight=2.0) == (1.0, 1.0) or weights(loss_weight=2.0) == ()
    assert weights(loss_weight=(4.0, 0.0)) == (2.0, 0.0)


# ---- plain texts


def test_a_plain_text_has_the_special_tokens_of_one_text() -> None:
    tokenizer = copy.deepcopy(TEMPLATES["Gemma 2/3"].tokenizer())
    tokenizer.chat_template = None
    bos, eos = tokenizer.bos_token, tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A {eos}",
        special_tokens=[(bos, tokenizer.bos_token_id), (eos, tokenizer.eos_token_id)],
    )
    own = Encoder(tokenizer, PromptSettings(template="Q: {problem}\nAnswer:"), 256)
    asked = Problem(id="p", prompt="2+2?", solution="Answer: 4")
    assert tokenizer.decode(own.prompt_ids(asked)) == "<bos>Q: 2+2?\nAnswer:"
    ((rollout,), _) = encode_demonstrations(own, [asked])
    assert tokenizer.decode(rollout.response_ids) == " 4<eos>"
    ids = (*rollout.prompt_ids, *rollout.response_ids)
    assert ids == tuple(tokenizer("Q: 2+2?\nAnswer: 4")["input_ids"])
    ended = replace(asked, solution=" 4<eos>")
    assert encode_demonstrations(own, [ended])[0][0].response_ids == rollout.response_ids
    with pytest.raises(UserError, match="has `tools`, which need a chat template"):
        own.prompt_ids(replace(asked, tools=(TOOL,)))
    with pytest.raises(UserError, match="`reasoning_content` of the reply needs a chat template"):
        encode_demonstrations(own, [replace(asked, reply=(assistant("4", reasoning_content="x"),))])


@pytest.mark.parametrize("tag", ["<think>", "[THINK]", "◁think▷"])
def test_a_thought_that_a_plain_prompt_opens_is_not_opened_twice(tag: str) -> None:
    own = Encoder(CHATML_BASE.tokenizer(), PromptSettings(style="plain"), 256)
    for opened, expected in ((f"2+2? {tag}\n", "a"), (f"2+2? {tag}", "\na"), ("2+2?", f"{tag}\na")):
        ((rollout,), _) = encode_demonstrations(
            own, [Problem(id="p", prompt=opened, solution=f"{tag}\na")]
        )
        assert own.tokenizer.decode(rollout.response_ids) == f"{expected}<|endoftext|>"


def test_a_conversation_that_the_assistant_begins_is_refused_with_its_turn() -> None:
    greeted = Problem(
        id="p",
        prompt=(assistant("Hello."), {"role": "user", "content": "2+2?"}),
        reply=(assistant("4"),),
        learn_history=True,
    )
    with pytest.raises(UserError, match=r"turn 1: the conversation begins with an assistant's"):
        encode_demonstrations(encoder(CHATML_BASE), [greeted])
    last = encoder(CHATML_BASE, train_on="last_assistant")
    assert learned(last, greeted) == ["4<|im_end|>"]


def test_a_token_across_the_end_of_the_prompt_is_split_there() -> None:
    """Inference continues the prompt's own ids: `\\n` and `\\n` stay two tokens."""
    own = Encoder(CHATML_BASE.tokenizer(), PromptSettings(style="plain"), 256)
    joined = own.encode(["2+2?\n\n4"])[0]
    ((rollout,), _) = encode_demonstrations(own, [Problem(id="p", prompt="2+2?\n", solution="\n4")])
    assert rollout.prompt_ids == own.encode(["2+2?\n"])[0]
    assert own.tokenizer.decode(rollout.response_ids) == "\n4<|endoftext|>"
    assert (*rollout.prompt_ids, *rollout.response_ids)[: len(joined)] != joined
