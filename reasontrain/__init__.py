"""Post-train reasoning LLMs on the tokens that matter: evidence -> weight -> loss.

`load_recipe`, `train` and `evaluate` are the Python interface (see `reasontrain.api`). Importing
the package is cheap: torch and other heavy packages are imported when one of them is first used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reasontrain.api import evaluate, load_recipe, train

__all__ = ["__version__", "evaluate", "load_recipe", "train"]
__version__ = "0.1.0"

# Waiting OpenMP threads must sleep: on a small CPU spinning makes tiny matrices 50 times slower.
# Torch reads it when imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> object:
    """Import the Python interface when one of its functions is first used."""
    if name in __all__:
        from reasontrain import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
