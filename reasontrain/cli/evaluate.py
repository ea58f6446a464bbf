"""`reasontrain evaluate`: models by suites, every answer kept with its verdict as soon as it is
graded.

Stopped in whatever way, the same command goes on and ends with the same files, byte for byte:
answers are lines that are on the disk before the next ones are graded (`evaluation.journal`), and a
part that was not whole is sampled again as the same part (`evaluation.asking`), while verdicts that
are there stay. Identity comes before finest granularity: in other company a prompt might be
answered otherwise. To an endpoint every problem stands alone, and goes on alone.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from reasontrain import models
from reasontrain.cli.evaluation_backends import (
    EncodedProblems,
    EndpointBackend,
    EvaluationBackend,
    ModelBackend,
)
from reasontrain.data import storage
from reasontrain.data.files import json_object
from reasontrain.data.prompts import PromptSettings
from reasontrain.evaluation.answer_log import AnswerLog
from reasontrain.evaluation.answers import Answer, ProblemSample, Reply, write_answers
from reasontrain.evaluation.candidate import candidate
from reasontrain.evaluation.endpoint_client import Endpoint
from reasontrain.evaluation.run import Evaluation, summary
from reasontrain.evaluation.run import evaluate as ask
from reasontrain.evaluation.suites import suite as find
from reasontrain.metrics import environment
from reasontrain.models import DType
from reasontrain.recipe import LocalEngine, Suite, VllmEngine, YamlValue, as_mapping
from reasontrain.run.build import VERSIONS
from reasontrain.run.datasets import EncodedTask, encode_task
from reasontrain.run.directory import EvaluationDirectory
from reasontrain.run.progress import progress
from reasontrain.sampler.vllm_engine import installed
from reasontrain.tasks import Grader
from reasontrain.types import UserError

logger = logging.getLogger(__name__)

DATA_VARIABLE = "REASONTRAIN_DATA"
REQUESTS = 16
"""What an endpoint gets at a time, where nothing else is said."""
NO_ANSWER_CHANGES = frozenset({"pass_at"})
"""Settings of a suite that say what is made of its answers: other ones go with the same answers."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What the command line said; None stands for what it did not say."""

    models: Sequence[str]
    suites: Sequence[str]
    overrides: Sequence[str]
    data: Path | None
    prompt: str | None
    out: Path
    limit: int | None
    dtype: DType | None
    seed: int
    engine: Literal["local", "vllm"] | None
    base: str | None
    workers: int | None
    endpoint: str | None
    at_once: int | None
    again: bool


def evaluate(options: EvaluateOptions) -> None:
    """Score every model on every suite; all suites are found before the first question is asked."""
    models.quiet_libraries()
    _check(options)
    data = options.data or (
        Path(os.environ[DATA_VARIABLE]) if DATA_VARIABLE in os.environ else None
    )
    if data is not None and not data.is_dir():
        raise UserError(
            f"{data} is no folder; --data and {DATA_VARIABLE} name the folder that holds "
            f"the suites' files"
        )
    if options.out.exists() and not options.out.is_dir():
        raise UserError(
            f"{options.out} is no folder; --out names the folder that reports are written to"
        )
    suites = [find(name, options.overrides, data, options.prompt) for name in options.suites]
    suites = [replace(suite, limit=options.limit or suite.limit) for suite in suites]
    _apart([suite.name for suite in suites], options.suites, "suites")
    folders = [_folder(model) for model in options.models]
    _apart(folders, options.models, "models")
    with Grader() as grader:
        for model, folder in zip(options.models, folders, strict=True):
            with ExitStack() as until:
                directory = EvaluationDirectory(options.out / folder)
                contestant = _contestant(model, options, directory, until)
                _evaluate(contestant, suites, options, directory, grader)


def _check(options: EvaluateOptions) -> None:
    """What does not go together, or is no number to begin with."""
    for flag, value in (
        ("--limit", options.limit),
        ("--workers", options.workers),
        ("--at-once", options.at_once),
    ):
        if value is not None and value < 1:
            raise UserError(f"{flag} must be at least 1, got {value}")
    ours = {
        "--dtype": options.dtype,
        "--engine": options.engine,
        "--base": options.base,
        "--workers": options.workers,
    }
    if options.endpoint is not None and (
        said := [flag for flag, value in ours.items() if value is not None]
    ):
        raise UserError(
            f"{', '.join(said)} cannot be said of a model behind an --endpoint: the server "
            f"decides; leave it out"
        )
    if options.endpoint is None and options.at_once is not None:
        raise UserError(
            "--at-once is how many requests an --endpoint gets at a time; weights are "
            "asked in parts of fixed size"
        )
    if options.engine == "vllm":
        installed()


