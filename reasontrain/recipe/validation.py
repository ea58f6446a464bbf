"""Settings that are right one by one and cannot go together."""

from __future__ import annotations

from reasontrain.algo.advantages import NoAdvantage
from reasontrain.algo.evidence import EVIDENCE, from_sources
from reasontrain.algo.objectives import SoftReinforce
from reasontrain.algo.token_selection import (
    AdvantageEntropy,
    AllRollouts,
    MaxVariance,
    ShuffledWeights,
)
from reasontrain.data.thought import HardThought
from reasontrain.recipe.cluster import Cluster
from reasontrain.recipe.history import MovingAverage, StartWeights
from reasontrain.recipe.learning import Muon
from reasontrain.recipe.sampling import SampleSettings
from reasontrain.recipe.settings import Recipe
from reasontrain.recipe.stage_references import faults
from reasontrain.tasks import OfflineTask, PairTask, Reward


def contradictions(recipe: Recipe) -> list[str]:
    """Every pair of settings that cannot go together, as `key: why`."""
    found = []
    if (
        recipe.objective.teacher or from_sources(recipe.required_evidence, "teacher")
    ) and recipe.teacher is None:
        found.append(
            "teacher: the objective or the selection rule compares with a teacher; give its `path`"
        )
    if recipe.sample is None and (
        recipe.objective.score_at_sampling_temperature
        or from_sources(recipe.required_evidence, "sampler")
    ):
        found.append(
            f"sample: {recipe.objective.kind} learns from rollouts; say how to sample them"
        )
    if recipe.sample is None and not isinstance(recipe.advantage, NoAdvantage):
        found.append("advantage: demonstrations earn no reward; leave it out or sample rollouts")
    if recipe.sample is not None:
        found += _sampling_contradictions(recipe, recipe.sample)
    unconditional = from_sources(recipe.required_evidence, "unconditional")
    if recipe.sample is not None and unconditional:
        found.append(
            f"token_selection: {', '.join(sorted(unconditional))} is stored for demonstrations, and "
            f"`sample` makes new responses; leave one of them out"
        )
    absent = from_sources(recipe.required_evidence - recipe.evidence.keys(), "stored")
    if absent:
        found.append(
            f"token_selection: nothing in this recipe can provide the evidence "
            f"{', '.join(sorted(absent))}"
        )
    found += _update_contradictions(recipe)
    found += _pair_contradictions(recipe)
    found += faults(recipe)
    if (recipe.loss_aggregation == "pair_mean") != (recipe.objective.granularity == "pair"):
        found.append(
            f"loss_aggregation: {recipe.loss_aggregation} is not for "
            f"{recipe.objective.kind}; pair_mean is for losses of pairs, and only it"
        )
    if recipe.reward != Reward() and (recipe.sample is None or recipe.task.has_own_reward):
        found.append(
            "reward: it is given to answers that are sampled and verified; a task of kind "
            "`python` says its own"
        )
    found += (
        _dropping_contradictions(recipe)
        + _scale_contradictions(recipe)
        + _history_contradictions(recipe)
    )
    names = [suite.name for suite in recipe.evaluate.suites] if recipe.evaluate else []
    found += [
        f"evaluate.suites: two suites are called {name!r}"
        for name in sorted({n for n in names if names.count(n) > 1})
    ]
    best = recipe.checkpoint.best
    if best is not None and best not in names:
        found.append(
            f"checkpoint.best: no suite of `evaluate` is called {best!r}; there is "
            f"{', '.join(names) or 'none'}"
        )
    elif best is not None and not (
        recipe.checkpoint.every and recipe.evaluate and recipe.evaluate.every
    ):
        found.append(
            "checkpoint.best: which one is best is known where steps are both saved and "
            "measured; set `every` of both"
        )
    return found


