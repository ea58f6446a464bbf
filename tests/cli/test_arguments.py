"""Arguments in any order, and what is printed without a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reasontrain import __version__
from reasontrain.cli import main
from reasontrain.cli.arguments import parser

TIP = "recipes/tiny/tip.yaml"


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "--memory-gib", "24", TIP, "steps=5", "seed=1"),
        ("plan", TIP, "--memory-gib", "24", "steps=5", "seed=1"),
        ("plan", TIP, "steps=5", "--memory-gib", "24", "seed=1"),
        ("plan", TIP, "steps=5", "seed=1", "--memory-gib=24"),
        ("plan", "steps=5", TIP, "--memory-gib=24", "seed=1"),
        ("plan", "steps=5", "--memory-gib=24", "seed=1", TIP),
    ],
)
def test_options_and_overrides_come_in_any_order(words: tuple[str, ...]) -> None:
    options = parser().parse_args(words)
    assert (options.recipe, options.overrides) == (Path(TIP), ["steps=5", "seed=1"])
    assert options.memory_gib == 24.0


def test_only_what_is_missing_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["plan"])
    assert capsys.readouterr().err.endswith("the following arguments are required: RECIPE\n")


def test_validate_takes_overrides_for_each_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = tmp_path / "lr=1.yaml"
    named.write_text(Path(TIP).read_text())
    assert main(["validate", TIP, "seed=1", str(named), "steps=50"]) == 0
    assert capsys.readouterr().out == f"{TIP}: ok\n{named}: ok\n"
    assert main(["validate", TIP, str(named), "steps=0"]) == 2
    assert capsys.readouterr().err.count("steps: Input should be greater than or equal to 1") == 2
    assert main(["validate", "steps=0"]) == 2
    assert "which recipe? reasontrain validate RECIPE" in capsys.readouterr().err


def test_the_package_is_a_command_with_a_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reasontrain", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"reasontrain {__version__}\n"


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "reasontrain", "show", TIP],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
