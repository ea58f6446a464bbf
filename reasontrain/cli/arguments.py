"""The words that each command takes. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import argparse
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """All commands; each sets `run` to the function that does it."""
    top = argparse.ArgumentParser(
        prog="reasontrain", description="Post-train reasoning LLMs on the tokens that matter."
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        _train,
        _score,
        _evaluate,
        _grade,
        _plan,
        _show,
        _validate,
        _report,
        _compare,
        _leaderboard,
        _claims,
        _bench,
    ):
        add(commands)
    return top


Commands = argparse._SubParsersAction  # the type argparse has for them


def _command(
    commands: Commands[argparse.ArgumentParser], name: str, what: str, example: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=what,
        description=what,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _recipe(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", type=Path, metavar="RECIPE", help="a YAML file")
    command.add_argument(
        "overrides",
        nargs="*",
        metavar="key.path=value",
        help="settings that differ from the file's",
    )


def _train(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "train",
        "Train by a recipe; the same command goes on where an interrupted run stopped.",
        "reasontrain train recipes/tiny/tip.yaml seed=1 name=tip-1",
    )
    _recipe(command)

    def run(options: argparse.Namespace) -> None:
        from reasontrain.cli.train import train

        train(options.recipe, options.overrides)

    command.set_defaults(run=run)


def _score(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "score",
        "Compute and store the evidence that a recipe reads from a store; `train` does so "
        "by itself where it is missing.",
        "reasontrain score recipes/tiny/prior.yaml",
    )
    _recipe(command)

    def run(options: argparse.Namespace) -> None:
        from reasontrain.cli.score import score

        score(options.recipe, options.overrides)

    command.set_defaults(run=run)


def _evaluate(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "evaluate",
        "Score models on suites; every answer is kept with its verdict, and the same "
        "command goes on where it was stopped.",
        "reasontrain evaluate out/tip-tiny/final --suite math500 --data ~/benchmarks --set "
        "sampling.max_tokens=512",
    )
    command.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a directory with a model or a LoRA adapter, a hub id, testbed:NAME, or with "
        "--endpoint a model's name there",
    )
    command.add_argument(
        "--suite",
        nargs="+",
        required=True,
        metavar="SUITE",
        help="a name in eval/suites, a YAML or a JSONL file",
    )
    command.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="a folder with the suites' files (default: $REASONTRAIN_DATA)",
    )
    command.add_argument(
        "--prompt",
        metavar="STYLE",
        help="base, instruct or thinking (eval/prompts), or a YAML file (default: the suites' own)",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("out/evaluations"),
        metavar="DIR",
        help="where reports go (%(default)s)",
    )
    command.add_argument("--limit", type=int, metavar="N", help="only the first N problems")
    command.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="what models compute in (bfloat16)"
    )
    command.add_argument("--seed", type=int, default=0, help="for sampling (%(default)s)")
    command.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="key.path=value",
        help="settings that differ from the suites'",
    )
    _who_answers(command)
    command.add_argument(
        "--again",
        action="store_true",
        help="forget the answers that are there; without it they are gone on from",
    )

    def run(options: argparse.Namespace) -> None:
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
                base=options.base,
                workers=options.workers,
                endpoint=options.endpoint,
                at_once=options.at_once,
                again=options.again,
            )
        )

    command.set_defaults(run=run)


def _who_answers(command: argparse.ArgumentParser) -> None:
    """Of `evaluate`: by whom a model's answers are decoded."""
    command.add_argument(
        "--base", metavar="MODEL", help="the base model of an adapter (default: the one it names)"
    )
    command.add_argument(
        "--engine",
        choices=("local", "vllm"),
        help="who decodes (local); vllm needs the extra and GPUs",
    )
    command.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that answer side by side, by Ray (none: this one)",
    )
    command.add_argument(
        "--endpoint",
        metavar="URL",
        help="a server with OpenAI's API, http://127.0.0.1:8000/v1 say; its key is $OPENAI_API_KEY",
    )
    command.add_argument(
        "--at-once", type=int, metavar="N", help="requests that the endpoint gets at a time (16)"
    )


def _grade(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "grade",
        "Grade answers: one JSON line each with `correct`, `extracted` and `reason` beside "
        "what the line had, in the same order.",
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
        "--limit-s",
        type=float,
        default=5.0,
        metavar="S",
        help="seconds of computing that one answer may take (%(default)s)",
    )
    command.add_argument(
        "--workers", type=int, metavar="N", help="processes that compare by algebra (one per core)"
    )
    command.add_argument(
        "--marked-only",
        action="store_true",
        help='count only marked answers (a box, "####", "the answer is"), never the last '
        "formula or number of a text",
    )

    def run(options: argparse.Namespace) -> None:
        from reasontrain.cli.grade import GradeOptions, grade

        grade(
            GradeOptions(
                file=options.file,
                limit_s=options.limit_s,
                num_workers=options.workers,
                last_number=not options.marked_only,
            )
        )

    command.set_defaults(run=run)


