"""Validation of recipes: settings that are valid individually but cannot be used together.

All such rules are in this module. Each error is one line, `key: reason and remedy`; all errors of a
recipe are reported at once. Rules that need a loaded model, a GPU or a data file are checked where
these are loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import fields

from reasontrain.algo.advantages import NoAdvantage
from reasontrain.algo.correction import NoCorrection
from reasontrain.algo.custom_evidence import CustomEvidence
from reasontrain.algo.evidence import EVIDENCE, from_sources
from reasontrain.algo.objectives import (
    Distill,
    Objective,
    SampledDistill,
    SequenceObjective,
    SoftReinforce,
)
from reasontrain.algo.reward_shaping import KNOWN_NUMBERS, OneReward, WeightedRewards
from reasontrain.algo.rollout_filter import filters_of
from reasontrain.algo.rollout_filter.gfpo import Gfpo
from reasontrain.algo.rollout_filter.random import RandomRollouts
from reasontrain.algo.token_advantage import RolloutAdvantage
from reasontrain.algo.token_selection import (
    AdvantageEntropy,
    AllRollouts,
    ClipCov,
    MaxVariance,
    Paced,
    SelecTkd,
    Stapo,
    TokenSelection,
    unshuffled,
)
from reasontrain.data.prompts import PromptSettings
from reasontrain.data.sampling import Sampling
from reasontrain.data.thought import HardThought
from reasontrain.recipe.cluster import Cluster
from reasontrain.recipe.history import MovingAverage, StartWeights
from reasontrain.recipe.learning import LearnSettings, Muon
from reasontrain.recipe.sampling import SampleSettings
from reasontrain.recipe.settings import Recipe
from reasontrain.recipe.stage_references import reference_errors
from reasontrain.recipe.stages import SampleStage, TuneStage
from reasontrain.recipe.teachers import (
    ServedTeacher,
    StoredTeacher,
    TeacherByColumn,
    TeacherMixture,
    WeightsTeacher,
)
from reasontrain.tasks import OfflineTask, PairTask, Reward


def validation_errors(recipe: Recipe) -> list[str]:
    """All combinations of settings that cannot be used together, as `key: reason and remedy`."""
    errors = [
        *_evidence_errors(recipe),
        *_teacher_errors(recipe),
        *_sampled_distill_errors(recipe),
        *_update_errors(recipe),
        *_old_logp_errors(recipe),
        *_correction_errors(recipe),
        *_pair_errors(recipe),
        *reference_errors(recipe),
        *_reward_errors(recipe),
        *_solve_rate_errors(recipe),
        *_answer_format_errors(recipe),
        *_filter_errors(recipe),
        *_cluster_errors(recipe),
        *_sequence_parallel_errors(recipe),
        *_offload_errors(recipe),
        *_history_errors(recipe),
        *_evaluation_errors(recipe),
        *_environment_errors(recipe),
    ]
    if recipe.sample is not None:
        errors += _sampling_errors(recipe, recipe.sample)
    return errors


def custom_evidence_errors(recipe: Recipe) -> list[str]:
    """Errors of the names of evidence that plug-ins compute or read, as `key: reason and remedy`.

    All other rules look evidence up by its name, so they are checked after these.
    """
    known = {name for name, row in EVIDENCE.items() if row.source != "plugin"}
    errors = []
    for name, custom in recipe.custom_evidence.items():
        if name in known:
            errors.append(f"evidence.{name}: is the name of a built-in kind of evidence; rename it")
        elif not name.isidentifier():
            errors.append(f"evidence.{name}: is no name; use letters, digits and `_`")
        errors += _unknown_evidence(f"evidence.{name}", custom, known)
        known.add(name)
    errors += _unknown_evidence("token_selection", recipe.token_selection, known)
    errors += _unknown_evidence("objective", recipe.objective, known)
    return errors


def _unknown_evidence(
    key: str, reader: TokenSelection | Objective | CustomEvidence, known: set[str]
) -> Iterator[str]:
    if unknown := reader.required_evidence - known:
        yield (
            f"{key}: {reader.kind} requires the evidence {_names(unknown)}, which does not exist, "
            f"or stands below it in `evidence`; there is {_names(known)}"
        )


def image_errors(recipe: Recipe) -> list[str]:
    """Settings that image models do not support."""
    errors = []
    if recipe.learn.layout == "packed":
        errors.append("learn.layout: sequences with images cannot be packed; use `padded`")
    capabilities = recipe.engine.capabilities
    if not capabilities.images:
        errors.append(
            f"sample.engine: {capabilities.label} does not support images here; use `kind: local`"
        )
    if recipe.cluster is not None and recipe.cluster.teachers:
        errors.append(
            "cluster.teachers: a teacher in its own process does not receive images; set it to 0, "
            "and the learner ranks hold the teacher"
        )
    if isinstance(recipe.teacher, TeacherByColumn | TeacherMixture):
        errors.append("teacher.kind: several teachers see no images; use `kind: weights`")
    elif recipe.teacher is not None and recipe.teacher_model is None:
        errors.append(
            f"teacher.kind: a {recipe.teacher.kind} teacher is looked up by token ids and sees no "
            "image; use `kind: weights`"
        )
    if recipe.teacher is not None and recipe.teacher.prompt is not None:
        errors.append(
            "teacher.prompt: the prompts of student and teacher have the same image in other "
            "places; remove it"
        )
    if recipe.learn.sequence_parallel > 1:
        errors.append(
            "learn.sequence_parallel: sequences with images are not divided over ranks; use 1"
        )
    if "attention" in recipe.required_evidence:
        errors.append(
            "token_selection: the evidence `attention` is not implemented for image models; use a "
            "rule that does not need it"
        )
    return errors


def _evidence_errors(recipe: Recipe) -> Iterator[str]:
    """Evidence that nothing in the recipe provides."""
    required = recipe.required_evidence
    objective = recipe.objective
    if recipe.teacher is None:
        if objective.needs_teacher:
            yield f"teacher: the objective {objective.kind} needs a teacher; set `teacher.path`"
        elif divergences := from_sources(required - recipe.evidence.keys(), "teacher"):
            yield (
                f"teacher: the evidence {_names(divergences)} compares with a teacher; set "
                f"`teacher.path`"
            )
    if recipe.sample is None:
        if objective.score_at_sampling_temperature:
            yield f"sample: {objective.kind} learns from rollouts; add a `sample` section"
        elif reported := from_sources(required - recipe.evidence.keys(), "sampler"):
            yield (
                f"sample: the sampler reports the evidence {_names(reported)}; add a `sample` "
                f"section"
            )
    elif scored := from_sources(required, "unconditional"):
        yield (
            f"token_selection: {_names(scored)} is stored for demonstrations, and `sample` makes "
            f"new responses; remove one of them"
        )
    if absent := from_sources(required - recipe.evidence.keys(), "stored"):
        yield (
            f"token_selection: nothing in this recipe provides the evidence {_names(absent)}; name "
            f"its file in `evidence`"
        )
    known = {name for name, row in EVIDENCE.items() if row.source != "plugin"}
    if unknown := recipe.stored_evidence.keys() - known:
        yield f"evidence: {_names(unknown)} is unknown; the kinds of evidence are {_names(known)}"
    if unread := recipe.evidence.keys() & EVIDENCE.keys() - required:
        yield (
            f"evidence: neither {recipe.token_selection.kind} nor {objective.kind} reads "
            f"{_names(unread)}; remove it"
        )
    if computed := from_sources(recipe.evidence.keys() & required, "unconditional"):
        yield (
            f"evidence: {_names(computed)} is not read from a file, but made before the run by the "
            "model of `unconditional`; remove it"
        )
    if recipe.stored_evidence and (
        recipe.sample is not None or not isinstance(recipe.task, OfflineTask)
    ):
        yield (
            "evidence: stored evidence belongs to written responses; use a task of kind pairs or "
            "rollouts, without `sample`"
        )


_OF_SAMPLED = frozenset({"teacher_logp"})
"""Evidence of the teacher at the sampled token itself."""


def _teacher_errors(recipe: Recipe) -> Iterator[str]:
    """A teacher that cannot give what the recipe needs of it."""
    teacher = recipe.teacher
    if teacher is None:
        return
    limited = isinstance(teacher, StoredTeacher | ServedTeacher) or (
        isinstance(teacher, WeightsTeacher) and teacher.top_k is not None
    )
    measured = recipe.required_evidence - recipe.evidence.keys()
    if isinstance(teacher, ServedTeacher) and teacher.scores == "sampled":
        measured -= _OF_SAMPLED
    of_all = [name for name in measured if EVIDENCE[name].needs_all_ids]
    if of_all and limited:
        yield (
            f"teacher: the evidence {_names(of_all)} needs the teacher's probabilities of all ids; "
            f"use a teacher of kind weights with `top_k: null`, or a rule and an objective that do "
            f"not read it"
        )
    rule = unshuffled(recipe.token_selection)
    top_k = None if isinstance(teacher, TeacherByColumn | TeacherMixture) else teacher.top_k
    if isinstance(rule, SelecTkd) and top_k is not None and rule.top > top_k:
        yield (
            f"token_selection.top: {rule.kind} looks among the teacher's {rule.top} likeliest ids, "
            f"and it gives {top_k}; raise teacher.top_k, or lower `top`"
        )
    if isinstance(teacher, StoredTeacher) and recipe.sample is not None:
        yield (
            "teacher.kind: stored log-probs belong to written responses, and `sample` makes new "
            "ones; use `kind: weights` or `kind: served`, or remove `sample`"
        )
    if isinstance(teacher, ServedTeacher) and teacher.scores == "sampled":
        yield from _sampled_score_errors(recipe)
    if limited and recipe.temperature != 1:
        yield (
            f"teacher: log-probs of its likeliest ids are those at temperature 1, and "
            f"{recipe.objective.kind} compares at {recipe.temperature:g}; set sample.temperature "
            f"to 1, or use a teacher of kind weights with `top_k: null`"
        )


def _sampled_score_errors(recipe: Recipe) -> Iterator[str]:
    """Uses of a teacher that an estimate from the sampled token alone cannot serve."""
    if compared := from_sources(recipe.required_evidence, "teacher") - _OF_SAMPLED:
        yield (
            f"teacher.scores: {_names(compared)} is of the teacher's whole distribution, and "
            f"`sampled` gives the log-prob of one token; use `scores: top_k`, or a rule without it"
        )
    objective = recipe.objective
    if isinstance(objective, Distill) and objective.divergence != "reverse_kl":
        yield (
            f"teacher.scores: `sampled` estimates the reverse KL alone, and the objective is "
            f"{objective.divergence}; use objective.divergence=reverse_kl, or `scores: top_k`"
        )
    if not _draws_from_student(recipe):
        yield (
            "teacher.scores: `sampled` needs tokens drawn from the student's own distribution; add "
            "a `sample` section with temperature 1, without top_p, top_k and min_p, or use "
            "`scores: top_k`"
        )
    if recipe.learn.updates_per_batch > 1:
        yield (
            "teacher.scores: after the first update of a batch its tokens are no longer drawn from "
            "the student; use learn.updates_per_batch=1, or `scores: top_k`"
        )


def _sampled_distill_errors(recipe: Recipe) -> Iterator[str]:
    """Tokens over which the sampled-token objective does not have the gradient of a divergence."""
    if not isinstance(recipe.objective, SampledDistill):
        return
    if not _draws_from_student(recipe):
        yield (
            "objective: sampled_distill needs tokens drawn from the student's own distribution; "
            "add a `sample` section with temperature 1, without top_p, top_k and min_p, or use "
            "`kind: distill`"
        )
    if recipe.learn.updates_per_batch > 1:
        yield (
            "objective: after the first update of a batch, the tokens of sampled_distill are no "
            "longer drawn from the student; use learn.updates_per_batch=1, or `kind: distill`"
        )


def _draws_from_student(recipe: Recipe) -> bool:
    """True if tokens are drawn from the distribution that a divergence at temperature 1 is of."""
    sample = recipe.sample
    return (
        sample is not None
        and sample.temperature == 1
        and not sample.truncates
        and recipe.scores_as_sampled
    )


def _update_errors(recipe: Recipe) -> Iterator[str]:
    """Errors of the optimiser steps on each batch, and of their schedule."""
    learn = recipe.learn
    objective = recipe.objective
    optimizer_steps = recipe.steps * learn.updates_per_batch
    if learn.warmup_steps >= optimizer_steps:
        yield (
            f"learn.warmup_steps: {learn.warmup_steps} must be less than the {optimizer_steps} "
            f"{'steps' if learn.updates_per_batch == 1 else 'optimiser steps'} of the run"
        )
    if learn.updates_per_batch == 1:
        if learn.epochs_per_batch > 1:
            yield (
                f"learn.epochs_per_batch: {learn.epochs_per_batch} passes over a batch need as "
                f"many updates; set learn.updates_per_batch to a multiple of it"
            )
        return
    if learn.updates_per_batch % learn.epochs_per_batch:
        yield (
            f"learn.updates_per_batch: {learn.updates_per_batch} is not a multiple of "
            f"learn.epochs_per_batch {learn.epochs_per_batch}; every pass over a batch takes as "
            f"many updates"
        )
        return
    size = 2 if objective.granularity == "pair" else 1
    if learn.rollouts_per_step % (learn.mini_batches * size):
        unit = "pairs" if size == 2 else "rollouts"
        yield (
            f"learn.updates_per_batch: {learn.rollouts_per_step // size} {unit} of a step do not "
            f"divide into {learn.mini_batches} equal mini-batches"
        )
    if objective.score_at_sampling_temperature and "old_logp" not in objective.required_evidence:
        yield (
            f"learn.updates_per_batch: {objective.kind} is right only for rollouts of the weights "
            f"that it updates, and after the first update of a batch they are of older ones; use "
            f"grpo, gspo or cispo, whose ratio corrects for that, or one update"
        )
    if recipe.cluster is not None and recipe.cluster.overlap:
        yield (
            "cluster.overlap: rollouts sampled one step ahead are older still with several "
            "updates per batch; set learn.updates_per_batch to 1"
        )


def _old_logp_errors(recipe: Recipe) -> Iterator[str]:
    """Errors of the log-probs that an importance ratio divides by."""
    if recipe.learn.old_logp != "sampler":
        return
    if recipe.sample is not None and recipe.sample.truncates:
        yield (
            "learn.old_logp: with top_p, top_k or min_p the sampler draws from another "
            "distribution than its log-probs are of; use `learner`"
        )
    if recipe.sample is not None and not recipe.scores_as_sampled:
        yield (
            f"learn.old_logp: the sampler's log-probs are those at its temperature, and the policy "
            f"is scored at {recipe.temperature:g}; use `learner`"
        )
    if not isinstance(recipe.correction, NoCorrection):
        yield (
            "learn.old_logp: `correction` compares the learner's log-probs with the sampler's, and "
            "`sampler` takes the sampler's for both; use `learner`"
        )


def _correction_errors(recipe: Recipe) -> Iterator[str]:
    """A correction of the sampler's probabilities without a policy gradient to correct."""
    objective = recipe.objective
    if isinstance(recipe.correction, NoCorrection) or objective.score_at_sampling_temperature:
        return
    if objective.needs_teacher:
        reason = "recomputes its divergence under the current weights and divides by no sampler's"
    elif recipe.sample is None:
        reason = "learns from written responses, which have no sampler"
    else:
        reason = "is no policy gradient of rewards, whose advantages a correction multiplies"
    yield f"correction: {objective.kind} {reason}; remove the section"


