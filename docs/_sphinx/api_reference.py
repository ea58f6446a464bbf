"""A directive `{api} MODULE`: classes and functions of a module, from its docstrings.

The source is parsed and not imported, so the site builds without torch. Docstrings are Markdown
with sections `Args`, `Returns`, `Raises` and `Attributes`, which become lists.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):$")
ENTRY = re.compile(r"^(\*{0,2}\w+): ")


def module_file(root: Path, module: str) -> Path:
    """The source of a module or package."""
    path = root.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def as_markdown(docstring: str) -> str:
    """A docstring with its sections as headed lists."""
    lines: list[str] = []
    section = ""
    for line in inspect.cleandoc(docstring).splitlines():
        if heading := SECTION.match(line):
            section = heading[1]
            lines += [f"**{section}**", ""]
        elif section and line and not line.startswith(" "):
            section = ""
            lines.append(line)
        elif section in ("Returns", "Yields"):
            lines.append(line[4:])
        elif section:
            text = line[4:]
            entry = ENTRY.match(text)
            lines.append(
                f"- `{entry[1]}`: {text[entry.end() :]}" if entry else f"  {text}".rstrip()
            )
        else:
            lines.append(line)
    return "\n".join(lines)


def signature(node: ast.FunctionDef, *, bound: bool) -> str:
    """Parameters and result of a function on one line, without `self` if it is bound."""
    arguments = node.args
    if bound and arguments.args:
        arguments = ast.arguments(
            posonlyargs=arguments.posonlyargs,
            args=arguments.args[1:],
            vararg=arguments.vararg,
            kwonlyargs=arguments.kwonlyargs,
            kw_defaults=arguments.kw_defaults,
            kwarg=arguments.kwarg,
            defaults=arguments.defaults,
        )
    result = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"({ast.unparse(arguments)}){result}"


def fields(node: ast.ClassDef) -> str:
    """Fields of a dataclass as the parameters of its constructor."""
    written = [
        f"{item.target.id}={_default(item.value)}" if item.value else item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and not item.target.id.startswith("_")
        and not ast.unparse(item.annotation).startswith("ClassVar")
    ]
    return f"({', '.join(written)})" if written else ""


def _default(value: ast.expr) -> str:
    """A default; of a factory, what it makes."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        for keyword in value.keywords:
            if keyword.arg == "default_factory":
                factory = keyword.value
                return (
                    ast.unparse(factory.body)
                    if isinstance(factory, ast.Lambda)
                    else f"{ast.unparse(factory)}()"
                )
    return ast.unparse(value)


def entries(source: str, module: str) -> Iterator[str]:
    """Public classes and functions of a source, as directives of Sphinx's Python domain."""
    for node in ast.parse(source).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        text = ast.get_docstring(node, clean=False)
        if not text:
            continue
        if isinstance(node, ast.FunctionDef):
            kind, shown = "function", f"{node.name}{signature(node, bound=False)}"
        else:
            kind, shown = "class", f"{node.name}{fields(node)}"
        body = as_markdown(text)
        if isinstance(node, ast.ClassDef):
            body += "".join(f"\n\n{method}" for method in methods(node))
        yield f"::::{{py:{kind}}} {shown}\n:module: {module}\n\n{body}\n::::"


def methods(node: ast.ClassDef) -> Iterator[str]:
    """The public methods and properties of a class that have a docstring."""
    for item in node.body:
        if not isinstance(item, ast.FunctionDef) or item.name.startswith("_"):
            continue
        if text := ast.get_docstring(item, clean=False):
            is_property = any(ast.unparse(d) == "property" for d in item.decorator_list)
            shown = item.name if is_property else f"{item.name}{signature(item, bound=True)}"
            kind = "property" if is_property else "method"
            yield f":::{{py:{kind}}} {shown}\n{as_markdown(text)}\n:::"


class Api(SphinxDirective):
    """The entries of one module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = self.arguments[0]
        path = module_file(Path(self.env.srcdir).parent, module)
        self.env.note_dependency(str(path))
        text = "\n\n".join(entries(path.read_text(encoding="utf-8"), module))
        if not text:
            raise self.error(f"{module} has nothing public with a docstring")
        container = nodes.container()
        self.state.nested_parse(StringList(text.splitlines(), str(path)), 0, container)
        return container.children


def setup(app: Sphinx) -> dict[str, object]:
    """Register the directive with Sphinx."""
    app.add_directive("api", Api)
    return {"parallel_read_safe": True}
