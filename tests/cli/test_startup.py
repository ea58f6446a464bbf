"""Imports of each command: a person waits for them, so a package is imported where it is used."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

import reasontrain
from reasontrain import models
from reasontrain.algo.token_selection.scores.contrast import weights
from reasontrain.algo.token_selection.scores.soft_or import soft_or

ROOT = Path(__file__).resolve().parents[2]
TIP = str(ROOT / "recipes/tiny/tip.yaml")
HEAVY = {
    "accelerate",
    "datasets",
    "deepspeed",
    "httpx2",
    "jinja2",
    "math_verify",
    "pandas",
    "peft",
    "pyarrow",
    "ray",
    "rich",
    "scipy",
    "sympy",
    "tensorboard",
    "tokenizers",
    "torch._C",
    "torch.nn",
    "transformers",
    "triton",
    "trl",
    "vllm",
}
ENFORCED = {"Tensor", "PreTrainedTokenizerBase"}
"""Names for type checkers that `tests/conftest.py` provides at run time."""
UNENFORCED = {
    "Encoding",
    "Dataset",
    "Table",
    "HFLM",
    "PIL.Image",
    "PilImage",
    "LoraConfig",
    "LoraLayer",
    "LossAggregationFn",
    "SummaryWriter",
    "Trainer",
    "YamlValue",
}
"""Names whose annotations no test enforces: of packages that are imported late, and aliases."""


def imported(*arguments: str) -> set[str]:
    """The modules that a process of the command line has imported when it ends, exit code 0."""
    code = (
        "import sys, reasontrain.cli as cli\n"
        "try:\n    code = cli.main(sys.argv[1:])\n"
        "except SystemExit as error:\n    code = error.code\n"
        "assert not code, code\n"
        "print('\\n'.join(['', 'MODULES', *sys.modules]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(result.stdout.partition("\nMODULES\n")[2].split("\n"))


def test_help_imports_no_package() -> None:
    for arguments in (["--help"], ["train", "--help"]):
        modules = imported(*arguments)
        assert not modules & (HEAVY | {"jaxtyping", "numpy", "pydantic", "torch", "yaml"})


@pytest.mark.parametrize("command", ["validate", "show"])
def test_a_recipe_is_read_without_torch_and_transformers(command: str) -> None:
    assert not imported(command, TIP) & HEAVY


def test_what_is_deferred_is_loaded_when_it_is_used() -> None:
    code = (
        "import sys\nfrom reasontrain.cli import _defer\n_defer('torch')\nimport torch\n"
        "import torch\nassert 'torch._C' not in sys.modules\n"
        "from torch.nn import functional\nassert functional is torch.nn.functional\n"
        "assert float(torch.ones(2).sum()) == 2\n_defer('torch')\n_defer('no_such_package')\n"
        "assert sys.modules['torch'] is torch and 'no_such_package' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True
    )


def test_a_submodule_may_be_the_first_that_is_imported_of_a_deferred_package() -> None:
    """Loading torch imports it already; importlib would run it a second time, which aborts."""
    code = (
        "from reasontrain.cli import _defer\n_defer('torch')\nimport torch.distributed as dist\n"
        "import torch\nassert torch.distributed is dist\n"
        "assert dist.__spec__.name == 'torch.distributed' and dist.is_available()"
    )
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True
    )


def test_every_name_of_models_is_there() -> None:
    assert {name for name in models.__all__ if hasattr(models, name)} == set(models.__all__)
    assert models.load.__module__ == "reasontrain.models.loading"
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        models.lod  # noqa: B018


def test_no_module_of_models_has_the_name_of_what_it_exports() -> None:
    assert not {path.stem for path in (ROOT / "reasontrain/models").glob("*.py")} & {
        *models.__all__
    }


def type_checking_names(source: str) -> Iterator[str]:
    """The names that are bound under `if TYPE_CHECKING:`."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for inner in node.body:
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    yield from (alias.asname or alias.name for alias in inner.names)
                else:
                    yield from (
                        n.id
                        for n in ast.walk(inner)
                        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
                    )


def test_annotations_of_such_modules_are_enforced() -> None:
    with pytest.raises(TypeCheckError):
        soft_or(torch.zeros(2), torch.zeros(3))
    with pytest.raises(TypeCheckError):
        weights("no tensor")  # type: ignore[arg-type]


def test_no_annotation_is_left_out_by_a_name_for_type_checkers_alone() -> None:
    """Beartype skips an annotation whose names it cannot find: tests would check nothing."""
    for path in sorted((ROOT / "reasontrain").rglob("*.py")):
        if path == ROOT / "reasontrain/models/__init__.py":  # imported again at run time
            continue
        names = set(type_checking_names(path.read_text(encoding="utf-8")))
        if path == ROOT / "reasontrain/__init__.py":  # re-exported on first use
            names -= set(reasontrain.__all__)
        assert not names - ENFORCED - UNENFORCED, path
