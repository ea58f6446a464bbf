"""Plug-ins: components of a recipe from a Python file or an installed package, as `kind` names them

`kind: FILE.py:CLASS` is a class of a file beside the recipe; another name may be an entry point of
an installed package, in the group `reasontrain.KEY` of the recipe's key. `load_class` loads a class
for any `Component`, which states what such a class must have.
"""

from __future__ import annotations

from reasontrain.plugins.component import (
    READER,
    Component,
    Plugin,
    Reader,
    component_of,
    json_schema,
    plugins_in,
)
from reasontrain.plugins.installed import PREFIX, clash, installed_names
from reasontrain.plugins.loading import COPIES, copies_root, is_plugin_kind, load_class
from reasontrain.plugins.source import FileSource, PackageSource, Source

__all__ = [
    "COPIES",
    "PREFIX",
    "READER",
    "Component",
    "FileSource",
    "PackageSource",
    "Plugin",
    "Reader",
    "Source",
    "clash",
    "component_of",
    "copies_root",
    "installed_names",
    "is_plugin_kind",
    "json_schema",
    "load_class",
    "plugins_in",
]
