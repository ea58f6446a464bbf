"""Solutions sampled from the model that the run starts from, or read from a file; graded by the one
verifier.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from reasontrain import models
from reasontrain.data.files import Row, read_file
from reasontrain.data.offline import PROMPTS, fingerprint
from reasontrain.recipe import LocalEngine, Recipe, SampleStage, TrajectoriesStage
from reasontrain.run.datasets import encoder_of
from reasontrain.sampler import Sampler
from reasontrain.sampler.local import LocalSampler
from reasontrain.stages.solutions import ROLLOUTS, Solution, read, write
from reasontrain.tasks import Grader, PythonTask, check_gold, score
from reasontrain.types import Message, Problem, Prompt, Rollout, UserError

logger = logging.getLogger(__name__)

AT_ONCE = 64
"""Problems whose solutions are written together: no more is lost when the stage is killed."""
RESPONSES = ("response", "completion")


def sample(stage: SampleStage, recipe: Recipe, directory: Path) -> None:
    """Write `rollouts.jsonl`; what `parts/` holds from before is not sampled again."""
    problems = list(stage.task.problems())
    described = models.describe(recipe.model)
    asking = (
        replace(recipe.prompt, max_tokens=None) if stage.preamble else recipe.prompt
    )  # the limit is for what is trained on
    encoder = encoder_of(described, asking)
    asked, dropped = encoder.prompts(
        [_with_preamble(problem, stage.preamble) for problem in problems]
    )
    if dropped:
        logger.warning(
            f"{stage.name}: {dropped} of {len(problems)} prompts are too long and were dropped"
        )
    by_id = {problem.id: problem for problem in problems}
    parts = directory / "parts"
    parts.mkdir(exist_ok=True)
    with Grader() as grader:
        if not isinstance(stage.task, PythonTask):
            check_gold(problems, grader, required=True)
        sampler: Sampler | None = None
        for start in range(0, len(asked), AT_ONCE):
            path = parts / f"{start:08d}.jsonl"
            if not path.exists():
                sampler = sampler or _sampler(stage, recipe)
                rollouts = _ask(sampler, asked[start : start + AT_ONCE], stage, start)
                own = [replace(r, problem=by_id[r.problem.id]) for r in rollouts]
                write(path, _graded(own, stage, described.tokenizer, grader))
                logger.info(
                    f"{stage.name}: {min(start + AT_ONCE, len(asked))} of {len(asked)} problems"
                )
    files = [parts / f"{start:08d}.jsonl" for start in range(0, len(asked), AT_ONCE)]
    write(directory / ROLLOUTS, chain.from_iterable(map(read, files)))


def _with_preamble(problem: Problem, preamble: str) -> Problem:
    if not preamble:
        return problem
    if not isinstance(problem.prompt, str):
        raise UserError(
            f"problem {problem.id} is a conversation, and a stage's `preamble` is put "
            f"before texts; leave it out"
        )
    return replace(problem, prompt=preamble + problem.prompt)


def _sampler(stage: SampleStage, recipe: Recipe) -> Sampler:
    """A sampler of the plain model in this process."""
    plain = replace(recipe.model, lora=None, gradient_checkpointing=False)
    engine = stage.sample.engine
    graphs = isinstance(engine, LocalEngine) and engine.cuda_graphs
    return LocalSampler(
        models.load(plain), seed=recipe.seed, max_num_seqs=engine.max_num_seqs, cuda_graphs=graphs
    )


def _ask(
    sampler: Sampler, prompts: Sequence[Prompt], stage: SampleStage, start: int
) -> list[Rollout]:
    """Rollouts whose ids do not depend on how many problems are asked at once."""
    size = stage.sample.group_size
    return sampler.sample(prompts, stage.sample, num=size, first_id=start * size)


def _graded(
    rollouts: Sequence[Rollout],
    stage: SampleStage,
    tokenizer: PreTrainedTokenizerBase,
    grader: Grader,
) -> list[Solution]:
    """Rollouts with their verdicts, closed by the end-of-text token where a stop text closed them."""
    closed = [_closed(rollout, stage.sample.stop, tokenizer) for rollout in rollouts]
    own = fingerprint(tokenizer)
    found = score(stage.task, [(rollout.problem, rollout.text) for rollout in closed], grader)
    return [
        Solution(
            problem=rollout.problem.id,
            prompt=_plain(rollout.problem),
            answer=rollout.problem.answer,
            response=rollout.text,
            extracted=scored.verdict.extracted,
            correct=scored.verdict.correct,
            truncated=rollout.truncated,
            response_ids=rollout.response_ids,
            tokenizer=own,
        )
        for rollout, scored in zip(closed, found, strict=True)
    ]


def _closed(rollout: Rollout, stops: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Rollout:
    """Without the tokens of a stop text, and with the end-of-text token in their place."""
    ids = list(rollout.response_ids)
    while ids and any(
        stop in str(tokenizer.decode(ids, skip_special_tokens=False)) for stop in stops
    ):
        ids.pop()
    if len(ids) == len(rollout.response_ids):
        return rollout
    end = tokenizer.eos_token_id
    assert isinstance(end, int)
    return replace(
        rollout, response_ids=(*ids, end), text=str(tokenizer.decode(ids, skip_special_tokens=True))
    )


def _plain(problem: Problem) -> str | list[Message]:
    return problem.prompt if isinstance(problem.prompt, str) else [*problem.prompt]


def read_trajectories(stage: TrajectoriesStage, directory: Path) -> None:
    """Write `rollouts.jsonl` of a file's solutions, whatever verdicts the file has."""
    table = read_file(Path(stage.path))
    rows = table.rows[: stage.limit]
    places = [table.where(i) for i in range(len(rows))]
    prompts = [_cell(row, PROMPTS, where) for row, where in zip(rows, places, strict=True)]
    answers = [_cell(row, ("answer",), where) for row, where in zip(rows, places, strict=True)]
    responses = [_cell(row, RESPONSES, where) for row, where in zip(rows, places, strict=True)]
    with Grader() as grader:
        verdicts = grader.grade_many(list(zip(answers, responses, strict=True)))
    write(
        directory / ROLLOUTS,
        [
            Solution(
                problem=str(row.get("problem_id") or prompt),
                prompt=prompt,
                answer=answer,
                response=response,
                extracted=verdict.extracted,
                correct=verdict.correct,
            )
            for row, prompt, answer, response, verdict in zip(
                rows, prompts, answers, responses, verdicts, strict=True
            )
        ],
    )
    logger.info(
        f"{stage.name}: {sum(verdict.correct for verdict in verdicts)} of {len(rows)} "
        f"solutions are right"
    )


def _cell(row: Row, names: Sequence[str], where: str) -> str:
    """The first of these columns that holds a text."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            return value
    raise UserError(
        f"{where}: no text in any of the columns {', '.join(names)} (the row has: {', '.join(row)})"
    )
