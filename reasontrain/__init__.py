"""Post-train reasoning LLMs on the tokens that matter: evidence -> weight -> loss.

Importing the package is cheap: torch and the other heavy packages are imported by the rooms that
use them.
"""

from __future__ import annotations

import os

__version__ = "0.1.0"

# Waiting OpenMP threads must sleep: on a small CPU spinning makes tiny matrices 50 times slower.
# Torch reads it when imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
