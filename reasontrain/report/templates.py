"""Common parts of all pages: templates with escaping and number filters, style, script hash."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reasontrain.report import numbers

PAGE = Path(__file__).parent / "page"


@cache  # an environment caches its compiled templates
def templates(*folders: Path) -> Environment:
    """The templates of `folders`, then those of reports; all values are escaped."""
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
    """Read a style sheet or a script for a page."""
    return path.read_text(encoding="utf-8").strip()


def script_hash(script: str) -> str:
    """The hash of a script for the page's content security policy, which allows no other script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