def _pair_errors(recipe: Recipe) -> Iterator[str]:
    """Objectives of pairs without a task of pairs, and the reverse."""
    objective = recipe.objective
    needs_pairs = recipe.objective.granularity == "pair"
    if needs_pairs and (recipe.sample is not None or not isinstance(recipe.task, PairTask)):
        yield (
            f"objective: {objective.kind} compares the two sides of a pair; use `task: {{kind: "
            f"pairs}}`, without `sample`"
        )
    if not needs_pairs and recipe.sample is None and isinstance(recipe.task, PairTask):
        yield (
            f"task: {objective.kind} learns from single responses, and this task holds pairs; use "
            f"the objective dpo"
        )
    if needs_pairs and recipe.learn.rollouts_per_step % 2:
        yield (
            f"learn.rollouts_per_step: {recipe.learn.rollouts_per_step} is odd, and a pair is two "
            f"rollouts; use an even number"
        )
    contrasts = {"ce_logscore": "the rejected side", "log_ratio": "the sides"}
    for name in sorted(recipe.required_evidence & contrasts.keys()):
        if not needs_pairs:
            yield (
                f"token_selection: {recipe.token_selection.kind} weighs {contrasts[name]} of "
                f"pairs; use the objective dpo"
            )
    if recipe.loss_aggregation == "seq_mean_token_sum_norm" and recipe.sample is None:
        yield (
            "loss_aggregation: seq_mean_token_sum_norm divides by sample.max_tokens, and nothing "
            "is sampled; use seq_mean_token_sum"
        )
    if (recipe.loss_aggregation == "pair_mean") != needs_pairs:
        yield (
            f"loss_aggregation: {objective.kind} gives one loss per {objective.granularity}; "
            + ("use pair_mean" if needs_pairs else "pair_mean is for objectives of pairs")
        )


