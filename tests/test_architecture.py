"""Rules of the source code: layers, the packages that may import each heavy dependency, and
constructs that are not allowed.

Each rule is a function of source text, tested first on a small source that breaks it and then on
the package. `MAP` is also the order of the table of packages in README and CONTRIBUTING (see
`make map`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MAP = """algo.evidence types rng resources endpoint plugins | vocab | algo | metrics
    | data run.directory | tasks | environments | models | recipe run.checkpoint | sampler learner
    | evaluation plan | cluster | run | stages | report
    | leaderboard lens claims bench bridge doctor | cli | api"""
"""Packages and modules, each of which imports only from those to its left. Bars separate layers."""

ROOMS = MAP.replace("|", " ").split()

HOMES = {
    "ray": {"cluster"},
    "deepspeed": {"learner"},
    "vllm": {"sampler"},
    "trl": {"bench", "bridge"},
    "lm_eval": {"bench"},
    "pydantic": {"recipe", "claims"},
    "peft": {"bench", "learner", "models"},
    "datasets": {"data", "bench"},
    "PIL": {"data"},
    "math_verify": {"bench"},
    "sympy": {"tasks"},
    "httpx2": {"endpoint"},
    "triton": {"vocab"},
    "shtab": {"cli"},
}
"""Heavy dependency -> the packages that may import it; `bench` imports what it compares with."""

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
    (
        "reasontrain/bridge/selection.py",
        "__init__ swallows **kwargs",
    ): "passed on to TRL's trainer, whose arguments they are",
    (
        "reasontrain/bridge/sft.py",
        "__init__ swallows **kwargs",
    ): "passed on to TRL's trainer, whose arguments they are",
    (
        "reasontrain/models/attention.py",
        "measured swallows **rest",
    ): "called by transformers, with arguments that differ between models",
    (
        "reasontrain/models/attention_choice.py",
        "mask swallows **options",
    ): "called by transformers, with arguments that differ between releases",
    (
        "reasontrain/models/attention_choice.py",
        "watched swallows **options",
    ): "called by transformers, with arguments that differ between models",
    (
        "reasontrain/models/kernels.py",
        "mask_with_own_columns swallows **options",
    ): "called by transformers, with arguments that differ between releases",
    ("reasontrain/models/loading.py", "hasattr"): "transformers renamed the method after 5.19",
    (
        "reasontrain/models/varlen.py",
        "mask_without_packing swallows **options",
    ): "called by transformers, with arguments that differ between releases",
    (
        "reasontrain/models/varlen.py",
        "varlen_attention swallows **rest",
    ): "called by transformers, with arguments that differ between models",
    (
        "reasontrain/sampler/cache.py",
        "update swallows **kwargs",
    ): "called by transformers, with arguments that differ between models",
}
"""(path, fault as reported without its line) -> the reason.

An entry that is no longer needed fails the test.
"""

SHEBANG = "#!/usr/bin/env -S reasontrain train"
CLAIMS = ROOT / "recipes/claims.yaml"
"""Runs as a file too, by its own command."""


def room_of(path: str) -> str:
    """The entry of `MAP` that a file belongs to; "" for `reasontrain/__init__.py`.

    `reasontrain/tasks/math.py` belongs to `tasks`; `reasontrain/run/checkpoint.py` has an entry of
    its own.
    """
    parts = Path(path).with_suffix("").parts[1:]
    if parts == ("__main__",):  # `python -m reasontrain` is the command line
        return "cli"
    return "" if parts == ("__init__",) else room_named(".".join(parts))


def room_named(dotted: str) -> str:
    """The entry of a dotted name below the package: `run.checkpoint.save` belongs to
    `run.checkpoint`, `run.loop` to `run`.
    """
    first, _, rest = dotted.partition(".")
    own = f"{first}.{rest.partition('.')[0]}"
    return own if own in ROOMS else first


def imported(source: str, path: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import of a file, inside functions and by
    import_module("name") too.
    """
    package = Path(path).parent.parts
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            yield from (
                (node.lineno, arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant)
            )


def import_faults(source: str, path: str) -> Iterator[str]:
    """Imports from an entry that is not to the left, and heavy dependencies outside their package.

    The package itself may import `api` alone, when one of its functions is first used.
    """
    room = room_of(path)
    if room and room not in ROOMS:
        yield f"the package {room!r} is not on the map"
        return
    for line, name in imported(source, path):
        top, _, rest = name.partition(".")
        target = room_named(rest)
        if (
            top == "reasontrain"
            and target in ROOMS
            and target != room
            and (target != "api" if not room else ROOMS.index(target) > ROOMS.index(room))
        ):
            yield f"line {line}: {room or 'the package'} imports {target}, which is not to its left"
        if room not in HOMES.get(top, {room}):
            yield f"line {line}: {top} is imported outside {' and '.join(sorted(HOMES[top]))}"


def paper_faults(source: str) -> Iterator[str]:
    """Constructs that hide a missing type (Any, **kwargs, getattr with a default, hasattr), and
    files without a docstring.
    """
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
    """Calls that would run code from a file, a recipe or a model's output."""
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
                case ast.keyword(arg=str(arg), value=ast.Constant(value=bool(value))) if (
                    NEVER_PASSED.get(arg) is value
                ):
                    yield f"line {node.lineno}: {arg}={value}"


