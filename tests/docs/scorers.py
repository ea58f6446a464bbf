r"""Verifiers on the collected cases: ours, math-verify, and the scorers of verl and lighteval.

`python -m tests.docs.scorers NAME...` measures scorers that can be imported where it runs, and
writes their figures to `scorers.json`, from which a table in docs/verifier.md is made. Ours is
measured again by a test. The other scorers pin versions that exclude each other, so each is
measured in an environment of its own:

    pip install --no-deps verl==0.9.1 tensordict pyvers orjson omegaconf pylatexenc
    pip install --no-deps lighteval==0.13.0 latex2sympy2_extended==1.0.6 aenum==3.1.15

Every scorer but ours is tried with the gold answer and with bare answers in each of the ways that
its documentation shows, and with its own settings; the table has the best.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import resource
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from tests.tasks.grading.corpus import cases

FIGURES = Path(__file__).with_name("scorers.json")
FILES = ("grader_cases", "grader_cases_2")
LIMIT_S = 60.0
"""Wall time of one case, after which a scorer is killed and the case counts as refused."""
SCORERS_LIMIT_S = 20
"""Wall time that scorers allow themselves for one step, four times their default, so that a busy
machine does not count against them.
"""
MEMORY_BYTES = 8 << 30

Score = Callable[[str, str], bool]
"""Whether a gold answer and a response are equal."""
Settings = Mapping[str, Any]


class Counts(NamedTuple):
    """Verdicts on one file of cases.

    Attributes:
        cases: their number.
        right: verdicts that are as the file says.
        accepted: wrong answers that are accepted.
        refused: right answers that are refused.
        killed: cases (counted as refused) in which the scorer had to be killed, or raised an error.
    """

    cases: int
    right: int
    accepted: int
    refused: int
    killed: int


class Scorer(NamedTuple):
    """A verifier to compare with.

    Attributes:
        packages: distributions whose versions are reported, the first one being the scorer's.
        make: the scorer with some settings.
        settings: each setting with the values to try, the default first.
    """

    packages: tuple[str, ...]
    make: Callable[[Settings], Score]
    settings: Mapping[str, Sequence[Any]]


# --- Forms of golds and of answers that are nothing but the answer ---

_MARKS = re.compile(r"\$(.*)\$|\\\[(.*)\\\]|\\\((.*)\\\)|\\boxed\{(.*)\}", re.DOTALL)
TEXT_INPUTS: Mapping[str, Sequence[str]] = {
    "gold": ("bare", "as in the file"),
    "bare answers": ("in a box", "as in the file"),
}
"""Forms that scorers may want which compare texts."""
ALGEBRA_INPUTS = TEXT_INPUTS | {"gold": ("in dollars", "in a box", "as in the file")}


def without_marks(text: str) -> str:
    """A formula without the dollars or the box around all of it."""
    match = _MARKS.fullmatch(text.strip())
    inside = next(part for part in match.groups() if part is not None) if match else text
    return text if "$" in inside or "\\boxed" in inside else inside.strip()


def in_form(text: str, form: str) -> str:
    """A text that is only an answer, written in one of the forms above."""
    forms = {
        "bare": "{}",
        "in dollars": "${}$",
        "in a box": r"\boxed{{{}}}",
    }
    return text if form == "as in the file" else forms[form].format(without_marks(text))


def pairs_of(name: str, settings: Settings) -> list[tuple[str, str, bool]]:
    """Gold answers, responses and verdicts of a file, as a scorer wants them."""
    pairs = []
    for row in cases(name):
        text = row["prediction"]
        if row.get("kind") == "answer" and "\\boxed" not in text:
            text = in_form(text, settings.get("bare answers", "as in the file"))
        gold = in_form(row["gold"], settings.get("gold", "as in the file"))
        pairs.append((gold, text, row["expected"]))
    return pairs


# --- Scorers ---


def math_verify(settings: Settings) -> Score:
    """Plain math-verify: `verify(parse(gold), parse(response))`."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    latex = LatexExtractionConfig(boxed_match_priority=settings["boxed_match_priority"])
    targets = {"latex": latex, "expr": ExprExtractionConfig()}
    configs = [targets[name] for name in settings["extraction"].split(", ")]
    comparison = {
        name: settings[name] for name in ("float_rounding", "strict", "allow_set_relation_comp")
    }

    @cache
    def parsed(text: str) -> list[Any]:
        return parse(text, configs, parsing_timeout=SCORERS_LIMIT_S)

    return lambda gold, text: verify(
        parsed(gold), parsed(text), timeout_seconds=SCORERS_LIMIT_S, **comparison
    )


