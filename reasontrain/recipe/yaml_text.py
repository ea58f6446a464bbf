"""YAML as recipes are written in: numbers such as 1e-3, and no key that is silently overwritten."""

from __future__ import annotations

import re
import typing
from collections.abc import Hashable
from pathlib import Path
from typing import TypeAlias

import yaml

from reasontrain import resources
from reasontrain.types import UserError

if typing.TYPE_CHECKING:
    YamlValue: TypeAlias = (
        bool | int | float | str | list["YamlValue"] | dict[str, "YamlValue"] | None
    )
else:  # run-time type checkers cannot resolve a recursive alias from another module
    YamlValue = bool | int | float | str | list | dict | None

MOST_VALUES = 100_000
"""Largest number of values in a file, with those that aliases repeat."""
_EXPONENT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+", re.ASCII
)
"""Floats of YAML 1.2 and JSON that PyYAML reads as text, because YAML 1.1 wants `1.0e-3`."""


class _Loader(yaml.SafeLoader):
    """Safe YAML 1.1, stricter where that would change a setting without a word."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        """A mapping whose keys are text, each written once (a merged key may be set again)."""
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            line = key_node.start_mark.line + 1
            if key_node.tag != "tag:yaml.org,2002:str":
                raise _refused(key_node, f"the key {_text(key_node)} is not text; quote it")
            if key_node.value in lines:
                before = lines[key_node.value]
                raise _refused(
                    key_node,
                    f"`{key_node.value}` is set twice, in line {before} and in line {line}",
                )
            lines[key_node.value] = line
        return super().construct_mapping(node, deep=deep)


def _int(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    """An integer; text for 1:30, which YAML 1.1 reads as 90."""
    if ":" in node.value:
        return str(node.value)
    if re.fullmatch(r"[-+]?0[0-9_]+", node.value):
        raise _refused(node, f"{node.value} is octal in YAML 1.1; write it without the zero")
    return loader.construct_yaml_int(node)


def _float(loader: _Loader, node: yaml.ScalarNode) -> float | str:
    """A float; text for 1:30.5."""
    return str(node.value) if ":" in node.value else loader.construct_yaml_float(node)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads as the same values."""

    def ignore_aliases(self, data: object) -> bool:
        """Write a value that occurs twice twice."""
        return True


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789."))
_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def load(content: str | bytes) -> YamlValue:
    """The value of a YAML text, in which no part is shared with another.

    Raises:
        yaml.YAMLError: The text is not YAML, or would be misread.
    """
    try:
        loader = _Loader(content)
        try:
            return _unshared(loader.get_single_data(), [MOST_VALUES], ())
        finally:
            loader.dispose()
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except (ValueError, OverflowError) as error:  # an impossible date, a number with 5000 digits
        raise yaml.YAMLError(str(error)) from None


def dump(value: YamlValue) -> str:
    """The text of a value; `load` gives the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def read_yaml(path: Path) -> dict[str, YamlValue]:
    """A mapping from a YAML file, safely loaded."""
    try:
        content = load(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"there is no file {path}{resources.copy_advice(path)}") from None
    except (OSError, ValueError) as error:  # a ValueError: the name has a zero byte
        raise UserError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {_reason(error)}") from None
    if not isinstance(content, dict):
        is_what = "empty" if content is None else f"a {type(content).__name__}"
        raise UserError(
            f"{path} is not a recipe: a mapping of settings is expected, it is {is_what}"
        )
    return content


def _reason(error: yaml.YAMLError) -> str:
    """One line of an error of PyYAML, with the line of the file."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        mark = error.problem_mark
        context = f"{error.context}: " if error.context else ""
        return f"line {mark.line + 1}, column {mark.column + 1}: {context}{error.problem}"
    return " ".join(str(error).split())


def _refused(node: yaml.Node, reason: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=reason, problem_mark=node.start_mark)


def _text(node: yaml.Node) -> str:
    return f"`{node.value}`" if isinstance(node, yaml.ScalarNode) else "that is a list or a section"


def _unshared(value: object, left: list[int], parents: tuple[int, ...]) -> YamlValue:
    """A copy in which aliases are values of their own, so that an override changes one of them.

    Args:
        value: What PyYAML made.
        left: The number of values that may still be copied.
        parents: The ids of the values around this one.
    """
    left[0] -= 1
    if left[0] < 0:
        raise yaml.YAMLError(f"it has more than {MOST_VALUES:,} values")
    if id(value) in parents:
        raise yaml.YAMLError("an anchor contains itself")
    if isinstance(value, dict):
        return {key: _unshared(v, left, (*parents, id(value))) for key, v in value.items()}
    if isinstance(value, list):
        return [_unshared(v, left, (*parents, id(value))) for v in value]
    return value  # type: ignore[return-value]  # or a date or bytes, which no setting takes
