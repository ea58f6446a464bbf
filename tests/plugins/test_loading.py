"""Classes of files: found, checked, imported with what lies beside them, and pickled with it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint
from importlib.util import module_from_spec
from pathlib import Path

import pytest

from reasontrain.plugins import COPIES, Component, installed, load_class
from reasontrain.plugins.imports import root_of, with_imports
from reasontrain.plugins.loading import copy_name
from reasontrain.types import RunError, UserError

GREETER = Component(key="greeter", noun="a greeter", members=("language",), arguments=("name",))
HEAD = "from dataclasses import dataclass\nfrom typing import ClassVar\n"
CLASS = """
@dataclass(frozen=True, kw_only=True)
class Hello:
    language: ClassVar[str] = "en"
    sign: str = "!"
    def __call__(self, name):
        return f"hello {name}{self.sign}"
"""


@pytest.fixture(autouse=True)
def _modules_as_before() -> Iterator[None]:
    """Modules of these tests are forgotten after each."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, **files: str) -> None:
    """Python files of a folder, by their paths without the suffix."""
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_class_of_a_file_gets_its_kind_and_keeps_its_settings(tmp_path: Path) -> None:
    write(tmp_path, greet=HEAD + CLASS)
    cls = load_class(GREETER, "greet.py:Hello", tmp_path)
    hello = cls(sign="?")
    assert (hello("Ada"), hello.kind, hello.language) == ("hello Ada?", "greet.py:Hello", "en")
    assert load_class(GREETER, "greet.py:Hello", tmp_path) is cls
    absolute = load_class(GREETER, f"{tmp_path}/greet.py:Hello", Path("elsewhere"))
    assert absolute(sign="?")("Ada") == "hello Ada?"


