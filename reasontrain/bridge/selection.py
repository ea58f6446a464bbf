"""What the mixins share: settings, refusals, and the rule's call on a whole optimiser step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol, cast, runtime_checkable

import torch
from accelerate.utils import gather_object
from jaxtyping import Float
from torch import Tensor

from reasontrain.algo.evidence import EVIDENCE, Evidence, declare
from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS, LossAggregation
from reasontrain.algo.token_selection import (
    AdvantageEntropy,
    AllTokens,
    ClipCov,
    Contrast,
    HasMetrics,
    Paced,
    Stapo,
    TisDpo,
    TokenSelection,
    unshuffled,
)
from reasontrain.algo.token_selection.rules import evidence_at
from reasontrain.bridge.contract import check_trl
from reasontrain.bridge.layout import StepTokens, TrainerTokens, joined
from reasontrain.recipe import RecipeError, YamlValue, build
from reasontrain.recipe.constraints import KIND_OR_PLUGIN
from reasontrain.types import Batch, UserError, listed

if TYPE_CHECKING:
    from trl.trainer.base_trainer import _BaseTrainer as Trainer
else:
    Trainer = object

Inputs = Mapping[str, Tensor]
"""A micro-batch as TRL's collators and its generation leave it."""
EvidenceFn = Callable[[Inputs], Tensor]
"""Evidence of the user's own: one number per token of a micro-batch."""
LOSS_WEIGHT = "reasontrain_loss_weight"
"""Key of a micro-batch that holds the loss weight of each token."""

_REMEDIES = {
    "teacher": "is measured on a teacher, which only DistillationTrainer has",
    "reference": "is measured on a reference model",
}


@dataclass(frozen=True, kw_only=True)
class _Settings:
    loss_aggregation: LossAggregation
    token_selection: Annotated[TokenSelection, KIND_OR_PLUGIN] = field(default_factory=AllTokens)


@runtime_checkable
class _Rule(Protocol):
    """The part of a rule that is read before its first call."""

    @property
    def required_evidence(self) -> frozenset[str]: ...

    def __call__(self, batch: Batch) -> Tensor: ...


@runtime_checkable
class _HasKind(Protocol):
    """A rule as a recipe names it; an instance of a user's own class may have no kind."""

    kind: str


def _declare(names: frozenset[str]) -> None:
    """Make evidence of the user's own an attribute of batches, as a plug-in's is in a recipe."""
    for name in names - EVIDENCE.keys():
        declare(
            Evidence(
                name=name,
                description="a function of the user's",
                chart=name,
                label=name,
                unit="nats",
                bounds=(-math.inf, math.inf),
                source="plugin",
            )
        )


