"""The files that a user's Python file consists of: itself and what it imports beside it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def with_imports(path: Path, root: Path | None = None) -> tuple[Path, ...]:
    """A Python file and the modules of a folder that it imports, directly or through others.

    Modules found elsewhere on the path are installed software and are left out. A file that cannot
    be read or parsed imports nothing: loading it tells why.

    Args:
        path: the file.
        root: the folder that imports start from; None: the file's own.
    """
    root = path.parent if root is None else root
    files = [*_packages(path, root), path]
    for file in files:  # grows while it is read
        for name in _imported(file, root):
            parts = root.joinpath(*name.split("."))
            for candidate in (parts.with_suffix(".py"), parts / "__init__.py"):
                if candidate.is_file() and candidate not in files:
                    files.append(candidate)
    files.remove(path)
    return path, *files


def root_of(path: Path) -> Path:
    """The folder that absolute imports of a file's neighbours start from."""
    folder = path.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def module_name(path: Path, root: Path) -> str:
    """The dotted name of a file below the folder that imports start from."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _packages(path: Path, root: Path) -> list[Path]:
    """The `__init__.py` of every package that a file is in."""
    inside = path.parent.relative_to(root).parts
    return [root.joinpath(*inside[:end]) / "__init__.py" for end in range(1, len(inside) + 1)]


def _imported(file: Path, root: Path) -> Iterator[str]:
    """Dotted names that a file imports, each with the packages that it is in."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    package = file.parent.relative_to(root).parts
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            names = [f"{module}.{alias.name}".strip(".") for alias in node.names] + [module]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1) if name)
