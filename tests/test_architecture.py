"""The rules that keep the package readable, held by reading its source: layers, homes, sizes, and what is never written.

The functions below take sources as texts, so that each rule is first shown to go red on a small source made for it.
"""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MAP = """types rng | metrics vocab | algo | data | tasks | models | recipe | sampler learner | evaluation plan | cluster | run
    | stages | report | leaderboard claims bench | cli"""
"""Packages, left to right; a package imports only from packages to its left. Bars separate the layers."""

ROOMS = MAP.replace("|", " ").split()

HOMES = {
    "ray": {"cluster"},
    "deepspeed": {"learner"},
    "vllm": {"sampler"},
    "trl": {"bench"},
    "lm_eval": {"bench"},
    "pydantic": {"recipe"},
    "peft": {"learner"},
    "datasets": {"data", "bench"},
    "PIL": {"data"},
    "math_verify": {"tasks", "bench"},
    "httpx2": {"evaluation"},
    "triton": {"vocab"},
}
"""The rooms in which a heavy package may be imported; `bench` may import its peers."""

NEVER_CALLED = {
    "eval": "evaluates text",
    "exec": "evaluates text",
    "marshal.load": "runs what is in the file",
    "marshal.loads": "runs what is in the file",
    "os.popen": "is a shell",
    "os.system": "is a shell",
    "pickle.Unpickler": "runs what is in the file",
    "pickle.load": "runs what is in the file",
    "pickle.loads": "runs what is in the file",
    "subprocess.getoutput": "is a shell",
    "yaml.full_load": "builds objects",
    "yaml.load": "builds objects",
    "yaml.unsafe_load": "builds objects",
}
NEVER_PASSED = {"shell": True, "trust_remote_code": True, "weights_only": False}

ALLOWED: Mapping[tuple[str, str], str] = {
    ("reasontrain/models/attention.py", "watched swallows **rest"): "transformers calls it, and with what differs between models",
    ("reasontrain/sampler/cache.py", "update swallows **kwargs"): "transformers calls it, and with what differs between models",
}
"""(path, offence as reported without its line) -> why it has to be. Something that is no longer needed fails the test."""

MAX_FUNCTION_LINES, MAX_FILE_LINES, MEDIAN_FILE_LINES = 60, 400, 150
SHEBANG = "#!/usr/bin/env -S reasontrain train"
CLAIMS = ROOT / "recipes/claims.yaml"
"""Runs as a file too, by its own command."""


def room_of(path: str) -> str:
    """`reasontrain/tasks/math.py` is in the room tasks, `reasontrain/loop.py` is the room loop, the package itself is ""."""
    parts = Path(path).with_suffix("").parts[1:]
    return "" if parts == ("__init__",) else parts[0]