def _solve_rate_errors(recipe: Recipe) -> Iterator[str]:
    """A rule that weighs prompts by their solve rate, without groups to measure it."""
    rule = unshuffled(recipe.token_selection)
    if not isinstance(rule, Paced):
        return
    if recipe.sample is None:
        yield (
            f"token_selection: {rule.kind} measures how often sampled answers to a prompt are "
            "right; add a `sample` section"
        )
    elif recipe.sample.group_size < 2:
        yield (
            f"sample.group_size: {rule.kind} compares the answers to one prompt, and a single one "
            "is always or never right; use 2 or more"
        )
    if not isinstance(recipe.rollout_filter, AllRollouts):
        yield (
            f"rollout_filter: {rule.kind} measures how often the answers to a prompt are right, "
            f"and {recipe.rollout_filter.kind} leaves a part of them; use `kind: all`"
        )


def _answer_format_errors(recipe: Recipe) -> Iterator[str]:
    """Suites that set an answer format which their task does not read."""
    for suite in recipe.evaluate.suites if recipe.evaluate else ():
        task = suite.task or recipe.task
        has_format = "answer_format" in {setting.name for setting in fields(task)}
        if suite.answer_format is not None and not has_format:
            yield (
                f"evaluate: suite {suite.name} sets answer_format, which a task of kind "
                f"{task.kind} does not use; remove it"
            )


