"""The command line: `reasontrain COMMAND --help` says what each does, with an example.

Exit codes: 0 done, 1 the run failed or was stopped, 2 wrong input. A user's mistake is one
sentence, never a traceback.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from reasontrain.cli import messages
from reasontrain.cli.arguments import parser
from reasontrain.types import RunError, UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options: argparse.Namespace = parser().parse_args(arguments)
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


def _fail(message: str, code: int) -> int:
    print(f"reasontrain: {message}", file=sys.stderr)
    return code