def _plan(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "plan",
        "Say what a recipe will cost, without a GPU or a download: memory, traffic, "
        "placement, time, and what to change.",
        "reasontrain plan recipes/tip_qwen3.yaml cluster.learners=8 learn.zero.stage=3",
    )
    _recipe(command)
    for flag, unit, default, what in (
        ("--memory-gib", float, 80.0, "memory of one GPU"),
        ("--gpus-per-node", int, 8, "GPUs of a node"),
        ("--tflops", float, 400.0, "TFLOP/s that matrix products achieve on one GPU"),
        ("--intra-gb-s", float, 300.0, "GB/s from one GPU to others of its node"),
        ("--inter-gb-s", float, 50.0, "GB/s from one GPU to other nodes"),
        ("--hbm-tb-s", float, 3.3, "TB/s at which a GPU reads its memory"),
    ):
        command.add_argument(
            flag, type=unit, default=default, metavar="N", help=f"{what} (%(default)s)"
        )
    command.add_argument(
        "--prompt-tokens",
        type=int,
        metavar="N",
        help="length of a prompt (prompt.max_tokens, or 512)",
    )
    command.add_argument(
        "--response-tokens",
        type=int,
        metavar="N",
        help="length of a response (sample.max_tokens, or 1024)",
    )
    command.add_argument(
        "--json", action="store_true", help="for machines: all of it, in bytes and seconds"
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


def _show(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "show",
        "Print the resolved recipe, every default included.",
        "reasontrain show recipes/tiny/tip.yaml",
    )
    _recipe(command)

    def run(options: argparse.Namespace) -> None:
        from reasontrain.recipe import as_yaml, read_recipe

        print(as_yaml(read_recipe(options.recipe, options.overrides)), end="")

    command.set_defaults(run=run)


def _validate(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "validate",
        "Check recipes, and say everything that is wrong.",
        "reasontrain validate recipes/tiny/*.yaml",
    )
    command.add_argument("recipes", nargs="+", type=Path, metavar="RECIPE", help="YAML files")

    def run(options: argparse.Namespace) -> None:
        from reasontrain.cli.validate import validate

        validate(options.recipes)

    command.set_defaults(run=run)


def _report(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "report",
        "Write report.html and report.json of a run directory again.",
        "reasontrain report out/tip-tiny",
    )
    command.add_argument("run_dir", type=Path, metavar="RUN", help="a run directory")

    def run(options: argparse.Namespace) -> None:
        from reasontrain.report import write_report
        from reasontrain.run.directory import RunDirectory
        from reasontrain.types import UserError

        recipe = RunDirectory(options.run_dir).recipe
        if not recipe.exists():
            raise UserError(f"{options.run_dir} is no run directory: it has no {recipe.name}")
        print(f"wrote {write_report(options.run_dir)[0]}")

    command.set_defaults(run=run)


def _compare(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "compare",
        "Set runs beside each other: what each recipe gained, over seeds and problems.",
        "reasontrain compare out/tip-tiny-* out/opd-tiny-* --suite heldout",
    )
    command.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run directories; those that differ by seed make one arm",
    )
    command.add_argument("--suite", default="heldout", help="the suite to compare by (%(default)s)")

    def run(options: argparse.Namespace) -> None:
        from reasontrain.evaluation.compare import compare, markdown

        print(markdown(compare(options.runs, options.suite)))

    command.set_defaults(run=run)


def _leaderboard(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "leaderboard",
        "Set models beside each other on pages that open from disk: suites with intervals, "
        "differences, curves, every answer.",
        "reasontrain leaderboard out/tip-tiny out/opd-tiny out/evaluations/Qwen--Qwen3-8B "
        "--out site",
    )
    command.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="RUN_OR_REPORT",
        help="run directories, and folders that `evaluate` wrote",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("site"),
        metavar="DIR",
        help="where the pages go (%(default)s)",
    )
    command.add_argument(
        "--apart",
        action="store_true",
        help="give each way in which a suite was asked a column of its own, instead of refusing",
    )

    def run(options: argparse.Namespace) -> None:
        from reasontrain.leaderboard import write_leaderboard

        print(f"wrote {write_leaderboard(options.paths, options.out, apart=options.apart)}")

    command.set_defaults(run=run)


def _claims(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "claims",
        "Test what papers claim: every arm, learning rate and seed of a table's rows, a "
        "verdict for each, and the table of them.",
        "reasontrain claims recipes/claims.yaml tip-halves --jobs 2",
    )
    command.add_argument(
        "table",
        type=Path,
        metavar="FILE",
        help="a YAML file of claims; its README.md gets the table",
    )
    command.add_argument(
        "rows",
        nargs="*",
        metavar="ROW",
        help="rows to test (those without a record of what they say now)",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("out/claims"),
        metavar="DIR",
        help="where runs go (%(default)s)",
    )
    command.add_argument(
        "--jobs",
        type=int,
        default=2,
        metavar="N",
        help="how many runs at a time, one thread each (%(default)s)",
    )
    command.add_argument(
        "--dry",
        action="store_true",
        help="only say how many runs there are, and how long they take",
    )

    def run(options: argparse.Namespace) -> None:
        from reasontrain.claims.sweep import SweepOptions, claims

        claims(
            SweepOptions(
                table=options.table,
                rows=options.rows,
                out=options.out,
                at_once=options.jobs,
                dry=options.dry,
            )
        )

    command.set_defaults(run=run)


def _bench(commands: Commands[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "bench",
        "Measure our speed and memory beside a peer's on the same work; writes a record, a "
        "picture and a page of ratios.",
        "reasontrain bench all --quick",
    )
    command.add_argument(
        "tables", nargs="+", metavar="TABLE", help="vocab, sample, step, grade, evaluate or all"
    )
    command.add_argument("--row", nargs="+", default=[], metavar="ROW", help="only these rows")
    command.add_argument(
        "--quick",
        action="store_true",
        help="fewer runs and settings, less work: ten minutes on two cores",
    )
    command.add_argument(
        "--runs", type=int, default=5, metavar="N", help="timed runs of each side (%(default)s)"
    )
    command.add_argument(
        "--threads",
        type=int,
        default=2,
        metavar="N",
        help="threads of torch on a CPU (%(default)s)",
    )
    command.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="",
        help="where to measure (a GPU where there is one)",
    )
    command.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="a folder with benchmark files, for rows that read them",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("out/bench"),
        metavar="DIR",
        help="where records go (%(default)s)",
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
            )
        )

    command.set_defaults(run=run)
