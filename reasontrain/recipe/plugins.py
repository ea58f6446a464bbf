"""Reading of plug-ins: the same types, bounds and errors as for the settings of built-in kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import get_args

from pydantic import TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, SchemaValidator, core_schema

from reasontrain.plugins import (
    READER,
    Component,
    FileSource,
    clash,
    component_of,
    is_plugin_kind,
    load_class,
    plugins_in,
)
from reasontrain.recipe.constraints import BUILT_IN
from reasontrain.types import UserError

SHAPE = "FILE.py:CLASS"
"""The form of a kind of a file, as messages show it."""
_VALIDATORS: dict[type, SchemaValidator] = {}


@dataclass(frozen=True)
class PluginReader:
    """Builds the plug-ins of one recipe.

    Attributes:
        folder: the recipe's folder, from which relative files are found.
        prepare: makes a settings class refuse unknown keys.
    """

    folder: Path
    prepare: Callable[[type], None]

    def build(self, component: Component, settings: object) -> object:
        """The plug-in with these settings; raise ValidationError if they are not valid."""
        kind = settings.get("kind") if isinstance(settings, Mapping) else None
        if not isinstance(kind, str) or not _is_of_plugin(component, kind):
            raise _error("literal_error", ("kind",), kind, {"expected": repr(SHAPE)})
        try:
            cls = load_class(component, kind, self.folder)
            validator = self._validator(cls, kind)
        except UserError as error:
            raise _plugin_error(("kind",), kind, str(error)) from error
        plugin: object = validator.validate_python(settings)
        if component.check is not None and (fault := _checked(component.check, plugin)):
            raise _plugin_error(("kind",), kind, f"{kind} is not {component.noun}: {fault}")
        return plugin

    def _validator(self, cls: type, kind: str) -> SchemaValidator:
        """A validator of a plug-in's settings, whose errors name the kind as those of unions do."""
        if cls not in _VALIDATORS:
            try:
                self.prepare(cls)
                schema = TypeAdapter(cls).core_schema
            except Exception as error:
                raise UserError(
                    f"{kind}: its settings have no types that a recipe can be read with: "
                    f"{type(error).__name__}: {error}"
                ) from error
            _VALIDATORS[cls] = SchemaValidator(
                core_schema.tagged_union_schema({kind: schema}, discriminator="kind")
            )
        return _VALIDATORS[cls]


def _checked(check: Callable[[object], str | None], plugin: object) -> str | None:
    """The fault that a check finds, or the exception that the plug-in raises meanwhile."""
    try:
        return check(plugin)
    except Exception as error:
        return f"it raised {type(error).__name__}: {error}"


@contextmanager
def reading(folder: Path, prepare: Callable[[type], None]) -> Iterator[None]:
    """Find the files of plug-ins from a folder, within a block."""
    token = READER.set(PluginReader(folder, prepare))
    try:
        yield
    finally:
        READER.reset(token)


def folder_of(recipe: object) -> Path | None:
    """The folder from which the files of a recipe's plug-ins were found; None if it has none."""
    sources = (plugin.plugin_source for plugin in plugins_in(recipe))
    return next((Path(each.folder) for each in sources if isinstance(each, FileSource)), None)


def plugin_class(annotation: object, kind: object) -> type | None:
    """The class of a plug-in that a kind names at a place of this type; None if it names none.

    None too if it cannot be loaded, which is an error of its own when the recipe is built.
    """
    reader = READER.get(None)
    component = plugins_at(annotation)
    if (
        not isinstance(reader, PluginReader)
        or component is None
        or not isinstance(kind, str)
        or not _is_of_plugin(component, kind)
    ):
        return None
    try:
        return load_class(component, kind, reader.folder)
    except UserError:
        return None


def plugins_at(annotation: object) -> Component | None:
    """The component whose plug-ins this type takes, without looking inside settings classes."""
    if (component := component_of(annotation)) is not None:
        return component
    if isinstance(annotation, type):
        return None
    return next(filter(None, map(plugins_at, get_args(annotation))), None)


def clashes(settings: object) -> Iterator[str]:
    """Errors of built-in kinds, at any depth, which an installed package defines too."""
    if isinstance(settings, Mapping | list | tuple):
        for value in settings.values() if isinstance(settings, Mapping) else settings:
            yield from clashes(value)
    elif is_dataclass(settings) and not isinstance(settings, type):
        for key, classes in BUILT_IN.items():
            for kind, cls in classes.items():
                if type(settings) is cls and (error := clash(key, kind)) is not None:
                    yield f"{key}: {error}"
        for field in fields(settings):
            yield from clashes(getattr(settings, field.name))


def _is_of_plugin(component: Component, kind: str) -> bool:
    return kind not in BUILT_IN.get(component.key, {}) and is_plugin_kind(component, kind)


def _plugin_error(loc: tuple[str, ...], value: object, reason: str) -> ValidationError:
    # The text is an argument, because braces in a template are placeholders.
    custom = PydanticCustomError("plugin", "{reason}", {"reason": reason})
    details = InitErrorDetails(type=custom, loc=loc, input=value)
    return ValidationError.from_exception_data("plug-in", [details])


def _error(
    kind: str, loc: tuple[str, ...], value: object, context: dict[str, object]
) -> ValidationError:
    details = InitErrorDetails(type=kind, loc=loc, input=value, ctx=context)
    return ValidationError.from_exception_data("plug-in", [details])
