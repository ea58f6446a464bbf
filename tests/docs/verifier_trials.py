"""Rewritings of golds and the search for rewards, with their failures by kind.

`python -m tests.docs.verifier_trials [kept] [changed] [search] [--golds N]` runs trials and writes
their figures to `verifier_trials.json`, from which a table in docs/verifier.md is made. Without
`--golds` each rewriting is applied to all golds, which takes a core for half an hour.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reasontrain.tasks.grading import Grader
from tests.tasks.grading.corpus import sample
from tests.tasks.grading.reward_search import Search, by_kind, gold_set
from tests.tasks.grading.rewritings import CHANGING, KEEPING, Rewriting
from tests.tasks.grading.test_metamorphic import applied, judged

FIGURES = Path(__file__).with_name("verifier_trials.json")
SHOWN = 3
"""Failures of a kind that are written down as examples."""
MOST_KINDS = 40

Figures = dict[str, Any]


def kept(grader: Grader, num_golds: int | None) -> Figures:
    """Rewritings that keep the value, and answers that are refused all the same."""
    return _rewritten(grader, KEEPING, num_golds, is_kept=True)


def changed(grader: Grader, num_golds: int | None) -> Figures:
    """Rewritings that change the value, and answers that are accepted all the same."""
    return _rewritten(grader, CHANGING, num_golds, is_kept=False)


def _rewritten(
    grader: Grader, rewritings: Sequence[Rewriting], num_golds: int | None, *, is_kept: bool
) -> Figures:
    kinds = {}
    num_answers = 0
    for rewriting in rewritings:
        cases = list(applied(rewriting))
        if num_golds is not None:
            cases = sample(cases, num_golds)
        right, wrong = judged(grader, cases)
        failed = wrong if is_kept else right
        num_answers += len(cases)
        if failed:
            kinds[rewriting.name] = {
                "failed": len(failed),
                "of": len(cases),
                "examples": failed[:SHOWN],
            }
    return {
        "kinds_tried": len(rewritings),
        "golds_each": num_golds,
        "answers": num_answers,
        "failed": sum(kind["failed"] for kind in kinds.values()),
        "kinds": kinds,
    }


def search(grader: Grader, num_golds: int | None) -> Figures:
    """The search for answers that are right for two golds; a sixth of it if golds are limited."""
    texts, removed = gold_set()
    trial = Search(grader, texts)
    hacks = by_kind(trial.run(*((30, 8_000) if num_golds is None else (5, 1_200)), rounds=2))
    return {
        "golds": len(texts),
        "golds_left_out": removed,
        "answers": trial.num_tried,
        "right_for_a_gold": trial.num_right,
        "failed": sum(map(len, hacks.values())),
        "kinds": {
            step: {
                "failed": len(found),
                "examples": [f"{hack.trial.response!r} for {hack.golds}" for hack in found[:SHOWN]],
            }
            for step, found in list(hacks.items())[:MOST_KINDS]
        },
    }


TRIALS: Mapping[str, tuple[Callable[[Grader, int | None], Figures], float]] = {
    "kept": (kept, 5.0),
    "changed": (changed, 1.0),
    "search": (search, 1.0),
}
"""Each trial with the processor seconds that algebra may take for one answer.

Near misses are often expressions that algebra cannot tell from each other in any time.
"""


def figures() -> dict[str, Figures]:
    """The committed figures."""
    return json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}


def table() -> str:
    """The table of trials."""
    figured = figures()
    same, other, hunt = (figured[name] for name in TRIALS)
    left_out = f"{hunt['golds']} golds of different value ({hunt['golds_left_out']} left out)"
    rows = [
        (
            f"{same['kinds_tried']} rewritings that keep the value, of {_golds(same)}",
            f"{same['answers']:,}",
            f"{same['failed']:,} refused ({same['failed'] / same['answers']:.2%})",
        ),
        (
            f"{other['kinds_tried']} rewritings that change the value, of {_golds(other)}",
            f"{other['answers']:,}",
            f"{other['failed']:,} accepted ({other['failed'] / other['answers']:.3%})",
        ),
        (
            f"search over {left_out}",
            f"{hunt['answers']:,}, of which {hunt['right_for_a_gold']:,} are right for a gold",
            f"{hunt['failed']:,} right for two golds",
        ),
    ]
    lines = ["| trial | answers | failures |", "| --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    for name in TRIALS:
        kinds = figured[name]["kinds"]
        if kinds:
            shown = sorted(kinds.items(), key=lambda item: -item[1]["failed"])
            listed = ", ".join(f"{kind} {row['failed']}" for kind, row in shown[:12])
            lines += ["", f"Most failures of `{name}`: {listed}."]
    return "\n".join(lines)


def _golds(figured: Figures) -> str:
    number = figured["golds_each"]
    return "all golds they apply to" if number is None else f"up to {number} golds each"


def main() -> None:
    """Run trials and write their figures."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("names", nargs="*")
    arguments.add_argument("--golds", type=int, default=None)
    options = arguments.parse_args()
    for name in options.names or TRIALS:
        run, limit_s = TRIALS[name]
        with Grader(num_workers=1, limit_s=limit_s) as grader:
            rows = figures() | {name: run(grader, options.golds)}
        ordered = {known: rows[known] for known in TRIALS if known in rows}
        text = json.dumps(ordered, indent=1, ensure_ascii=False) + "\n"
        FIGURES.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
