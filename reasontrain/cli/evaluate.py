"""`reasontrain evaluate`: models by suites, with every answer logged as soon as it is graded.

After any interruption, the same command resumes and produces the same files, byte for byte. Answers
are on disk before the next ones are graded (`evaluation.answer_log`), and logged verdicts are kept.
A chunk with missing answers is sampled again as a whole (`evaluation.generation`), because chunks
of other prompts might give other answers; this repeats some work. Requests to an endpoint are
independent, and only missing ones are sent.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path

from reasontrain import models
from reasontrain.cli.evaluation_backends import (
    EndpointBackend,
    EvaluationBackend,
    ModelBackend,
    PreparedSuite,
)
from reasontrain.data import storage
from reasontrain.data.files import json_object
from reasontrain.data.prompts import PromptSettings
from reasontrain.endpoint import Endpoint
from reasontrain.evaluation.answer_log import AnswerLog
from reasontrain.evaluation.answers import Answer, ProblemSample, Reply, write_answers
from reasontrain.evaluation.candidate import candidate
from reasontrain.evaluation.run import Evaluation, summary
from reasontrain.evaluation.run import evaluate as evaluate_suite
from reasontrain.evaluation.suites import data_folder
from reasontrain.evaluation.suites import suite as find_suite
from reasontrain.metrics import environment
from reasontrain.models import DType
from reasontrain.recipe import (
    ENGINES,
    EngineSettings,
    LocalEngine,
    Suite,
    YamlValue,
    as_mapping,
    build,
    setting_error,
)
from reasontrain.run.build import VERSIONS
from reasontrain.run.datasets import SuiteProblems, load_suite
from reasontrain.run.directory import EvaluationDirectory
from reasontrain.run.environments import environment_code, freeze
from reasontrain.run.owner import owned
from reasontrain.run.progress import progress
from reasontrain.run.signals import Stop
from reasontrain.sampler.factory import check_installed
from reasontrain.tasks import Grader
from reasontrain.types import UserError

logger = logging.getLogger(__name__)

NUM_REQUESTS = 16
"""The default number of requests in flight to an endpoint."""
METRIC_SETTINGS = frozenset({"pass_at"})
"""Settings of a suite that change the metrics, but not the answers."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """The options of the command line; an option that is not set is None.

    `engine_settings` are keys of `sample.engine` with the values that options give them.
    """

    models: Sequence[str]
    suites: Sequence[str]
    overrides: Sequence[str]
    data: Path | None
    prompt: str | None
    out: Path
    limit: int | None
    dtype: DType | None
    seed: int
    engine: str | None
    engine_settings: Mapping[str, int | float]
    base: str | None
    workers: int | None
    endpoint: str | None
    concurrency: int | None
    tokenizer: str | None
    restart: bool


def evaluate(options: EvaluateOptions) -> list[Path]:
    """Evaluate every model on every suite; return the path of each model's report.

    All suites are resolved before any model is loaded.
    """
    models.quiet_libraries()
    _check(options)
    data = data_folder(options.data)
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"{options.out} is not a folder; --out names the folder for reports")
    suites = [find_suite(name, options.overrides, data, options.prompt) for name in options.suites]
    suites = [replace(suite, limit=options.limit or suite.limit) for suite in suites]
    for suite in suites:
        freeze(suite.sampling.environment)
    _check_distinct([suite.name for suite in suites], options.suites, "suites")
    folders = [_folder(model) for model in options.models]
    _check_distinct(folders, options.models, "models")
    reports = []
    with Stop().listening(), Grader() as grader:
        for model, folder in zip(options.models, folders, strict=True):
            with ExitStack() as exit_stack:
                directory = EvaluationDirectory(options.out / folder)
                exit_stack.enter_context(owned(directory.path, remedy=", or give another --out"))
                backend = _backend(model, options, directory, exit_stack)
                reports.append(_evaluate(backend, suites, options, directory, grader))
    return reports


def _check(options: EvaluateOptions) -> None:
    """Raise UserError for options that are out of range or exclude each other."""
    for flag, value in (
        ("--limit", options.limit),
        ("--workers", options.workers),
        ("--concurrency", options.concurrency),
    ):
        if value is not None and value < 1:
            raise UserError(f"{flag} must be at least 1, got {value}")
    options_of_weights = {
        "--dtype": options.dtype,
        "--engine": options.engine,
        "--base": options.base,
        "--workers": options.workers,
        **{flag_of(key): value for key, value in options.engine_settings.items()},
    }
    if options.endpoint is not None and (
        flags := [flag for flag, value in options_of_weights.items() if value is not None]
    ):
        raise UserError(
            f"{', '.join(flags)} cannot be combined with --endpoint, because the server decides; "
            "leave it out"
        )
    if options.endpoint is None and options.concurrency is not None:
        raise UserError(
            "--concurrency applies to an --endpoint only; local generation uses batches of "
            "fixed size"
        )
    if options.endpoint is None and options.tokenizer is not None:
        raise UserError(
            "--tokenizer applies to an --endpoint only; local weights come with their tokenizer"
        )
    check_installed(_engine(options))


def _engine(options: EvaluateOptions) -> EngineSettings:
    """The settings of the engine that `--engine` names (default: local)."""
    kind = options.engine or LocalEngine.kind
    if kind not in ENGINES:
        raise UserError(f"--engine must be one of {', '.join(ENGINES)}, not {kind!r}")
    known = {field.name for field in fields(ENGINES[kind])}
    if wrong := [flag_of(key) for key in options.engine_settings if key not in known]:
        label = ENGINES[kind].capabilities.label
        others = [
            name
            for name, engine in ENGINES.items()
            if options.engine_settings.keys() <= {field.name for field in fields(engine)}
        ]
        raise UserError(
            f"{', '.join(wrong)}: {label} has no such setting; leave it out, or set --engine "
            f"{' or '.join(others)}"
        )
    for key, value in options.engine_settings.items():
        if (reason := setting_error(ENGINES[kind], key, value)) is not None:
            raise UserError(f"{flag_of(key)}: {reason}")
    return build(ENGINES[kind], {"kind": kind, **options.engine_settings}, f"--engine {kind}")


def flag_of(key: str) -> str:
    """The option that sets this key of `sample.engine`."""
    return f"--{key.replace('_', '-')}"


def _folder(model: str) -> str:
    """Convert a model's name to the name of a folder."""
    return model.strip("/.").replace("/", "--").replace(":", "-") or "model"


