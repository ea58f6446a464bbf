"""From a `kind` to a class: find it, check it, and give it what built-in components have."""

from __future__ import annotations

import dataclasses
import inspect
import re
import traceback
from collections.abc import Callable, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import Literal, cast

from reasontrain.plugins.component import Component
from reasontrain.plugins.installed import installed, installed_names
from reasontrain.plugins.source import FileSource, Source
from reasontrain.types import RunError, UserError, did_you_mean

COPIES = "plugins"
"""Folder beside the recipe of a run in which copies of its plug-ins are kept."""
_KIND = re.compile(r"(?P<file>.+\.py):(?P<name>[^\W\d]\w*)")


def is_plugin_kind(component: Component, kind: object) -> bool:
    """True for a kind that is of a file, or tries to be, or is an entry point of a package."""
    return isinstance(kind, str) and (
        ":" in kind or kind.endswith(".py") or kind in installed_names(component.key)
    )


def load_class(component: Component, kind: str, folder: Path) -> type:
    """The class that a kind names, ready for use as a component.

    It is a subclass of the user's, with `kind` as its setting, whose instances carry their code
    when they are pickled and whose call reports the user's file and line when it fails.

    Args:
        component: what the class must be.
        kind: `FILE.py:CLASS`, or the name of an entry point.
        folder: the folder of the recipe, from which relative files are found.

    Raises:
        UserError: there is no such class, it cannot be imported, or it is no such component.
    """
    if ":" not in kind and not kind.endswith(".py"):
        source, name = installed(component.key, kind)
        return component_class(component, source, name, kind)
    match = _KIND.fullmatch(kind)
    if match is None:
        raise UserError(f"{kind!r} names no class of a file; write FILE.py:CLASS")
    path = find(match["file"], folder)
    try:
        file = FileSource.read(path, folder)
    except OSError as error:
        raise UserError(
            f"{path} is not a Python file that can be read ({error.strerror}); a plug-in's file is "
            "named relative to the folder of its recipe"
        ) from None
    return component_class(component, file, match["name"], kind)


def find(file: str, folder: Path) -> Path:
    """The path of a plug-in's file: beside the recipe or, in a run directory, its copy there.

    A file with an absolute path is found from a run directory too, and may have changed.
    """
    path = folder / Path(file).expanduser()
    copy = folder / COPIES / copy_name(file)
    is_elsewhere = not path.is_relative_to(folder) or not path.exists()
    return copy if is_elsewhere and copy.exists() else path


def copy_name(file: str) -> Path:
    """The path of a file's copy below the folder of copies."""
    return Path(*(part for part in Path(file).parts if part not in ("..", "/", "~")))


def copies_root(source: Source, kind: str) -> Path:
    """The folder below that of copies in which the files of a plug-in keep their order."""
    if not isinstance(source, FileSource):
        return Path("packages")
    below = copy_name(kind.rpartition(":")[0]).parent
    for _ in Path(source.path).parent.relative_to(source.root).parts:
        below = below.parent
    return below


@cache
def component_class(component: Component, source: Source, name: str, kind: str) -> type:
    """The class of a source as a component; see `load_class`."""
    module = source.module()
    where = source.place
    cls = vars(module).get(name)
    if cls is None:
        classes = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__
        ]
        raise UserError(
            f"{where} defines no class {name}{did_you_mean(name, classes)}; it defines "
            f"{', '.join(classes) or 'none'}"
        )
    if fault := _fault(component, cls):
        raise UserError(f"{where}: {name} is not {component.noun}: {fault}")
    namespace: dict[str, object] = {
        "__doc__": cls.__doc__,
        "__module__": cls.__module__,
        "__reduce__": _reduce,
        "plugin_source": source,
        "plugin_component": component,
        "plugin_name": name,
    }
    if component.arguments is not None:
        namespace["__call__"] = _guarded(component, source, cls)
    return dataclasses.make_dataclass(
        name,
        [("kind", Literal[kind], dataclasses.field(default=kind, kw_only=True))],
        bases=(cls,),
        namespace=namespace,
        frozen=True,
    )


def _fault(component: Component, cls: object) -> str | None:
    """The reason why a class is no such component; None if it is one."""
    if not isinstance(cls, type):
        return f"it is a {type(cls).__name__}, and a class is expected"
    if "__dataclass_fields__" not in vars(cls) or not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return "write @dataclass(frozen=True, kw_only=True) above it"
    if component.base is not None and not issubclass(cls, component.base):
        return f"it must inherit from {component.base.__module__}.{component.base.__name__}"
    known = {*dir(cls), *(field.name for field in dataclasses.fields(cls))}
    missing = [member for member in component.members if member not in known]
    if component.arguments is not None and "__call__" not in dir(cls):
        missing.append(f"__call__({', '.join(component.arguments)})")
    if missing:
        return f"it lacks {', '.join(missing)}"
    if component.arguments is not None:
        call = cast("Callable[..., object]", vars(cls).get("__call__", cls.__call__))
        try:
            inspect.signature(call).bind(None, *component.arguments)
        except TypeError:
            return f"its call must take ({', '.join(component.arguments)})"
        except ValueError:  # a call without a signature
            return None
    return None


def _guarded(component: Component, source: Source, cls: type) -> Callable[..., object]:
    """The call of a plug-in, whose errors name the file and the line."""
    call = cast("Callable[..., object]", cls.__call__)

    @wraps(call)
    def guarded(self: object, *arguments: object) -> object:
        try:
            result = call(self, *arguments)
        except (RunError, UserError):
            raise
        except Exception as error:
            trace = "".join(traceback.format_exception(error)).rstrip()
            raise RunError(
                f"{source.line_of(error)}: {cls.__name__} raised {type(error).__name__}: {error}\n"
                f"{trace}"
            ) from error
        check = component.check_result
        if check is not None and (fault := check(result, arguments)) is not None:
            raise RunError(f"{source.place}: {cls.__name__} returned {fault}")
        return result

    return guarded


def _reduce(self: object) -> tuple[Callable[..., object], tuple[object, ...]]:
    """Pickle a plug-in as its code and its settings."""
    cls = type(self)
    settings = {
        field.name: getattr(self, field.name)
        for field in dataclasses.fields(self)  # type: ignore[arg-type]
    }
    parts = vars(cls)
    where = (parts["plugin_source"], parts["plugin_component"], parts["plugin_name"])
    return _revived, (*where, settings)


def _revived(
    source: Source, component: Component, name: str, settings: Mapping[str, object]
) -> object:
    """A plug-in that was pickled."""
    cls = component_class(component, source, name, str(settings["kind"]))
    instance: object = object.__new__(cls)
    for field, value in settings.items():
        object.__setattr__(instance, field, value)
    return instance
