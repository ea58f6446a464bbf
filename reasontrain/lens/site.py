"""Write the pages: one HTML file, and scripts with the rollouts of each run and step."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from reasontrain.algo.token_selection import TokenSelection
from reasontrain.algo.token_selection.scores.quadrants import QUADRANTS
from reasontrain.data import storage
from reasontrain.lens import pack, scales
from reasontrain.lens.recorded import RecordedRollout, read_rollouts, recorded_evidence
from reasontrain.lens.rules import rules_beside
from reasontrain.lens.steps import StepView, view_step
from reasontrain.recipe import Recipe, read_recipe
from reasontrain.report import colours, templates, write_report
from reasontrain.report.numbers import Json
from reasontrain.run.directory import RunDirectory
from reasontrain.types import UserError

CHUNK_TOKENS = 16_000
"""Tokens of a script with rollouts: a few hundred kilobytes, read in a few milliseconds."""
CHUNK_ROLLOUTS = 64
SNIPPET = 90
"""Characters of a prompt in the list of rollouts."""
_PAGE = Path(__file__).parent / "page"


@dataclass(frozen=True)
class _Chunk:
    """Rollouts from `start` up to `stop`, in one script."""

    start: int
    stop: int


def write_lens(
    run_dirs: Sequence[Path], out: Path | None = None, rules: Sequence[TokenSelection] = ()
) -> Path:
    """Write the lens of one or several runs and return its page.

    The report of a run is written again if its lens is within the run's folder, so that it links
    to it.

    Args:
        run_dirs: run directories with token files.
        out: folder of the pages; None for that of the run, or `lens` for several runs.
        rules: rules to compare; empty for all whose evidence was recorded.

    Raises:
        UserError: for a folder without token files, and for a token file that cannot be read.
    """
    places = [run_dir.resolve() for run_dir in run_dirs]
    if len(set(places)) < len(places):
        raise UserError("a run is named twice; name each run once")
    directories = [RunDirectory(run_dir) for run_dir in run_dirs]
    for directory in directories:
        _check(directory)
    if out is None:
        out = directories[0].lens if len(directories) == 1 else Path("lens")
    data = out / "data"
    # scripts of an earlier page may be of other steps and rules
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    runs = [
        _write_run(f"run{number}", directory, data, rules)
        for number, directory in enumerate(directories)
    ]
    page = out / "index.html"
    storage.replace_text(page, _render(runs))
    for directory in directories:
        if page == directory.lens_page and directory.report_page.exists():
            write_report(directory.path)
    return page


def _check(directory: RunDirectory) -> None:
    """Raise UserError if there is nothing to show."""
    if not directory.path.is_dir():
        raise UserError(
            f"no run directory at {directory}; expected a folder that `reasontrain train` wrote"
        )
    if not directory.token_files():
        raise UserError(
            f"{directory} has no token files ({directory.tokens_at(1)} and so on); set "
            f"track.tokens_every above 0 and train again"
        )


def _write_run(
    key: str, directory: RunDirectory, data: Path, rules: Sequence[TokenSelection]
) -> Json:
    """Write the scripts of a run; return what the page needs from the start."""
    recipe, note = _recipe(directory)
    files = directory.token_files()
    rules = rules or rules_beside(
        recipe, frozenset[str]().union(*map(recorded_evidence, files.values()))
    )
    steps: list[dict[str, int]] = []
    shown: dict[str, scales.Scale] = {}
    for step, path in files.items():
        rollouts = read_rollouts(path)
        view = view_step(step, rollouts, rules, recipe)
        for name in view.names:
            if name not in shown:
                columns = (r.evidence[name] for r in rollouts if name in r.evidence)
                shown[name] = scales.scale_of(name, columns)
        for place, text in _scripts(f"{key}-step{step}", view):
            storage.replace_text(data / place, text)
        steps.append({"step": step, "rollouts": len(rollouts)})
    return {
        "key": key,
        "name": directory.path.resolve().name if recipe is None else recipe.name,
        "steps": steps,
        "scales": [asdict(scale) for scale in shown.values()],
        "notes": [*([note] if note else []), *_notes(recipe, steps)],
    }


def _recipe(directory: RunDirectory) -> tuple[Recipe | None, str]:
    """The recipe of the run, and a note if it cannot be read, as one of another version."""
    try:
        return read_recipe(directory.recipe), ""
    except UserError as error:
        reason = " ".join(str(error).split())
        return None, (
            f"Rules are computed with seed 0 and as in the first step, because the recipe cannot "
            f"be read: {reason}"
        )


def _notes(recipe: Recipe | None, steps: Sequence[dict[str, int]]) -> Iterator[str]:
    """Cautions about rules that rank all tokens of a step."""
    if recipe is None:
        return
    most = max(step["rollouts"] for step in steps)
    if most < recipe.learn.rollouts_per_step:
        yield (
            f"The run recorded at most {most} of the {recipe.learn.rollouts_per_step} rollouts of "
            f"a step (track.tokens_rollouts). Rules that rank or normalise over the whole step are "
            f"computed from the recorded ones alone, so they may differ from what training saw."
        )


def _scripts(key: str, view: StepView) -> Iterator[tuple[str, str]]:
    """Name and text of the scripts of a step: the list of its rollouts, then the rollouts."""
    chunks = list(_chunks(view.rollouts))
    chunk_of = [number for number, part in enumerate(chunks) for _ in range(part.start, part.stop)]
    listed = [_row(view, index, chunk_of[index]) for index in range(len(view.rollouts))]
    content = {
        "names": list(view.names),
        "rules": [
            {
                "name": rule.name,
                "reason": rule.reason,
                "kept": rule.kept,
                "overlap": rule.overlap,
                "evidence": rule.evidence,
            }
            for rule in view.rules
        ],
        "rollouts": listed,
        "chunks": [[part.start, part.stop] for part in chunks],
        "quadrants": view.quadrants is not None,
    }
    yield f"{key}.js", pack.script("step", key, content)
    for number, part in enumerate(chunks):
        among = slice(part.start, part.stop)
        packed = pack.chunk(
            view.rollouts[among],
            names=view.names,
            rules=[None if rule.weight is None else rule.weight[among] for rule in view.rules],
            quadrants=None if view.quadrants is None else view.quadrants[among],
        )
        yield f"{key}-{number}.js", pack.script("chunk", f"{key}-{number}", packed)


def _chunks(rollouts: Sequence[RecordedRollout]) -> Iterator[_Chunk]:
    """Divide rollouts into scripts of about equal size."""
    start = tokens = 0
    for index, rollout in enumerate(rollouts):
        full = tokens + len(rollout.kinds) > CHUNK_TOKENS or index - start == CHUNK_ROLLOUTS
        if full and index > start:
            yield _Chunk(start, index)
            start = index
            tokens = 0
        tokens += len(rollout.kinds)
    if start < len(rollouts):
        yield _Chunk(start, len(rollouts))


def _row(view: StepView, index: int, chunk: int) -> Json:
    """A rollout in the list, in the order that `lens.js` reads."""
    rollout = view.rollouts[index]
    quadrant = b"" if view.quadrants is None else view.quadrants[index]
    return [
        rollout.id,
        rollout.problem[:SNIPPET],
        _snippet(rollout.prompt),
        rollout.reward,
        rollout.advantage,
        rollout.correct,
        rollout.group,
        rollout.dropped,
        rollout.truncated,
        rollout.num_response_tokens,
        [
            None if rule.weight is None else int((rule.weight[index] != 0).sum())
            for rule in view.rules
        ],
        [quadrant.count(q) for q in QUADRANTS],
        chunk,
    ]


def _snippet(prompt: str) -> str:
    """The beginning of the question, without the marks and roles of a chat template."""
    lines = [line.strip() for line in prompt.splitlines()]
    spoken = [line for line in lines if line and not line.startswith(("<|", "<start_of", "[INST"))]
    # of a system prompt and a question, the question comes last but for an instruction
    longest = max(spoken, key=len, default=prompt.strip())
    return longest if len(longest) <= SNIPPET else longest[: SNIPPET - 1] + "…"


def _render(runs: Sequence[Json]) -> str:
    """The page, with a policy by which only its own script, and what that loads, may run."""
    script = templates.text(_PAGE / "lens.js")
    names = ", ".join(str(run["name"]) for run in runs if isinstance(run, dict))
    page = (
        templates.templates(_PAGE)
        .get_template("lens.html.j2")
        .render(
            title=names,
            data=pack.ascii_json({"runs": runs}),
            style=templates.text(templates.PAGE / "style.css")
            + "\n"
            + templates.text(_PAGE / "lens.css"),
            light=colours.rules(colours.LIGHT),
            dark=colours.rules(colours.DARK),
            script=script,
            script_hash=templates.script_hash(script),
        )
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # a name may hold half a surrogate pair
