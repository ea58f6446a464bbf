"""Reading of recipes: from YAML to a typed `Recipe`, or an error that lists every wrong key."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar, cast, get_args

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from reasontrain.algo.custom_evidence import declare_custom
from reasontrain.plugins import installed_names
from reasontrain.recipe.plugins import SHAPE, clashes, plugin_class, plugins_at, reading
from reasontrain.recipe.renamed import new_key, new_value
from reasontrain.recipe.settings import Recipe, RecipeError
from reasontrain.recipe.validation import custom_evidence_errors, validation_errors
from reasontrain.recipe.yaml_text import YamlValue, dump, load, read_yaml
from reasontrain.types import UserError, did_you_mean

logger = logging.getLogger(__name__)

T = TypeVar("T")
SHOWN_CHARACTERS = 80
"""Longest part of a wrong value that an error repeats."""
_ADAPTERS: dict[type, TypeAdapter[object]] = {}


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in this file, with `key.path=value` overrides applied before validation."""
    return recipe_of(read_yaml(path), overrides, str(path), folder=path.parent)


def json_schema() -> str:
    """The JSON schema of recipes, for editors.

    It holds types, choices and bounds; what settings must agree on is checked by `read_recipe`
    alone.
    """
    _learn(Recipe)
    schema = _ADAPTERS[Recipe].json_schema()
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps({**draft, **schema}, indent=1, ensure_ascii=False) + "\n"


def recipe_of(
    content: dict[str, YamlValue],
    overrides: Sequence[str],
    source: str,
    *,
    folder: Path | None = None,
) -> Recipe:
    """The recipe with these settings, with overrides applied before validation.

    Args:
        content: The settings.
        overrides: Their changes, each as `key.path=value`.
        source: Name of the settings in errors.
        folder: Where the files of plug-ins are; None: the current folder.

    Raises:
        RecipeError: The settings are no recipe; the message lists all errors.
        UserError: An override is none.
    """
    folder = folder or Path()
    with reading(folder, _forbid_unknown_keys):
        content = apply_overrides(content, overrides)
    recipe = build(Recipe, content, source, folder=folder)
    errors = [*clashes(recipe), *custom_evidence_errors(recipe)]
    if not errors:  # other rules look the evidence up
        declare_custom(recipe.custom_evidence)
        errors = validation_errors(recipe)
    if errors:
        raise RecipeError(_listing(source, errors))
    return recipe


def apply_overrides(
    content: dict[str, YamlValue], overrides: Sequence[str], cls: type = Recipe
) -> dict[str, YamlValue]:
    """The mapping with each `key.path=value` set; values are YAML, and numbers index lists.

    Another `kind` keeps the settings of its section that it has too; the others are dropped, and
    named in the log.

    Args:
        content: The settings of a file.
        overrides: Their changes.
        cls: The settings class, from which the kinds of a section are known.
    """
    result = copy.deepcopy(content)
    # Overrides of `kind` come first, because they drop settings.
    for override in sorted(
        overrides, key=lambda text: not text.partition("=")[0].endswith(".kind")
    ):
        key, sign, text = override.partition("=")
        if not sign or not all(key.split(".")):
            raise UserError(
                f"{override!r} is no override; write key.path=value, as in learn.lr=1.0e-5"
            )
        try:
            value = load(text)
        except yaml.YAMLError:
            value = text
        *parents, last = key.split(".")
        node: YamlValue = result
        annotation: object = cls
        for parent in parents:
            annotation = _annotation(annotation, node, parent)
            node = _child(node, parent, override)
        if last == "kind" and isinstance(node, dict) and node.get("kind") != value:
            _drop_other_kind(node, annotation, override, value)
        _set(node, last, value, override)
    return result


def _child(node: YamlValue, key: str, override: str) -> YamlValue:
    """The section or list at a key, created if nothing is there."""
    if isinstance(node, list):
        child = node[_index(node, key, override)]
    else:
        assert isinstance(node, dict), "checked one step before"
        child = node.setdefault(key, {})
        if child is None:
            child = node[key] = {}
    if not isinstance(child, dict | list):
        raise UserError(f"{override!r}: {key} is not a section, but {_short(child)}")
    return child


