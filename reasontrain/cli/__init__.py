"""The command line: `reasontrain COMMAND --help` describes each command, with an example.

Exit codes: 0 done, 1 the run failed or was stopped, 2 invalid input. An invalid input is reported
in one sentence, without a traceback.
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
    # after parsing, so that `--help` does not import it
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


def _fail(message: str, code: int) -> int:
    print(f"reasontrain: {message}", file=sys.stderr)
    return code
