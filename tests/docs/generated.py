"""Parts of the documents that are written from the source code; `make map` rewrites them.

A generated part stands between `<!-- NAME: written by ... -->` and `<!-- end of NAME -->`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from tests.test_architecture import ROOMS, ROOT

PACKAGE = ROOT / "reasontrain"
DETAILED = frozenset({"algo", "run"})
"""Packages whose modules and subpackages have rows of their own."""


def map_table() -> str:
    """The packages in the order of the architecture test, each with the first sentence of its
    docstring.
    """
    lines = ["| package | content |", "| --- | --- |"]
    for room in ROOMS:
        for index, path in enumerate(_entries(room)):
            indent = "&nbsp;&nbsp;" if index else ""  # modules of a detailed package
            name = path.relative_to(PACKAGE).as_posix()
            shown = f"{name}/" if path.is_dir() else name
            sentence = first_sentence(docstring(path))
            lines.append(f"| {indent}[`{shown}`](reasontrain/{name}) | {sentence} |")
    return "\n".join(lines)


def evidence_table() -> str:
    """The table of evidence: name, unit and definition."""
    from reasontrain.algo.evidence import EVIDENCE

    rows = [
        f"| `{row.name}` | {cell(row.description)} | {row.unit} | {row.source} |"
        for row in EVIDENCE.values()
    ]
    return "\n".join(
        ["| evidence | definition | unit | measured by |", "| --- | --- | --- | --- |", *rows]
    )


def templates_table() -> str:
    """The table of chat templates: what is learned, and what ends a turn."""
    from tests import chat_templates

    return chat_templates.templates_table()


def architecture_table() -> str:
    """Twenty architectures and what each can do, tried."""
    from tests import architectures  # transformers' models take seconds to import

    return architectures.table()


def scorers_table() -> str:
    """The verifier beside others, from figures that `tests.docs.scorers` measured."""
    from tests.docs import scorers

    return scorers.table()


def real_models_table() -> str:
    """Accuracy of the recorded runs on a real model."""
    from tests.docs import real_models

    return real_models.accuracy_table()


def real_models_tables() -> str:
    """All tables of the recorded runs on a real model."""
    from tests.docs import real_models

    return real_models.tables()


def trials_table() -> str:
    """Trials of the verifier, from figures that `tests.docs.verifier_trials` measured."""
    from tests.docs import verifier_trials

    return verifier_trials.table()


def settings_tables() -> str:
    """Every key of a recipe, with its type, default and meaning."""
    from tests.docs import settings_reference

    return settings_reference.settings_reference()


def command_tables() -> str:
    """Every command with its arguments."""
    from tests.docs import command_reference

    return command_reference.command_reference()


def papers_table() -> str:
    """The papers that are cited, each with its title and where."""
    from tests.docs import papers

    return papers.papers_table()


def memory_table() -> str:
    """Memory of usual models under usual settings, as `reasontrain plan` computes it."""
    from tests.docs import memory_tables

    return memory_tables.memory_table()


def suites_table() -> str:
    """The protocol of each suite that ships: problems, answers, sampling."""
    import yaml

    header = ["suite", "version", "problems", "file for `--data`", "answer", "sampling", "samples"]
    rows = [f"| {' | '.join(header)} |", f"| {' | '.join('---' for _ in header)} |"]
    for path in sorted((ROOT / "eval/suites").glob("*.yaml")):
        suite = yaml.safe_load(path.read_text(encoding="utf-8"))
        task, sampling = suite["task"], suite["sampling"]
        file = f"`{suite['file']}`" if "file" in suite else ""
        settings = ", ".join(f"{key} {value}" for key, value in sampling.items())
        source = f"`{task['hub']}`" if "hub" in task else "generated" if not file else ""
        cells = [
            f"`{suite['name']}`",
            str(suite["version"]),
            source,
            file,
            suite["answer_format"],
            settings,
            str(suite.get("num_samples", 1)),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


METHODS = {
    "tip": "TIP",
    "d3s": "D3S",
    "cdpo": "cDPO",
    "soft_tokens": "Soft Tokens",
    "sstoken": "ssToken",
    "prior": "PRIOR",
}
"""Page in `docs/methods` -> the paper's name in the table of claims."""


