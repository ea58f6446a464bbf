"""The code of a plug-in, which travels with its instances to other processes.

A pickled plug-in carries the source text of its file and of the modules beside it that the file
imports, as they were when the recipe was read. So all processes of a run have the same code, on
machines that do not have the file too.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

from reasontrain.plugins.imports import module_name, root_of, with_imports
from reasontrain.types import UserError

_FILES: dict[str, tuple[str, bytes]] = {}
"""Path and source of the modules that plug-ins import from beside their files, by dotted name."""
_MODULES: dict[str, ModuleType] = {}
"""Modules of plug-ins by the digest of their code."""


class Source:
    """The origin of a plug-in's class; `root` is the folder that its imports start from."""

    root: str

    def module(self) -> ModuleType:
        """The module that defines the class; raise UserError if it cannot be imported."""
        raise NotImplementedError

    def files(self) -> Mapping[str, bytes]:
        """Content of the files that the class consists of, by path."""
        raise NotImplementedError

    def line_of(self, error: BaseException) -> str:
        """The last line of these files that an exception passed through, as `path, line n`."""
        own = set(self.files())
        if isinstance(error, SyntaxError) and error.filename in own:
            return f"{error.filename}, line {error.lineno}"
        line = ""
        trace = error.__traceback__
        while trace is not None:
            name = trace.tb_frame.f_code.co_filename
            if name in own:
                line = f"{name}, line {trace.tb_lineno}"
            trace = trace.tb_next
        return line or self.place

    @property
    def place(self) -> str:
        """The class's file in messages; its module's name if there is no source file."""
        files = self.files()
        return next(iter(files)) if files else self.module().__name__


@dataclass(frozen=True)
class FileSource(Source):
    """A Python file and the modules beside it that it imports.

    Attributes:
        path: the file's absolute path.
        root: the folder that absolute imports start from.
        folder: the absolute path of the recipe's folder.
        sources: path and content of each file, the plug-in's own first.
    """

    path: str
    root: str
    folder: str
    sources: tuple[tuple[str, bytes], ...]

    @classmethod
    def read(cls, path: Path, folder: Path) -> FileSource:
        """Read a file of a recipe in a folder, with its imports; raise OSError if that fails."""
        path = path.resolve()
        root = root_of(path)
        files = with_imports(path, root)
        sources = tuple((str(file), file.read_bytes()) for file in files)
        return cls(str(path), str(root), str(folder.resolve()), sources)

    def __reduce__(self) -> tuple[Callable[..., FileSource], tuple[object, ...]]:
        # What follows in the pickle may refer to classes of these files.
        return _arrived, (self.path, self.root, self.folder, self.sources)

    @cached_property
    def digest(self) -> str:
        """A hash of all files with their paths."""
        digest = hashlib.sha256()
        for path, source in self.sources:
            digest.update(f"{path}\0{len(source)}\0".encode("utf-8", "surrogatepass") + source)
        return digest.hexdigest()

    @property
    def is_packaged(self) -> bool:
        """True if the file is a module of a package."""
        return Path(self.path).parent != Path(self.root)

    @property
    def name(self) -> str:
        """The module's name: its own in a package, else one that no other module has."""
        dotted = module_name(Path(self.path), Path(self.root))
        return dotted if self.is_packaged else f"reasontrain_plugin_{dotted}_{self.digest[:12]}"

    def files(self) -> Mapping[str, bytes]:
        """See `Source`."""
        return dict(self.sources)

    def install(self) -> None:
        """Make the modules beside the file importable; raise UserError if a name is taken."""
        if _FINDER not in sys.meta_path:
            sys.meta_path.insert(0, _FINDER)
        root = Path(self.root)
        own = {
            module_name(Path(path), root): (path, source)
            for path, source in self.sources
            if path != self.path or self.is_packaged
        }
        if all(_FILES.get(name) == file for name, file in own.items()):
            return
        for name, (path, _) in own.items():
            top = name.partition(".")[0]
            if (owner := _owner(top, root)) is not None:
                raise UserError(
                    f"{path}: `import {top}` would be {owner}; give the file, or its package, "
                    "another name"
                )
        # All of them: a module that did not change may have bound one that did.
        for name in own:
            sys.modules.pop(name, None)
        _FILES.update(own)

    def module(self) -> ModuleType:
        """See `Source`."""
        self.install()
        if self.digest in _MODULES:
            return _MODULES[self.digest]
        if self.is_packaged:
            module = self._run(lambda: import_module(self.name))
        else:
            spec = spec_from_loader(self.name, FrozenSource(*self.sources[0]))
            assert spec is not None, "the loader knows its file"
            new = module_from_spec(spec)
            # dataclasses and pickle look up the module of what the file defines
            sys.modules[self.name] = new

            def execute() -> ModuleType:
                assert spec.loader is not None, "it was made with one"
                spec.loader.exec_module(new)
                return new

            module = self._run(execute)
        _MODULES[self.digest] = module
        return module

    def _run(self, load: Callable[[], ModuleType]) -> ModuleType:
        """Import; raise UserError with the text of any exception."""
        try:
            return load()
        except (Exception, SystemExit) as error:
            sys.modules.pop(self.name, None)
            raise UserError(
                f"{self.line_of(error)}: importing it raised {type(error).__name__}: {error}"
            ) from error


