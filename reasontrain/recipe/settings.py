"""What a recipe can say: every key is a field here or in the room that owns it, and building one does no work."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Lt, MinLen
from pydantic import Field

from reasontrain.credit import Credit, NoCredit
from reasontrain.data.micro import Layout
from reasontrain.data.prompts import PromptSettings
from reasontrain.data.sampling import Sampling
from reasontrain.models import Importance, Lora, ModelSettings
from reasontrain.objectives import Objective
from reasontrain.recipe.engines import Local, Vllm
from reasontrain.recipe.history import History, PastCheckpoint, StartWeights
from reasontrain.recipe.scale import Cluster, Zero
from reasontrain.recipe.unconditional import Unconditional
from reasontrain.reduce import Average
from reasontrain.selection import EveryRollout, Everything, Keep, Selector
from reasontrain.tasks import Reward, TaskSettings
from reasontrain.types import AtLeastOne, NotNegative, Positive, Probability, Share, UserError

Count = Annotated[int, Ge(0)]
Seed = Annotated[int, Ge(0), Lt(2**62)]
Decay = Annotated[float, Ge(0), Lt(1)]
KIND = Field(discriminator="kind")
Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]


@dataclass(frozen=True, kw_only=True)
class SampleSettings(Sampling):
    """On-policy rollouts. `truncated` says what becomes of a rollout that ran into `max_tokens`: it is scored like any other,
    it earns credit but is masked from training, or it is dropped before credit is given. `engine` decodes them."""

    learned: ClassVar[bool] = True
    group_size: AtLeastOne = 1
    truncated: Literal["score", "mask", "drop"] = "score"
    engine: Annotated[Local | Vllm, KIND] = field(default_factory=Local)


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); norms and biases do not decay."""

    kind: Literal["adamw"] = "adamw"
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.0


@dataclass(frozen=True, kw_only=True)
class Muon:
    """Orthogonalised momentum for matrices of the trunk (Jordan et al. 2024), AdamW for embeddings, head, norms and biases.

    `matrix_lr` is Muon's own rate; `learn.lr` is AdamW's. Both follow one schedule.
    """

    kind: Literal["muon"] = "muon"
    matrix_lr: Positive = 0.02
    momentum: Decay = 0.95
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.0


@dataclass(frozen=True, kw_only=True)
class LearnSettings:
    """One optimiser step.

    `micro_batch_tokens` bounds what one forward holds and cannot change a gradient. `old_logp: auto` takes the sampler's
    log-probs where nothing was truncated from its distribution, and otherwise the learner's. After `max_nonfinite` steps in a
    row whose gradient was not finite (each is skipped) the run stops. `zero` is for the ranks of a `cluster`.
    """

    lr: Positive
    rollouts_per_step: AtLeastOne
    optimizer: Annotated[AdamW | Muon, KIND] = field(default_factory=AdamW)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: Count = 0
    final_lr_share: NotNegative = 0.0
    max_grad_norm: Positive | None = 1.0
    micro_batch_tokens: AtLeastOne = 16384
    layout: Layout = "padded"
    old_logp: Literal["auto", "learner"] = "auto"
    max_nonfinite: AtLeastOne = 3
    zero: Zero | None = None


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One measurement: problems, how they are asked, how many answers each, and how they are sampled (greedy by default).

    `limit` takes the first so many problems. Without `task`, the recipe's own task on its held-out split. `file` is the name of
    the same problems as a file, for `reasontrain evaluate --data`.
    """

    name: Name
    file: str | None = None
    task: Annotated[TaskSettings, KIND] | None = None
    prompt: PromptSettings | None = None
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0))
    num_samples: AtLeastOne = 1
    pass_at: tuple[AtLeastOne, ...] = ()
    limit: AtLeastOne | None = None

    def __post_init__(self) -> None:
        if self.pass_at and max(self.pass_at) > self.num_samples:
            raise ValueError(f"pass_at {max(self.pass_at)} needs as many samples, and num_samples is {self.num_samples}")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """What is measured, before the first step, every so many steps (0: never), and after the last."""

    suites: Annotated[tuple[Suite, ...], MinLen(1)]
    every: Count = 0
    before: bool = True


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """When to save beside the last step and an interrupt (every so many steps; 0: never), and how many checkpoints to keep.

    `best` names a suite of `evaluate`: the checkpoint with the highest accuracy on it is kept beside the newest `keep`.
    """

    every: Count = 0
    keep: AtLeastOne = 2
    best: Name | None = None

    @property
    def num_kept(self) -> int:
        """The most checkpoints that there are at a time."""
        return self.keep + (self.best is not None)


@dataclass(frozen=True, kw_only=True)
class TrackSettings:
    """Where metrics go beside metrics.jsonl, and every how many steps the rollouts with their evidence are written."""

    tensorboard: bool = True
    service: Literal["wandb", "trackio"] | None = None
    project: str = "reasontrain"
    tokens_every: Count = 10
    tokens_rollouts: AtLeastOne = 16


@dataclass(frozen=True, kw_only=True)
class SampleStage:
    """`sample.group_size` solutions of each problem by the recipe's model, graded -> `rollouts.jsonl`.

    `preamble` is put before each problem while sampling (worked examples for a base model) and left out ever after. A stop text
    is cut off the response and the model's end-of-text token put in its place.
    """

    name: Name
    task: Annotated[TaskSettings, KIND]
    sample: SampleSettings
    preamble: str = ""
    kind: Literal["sample"] = "sample"


@dataclass(frozen=True, kw_only=True)
class TrajectoriesStage:
    """Solutions that are in a file already (`problem`, `answer` and `completion` or `response`), graded -> `rollouts.jsonl`."""

    name: Name
    path: str
    limit: AtLeastOne | None = None
    kind: Literal["trajectories"] = "trajectories"


@dataclass(frozen=True, kw_only=True)
class PairsStage:
    """Right and wrong solutions chosen by the size of their answers' groups -> `pairs.jsonl`, `positive.jsonl`, `negative.jsonl`.

    `cover` is the share of a problem's wrong solutions whose groups give one to the negative set. What has more than
    `max_prompt_tokens`, or `max_tokens` with its response, is left out.
    """

    name: Name
    rollouts: str
    cover: Share = 0.5
    max_prompt_tokens: AtLeastOne | None = None
    max_tokens: AtLeastOne | None = None
    kind: Literal["pairs"] = "pairs"


@dataclass(frozen=True, kw_only=True)
class TuneStage:
    """The recipe's model fine-tuned on demonstrations, `epochs` times over -> `final`, an ordinary model."""

    name: Name
    demonstrations: str
    learn: LearnSettings
    lora: Lora | None = None
    epochs: Positive = 1.0
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    kind: Literal["tune"] = "tune"


