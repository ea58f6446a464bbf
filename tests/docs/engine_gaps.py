"""First differing tokens of two evaluations of one model, with the gap between their log-probs.

    python -m tests.docs.engine_gaps MODEL out/local/MODEL out/vllm/MODEL [--max-gap 1e-4]

Both folders are what `reasontrain evaluate` wrote, by different engines. For each answer that
differs, the local model reads the prompt and the tokens that both share, in float32, and says how
probable it finds the two tokens that follow. Two engines add the same numbers in different orders,
so that rounding may decide between tokens of almost equal probability; a larger gap is a fault.
With `--max-gap`, the exit code is 1 if a gap is larger.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reasontrain import models
from reasontrain.data.prompts import PromptSettings
from reasontrain.models import Description, ModelSettings, Policy
from reasontrain.recipe import Suite, build
from reasontrain.run.datasets import encode_prompts, load_suite
from reasontrain.tasks import Grader
from reasontrain.types import Prompt

Key = tuple[str, int]
Answers = Mapping[Key, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The first token at which two answers differ.

    Attributes:
        key: the problem's id and the index of the sample.
        index: the index of the token in the response.
        tokens: the two tokens, as text.
        logp: their log-probs by the local model in float32, in nats.
        is_exact: the texts, encoded again, have as many tokens as were generated.
    """

    key: Key
    index: int
    tokens: tuple[str, str]
    logp: tuple[float, float]
    is_exact: bool

    @property
    def gap(self) -> float:
        """The absolute difference of the two log-probs."""
        return abs(self.logp[0] - self.logp[1])


def divergences(
    policy: Policy, description: Description, prompts: Mapping[str, Prompt], pair: Sequence[Answers]
) -> Iterator[Divergence]:
    """Compare two evaluations.

    Args:
        policy: the model, in float32.
        description: its tokenizer and end tokens.
        prompts: the prompts, by the ids of their problems.
        pair: the answers of both evaluations, to the same problems.

    Yields:
        Each pair of answers that differ, in the order of the first evaluation.
    """
    for key in pair[0]:
        answers = [answers[key] for answers in pair]
        if len({(answer["response"], answer["truncated"]) for answer in answers}) == 1:
            continue
        prompt_ids = prompts[key[0]].ids
        first, second = (_ids(answer, description) for answer in answers)
        index = next(
            (i for i, ids in enumerate(zip(first, second, strict=False)) if ids[0] != ids[1]),
            min(len(first), len(second)),
        )
        logp_V = _next_logp(policy, [*prompt_ids, *first[:index]])
        tokens = [_token_at(ids, index, logp_V, description) for ids in (first, second)]
        yield Divergence(
            key=key,
            index=index,
            tokens=(_shown(tokens[0], description), _shown(tokens[1], description)),
            logp=(float(logp_V[tokens[0]]), float(logp_V[tokens[1]])),
            is_exact=all(
                len(ids) + (not answer["truncated"]) == answer["tokens"]
                for ids, answer in zip((first, second), answers, strict=True)
            ),
        )


def _ids(answer: Mapping[str, Any], description: Description) -> list[int]:
    """The tokens of a response's text, without the one that ended it."""
    ids = description.tokenizer.encode(answer["response"], add_special_tokens=False)
    return [int(token) for token in ids]


def _token_at(
    ids: Sequence[int], index: int, logp_V: torch.Tensor, description: Description
) -> int:
    """The token at an index; behind the text, the likeliest of those that end a response."""
    if index < len(ids):
        return ids[index]
    return max(description.stop_ids, key=lambda token: float(logp_V[token]))


def _shown(token: int, description: Description) -> str:
    return repr(description.tokenizer.decode([token]))


@torch.inference_mode()
def _next_logp(policy: Policy, ids: Sequence[int]) -> torch.Tensor:
    """Log-probs of the token after these; shape (V,)."""
    hidden_TD = policy.hidden(torch.tensor([ids], device=policy.device))[:, -1]
    return policy.head.logits(hidden_TD)[0].float().log_softmax(-1)


def read_answers(folder: Path, suite: str) -> dict[Key, Mapping[str, Any]]:
    """The answers to a suite, by problem and sample."""
    lines = map(json.loads, (folder / f"{suite}.jsonl").read_text().splitlines())
    return {(line["problem"], line["sample"]): line for line in lines}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the divergences of all suites that both folders have; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="the weights, as in `model.path`")
    parser.add_argument("folders", type=Path, nargs=2, help="folders with a report.json")
    parser.add_argument("--max-gap", type=float, help="the largest gap in nats")
    options = parser.parse_args(arguments)
    settings = ModelSettings(path=options.model)
    description = models.describe(settings)
    policy = models.load(settings)
    reports = [
        {suite["suite"]: suite for suite in json.loads((f / "report.json").read_text())["suites"]}
        for f in options.folders
    ]
    largest = 0.0
    for name in reports[0].keys() & reports[1].keys():
        with Grader() as grader:
            suite = build(Suite, reports[0][name]["asked"], name)
            assert suite.task is not None, "a suite of an evaluation has a task"
            problems = load_suite(suite, suite.task, suite.prompt or PromptSettings(), grader)
        hashes = {problems.sha256, *(report[name]["problems_sha256"] for report in reports)}
        if len(hashes) > 1:
            parser.error(f"{name}: the evaluations have other problems or prompts")
        prompts = {each.problem.id: each for each in encode_prompts(problems, description).prompts}
        pair = [read_answers(folder, name) for folder in options.folders]
        different = list(divergences(policy, description, prompts, pair))
        print(f"{name}: {len(pair[0]) - len(different)} of {len(pair[0])} answers are identical")
        for each in different:
            remark = "" if each.is_exact else "  (encoded again, the text has other tokens)"
            print(
                f"  {each.key[0]} sample {each.key[1]}, token {each.index}: "
                f"{each.tokens[0]} {each.logp[0]:.6f}, {each.tokens[1]} {each.logp[1]:.6f}, "
                f"gap {each.gap:.2e}{remark}"
            )
        largest = max([largest, *(each.gap for each in different)])
    print(f"largest gap: {largest:.2e} nats")
    return int(options.max_gap is not None and largest > options.max_gap)


if __name__ == "__main__":
    raise SystemExit(main())