def _set(node: YamlValue, key: str, value: YamlValue, override: str) -> None:
    if isinstance(node, list):
        node[_index(node, key, override)] = value
    elif isinstance(node, dict):
        node[key] = value


def _index(items: list[YamlValue], key: str, override: str) -> int:
    """The index that a part of a key is; UserError if there is no such item."""
    if not (key.isascii() and key.isdigit() and int(key) < len(items)):
        raise UserError(
            f"{override!r}: {key} is no item of a list of {len(items)}; they are counted from 0"
        )
    return int(key)


def _annotation(annotation: object, node: YamlValue, key: str) -> object:
    """The annotation one step along a key: the type of a field; a list has that of its items."""
    if isinstance(node, list):
        return annotation
    kind = node.get("kind") if isinstance(node, dict) else None
    candidates = _settings_at(annotation, kind)
    for candidate in candidates:
        hints = _hints(candidate)
        if key in hints and (len(candidates) == 1 or kind in get_args(hints.get("kind"))):
            return hints[key]
    return None


def _drop_other_kind(
    section: dict[str, YamlValue], annotation: object, override: str, kind: YamlValue
) -> None:
    """Remove the settings that another kind does not take, and name them."""
    for candidate in _settings_at(annotation, kind):
        hints = _hints(candidate)
        if kind in get_args(hints.get("kind")):
            dropped = [
                key
                for key, value in section.items()
                if key != "kind" and (key not in hints or not _fits(value, hints[key]))
            ]
            for key in dropped:
                del section[key]
            if dropped:
                logger.info(f"{override}: dropped {', '.join(dropped)}, which {kind} does not take")


def _fits(value: YamlValue, hint: object) -> bool:
    """False if the other kind's setting of this name takes other values: a schedule, a number."""
    return _value_error(value, hint) is None


def _value_error(value: object, hint: object) -> str | None:
    """The reason why a setting of this type cannot have this value; None if it can."""
    try:
        TypeAdapter(cast("type[object]", hint)).validate_python(value)
    except ValidationError as error:
        return f"{error.errors()[0]['msg']} (got {_short(value)})"
    return None


def setting_error(cls: type, key: str, value: object) -> str | None:
    """The reason why this key of a settings dataclass cannot have this value; None if it can."""
    return _value_error(value, _hints(cls)[key])


def build(
    cls: type[T], content: Mapping[str, YamlValue], source: str, *, folder: Path | None = None
) -> T:
    """An instance of a settings dataclass.

    Args:
        cls: The class.
        content: The settings.
        source: Name of the settings in errors.
        folder: Where the files of plug-ins are; None: the current folder.

    Raises:
        RecipeError: The settings are not valid; the message lists all errors.
    """
    with reading(folder or Path(), _forbid_unknown_keys):
        try:
            _learn(cls)
            built = _ADAPTERS[cls].validate_python(content)
        except RecursionError:
            raise RecipeError(f"{source} is not a recipe: it is nested too deeply") from None
        except ValidationError as error:
            raise RecipeError(
                _listing(source, [_explain(cls, detail) for detail in _meant(error.errors())])
            ) from error
    assert isinstance(built, cls), "pydantic makes what it was asked for"
    if errors := list(_flags_as_numbers(built, content, "")):
        raise RecipeError(_listing(source, errors))
    return built


def as_mapping(settings: object) -> dict[str, YamlValue]:
    """A settings dataclass as plain YAML values; defaults included."""
    _learn(type(settings))
    dumped: dict[str, YamlValue] = _ADAPTERS[type(settings)].dump_python(settings, mode="json")
    return dumped


def as_yaml(settings: object) -> str:
    """The resolved settings as YAML, for `reasontrain show` and for run directories."""
    return dump(as_mapping(settings))


def _learn(cls: type) -> None:
    """Create the adapter of a settings dataclass once; creating one is slower than using it."""
    if cls not in _ADAPTERS:
        _forbid_unknown_keys(cls)
        _ADAPTERS[cls] = TypeAdapter(cls)


def _forbid_unknown_keys(cls: type) -> None:
    """Turn unknown keys into errors everywhere below `cls`.

    pydantic reads `__pydantic_config__` of standard dataclasses.
    """
    for settings in _settings_classes(cls):
        settings.__pydantic_config__ = ConfigDict(  # type: ignore[attr-defined]
            extra="forbid", allow_inf_nan=False
        )


