"""What all pages share: templates that escape, numbers as a reader wants them, one style, and a
script known by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reasontrain.report import numbers

PAGE = Path(__file__).parent / "page"


@cache  # an environment keeps the templates that it compiled
def templates(*folders: Path) -> Environment:
    """The templates of `folders`, then those of reports. Whatever they are given is escaped."""
    environment = Environment(
        loader=FileSystemLoader([*folders, PAGE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "short": numbers.short,
        "percent": numbers.percent,
        "points": numbers.points,
        "signed_points": numbers.signed_points,
        "duration": numbers.duration,
    }
    return environment


def text(path: Path) -> str:
    """A style or a script as it goes into a page."""
    return path.read_text(encoding="utf-8").strip()


def script_hash(script: str) -> str:
    """The name by which a page's policy lets this script run, and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