def _reward_errors(recipe: Recipe) -> Iterator[str]:
    """Rewards and advantages in recipes that do not sample or grade."""
    if recipe.sample is None and not isinstance(recipe.advantage, NoAdvantage):
        yield "advantage: demonstrations have no reward; remove it, or add a `sample` section"
    if recipe.sample is None:
        for key, usual in (("reward_combination", OneReward()), ("overlong", None)):
            if getattr(recipe, key) != usual:
                yield f"{key}: demonstrations have no reward; remove the section"
    elif recipe.overlong is not None and recipe.overlong.buffer >= recipe.sample.max_tokens:
        yield (
            f"overlong.buffer: {recipe.overlong.buffer} tokens before a limit of "
            f"sample.max_tokens {recipe.sample.max_tokens} would punish every response; use fewer"
        )
    yield from _combination_errors(recipe)
    if not isinstance(recipe.token_advantage, RolloutAdvantage) and isinstance(
        recipe.advantage, NoAdvantage
    ):
        yield f"token_advantage: {recipe.token_advantage.kind} {_ADVANTAGES_NEEDED}"
    by_verifier = (
        recipe.sample is not None
        and not recipe.task.has_own_reward
        and not recipe.sample.has_environment_reward
    )
    if recipe.reward != Reward() and not by_verifier:
        yield (
            "reward: these rewards are for sampled answers that the verifier grades; remove the "
            "section (a task of kind `python`, or an environment, returns its own rewards)"
        )