def _settings_classes(annotation: object) -> Iterator[type]:
    """Every dataclass that can occur in a value of this type."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        yield annotation
        hints = typing.get_type_hints(annotation, include_extras=True)
        for f in dataclasses.fields(annotation):
            yield from _settings_classes(hints[f.name])
    else:
        for argument in get_args(annotation):
            yield from _settings_classes(argument)


@cache
def _hints(cls: type) -> Mapping[str, object]:
    """The types of a class's fields, by name; looking them up is slow."""
    return typing.get_type_hints(cls, include_extras=True)


def _listing(source: str, reasons: Sequence[str]) -> str:
    """The text of an error: one line per reason."""
    lines = dict.fromkeys(f"  {reason}" for reason in reasons)  # members of a union may agree
    return "\n".join([f"{source} is not a recipe:", *lines])


def _flags_as_numbers(built: object, content: object, at: str) -> Iterator[str]:
    """Errors of `true` and `false` where a number is expected, for which pydantic takes 1 and 0."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            inner = (built if isinstance(built, dict) else vars(built)).get(key)
            yield from _flags_as_numbers(inner, value, f"{at}.{key}" if at else str(key))
    elif isinstance(content, list) and isinstance(built, list | tuple):
        for index, (inner, value) in enumerate(zip(built, content, strict=False)):
            yield from _flags_as_numbers(inner, value, f"{at}.{index}")
    elif (
        isinstance(content, bool) and isinstance(built, int | float) and not isinstance(built, bool)
    ):
        yield f"{at}: a number is expected (got {str(content).lower()})"


def _meant(details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """The errors, without those of union members that have another `kind`.

    If no member has the kind, all errors are returned.
    """
    others = {
        detail["loc"][:-1]
        for detail in details
        if detail["type"] == "literal_error" and detail["loc"][-1] == "kind"
    }
    meant = [
        detail
        for detail in details
        if detail["loc"][: _depth(detail["loc"], others)] not in others
        # pydantic counts the items that are right
        and not (detail["type"] == "too_short" and _has_errors_below(detail["loc"], details))
        # a section where a file's name could stand too is meant as the section
        and not (detail["type"] == "string_type" and _has_kind(detail["input"]))
    ]
    return _without_renamed(meant or details)


def _has_errors_below(loc: tuple[int | str, ...], details: Sequence[ErrorDetails]) -> bool:
    return any(len(each["loc"]) > len(loc) and each["loc"][: len(loc)] == loc for each in details)


def _has_kind(value: object) -> bool:
    return isinstance(value, Mapping) and "kind" in value


def _without_renamed(details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """The errors without those of keys that are missing because the old name is used."""
    renamed = {
        (*detail["loc"][:-1], new_key(detail["loc"]))
        for detail in details
        if detail["type"] == "unexpected_keyword_argument"
    }
    return [
        detail
        for detail in details
        if not (detail["type"].startswith("missing") and detail["loc"] in renamed)
    ]


def _depth(loc: tuple[int | str, ...], prefixes: set[tuple[int | str, ...]]) -> int:
    """Length of the first prefix that the location starts with; its own length if there is none."""
    return next((len(prefix) for prefix in prefixes if loc[: len(prefix)] == prefix), len(loc))


def _explain(cls: type, detail: ErrorDetails) -> str:
    """One line for one validation error."""
    location = _location(cls, detail)
    value = detail["input"]
    match detail["type"]:
        case "unexpected_keyword_argument":
            if (renamed := new_key(detail["loc"])) is not None:
                return f"{location}: renamed; use `{renamed}`"
            return f"{location}: no such setting{_suggestion(cls, detail['loc'])}"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return f"{location}: is needed"
        case "plugin":
            return f"{location}: {detail['msg']}"
        case "union_tag_not_found":
            return f"{location}: `kind` is needed, to say which"
        case "union_tag_invalid":
            context = detail["ctx"]
            if (renamed := new_value(detail["loc"], context["tag"])) is not None:
                return f"{location}.kind: {_short(context['tag'])} was renamed; use `{renamed}`"
            options = [option.strip(" '") for option in str(context["expected_tags"]).split(",")]
            near = did_you_mean(str(context["tag"]), options)
            if (component := plugins_at(_annotation_at(cls, detail["loc"]))) is not None:
                options += [*installed_names(component.key), SHAPE]
            return (
                f"{location}.kind: no such kind {_short(context['tag'])}{near}; there is "
                f"{', '.join(options)}"
            )
        case "literal_error" if (renamed := new_value(detail["loc"], value)) is not None:
            return f"{location}: {_short(value)} was renamed; use `{renamed}`"
        case "string_pattern_mismatch":
            return (
                f"{location}: {_short(value)} is not a name; use letters, digits, `_`, `-` and "
                "`.`, with a letter, a digit or `_` at the start"
            )
        case "value_error":
            return f"{location}: {detail['msg'].removeprefix('Value error, ')}"
        case _:
            return f"{location}: {detail['msg']} (got {_short(value)})"


def _short(value: object) -> str:
    """A value as an error shows it."""
    if isinstance(value, dict):
        return "a section"
    shown = repr(value)
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}..."


def _location(cls: type, detail: ErrorDetails) -> str:
    """The key of an error as it stands in the file: without the members of unions."""
    shown: list[str] = []
    annotation: object = cls
    loc = detail["loc"]
    for number, part in enumerate(loc):
        candidates = _settings_at(annotation)
        inner = _value_type(annotation)
        tag = plugin_class(annotation, part) is not None or (
            len(candidates) > 1 and any(part in get_args(_hints(c).get("kind")) for c in candidates)
        )
        field = not tag and (
            any(part in _hints(candidate) for candidate in candidates)
            or (part == "kind" and plugins_at(annotation) is not None)
        )
        unknown = detail["type"] == "unexpected_keyword_argument" and number == len(loc) - 1
        if unknown or inner is not None or field or isinstance(part, int):
            plain = str(part) == str(part).strip() != "" and str(part).isprintable()
            shown.append(str(part) if plain else repr(part))
        if inner is not None:
            annotation = inner
        elif not isinstance(part, int):
            annotation = _descend(annotation, part)
    return ".".join(shown) or "the recipe"


def _value_type(annotation: object) -> object | None:
    """The type of a mapping's values; None for a type that is not a mapping."""
    if typing.get_origin(annotation) is dict:
        return get_args(annotation)[1]
    types = (_value_type(argument) for argument in get_args(annotation))
    return next((value for value in types if value is not None), None)


