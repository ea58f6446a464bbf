"""Sphinx configuration of the documentation site.

`make docs` builds it into `site-docs/`, without a network: the theme, its icons and the search
index are files of the site. Every warning is an error there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS / "_sphinx"))

project = "reasontrain"
author = "The reasontrain authors"
copyright = author
(release,) = re.findall(
    r'^__version__ = "(.*)"$', (DOCS.parent / "reasontrain/__init__.py").read_text(), re.MULTILINE
)

extensions = ["myst_parser", "repository_files", "api_reference"]
myst_enable_extensions = ["colon_fence"]
exclude_patterns = ["_*"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
highlight_language = "text"
smartquotes = False  # they make one dash of the two before an option
nitpicky = False  # types in signatures name classes of torch, which has no index on this disk

html_theme = "furo"
html_title = f"reasontrain {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # it would fetch the pages, which browsers refuse on disk
html_theme_options = {"navigation_with_keys": True}