def _combination_errors(recipe: Recipe) -> Iterator[str]:
    """Numbers that a combination of rewards names, and that no task of this kind has."""
    combination = recipe.reward_combination
    by_environment = recipe.sample is not None and recipe.sample.has_environment_reward
    own_reward = recipe.task.has_own_reward and not by_environment
    if isinstance(combination, OneReward) or own_reward:
        return
    names = (
        set(combination.weights)
        if isinstance(combination, WeightedRewards)
        else {name.removeprefix("-") for name in combination.order}
    )
    unknown = names - KNOWN_NUMBERS
    if unknown:
        source = "an environment" if by_environment else f"a task of kind {recipe.task.kind}"
        yield (
            f"reward_combination: {source} has no {_names(unknown)}; it has "
            f"{_names(KNOWN_NUMBERS)}, and a function of your own (a task of kind `python`) may "
            f"return more"
        )


def _sampling_errors(recipe: Recipe, sample: SampleSettings) -> Iterator[str]:
    """Errors of the group size, temperature and advantages of rollouts."""
    objective = recipe.objective
    size = sample.group_size
    if recipe.learn.rollouts_per_step % size:
        yield (
            f"learn.rollouts_per_step: {recipe.learn.rollouts_per_step} is not a multiple of "
            f"sample.group_size {size}"
        )
    if sample.temperature == 0 and objective.score_at_sampling_temperature:
        yield (
            f"sample.temperature: {objective.kind} needs random rollouts, and temperature 0 is "
            f"greedy; use a positive temperature"
        )
    if not isinstance(recipe.advantage, NoAdvantage) and size == 1:
        yield (
            f"sample.group_size: {recipe.advantage.kind} compares the rollouts of a group; use 2 "
            f"or more"
        )
    if sample.refill_rounds and isinstance(recipe.advantage, NoAdvantage):
        yield (
            "sample.refill_rounds: replaces groups of equal rewards, which matter to advantages "
            "alone; set it to 0, or set `advantage.kind`"
        )
    if sample.refill_rounds and recipe.cluster is not None and recipe.cluster.overlap:
        yield (
            "sample.refill_rounds: the groups of a step are known when it is sampled, and "
            "`cluster.overlap` samples the next one meanwhile; set one of them to 0"
        )
    if objective.score_at_sampling_temperature and isinstance(recipe.advantage, NoAdvantage):
        yield f"advantage: {objective.kind} learns from advantages; set `advantage.kind`"
    yield from _thought_errors(recipe, sample)
    yield from _engine_errors(recipe, sample)