def _suggestion(cls: type, loc: tuple[int | str, ...]) -> str:
    """A suggestion for an unknown key, from the fields of the class it was set on."""
    node = _annotation_at(cls, loc[:-1])
    fields = [f.name for candidate in _settings_at(node) for f in dataclasses.fields(candidate)]
    return did_you_mean(str(loc[-1]), fields) or (
        f"; there is {', '.join(fields)}" if fields else ""
    )


def _annotation_at(cls: type, loc: Sequence[int | str]) -> object:
    """The annotation at the end of an error's location."""
    node: object = cls
    for part in loc:
        node = _descend(node, part)
    return node


def _settings_at(annotation: object, kind: object = None) -> list[type]:
    """The settings dataclasses that this annotation names, without looking inside them.

    A `kind` of a plug-in names one class alone.
    """
    if (plugin := plugin_class(annotation, kind)) is not None:
        return [plugin]
    if isinstance(annotation, type):
        return [annotation] if dataclasses.is_dataclass(annotation) else []
    return [cls for argument in get_args(annotation) for cls in _settings_at(argument)]


def _descend(annotation: object, part: int | str) -> object:
    """The annotation one step further along an error's location: a field, a `kind` or an index."""
    if (plugin := plugin_class(annotation, part)) is not None:
        return plugin
    candidates = _settings_at(annotation)
    for candidate in candidates:
        hints = _hints(candidate)
        if part in hints and len(candidates) == 1:
            return hints[str(part)]
        if part in get_args(hints.get("kind")):
            return candidate
    return annotation


def changed_keys(
    first: Mapping[str, YamlValue], second: Mapping[str, YamlValue], prefix: str = ""
) -> list[str]:
    """Dotted keys at which two resolved recipes differ."""
    changed = []
    for key in sorted({*first, *second}):
        a = first.get(key)
        b = second.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            changed += changed_keys(a, b, f"{prefix}{key}.")
        elif a != b:
            changed.append(f"{prefix}{key}")
    return changed