def _check_distinct(names: Sequence[str], arguments: Sequence[str], what: str) -> None:
    """Raise UserError for two arguments whose files would have the same name."""
    for index, name in enumerate(names):
        if (first := names.index(name)) != index:
            raise UserError(
                f"the {what} {arguments[first]} and {arguments[index]} would both write {name!r}; "
                "evaluate them in separate commands, each with another --out"
            )


def _backend(
    model: str, options: EvaluateOptions, directory: EvaluationDirectory, exit_stack: ExitStack
) -> EvaluationBackend:
    """Create the backend of a model."""
    if options.endpoint is not None:
        endpoint = Endpoint(
            url=options.endpoint, model=model, at_once=options.concurrency or NUM_REQUESTS
        )
        return EndpointBackend(endpoint, seed=options.seed, tokenizer=options.tokenizer)
    return ModelBackend(
        candidate(
            model,
            dtype=options.dtype or "bfloat16",
            engine=_engine(options),
            base=options.base,
        ),
        seed=options.seed,
        workers=options.workers or 0,
        logs=directory.logs,
        exit_stack=exit_stack,
    )


def _evaluate(
    backend: EvaluationBackend,
    suites: Sequence[Suite],
    options: EvaluateOptions,
    directory: EvaluationDirectory,
    grader: Grader,
) -> Path:
    """Evaluate one model on all suites; return its report, which is updated after each suite."""
    facts: dict[str, YamlValue] = {
        **backend.facts(),
        "seed": options.seed,
        "versions": dict(environment.versions(VERSIONS)),
    }
    report = directory.report
    for suite in suites:
        assert suite.task is not None, "a suite from a file has a task"
        suite_problems = load_suite(suite, suite.task, suite.prompt or PromptSettings(), grader)
        prepared = backend.prepare(suite_problems)
        answer_log = AnswerLog(
            directory.answers(suite.name), _fingerprint(facts, suite_problems, prepared)
        )
        if options.restart:
            answer_log.discard()
        result = _evaluate_suite(backend.name, suite_problems, prepared, answer_log)
        # the log has answers in the order of arrival; the final file is in suite order
        write_answers(answer_log.path, result.answers)
        storage.replace_text(
            report, _updated_report(report, facts, {"asked": as_mapping(suite), **result.record()})
        )
    print(f"report: {report}")
    return report