def _thought_errors(recipe: Recipe, sample: SampleSettings) -> Iterator[str]:
    """Objectives and evidence that a separate chain of thought does not support."""
    objective = recipe.objective
    thought = sample.thought
    if thought is None:
        return
    if isinstance(thought, HardThought):
        if thought.tau != sample.temperature and objective.score_at_sampling_temperature:
            yield (
                f"sample.thought.tau: {objective.kind} scores thought and answer at one "
                f"temperature; tau {thought.tau:g} must equal sample.temperature "
                f"{sample.temperature:g}"
            )
        return
    if not isinstance(objective, SoftReinforce):
        yield (
            f"objective: {objective.kind} needs tokens, and a {thought.kind} thought has none; use "
            f"soft_reinforce, or thought.kind=hard"
        )
    if thought.gamma == 0:
        yield (
            "sample.thought.gamma: a step without noise has no probability to learn from; use a "
            "value above 0"
        )
    per_token = {name for name in recipe.required_evidence if not EVIDENCE[name].soft}
    shaping = recipe.token_advantage
    selection = recipe.token_selection
    correction = recipe.correction
    readers = (
        ("token_selection", selection.kind, selection.required_evidence),
        ("objective", objective.kind, objective.required_evidence),
        ("token_advantage", shaping.kind, shaping.required_evidence),
        ("correction", correction.kind, correction.required_evidence),
    )
    for key, kind, evidence in readers:
        if needed := per_token & evidence:
            yield (
                f"{key}: `{kind}` needs {_names(needed)}, which "
                f"{'is' if len(needed) == 1 else 'are'} defined per token; {thought.kind} thoughts "
                f"have no tokens. Use one without it, or thought.kind=hard."
            )


def _engine_errors(recipe: Recipe, sample: SampleSettings) -> Iterator[str]:
    """Settings that the sampler engine does not support."""
    engine = sample.engine
    capabilities = engine.capabilities
    label = capabilities.label
    suites = recipe.evaluate.suites if recipe.evaluate else ()
    thinks = sample.thought is not None or any(suite.sampling.thought for suite in suites)
    if thinks and not capabilities.thoughts:
        yield (
            f"sample.engine: a `thought` needs forced tokens and embeddings as input, which "
            f"{label} does not support; use `kind: local`"
        )
    if (recipe.cluster is None or not recipe.cluster.samplers) and engine.num_gpus > 1:
        yield (
            f"sample.engine.tensor_parallel_size: a learner rank shares its one GPU, and "
            f"{engine.num_gpus} are needed; set `cluster.samplers`"
        )
    if reason := engine.unsupported_temperature(sample):
        yield f"sample.temperature: {reason}"
    reported = from_sources(recipe.required_evidence, "sampler")
    truncates = sample.truncates and sample.temperature
    if reported and truncates and not capabilities.sampled_logp_under_truncation:
        yield (
            f"token_selection: {_names(reported)} is taken before truncation, and {label} reports "
            "it only if top_p, top_k and min_p are off"
        )


def _filter_errors(recipe: Recipe) -> Iterator[str]:
    """Rules that need advantages, and rollout filters that keep too few rollouts."""
    rollout_filter = recipe.rollout_filter
    token_selection = unshuffled(recipe.token_selection)
    widest = [one for one in filters_of(rollout_filter) if isinstance(one, MaxVariance | Gfpo)]
    if isinstance(recipe.advantage, NoAdvantage):
        if widest:
            yield f"rollout_filter: {widest[0].kind} {_ADVANTAGES_NEEDED}"
        if isinstance(token_selection, AdvantageEntropy | Stapo | ClipCov):
            yield f"token_selection: {token_selection.kind} {_ADVANTAGES_NEEDED}"
    if recipe.objective.granularity == "pair" and not isinstance(rollout_filter, AllRollouts):
        yield (
            f"rollout_filter: {rollout_filter.kind} drops single rollouts and would separate the "
            f"two sides of a pair; use `kind: all`"
        )
    yield from _few_kept_errors(recipe)
    share = 1.0  # of the rollouts that earlier filters of a chain leave
    for one in filters_of(rollout_filter):
        if isinstance(one, MaxVariance | Gfpo) and one.renormalise and recipe.sample is not None:
            size = share * (
                recipe.sample.group_size if one.scope == "group" else recipe.learn.rollouts_per_step
            )
            least = one.keep_ratio.least
            if least * size < 2:
                yield (
                    f"rollout_filter.keep_ratio: {least:g} of {size:g} rollouts keeps one of a "
                    f"{one.scope}, and `renormalise` compares at least two; use "
                    f"{min(2 / size, 1):g} or more"
                )
        share *= min(one.kept_share(0.0), one.kept_share(1.0))