@dataclass(frozen=True, kw_only=True)
class ContrastStage:
    """Tokens of pairs scored by a positive and a negative model (see `vocab.contrast`) -> `ce_logscore.parquet`.

    Chosen responses are scored too where `only_rejected` is off. The run stops where the mean weight 1 - s of rejected tokens is
    not within `alarm`: then the two models tell tokens apart nowhere, or everywhere.
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
class ReferenceStage:
    """Log-probs of both sides of pairs by the model that the run starts from -> `ref_logp.parquet`."""

    name: Name
    pairs: str
    kind: Literal["reference"] = "reference"


Stage = SampleStage | TrajectoriesStage | PairsStage | TuneStage | ContrastStage | ReferenceStage
"""What may be done before a run; each stage writes files of known names, and `stage:NAME/FILE` stands for one of them."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A run, whole: evidence -> weight -> loss over a task, and how long.

    `baseline` is the name of the run in the same `out` that the report sets this one beside. `evidence` names files of columns
    that were measured before (see `data.columns`). `stages` are done first, in order.
    """

    name: Name
    steps: AtLeastOne
    model: ModelSettings
    task: Annotated[TaskSettings, KIND]
    objective: Annotated[Objective, KIND]
    average: Average
    learn: LearnSettings
    seed: Seed = 0
    out: str = "out"
    baseline: Name | None = None
    teacher: ModelSettings | None = None
    reference: ModelSettings | None = None
    history: Annotated[History, KIND] = field(default_factory=StartWeights)
    importance: Importance = field(default_factory=Importance)
    unconditional: Annotated[Unconditional, KIND] | None = None
    prompt: PromptSettings = field(default_factory=PromptSettings)
    sample: SampleSettings | None = None
    reward: Reward = field(default_factory=Reward)
    credit: Annotated[Credit, KIND] = field(default_factory=NoCredit)
    keep: Annotated[Keep, KIND] = field(default_factory=EveryRollout)
    select: Annotated[Selector, KIND] = field(default_factory=Everything)
    evaluate: EvaluateSettings | None = None
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    track: TrackSettings = field(default_factory=TrackSettings)
    cluster: Cluster | None = None
    evidence: dict[str, str] = field(default_factory=dict)
    stages: tuple[Annotated[Stage, KIND], ...] = ()

    @property
    def needs(self) -> frozenset[str]:
        """Evidence that the rule and the objective ask for."""
        return self.select.needs | self.objective.needs

    @property
    def earlier(self) -> ModelSettings:
        """The model that `history_logp` begins with."""
        return replace(self.model, path=self.history.path) if isinstance(self.history, PastCheckpoint) else self.model

    @property
    def engine(self) -> Local | Vllm:
        """What decodes: rollouts where there are any, and the answers of evaluations."""
        return self.sample.engine if self.sample else Local()

    @property
    def temperature(self) -> float:
        """The temperature at which the policy is scored: the sampler's for ratios, 1 for distillation and demonstrations."""
        return self.sample.temperature if self.objective.follows_sampler and self.sample is not None else 1.0


def is_due(every: int, count: int) -> bool:
    """Whether something that happens `every` so many steps (0: never) happens at this count."""
    return every > 0 and count % every == 0


class RecipeError(UserError):
    """A file that is not a recipe: every reason at once."""
