"""Kinds of components that a plug-in can be, and the place of plug-ins in the types of a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Protocol, get_args, get_origin, runtime_checkable

from reasontrain.plugins.source import Source

READER: ContextVar[Reader] = ContextVar("READER")
"""The reader of the recipe that is being read; it knows in which folder files are looked for."""


class Reader(Protocol):
    """Builds plug-ins from their settings while a recipe is read."""

    def build(self, component: Component, settings: object) -> object:
        """The plug-in with these settings, or an error that pydantic understands."""
        ...


@runtime_checkable
class Plugin(Protocol):
    """An instance of a plug-in's class, with its code."""

    plugin_source: Source
    kind: str


@dataclass(frozen=True)
class Component:
    """A place of a recipe that takes plug-ins, as an annotation of the protocol they must have.

    In `Annotated[Rule, Component(...)]` type checkers see the protocol. pydantic sees the two
    methods below, by which such a member of a union reads every `kind` that names a plug-in.

    Attributes:
        key: the recipe's key; `reasontrain.KEY` is the group of entry points.
        noun: such a component in messages, with its article.
        members: names that a class must define.
        arguments: names of the positional arguments of its call; None for one that is not called.
        base: the class that it must inherit from, if there is one.
        check: the reason why an instance is not valid; None if it is.
        check_result: the reason why its call cannot have returned this for these arguments.
    """

    key: str
    noun: str
    members: tuple[str, ...] = ()
    arguments: tuple[str, ...] | None = None
    base: type | None = None
    check: Callable[[object], str | None] | None = None
    check_result: Callable[[object, tuple[object, ...]], str | None] | None = None

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> Mapping[str, object]:
        """The schema of a member of a union that is read by `READER`."""
        read = {"type": "no-info", "function": self._read}
        return {"type": "function-plain", "function": read}

    def __get_pydantic_json_schema__(self, schema: object, handler: object) -> Mapping[str, object]:
        """See `json_schema`."""
        return json_schema()

    def _read(self, settings: object) -> object:
        return READER.get().build(self, settings)


def json_schema() -> dict[str, object]:
    """The JSON schema of every section whose `kind` is a class of a file."""
    kind = {"type": "string", "pattern": r"\.py:[A-Za-z_]\w*$"}
    return {"type": "object", "properties": {"kind": kind}, "required": ["kind"]}


def component_of(annotation: object) -> Component | None:
    """The component that a member of a union stands for, if it is one of plug-ins."""
    if get_origin(annotation) is not Annotated:
        return None
    return next((part for part in get_args(annotation) if isinstance(part, Component)), None)


def plugins_in(settings: object) -> Iterator[Plugin]:
    """Every plug-in in a value of settings, at any depth."""
    if isinstance(settings, Mapping):
        for value in settings.values():
            yield from plugins_in(value)
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from plugins_in(value)
    elif dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        if isinstance(settings, Plugin):
            yield settings
        for field in dataclasses.fields(settings):
            yield from plugins_in(getattr(settings, field.name))
