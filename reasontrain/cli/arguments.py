"""Arguments of all commands.

Slow imports are delayed until a command runs.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from reasontrain import __version__

logger = logging.getLogger(__name__)

ENGINE_OPTIONS: dict[str, tuple[type[int] | type[float], str]] = {
    "tensor_parallel_size": (int, "vllm: GPUs of an engine, or processes on a CPU (default: 1)"),
    "gpu_memory_utilization": (
        float,
        "vllm: share of each GPU's memory (default: 0.9); on a CPU, share of main memory for the "
        "key-value cache (default: what --max-num-seqs needs)",
    ),
    "max_num_seqs": (int, "answers that decode together (default: 256)"),
    "max_model_len": (
        int,
        "vllm: most tokens of prompt and answer (default: the model's context)",
    ),
}
"""Settings of `sample.engine` that are options of `evaluate`, by key: type and help."""


PRINTING = {
    *("plan", "show", "grade", "compare"),
    *("doctor", "recipes", "suites", "launch", "new", "schema", "completion"),
}
"""Commands whose standard output is their result."""


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; each command sets `run` to the function that executes it."""
    top = argparse.ArgumentParser(
        prog="reasontrain",
        description="Post-train reasoning LLMs on the tokens that matter.",
        epilog="exit codes: 0 done, 1 the run failed or was stopped, 2 invalid input\n\n"
        "example:\n  reasontrain train recipes/tiny/tip.yaml seed=1 name=tip-1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"reasontrain {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=_CommandParser)
    for add in (
        _train,
        _score,
        _evaluate,
        _grade,
        _plan,
        _show,
        _validate,
        _report,
        _lens,
        _compare,
        _leaderboard,
        _claims,
        _bench,
        _doctor,
        _recipes,
        _suites,
        _launch,
        _new,
        _schema,
        _completion,
    ):
        add(commands)
    return top


class _CommandParser(argparse.ArgumentParser):
    """A command's parser, in whose arguments options and overrides may come in any order.

    argparse fills all positional arguments at the first of them, and rejects overrides that stand
    after an option.
    """

    _within = False

    def parse_known_args(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        namespace: argparse.Namespace | None = None,
    ) -> tuple[argparse.Namespace, list[str]]:
        """See `argparse`."""
        if self._within:  # the method below calls this one, for options and for the rest
            return super().parse_known_args(args, namespace)
        self._within = True
        try:
            parsed, rest = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._within = False
        recipe = vars(parsed).get("recipe")
        if isinstance(recipe, Path) and "overrides" in parsed:
            words = [str(recipe), *parsed.overrides]
            first = next((word for word in words if _is_recipe(word)), words[0])
            words.remove(first)
            parsed.recipe = Path(first)
            parsed.overrides = words
        return parsed, rest


def _is_recipe(word: str) -> bool:
    """True for a recipe, as opposed to an override; a file may have a name with a sign."""
    return "=" not in word or Path(word).is_file()


Commands = argparse._SubParsersAction  # argparse has no public name for this type


def _command(
    commands: Commands[_CommandParser], name: str, what: str, example: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=what,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # commands whose output other programs read; log messages go to standard error
    command.set_defaults(prints_data=name in PRINTING)
    return command


def _recipe(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", type=Path, metavar="RECIPE", help="recipe file (YAML)")
    command.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key.path=value",
        help="settings that override the file's",
    )


def _starting(*what: object) -> None:
    """Say at once what was started: importing the libraries takes seconds, or more on a busy disk.

    It is what `metrics.timing.start_phase` does, which is not imported yet.
    """
    logger.info(f"{', '.join(map(str, what))}: loading libraries", extra={"phase": True})


def _train(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "train",
        "Train a model by a recipe. Running the same command again resumes an interrupted run.",
        "reasontrain train recipes/tiny/tip.yaml seed=1 name=tip-1",
    )
    _recipe(command)

    def run(options: argparse.Namespace) -> None:
        _starting(options.recipe)
        from reasontrain.cli.train import train

        train(options.recipe, options.overrides)

    command.set_defaults(run=run)


def _score(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "score",
        "Compute the stored evidence of a recipe without training, or the log-probs of its stored "
        "teacher. `train` computes missing evidence by itself.",
        "reasontrain score recipes/tiny/prior.yaml",
    )
    _recipe(command)

    def run(options: argparse.Namespace) -> None:
        _starting(options.recipe)
        from reasontrain.cli.score import score

        score(options.recipe, options.overrides)

    command.set_defaults(run=run)


def _evaluate(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "evaluate",
        "Evaluate models on benchmark suites. Every answer is written with its verdict; running "
        "the same command again resumes an interrupted evaluation.",
        "reasontrain evaluate out/tip-tiny/final --suite math500 --data ~/benchmarks --set "
        "sampling.max_tokens=512",
    )
    command.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="model directory, LoRA adapter directory, Hugging Face id or testbed:NAME; with "
        "--endpoint, the model's name on the server",
    )
    command.add_argument(
        "--suite",
        nargs="+",
        required=True,
        metavar="SUITE",
        help="suite in eval/suites, or a YAML or JSONL file",
    )
    command.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="directory with the benchmark files (default: $REASONTRAIN_DATA)",
    )
    command.add_argument(
        "--prompt",
        metavar="STYLE",
        help="prompt style: base, instruct, thinking, or a YAML file (default: the suite's)",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("out/evaluations"),
        metavar="DIR",
        help="output directory for reports (default: %(default)s)",
    )
    command.add_argument(
        "--limit", type=int, metavar="N", help="evaluate only the first N problems"
    )
    command.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="compute precision (default: bfloat16)"
    )
    command.add_argument("--seed", type=int, default=0, help="sampling seed (default: %(default)s)")
    command.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="key.path=value",
        help="suite settings to override",
    )
    _generation(command)
    command.add_argument(
        "--restart",
        action="store_true",
        help="discard existing answers and start over (default: resume)",
    )

    def run(options: argparse.Namespace) -> None:
        _starting(*options.models)
        from reasontrain.cli.evaluate import EvaluateOptions, evaluate

        evaluate(
            EvaluateOptions(
                models=options.models,
                suites=options.suite,
                overrides=options.set,
                data=options.data,
                prompt=options.prompt,
                out=options.out,
                limit=options.limit,
                dtype=options.dtype,
                seed=options.seed,
                engine=options.engine,
                engine_settings={
                    key: value
                    for key in ENGINE_OPTIONS
                    if (value := vars(options)[key]) is not None
                },
                base=options.base,
                workers=options.workers,
                endpoint=options.endpoint,
                concurrency=options.concurrency,
                tokenizer=options.tokenizer,
                restart=options.restart,
            )
        )

    command.set_defaults(run=run)


