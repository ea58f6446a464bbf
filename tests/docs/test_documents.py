"""Documents name what exists: links, files, recipe keys, commands; recipes and snippets in them are
valid.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
import yaml

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
NOT_THERE = ("bridge", "lens")
"""Names of things that were announced and do not exist."""
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


def broken_links(text: str, folder: Path) -> Iterator[str]:
    """Relative links that lead nowhere, and anchors that no heading has."""
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (folder / file).resolve()
        if not target.exists() or (anchor and anchor not in headings(target)):
            yield link


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# One `two`: three\n")
    text = "[a](a.md) [b](b.md) [c](a.md#one-two-three) [d](a.md#four) [e](https://x.org/y)"
    assert list(broken_links(text, tmp_path)) == ["b.md", "a.md#four"]


@every_document
def test_links_resolve(path: Path) -> None:
    assert list(broken_links(path.read_text(), path.parent)) == []


def missing_files(text: str) -> Iterator[str]:
    """Paths in backticks that are neither in the repository nor in the package."""
    pattern = r"`((?:[\w.-]+/)+(?:[\w.-]+\.(?:py|yaml|md|sh|sbatch|json|png))?)`"
    for name in re.findall(pattern, text):
        if name.startswith(("out/", "checkpoints/", "tokens/", "answers/", "final/")):
            continue  # folders of a run
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


@every_document
def test_nothing_is_named_that_does_not_exist(path: Path) -> None:
    assert [w for w in NOT_THERE if re.search(rf"\b{w}\b", path.read_text(), re.I)] == []


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


def commands(text: str) -> list[str]:
    """Lines of code blocks that begin with `reasontrain`."""
    code = "\n".join(re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    return re.findall(r"^reasontrain .*$", code, re.MULTILINE)


COMMANDS = [
    pytest.param(line, id=f"{name_of(path)}: {line[:40]}")
    for path in DOCUMENTS
    for line in commands(path.read_text())
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command: str) -> None:
    words = shlex.split(re.split(r"\s#|>", command)[0])[1:]
    assert callable(parser().parse_args(words).run)
    for path in re.findall(r"recipes/\S+\.yaml", command):
        assert (ROOT / path).exists()


def test_there_are_commands_to_parse() -> None:
    assert len(COMMANDS) > 15


@every_document
def test_named_commands_exist(path: Path) -> None:
    (choices,) = (a.choices for a in parser()._actions if a.choices is not None)
    named = re.findall(r"`reasontrain ([a-z]+)\b", path.read_text())
    assert [name for name in named if name not in choices] == []


def test_the_reward_function_of_the_docs_scores() -> None:
    (block,) = blocks((ROOT / "docs/rewards.md").read_text(), "python")
    names: dict[str, object] = {}
    exec(block, names)
    score = names["score"]
    assert callable(score)
    assert [score({"answer": "7"}, text) for text in ("It is 7.", "It is 8.")] == [1.0, 0.0]
