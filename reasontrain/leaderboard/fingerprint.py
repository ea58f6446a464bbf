"""The fingerprint of an evaluation: settings that all results of a column must share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

from reasontrain.data.prompts import PromptSettings
from reasontrain.evaluation.compare import WITHOUT_EFFECT
from reasontrain.report.numbers import Json

Fingerprint = Mapping[str, str]
"""Settings of an evaluation by name, as text."""

_OF_RECORD = {
    "version": "suite version",
    "num_samples": "samples",
    "temperature": "temperature",
    "problems_sha256": "data hash",
}
_OF_SUITE = ("limit", "answer_format", "prompt", "sampling")
_MAX_QUOTED = 40


def fingerprint(record: Mapping[str, Json], suite_settings: Mapping[str, Json]) -> Fingerprint:
    """The fingerprint of an evaluation from its record and the settings of its suite.

    A suite without prompt settings has the default ones. The source of the problems is not
    included, because a file and the hub may hold the same problems: these are compared by their
    hash, names and gold answers. A setting that is missing in a record is not compared (older
    records have no version).
    """
    suite = dict(suite_settings) | (
        {"prompt": asdict(PromptSettings())}
        if suite_settings and not suite_settings.get("prompt")
        else {}
    )
    stated = {
        name: value for key in _OF_SUITE if key in suite for name, value in _flat(suite[key], key)
    }
    stated.pop("sampling.temperature", None)  # every record states it
    return stated | {
        name: _text(record[key])
        for key, name in _OF_RECORD.items()
        if record.get(key) not in (None, "")
    }


def first_difference(one: Fingerprint, other: Fingerprint) -> str | None:
    """The first setting that both contain and that differs; None if there is none."""
    return next((name for name in one if name in other and one[name] != other[name]), None)


def quoted(text: str) -> str:
    """Quote a setting for a sentence; truncate long texts."""
    return repr(text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "...")


def _flat(value: Json, name: str) -> Iterator[tuple[str, str]]:
    """Nested settings with names joined by dots.

    A section within another has an entry of its own too, so that it differs from one that is null.
    """
    if isinstance(value, Mapping):
        if "." in name:
            yield name, str(value.get("kind", "set"))
        for key, part in value.items():
            if key not in WITHOUT_EFFECT:
                yield from _flat(part, f"{name}.{key}")
    else:
        yield name, _text(value)


def _text(value: Json) -> str:
    """A value as text; 1 and 1.0 give the same text."""
    if value is None:
        return "none"
    if isinstance(value, float) and not isinstance(value, bool):
        return f"{value:g}"
    return (", ".join(map(_text, value)) or "none") if isinstance(value, list) else str(value)
