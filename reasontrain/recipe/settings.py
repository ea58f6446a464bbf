"""The recipe: each key of the YAML file is a field here or in a settings class used here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

from reasontrain.algo.advantages import Advantage, NoAdvantage
from reasontrain.algo.correction import Correction, NoCorrection
from reasontrain.algo.custom_evidence import CustomEvidence, EvidencePlugin, with_inputs
from reasontrain.algo.evidence import forward_passes
from reasontrain.algo.loss_aggregation import LossAggregation
from reasontrain.algo.objectives import Objective, SequenceObjective
from reasontrain.algo.reward_shaping import OneReward, Overlong, RewardCombination
from reasontrain.algo.token_advantage import RolloutAdvantage, TokenAdvantage
from reasontrain.algo.token_selection import AllRollouts, AllTokens, RolloutFilter, TokenSelection
from reasontrain.data.prompts import PromptSettings
from reasontrain.data.thought import HardThought
from reasontrain.models import Importance, ModelSettings
from reasontrain.recipe.cluster import Cluster
from reasontrain.recipe.constraints import KIND, KIND_OR_PLUGIN, Name, Seed
from reasontrain.recipe.engines import EngineSettings, LocalEngine
from reasontrain.recipe.history import History, PastCheckpoint, StartWeights
from reasontrain.recipe.learning import LearnSettings
from reasontrain.recipe.run_settings import (
    CheckpointSettings,
    EvaluateSettings,
    ResumeSettings,
    TrackSettings,
)
from reasontrain.recipe.sampling import SampleSettings
from reasontrain.recipe.stages import Stage
from reasontrain.recipe.teachers import (
    StoredTeacher,
    Teacher,
    TeacherByColumn,
    TeacherMixture,
    WeightsTeacher,
)
from reasontrain.recipe.unconditional import Unconditional
from reasontrain.tasks import Reward, TaskSettings
from reasontrain.types import AtLeastOne, UserError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run: model, task, evidence, token selection, objective and number of steps.

    `baseline` names the run in the same `out` that the report compares with. `evidence` maps a kind
    of evidence to a file that holds it (see `data.stored_evidence`), or to `column:NAME`, a column
    of the data with a list of numbers, one per token or per character of the response (see
    `data.evidence_columns`); a new name it maps to the plug-in that computes it. `stages` run
    first, in order.
    """

    name: Name
    steps: AtLeastOne
    model: ModelSettings
    task: Annotated[TaskSettings, KIND]
    objective: Annotated[Objective, KIND_OR_PLUGIN]
    loss_aggregation: LossAggregation
    learn: LearnSettings
    seed: Seed = 0
    out: str = "out"
    baseline: Name | None = None
    teacher: Teacher | None = None
    reference: ModelSettings | None = None
    history: Annotated[History, KIND] = field(default_factory=StartWeights)
    importance: Importance = field(default_factory=Importance)
    unconditional: Annotated[Unconditional, KIND] | None = None
    prompt: PromptSettings = field(default_factory=PromptSettings)
    sample: SampleSettings | None = None
    reward: Reward = field(default_factory=Reward)
    advantage: Annotated[Advantage, KIND_OR_PLUGIN] = field(default_factory=NoAdvantage)
    reward_combination: Annotated[RewardCombination, KIND] = field(default_factory=OneReward)
    overlong: Overlong | None = None
    token_advantage: Annotated[TokenAdvantage, KIND] = field(default_factory=RolloutAdvantage)
    correction: Annotated[Correction, KIND] = field(default_factory=NoCorrection)
    rollout_filter: Annotated[RolloutFilter, KIND_OR_PLUGIN] = field(default_factory=AllRollouts)
    token_selection: Annotated[TokenSelection, KIND_OR_PLUGIN] = field(default_factory=AllTokens)
    evaluate: EvaluateSettings | None = None
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    resume: ResumeSettings = field(default_factory=ResumeSettings)
    track: TrackSettings = field(default_factory=TrackSettings)
    cluster: Cluster | None = None
    evidence: dict[str, str | EvidencePlugin] = field(default_factory=dict)
    stages: tuple[Annotated[Stage, KIND], ...] = ()

    @property
    def schedule_steps(self) -> int:
        """The steps that schedules span; more or fewer than the run has, if the recipe says so."""
        return self.learn.schedule_steps or self.steps

    @property
    def required_evidence(self) -> frozenset[str]:
        """Evidence that the selection rule and the loss read, and what it is computed from."""
        return with_inputs(
            self.token_selection.required_evidence | self.loss_evidence, self.custom_evidence
        )

    @property
    def loss_evidence(self) -> frozenset[str]:
        """Evidence that the loss reads: the objective and what makes its advantages."""
        return (
            self.objective.required_evidence
            | self.token_advantage.required_evidence
            | self.correction.required_evidence
        )

    @property
    def stored_evidence(self) -> dict[str, str]:
        """The files and columns that hold evidence, by its name."""
        return {name: file for name, file in self.evidence.items() if isinstance(file, str)}

    @property
    def custom_evidence(self) -> dict[str, CustomEvidence]:
        """The evidence that plug-ins compute, by its name."""
        return {
            name: custom for name, custom in self.evidence.items() if not isinstance(custom, str)
        }

    @property
    def reuses_sampled_logp(self) -> bool:
        """True if the sampler's log-probs serve as `old_logp` (see `learn.old_logp`).

        They never do if something is truncated from the sampling distribution, or if the policy is
        scored at another temperature than it samples at. In bfloat16, decoding and training differ
        by more than the bounds of a sequence-level ratio, and with several updates per batch the
        ratio to the learner's log-probs defines the trust region.
        """
        if self.sample is None or self.sample.truncates or not self.scores_as_sampled:
            return False
        if self.learn.old_logp != "auto":
            return self.learn.old_logp == "sampler"
        if self.learn.updates_per_batch > 1 or "sampled_logp" in self.loss_evidence:
            return False
        if self.cluster is not None and self.cluster.overlap:
            return True
        return self.model.dtype == "float32" and not isinstance(self.objective, SequenceObjective)

    @property
    def scores_as_sampled(self) -> bool:
        """True if rollouts, and thoughts in them, have the temperature at which they are scored."""
        if self.sample is None:
            return False
        thought = self.sample.thought
        tau = thought.tau if isinstance(thought, HardThought) else self.sample.temperature
        return self.sample.temperature == tau == self.temperature

    @property
    def measured_evidence(self) -> frozenset[str]:
        """The required evidence that each step measures with an additional forward pass."""
        reused = {"old_logp"} if self.reuses_sampled_logp else set()
        return frozenset(
            name
            for name in self.required_evidence - self.evidence.keys() - reused
            if forward_passes({name})
        )

    @property
    def earlier(self) -> ModelSettings:
        """The model that measures `history_logp` at the first step."""
        return (
            replace(self.model, path=self.history.path)
            if isinstance(self.history, PastCheckpoint)
            else self.model
        )

    @property
    def teacher_model(self) -> WeightsTeacher | None:
        """The only teacher, if its weights are loaded; None if it is stored or served."""
        return self.teacher if isinstance(self.teacher, WeightsTeacher) else None

    @property
    def teacher_models(self) -> dict[str, ModelSettings]:
        """The teachers whose weights are loaded, by the key of the recipe that names them."""
        if isinstance(self.teacher, WeightsTeacher):
            return {"teacher": self.teacher}
        if isinstance(self.teacher, TeacherByColumn | TeacherMixture):
            return {
                f"teacher.teachers.{number}": settings
                for number, settings in enumerate(self.teacher.teachers)
            }
        return {}

    @property
    def other_models(self) -> dict[str, ModelSettings]:
        """The models beside the policy whose files the recipe names, by role.

        One of several teachers has the role `teacher.teachers.<number>`.
        """
        past = self.earlier if isinstance(self.history, PastCheckpoint) else None
        stored = self.teacher.model if isinstance(self.teacher, StoredTeacher) else None
        roles = {
            **self.teacher_models,
            **({} if stored is None else {"teacher": stored}),
            "reference": self.reference,
            "history": past,
        }
        return {role: settings for role, settings in roles.items() if settings is not None}

    @property
    def engine(self) -> EngineSettings:
        """The sampler engine, of rollouts and of evaluations during training."""
        return self.sample.engine if self.sample else LocalEngine()

    @property
    def samples(self) -> bool:
        """True if anything is sampled from the policy, for training or for evaluation."""
        return self.sample is not None or self.evaluate is not None

    @property
    def temperature(self) -> float:
        """The temperature at which the policy is scored.

        It is the sampler's for importance ratios, and 1 for distillation and demonstrations.
        """
        return (
            self.sample.temperature
            if self.objective.score_at_sampling_temperature and self.sample is not None
            else 1.0
        )


class RecipeError(UserError):
    """An invalid recipe; the message lists every error."""
