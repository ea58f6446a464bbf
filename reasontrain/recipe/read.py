"""Reading of recipes: from YAML to a typed `Recipe`, or an error that lists every wrong key."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar, get_args

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from reasontrain.recipe.renamed import new_key, new_value
from reasontrain.recipe.settings import Recipe, RecipeError
from reasontrain.recipe.validation import validation_errors
from reasontrain.types import UserError

T = TypeVar("T")
if typing.TYPE_CHECKING:
    YamlValue: TypeAlias = (
        bool | int | float | str | list["YamlValue"] | dict[str, "YamlValue"] | None
    )
else:  # run-time type checkers cannot resolve a recursive alias from another module
    YamlValue = bool | int | float | str | list | dict | None
_ADAPTERS: dict[type, TypeAdapter[object]] = {}


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in this file, with `key.path=value` overrides applied before validation."""
    return recipe_of(read_yaml(path), overrides, str(path))


def recipe_of(content: dict[str, YamlValue], overrides: Sequence[str], source: str) -> Recipe:
    """The recipe with these settings, with overrides applied before validation.

    `source` names the settings in errors. Raises RecipeError that lists all errors.
    """
    recipe = build(Recipe, apply_overrides(content, overrides), source)
    if errors := validation_errors(recipe):
        raise RecipeError(_listing(source, errors))
    return recipe


def read_yaml(path: Path) -> dict[str, YamlValue]:
    """A mapping from a YAML file, safely loaded."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path} is not a recipe: a mapping of settings is expected, found "
            f"{type(content).__name__}"
        )
    return content


def apply_overrides(
    content: dict[str, YamlValue], overrides: Sequence[str]
) -> dict[str, YamlValue]:
    """The mapping with each `key.path=value` set.

    Values are YAML. Entries of a list are keys by their place, counted from 0.
    """
    result: dict[str, YamlValue] = yaml.safe_load(yaml.safe_dump(content))
    # Overrides of `kind` come first, because a new kind clears the settings of its section.
    for override in sorted(
        overrides, key=lambda text: not text.partition("=")[0].endswith(".kind")
    ):
        key, sign, text = override.partition("=")
        if not sign or not all(key.split(".")):
            raise UserError(
                f"{override!r} is no override; write key.path=value, as in learn.lr=1.0e-5"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        *parents, last = key.split(".")
        node: dict[str, YamlValue] | list[YamlValue] = result
        for parent in parents:
            node = _section(node, parent, override)
        if isinstance(node, list):
            node[_index(node, last, override)] = value
            continue
        if last == "kind" and node.get("kind") != value:
            node.clear()  # another kind has other settings
        node[last] = value
    return result


def _section(
    node: dict[str, YamlValue] | list[YamlValue], name: str, override: str
) -> dict[str, YamlValue] | list[YamlValue]:
    """The section or list of this name; a section that is absent or empty is created."""
    if isinstance(node, list):
        child = node[_index(node, name, override)]
    else:
        child = node.get(name)
        if child is None:
            child = node[name] = {}
    if not isinstance(child, dict | list):
        raise UserError(f"{override!r}: {name} is not a section, but {child!r}")
    return child


def _index(node: list[YamlValue], name: str, override: str) -> int:
    """The place in a list that an override names."""
    if not name.isdecimal() or int(name) >= len(node):
        raise UserError(
            f"{override!r}: {name} is no index of a list with {len(node)} entries, which are "
            f"counted from 0"
        )
    return int(name)


def build(cls: type[T], content: Mapping[str, YamlValue], source: str) -> T:
    """An instance of a settings dataclass; raises RecipeError with all errors of `content`."""
    try:
        _learn(cls)
        built = _ADAPTERS[cls].validate_python(content)
    except ValidationError as error:
        raise RecipeError(
            _listing(source, [_explain(cls, detail) for detail in _meant(error.errors())])
        ) from None
    assert isinstance(built, cls), "pydantic makes what it was asked for"
    return built


def as_mapping(settings: object) -> dict[str, YamlValue]:
    """A settings dataclass as plain YAML values; defaults included."""
    _learn(type(settings))
    dumped: dict[str, YamlValue] = _ADAPTERS[type(settings)].dump_python(settings, mode="json")
    return dumped


def as_yaml(settings: object) -> str:
    """The resolved settings as YAML, for `reasontrain show` and for run directories."""
    return yaml.safe_dump(as_mapping(settings), sort_keys=False, allow_unicode=True, width=120)


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
        settings.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]


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


def _listing(source: str, reasons: Sequence[str]) -> str:
    """The text of an error: one line per reason."""
    return "\n".join([f"{source} is not a recipe:", *(f"  {reason}" for reason in reasons)])


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
        detail for detail in details if detail["loc"][: _depth(detail["loc"], others)] not in others
    ]
    return _without_renamed(meant or details)


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
    location = ".".join(str(part) for part in detail["loc"])
    value = detail["input"]
    match detail["type"]:
        case "unexpected_keyword_argument":
            if (renamed := new_key(detail["loc"])) is not None:
                return f"{location}: renamed; use `{renamed}`"
            return f"{location}: no such setting{_did_you_mean(cls, detail['loc'])}"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return f"{location}: is needed"
        case "union_tag_not_found":
            return f"{location}: `kind` is needed, to say which"
        case "union_tag_invalid":
            context = detail["ctx"]
            if (renamed := new_value(detail["loc"], context["tag"])) is not None:
                return f"{location}.kind: {context['tag']!r} was renamed; use `{renamed}`"
            options = [option.strip(" '") for option in str(context["expected_tags"]).split(",")]
            near = _closest(str(context["tag"]), options)
            return (
                f"{location}.kind: no such kind {context['tag']!r}{near}; there is "
                f"{', '.join(options)}"
            )
        case "literal_error" if (renamed := new_value(detail["loc"], value)) is not None:
            return f"{location}: {value!r} was renamed; use `{renamed}`"
        case "value_error":
            return f"{location}: {detail['msg'].removeprefix('Value error, ')}"
        case _:
            shown = repr(value) if not isinstance(value, dict) else "a section"
            return f"{location}: {detail['msg']} (got {shown})"


def _did_you_mean(cls: type, loc: tuple[int | str, ...]) -> str:
    """A suggestion for an unknown key, from the fields of the class it was set on."""
    node: object = cls
    for part in loc[:-1]:
        node = _descend(node, part)
    fields = [f.name for candidate in _settings_at(node) for f in dataclasses.fields(candidate)]
    return _closest(str(loc[-1]), fields) or (f"; there is {', '.join(fields)}" if fields else "")


def _closest(word: str, options: Sequence[str]) -> str:
    """`; did you mean ...?` if an option is close enough, else an empty text."""
    near = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else ""


def _settings_at(annotation: object) -> list[type]:
    """The settings dataclasses that this annotation names, without looking inside them."""
    if isinstance(annotation, type):
        return [annotation] if dataclasses.is_dataclass(annotation) else []
    return [cls for argument in get_args(annotation) for cls in _settings_at(argument)]


def _descend(annotation: object, part: int | str) -> object:
    """The annotation one step further along an error's location: a field, a `kind` or an index."""
    candidates = _settings_at(annotation)
    for candidate in candidates:
        hints = typing.get_type_hints(candidate, include_extras=True)
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
