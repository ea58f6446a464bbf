"""Documents name what exists: links, files, recipe keys, commands; recipes and snippets in them are
valid.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import yaml

import reasontrain
from reasontrain import __version__
from reasontrain.cli.arguments import parser
from reasontrain.evaluation.suites import suite
from reasontrain.recipe import Recipe, Suite, read_recipe
from reasontrain.types import UserError

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "recipes/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
BASE = ROOT / "recipes/tiny/grpo.yaml"
"""A recipe that a block with some sections of one is laid over."""
SECTIONS = frozenset(f.name for f in fields(Recipe))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=map(name_of, DOCUMENTS))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def headings(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in lines}


# ---- links and files


def broken_links(page: Path) -> Iterator[str]:
    """Relative links of a page that lead nowhere, and anchors that no heading has."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in headings(target)):
            yield link


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# One `two`: three\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Five\n[a](a.md) [b](b.md) [c](a.md#one-two-three) [d](a.md#four) [e](https://x.org/y) "
        "[f](#five) [g](#six)"
    )
    assert list(broken_links(page)) == ["b.md", "a.md#four", "#six"]


@every_document
def test_links_resolve(path: Path) -> None:
    assert list(broken_links(path)) == []


def missing_files(text: str) -> Iterator[str]:
    """Paths in backticks that are neither in the repository nor in the package."""
    pattern = r"`((?:[\w.-]+/)+(?:[\w.-]+\.(?:py|yaml|md|sh|sbatch|json|png))?)`"
    for name in re.findall(pattern, text):
        if name.startswith(("out/", "checkpoints/", "tokens/", "answers/", "final/", "site-docs/")):
            continue  # folders of a run, or of a build
        if name.startswith(("verl/", "openrlhf/")):
            continue  # files of other projects
        if not any(
            (place / name).exists() for place in (ROOT, ROOT / "reasontrain", ROOT / "recipes")
        ):
            yield name


def test_a_missing_file_is_found() -> None:
    text = "`run/loop.py` `recipes/tiny/` `vocab/nothing.py` `out/x/` `launch/local.sh`"
    assert list(missing_files(text)) == ["vocab/nothing.py"]


@every_document
def test_named_files_exist(path: Path) -> None:
    assert list(missing_files(path.read_text())) == []


# ---- recipes and their keys


def settings_of(hint: object) -> Iterator[type]:
    """The settings classes in a type: members of a union, of a tuple, behind Annotated."""
    if get_origin(hint) is Annotated:
        yield from settings_of(get_args(hint)[0])
    elif isinstance(hint, type) and is_dataclass(hint):
        yield hint
    else:
        for member in get_args(hint):
            yield from settings_of(member)


def has_key(key: str) -> bool:
    """Whether a dotted key is one of a recipe, with some choice of every `kind`."""
    classes: list[type] = [Recipe]
    for part in key.split("."):
        pattern = re.compile(part.replace("*", ".*"))
        hints = [get_type_hints(cls, include_extras=True) for cls in classes]
        chosen = [h for each in hints for name, h in each.items() if pattern.fullmatch(name)]
        if not chosen:
            return False
        classes = [cls for hint in chosen for cls in settings_of(hint)]
    return True


def unknown_keys(text: str) -> list[str]:
    """Dotted keys in backticks that begin like a recipe's and are none."""
    keys = re.findall(r"`([a-z_]+(?:\.[a-z_*]+)+)(?:[:=][^`]*)?`", text)
    return [key for key in keys if key.split(".")[0] in SECTIONS and not has_key(key)]


def test_an_unknown_key_is_found() -> None:
    text = "`learn.zero.stage` `learn.zero.offload_*` `sample.engine.kind=vllm` `x.y` `learn.rate`"
    assert unknown_keys(text) == ["learn.rate"]


@every_document
def test_named_recipe_keys_exist(path: Path) -> None:
    assert unknown_keys(path.read_text()) == []


YAML_BLOCKS = [
    pytest.param(block, id=f"{name_of(path)}-{index}")
    for path in DOCUMENTS
    for index, block in enumerate(blocks(path.read_text(), "yaml"))
]


@pytest.mark.parametrize("block", YAML_BLOCKS)
def test_yaml_blocks_are_recipes_suites_or_sections(block: str, tmp_path: Path) -> None:
    content, file = yaml.safe_load(block), tmp_path / "block.yaml"
    # plug-ins lie beside the recipe: the rule that README shows, and the example
    (tmp_path / "surprise.py").write_text(blocks((ROOT / "README.md").read_text(), "python")[0])
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    if "steps" not in content and "name" in content:
        file.write_text(block)
        assert isinstance(suite(str(file), [], None), Suite)
        return
    if "steps" not in content:
        base = yaml.safe_load(BASE.read_text())
        content = base | content | {"learn": base["learn"] | content.get("learn", {})}
        if "cluster" in content and "zero" not in content["learn"]:
            content["learn"] |= {"zero": {"stage": 2}}
    file.write_text(yaml.safe_dump(content))
    assert isinstance(read_recipe(file), Recipe)