class SelectsTokens(Trainer):
    """Base of the mixins.

    Class attributes of a mixin:
        trainer: TRL's trainer that it is for.
        loss_methods: the methods of that trainer that compute the loss; a subclass of TRL's that
            has its own is refused.
        aggregations: the loss aggregations that can be chosen, the default first.
        measured: evidence that is measured with every setting of the trainer.
        has_advantages: True if rollouts have advantages.
        paired: True if rollouts are pairs.
    """

    trainer: ClassVar[type]
    loss_methods: ClassVar[tuple[str, ...]]
    aggregations: ClassVar[tuple[LossAggregation, ...]] = (
        "token_mean",
        "seq_mean_token_mean",
        "response_token_mean",
        "seq_mean_token_sum",
    )
    measured: ClassVar[frozenset[str]]
    has_advantages: ClassVar[bool] = False
    paired: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Refuse a class in which TRL's trainer is missing, stands first or has another loss."""
        super().__init_subclass__()
        mixins = [one for one in cls.__mro__ if "loss_methods" in vars(one)]
        if not mixins or cls is mixins[0]:
            return  # a mixin itself
        trainer = cls.trainer
        order = [
            one for one in cls.__mro__ if not (mixins[0] in one.__mro__ and one is not mixins[0])
        ]
        if trainer not in order or order.index(trainer) < order.index(mixins[0]):
            raise UserError(
                f"{mixins[0].__name__} is for {trainer.__name__} and stands before it: "
                f"`class {cls.__name__}({mixins[0].__name__}, {trainer.__name__})`"
            )
        for other in order[: order.index(trainer)]:
            own = [name for name in cls.loss_methods if name in vars(other)]
            if other not in (mixins[0], SelectsTokens) and own:
                raise UserError(
                    f"{other.__name__} has a loss of its own ({own[0]}), which "
                    f"{mixins[0].__name__} does not know; use {trainer.__name__}"
                )

    def __init__(
        self,
        *args: object,
        token_selection: TokenSelection | Mapping[str, YamlValue] | str,
        aggregation: str | None = None,
        evidence: Mapping[str, EvidenceFn] | None = None,
        **kwargs: object,
    ) -> None:
        """Build TRL's trainer with a selection rule.

        Args:
            args: arguments of TRL's trainer.
            token_selection: a rule, its settings as in a recipe (`{"kind": "tip", ...}`), or its
                kind, with the defaults of its settings.
            aggregation: name of the loss aggregation; None for the mixin's default.
            evidence: kinds of evidence that TRL's models do not give -> a function of a
                micro-batch that returns one number per token, in the shape of `input_ids` or, of
                trainers that generate, of `completion_ids`.
            kwargs: arguments of TRL's trainer.

        Raises:
            UserError: the rule cannot work in this trainer or with these settings, or TRL is not
                the version that this package was written for.
        """
        check_trl()
        self.token_selection, self.aggregation = self._settings(token_selection, aggregation)
        self.own_evidence = dict(evidence or {})
        _declare(self.token_selection.required_evidence.intersection(self.own_evidence))
        if unknown := self.own_evidence.keys() - EVIDENCE.keys():
            raise UserError(
                f"evidence: {listed(sorted(unknown))} is no kind of evidence; there is "
                f"{listed(EVIDENCE)}"
            )
        self._refuse_rule()
        super().__init__(*args, **kwargs)
        self._refuse_missing_evidence()
        if self.args.n_gpu > 1:
            raise UserError(
                "token selection does not run under nn.DataParallel; start the script with "
                "`accelerate launch`, or show it one GPU with CUDA_VISIBLE_DEVICES"
            )
        if reason := self.refusal():
            raise UserError(f"{type(self).__name__}: {reason}")

    # ---- of each trainer

    def refusal(self) -> str | None:
        """The reason why the trainer's settings do not go with token selection; None if they do."""
        return None

    def measurable(self) -> frozenset[str]:
        """Evidence that this trainer measures with its settings."""
        return self.measured

    # ---- settings

    def _settings(
        self, rule: object, aggregation: str | None
    ) -> tuple[TokenSelection, LossAggregation]:
        """The validated rule and aggregation."""
        name = aggregation or self.aggregations[0]
        content: dict[str, YamlValue] = {"loss_aggregation": name}
        if isinstance(rule, str):
            content["token_selection"] = {"kind": rule}
        elif isinstance(rule, Mapping):
            content["token_selection"] = dict(rule)
        elif isinstance(rule, type) or not isinstance(rule, _Rule):
            raise UserError(
                "token_selection is a rule, which has `required_evidence`, or its settings, as in "
                f'{{"kind": "top_entropy", "keep_ratio": 0.2}}, not {rule!r}'
            )
        try:
            settings = build(_Settings, content, "")
        except RecipeError as error:
            reasons = [line.strip() for line in str(error).splitlines()[1:]]
            raise UserError("; ".join(reasons)) from None
        if settings.loss_aggregation not in self.aggregations:
            raise UserError(
                f"loss_aggregation: {name} does not fit {self.trainer.__name__}; "
                + (
                    "no rollout is filtered there, so response_token_mean is the same"
                    if name == "sampled_token_mean" and not self.paired
                    else f"there is {listed(self.aggregations)}"
                )
            )
        if "token_selection" in content:
            return settings.token_selection, settings.loss_aggregation
        return cast("TokenSelection", rule), settings.loss_aggregation

    def _refuse_rule(self) -> None:
        """Refuse a rule that reads what rollouts of this trainer do not have."""
        rule = unshuffled(self.token_selection)
        name = self.trainer.__name__
        if isinstance(rule, AdvantageEntropy | Stapo | ClipCov) and not self.has_advantages:
            raise UserError(
                f"token_selection: {rule.kind} compares advantages, and {name} has none; use "
                "another rule, or GRPOTrainer"
            )
        if isinstance(rule, Contrast | TisDpo) and not self.paired:
            raise UserError(
                f"token_selection: {rule.kind} weighs the two sides of a pair, and {name} has no "
                "pairs; use another rule, or DPOTrainer"
            )
        if isinstance(rule, Paced):
            raise UserError(
                f"token_selection: {rule.kind} reads which rollouts are right, and {name} does not "
                "pass that on; use a recipe"
            )

    def _refuse_missing_evidence(self) -> None:
        """Refuse a rule whose evidence nobody measures."""
        missing = self.token_selection.required_evidence - self.measurable()
        rule: object = self.token_selection
        kind = rule.kind if isinstance(rule, _HasKind) else type(rule).__name__
        for name in sorted(missing - self.own_evidence.keys()):
            source = EVIDENCE[name].source if name in EVIDENCE else "plugin"
            raise UserError(
                f"token_selection: {kind} needs {name}, which "
                + _REMEDIES.get(source, f"is of the source `{source}`")
                + f"; {self.trainer.__name__} does not measure it here: pass "
                f'evidence={{"{name}": function}}, or use another rule'
            )

    # ---- an optimiser step

    @property
    def evidence_names(self) -> frozenset[str]:
        """The evidence that the rule reads at this point of the run and that is measured here."""
        now = evidence_at(self.token_selection, self._progress)
        return now.difference(self.own_evidence)

    @property
    def _progress(self) -> float:
        return min(self.state.global_step / max(self.state.max_steps - 1, 1), 1.0)

    def with_own_evidence(
        self, measured: Mapping[str, Tensor], inputs: Inputs
    ) -> Mapping[str, Tensor]:
        """The measured evidence of a micro-batch, and the user's."""
        now = evidence_at(self.token_selection, self._progress)
        functions = {name: fn for name, fn in self.own_evidence.items() if name in now}
        return {**measured, **{name: fn(inputs) for name, fn in functions.items()}}

    def select(
        self,
        micro_batches: Sequence[TrainerTokens],
        evidence: Sequence[Mapping[str, Tensor]],
        advantage: Sequence[Tensor] | None = None,
        group: int = 1,
    ) -> tuple[Batch, Float[Tensor, "B T"], slice]:
        """Call the rule on the rollouts of all micro-batches of all processes.

        Args:
            micro_batches: the tokens of this process.
            evidence: name -> one number per position, for each micro-batch.
            advantage: the advantages of each micro-batch; None where the trainer has none.
            group: rollouts of one prompt, which follow one another.

        Returns:
            The batch of all processes, the weights of its tokens, and the rollouts of this process.
        """
        parts = [
            StepTokens(
                ids_BT=tokens.to_batch(tokens.ids_N),
                kind_BT=tokens.to_batch(tokens.kind_N),
                advantage_B=(
                    torch.zeros(tokens.num_rollouts)
                    if advantage is None
                    else advantage[index].detach().float().cpu()
                ),
                evidence={
                    name: tokens.to_batch(value.float()) for name, value in evidence[index].items()
                },
            )
            for index, tokens in enumerate(micro_batches)
        ]
        own = joined(parts)
        processes = gather_object([own]) if self.accelerator.num_processes > 1 else [own]
        before = sum(len(one.ids_BT) for one in processes[: self.accelerator.process_index])
        together = joined(processes)
        batch = together.batch(
            step=self.state.global_step,
            progress=self._progress,
            seed=self.args.seed,
            group=group,
            paired=self.paired,
        )
        weight_BT = self.token_selection(batch)
        self._note(batch, weight_BT)
        return batch, weight_BT, slice(before, before + len(own.ids_BT))

    def split(
        self, values_BT: Float[Tensor, "B T"], micro_batches: Sequence[TrainerTokens]
    ) -> list[Float[Tensor, "K T"]]:
        """The rows of each micro-batch of this process."""
        sizes = [tokens.num_rollouts for tokens in micro_batches]
        return list(values_BT.split(sizes))

    def aggregated(self, batch: Batch, weight_BT: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """The loss weight of each token of an optimiser step."""
        return LOSS_AGGREGATIONS[self.aggregation](weight_BT, batch.totals(weight_BT))

    def _note(self, batch: Batch, weight_BT: Tensor) -> None:
        """Log the share of tokens that are selected, and the rule's own metrics."""
        number = max(int(batch.is_response_BT.sum()), 1)
        values = {"kept_share": float((weight_BT != 0).sum()) / number}
        if isinstance(self.token_selection, HasMetrics):
            values |= self.token_selection.metrics(batch)
        for name, value in values.items():
            self._metrics["train"][f"token_selection/{name}"].append(value)
