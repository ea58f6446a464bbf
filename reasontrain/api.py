"""The Python interface: load a recipe, train by it, evaluate models.

`reasontrain.load_recipe`, `reasontrain.train` and `reasontrain.evaluate` are these functions. They do
what the commands of the same names do, write the same files and raise `UserError` for wrong input.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from reasontrain.recipe import Recipe
