"""The step of reasontrain as a contestant.

It has the phases of the training loop, in the same order, with the learner and the sampler that
runs use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from reasontrain.algo.advantages import NoAdvantage
from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS, LossAggregation
from reasontrain.algo.objectives import Objective
from reasontrain.algo.token_selection import AllRollouts, AllTokens, RolloutFilter, TokenSelection
from reasontrain.bench.case import Numbers, Work
from reasontrain.bench.workload import LEARNING_RATE, StepWorkload
from reasontrain.data.collate import collate
from reasontrain.data.micro_batches import Layout
from reasontrain.data.sampling import Sampling
from reasontrain.learner import Learner
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.history import FrozenHistory, History
from reasontrain.learner.policy_learner import PolicyLearner
from reasontrain.learner.policy_module import UnshardedModel
from reasontrain.recipe import LearnSettings
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.stop_criteria import StopCriteria
from reasontrain.sampler.token_decoding import TokenDecoding
from reasontrain.types import Batch, Stats


@dataclass(frozen=True)
class BenchMethod:
    """A training method: objective, aggregation, and the choice of rollouts and tokens."""

    objective: Objective
    loss_aggregation: LossAggregation
    token_selection: TokenSelection = field(default_factory=AllTokens)
    rollout_filter: RolloutFilter = field(default_factory=AllRollouts)

    @property
    def required_evidence(self) -> frozenset[str]:
        """The evidence that token selection and objective read."""
        return self.token_selection.required_evidence | self.objective.required_evidence

    def learn(self, learner: Learner, batch: Batch) -> Stats:
        """Filter rollouts, observe missing evidence, select tokens and take an optimiser step.

        These are the phases of the loop that follow the advantages.
        """
        batch = self.rollout_filter(batch)
        missing = self.required_evidence - frozenset(batch.evidence)
        batch = learner.observe(batch, missing) if missing else batch
        return learner.step(
            batch,
            self.token_selection(batch),
            self.objective,
            LOSS_AGGREGATIONS[self.loss_aggregation],
        )


def learner(
    workload: StepWorkload, method: BenchMethod, budget: int, layout: Layout
) -> PolicyLearner:
    """A learner for this method, with the frozen models that the method needs.

    Args:
        workload: sizes and models.
        method: determines which frozen models are needed.
        budget: the most tokens of a micro-batch.
        layout: padded or packed micro-batches.
    """
    settings = LearnSettings(
        lr=LEARNING_RATE,
        rollouts_per_step=workload.rollouts,
        micro_batch_tokens=budget,
        layout=layout,
    )
    history = (
        FrozenHistory(UnshardedModel(workload.frozen()))
        if "history_logp" in method.required_evidence
        else History()
    )
    teacher = UnshardedModel(workload.frozen()) if method.objective.needs_teacher else None
    return compose_learner(
        workload.policy(), settings, steps=1 << 20, teacher=teacher, history=history
    )


@contextmanager
def update(
    workload: StepWorkload,
    make: Callable[[], Batch],
    method: BenchMethod,
    budget: int,
    layout: Layout,
) -> Iterator[Work]:
    """A step on given rollouts.

    Args:
        workload: sizes and models.
        make: returns the batch; it is not timed.
        method: the training method.
        budget: the most tokens of a micro-batch.
        layout: padded or packed micro-batches.
    """
    trained = learner(workload, method, budget, layout)
    batch = make()

    def work() -> Numbers:
        stats = method.learn(trained, batch)
        return {"loss": stats["loss"], "grad_norm": stats["grad_norm"]}

    yield work


@contextmanager
def opd_step(
    workload: StepWorkload, method: BenchMethod, budget: int, layout: Layout
) -> Iterator[Work]:
    """A whole step: sampling with the trained weights, then learning.

    Every sequence ends exactly at its token budget.

    Args:
        workload: sizes and models, and the length of each response.
        method: the training method.
        budget: the most tokens of a micro-batch.
        layout: padded or packed micro-batches.
    """
    trained = learner(workload, method, budget, layout)
    prompts = workload.prompts()
    lengths = workload.lengths().tolist()
    sampler = LocalSampler(trained.policy, seed=0, shared=True)
    no_stop = StopCriteria(frozenset(), (), trained.policy.tokenizer)

    def work() -> Numbers:
        decoding = TokenDecoding(trained.policy, Sampling(max_tokens=workload.limit), no_stop)
        sequences = decoding.start(
            prompts, num=1, first_id=trained.weights().version * len(prompts)
        )
        for sequence, length in zip(sequences, lengths, strict=True):
            sequence.budget = length
        batch = collate(sampler.finish(sequences, decoding), advantage=NoAdvantage())
        method.learn(trained, batch)
        sampler.load(trained.weights())
        return {"tokens": float(batch.totals().response_tokens)}

    yield work
