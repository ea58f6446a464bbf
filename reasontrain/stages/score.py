"""Scores of pairs' tokens by frozen models: contrastive scores, and reference log-probs."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain import models, vocab
from reasontrain.algo.token_selection.scores.contrast import scored
from reasontrain.data import storage, stored_evidence
from reasontrain.data.micro_batches import MicroBatch
from reasontrain.data.offline import encode
from reasontrain.learner.policy_module import UnshardedModel
from reasontrain.learner.scoring import logp, measured
from reasontrain.models import ModelSettings, Policy
from reasontrain.recipe import ContrastStage, LogRatioStage, Recipe, ReferenceStage
from reasontrain.run.datasets import encoder_of
from reasontrain.tasks import PairTask
from reasontrain.types import Rollout, RunError, Stats

logger = logging.getLogger(__name__)

SUMMARY = "summary.json"


def contrast(stage: ContrastStage, recipe: Recipe, directory: Path) -> None:
    """Write `ce_logscore.parquet`, and `summary.json` with figures about rejected tokens."""
    chosen, policies = _two_models(stage, recipe)
    positive, negative = map(UnshardedModel, policies)

    def measure(
        micro: MicroBatch, row_N: Int[Tensor, " N"], ids_N: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        against = vocab.Teacher(negative.hidden(micro, row_N), negative.policy.head)
        seen = positive.hidden(micro, row_N), positive.policy.head, ids_N
        return vocab.contrast(*seen, against, beta=stage.ce_beta, plausible=stage.plausible)

    rows = _rows(stage.pairs, recipe)
    rejected = [row[1] for row in rows]
    rollouts = rejected if stage.only_rejected else [rollout for row in rows for rollout in row]
    values = measured(rollouts, measure, policies[0].device, recipe.learn.micro_batch_tokens)
    made_by = {
        "positive": models.fingerprint(chosen[0]),
        "negative": models.fingerprint(chosen[1]),
        "ce_beta": stage.ce_beta,
        "plausible": stage.plausible,
    }
    stored_evidence.write(
        directory / "ce_logscore.parquet", "ce_logscore", rollouts, values, made_by
    )
    of_rejected = values if stage.only_rejected else values[1::2]
    summary = scored(torch.tensor([value for numbers in of_rejected for value in numbers]))
    storage.replace_text(directory / SUMMARY, json.dumps(summary, indent=1) + "\n")
    logger.info(
        f"{stage.name}: " + ", ".join(f"{name} {value:.3g}" for name, value in summary.items())
    )


def log_ratio(stage: LogRatioStage, recipe: Recipe, directory: Path) -> None:
    """Write `log_ratio.parquet`, of both sides and unclipped, so that weights may change later."""
    chosen, policies = _two_models(stage, recipe)
    rollouts = [rollout for row in _rows(stage.pairs, recipe) for rollout in row]
    positive, negative = (
        logp(policy, rollouts, recipe.learn.micro_batch_tokens) for policy in policies
    )
    values = [
        [above - below for above, below in zip(*numbers, strict=True)]
        for numbers in zip(positive, negative, strict=True)
    ]
    made_by = {
        "positive": models.fingerprint(chosen[0]),
        "negative": models.fingerprint(chosen[1]),
    }
    stored_evidence.write(directory / "log_ratio.parquet", "log_ratio", rollouts, values, made_by)
    logger.info(f"{stage.name}: {len(values)} responses")


def _two_models(
    stage: ContrastStage | LogRatioStage, recipe: Recipe
) -> tuple[list[ModelSettings], list[Policy]]:
    """Settings and weights of the positive and the negative model, with the recipe's tokens."""
    local = replace(recipe.model, revision=None, trust_remote_code=False)
    chosen = [_plain(replace(local, path=path)) for path in (stage.positive, stage.negative)]
    policies = [models.load(settings, layout="padded") for settings in chosen]
    described = models.describe(recipe.model)
    for policy, role in zip(policies, ("positive model", "negative model"), strict=True):
        models.check_same_ids(described, policy, role)
    return chosen, policies


def check_contrast(stage: ContrastStage, directory: Path) -> None:
    """Raise RunError if nearly all weights would be one or zero; called at every use of scores."""
    summary: Stats = json.loads((directory / SUMMARY).read_text(encoding="utf-8"))
    weight = summary["ce_weight_mean"]
    low, high = stage.alarm
    if not low <= weight <= high:
        likely = (
            "the positive model is sure of nearly every token"
            if weight < low
            else "scores are near 0 everywhere"
        )
        raise RunError(
            f"{stage.name}: the mean weight of rejected tokens is {weight:.3g}, outside of "
            f"{low:g} to {high:g}: {likely}; look "
            f"at {directory}, tune the two models more gently or lower ce_beta, or widen "
            f"stages' `alarm`"
        )


def reference(stage: ReferenceStage, recipe: Recipe, directory: Path) -> None:
    """Write `ref_logp.parquet`, per token and unweighted, so that weights may change later."""
    settings = _plain(recipe.reference or recipe.model)
    rollouts = [rollout for row in _rows(stage.pairs, recipe) for rollout in row]
    values = logp(models.load(settings, layout="padded"), rollouts, recipe.learn.micro_batch_tokens)
    stored_evidence.write(
        directory / "ref_logp.parquet",
        "ref_logp",
        rollouts,
        values,
        {"model": models.fingerprint(settings)},
    )
    logger.info(f"{stage.name}: {len(values)} responses")


def _plain(settings: ModelSettings) -> ModelSettings:
    """The model without trainable adapters."""
    return replace(settings, lora=None, gradient_checkpointing=False)


def _rows(path: str, recipe: Recipe) -> list[tuple[Rollout, ...]]:
    """The pairs, encoded as the token ids that they will be trained on."""
    described = models.describe(recipe.model)
    encoder = encoder_of(described, recipe.prompt)
    return encode(PairTask(path=path).samples, encoder, described.context)[0]
