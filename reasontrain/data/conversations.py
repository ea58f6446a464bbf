"""Cells that hold conversations -> turns in the format of chat templates.

Turns are read as OpenAI, TRL and verl write them (`role`, `content`) and as ShareGPT does (`from`,
`value`), also from JSON in a text cell.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from reasontrain.data.files import RowError, is_missing, shown
from reasontrain.data.prompts import IMAGE_MARK
from reasontrain.types import Message, listed, text_of

ROLES: Mapping[str, str] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
"""Names of roles in data sets, and their names in chat templates."""
CALLS = ("function_call", "tool_call")
"""ShareGPT's roles of a turn whose text is one call of a tool, or a list of them, as JSON."""
WEIGHTS = ("loss_weight", "weight", "train")
READ = frozenset({"role", "from", "content", "value", "text", "function_call", *WEIGHTS})
"""Fields of a turn that are read here; all others reach the chat template as they are."""


def is_conversation(value: object) -> bool:
    """Return True if a cell holds a list of objects, one object, or such a list as JSON."""
    if isinstance(value, str):
        turns = _json(value) if value.lstrip().startswith("[{") else None
        return isinstance(turns, list) and bool({"role", "from"} & turns[0].keys())
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and any(isinstance(t, Mapping) for t in value)
    )


def turns_of(
    value: object, *, column: str, where: str, images: bool = False
) -> tuple[Message, ...]:
    """The turns in a cell.

    Args:
        value: a list of turns, one turn, or a list of turns as JSON.
        column: name of the column, for error messages.
        where: file and line of the row, for error messages.
        images: accept parts of type `image`, which become the mark `<image>`.

    Returns:
        At least one turn, with all its fields.

    Raises:
        RowError: the cell holds no conversation, or one of its turns is invalid.
    """
    turns = _json(value) if isinstance(value, str) else value
    if isinstance(turns, Mapping):
        turns = [turns]
    if not isinstance(turns, list | tuple):
        raise RowError(
            f"{where}: column {column!r} holds {shown(value)}; expected a list of turns "
            f"({{role, content}} or {{from, value}})"
        )
    if not turns:
        raise RowError(f"{where}: column {column!r} holds a conversation without turns")
    return tuple(
        _turn(turn, f"{where}: column {column!r}, turn {number}", images)
        for number, turn in enumerate(turns, start=1)
    )


