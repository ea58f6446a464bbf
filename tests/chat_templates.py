"""Twelve chat templates in the form of their models', written anew for tests, each with a tiny
tokenizer that has their special tokens.

`{% generation %}` marks what a model generates, as in templates for training.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from transformers import GenerationConfig, PreTrainedTokenizerFast

from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.data.replies import encode_demonstrations
from reasontrain.models.description import stop_ids_of
from reasontrain.types import Message, Problem, TokenKind, UserError
from tests import tiny

CHATML = """\
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.role == 'assistant' %}{% generation %}{{- m.content + '<|im_end|>' }}{% endgeneration %}
{%- else %}{{- m.content + '<|im_end|>' }}{% endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""

_HERMES_CALLS = """\
{%- for call in m.tool_calls or [] %}
{%- set f = call.function or call %}
{{- '\\n<tool_call>\\n' + {'name': f.name, 'arguments': f.arguments} | tojson + '\\n</tool_call>' }}
{%- endfor %}"""

_HERMES_TOOLS = """\
{%- if tools %}{{- '\\n\\n# Tools\\n' }}
{%- for tool in tools %}{{- tool | tojson + '\\n' }}{% endfor %}{% endif %}"""

QWEN3 = (
    """\
{%- set last = namespace(query=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set last.query = loop.index0 %}{% endif %}
{%- endfor %}
{%- if messages[0].role == 'system' or tools %}{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content }}{% endif %}"""
    + _HERMES_TOOLS
    + """\
{{- '<|im_end|>\\n' }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{- '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}
{%- elif m.role == 'assistant' %}
{%- set content = m.content or '' %}{% set thought = m.reasoning_content or '' %}
{%- if '</think>' in content %}
{%- set thought = content.split('</think>')[0].split('<think>')[-1] %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>assistant\\n' }}
{%- generation %}
{%- if loop.index0 > last.query and (loop.last or thought) %}
{{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
{%- endif %}
{{- content }}"""
    + _HERMES_CALLS
    + """\
{{- '<|im_end|>' }}
{%- endgeneration %}
{{- '\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}{% endif %}"""
)

QWEN25 = (
    """\
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content }}
{%- else %}{{- 'You are a helpful assistant.' }}{% endif %}"""
    + _HERMES_TOOLS
    + """\
{{- '<|im_end|>\\n' }}
{%- for m in messages %}
{%- if m.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}
{%- elif m.role == 'assistant' %}{{- '<|im_start|>assistant\\n' }}
{%- generation %}{{- m.content or '' }}"""
    + _HERMES_CALLS
    + """\
{{- '<|im_end|>' }}{% endgeneration %}{{- '\\n' }}
{%- elif m.role == 'user' or not loop.first %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""
)

LLAMA3 = """\
{{- bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: 2023\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content | trim }}{% endif %}
{{- '<|eot_id|>' }}
{%- for m in messages %}
{%- if m.role == 'tool' %}
{{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + m.content | tojson + '<|eot_id|>' }}
{%- elif m.role == 'assistant' %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- generation %}
{%- if m.tool_calls %}{% set f = m.tool_calls[0].function %}
{{- {'name': f.name, 'parameters': f.arguments} | tojson + '<|eot_id|>' }}
{%- else %}{{- m.content | trim + '<|eot_id|>' }}{% endif %}
{%- endgeneration %}
{%- elif m.role == 'user' %}
{{- '<|start_header_id|>user<|end_header_id|>\\n\\n' }}
{%- if tools and loop.index0 < 2 %}{{- 'Functions: ' + tools | tojson + '\\n\\n' }}{% endif %}
{{- m.content | trim + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

GEMMA = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}
{%- set first = messages[0].content + '\\n\\n' %}{% set turns = messages[1:] %}
{%- else %}{% set first = '' %}{% set turns = messages %}{% endif %}
{%- for m in turns %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}
{%- if m.role == 'assistant' %}{{- '<start_of_turn>model\\n' }}
{%- generation %}{{- m.content | trim + '<end_of_turn>' }}{% endgeneration %}
{%- else %}{{- '<start_of_turn>' + m.role + '\\n' + (first if loop.first else '') }}
{{- m.content | trim + '<end_of_turn>' }}{% endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{% endif %}"""

MISTRAL = """\
{%- set last = namespace(user=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}
{%- endfor %}
{{- bos_token }}
{%- set system = messages[0].content + '\\n\\n' if messages[0].role == 'system' else '' %}
{%- for m in messages %}
{%- if m.role == 'user' %}
{%- if tools and loop.index0 == last.user %}
{{- '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{% endif %}
{{- '[INST] ' + (system if loop.index0 == last.user else '') + m.content + '[/INST]' }}
{%- elif m.role == 'tool' %}
{{- '[TOOL_RESULTS] ' + {'content': m.content} | tojson + '[/TOOL_RESULTS]' }}
{%- elif m.role == 'assistant' %}
{%- generation %}
{%- if m.tool_calls %}{{- '[TOOL_CALLS] [' }}
{%- for call in m.tool_calls %}
{{- {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}{% endfor %}
{{- ']' + eos_token }}
{%- else %}{{- ' ' + m.content + eos_token }}{% endif %}
{%- endgeneration %}
{%- endif %}
{%- endfor %}"""

PHI4 = """\
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '<|im_sep|>' }}
{%- if m.role == 'assistant' %}{% generation %}{{- m.content + '<|im_end|>' }}{% endgeneration %}
{%- else %}{{- m.content + '<|im_end|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant<|im_sep|>' }}{% endif %}"""

DEEPSEEK_R1 = """\
{{- bos_token }}
{%- for m in messages %}
{%- if m.role == 'system' %}{{- m.content }}
{%- elif m.role == 'user' %}{{- '<｜User｜>' + m.content }}
{%- elif m.role == 'assistant' %}
{%- set content = m.content.split('</think>')[-1] if '</think>' in m.content else m.content %}
{{- '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<｜Assistant｜><think>\\n' }}{% endif %}"""

SMOLLM3 = """\
{%- set mode = '/think' if enable_thinking | default(true) else '/no_think' %}
{{- '<|im_start|>system\\nReasoning Mode: ' + mode + '\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content }}{% endif %}
{%- if tools %}{{- '\\n### Tools\\n' + tools | tojson }}{% endif %}
{{- '<|im_end|>\\n' }}
{%- for m in messages %}
{%- if m.role == 'user' %}{{- '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}{{- '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}
{%- elif m.role == 'assistant' %}
{%- generation %}
{{- '<|im_start|>assistant\\n' + ('' if mode == '/think' else '<think>\\n\\n</think>\\n') }}
{{- m.content.lstrip('\\n') + '<|im_end|>\\n' }}
{%- endgeneration %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{{- '' if mode == '/think' else '<think>\\n\\n</think>\\n' }}{% endif %}"""

GPT_OSS = """\
{{- '<|start|>system<|message|>You are ChatGPT.<|end|>' }}
{%- if tools %}
{{- '<|start|>developer<|message|># Tools\\n' + tools | tojson + '<|end|>' }}{% endif %}
{%- for m in messages %}
{%- if m.role in ('system', 'developer') %}
{{- '<|start|>developer<|message|># Instructions\\n' + m.content + '<|end|>' }}
{%- elif m.role == 'user' %}{{- '<|start|>user<|message|>' + m.content + '<|end|>' }}
{%- elif m.role == 'tool' %}
{{- '<|start|>functions.tool to=assistant<|channel|>commentary<|message|>' + m.content | tojson }}
{{- '<|end|>' }}
{%- elif m.tool_calls %}{{- '<|start|>assistant' }}
{%- generation %}
{%- if m.thinking %}
{{- '<|channel|>analysis<|message|>' + m.thinking + '<|end|><|start|>assistant' }}{% endif %}
{%- set f = m.tool_calls[0].function %}
{{- ' to=functions.' + f.name + '<|channel|>commentary json<|message|>' + f.arguments | tojson }}
{{- '<|call|>' }}
{%- endgeneration %}
{%- elif loop.last and not add_generation_prompt %}{{- '<|start|>assistant' }}
{%- generation %}
{%- if m.thinking %}
{{- '<|channel|>analysis<|message|>' + m.thinking + '<|end|><|start|>assistant' }}{% endif %}
{{- '<|channel|>final<|message|>' + m.content + '<|return|>' }}
{%- endgeneration %}
{%- else %}{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{% endif %}"""

GLM = """\
{{- '[gMASK]<sop>' }}
{%- if tools %}{{- '<|system|>\\n# Tools\\n' + tools | tojson }}{% endif %}
{%- set last = namespace(query=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set last.query = loop.index0 %}{% endif %}
{%- endfor %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{- '<|user|>\\n' + m.content }}
{%- elif m.role == 'system' %}{{- '<|system|>\\n' + m.content }}
{%- elif m.role == 'tool' %}
{{- '<|observation|>\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- elif m.role == 'assistant' %}
{%- set content = m.content or '' %}{% set thought = m.reasoning_content or '' %}
{%- if '</think>' in content %}
{%- set thought = content.split('</think>')[0].split('<think>')[-1] %}
{%- set content = content.split('</think>')[-1] %}
{%- endif %}
{{- '<|assistant|>' }}
{%- generation %}
{{- '\\n<think>' + (thought.strip() if loop.index0 > last.query else '') + '</think>' }}
{%- if content.strip() %}{{- '\\n' + content.strip() }}{% endif %}
{%- for call in m.tool_calls or [] %}
{{- '\\n<tool_call>' + call.function.name + '\\n' + call.function.arguments | tojson }}
{{- '\\n</tool_call>' }}
{%- endfor %}
{%- endgeneration %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}
{%- if enable_thinking is defined and not enable_thinking %}{{- '\\n<think></think>' }}{% endif %}
{%- endif %}"""


@dataclass(frozen=True, kw_only=True)
class Template:
    """A chat template with the special tokens of its tokenizer.

    `stops` are the further tokens that end a response in the model's generation settings; `reply`
    is what the tests write, `trl_adds` what TRL learns of it behind the end of the turn.
    """

    name: str
    text: str | None
    eos: str
    bos: str | None = None
    special: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()
    reply: str = "It is 4."
    trl_adds: str = ""

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tiny tokenizer with these special tokens and this template."""
        tokenizer = copy.deepcopy(tiny.tokenizer())
        tokens = [t for t in (self.eos, self.bos, *self.special, *self.stops) if t is not None]
        tokenizer.add_special_tokens(
            {
                "eos_token": self.eos,
                **({"bos_token": self.bos} if self.bos else {}),
                "additional_special_tokens": sorted(set(tokens)),
            }
        )
        tokenizer.chat_template = self.text
        return tokenizer

    def stop_ids(self, tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
        """The ids that end a response in the generation settings."""
        return frozenset(
            int(tokenizer.convert_tokens_to_ids(token)) for token in (self.eos, *self.stops)
        )


_CHATML = ("<|im_start|>", "<|im_end|>")
TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        Template(name="Qwen3", text=QWEN3, eos="<|im_end|>", special=_CHATML, trl_adds="\n"),
        Template(name="Qwen2.5", text=QWEN25, eos="<|im_end|>", special=_CHATML, trl_adds="\n"),
        Template(
            name="Llama 3.x",
            text=LLAMA3,
            eos="<|end_of_text|>",
            bos="<|begin_of_text|>",
            special=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        ),
        Template(
            name="Gemma 2/3",
            text=GEMMA,
            eos="<eos>",
            bos="<bos>",
            special=("<start_of_turn>", "<end_of_turn>"),
            trl_adds="\n",
        ),
        Template(
            name="Mistral",
            text=MISTRAL,
            eos="</s>",
            bos="<s>",
            special=("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
        ),
        Template(name="Phi-4", text=PHI4, eos="<|endoftext|>", special=(*_CHATML, "<|im_sep|>")),
        Template(
            name="DeepSeek-R1-like",
            text=DEEPSEEK_R1,
            eos="<｜end▁of▁sentence｜>",
            bos="<｜begin▁of▁sentence｜>",
            special=("<｜User｜>", "<｜Assistant｜>"),
            reply="<think>\n2 and 2.\n</think>\n\nIt is 4.",
        ),
        Template(name="SmolLM3", text=SMOLLM3, eos="<|im_end|>", special=_CHATML, trl_adds="\n"),
        Template(
            name="gpt-oss",
            text=GPT_OSS,
            eos="<|return|>",
            special=("<|start|>", "<|message|>", "<|channel|>", "<|end|>"),
            stops=("<|call|>",),
        ),
        Template(
            name="GLM",
            text=GLM,
            eos="<|endoftext|>",
            special=("[gMASK]", "<sop>", "<|system|>", "<|assistant|>"),
            stops=("<|user|>", "<|observation|>"),
        ),
        Template(
            name="ChatML on a base model",
            text=CHATML,
            eos="<|endoftext|>",
            special=_CHATML,
            trl_adds="\n",
        ),
        Template(name="none", text=None, eos="<|endoftext|>"),
    )
}
"""Every template of the table in docs/templates.md, by name."""

TOOL = {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}
THOUGHT = "Two and two."


def user(text: str) -> Message:
    """A turn of the user."""
    return {"role": "user", "content": text}


def assistant(text: str | None, **fields: object) -> Message:
    """A turn of the assistant."""
    return {"role": "assistant", "content": text, **fields}


def encoder(template: Template, **settings: object) -> Encoder:
    """An encoder with this template, for a context of 1024 tokens."""
    tokenizer = template.tokenizer()
    stop_ids = template.stop_ids(tokenizer)
    return Encoder(tokenizer, PromptSettings(**settings), 1024, stop_ids=stop_ids)


def one_turn(template: Template) -> Problem:
    """A question with a written reply."""
    prompt = "2+2?" if template.text is None else (user("2+2?"),)
    return Problem(id="p", prompt=prompt, reply=(assistant(template.reply),))


def two_turns(template: Template) -> Problem:
    """A conversation with two written replies."""
    return Problem(
        id="p",
        prompt=(user("2+2?"), assistant(template.reply), user("And so?")),
        reply=(assistant(template.reply.replace("2 and 2", "The same")),),
        learn_history=True,
    )


def with_tools() -> Problem:
    """A question that is answered by way of a tool."""
    result: Message = {"role": "tool", "name": "add", "content": "4", "tool_call_id": "1"}
    turns = (assistant(None, tool_calls=[CALL]), result, assistant("It is 4."))
    return Problem(id="p", prompt=(user("2+2?"),), reply=turns, tools=(TOOL,))


def with_thought() -> Problem:
    """A question whose reply has its thought in a field."""
    reply = (assistant("It is 4.", reasoning_content=THOUGHT),)
    return Problem(id="p", prompt=(user("2+2?"),), reply=reply)


def learned(encoder: Encoder, problem: Problem) -> list[str]:
    """The learned text of each rollout, with marks in place of what is read between turns."""
    texts = []
    for rollout in encode_demonstrations(encoder, [problem])[0]:
        kinds = rollout.kinds or (TokenKind.RESPONSE,) * len(rollout.response_ids)
        text = ""
        for is_learned, part in groupby(
            zip(rollout.response_ids, kinds, strict=True),
            key=lambda item: item[1] == TokenKind.RESPONSE,
        ):
            ids = [token for token, _ in part]
            text += encoder.tokenizer.decode(ids) if is_learned else " … "
        texts.append(text)
    return texts


def templates_table() -> str:
    """What is learned and what ends a turn, by template."""
    lines = [
        "| template | learned of the reply | generation stops at | two replies | "
        "`reasoning_content` | `tools`, `tool_calls` | TRL also learns |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, template in TEMPLATES.items():
        own = encoder(template)
        (reply,) = learned(own, one_turn(template))
        stops = sorted(stop_ids(template, own))
        cells = [
            name,
            _code(reply),
            ", ".join(_code(own.tokenizer.decode([token])) for token in stops),
            _outcome(own, two_turns(template)),
            _outcome(own, with_thought()),
            _outcome(own, with_tools()),
            _code(template.trl_adds) if template.trl_adds else TRL_DIFFERS.get(name, "nothing"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


TRL_DIFFERS = {
    "DeepSeek-R1-like": "nothing, and loses the thought",
    "GLM": "nothing, and no `<\\|user\\|>`",
}
"""Templates that TRL learns less of than reasontrain."""


def stop_ids(template: Template, encoder: Encoder) -> frozenset[int]:
    """The ids that end a response of a model with this template and its generation settings."""
    generation = GenerationConfig(eos_token_id=sorted(template.stop_ids(encoder.tokenizer)))
    return stop_ids_of(generation, encoder.tokenizer)


def _outcome(encoder: Encoder, problem: Problem) -> str:
    """How a conversation is learned: in how many rollouts, or that it is refused."""
    try:
        number = len(learned(encoder, problem))
    except UserError:
        return "refused"
    return "one rollout" if number == 1 else f"{number} rollouts"


def _code(text: str) -> str:
    shown = text.replace("\n", "\\n").replace("|", "\\|")
    return f"`{shown}`"