def _few_kept_errors(recipe: Recipe) -> Iterator[str]:
    """A filter that leaves mini-batches without rollouts."""
    learn = recipe.learn
    sampled = learn.rollouts_per_step
    size = recipe.sample.group_size if recipe.sample is not None else 1
    groups = sampled // size if sampled % size == 0 else 1  # another division is refused by itself
    kept = sampled
    for one in filters_of(recipe.rollout_filter):
        if not isinstance(one, MaxVariance | RandomRollouts | Gfpo):
            continue
        pools = groups if one.scope == "group" else 1
        kept = pools * max(1, math.floor(one.keep_ratio.least * (kept / pools) + 1e-6))
    if kept < learn.mini_batches:
        yield (
            f"rollout_filter.keep_ratio: {kept} of the {sampled} rollouts of a step are kept, "
            f"fewer than its {learn.mini_batches} mini-batches; keep more, or lower "
            f"learn.updates_per_batch"
        )


_ADVANTAGES_NEEDED = "compares advantages; add a `sample` section and set `advantage.kind`"


def _cluster_errors(recipe: Recipe) -> Iterator[str]:
    """Errors of ranks, processes and ZeRO."""
    learn = recipe.learn
    cluster = recipe.cluster
    if cluster is None:
        if learn.zero is not None:
            yield (
                "learn.zero: DeepSpeed runs in the learner ranks of a cluster; add a `cluster` "
                "section"
            )
        return
    if cluster.learners > 1 and learn.zero is None:
        yield (
            f"learn.zero: {cluster.learners} learner ranks share their work through DeepSpeed; set "
            f"`learn.zero.stage`"
        )
    if learn.zero is not None and isinstance(learn.optimizer, Muon):
        yield (
            "learn.optimizer: Muon needs whole matrices, and ZeRO divides them over the ranks; use "
            "adamw"
        )
    if cluster.teachers and recipe.teacher is None:
        yield "cluster.teachers: the recipe has no `teacher`; set it to 0, or set `teacher.path`"
    elif cluster.teachers and recipe.teacher_model is None:
        yield "cluster.teachers: only a teacher of kind weights has processes; set it to 0"
    if cluster.gpus_per_process < 1 and (cluster.learners > 1 or recipe.engine.num_gpus > 1):
        yield (
            "cluster.gpus_per_process: learner ranks, and the GPUs of an engine, are connected by "
            "NCCL, which needs a whole GPU for each; use 1, or `cluster.learners: 1` and "
            "`tensor_parallel_size: 1`"
        )
    if cluster.overlap:
        yield from _overlap_errors(recipe, cluster)


def _sequence_parallel_errors(recipe: Recipe) -> Iterator[str]:
    """Settings that ranks which share sequences do not support: each sees a part of every one."""
    learners = recipe.cluster.learners if recipe.cluster is not None else 1
    for key, learn in _learning(recipe):
        if learners % learn.sequence_parallel:
            yield (
                f"{key}.sequence_parallel: {learners} learner ranks do not divide into groups of "
                f"{learn.sequence_parallel} that share sequences; set `cluster.learners` to a "
                f"multiple of {learn.sequence_parallel}"
            )
    size = recipe.learn.sequence_parallel
    if size == 1:
        return
    if recipe.teacher_model is not None and recipe.teacher_model.prompt is not None:
        yield (
            "learn.sequence_parallel: the teacher's prompt moves the response to other ranks than "
            "the student's; remove `teacher.prompt`, or use 1"
        )
    if isinstance(recipe.teacher, TeacherByColumn | TeacherMixture):
        yield (
            "learn.sequence_parallel: ranks do not share the sequences of several teachers; use "
            "`teacher.kind: weights`, or 1"
        )
    elif recipe.teacher is not None and recipe.teacher_model is None:
        yield (
            f"learn.sequence_parallel: a {recipe.teacher.kind} teacher is read for whole "
            "responses, of which each rank has a part; use `teacher.kind: weights`, or 1"
        )
    objective = recipe.objective
    if isinstance(objective, SequenceObjective):
        yield (
            f"learn.sequence_parallel: {objective.kind} sums log-probs over whole responses, of "
            f"which each rank has a part; use an objective of tokens, such as grpo, or 1"
        )
    if "attention" in recipe.required_evidence:
        yield (
            "learn.sequence_parallel: the evidence `attention` compares a token with its whole "
            "sequence, of which each rank has a part; use a rule that does not need it, or 1"
        )
    thought = recipe.sample.thought if recipe.sample is not None else None
    if thought is not None and not isinstance(thought, HardThought):
        yield (
            f"learn.sequence_parallel: the embeddings of {thought.kind} thoughts are not divided "
            f"over ranks; use `thought.kind: hard`, or 1"
        )
    models = {"model": recipe.model, **recipe.other_models}
    for key, settings in models.items():
        if settings.attention not in ("auto", "varlen"):
            yield (
                f"{key}.attention: {settings.attention} would attend to the columns of one rank "
                f"only, with learn.sequence_parallel {size}; use auto"
            )


