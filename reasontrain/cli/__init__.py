"""The command line: `reasontrain COMMAND --help` describes each command, with an example.

Exit codes: 0 done, 1 the run failed or was stopped, 2 invalid input. An invalid input is reported
in one sentence, without a traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType

from reasontrain.cli import messages
from reasontrain.cli.arguments import parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options: argparse.Namespace = parser().parse_args(arguments)
    _defer("torch")
    # after parsing, so that `--help` does not import it
    from reasontrain.types import RunError, UserError

    try:
        with messages.shown(beside_data=options.prints_data):
            options.run(options)
    except UserError as error:
        return _fail(str(error), 2)
    except (RunError, KeyboardInterrupt) as error:
        return _fail(str(error) or "stopped", 1)
    except BrokenPipeError:
        # Whoever reads the output has read enough; Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'the system'}: {error.strerror or error}", 1)
    return 0


class _DeferredModule(ModuleType):
    """A package in `sys.modules` that is loaded at the first access to an attribute.

    `importlib.util.LazyLoader` would load it at the second `import`, which reads `__spec__`.
    """

    def __getattr__(self, name: str) -> object:
        spec = self.__spec__
        assert spec is not None, "`_defer` found it"
        assert spec.loader is not None, "a package with code, not a namespace"
        object.__setattr__(
            self, "__class__", ModuleType
        )  # the package reads its own attributes while it loads
        self.__path__ = spec.submodule_search_locations or []
        spec.loader.exec_module(self)
        return getattr(self, name)


class _LoadedModule(Loader):
    """Hands out a module that is loaded already."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module as it is."""
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        """Put back the module's own spec, which importlib has replaced."""
        module.__spec__ = self.spec


class _LoadedSubmodules(MetaPathFinder):
    """Finds submodules that loading a deferred package has imported.

    `import torch.distributed` as the first use of torch loads all of torch, with its submodules,
    while importlib is about to load the submodule: it would run it a second time, which crashes.
    """

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec that yields the loaded module; None for every other module."""
        module = sys.modules.get(name)
        if target is not None or module is None or name.rpartition(".")[0] != self.package:
            return None
        return ModuleSpec(name, _LoadedModule(module))


def _defer(name: str) -> None:
    """Make `import name` of a package cheap: it is loaded when it is first used.

    Rules and objectives import torch for their computations, but `validate` only builds them, and
    importing torch would take most of its time. A package that is not installed fails at its
    import, as usual.
    """
    spec = None if name in sys.modules else find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        return
    module = module_from_spec(spec)
    module.__class__ = _DeferredModule
    del module.__path__  # importing a submodule reads it, which loads the package first
    sys.modules[name] = module
    sys.meta_path.insert(0, _LoadedSubmodules(name))


def _fail(message: str, code: int) -> int:
    print(f"reasontrain: {message}", file=sys.stderr)
    return code
