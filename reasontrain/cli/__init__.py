"""The command line: `reasontrain COMMAND --help` describes each command, with an example.

Exit codes: 0 done, 1 the run failed or was stopped, 2 wrong input. A user's mistake is one
sentence, never a traceback.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec, module_from_spec
from types import ModuleType

from reasontrain.cli import messages
from reasontrain.cli.arguments import parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options: argparse.Namespace = parser().parse_args(arguments)
    _defer("torch")
    # After parsing, so that `--help` ends without it.
    from reasontrain.types import RunError, UserError

    try:
        with messages.shown():
            options.run(options)
    except UserError as error:
        return _fail(str(error), 2)
    except (RunError, KeyboardInterrupt) as error:
        return _fail(str(error) or "stopped", 1)
    except OSError as error:
        return _fail(f"{error.filename or 'the system'}: {error.strerror or error}", 1)
    return 0


class _DeferredModule(ModuleType):
    """A package in `sys.modules` that is loaded when something of it is used.

    `importlib.util.LazyLoader` would load it at the second `import`, which looks at `__spec__`.
    """

    def __getattr__(self, name: str) -> object:
        spec = self.__spec__
        assert spec is not None, "`_defer` found it"
        assert spec.loader is not None, "a package with code, not a namespace"
        object.__setattr__(
            self, "__class__", ModuleType
        )  # the package reads its own attributes while it is loaded
        self.__path__ = spec.submodule_search_locations or []
        spec.loader.exec_module(self)
        return getattr(self, name)


def _defer(name: str) -> None:
    """Make `import name` of a package cheap in this process: it is loaded when it is first used.

    Rules and objectives import torch to compute, and `validate` only builds them: importing torch
    would take most of its time. A package that is not there fails where it is imported.
    """
    spec = None if name in sys.modules else find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        return
    module = module_from_spec(spec)
    module.__class__ = _DeferredModule
    del module.__path__  # importing a submodule needs it, and so loads the package first
    sys.modules[name] = module


def _fail(message: str, code: int) -> int:
    print(f"reasontrain: {message}", file=sys.stderr)
    return code