def test_a_wrong_block_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "block.yaml"
    file.write_text(BASE.read_text().replace("clip_low", "clip_lower"))
    with pytest.raises(UserError, match="clip_lower"):
        read_recipe(file)


# ---- commands and Python

LANGUAGES = {"sh", "yaml", "python", "json", "toml", "text", "{toctree}", "{api}"}
"""Of fenced blocks: those of a language are tested below, `text` is for formulas."""
EXAMPLE = {"tip.yaml": "recipes/tiny/tip.yaml"}
"""Files that a page copies first -> where they come from."""
SBATCH = {"--nodes", "--gpus-per-node", "--cpus-per-task", "--array", "--signal"}
ELSEWHERE = {"vllm": "a server with GPUs", "python": "a file or module of its own test"}
"""Commands that are neither ours nor checked here -> why."""


@every_document
def test_every_block_says_what_it_is(path: Path) -> None:
    fences = re.findall(r"^```(.*)$", path.read_text(), re.MULTILINE)
    opened = [fence.split(" ")[0] for fence in fences[::2]]
    assert len(fences) % 2 == 0
    assert set(fences[1::2]) <= {""}
    assert set(opened) <= LANGUAGES


@every_document
def test_toml_is_toml(path: Path) -> None:
    assert all(tomllib.loads(block) for block in blocks(path.read_text(), "toml"))