def _update_contradictions(recipe: Recipe) -> list[str]:
    """Contradictions of the optimiser steps on each batch, and of their schedule."""
    found, learn, objective = [], recipe.learn, recipe.objective
    optimizer_steps = recipe.steps * learn.updates_per_batch
    if learn.warmup_steps >= optimizer_steps:
        found.append(
            f"learn.warmup_steps: {learn.warmup_steps} is not below the {optimizer_steps} "
            f"{'steps' if learn.updates_per_batch == 1 else 'optimiser steps'} of the run"
        )
    if learn.updates_per_batch == 1:
        if learn.epochs_per_batch > 1:
            found.append(
                f"learn.epochs_per_batch: {learn.epochs_per_batch} passes over a batch need as "
                f"many updates; set learn.updates_per_batch to a multiple of it"
            )
        return found
    if learn.updates_per_batch % learn.epochs_per_batch:
        found.append(
            f"learn.updates_per_batch: {learn.updates_per_batch} is no multiple of "
            f"learn.epochs_per_batch {learn.epochs_per_batch}; every pass over a batch takes as "
            f"many updates"
        )
        return found
    size = 2 if objective.granularity == "pair" else 1
    if learn.rollouts_per_step % (learn.mini_batches * size):
        unit = "pairs" if size == 2 else "rollouts"
        found.append(
            f"learn.updates_per_batch: {learn.rollouts_per_step // size} {unit} of a step do not "
            f"divide into {learn.mini_batches} equal mini-batches"
        )
    if objective.score_at_sampling_temperature and "old_logp" not in objective.required_evidence:
        found.append(
            f"learn.updates_per_batch: {objective.kind} is right only for rollouts of the weights "
            f"that it updates, and after the first update of a batch they are of older ones; use "
            f"grpo or gspo, whose ratio corrects for that, or one update"
        )
    if recipe.cluster is not None and recipe.cluster.overlap:
        found.append(
            "cluster.overlap: rollouts sampled one step ahead are older still with several "
            "updates per batch; set learn.updates_per_batch to 1"
        )
    return found


def _pair_contradictions(recipe: Recipe) -> list[str]:
    """Those that concern pairs, and columns that were stored for them."""
    found, compares = [], recipe.objective.granularity == "pair"
    if compares and (recipe.sample is not None or not isinstance(recipe.task, PairTask)):
        found.append(
            f"objective: {recipe.objective.kind} compares pairs; take them from `task: "
            f"{{kind: pairs}}`, without `sample`"
        )
    if not compares and recipe.sample is None and isinstance(recipe.task, PairTask):
        found.append(
            f"task: {recipe.objective.kind} learns from single responses, and these are "
            f"pairs; use the objective dpo"
        )
    if compares and recipe.learn.rollouts_per_step % 2:
        found.append(
            f"learn.rollouts_per_step: {recipe.learn.rollouts_per_step} is odd, and a pair "
            f"is two rollouts"
        )
    if "ce_logscore" in recipe.required_evidence and not compares:
        found.append(
            "token_selection: contrastive scores weigh the rejected side of pairs; use the "
            "objective dpo"
        )
    if unknown := sorted(recipe.evidence.keys() - EVIDENCE.keys()):
        found.append(
            f"evidence: there is no evidence called {', '.join(unknown)} (there is: "
            f"{', '.join(sorted(EVIDENCE))})"
        )
    if recipe.evidence and (recipe.sample is not None or not isinstance(recipe.task, OfflineTask)):
        found.append(
            "evidence: stored columns are of written responses; use a task of kind pairs "
            "or rollouts without `sample`"
        )
    return found


def _sampling_contradictions(recipe: Recipe, sample: SampleSettings) -> list[str]:
    """Those that concern on-policy sampling."""
    found = []
    if recipe.learn.rollouts_per_step % sample.group_size:
        found.append(
            f"learn.rollouts_per_step: {recipe.learn.rollouts_per_step} is no multiple of "
            f"sample.group_size {sample.group_size}"
        )
    if sample.temperature == 0 and recipe.objective.score_at_sampling_temperature:
        found.append(
            f"sample.temperature: {recipe.objective.kind} needs a distribution to learn "
            f"from, and 0 is greedy"
        )
    if not isinstance(recipe.advantage, NoAdvantage) and sample.group_size == 1:
        found.append(
            f"sample.group_size: {recipe.advantage.kind} compares the rollouts of a group, "
            f"and 1 has nobody to compare with"
        )
    if recipe.objective.score_at_sampling_temperature and isinstance(recipe.advantage, NoAdvantage):
        found.append(
            f"advantage: {recipe.objective.kind} learns from advantages; choose how "
            f"rewards become credit"
        )
    found += _thought_contradictions(recipe, sample)
    return found + _engine_contradictions(recipe, sample)


