"""Plug-ins of installed packages: entry points in one group for each key of a recipe."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, distributions

from reasontrain.plugins.source import PackageSource
from reasontrain.types import UserError

PREFIX = "reasontrain."
"""A group is this and the recipe's key: `reasontrain.token_selection`."""


def installed_names(key: str) -> tuple[str, ...]:
    """Names of the entry points for a key of the recipe, in alphabetical order."""
    return tuple(sorted({entry.name for entry in _entries(key)}))


def installed(key: str, name: str) -> tuple[PackageSource, str]:
    """The source of an entry point, and the name of its class.

    Raises:
        UserError: several packages have the name, or it names no class.
    """
    entries = _named(key, name)
    if len(entries) > 1:
        raise UserError(_several(name, _owners(entries)))
    (entry,) = entries
    if not entry.attr or "." in entry.attr:
        raise UserError(
            f"{_distribution(entry)}: the entry point {name} of {PREFIX}{key} is {entry.value!r}; "
            "expected MODULE:CLASS"
        )
    return PackageSource(entry.module, _distribution(entry)), entry.attr


def clash(key: str, name: str) -> str | None:
    """The error of a kind of this package that another one defines too; None if none does."""
    entries = _named(key, name)
    return _several(name, ["reasontrain itself", *_owners(entries)]) if entries else None


def _named(key: str, name: str) -> list[EntryPoint]:
    """The entry points of a name, without repeated ones."""
    return list({entry.value: entry for entry in _entries(key) if entry.name == name}.values())


def _owners(entries: list[EntryPoint]) -> list[str]:
    return sorted(f"{_distribution(entry)} ({entry.value})" for entry in entries)


def _several(name: str, owners: list[str]) -> str:
    return (
        f"the kind {name!r} is defined by {' and by '.join(owners)}; uninstall one of them, or "
        "name the class by its file"
    )


def _entries(key: str) -> list[EntryPoint]:
    return [entry for entry in _all() if entry.group == PREFIX + key]


@cache
def _all() -> tuple[EntryPoint, ...]:
    """The entry points of all groups; reading them takes a moment."""
    return tuple(
        entry
        for distribution in distributions()
        for entry in distribution.entry_points
        if entry.group.startswith(PREFIX)
    )


def _distribution(entry: EntryPoint) -> str:
    return "an unknown package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
