"""Links that leave `docs/`: pages written elsewhere in the repository, files and folders.

The pages are Markdown that reads well in the repository too, so they link to files by relative
paths. On the site, what stands between `<!-- include: FILE -->` and `<!-- end of include -->`
becomes the text of that file; a link to an included file becomes one to its page, a link to a
folder its text alone, and a link to any other file a download.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

INCLUDE = re.compile(
    r"^<!-- include: (\S+) -->$.*?^<!-- end of include -->$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(
    r"(?P<image>!?)(?P<text>\[[^\[\]]*\])\((?P<path>[^()\s#]+)(?P<anchor>#[^()\s]*)?\)"
)
EXTERNAL = re.compile(r"[a-z]+:")


def rewritten(text: str, base: Path, page: Path, pages: dict[Path, Path]) -> str:
    """The text with its relative links as they are from another place.

    Args:
        text: Markdown whose links are relative to `base`.
        base: folder of the file that the text stands in.
        page: the page of the site that will hold the text.
        pages: included file -> the page that holds it.

    Returns:
        The text with links that are relative to the folder of `page`.
    """

    def link(match: re.Match[str]) -> str:
        if EXTERNAL.match(match["path"]):
            return match[0]
        target = (base / match["path"]).resolve()
        if target.is_dir():
            return match["text"][1:-1]
        path = os.path.relpath(pages.get(target, target), page.parent)
        return f"{match['image']}{match['text']}({Path(path).as_posix()}{match['anchor'] or ''})"

    return LINK.sub(link, text)


def included_files(docs: Path) -> dict[Path, Path]:
    """Files that pages include -> the page."""
    return {
        (docs.parent / file).resolve(): page
        for page in docs.rglob("*.md")
        for file in INCLUDE.findall(page.read_text(encoding="utf-8"))
    }


def on_source_read(app: Sphinx, docname: str, content: list[str]) -> None:
    """Put the files in and mend the links of a page before it is parsed."""
    docs = Path(app.srcdir)
    page, pages = docs / f"{docname}.md", included_files(docs)

    def file(match: re.Match[str]) -> str:
        source = docs.parent / match[1]
        app.env.note_dependency(str(source), docname=docname)
        return rewritten(source.read_text(encoding="utf-8"), source.parent, page, pages)

    own = rewritten(content[0], page.parent, page, pages)
    content[0] = INCLUDE.sub(file, own)


def setup(app: Sphinx) -> dict[str, object]:
    """Register the hook with Sphinx."""
    app.connect("source-read", on_source_read)
    return {"parallel_read_safe": True}