def _offload_errors(recipe: Recipe) -> Iterator[str]:
    """Activations in main memory without gradient checkpointing, which decides which they are."""
    if recipe.model.gradient_checkpointing:
        return
    for key, learn in _learning(recipe):
        if learn.activation_offload:
            yield (
                f"{key}.activation_offload: moves the inputs of layers, and without gradient "
                f"checkpointing everything inside them is saved too; set "
                f"`model.gradient_checkpointing: true`"
            )


def _learning(recipe: Recipe) -> list[tuple[str, LearnSettings]]:
    """The settings of learning of the run and of its stages, with their keys."""
    tuned = [
        (f"stages.{number}.learn", stage.learn)
        for number, stage in enumerate(recipe.stages)
        if isinstance(stage, TuneStage)
    ]
    return [("learn", recipe.learn), *tuned]


def _overlap_errors(recipe: Recipe, cluster: Cluster) -> Iterator[str]:
    """Settings that sampling one step ahead does not support.

    It needs separate sampler processes, and a loss that corrects for the older weights.
    """
    if not cluster.samplers or recipe.sample is None:
        yield "cluster.overlap: sampling ahead needs its own processes; set `cluster.samplers`"
    if "old_logp" not in recipe.loss_evidence:
        yield (
            f"cluster.overlap: {recipe.objective.kind} has no importance ratio, which corrects for "
            f"rollouts of older weights; use grpo, gspo or cispo, or set `correction.kind`"
        )
    several = recipe.learn.updates_per_batch > 1  # refused by itself
    corrected = not isinstance(recipe.correction, NoCorrection)
    if recipe.sample is not None and not (recipe.reuses_sampled_logp or several or corrected):
        yield (
            "cluster.overlap: the importance ratio needs the sampler's own log-probs; use "
            "`learn.old_logp: auto`, without top_p, top_k and min_p, or set `correction.kind`"
        )


def _history_errors(recipe: Recipe) -> Iterator[str]:
    """Errors of the history model and of the attention kernel."""
    zero = recipe.learn.zero
    if not from_sources(recipe.required_evidence, "history") and not isinstance(
        recipe.history, StartWeights
    ):
        yield (
            f"history: neither {recipe.token_selection.kind} nor {recipe.objective.kind} compares "
            f"with an earlier model; remove the section"
        )
    if isinstance(recipe.history, MovingAverage) and zero is not None and zero.frozen == "sharded":
        yield (
            "history: every rank holds the whole moving average; set `learn.zero.frozen: whole`, "
            "or use `kind: start`"
        )
    if "attention" in recipe.required_evidence and recipe.model.attention == "eager":
        yield (
            "model.attention: the evidence `attention` needs a fused kernel, which eager is not; "
            "use sdpa or flash_attention_2"
        )


def _evaluation_errors(recipe: Recipe) -> Iterator[str]:
    """Duplicate names of suites, and a best checkpoint without an evaluation to choose it."""
    names = [suite.name for suite in recipe.evaluate.suites] if recipe.evaluate else []
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"evaluate.suites: two suites are named {name!r}"
    best = recipe.checkpoint.best
    if best is None:
        return
    if best not in names:
        yield (
            f"checkpoint.best: `evaluate` has no suite named {best!r}; its suites are "
            f"{', '.join(names) or 'none'}"
        )
    elif not (recipe.checkpoint.every and recipe.evaluate and recipe.evaluate.every):
        yield (
            "checkpoint.best: the best checkpoint is chosen among steps that are both saved and "
            "evaluated; set `checkpoint.every` and `evaluate.every`"
        )


def _environment_errors(recipe: Recipe) -> Iterator[str]:
    """Environments in stages, and turns of a template in prompts without one."""
    for number, stage in enumerate(recipe.stages):
        if isinstance(stage, SampleStage) and stage.sample.environment is not None:
            yield (
                f"stages.{number}.sample.environment: a stage writes responses of one turn; remove "
                "it"
            )
    placed: list[tuple[str, Sampling, PromptSettings]] = []
    if recipe.sample is not None:
        placed.append(("sample.environment", recipe.sample, recipe.prompt))
    for number, suite in enumerate(recipe.evaluate.suites if recipe.evaluate else ()):
        key = f"evaluate.suites.{number}.sampling.environment"
        placed.append((key, suite.sampling, suite.prompt or recipe.prompt))
    for key, sampling, prompt in placed:
        environment = sampling.environment
        if environment is None or environment.role == "inline":
            continue
        if prompt.style == "plain":
            yield (
                f"{key}.role: `{environment.role}` is a turn of a chat template, and prompts are "
                "plain; use `role: inline`"
            )


def _names(names: Iterable[str]) -> str:
    """The names in alphabetical order, separated by commas."""
    return ", ".join(sorted(names))