def commands(text: str) -> list[str]:
    """The commands of shell blocks, without prompts, comments and what continues a line."""
    code = "\n".join(blocks(text, "sh")).replace("\\\n", " ")
    lines = (re.split(r"\s#\s", line)[0].strip() for line in code.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


COMMANDS = [
    pytest.param(line, id=f"{name_of(path)}: {line[:40]}")
    for path in DOCUMENTS
    for line in commands(path.read_text())
]


def check_reasontrain(words: list[str]) -> None:
    """The command parses, its recipe exists and takes its overrides."""
    options = parser().parse_args(words)
    assert callable(options.run)
    recipe = getattr(options, "recipe", None)
    if recipe is not None and str(recipe) != "out/tip-tiny/recipe.yaml":
        file = ROOT / EXAMPLE.get(str(recipe), str(recipe))
        assert isinstance(read_recipe(file, options.overrides), Recipe)


def check_pip(words: list[str]) -> None:
    """Files, versions and extras of an installation are those of this project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert words[0] == "install"
    expected = {"-c", "-r", "--no-deps", "--no-build-isolation"}
    for word in words[1:]:
        if "==" in word:
            assert word in pins
        elif word.endswith(".whl"):
            assert word == f"reasontrain-{__version__}-py3-none-any.whl"
        elif word.endswith(".txt"):
            assert (ROOT / word).is_file()
        elif extra := re.fullmatch(r"reasontrain\[(\w+)\]", word):
            assert extra[1] in project["optional-dependencies"]
        else:
            assert word in expected, word


def check_command(command: str) -> None:
    """A command is one that exists, with files and options that exist."""
    if command.startswith("eval "):
        command = command.removeprefix('eval "$(').removesuffix(')"')
    words = shlex.split(re.split(r"\s>\s", command)[0])
    match words[0]:
        case "reasontrain":
            check_reasontrain(words[1:])
        case "pip":
            check_pip(words[1:])
        case "make":
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert words[1] in targets
        case "sbatch":
            (index,) = (i for i, word in enumerate(words) if word.endswith(".sbatch"))
            assert {word.partition("=")[0] for word in words[1:index]} <= SBATCH
            assert (ROOT / words[index]).is_file()
            passed_on = [word.replace("%a", "0") for word in words[index + 1 :]]
            check_reasontrain([Path(words[index]).stem, *passed_on])
        case "kubectl":
            assert words[1:3] == ["create", "-f"]
            assert yaml.safe_load((ROOT / words[3]).read_text())["kind"]
        case script if script.startswith("launch/"):
            assert os.access(ROOT / script, os.X_OK)
            if script == "launch/ray.sh":
                assert words[1] in ("head", "worker", "submit", "stop")
            if script != "launch/ray.sh" or words[1] == "submit":
                check_reasontrain(["train", *(w for w in words[1:] if w != "submit")])
        case other:
            assert other in ELSEWHERE


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_right(command: str) -> None:
    check_command(command)
    for path in re.findall(r"recipes/\S+\.yaml", command):
        assert list(ROOT.glob(path))


@pytest.mark.parametrize(
    "command",
    [
        "reasontrain train recipes/tiny/tip.yaml steps=0",
        "reasontrain trian recipes/tiny/tip.yaml",
        "pip install torch==1.0",
        "pip install 'reasontrain[nothing]'",
        "make nothing",
        "sbatch --partition=x launch/slurm/train.sbatch",
        "sbatch launch/slurm/evaluate.sbatch out/x --suites math500",
        "launch/nothing.sh",
        "launch/local.sh recipes/tiny/tip.yaml step=1",
        "rm -rf /",
    ],
)
def test_a_wrong_command_is_found(command: str) -> None:
    with pytest.raises((AssertionError, SystemExit, UserError, ValueError)):
        check_command(command)


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 40


@every_document
def test_named_commands_exist(path: Path) -> None:
    (choices,) = (a.choices for a in parser()._actions if a.choices is not None)
    named = re.findall(r"`reasontrain ([a-z]+)\b", path.read_text())
    assert [name for name in named if name not in choices] == []


def test_the_readme_shows_every_command() -> None:
    (choices,) = (a.choices for a in parser()._actions if a.choices is not None)
    shown = re.findall(
        r"reasontrain ([a-z]+)", "\n".join(commands((ROOT / "README.md").read_text()))
    )
    assert set(choices) - set(shown) == set()


ROWS = [
    pytest.param(block, id=f"{name_of(path)}-{index}")
    for path in DOCUMENTS
    for index, block in enumerate(blocks(path.read_text(), "json"))
]


@pytest.mark.parametrize("block", ROWS)
def test_rows_are_json_with_columns_that_are_read(block: str) -> None:
    for line in block.splitlines():
        row = json.loads(line)
        assert row.keys() & {"problem", "prompt", "messages"}


@pytest.mark.parametrize("page", ["rewards", "coming_from"])
def test_reward_functions_of_the_docs_score(page: str) -> None:
    (block,) = blocks((ROOT / f"docs/{page}.md").read_text(), "python")
    names: dict[str, object] = {}
    exec(block, names)
    score = names["score"]
    assert callable(score)
    assert [score({"answer": "7"}, text) for text in ("It is 7.", "It is 8.")] == [1.0, 0.0]


def test_the_environment_of_the_docs_plays() -> None:
    (block,) = blocks((ROOT / "docs/environments.md").read_text(), "python")
    names: dict[str, Any] = {}
    exec(block, names)
    game = names["Guess"]()
    assert game.reset({"answer": "7"}) == "You have four guesses."
    assert game.step("9") == ("Too high.", None, False)
    assert game.step("what?") == ("Too low.", None, False)
    assert game.step(" 7 ") == (None, 0.5, True)


def test_the_python_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first block with stand-ins of the same signature for what takes minutes."""
    first, second = blocks((ROOT / "docs/python.md").read_text(), "python")
    done: list[str] = []

    def stand_in(name: str, result: object) -> None:
        signature = inspect.signature(getattr(reasontrain, name))

        def call(*args: object, **kwargs: object) -> object:
            signature.bind(*args, **kwargs)
            done.append(name)
            return result

        monkeypatch.setattr(reasontrain, name, call, raising=False)

    monkeypatch.chdir(ROOT)
    stand_in("train", Path("out/my-tip"))
    stand_in("evaluate", {"suites": [{"metrics": {"accuracy": {"value": 0.5}}}]})
    exec(first, {})
    exec(second, names := {})
    assert done == ["train", "evaluate"]
    assert names["score_BT"][0].tolist() == pytest.approx([0.7, 0.7])


@every_document
def test_links_elsewhere_are_well_formed(path: Path) -> None:
    links = re.findall(r"\]\((\w+://[^)\s]*)\)", path.read_text())
    form = re.compile(r"https://[\w.-]+\.[a-z]+(/[\w./#?=&%~+-]*)?")
    assert [link for link in links if not form.fullmatch(link)] == []


# ---- other trainers


def test_settings_of_trl_exist() -> None:
    """Names in the TRL column are in the installed TRL, or in transformers' arguments."""
    import importlib.util

    text = (ROOT / "docs/coming_from.md").read_text()
    places = [
        *Path(str(importlib.util.find_spec("trl").origin)).parent.glob("trainer/*.py"),  # type: ignore[union-attr]
        Path(str(importlib.util.find_spec("transformers").origin)).parent / "training_args.py",  # type: ignore[union-attr]
        Path(str(importlib.util.find_spec("transformers").origin)).parent / "trainer.py",  # type: ignore[union-attr]
    ]
    source = "\n".join(place.read_text(encoding="utf-8") for place in places)
    column = [row.split(" | ")[1] for row in text.splitlines() if row.startswith("| `")]
    names = [
        re.split(r"[:( ]", name)[0] for cell in column for name in re.findall(r"`([^`]+)`", cell)
    ]
    assert len(names) > 40
    columns_of_rows = {"prompt", "completion", "messages", "accelerate"}
    assert [
        name
        for name in names
        if name not in columns_of_rows and not re.search(rf"\b{name}\b", source)
    ] == []
