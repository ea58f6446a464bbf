"""How a suite was asked: what must be the same for two results to stand in one column.

The only place where it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

from reasontrain.data.prompts import PromptSettings
from reasontrain.report.numbers import Json

Protocol = Mapping[str, str]
"""What a result states of how it was asked, by name, as text."""

_OF_RECORD = {
    "version": "suite version",
    "num_samples": "samples",
    "temperature": "temperature",
    "problems_sha256": "data hash",
}
_OF_SUITE = ("limit", "last_number", "prompt", "sampling")
_MAX_SAID = 40


def protocol(record: Mapping[str, Json], asked: Mapping[str, Json]) -> Protocol:
    """What an evaluation's record and the suite that was asked say.

    A suite without a prompt of its own is asked with the default one. Where problems came from is
    no part of it: the same ones may lie in a file and on the hub; they are compared by their hash,
    and by their names and gold answers. What a record does not state, as those of older runs do not
    state a version, is not compared.
    """
    suite = dict(asked) | (
        {"prompt": asdict(PromptSettings())} if asked and not asked.get("prompt") else {}
    )
    said = {
        name: value for key in _OF_SUITE if key in suite for name, value in _flat(suite[key], key)
    }
    said.pop("sampling.temperature", None)  # stated by every record
    return said | {
        name: _text(record[key])
        for key, name in _OF_RECORD.items()
        if record.get(key) not in (None, "")
    }


def unlike(one: Protocol, other: Protocol) -> str | None:
    """The first thing in which two protocols differ; None where they agree in all that both state."""
    return next((name for name in one if name in other and one[name] != other[name]), None)


def quoted(text: str) -> str:
    """What a protocol states, in a sentence: a long text is cut."""
    return repr(text if len(text) <= _MAX_SAID else text[:_MAX_SAID] + "...")


def _flat(value: Json, name: str) -> Iterator[tuple[str, str]]:
    """Nested settings with names joined by dots."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}")
    else:
        yield name, _text(value)


def _text(value: Json) -> str:
    """A value as a reader wants it; 1 and 1.0 are the same."""
    if value is None:
        return "none"
    if isinstance(value, float) and not isinstance(value, bool):
        return f"{value:g}"
    return (", ".join(map(_text, value)) or "none") if isinstance(value, list) else str(value)