WRONG = {
    "gone.py:Hello": ("", "gone.py is not a Python file that can be read (No such file"),
    "greet.py": ("", "'greet.py' names no class of a file; write FILE.py:CLASS"),
    "greet:Hello": ("", "'greet:Hello' names no class of a file; write FILE.py:CLASS"),
    "greet.py:Helo": (CLASS, "defines no class Helo; did you mean `Hello`?; it defines Hello"),
    "greet.py:one": ("one = 1", "one is not a greeter: it is a int, and a class is expected"),
    "greet.py:Hello": (
        "class Hello: pass",
        "Hello is not a greeter: write @dataclass(frozen=True, kw_only=True) above it",
    ),
    "./greet.py:Hello": (
        "@dataclass\nclass Hello: pass",
        "Hello is not a greeter: write @dataclass(frozen=True, kw_only=True) above it",
    ),
    "greet.py:Child": (
        f"{CLASS}\nclass Child(Hello): pass",
        "Child is not a greeter: write @dataclass(frozen=True, kw_only=True) above it",
    ),
    "greet.py:Mute": (
        "@dataclass(frozen=True)\nclass Mute: pass",
        "Mute is not a greeter: it lacks language, __call__(name)",
    ),
    "greet.py:Two": (
        CLASS.replace("Hello", "Two").replace("self, name", "self, name, other"),
        "Two is not a greeter: its call must take (name)",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_a_class_is_one_sentence(tmp_path: Path, kind: str) -> None:
    source, sentence = WRONG[kind]
    write(tmp_path, greet=HEAD + source)
    with pytest.raises(UserError) as raised:
        load_class(GREETER, kind, tmp_path)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("source", "line", "text"),
    [
        ("raise ValueError('{no} brain')", 3, "importing it raised ValueError: {no} brain"),
        ("def f(:", 3, "importing it raised SyntaxError: invalid syntax"),
        ("import sys; sys.exit('bye')", 3, "importing it raised SystemExit: bye"),
        ("import gone_module", 3, "ModuleNotFoundError: No module named 'gone_module'"),
    ],
)
def test_an_import_that_raises_shows_its_own_text_and_line(
    tmp_path: Path, source: str, line: int, text: str
) -> None:
    write(tmp_path, broken=HEAD + source)
    with pytest.raises(UserError) as raised:
        load_class(GREETER, "broken.py:Hello", tmp_path)
    assert str(raised.value).startswith(f"{tmp_path}/broken.py, line {line}: ")
    assert text in str(raised.value)


def test_a_call_that_raises_shows_its_own_text_and_line(tmp_path: Path) -> None:
    write(tmp_path, greet=HEAD + CLASS.replace('return f"hello', 'return 1 / 0, f"hello'))
    hello = load_class(GREETER, "greet.py:Hello", tmp_path)()
    sentence = f"{tmp_path}/greet.py, line 9: Hello raised ZeroDivisionError: division by zero\n"
    with pytest.raises(RunError) as raised:
        hello("Ada")
    assert str(raised.value).startswith(sentence)


LATE = CLASS.replace('return f"hello', 'import late\n        return late.TEXT + f"hello')


def test_modules_beside_the_file_are_imported_whoever_asks_and_when(tmp_path: Path) -> None:
    """At the top, within a call, and through one another; of two folders, each its own."""
    for name in ("one", "two"):
        write(
            tmp_path / name,
            greet=f"import signs.marks\n{HEAD}{LATE}".replace('"!"', "signs.marks.MARK"),
            late=f"TEXT = '{name} '",
            **{"signs/marks": "from signs.base import MARK", "signs/base": f"MARK = '{name}'"},
        )
    for name in ("one", "two", "one"):
        hello = load_class(GREETER, "greet.py:Hello", tmp_path / name)()
        assert hello.sign == name
    second = load_class(GREETER, "greet.py:Hello", tmp_path / "two")()
    assert second("Ada") == "two hello Adatwo"


def test_a_file_in_a_package_is_imported_as_its_module(tmp_path: Path) -> None:
    source = (
        f"from .words import WORD\nfrom greetings import words\n{HEAD}{CLASS}\n"
        "assert __name__ == 'greetings.greet' and words.WORD is WORD"
    )
    files = {"greetings/__init__": "", "greetings/words": "WORD = 1", "greetings/greet": source}
    write(tmp_path, **files)
    kind = "greetings/greet.py:Hello"
    assert load_class(GREETER, kind, tmp_path)()("Ada") == "hello Ada!"
    # an edited neighbour is read again, though the file itself is as it was
    write(tmp_path, **{"greetings/words": "WORD = 2\nassert False, 'edited'"})
    with pytest.raises(UserError, match=r"words.py, line 2: importing it raised .*edited"):
        load_class(GREETER, kind, tmp_path)


@pytest.mark.parametrize(
    ("name", "owner"), [("random", "Python's own module"), ("yaml", "site-packages/yaml")]
)
def test_a_neighbour_with_the_name_of_another_module_is_refused(
    tmp_path: Path, name: str, owner: str
) -> None:
    write(tmp_path, greet=f"import {name}\n{HEAD}{CLASS}", **{name: ""})
    with pytest.raises(UserError) as raised:
        load_class(GREETER, "greet.py:Hello", tmp_path)
    assert f"{tmp_path}/{name}.py: `import {name}` would be" in str(raised.value)
    assert owner in str(raised.value)
    assert "another name" in str(raised.value)


def test_the_files_of_a_plugin_are_those_that_it_imports(tmp_path: Path) -> None:
    files = {
        "pack/__init__": "from pack.a import x",
        "pack/greet": "from . import b\nimport torch, beside",
        "pack/a": "x = 1",
        "pack/b": "from .c import y",
        "pack/c": "y = 2",
        "pack/unread": "",
        "beside": "",
    }
    write(tmp_path, **files)
    path = tmp_path / "pack/greet.py"
    assert root_of(path) == tmp_path
    first, *others = (f.relative_to(tmp_path).as_posix() for f in with_imports(path, tmp_path))
    assert first == "pack/greet.py"
    assert sorted(others) == sorted(
        f"{name}.py" for name in files.keys() - {"pack/greet", "pack/unread"}
    )


UNPICKLE = """
import pickle, sys
hello = pickle.loads(sys.stdin.buffer.read())
print(hello("Ada"), hello.sign, hello.kind, type(hello.sign).__module__)
"""


def test_a_run_directory_is_read_with_its_copy_of_a_file_from_elsewhere(tmp_path: Path) -> None:
    write(tmp_path, greetings=HEAD + CLASS)
    file = tmp_path / "greetings.py"
    copy = tmp_path / "run" / COPIES / copy_name(str(file))
    copy.parent.mkdir(parents=True)
    copy.write_text(HEAD + CLASS.replace("hello", "good day"))
    kind = f"{file}:Hello"
    assert load_class(GREETER, kind, tmp_path)()("Ada") == "hello Ada!"
    assert load_class(GREETER, kind, tmp_path / "run")()("Ada") == "good day Ada!"


def test_a_pickled_plugin_works_where_its_files_are_not(tmp_path: Path) -> None:
    """In another process, after the files are gone; with a setting of a class beside it."""
    write(
        tmp_path,
        greet=f"from signs import Sign\n{HEAD}{LATE}".replace('str = "!"', "Sign = Sign('!')"),
        signs="class Sign(str): pass",
        late="TEXT = 'oh '",
    )
    hello = load_class(GREETER, "greet.py:Hello", tmp_path)()
    pickled = pickle.dumps([hello, hello])
    again, twice = pickle.loads(pickled)
    assert again == hello
    assert again is twice
    assert type(again) is type(hello)
    for path in tmp_path.glob("*.py"):
        path.unlink()
    printed = subprocess.run(
        [sys.executable, "-c", UNPICKLE],
        input=pickle.dumps(hello),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    assert printed.decode() == "oh hello Ada! ! greet.py:Hello signs\n"


# ---- entry points


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """The entry points of the group `reasontrain.greeter`."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(installed, "_all", lambda: tuple(points))
    return points


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "reasontrain.greeter")


def test_a_name_of_a_package_is_a_kind(
    tmp_path: Path, entries: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, installed_greetings=HEAD + CLASS)
    monkeypatch.syspath_prepend(tmp_path)
    entries.append(entry("hi", "installed_greetings:Hello"))
    hello = load_class(GREETER, "hi", Path())(sign="?")
    assert (hello("Ada"), hello.kind) == ("hello Ada?", "hi")
    assert pickle.loads(pickle.dumps(hello)) == hello
    assert [Path(path).name for path in hello.plugin_source.files()] == ["installed_greetings.py"]


def test_a_class_without_a_source_file_is_named_by_its_module(
    entries: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_from_spec(ModuleSpec("compiled_greetings", None))
    monkeypatch.setitem(sys.modules, "compiled_greetings", module)
    exec(HEAD + CLASS.replace("return ", "return 1 / 0 or "), vars(module))
    entries.append(entry("hi", "compiled_greetings:Hello"))
    with pytest.raises(RunError, match="compiled_greetings: Hello raised ZeroDivisionError"):
        load_class(GREETER, "hi", Path())()("Ada")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (["a:A", "b:B"], "the kind 'hi' is defined by an unknown package (a:A) and by an unknown"),
        (["a"], "the entry point hi of reasontrain.greeter is 'a'; expected MODULE:CLASS"),
        (["gone_package:A"], "importing gone_package raised ModuleNotFoundError: No module"),
    ],
)
def test_names_of_packages_must_be_one_class_each(
    entries: list[EntryPoint], values: list[str], sentence: str
) -> None:
    entries += [entry("hi", value) for value in values]
    with pytest.raises(UserError) as raised:
        load_class(GREETER, "hi", Path())
    assert sentence in str(raised.value)