def claims_of(paper: str) -> str:
    """The rows of the table of claims that test a paper, without its name and number."""
    page = (ROOT / "recipes/README.md").read_text(encoding="utf-8")
    table = page.partition("<!-- claims: ")[2].partition("\n### ")[0]
    rows = re.findall(rf"^(\| `[\w-]+` \| ){paper} \(arXiv [\d.]+\): (.*)$", table, re.MULTILINE)
    assert rows, f"no claim of {paper}"
    return "\n".join(
        [
            "| row | claim | difference, points [95 %] | verdict |",
            "| --- | --- | --- | --- |",
            *(f"{name}{rest}" for name, rest in rows),
        ]
    )


PARTS: Mapping[str, tuple[Callable[[], str], tuple[str, ...]]] = {
    "map": (map_table, ("README.md", "CONTRIBUTING.md")),
    "evidence": (evidence_table, ("docs/concepts.md",)),
    "templates": (templates_table, ("docs/templates.md",)),
    "scorers": (scorers_table, ("docs/verifier.md",)),
    "trials": (trials_table, ("docs/verifier.md",)),
    "real-models": (real_models_table, ("README.md",)),
    "real-models-all": (real_models_tables, ("recipes/README.md",)),
    "architectures": (architecture_table, ("docs/models.md",)),
    "papers": (papers_table, ("docs/papers.md",)),
    "memory": (memory_table, ("docs/scaling.md",)),
    "suites": (suites_table, ("docs/evaluation.md",)),
    "commands": (command_tables, ("docs/reference/commands.md",)),
    "settings": (settings_tables, ("docs/reference/settings.md",)),
    **{
        f"claims-{page}": (partial(claims_of, paper), (f"docs/methods/{page}.md",))
        for page, paper in METHODS.items()
    },
}
"""Name of a generated part -> the function that writes it, and the documents that hold it."""


def _entries(room: str) -> Iterator[Path]:
    """The file or folder of a room, and where it is detailed its public modules too."""
    path = PACKAGE / room.replace(".", "/")
    path = path if path.is_dir() else path.with_suffix(".py")
    if not path.exists():
        return  # the architecture test says so
    yield path
    if room in DETAILED:
        for child in sorted(path.iterdir(), key=lambda child: child.stem):
            is_module = child.suffix == ".py" or (child / "__init__.py").exists()
            is_room = f"{room}.{child.stem}" in ROOMS
            if is_module and not child.name.startswith("_") and not is_room:
                yield child


def docstring(path: Path) -> str:
    """The docstring of a module or a package; raises AssertionError where there is none."""
    file = path / "__init__.py" if path.is_dir() else path
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    assert text, f"{file.relative_to(ROOT)} needs a docstring: its first sentence is in the map"
    return text


def first_sentence(text: str) -> str:
    """The first sentence of a docstring on one line, without its full stop."""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return cell(re.split(r"(?<!\bDr)(?<!\bet al)\.(?=\s|$)", paragraph)[0])


def cell(text: str) -> str:
    """A text as it stands in a cell of a Markdown table."""
    return text.replace("|", "\\|")


def with_parts(text: str, document: str) -> str:
    """The document with its generated parts as the source says them now."""
    for name, (write, documents) in PARTS.items():
        if document not in documents:
            continue
        pattern = re.compile(rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        part = pattern.search(text)
        assert part, f"{document} has no markers for {name!r}"
        text = f"{text[: part.start()]}{part[1]}\n{write()}\n\n{part[2]}{text[part.end() :]}"
    return text


def main(only: Sequence[str] = ()) -> None:
    """Rewrite the generated parts, of all documents or those named as arguments, and the schema."""
    from reasontrain.recipe import json_schema

    (ROOT / "recipes/schema.json").write_text(json_schema(), encoding="utf-8")
    for document in only or sorted({name for _, names in PARTS.values() for name in names}):
        path = ROOT / document
        path.write_text(with_parts(path.read_text(encoding="utf-8"), document), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