def _folder(model: str) -> str:
    """A model's name as a folder's."""
    return model.strip("/.").replace("/", "--").replace(":", "-") or "model"


def _apart(names: Sequence[str], said: Sequence[str], what: str) -> None:
    """Refuse two that would share a file."""
    for index, name in enumerate(names):
        if (first := names.index(name)) != index:
            raise UserError(
                f"the {what} {said[first]} and {said[index]} would share {name!r}; "
                f"evaluate them in commands of their own, each "
                "with another --out"
            )


def _contestant(
    model: str, options: EvaluateOptions, folder: EvaluationDirectory, until: ExitStack
) -> EvaluationBackend:
    """Who is asked."""
    if options.endpoint is not None:
        return EndpointBackend(
            Endpoint(url=options.endpoint, model=model, at_once=options.at_once or REQUESTS),
            seed=options.seed,
        )
    engine = VllmEngine() if options.engine == "vllm" else LocalEngine()
    found = candidate(model, dtype=options.dtype or "bfloat16", engine=engine, base=options.base)
    return ModelBackend(
        found,
        seed=options.seed,
        workers=options.workers or 0,
        logs=folder.logs,
        until=until,
    )


def _evaluate(
    contestant: EvaluationBackend,
    suites: Sequence[Suite],
    options: EvaluateOptions,
    folder: EvaluationDirectory,
    grader: Grader,
) -> None:
    """One model on all suites, and its report after each of them."""
    about: dict[str, YamlValue] = {
        **contestant.facts(),
        "seed": options.seed,
        "versions": dict(environment.versions(VERSIONS)),
    }
    report = folder.report
    for suite in suites:
        assert suite.task is not None, "a suite from a file has a task"
        posed = encode_task(suite, suite.task, suite.prompt or PromptSettings(), grader)
        put = contestant.put(posed)
        journal = AnswerLog(folder.answers(suite.name), _protocol(about, posed, put))
        if options.again:
            journal.forget()
        result = _asked(contestant.name, posed, put, journal)
        write_answers(journal.path, result.answers)  # in order, where they did not come so
        storage.replace_text(
            report, _reported(report, about, {"asked": as_mapping(suite), **result.record()})
        )
    print(f"report: {report}")


def _reported(path: Path, about: Mapping[str, YamlValue], suite: Mapping[str, object]) -> str:
    """The report with this suite in it, beside others of earlier commands that asked the same
    weights in the same way.
    """
    before = dict(json_object(path.read_bytes(), str(path))) if path.exists() else {}
    others = before.pop("suites", [])
    asked = (
        {each["suite"]: each for each in others}
        if before == about and isinstance(others, list)
        else {}
    )
    asked[suite["suite"]] = suite
    return (
        json.dumps({**about, "suites": list(asked.values())}, indent=1, ensure_ascii=False) + "\n"
    )


def _protocol(
    about: Mapping[str, YamlValue], posed: EncodedTask, put: EncodedProblems
) -> dict[str, YamlValue]:
    """Everything that changes an answer."""
    suite = {
        key: value for key, value in as_mapping(posed.suite).items() if key not in NO_ANSWER_CHANGES
    }
    return {
        **about,
        "suite": suite,
        "problems_sha256": posed.sha256,
        "dropped": put.dropped,
        **put.facts,
    }


def _asked(model: str, posed: EncodedTask, put: EncodedProblems, journal: AnswerLog) -> Evaluation:
    """One suite, going on where it was stopped; a finished one is added up again, and nobody is
    asked.
    """
    suite, kept = posed.suite, journal.kept(put.problems)
    total = len(put.problems) * suite.num_samples
    with progress(suite.name, total) as advance, ExitStack() as until:
        if whole := len(kept) == total:
            logger.info(f"{suite.name}: {model} answered all of it before; nothing is asked again")
        elif kept:
            logger.info(f"{suite.name}: going on after {len(kept)} of {total} answers")
        result = ask(
            suite,
            put.problems,
            _nobody if whole else put.ready(),
            score=posed.score,
            dropped=put.dropped,
            sha256=posed.sha256,
            kept=kept,
            keep=_nothing if whole else until.enter_context(journal.writing()),
            progress=lambda done, right: advance(done, f"{100 * right:.1f} % right"),
        )
        logger.info(f"{model} on {summary(result)}")
    return result


def _nobody(missing: AbstractSet[ProblemSample]) -> Iterator[Mapping[ProblemSample, Reply]]:
    """Who answers where nothing is missing."""
    assert not missing, "somebody has to be asked"
    yield from ()


def _nothing(answer: Answer) -> None:
    """Where nothing is missing, nothing comes to be kept."""
