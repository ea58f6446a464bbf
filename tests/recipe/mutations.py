"""Seeded changes of recipe files: some that may break them, and some that keep their meaning."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence

import yaml

Content = dict[str, object]
Place = tuple[object, object]
"""A section or list, and a key or index in it."""

VALUES: Sequence[object] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**70,
    10**400,
    0.5,
    -0.25,
    float("nan"),
    float("inf"),
    "",
    " ",
    "x",
    "no such thing",
    "1e-3",
    "1:30",
    "0x10",
    "stage:nowhere/pairs.jsonl",
    "testbed:nobody",
    "\N{SNOWMAN} ü\u2028",
    "long " * 100,
    [],
    [[]],
    [1, "two", None],
    {},
    {"kind": "tip"},
    {"kind": 3},
    {"kind": []},
    {"": 1},
)
KINDS = (
    *("all", "tip", "entropy", "random", "max_variance"),
    *("nll", "dpo", "grpo", "math", "pairs", "rollouts", "arithmetic", "python"),
    *("start", "ema", "tune", "sample", "vllm"),
)
TEXT = ": -#&*!|>'\"%@`[]{},?\n\t\x00\ufeffé1e-0_~<=\\"


def broken(text: str, rng: random.Random) -> bytes:
    """The file with one to three changes, each of which may make it wrong."""
    if rng.random() < 0.3:
        return _broken_text(text, rng)
    content = yaml.safe_load(text)
    for _ in range(rng.randint(1, 3)):
        rng.choice(_CHANGES)(content, rng)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()


def places(value: object) -> Iterator[Place]:
    """Every key and index, at any depth."""
    items = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))
        if isinstance(value, list)
        else []
    )
    for key, inner in items:
        yield value, key
        yield from places(inner)


def _place(content: Content, rng: random.Random) -> tuple[dict, object] | None:  # type: ignore[type-arg]
    every = list(places(content))
    return rng.choice(every) if every else None  # type: ignore[return-value]


def _replace(content: Content, rng: random.Random) -> None:
    if place := _place(content, rng):
        place[0][place[1]] = copy.deepcopy(rng.choice(VALUES))


def _remove(content: Content, rng: random.Random) -> None:
    if place := _place(content, rng):
        del place[0][place[1]]


def _rename(content: Content, rng: random.Random) -> None:
    place = _place(content, rng)
    if place and isinstance(place[0], dict):
        word = str(place[1])
        at = rng.randrange(len(word) + 1)
        place[0][word[:at] + rng.choice("aeiou_. ") + word[at + 1 :]] = place[0].pop(place[1])


def _add(content: Content, rng: random.Random) -> None:
    place = _place(content, rng)
    if place and isinstance(place[0], dict):
        place[0][rng.choice(["kind", "keep", "path", "lr", "new", "steps"])] = rng.choice(VALUES)


def _swap(content: Content, rng: random.Random) -> None:
    first, second = _place(content, rng), _place(content, rng)
    if first and second:
        a, b = copy.deepcopy(first[0][first[1]]), copy.deepcopy(second[0][second[1]])
        first[0][first[1]] = b
        second[0][second[1]] = a


def _scale(content: Content, rng: random.Random) -> None:
    numbers = [
        place
        for place in places(content)
        if isinstance(number := place[0][place[1]], int | float)  # type: ignore[index]
        and abs(number) < 2**64
    ]
    if numbers:
        section, key = rng.choice(numbers)
        section[key] *= rng.choice([0, -1, 0.5, 1000, 1e30, 1e-30])  # type: ignore[index]


def _another_kind(content: Content, rng: random.Random) -> None:
    kinds = [place for place in places(content) if place[1] == "kind"]
    if kinds:
        section, key = rng.choice(kinds)
        section[key] = rng.choice(KINDS)  # type: ignore[index]


_CHANGES: Sequence[Callable[[Content, random.Random], None]] = (
    _replace,
    _replace,
    _remove,
    _rename,
    _add,
    _swap,
    _scale,
    _another_kind,
)


def _broken_text(text: str, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 3)):
        at, until = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        lines = text.split("\n")
        line = rng.randrange(len(lines))
        match rng.randrange(6):
            case 0:
                text = text[:at] + rng.choice(TEXT) + text[at:]
            case 1:
                text = text[:at] + text[min(until, at + 9) :]
            case 2:
                text = "\n".join([*lines[:line], lines[line], *lines[line:]])
            case 3:
                text = "\n".join([*lines[:line], "  " + lines[line], *lines[line + 1 :]])
            case 4:
                text = text[:at]
            case _:
                text = "\n".join([*lines[:line], *lines[line + 1 :]])
        text = text or " "
    content = text.encode("utf-8")
    if rng.random() < 0.1:
        at = rng.randrange(len(content) + 1)
        content = content[:at] + bytes([rng.randrange(256)]) + content[at:]
    return content


def same_meaning(text: str, rng: random.Random) -> bytes:
    """The file written in another way, with two to four changes of form."""
    content = yaml.safe_load(text)
    if rng.random() < 0.7:
        content = _shuffled(content, rng)
    form = rng.randrange(4)
    if form == 0:
        text = json.dumps(content, indent=rng.choice([None, 2]), ensure_ascii=rng.random() < 0.5)
    elif form == 1:
        text = yaml.safe_dump(content, default_flow_style=True, sort_keys=False)
    elif form == 2:
        text = yaml.safe_dump(content, default_style=None, sort_keys=False, indent=4, width=40)
    else:
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        text = _numbers(_quotes(_anchors(text, rng), rng), rng)
        text = _comments(text, rng)
    encoding, newline = rng.choice(["utf-8", "utf-8-sig", "utf-16"]), rng.choice(["\n", "\r\n"])
    if rng.random() < 0.3:
        text = "%YAML 1.1\n---\n" + text if rng.random() < 0.5 else "---\n" + text + "\n...\n"
    return text.replace("\n", newline).encode(encoding)


def _shuffled(value: object, rng: random.Random) -> object:
    if isinstance(value, dict):
        keys = list(value)
        rng.shuffle(keys)
        return {key: _shuffled(value[key], rng) for key in keys}
    return [_shuffled(item, rng) for item in value] if isinstance(value, list) else value


def _numbers(text: str, rng: random.Random) -> str:
    def spelt(match: re.Match[str]) -> str:
        number = match[2]
        if re.fullmatch(r"\d+", number):
            value = int(number)
            forms = [number, f"+{value}", f"{value:_}", f"{value}.0", f"{value:#x}"]
            forms += [f"{value // 10}e1"] if value and value % 10 == 0 else []
        else:
            value = float(number)
            forms = [number, repr(value), f"{value:.17g}", f"{value:.17e}", f"+{value!r}"]
            forms += [f"{value:.17E}", repr(value).removeprefix("0")]
        return f"{match[1]}{rng.choice(forms)}"

    # Not after a name, of which numbers are a part, and not in a list, whose items may be text.
    return re.sub(r"(?m)^(\s*(?!name)\w+: )([\d.]+(?:e[-+]?\d+)?)$", spelt, text)


def _quotes(text: str, rng: random.Random) -> str:
    def quoted(match: re.Match[str]) -> str:
        quote = rng.choice(["", '"', "'"])
        return f"{match[1]}{quote}{match[2]}{quote}"

    return re.sub(r"(?m)^(\s*\w+: )([a-z]{3,}_\w+)$", quoted, text)


def _comments(text: str, rng: random.Random) -> str:
    lines = []
    for line in text.split("\n"):
        plain = re.fullmatch(r"\s*\w+: [\w.]+", line)
        lines.append(f"{line}  # a: comment" if plain and rng.random() < 0.3 else line)
        if rng.random() < 0.1 and plain:
            lines.append("# steps: 3")
    return "\n".join(lines)


def _anchors(text: str, rng: random.Random) -> str:
    """Name a value and refer to it where it occurs again."""
    values = re.findall(r"(?m)^\s*\w+: ([\w.]{2,})$", text)
    repeated = sorted({value for value in values if values.count(value) > 1})
    if not repeated or rng.random() < 0.5:
        return text
    value = rng.choice(repeated)
    first, *rest = re.split(rf"(?m)(?<=: ){re.escape(value)}$", text)
    return first + f"&again {value}" + "*again".join(rest)
