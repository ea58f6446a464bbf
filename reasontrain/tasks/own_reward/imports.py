"""The files that the user's reward function consists of."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def with_imports(path: Path) -> tuple[Path, ...]:
    """A Python file and the modules of its folder that it imports, directly or through others.

    Modules found elsewhere on the path are installed software and are left out. A file that cannot
    be read or parsed imports nothing: loading it tells why.
    """
    folder = path.parent
    files = [path]
    for file in files:  # grows while it is read
        for name in _imported(file):
            parts = folder.joinpath(*name.split("."))
            for candidate in (parts.with_suffix(".py"), parts / "__init__.py"):
                if candidate.is_file() and candidate not in files:
                    files.append(candidate)
    return tuple(files)


def _imported(file: Path) -> Iterator[str]:
    """Dotted names that a file imports, each with the packages that it is in."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{alias.name}".strip(".") for alias in node.names] + [module]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1) if name)