def split_reply(
    turns: Sequence[Message], *, column: str, where: str
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Divide a conversation into the prompt and the reply to its last user turn.

    The reply is empty unless the conversation ends with an assistant turn. Raises RowError if
    there is no user turn before it.
    """
    users = [i for i, turn in enumerate(turns) if turn["role"] == "user"]
    if not users:
        raise RowError(f"{where}: the conversation in column {column!r} has no user turn")
    if turns[-1]["role"] != "assistant":
        if turns[-1]["role"] not in ("user", "tool"):
            raise RowError(
                f"{where}: the conversation in column {column!r} ends with a turn of role "
                f"{turns[-1]['role']}; expected a user turn, or the reply to one"
            )
        return tuple(turns), ()
    prompt = tuple(turns[: users[-1] + 1])
    reply = tuple(turns[users[-1] + 1 :])
    if reply[0]["role"] != "assistant":
        raise RowError(
            f"{where}: column {column!r}, turn {users[-1] + 2}: a turn of role {reply[0]['role']} "
            f"follows the last user turn; expected the assistant's"
        )
    return prompt, reply


def reply_text(reply: Sequence[Message]) -> str:
    """The text of the last assistant turn of a reply."""
    return next((text_of(turn) for turn in reversed(reply) if turn["role"] == "assistant"), "")


def tools_of(value: object, *, column: str, where: str) -> tuple[Mapping[str, object], ...]:
    """The tools in a cell: a list of schemas, or such a list as JSON; () for an empty cell."""
    tools = _json(value) if isinstance(value, str) and value.strip() else value
    if not tools:
        return ()
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise RowError(
            f"{where}: column {column!r} holds {shown(value)}; expected a list of tool schemas"
        )
    return tuple(_without_none(tool) for tool in tools)


def _turn(value: object, where: str, images: bool) -> Message:
    """One turn; raises RowError that names the reason."""
    if not isinstance(value, Mapping):
        raise RowError(f"{where}: expected an object with role and content, found {shown(value)}")
    name = value.get("role", value.get("from"))
    if not isinstance(name, str) or name.strip().lower() not in ROLES:
        reason = f"it has {listed(value)}" if name is None else shown(name)
        raise RowError(
            f"{where}: no known role ({reason}); expected system, user, assistant or tool, or "
            f"ShareGPT's human, gpt, function_call or observation"
        )
    name = name.strip().lower()
    role = ROLES[name]
    content = _content(
        value.get("content", value.get("value", value.get("text"))), f"{where} ({role})", images
    )
    # Parquet fills the fields that a turn does not have with nulls.
    fields = {str(key): each for key, each in value.items() if key not in READ and each is not None}
    if name in CALLS:
        fields["tool_calls"] = _calls_of_text(content, f"{where} ({name})")
        content = ""
    elif "tool_calls" in fields:
        fields["tool_calls"] = _calls(fields["tool_calls"], f"{where} ({role})")
        if not fields["tool_calls"]:
            del fields["tool_calls"]
    if value.get("function_call") is not None:
        fields["tool_calls"] = _calls([value["function_call"]], f"{where} ({role})")
    weight = _weight(value, f"{where} ({role})")
    if weight is not None:
        fields["loss_weight"] = weight
    speaks = bool(fields.keys() & {"tool_calls", "reasoning_content", "thinking"})
    if not content.strip() and role in ("user", "assistant") and not speaks:
        raise RowError(f"{where} ({role}) is empty")
    if is_missing(content) and role in ("user", "assistant"):
        raise RowError(
            f"{where} ({role}) is the text {content.strip()!r}, which stands for a missing number"
        )
    return {"role": role, "content": content, **fields}


def _content(value: object, where: str, images: bool) -> str:
    """The text of a turn, from text or a list of parts; "" for None."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise RowError(f"{where} holds {shown(value)}; expected text or a list of parts")
    texts = []
    for part in value:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type", "text") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part, Mapping) and isinstance(part.get("text"), str):
            texts.append(str(part["text"]))
        elif kind in ("image", "image_url") and images:
            texts.append(IMAGE_MARK)
        elif kind in ("image", "image_url"):
            raise RowError(
                f"{where} shows an image; tasks of kind `rollouts` read images, from a column "
                f"`image`"
            )
        else:
            raise RowError(f"{where} has a part {shown(part)}; expected {{type: text, text: ...}}")
    return "".join(texts)


def _calls_of_text(content: str, where: str) -> list[object]:
    parsed = _json(content)
    if not isinstance(parsed, dict | list):
        raise RowError(f"{where}: expected a call {{name, arguments}} as JSON, found {content!r}")
    return _calls(parsed if isinstance(parsed, list) else [parsed], where)


def _calls(value: object, where: str) -> list[object]:
    """Tool calls as chat templates read them: {type: function, function: {name, arguments}}."""
    value = _json(value) if isinstance(value, str) else value
    if not isinstance(value, list):
        raise RowError(f"{where}: tool_calls holds {shown(value)}; expected a list")
    calls: list[object] = []
    for call in value:
        if isinstance(call, str) and call.strip():
            calls.append(call)  # in the form of its own template
            continue
        inner = call.get("function", call) if isinstance(call, Mapping) else None
        name = inner.get("name") if isinstance(inner, Mapping) else None
        if not isinstance(call, Mapping) or not isinstance(inner, Mapping) or not name:
            raise RowError(f"{where}: the tool call {shown(call)} has no function name")
        arguments = inner.get("arguments", inner.get("parameters"))
        if isinstance(arguments, str) and isinstance(_json(arguments), dict):
            arguments = _json(arguments)
        arguments = _without_none(arguments) if isinstance(arguments, Mapping) else arguments
        function = {"name": name, "arguments": {} if arguments is None else arguments}
        extra = {key: call[key] for key in ("id",) if call.get(key) is not None}
        calls.append({**extra, "type": "function", "function": function})
    return calls


def _weight(value: Mapping[str, object], where: str) -> float | None:
    """The factor of a turn's losses, from `loss_weight`, `weight` or `train`; None without any."""
    for key in WEIGHTS:
        weight = value.get(key)
        if weight is None:
            continue
        if not isinstance(weight, int | float) or not math.isfinite(weight) or weight < 0:
            raise RowError(f"{where}: {key} is {shown(weight)}; expected a number of at least 0")
        return float(weight)
    return None


def _without_none(value: Mapping[str, object]) -> dict[str, object]:
    """The mapping without the nulls that Parquet adds for fields of other rows."""
    return {
        key: _without_none(each) if isinstance(each, Mapping) else each
        for key, each in value.items()
        if each is not None
    }


def _json(value: str) -> object:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None