def imported(source: str, path: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a file imports, wherever in the file, also by import_module("name")."""
    package = Path(path).parent.parts
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from ((node.lineno, arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def import_faults(source: str, path: str) -> Iterator[str]:
    """Imports from a room that is not to the left, and heavy packages away from home."""
    here = room_of(path)
    if here and here not in ROOMS:
        yield f"the room {here!r} is not on the map"
        return
    for line, name in imported(source, path):
        top, _, rest = name.partition(".")
        there = rest.partition(".")[0]
        if top == "reasontrain" and there in ROOMS and there != here and (not here or ROOMS.index(there) > ROOMS.index(here)):
            yield f"line {line}: {here or 'the package'} imports {there}, which is not to its left"
        if here not in HOMES.get(top, {here}):
            yield f"line {line}: {top} is imported outside {' and '.join(sorted(HOMES[top]))}"


def size_faults(source: str) -> Iterator[str]:
    """Functions and files that are too long to be one idea."""
    if (num_lines := len(source.splitlines())) > MAX_FILE_LINES:
        yield f"line {num_lines}: the file is longer than {MAX_FILE_LINES} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            num_lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if num_lines > MAX_FUNCTION_LINES:
                yield f"line {node.lineno}: {node.name} is longer than {MAX_FUNCTION_LINES} lines"


def paper_faults(source: str) -> Iterator[str]:
    """What papers over a missing idea (Any, **kwargs, getattr with a default, hasattr), and files without a docstring."""
    tree = ast.parse(source)
    if tree.body and ast.get_docstring(tree) is None:
        yield "line 1: no module docstring"
    for node in ast.walk(tree):
        match node:
            case ast.Name(id="Any") | ast.Attribute(attr="Any"):
                yield f"line {node.lineno}: Any"
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if node.args.kwarg:
                yield f"line {node.lineno}: {name} swallows **{node.args.kwarg.arg}"
            case ast.Lambda(args=ast.arguments(kwarg=ast.arg() as swallow)):
                yield f"line {node.lineno}: a lambda swallows **{swallow.arg}"
            case ast.Call(func=ast.Name(id="getattr"), args=[_, _, _]):
                yield f"line {node.lineno}: getattr with a default"
            case ast.Call(func=ast.Name(id="hasattr")):
                yield f"line {node.lineno}: hasattr"


def safety_faults(source: str) -> Iterator[str]:
    """Calls that would run what a file, a recipe or a model wrote."""
    tree = ast.parse(source)
    known = dict(_aliases(tree))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        head, dot, tail = ast.unparse(node.func).partition(".")
        name = (known.get(head, head) + dot + tail).removeprefix("builtins.")
        if name in NEVER_CALLED:
            yield f"line {node.lineno}: {name} {NEVER_CALLED[name]}"
        for keyword in node.keywords:
            match keyword:
                case ast.keyword(arg=str(arg), value=ast.Constant(value=bool(value))) if NEVER_PASSED.get(arg) is value:
                    yield f"line {node.lineno}: {arg}={value}"


def _aliases(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What the names that a file imports stand for: `from pickle import load as l` makes l pickle.load."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((alias.asname, alias.name) for alias in names if alias.asname)
            case ast.ImportFrom(module=str(module), names=names):
                yield from ((alias.asname or alias.name, f"{module}.{alias.name}") for alias in names)


def recipe_faults(path: Path) -> Iterator[str]:
    """A recipe is an executable file, so that `ray job submit recipes/x.yaml` works as it stands."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    if first != SHEBANG:
        yield f"the first line is {first!r}, not {SHEBANG!r}"
    if path.stat().st_mode & 0o111 != 0o111:
        yield "the run bit is missing; chmod +x"


@cache
def sources() -> dict[str, str]:
    """Every file of the package, by its path below the repository."""
    files = sorted((ROOT / "reasontrain").rglob("*.py"))
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


def allowed_apart(faults: Mapping[str, list[str]], allowed: Mapping[tuple[str, str], str]) -> list[str]:
    """What is left of the faults, by file, when the allowed ones are taken away, and what was allowed for nothing."""
    found = {(path, fault.partition(": ")[2] or fault): f"{path}: {fault}" for path, some in faults.items() for fault in some}
    idle = [f"{path}: {fault} is allowed and not there" for path, fault in allowed if (path, fault) not in found]
    return [text for key, text in found.items() if key not in allowed] + idle


# Each rule goes red on a source made for it ...


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        (
            "reasontrain/vocab/fused.py",
            "from reasontrain.run.loop import train_step",
            "line 1: vocab imports run, which is not to its left",
        ),
        ("reasontrain/types.py", "x = 1\nimport reasontrain.rng", "line 2: types imports rng, which is not to its left"),
        (
            "reasontrain/signals/tip.py",
            "def f():\n    from reasontrain import cli",
            "line 2: signals imports cli, which is not to its left",
        ),
        ("reasontrain/data/files.py", "from ..loop import Run", "line 1: data imports loop, which is not to its left"),
        ("reasontrain/data/files.py", "from .. import loop", "line 1: data imports loop, which is not to its left"),
        (
            "reasontrain/reduce.py",
            "import_module('reasontrain.recipe')",
            "line 1: reduce imports recipe, which is not to its left",
        ),
        (
            "reasontrain/__init__.py",
            "from reasontrain import types",
            "line 1: the package imports types, which is not to its left",
        ),
        ("reasontrain/utils/x.py", "", "the room 'utils' is not on the map"),
        ("reasontrain/loop.py", "import ray.util", "line 1: ray is imported outside cluster"),
        ("reasontrain/sampler/local.py", "from deepspeed import zero", "line 1: deepspeed is imported outside learner"),
        ("reasontrain/learner/zero.py", "from vllm import LLM", "line 1: vllm is imported outside sampler"),
        ("reasontrain/vocab/x.py", "import trl", "line 1: trl is imported outside bench"),
        ("reasontrain/types.py", "from pydantic import BaseModel", "line 1: pydantic is imported outside recipe"),
    ],
)
def test_a_wrong_import_is_named(path: str, source: str, fault: str):
    assert list(import_faults(source, path)) == [fault]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("reasontrain/loop.py", "from reasontrain.types import Batch\nfrom reasontrain.learner import Learner"),
        ("reasontrain/vocab/fused.py", "from reasontrain.vocab.head import Head\nfrom .head import Head"),
        ("reasontrain/selection/tip.py", "from reasontrain.algo.token_selection.scores import quadrants"),
        ("reasontrain/cli/main.py", "from reasontrain import __version__, loop"),
        ("reasontrain/learner/zero.py", "import deepspeed, torch"),
        ("reasontrain/bench/step.py", "import trl"),
        ("reasontrain/__init__.py", "import os"),
    ],
)
def test_a_right_import_passes(path: str, source: str):
    assert list(import_faults(source, path)) == []