def lighteval(settings: Settings) -> Score:
    """The metric of lighteval's mathematics tasks, whose golds are expressions or LaTeX."""
    from lighteval.metrics.dynamic_metrics import MultilingualExtractiveMatchMetric
    from lighteval.metrics.utils.extractive_match_utils import (
        ExprExtractionConfig,
        LatexExtractionConfig,
    )
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc

    golds = {"expr": ExprExtractionConfig(), "latex": LatexExtractionConfig()}
    metric = MultilingualExtractiveMatchMetric(
        precision=5,
        timeout_seconds=SCORERS_LIMIT_S,
        gold_extraction_target=[golds[name] for name in settings["gold_extraction"].split(", ")],
        pred_extraction_target=[
            ExprExtractionConfig(),
            LatexExtractionConfig(boxed_match_priority=0),
        ],
    )

    def score(gold: str, text: str) -> bool:
        doc = Doc(query="", choices=[gold], gold_index=0)
        return metric.compute(doc, ModelResponse(text=[text])) == 1.0

    return score


def verl(module: str, settings: Settings) -> Score:
    """One of verl's scorers in `verl.utils.reward_score`."""
    from importlib import import_module

    compute = import_module(f"verl.utils.reward_score.{module}").compute_score

    def score(gold: str, text: str) -> bool:
        result = compute(text, gold)
        if isinstance(result, dict):
            result = result["acc"]
        return bool(result[0] if isinstance(result, tuple) else result == 1.0)

    return score


def ours(settings: Settings) -> Score:
    """The verifier of this package, told to read answers that are not in a box."""
    from reasontrain.tasks.grading import Grader

    grader = Grader(num_workers=1, limit_s=20.0)
    return lambda gold, text: grader.grade(gold, text, answer_format="any").correct


SCORERS: Mapping[str, Scorer] = {
    "reasontrain": Scorer(("reasontrain",), ours, {}),
    "math-verify": Scorer(
        ("math-verify", "latex2sympy2-extended", "sympy"),
        math_verify,
        ALGEBRA_INPUTS
        | {
            "extraction": ("latex, expr", "latex", "expr", "expr, latex"),
            "boxed_match_priority": (50, 0),
            "strict": (True, False),
            "float_rounding": (6, 2, 4, 12),
            "allow_set_relation_comp": (False, True),
        },
    ),
    "lighteval": Scorer(
        ("lighteval", "latex2sympy2-extended", "sympy"),
        lighteval,
        ALGEBRA_INPUTS | {"gold_extraction": ("latex", "expr", "latex, expr", "expr, latex")},
    ),
    **{
        f"verl {module}": Scorer(("verl", *packages), partial(verl, module), TEXT_INPUTS)
        for module, packages in (
            ("math_reward", ()),
            ("math_dapo", ()),
            ("math_verify", ("math-verify", "latex2sympy2-extended", "sympy")),
            ("prime_math", ("sympy",)),
        )
    },
}


# --- Measuring ---


def _serve(make: Callable[[Settings], Score], settings: Settings, pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    score = make(settings)
    pipe.send(True)
    while True:
        try:
            pipe.send(bool(score(*pipe.recv())))
        except EOFError:
            return
        except Exception:  # a scorer that raises gives no reward
            pipe.send(None)


class _Process:
    """A scorer in a process that can be killed, since answers can keep algebra busy forever."""

    def __init__(self, scorer: Scorer, settings: Settings) -> None:
        self._scorer = scorer
        self._settings = settings
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(self._scorer.make, self._settings, other)
        )
        self._process.start()
        other.close()
        self._pipe.recv()

    def score(self, gold: str, text: str) -> bool | None:
        """The verdict; None if there is none."""
        self._pipe.send((gold, text))
        try:
            if self._pipe.poll(LIMIT_S):
                return self._pipe.recv()
        except EOFError:
            pass
        self.close()
        self._start()
        return None

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def measured(scorer: Scorer, settings: Settings) -> dict[str, Counts]:
    """The verdicts of a scorer on every file."""
    process = _Process(scorer, settings)
    try:
        return {
            name: counted(
                (expected, process.score(gold, text))
                for gold, text, expected in pairs_of(name, settings)
            )
            for name in FILES
        }
    finally:
        process.close()