@dataclass(frozen=True)
class PackageSource(Source):
    """A class of an installed package.

    Attributes:
        module_name: the dotted name of the module.
        distribution: the package's name and version.
    """

    module_name: str
    distribution: str

    @property
    def root(self) -> str:  # type: ignore[override]
        """See `Source`."""
        return str(root_of(Path(next(iter(self.files()), "/nothing"))))

    def module(self) -> ModuleType:
        """See `Source`."""
        try:
            return import_module(self.module_name)
        except (Exception, SystemExit) as error:
            raise UserError(
                f"{self.distribution}: importing {self.module_name} raised "
                f"{type(error).__name__}: {error}"
            ) from error

    def files(self) -> Mapping[str, bytes]:
        """See `Source`; the class's module and its package's modules that it imports."""
        spec = find_spec(self.module_name)
        if spec is None or spec.origin is None or not Path(spec.origin).is_file():
            return {}
        path = Path(spec.origin)
        return {str(file): file.read_bytes() for file in with_imports(path, root_of(path))}


class FrozenSource(SourceLoader):
    """A file's code as it was when the recipe was read."""

    def __init__(self, path: str, source: bytes) -> None:
        self.path = path
        self.source = source

    def get_filename(self, fullname: str) -> str:
        """The file's path, for tracebacks."""
        return self.path

    def get_data(self, path: str) -> bytes:
        """The code."""
        return self.source


class _Finder(MetaPathFinder):
    """Finds the modules in `_FILES`, and the folders that they are in."""

    def find_spec(
        self, name: str, path: Iterable[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec of such a module; None for every other."""
        if name not in _FILES:
            inside = [path for known, (path, _) in _FILES.items() if known.startswith(f"{name}.")]
            return ModuleSpec(name, None, is_package=True) if inside else None
        file, source = _FILES[name]
        package = Path(file).name == "__init__.py"
        spec = spec_from_loader(name, FrozenSource(file, source), is_package=package)
        if spec is not None and package:
            spec.submodule_search_locations = [str(Path(file).parent)]
        return spec


_FINDER = _Finder()


def _arrived(
    path: str, root: str, folder: str, sources: tuple[tuple[str, bytes], ...]
) -> FileSource:
    """A source that was sent by another process, ready to be imported."""
    source = FileSource(path, root, folder, sources)
    source.install()
    return source


def _owner(top: str, root: Path) -> str | None:
    """The other module that has a name of a plug-in's file; None if there is none."""
    if top in sys.stdlib_module_names:
        return "Python's own module"
    if any(name == top or name.startswith(f"{top}.") for name in _FILES):
        return None  # of a plug-in, which is replaced: each has bound its own when it was imported
    file = vars(sys.modules[top]).get("__file__") if top in sys.modules else None
    if file is None or Path(file).resolve().is_relative_to(root):
        return None
    return file