def test_long_functions_and_files_are_named():
    at_most = "def f():\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 1)
    assert list(size_faults(at_most)) == []
    assert list(size_faults(at_most + "    x = 1\n")) == ["line 1: f is longer than 60 lines"]
    assert list(size_faults("x = 1\n" * MAX_FILE_LINES)) == []
    assert list(size_faults("x = 1\n" * (MAX_FILE_LINES + 1))) == ["line 401: the file is longer than 400 lines"]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("x: Any = 1", "Any"),
        ("x: dict[str, typing.Any] = {}", "Any"),
        ("def f(**kwargs: int): ...", "f swallows **kwargs"),
        ("async def f(**options): ...", "f swallows **options"),
        ("f = lambda **all: 1", "a lambda swallows **all"),
        ("getattr(x, 'y', None)", "getattr with a default"),
        ("hasattr(x, 'y')", "hasattr"),
    ],
)
def test_papering_over_is_named(line: str, fault: str):
    assert list(paper_faults(f'"""Docstring."""\n{line}')) == [f"line 2: {fault}"]


def test_what_only_looks_like_papering_over_passes():
    assert list(paper_faults('"""Any **kwargs."""\nf(**settings)\ngetattr(x, name)\nanything = any(x)')) == []
    assert list(paper_faults("")) == []  # an empty __init__.py
    assert list(paper_faults("x = 1")) == ["line 1: no module docstring"]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("eval(text)", "eval evaluates text"),
        ("import builtins\nbuiltins.exec(text)", "exec evaluates text"),
        ("import pickle\npickle.load(file)", "pickle.load runs what is in the file"),
        ("import pickle as p\np.loads(data)", "pickle.loads runs what is in the file"),
        ("from pickle import load as read\nread(file)", "pickle.load runs what is in the file"),
        ("import yaml\nyaml.load(file, Loader=yaml.Loader)", "yaml.load builds objects"),
        ("import os\nos.system(line)", "os.system is a shell"),
        ("subprocess.run(line, shell=True)", "shell=True"),
        ("torch.load(path, weights_only=False)", "weights_only=False"),
        ("AutoModel.from_pretrained(path, trust_remote_code=True)", "trust_remote_code=True"),
    ],
)
def test_an_unsafe_call_is_named(source: str, fault: str):
    assert [found.partition(": ")[2] for found in safety_faults(source)] == [fault]


def test_safe_calls_pass():
    calls = ["model.eval()", "yaml.safe_load(file)", "torch.load(path, weights_only=True)", "run(line, shell=False)"]
    assert list(safety_faults("\n".join([*calls, "from_pretrained(path, trust_remote_code=told)"]))) == []


def test_a_recipe_without_its_first_line_or_run_bit_is_named(tmp_path: Path):
    recipe = tmp_path / "x.yaml"
    recipe.write_text("name: x\n")
    assert len(list(recipe_faults(recipe))) == 2
    recipe.write_text(f"{SHEBANG}\nname: x\n")
    assert list(recipe_faults(recipe)) == ["the run bit is missing; chmod +x"]
    recipe.chmod(0o755)
    assert list(recipe_faults(recipe)) == []


def test_an_allowance_takes_away_one_fault_and_may_not_outlive_it():
    faults = {"a.py": ["line 7: Any", "line 8: hasattr"]}
    assert allowed_apart(faults, {("a.py", "Any"): "why"}) == ["a.py: line 8: hasattr"]
    assert allowed_apart({}, {("a.py", "Any"): "why"}) == ["a.py: Any is allowed and not there"]


# ... and is green on the package.


def test_the_package_keeps_its_layers():
    assert [f"{path}: {fault}" for path, text in sources().items() for fault in dict.fromkeys(import_faults(text, path))] == []


def test_files_and_functions_are_small():
    assert [f"{path}: {fault}" for path, text in sources().items() for fault in size_faults(text)] == []
    num_lines = [len(text.splitlines()) for text in sources().values() if text]
    assert statistics.median(num_lines) < MEDIAN_FILE_LINES


def test_nothing_is_papered_over_and_nothing_unsafe_is_called():
    faults = {path: [*paper_faults(text), *safety_faults(text)] for path, text in sources().items()}
    assert allowed_apart(faults, ALLOWED) == []


def test_every_recipe_runs_as_a_file():
    recipes = sorted((ROOT / "recipes").rglob("*.yaml"))
    assert recipes
    recipes.remove(CLAIMS)
    assert [f"{path.relative_to(ROOT)}: {fault}" for path in recipes for fault in recipe_faults(path)] == []
    assert list(recipe_faults(CLAIMS)) == [f"the first line is {SHEBANG[:-5] + 'claims'!r}, not {SHEBANG!r}"]


def test_eval_is_data_not_code():
    assert list((ROOT / "eval").rglob("__init__.py")) == []
