"""Settings of the stages that can run before training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from reasontrain.models import Lora
from reasontrain.recipe.constraints import KIND, Name
from reasontrain.recipe.learning import LearnSettings
from reasontrain.recipe.run_settings import CheckpointSettings
from reasontrain.recipe.sampling import SampleSettings
from reasontrain.tasks import AnswerFormat, TaskSettings
from reasontrain.types import AtLeastOne, NotNegative, Positive, Probability, Ratio


@dataclass(frozen=True, kw_only=True)
class SampleStage:
    """Solutions sampled from the recipe's model and graded -> `rollouts.jsonl`.

    `sample.group_size` solutions are sampled for each problem. `preamble` (worked examples for a
    base model) is put before each problem while sampling and removed afterwards. A stop text is cut
    off the response and replaced by the model's end-of-text token.
    """

    name: Name
    task: Annotated[TaskSettings, KIND]
    sample: SampleSettings
    preamble: str = ""
    kind: Literal["sample"] = "sample"


@dataclass(frozen=True, kw_only=True)
class TrajectoriesStage:
    """Existing solutions from a file, graded -> `rollouts.jsonl`.

    The file has `problem`, `answer`, and `completion` or `response`, and may have `truncated`.
    `answer_format` is what counts as an answer: `boxed`, `marked` or `any`.
    """

    name: Name
    path: str
    limit: AtLeastOne | None = None
    answer_format: AnswerFormat = "marked"
    kind: Literal["trajectories"] = "trajectories"


@dataclass(frozen=True, kw_only=True)
class PairsStage:
    """Pairs of a right and a wrong solution, chosen by how many solutions share their answers.

    Writes `pairs.jsonl`, `positive.jsonl` and `negative.jsonl`. The negative set gets one solution
    from each of the largest groups of equal wrong answers, until these hold a share `cover` of the
    problem's wrong solutions. Solutions with more than `max_prompt_tokens`, or `max_tokens` with
    the response, are left out.
    """

    name: Name
    rollouts: str
    cover: Ratio = 0.5
    max_prompt_tokens: AtLeastOne | None = None
    max_tokens: AtLeastOne | None = None
    kind: Literal["pairs"] = "pairs"


@dataclass(frozen=True, kw_only=True)
class TuneStage:
    """The recipe's model fine-tuned on demonstrations for `epochs` epochs.

    Writes `final`, a complete model.
    """

    name: Name
    demonstrations: str
    learn: LearnSettings
    lora: Lora | None = None
    epochs: Positive = 1.0
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    kind: Literal["tune"] = "tune"


@dataclass(frozen=True, kw_only=True)
class ContrastStage:
    """Tokens of pairs scored by a positive and a negative model (see `vocab.contrast`).

    Writes `ce_logscore.parquet`. Chosen responses are scored too if `only_rejected` is off. The run
    stops if the mean weight 1 - s of rejected tokens is outside `alarm`, because then the two
    models agree on nearly all tokens or disagree on nearly all.
    """

    name: Name
    pairs: str
    positive: str
    negative: str
    ce_beta: NotNegative = 1.0
    plausible: Probability = 0.0
    only_rejected: bool = True
    alarm: tuple[Probability, Probability] = (0.02, 0.9)
    kind: Literal["contrast"] = "contrast"


@dataclass(frozen=True, kw_only=True)
class LogRatioStage:
    """Log-probs of both responses of pairs under a positive model, minus those under a negative.

    Writes `log_ratio.parquet`, which TIS-DPO reads.
    """

    name: Name
    pairs: str
    positive: str
    negative: str
    kind: Literal["log_ratio"] = "log_ratio"


@dataclass(frozen=True, kw_only=True)
class ReferenceStage:
    """Log-probs of both responses of pairs under the model that the run starts from.

    Writes `ref_logp.parquet`.
    """

    name: Name
    pairs: str
    kind: Literal["reference"] = "reference"


Stage = (
    SampleStage
    | TrajectoriesStage
    | PairsStage
    | TuneStage
    | ContrastStage
    | LogRatioStage
    | ReferenceStage
)
"""The stages of a recipe.

Each writes files of fixed names, to which `stage:NAME/FILE` refers.
"""
