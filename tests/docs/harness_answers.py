"""lm-evaluation-harness on the prompts of a finished evaluation, as a second row of a leaderboard.

    python -m tests.docs.harness_answers MODEL out/local/MODEL out/harness/MODEL [--batch-size 16]

The first folder is what `reasontrain evaluate` wrote. Its suites, greedy and with one sample per
problem, are answered again by the harness with its Hugging Face backend: the same ids, the same
limit of tokens, the dtype of the evaluation. Texts are graded by reasontrain's verifier, and by the
harness's own rule for GSM8K (the last number, compared as text). The second folder gets the files
of an evaluation, so that `reasontrain leaderboard` shows both.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from reasontrain import models
from reasontrain.bench import harness
from reasontrain.bench.harness import HarnessReply
from reasontrain.data import storage
from reasontrain.data.prompts import PromptSettings
from reasontrain.evaluation.answers import ProblemSample, Reply, write_answers
from reasontrain.evaluation.run import Evaluation, evaluate
from reasontrain.metrics import environment
from reasontrain.models import Description, ModelSettings
from reasontrain.recipe import Suite, as_mapping, build
from reasontrain.run.build import VERSIONS
from reasontrain.run.datasets import EncodedSuite, encode_prompts, load_suite
from reasontrain.run.directory import EvaluationDirectory
from reasontrain.tasks import Grader
from tests.docs.engine_gaps import read_answers


def answered(
    model: ModelSettings, description: Description, encoded: EncodedSuite, batch_size: int
) -> list[HarnessReply]:
    """The harness's replies to all prompts of a suite, in order.

    Args:
        model: the weights and their dtype.
        description: the model's context.
        encoded: the prompts, and the limit of tokens.
        batch_size: prompts decoded together.
    """
    harness.check_room(encoded.prompts, encoded.suite, description.context)
    with harness.loaded(model, encoded.suite, encoded.prompts, "cpu", batch_size) as answer_all:
        return answer_all()


def graded(
    encoded: EncodedSuite, replies: Sequence[HarnessReply], description: Description
) -> Evaluation:
    """The evaluation that reasontrain would write about these replies."""
    limit = encoded.suite.sampling.max_tokens

    def answer(
        missing: AbstractSet[ProblemSample],
    ) -> Iterator[Mapping[ProblemSample, Reply]]:
        for index, reply in enumerate(replies):
            # the harness returns texts; a token that ended one is counted as reasontrain counts it
            num = len(description.tokenizer.encode(reply.text, add_special_tokens=False))
            yield {
                (index, 0): Reply(
                    text=reply.text, truncated=num >= limit, num_tokens=min(num + 1, limit)
                )
            }

    return evaluate(
        encoded.suite,
        [prompt.problem for prompt in encoded.prompts],
        answer,
        score=encoded.score,
        dropped=encoded.dropped,
        sha256=encoded.sha256,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer, grade and write every suite of a report; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="the weights, as in `model.path`")
    parser.add_argument("evaluated", type=Path, help="folder with the report.json of an evaluation")
    parser.add_argument("out", type=Path, help="folder for the harness's evaluation")
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args(arguments)
    report = json.loads(EvaluationDirectory(options.evaluated).report.read_text())
    model = ModelSettings(path=options.model, dtype=report["dtype"], device="cpu")
    description = models.describe(model)
    written = []
    directory = EvaluationDirectory(options.out)
    for record in report["suites"]:
        name = record["suite"]
        with Grader() as grader:
            suite = build(Suite, record["asked"], name)
            assert suite.task is not None, "a suite of an evaluation has a task"
            if suite.sampling.temperature > 0 or suite.num_samples > 1:
                parser.error(f"{name}: the harness answers greedily, once per problem")
            problems = load_suite(suite, suite.task, suite.prompt or PromptSettings(), grader)
            if problems.sha256 != record["problems_sha256"]:
                parser.error(f"{name}: the evaluation has other problems or prompts")
            encoded = encode_prompts(problems, description)
            start = time.perf_counter()
            replies = answered(model, description, encoded, options.batch_size)
            seconds = time.perf_counter() - start
            result = graded(encoded, replies, description)
        write_answers(directory.answers(name), result.answers)
        written.append({"asked": as_mapping(suite), **result.record()})
        before = read_answers(options.evaluated, name)
        texts = sum(a.reply.text == before[a.problem.id, 0]["response"] for a in result.answers)
        print(
            f"{name}: {texts} of {len(replies)} texts are equal; right are "
            f"{sum(answer['correct'] for answer in before.values())} of reasontrain's answers and "
            f"{sum(answer.verdict.correct for answer in result.answers)} of {harness.NAME}'s, and "
            f"{sum(reply.correct for reply in replies)} of those by its rule for GSM8K; "
            f"{sum(answer.reply.num_tokens or 0 for answer in result.answers) / seconds:.1f} "
            f"tokens/s with loading"
        )
    facts = {key: value for key, value in report.items() if key != "suites"} | {
        "model": f"{report['model']} ({harness.NAME})",
        "engine": harness.NAME,
        "versions": dict(environment.versions((*VERSIONS, "lm-eval"))),
    }
    text = json.dumps({**facts, "suites": written}, indent=1, ensure_ascii=False) + "\n"
    storage.replace_text(directory.report, text)
    print(f"report: {directory.report}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