def _dropping_contradictions(recipe: Recipe) -> list[str]:
    """Those that concern rules which look at advantages, or drop whole rollouts."""
    found, rollout_filter = [], recipe.rollout_filter
    token_selection = (
        recipe.token_selection.of
        if isinstance(recipe.token_selection, ShuffledWeights)
        else recipe.token_selection
    )
    readers = {
        "rollout_filter": isinstance(rollout_filter, MaxVariance),
        "token_selection": isinstance(token_selection, AdvantageEntropy),
    }
    if isinstance(recipe.advantage, NoAdvantage):
        kinds = {"rollout_filter": rollout_filter.kind, "token_selection": token_selection.kind}
        found += [
            f"{key}: {kinds[key]} compares advantages; sample rollouts and choose how "
            f"their rewards become `advantage`"
            for key, reads in readers.items()
            if reads
        ]
    if recipe.objective.granularity == "pair" and not isinstance(rollout_filter, AllRollouts):
        found.append(
            f"rollout_filter: {rollout_filter.kind} drops rollouts one by one, and would "
            f"part the two sides of a pair"
        )
    if (
        isinstance(rollout_filter, MaxVariance)
        and rollout_filter.renormalise
        and recipe.sample is not None
    ):
        size = (
            recipe.sample.group_size
            if rollout_filter.scope == "group"
            else recipe.learn.rollouts_per_step
        )
        if rollout_filter.keep_ratio.least * size < 2:
            found.append(
                f"rollout_filter.keep_ratio: {rollout_filter.keep_ratio.least:g} of {size} "
                f"rollouts leaves one of a {rollout_filter.scope}, and `renormalise` compares "
                f"those that are left; {2 / size:g} or more leaves two"
            )
    return found


def _thought_contradictions(recipe: Recipe, sample: SampleSettings) -> list[str]:
    """What a chain of thought of its own asks for."""
    found, thought = [], sample.thought
    if thought is None:
        return []
    if isinstance(thought, HardThought):
        if thought.tau != sample.temperature and recipe.objective.score_at_sampling_temperature:
            found.append(
                f"sample.thought.tau: {recipe.objective.kind} scores thought and answer at "
                f"one temperature, and they are drawn "
                f"at {thought.tau:g} and {sample.temperature:g}; set both alike"
            )
        return found
    if not isinstance(recipe.objective, SoftReinforce):
        found.append(
            f"objective: {recipe.objective.kind} learns from tokens, and the steps of a "
            f"{thought.kind} thought are none; "
            "use soft_reinforce"
        )
    if thought.gamma == 0:
        found.append(
            "sample.thought.gamma: without noise a soft step has no probability to learn "
            "from; give it more than 0"
        )
    wrong = {name for name in recipe.required_evidence if not EVIDENCE[name].soft}
    if wrong:
        found.append(
            f"token_selection: {', '.join(sorted(wrong))} is of tokens, and the steps of a "
            f"{thought.kind} thought are none"
        )
    return found