def _generation(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `evaluate` that control generation."""
    command.add_argument(
        "--base",
        metavar="MODEL",
        help="base model of an adapter (default: the one its config names)",
    )
    command.add_argument(
        "--engine",
        help="generation backend: local or vllm (default: local)",
    )
    for key, (unit, what) in ENGINE_OPTIONS.items():
        command.add_argument(f"--{key.replace('_', '-')}", type=unit, metavar="N", help=what)
    command.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="parallel Ray workers (default: generate in this process)",
    )
    command.add_argument(
        "--endpoint",
        metavar="URL",
        help="OpenAI-compatible server, for example http://127.0.0.1:8000/v1; key: $OPENAI_API_KEY",
    )
    command.add_argument(
        "--concurrency",
        type=int,
        metavar="N",
        help="concurrent requests to the endpoint (default: 16)",
    )
    command.add_argument(
        "--tokenizer",
        metavar="MODEL",
        help="with --endpoint: exchange token ids with the server (vLLM), using this model's "
        "tokenizer here (default: exchange texts)",
    )


def _grade(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "grade",
        "Grade answers. Each line is written back with `correct`, `extracted` and `reason` added, "
        "in the same order.",
        "reasontrain grade answers.jsonl > verdicts.jsonl",
    )
    command.add_argument(
        "file",
        nargs="?",
        default="-",
        metavar="FILE",
        help="JSON lines with `gold` and `prediction` (default: standard input)",
    )
    command.add_argument(
        "--timeout-s",
        type=float,
        default=5.0,
        metavar="S",
        help="CPU seconds allowed per answer (default: %(default)s)",
    )
    command.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes for symbolic comparison (default: one per core)",
    )
    command.add_argument(
        "--answer-format",
        choices=("boxed", "marked", "any"),
        default="marked",
        help='what counts as an answer: the last box; also "####", "the answer is" and a bare '
        "answer; or also the last formula or number (default: %(default)s)",
    )
    command.add_argument(
        "--explain",
        action="store_true",
        help="also add `gold_read`, the gold answer as it was read, and `rule`, how the two were "
        "compared",
    )

    def run(options: argparse.Namespace) -> None:
        from reasontrain.cli.grade import GradeOptions, grade

        grade(
            GradeOptions(
                file=options.file,
                timeout_s=options.timeout_s,
                num_workers=options.workers,
                answer_format=options.answer_format,
                explain=options.explain,
            )
        )

    command.set_defaults(run=run)


def _plan(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "plan",
        "Estimate memory, communication, placement and time of a recipe, and suggest changes. "
        "Needs no GPU and downloads nothing.",
        "reasontrain plan recipes/tip_qwen3.yaml cluster.learners=8 learn.zero.stage=3",
    )
    _recipe(command)
    for flag, unit, default, what in (
        ("--memory-gib", float, 80.0, "memory of a GPU in GiB"),
        ("--gpus-per-node", int, 8, "GPUs per node"),
        ("--tflops", float, 400.0, "achieved matrix-multiply rate of a GPU in TFLOP/s"),
        ("--intra-gb-s", float, 300.0, "bandwidth between GPUs of a node in GB/s"),
        ("--inter-gb-s", float, 50.0, "bandwidth of a GPU to other nodes in GB/s"),
        ("--hbm-tb-s", float, 3.3, "memory bandwidth of a GPU in TB/s"),
    ):
        command.add_argument(
            flag, type=unit, default=default, metavar="N", help=f"{what} (default: %(default)s)"
        )
    command.add_argument(
        "--prompt-tokens",
        type=int,
        metavar="N",
        help="prompt length (default: prompt.max_tokens, or 512)",
    )
    command.add_argument(
        "--response-tokens",
        type=int,
        metavar="N",
        help="response length (default: sample.max_tokens, or 1024)",
    )
    command.add_argument(
        "--json", action="store_true", help="print the whole estimate as JSON, in bytes and seconds"
    )

    def run(options: argparse.Namespace) -> None:
        from reasontrain.cli.plan import show_plan
        from reasontrain.plan import Machine

        machine = Machine(
            memory_gib=options.memory_gib,
            gpus_per_node=options.gpus_per_node,
            tflops=options.tflops,
            intra_gb_s=options.intra_gb_s,
            inter_gb_s=options.inter_gb_s,
            hbm_tb_s=options.hbm_tb_s,
            prompt_tokens=options.prompt_tokens,
            response_tokens=options.response_tokens,
        )
        show_plan(options.recipe, options.overrides, machine, as_json=options.json)

    command.set_defaults(run=run)


def _show(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "show",
        "Print the resolved recipe with all defaults, or the tokens of its first rows.",
        "reasontrain show recipes/tiny/sft.yaml --data 2",
    )
    _recipe(command)
    command.add_argument(
        "--data",
        type=int,
        metavar="N",
        help="print every token of the first N rows: its role, whether it is trained, its weight",
    )

    def run(options: argparse.Namespace) -> None:
        from reasontrain.recipe import as_yaml, read_recipe
        from reasontrain.types import UserError

        recipe = read_recipe(options.recipe, options.overrides)
        if options.data is None:
            print(as_yaml(recipe), end="")
            return
        if options.data < 1:
            raise UserError(f"--data is {options.data}; expected a number of rows, at least 1")
        from reasontrain.cli.show_data import show_data

        show_data(recipe, options.data)

    command.set_defaults(run=run)


def _validate(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "validate",
        "Check recipes and report all errors at once.",
        "reasontrain validate recipes/tiny/*.yaml",
    )
    command.add_argument(
        "words",
        nargs="+",
        metavar="RECIPE|key.path=value",
        help="recipe files (YAML), and settings that override those of each",
    )

    def run(options: argparse.Namespace) -> None:
        from reasontrain.cli.validate import validate

        recipes = [Path(word) for word in options.words if _is_recipe(word)]
        overrides = [word for word in options.words if Path(word) not in recipes]
        validate(recipes, overrides)

    command.set_defaults(run=run)


def _report(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "report",
        "Rebuild report.html and report.json of a run.",
        "reasontrain report out/tip-tiny",
    )
    command.add_argument("run_dir", type=Path, metavar="RUN", help="run directory")

    def run(options: argparse.Namespace) -> None:
        from reasontrain.report import write_report
        from reasontrain.run.directory import RunDirectory
        from reasontrain.types import UserError

        recipe = RunDirectory(options.run_dir).recipe
        if not recipe.exists():
            raise UserError(f"{options.run_dir} is no run directory: it has no {recipe.name}")
        print(f"wrote {write_report(options.run_dir)[0]}")

    command.set_defaults(run=run)


def _lens(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "lens",
        "Write a page that shows which tokens each selection rule keeps and why: recorded rollouts "
        "with evidence as colour and several rules side by side.",
        "reasontrain lens out/tip-tiny --rule top_entropy --rule '{kind: tip, mode: divergence}'",
    )
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    command.add_argument(
        "--rule",
        action="append",
        default=[],
        metavar="RULE",
        help="a rule beside the recorded weights, as a recipe's token_selection; may be repeated "
        "(default: every rule whose evidence was recorded, with the run's keep_ratio)",
    )
    command.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="output directory (default: RUN/lens for one run, ./lens for several)",
    )

    def run(options: argparse.Namespace) -> None:
        from reasontrain.lens import write_lens
        from reasontrain.lens.rules import parse_rule

        rules = [parse_rule(text) for text in options.rule]
        print(f"wrote {write_lens(options.runs, options.out, rules)}")

    command.set_defaults(run=run)


def _compare(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "compare",
        "Compare runs: the accuracy gain of each recipe and its difference from the first, with "
        "intervals over seeds and problems.",
        "reasontrain compare out/tip-tiny-* out/opd-tiny-* --suite heldout",
    )
    command.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run directories; runs that differ only in their seed form one arm, and the first "
        "run's is the baseline",
    )
    command.add_argument(
        "--suite",
        nargs="+",
        metavar="SUITE",
        help="suites to compare on (default: all that every run was evaluated on)",
    )
    command.add_argument(
        "--json", action="store_true", help="print the comparisons as JSON, accuracies from 0 to 1"
    )

    def run(options: argparse.Namespace) -> None:
        from reasontrain.evaluation.compare import as_json, common_suites, compare, markdown

        suites = options.suite or common_suites(options.runs)
        comparisons = [compare(options.runs, suite) for suite in suites]
        print(as_json(comparisons) if options.json else markdown(comparisons))

    command.set_defaults(run=run)


def _leaderboard(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "leaderboard",
        "Build a static site that compares models: accuracies with intervals, paired differences, "
        "curves, and every answer.",
        "reasontrain leaderboard out/tip-tiny out/opd-tiny out/evaluations/Qwen--Qwen3-8B "
        "--out site",
    )
    command.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="RUN_OR_REPORT",
        help="run directories, or directories written by `evaluate`",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("site"),
        metavar="DIR",
        help="output directory for the pages (default: %(default)s)",
    )
    command.add_argument(
        "--separate",
        action="store_true",
        help="give evaluations with different settings separate columns (default: refuse them)",
    )

    def run(options: argparse.Namespace) -> None:
        from reasontrain.leaderboard import write_leaderboard

        print(f"wrote {write_leaderboard(options.paths, options.out, apart=options.separate)}")

    command.set_defaults(run=run)


def _claims(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "claims",
        "Test claims of papers: train every arm, learning rate and seed of the rows, judge each "
        "claim, and update the table.",
        "reasontrain claims recipes/claims.yaml tip-halves --jobs 2",
    )
    command.add_argument(
        "table",
        type=Path,
        metavar="FILE",
        help="claims file (YAML); the table is written into the README.md beside it",
    )
    command.add_argument(
        "rows",
        nargs="*",
        metavar="ROW",
        help="rows to test (default: rows without an up-to-date record)",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("out/claims"),
        metavar="DIR",
        help="output directory for runs (default: %(default)s)",
    )
    command.add_argument(
        "--jobs",
        type=int,
        default=2,
        metavar="N",
        help="parallel runs, one thread each (default: %(default)s)",
    )
    command.add_argument(
        "--dry-run",
        action="store_true",
        help="print the number of runs and an estimate of their time, and exit",
    )

    def run(options: argparse.Namespace) -> None:
        from reasontrain.claims.sweep import SweepOptions, claims

        claims(
            SweepOptions(
                table=options.table,
                rows=options.rows,
                out=options.out,
                at_once=options.jobs,
                dry=options.dry_run,
            )
        )

    command.set_defaults(run=run)


def _bench(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "bench",
        "Measure speed and memory against other libraries on the same work. Writes a record, a "
        "plot and a page of ratios.",
        "reasontrain bench all --quick",
    )
    command.add_argument(
        "tables", nargs="+", metavar="TABLE", help="vocab, sample, step, grade, evaluate or all"
    )
    command.add_argument(
        "--row", nargs="+", default=[], metavar="ROW", help="measure only these rows"
    )
    command.add_argument(
        "--quick",
        action="store_true",
        help="fewer runs and settings, and less work (ten minutes on two cores)",
    )
    command.add_argument(
        "--runs",
        type=int,
        default=5,
        metavar="N",
        help="timed runs per contestant (default: %(default)s)",
    )
    command.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=[2],
        metavar="N",
        help="torch threads on a CPU; several numbers measure every row with each (default: 2)",
    )
    command.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="",
        help="device to measure on (default: cuda if available)",
    )
    command.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="directory with the benchmark files that some rows read; with --model, a JSONL file "
        "of problems too (default with --model: $REASONTRAIN_DATA)",
    )
    command.add_argument(
        "--model",
        metavar="MODEL",
        help="measure sample, step and evaluate on this pre-trained model and real problems "
        "(gsm8k_train.jsonl), not on random weights",
    )
    command.add_argument(
        "--teacher",
        metavar="MODEL",
        help="with --model: measure distillation from this model as well",
    )
    command.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="with --model: dtype of matrix products (default: float32)",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("out/bench"),
        metavar="DIR",
        help="output directory for records (default: %(default)s)",
    )

    def run(options: argparse.Namespace) -> None:
        from reasontrain.cli.bench import BenchOptions, bench

        bench(
            BenchOptions(
                tables=options.tables,
                rows=options.row,
                out=options.out,
                device=options.device,
                quick=options.quick,
                runs=options.runs,
                threads=options.threads,
                data=options.data,
                model=options.model,
                teacher=options.teacher,
                dtype=options.dtype,
            )
        )

    command.set_defaults(run=run)


def _doctor(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "doctor",
        "Try this installation and this machine: packages, devices, kernels, and one step of each "
        "method, in one process, under Ray and with vLLM. Each line says ok, slow, broken or "
        "absent, and the mend. Exit code 1 if something is broken.",
        "reasontrain doctor --gpu",
    )
    command.add_argument("--gpu", action="store_true", help="a machine without a GPU is broken")
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="also write the findings there, as JSON"
    )

    def run(options: argparse.Namespace) -> None:
        _starting("doctor")
        from reasontrain.cli.doctor import doctor

        doctor(gpu=options.gpu, out=options.out)

    command.set_defaults(run=run)


def _recipes(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "recipes",
        "List the recipes that come with the package, print them, or copy them here.",
        "reasontrain recipes copy tiny/tip",
    )
    command.add_argument(
        "action", nargs="?", choices=("list", "show", "copy"), default="list", help="default: list"
    )
    command.add_argument("names", nargs="*", metavar="NAME", help="recipes, such as tiny/tip")
    _destination(command)

    def run(options: argparse.Namespace) -> None:
        from reasontrain import resources
        from reasontrain.cli.resources import copy_recipes, listing, show

        _check_names(options)
        if options.action == "list":
            print(listing(resources.recipes()))
        elif options.action == "show":
            show(options.names, resources.recipes(), "recipe")
        else:
            for path in copy_recipes(options.names, options.to, overwrite=options.force):
                print(path)

    command.set_defaults(run=run)


def _suites(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "suites",
        "List the evaluation suites that come with the package, or print them.",
        "reasontrain suites show math500",
    )
    command.add_argument(
        "action", nargs="?", choices=("list", "show"), default="list", help="default: list"
    )
    command.add_argument("names", nargs="*", metavar="NAME", help="suites, such as math500")

    def run(options: argparse.Namespace) -> None:
        from reasontrain import resources
        from reasontrain.cli.resources import listing, show

        _check_names(options)
        if options.action == "list":
            print(listing(resources.suites()))
        else:
            show(options.names, resources.suites(), "suite")

    command.set_defaults(run=run)


def _launch(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "launch",
        "Copy launch scripts here: slurm, kuberay, ray, local.",
        "reasontrain launch copy slurm",
    )
    command.add_argument("action", choices=("copy",))
    command.add_argument("names", nargs="+", metavar="NAME", help="slurm, kuberay, ray or local")
    _destination(command)

    def run(options: argparse.Namespace) -> None:
        from reasontrain.cli.resources import copy_launch_scripts

        for path in copy_launch_scripts(options.names, options.to, overwrite=options.force):
            print(path)

    command.set_defaults(run=run)


def _new(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "new",
        "Write a template repository for a plug-in: a selection rule, its test and a recipe.",
        "reasontrain new plugin my-rule",
    )
    command.add_argument("what", choices=("plugin",))
    command.add_argument("name", metavar="NAME", help="name of the package, such as my-rule")
    _destination(command)

    def run(options: argparse.Namespace) -> None:
        from reasontrain.cli.new import new_plugin

        for path in new_plugin(options.name, options.to, overwrite=options.force):
            print(path)

    command.set_defaults(run=run)


def _schema(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "schema",
        "Print the JSON schema of recipes, with which editors complete and check keys.",
        "reasontrain schema > schema.json",
    )

    def run(options: argparse.Namespace) -> None:
        from reasontrain.recipe import json_schema

        print(json_schema(), end="")

    command.set_defaults(run=run)


def _completion(commands: Commands[_CommandParser]) -> None:
    command = _command(
        commands,
        "completion",
        "Print a script by which a shell completes commands and options.",
        'eval "$(reasontrain completion bash)"',
    )
    command.add_argument("shell", choices=("bash", "zsh", "tcsh"))

    def run(options: argparse.Namespace) -> None:
        import shtab

        print(shtab.complete(parser(), options.shell))

    command.set_defaults(run=run)


def _destination(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--to", type=Path, default=Path(), metavar="DIR", help="directory (default: this one)"
    )
    command.add_argument("--force", action="store_true", help="replace files that exist")


def _check_names(options: argparse.Namespace) -> None:
    """Raise UserError if `list` has names or another action has none."""
    from reasontrain.types import UserError

    if options.action == "list" and options.names:
        raise UserError(f"list takes no names; to print {options.names[0]}: show")
    if options.action != "list" and not options.names:
        raise UserError(f"{options.action} needs a name; `list` shows them")