def _aliases(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Imported names and what they stand for: `from pickle import load as l` gives l and
    pickle.load.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((alias.asname, alias.name) for alias in names if alias.asname)
            case ast.ImportFrom(module=str(module), names=names):
                yield from (
                    (alias.asname or alias.name, f"{module}.{alias.name}") for alias in names
                )


def recipe_faults(path: Path) -> Iterator[str]:
    """Recipes without the shebang or the run bit that `ray job submit recipes/x.yaml` needs."""
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


def allowed_apart(
    faults: Mapping[str, list[str]], allowed: Mapping[tuple[str, str], str]
) -> list[str]:
    """Faults that are not allowed, and allowances without a fault."""
    reported = {
        (path, fault.partition(": ")[2] or fault): f"{path}: {fault}"
        for path, texts in faults.items()
        for fault in texts
    }
    idle = [
        f"{path}: {fault} is allowed and not there"
        for path, fault in allowed
        if (path, fault) not in reported
    ]
    return [text for key, text in reported.items() if key not in allowed] + idle


# Each rule goes red on a source made for it ...


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("vocab/fused.py", "from reasontrain.run.loop import train_step", "vocab imports run"),
        ("types.py", "import reasontrain.rng", "types imports rng"),
        ("algo/x.py", "def f():\n    from reasontrain import cli", "algo imports cli"),
        ("data/files.py", "from ..run.loop import Run", "data imports run"),
        ("data/files.py", "from ..run import checkpoint", "data imports run.checkpoint"),
        ("data/files.py", "from .. import run", "data imports run"),
        ("metrics/x.py", "import_module('reasontrain.recipe')", "metrics imports recipe"),
        ("__init__.py", "from reasontrain import types", "the package imports types"),
        ("run/checkpoint.py", "from reasontrain.run import loop", "run.checkpoint imports run"),
        ("cluster/group.py", "from reasontrain.run.tracking import Tracker", "cluster imports run"),
    ],
)
def test_an_import_from_the_right_is_named(path: str, source: str, fault: str):
    line = source.count("\n") + 1
    expected = [f"line {line}: {fault}, which is not to its left"]
    assert list(import_faults(source, f"reasontrain/{path}")) == expected


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("utils/x.py", "", "the package 'utils' is not on the map"),
        ("run/loop.py", "import ray.util", "line 1: ray is imported outside cluster"),
        (
            "sampler/local.py",
            "from deepspeed import zero",
            "line 1: deepspeed is imported outside learner",
        ),
        ("learner/zero.py", "from vllm import LLM", "line 1: vllm is imported outside sampler"),
        ("vocab/x.py", "import trl", "line 1: trl is imported outside bench and bridge"),
        (
            "types.py",
            "from pydantic import BaseModel",
            "line 1: pydantic is imported outside claims and recipe",
        ),
    ],
)
def test_a_heavy_import_away_from_home_is_named(path: str, source: str, fault: str):
    assert list(import_faults(source, f"reasontrain/{path}")) == [fault]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "run/loop.py",
            "from reasontrain.types import Batch\nfrom reasontrain.learner import Learner",
        ),
        ("vocab/fused.py", "from reasontrain.vocab.head import Head\nfrom .head import Head"),
        (
            "algo/token_selection/tip.py",
            "from reasontrain.algo.token_selection.scores import quadrants",
        ),
        ("cli/main.py", "from reasontrain import __version__, run"),
        ("cluster/lifecycle.py", "from reasontrain.run import checkpoint"),
        ("run/loop.py", "from reasontrain.run import checkpoint"),
        ("learner/zero.py", "import deepspeed, torch"),
        ("bench/step.py", "import trl"),
        ("bridge/sft.py", "import trl"),
        ("__init__.py", "import os"),
        ("__init__.py", "def f():\n    from reasontrain import api"),
    ],
)
def test_a_right_import_passes(path: str, source: str):
    assert list(import_faults(source, f"reasontrain/{path}")) == []


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
    assert (
        list(
            paper_faults('"""Any **kwargs."""\nf(**settings)\ngetattr(x, name)\nanything = any(x)')
        )
        == []
    )
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
    assert [text.partition(": ")[2] for text in safety_faults(source)] == [fault]


def test_safe_calls_pass():
    calls = [
        "model.eval()",
        "yaml.safe_load(file)",
        "torch.load(path, weights_only=True)",
        "run(line, shell=False)",
    ]
    assert (
        list(safety_faults("\n".join([*calls, "from_pretrained(path, trust_remote_code=allowed)"])))
        == []
    )


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


def test_every_entry_of_the_map_exists():
    paths = [ROOT / "reasontrain" / room.replace(".", "/") for room in ROOMS]
    assert [p.name for p in paths if not p.is_dir() and not p.with_suffix(".py").exists()] == []


def test_the_package_keeps_its_layers():
    assert [
        f"{path}: {fault}"
        for path, text in sources().items()
        for fault in dict.fromkeys(import_faults(text, path))
    ] == []


def test_nothing_is_papered_over_and_nothing_unsafe_is_called():
    faults = {path: [*paper_faults(text), *safety_faults(text)] for path, text in sources().items()}
    assert allowed_apart(faults, ALLOWED) == []


def test_every_recipe_runs_as_a_file():
    recipes = sorted((ROOT / "recipes").rglob("*.yaml"))
    assert recipes
    recipes.remove(CLAIMS)
    assert [
        f"{path.relative_to(ROOT)}: {fault}" for path in recipes for fault in recipe_faults(path)
    ] == []
    assert list(recipe_faults(CLAIMS)) == [
        f"the first line is {SHEBANG[:-5] + 'claims'!r}, not {SHEBANG!r}"
    ]


def test_eval_is_data_not_code():
    assert list((ROOT / "eval").rglob("__init__.py")) == []