def counted(verdicts: Iterable[tuple[bool, bool | None]]) -> Counts:
    """Counts of expected and actual verdicts; None is a case without a verdict."""
    pairs = list(verdicts)
    return Counts(
        cases=len(pairs),
        right=sum(expected == bool(verdict) for expected, verdict in pairs),
        accepted=sum(bool(verdict) and not expected for expected, verdict in pairs),
        refused=sum(expected and not verdict for expected, verdict in pairs),
        killed=sum(verdict is None for _, verdict in pairs),
    )


def best(scorer: Scorer) -> tuple[Settings, dict[str, Counts]]:
    """The settings with the most right verdicts.

    All combinations of the forms of the input are tried, then each other setting in its turn.
    """
    defaults = {name: values[0] for name, values in scorer.settings.items()}
    scorer.make(defaults)  # imports take seconds, and here they are for all processes
    forms = [name for name in TEXT_INPUTS if name in scorer.settings]
    best_settings, best_counts = _best_of(
        scorer,
        [
            defaults | dict(zip(forms, values, strict=True))
            for values in product(*(scorer.settings[name] for name in forms))
        ],
    )
    for name, values in scorer.settings.items():
        if name not in forms:
            settings, counts = _best_of(
                scorer, [best_settings | {name: value} for value in values[1:]]
            )
            if _num_right(counts) > _num_right(best_counts):
                best_settings, best_counts = settings, counts
    return best_settings, best_counts


def _best_of(scorer: Scorer, trials: list[Settings]) -> tuple[Settings, dict[str, Counts]]:
    results = []
    for settings in trials:
        results.append((settings, measured(scorer, settings)))
        print(_num_right(results[-1][1]), settings, flush=True)
    return max(results, key=lambda result: _num_right(result[1]))


def _num_right(counts: Mapping[str, Counts]) -> int:
    return sum(one.right for one in counts.values())


# --- The table ---


def figures() -> dict[str, Any]:
    """The committed figures: scorer -> versions, settings, counts by file."""
    return json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}


def table() -> str:
    """The table of verifiers, and the settings of those that have any."""
    first = next(iter(figures().values()))["counts"]
    heads = [
        f"`{name}.jsonl`, {first[name]['cases']} cases: right | false positives | false negatives"
        for name in FILES
    ]
    lines = [f"| verifier | {' | '.join(heads)} |", "| --- |" + " --- |" * 3 * len(FILES)]
    for scorer, row in figures().items():
        cells = [
            f"{counts.right / counts.cases:.1%} | {counts.accepted} | {counts.refused}"
            for counts in (Counts(**row["counts"][name]) for name in FILES)
        ]
        lines.append(f"| {_title(scorer, row['versions'])} | {' | '.join(cells)} |")
    lines.append("")
    for scorer, row in figures().items():
        if row["settings"]:
            shown = ", ".join(f"{name}: {value}" for name, value in row["settings"].items())
            lines.append(f"- `{scorer}`: {shown}")
    return "\n".join(lines)


def _title(scorer: str, versions: Mapping[str, str]) -> str:
    """A verifier and its versions; ours is that of this tree."""
    if not versions:
        return f"**{scorer}**"
    own, *others = versions
    behind = ", ".join(f"{name} {versions[name]}" for name in others)
    return f"{scorer} ({own} {versions[own]}{', with ' if behind else ''}{behind})"


def main() -> None:
    """Measure scorers and write their figures."""
    for name in sys.argv[1:] or ["reasontrain"]:
        scorer = SCORERS[name]
        settings, counts = best(scorer)
        versions = {} if name == "reasontrain" else {one: version(one) for one in scorer.packages}
        rows = figures() | {
            name: {
                "versions": versions,
                "settings": dict(settings),
                "counts": {file: one._asdict() for file, one in counts.items()},
            }
        }
        ordered = {known: rows[known] for known in SCORERS if known in rows}
        FIGURES.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
