"""Build the site: read runs and reports, and write pages and files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from reasontrain.data import storage
from reasontrain.leaderboard import drawing, files
from reasontrain.leaderboard.answers import read_answers
from reasontrain.leaderboard.columns import BoardColumn, columns
from reasontrain.leaderboard.comparison_text import verdict
from reasontrain.leaderboard.drawing import Bar
from reasontrain.leaderboard.entries import Entry, read_entries
from reasontrain.leaderboard.transcripts import parts, transcript
from reasontrain.report import charts, templates

_PAGE = Path(__file__).parent / "page"


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A column of the table, with the limits of its axis and the bars of its rows."""

    column: BoardColumn
    low: float
    high: float
    bars: Mapping[str, Bar]


def write_leaderboard(paths: Sequence[Path], out: Path, *, apart: bool = False) -> Path:
    """Write the site of these runs and reports below `out` and return its first page.

    With `apart`, results of one suite with different settings get separate columns; without, they
    raise `UserError`, like a path without an evaluation.
    """
    entries = read_entries(paths)
    board_columns = columns(entries, apart=apart)
    texts = {
        "index.html": render_board(entries, board_columns),
        "leaderboard.md": files.markdown(entries, board_columns),
        "leaderboard.csv": files.csv_text(entries, board_columns),
        "leaderboard.json": json.dumps(
            files.content(entries, board_columns), indent=1, ensure_ascii=False, allow_nan=False
        )
        + "\n",
    }
    texts |= {f"cards/{entry.slug}.md": files.card(entry) for entry in entries}
    for name, text in texts.items():
        _write(out / name, text)
    for entry in entries:
        for name, text in render_entry(entry, out / "runs").items():
            _write(out / "runs" / name, text)
    return out / "index.html"


def render_board(entries: Sequence[Entry], board_columns: Sequence[BoardColumn]) -> str:
    """The first page as text."""
    names = {entry.slug: entry.name for entry in entries}
    first = [column for column in board_columns if column.metric == board_columns[0].metric]
    best = first[0].order if first else ()
    values = {
        "entries": sorted(
            entries,
            key=lambda entry: (
                entry.slug not in best,
                best.index(entry.slug) if entry.slug in best else 0,
            ),
        ),
        "names": names,
        "tones": drawing.tones(entries),
        "legend": drawing.legend(entries),
        "columns": [_shown(column) for column in board_columns],
        "metrics": list(dict.fromkeys(column.metric for column in board_columns)),
        "answers": [(column, verdict(column, names)) for column in first],
        "curves": [drawn for column in first if (drawn := drawing.curve(column, entries))],
        "scatters": [picture for column in first if (picture := drawing.scatter(column, entries))],
        "data": _data(board_columns),
        "size": charts,
    }
    return _render("board.html.j2", values)


def render_entry(entry: Entry, folder: Path) -> dict[str, str]:
    """The pages of one row by file name, for this folder; a row with many answers has several."""
    suites = [transcript(r.evaluation, read_answers(r.answers)) for r in entry.results if r.answers]
    pages = parts(suites)
    num_right = {suite.name: sum(answer.correct for answer in suite.answers) for suite in suites}
    names = [
        f"{entry.slug}{f'-{number}' if number > 1 else ''}.html"
        for number in range(1, len(pages) + 1)
    ]
    return {
        name: _render(
            "entry.html.j2",
            {
                "entry": entry,
                "part": part,
                "number": number,
                "names": names,
                "num_right": num_right,
                "pages": {name: _address(page, folder) for name, page in entry.pages.items()},
            },
        )
        for number, (name, part) in enumerate(zip(names, pages, strict=True), 1)
    }


def _address(page: Path, folder: Path) -> str:
    """The address of a page on this machine, relative to a folder of the site."""
    return quote(Path(os.path.relpath(page.resolve(), folder.resolve())).as_posix())


def _shown(column: BoardColumn) -> _Column:
    low, *_, high = drawing.marks(column)
    return _Column(
        column=column,
        low=low,
        high=high,
        bars={row: drawing.bar(cell, low, high) for row, cell in column.cells.items()},
    )


def _data(board_columns: Sequence[BoardColumn]) -> str:
    """Differences for the script, as JSON by column, row and other row.

    `<` is escaped, because `</script>` would end the script element.
    """
    table: list[dict[str, dict[str, list[float]]]] = []
    for column in board_columns:
        rows: dict[str, dict[str, list[float]]] = {}
        for (one, other), gap in column.differences.items():
            rows.setdefault(one, {})[other] = [
                round(100 * end, 2) for end in (gap.value, gap.low, gap.high)
            ]
        table.append(rows)
    return json.dumps(table, separators=(",", ":")).replace("<", "\\u003c")


def _render(template: str, values: Mapping[str, object]) -> str:
    """Render a page with style, script, and a policy that allows no other script."""
    script = templates.text(_PAGE / "board.js")
    style = (
        templates.text(templates.PAGE / "style.css") + "\n" + templates.text(_PAGE / "board.css")
    )
    return (
        templates.templates(_PAGE)
        .get_template(template)
        .render(**values, script=script, script_hash=templates.script_hash(script), style=style)
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.replace_text(path, text)
