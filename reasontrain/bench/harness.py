"""lm-evaluation-harness as a peer: its Hugging Face backend and its GSM8K grading rules.

The task is defined over rendered prompts, so that the model gets the same ids. Answer extraction
and verdict are those of the harness's own task `gsm8k` ("flexible-extract": the last number,
compared as text).
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from reasontrain.bench.case import NoPeerError
from reasontrain.models import ModelSettings, located
from reasontrain.recipe import Suite, read_yaml
from reasontrain.types import Prompt, UserError

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM

NAME = "lm-evaluation-harness"
RULE = "flexible-extract"


@dataclass(frozen=True)
class HarnessReply:
    """A reply to one prompt: the text before a stop, the answer read from it, and the verdict."""

    text: str
    extracted: str
    correct: bool


Evaluate = Callable[[], list[HarnessReply]]
"""Evaluate all prompts: requests built, tokenised, answered and graded."""


@contextlib.contextmanager
def loaded(
    model: ModelSettings,
    suite: Suite,
    prompts: Sequence[Prompt],
    device: str,
    batch_size: int | str,
) -> Iterator[Evaluate]:
    """The harness with model and prompts loaded.

    Args:
        model: the model to evaluate.
        suite: stop texts and token limit.
        prompts: the encoded prompts.
        device: a torch device, as text.
        batch_size: prompts decoded together, or "auto".

    Yields:
        A function that evaluates all prompts and returns the replies in their order.

    Raises:
        NoPeerError: if the harness is not installed.
        UserError: if the harness encodes a prompt to other ids.
    """
    lm_class = _installed()
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate

    with TemporaryDirectory() as folder:
        with located(model.path) as path, _quietly():
            lm = lm_class(pretrained=path, device=device, dtype=model.dtype, batch_size=batch_size)
            rows = [
                {"prompt": _text(lm, prompt), "gold": prompt.problem.answer} for prompt in prompts
            ]
            file = Path(folder) / "problems.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            task = ConfigurableTask(config=_task(suite, file, Path(folder) / "cache"))

        def evaluate_all() -> list[HarnessReply]:
            with _quietly():
                results = evaluate(
                    lm, {"tasks": {"peer": task}, "groups": {}, "group_map": {}}, bootstrap_iters=0
                )
            samples = sorted(results["samples"]["peer"], key=lambda sample: sample["doc_id"])
            return [
                HarnessReply(s["resps"][0][0], s["filtered_resps"][0], bool(s["exact_match"]))
                for s in samples
            ]

        yield evaluate_all


def _text(lm: HFLM, prompt: Prompt) -> str:
    """The prompt as a text that the harness encodes to the same ids; else raise UserError."""
    text: str = lm.tokenizer.decode(list(prompt.ids), skip_special_tokens=False)
    ids, _ = lm.tok_batch_encode([text])
    if ids[0].tolist() != list(prompt.ids):
        raise UserError(
            f"{NAME} encodes the prompt of problem {prompt.problem.id} to other ids "
            f"({ids.shape[1]} tokens, not {len(prompt.ids)}), so the two cannot be compared with "
            f"this tokenizer"
        )
    return text


def check_room(prompts: Sequence[Prompt], suite: Suite, context: int) -> None:
    """Raise UserError for prompts that the harness would truncate on the left to fit the answer."""
    longest = max(prompts, key=lambda prompt: len(prompt.ids))
    if len(longest.ids) + suite.sampling.max_tokens > context:
        raise UserError(
            f"problem {longest.problem.id} has a prompt of {len(longest.ids)} tokens, and "
            f"with {suite.sampling.max_tokens} of "
            f"answer it exceeds the model's context of {context}; {NAME} would truncate it"
        )


def check_installed() -> None:
    """Raise NoPeerError if the harness is not installed."""
    _installed()


def _installed() -> type[HFLM]:
    try:
        from lm_eval.models import huggingface
    except ImportError as error:
        raise NoPeerError(
            f"this table runs beside {NAME}, which is not installed here ({error}); pip "
            f"install 'reasontrain[peers]'"
        ) from error
    model_class: type[HFLM] = huggingface.HFLM
    return model_class


def _task(suite: Suite, path: Path, cache: Path) -> dict[str, object]:
    """A task over a file of prompts, with the keys of the harness's YAML files.

    Filters and metric are those of its task `gsm8k`.
    """
    import lm_eval

    gsm8k = read_yaml(Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml")
    filters = gsm8k["filter_list"]
    assert isinstance(filters, list)
    return {
        "task": "peer",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}, "cache_dir": str(cache)},
        "test_split": "test",
        "output_type": "generate_until",
        "num_fewshot": 0,
        "doc_to_text": "prompt",
        "doc_to_target": "gold",
        "generation_kwargs": {
            "until": list(suite.sampling.stop),
            "max_gen_toks": suite.sampling.max_tokens,
            "do_sample": False,
            "temperature": 0.0,
        },
        "metric_list": gsm8k["metric_list"],
        "filter_list": [
            each for each in filters if isinstance(each, dict) and each["name"] == RULE
        ],
    }


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Suppress the harness's progress bars and messages."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