def _updated_report(path: Path, facts: Mapping[str, YamlValue], suite: Mapping[str, object]) -> str:
    """Add a suite to the report.

    Suites of earlier commands are kept if the model and all other facts are the same.
    """
    previous = dict(json_object(path.read_bytes(), str(path))) if path.exists() else {}
    others = previous.pop("suites", [])
    suites = (
        {other["suite"]: other for other in others}
        if previous == facts and isinstance(others, list)
        else {}
    )
    suites[suite["suite"]] = suite
    return (
        json.dumps({**facts, "suites": list(suites.values())}, indent=1, ensure_ascii=False) + "\n"
    )


def _fingerprint(
    facts: Mapping[str, YamlValue], suite_problems: SuiteProblems, prepared: PreparedSuite
) -> dict[str, YamlValue]:
    """Everything that changes an answer."""
    suite = {
        key: value
        for key, value in as_mapping(suite_problems.suite).items()
        if key not in METRIC_SETTINGS
    }
    code = environment_code(suite_problems.suite.sampling.environment)
    return {
        **facts,
        "suite": suite,
        "problems_sha256": suite_problems.sha256,
        "dropped": prepared.dropped,
        **prepared.fingerprint,
        **{
            f"environment {file.relative_to(code[0].parent)}": storage.content_hash(file)
            for file in code
        },
    }


def _evaluate_suite(
    model: str, suite_problems: SuiteProblems, prepared: PreparedSuite, answer_log: AnswerLog
) -> Evaluation:
    """Evaluate one suite, resuming from its log; a complete log needs no model."""
    suite = suite_problems.suite
    logged = answer_log.read(prepared.problems)
    total = len(prepared.problems) * suite.num_samples
    with progress(suite.name, total) as advance, ExitStack() as exit_stack:
        if is_complete := len(logged) == total:
            logger.info(f"{suite.name}: all answers of {model} are logged; nothing to do")
        elif logged:
            logger.info(f"{suite.name}: resuming after {len(logged)} of {total} answers")
        result = evaluate_suite(
            suite,
            prepared.problems,
            _no_answers if is_complete else prepared.make_answer_fn(),
            score=suite_problems.score,
            dropped=prepared.dropped,
            sha256=suite_problems.sha256,
            infer_thoughts=prepared.infer_thoughts,
            logged=logged,
            log=_log_nothing if is_complete else exit_stack.enter_context(answer_log.writing()),
            progress=lambda done, right: advance(done, f"{100 * right:.1f} % right"),
        )
        logger.info(f"{model} on {summary(result)}")
    return result


def _no_answers(missing: AbstractSet[ProblemSample]) -> Iterator[Mapping[ProblemSample, Reply]]:
    """The answer function of a suite with a complete log."""
    assert not missing, "the log is complete"
    yield from ()


def _log_nothing(answer: Answer) -> None:
    """The log function of a suite with a complete log."""