def _engine_contradictions(recipe: Recipe, sample: SampleSettings) -> list[str]:
    """Settings that the sampler engine does not support."""
    errors = []
    engine, capabilities = sample.engine, sample.engine.capabilities
    label = capabilities.label
    suites = recipe.evaluate.suites if recipe.evaluate else ()
    thinks = sample.thought is not None or any(suite.sampling.thought for suite in suites)
    if thinks and not capabilities.thoughts:
        errors.append(
            f"sample.engine: a `thought` needs forced tokens and embeddings as input, which "
            f"{label} does not support; use `kind: local`"
        )
    if recipe.model.device == "cpu" and capabilities.needs_gpu:
        errors.append(
            f"sample.engine: {label} needs GPUs, and model.device is cpu; use `kind: local`"
        )
    if recipe.cluster is None and not capabilities.shares_policy:
        errors.append(
            f"sample.engine: {label} trains only in a cluster; add a `cluster` section, or use "
            "`kind: local`"
        )
    if recipe.cluster is not None and not recipe.cluster.samplers and engine.num_gpus > 1:
        errors.append(
            f"sample.engine.tensor_parallel_size: a learner rank has one GPU to share, not "
            f"{engine.num_gpus}; set `cluster.samplers`"
        )
    if reason := engine.unsupported_temperature(sample):
        errors.append(f"sample.temperature: {reason}")
    if (
        sample.truncates
        and sample.temperature
        and not capabilities.sampled_logp_under_truncation
        and "sampled_logp" in recipe.required_evidence
    ):
        errors.append(
            f"token_selection: sampled_logp is taken before truncation, and {label} reports it "
            "only if top_p, top_k and min_p are off"
        )
    return errors


def _scale_contradictions(recipe: Recipe) -> list[str]:
    """Those that concern ranks and processes."""
    found, learn, cluster = [], recipe.learn, recipe.cluster
    if cluster is None:
        return (
            [
                "learn.zero: DeepSpeed runs in the learner ranks of a cluster; add a "
                "`cluster` section"
            ]
            if learn.zero
            else []
        )
    if cluster.learners > 1 and learn.zero is None:
        found.append(
            f"learn.zero: {cluster.learners} learner ranks share their work by DeepSpeed; "
            f"say `learn.zero.stage`"
        )
    if learn.zero is not None and isinstance(learn.optimizer, Muon):
        found.append(
            "learn.optimizer: Muon orthogonalises whole matrices, and ZeRO keeps pieces of "
            "them; use adamw"
        )
    if cluster.teachers and recipe.teacher is None:
        found.append("cluster.teachers: this recipe has no `teacher`")
    if cluster.overlap:
        found += _overlap_contradictions(recipe, cluster)
    return found


def _history_contradictions(recipe: Recipe) -> list[str]:
    """Those that concern an earlier version of the model, and its attention."""
    found, zero = [], recipe.learn.zero
    if "history_logp" not in recipe.required_evidence and not isinstance(
        recipe.history, StartWeights
    ):
        found.append(
            f"history: neither {recipe.token_selection.kind} nor {recipe.objective.kind} "
            f"compares with an earlier model; leave it out"
        )
    if isinstance(recipe.history, MovingAverage) and zero is not None and zero.frozen == "sharded":
        found.append(
            "history: a moving average lies whole on every rank; set learn.zero.frozen to "
            "whole, or take `kind: start`"
        )
    if "attention" in recipe.required_evidence and recipe.model.attention == "eager":
        found.append(
            "model.attention: the evidence `attention` needs a fused attention kernel, "
            "and eager is none; use sdpa or "
            "flash_attention_2"
        )
    return found


def _overlap_contradictions(recipe: Recipe, cluster: Cluster) -> list[str]:
    """What sampling one step ahead asks for: samplers of their own, and a loss that corrects for
    the older weights.
    """
    found = []
    if not cluster.samplers or recipe.sample is None:
        found.append(
            "cluster.overlap: sampling ahead needs processes of its own; set `cluster.samplers`"
        )
    if "old_logp" not in recipe.objective.required_evidence:
        found.append(
            f"cluster.overlap: {recipe.objective.kind} has no importance ratio to correct "
            f"for rollouts of older weights"
        )
    if recipe.learn.old_logp != "auto" or (recipe.sample is not None and recipe.sample.truncates):
        found.append(
            "cluster.overlap: the ratio must be to the sampler's own log-probs: `old_logp: "
            "auto` and no truncation"
        )
    return found
