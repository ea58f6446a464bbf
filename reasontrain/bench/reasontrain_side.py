"""Our side of a step: what the loop does with rollouts, in its order, by the learner and the
sampler of any run.
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
from reasontrain.bench.workload import LEARNING_RATE, Workload
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
class Method:
    """How rollouts are learned from."""

    objective: Objective
    loss_aggregation: LossAggregation
    token_selection: TokenSelection = field(default_factory=AllTokens)
    keep: RolloutFilter = field(default_factory=AllRollouts)

    @property
    def required_evidence(self) -> frozenset[str]:
        """The evidence that is read."""
        return self.token_selection.required_evidence | self.objective.required_evidence

    def learn(self, learner: Learner, batch: Batch) -> Stats:
        """Keep, observe what is not there yet, select, learn: the verbs of the loop that follow
        credit.
        """
        batch = self.keep(batch)
        missing = self.required_evidence - frozenset(batch.evidence)
        batch = learner.observe(batch, missing) if missing else batch
        return learner.step(
            batch,
            self.token_selection(batch),
            self.objective,
            LOSS_AGGREGATIONS[self.loss_aggregation],
        )


def learner(given: Workload, method: Method, budget: int, layout: Layout) -> PolicyLearner:
    """One that learns by this method, with the frozen models that the method asks for."""
    settings = LearnSettings(
        lr=LEARNING_RATE, rollouts_per_step=given.rollouts, micro_batch_tokens=budget, layout=layout
    )
    history = (
        FrozenHistory(UnshardedModel(given.frozen()))
        if "history_logp" in method.required_evidence
        else History()
    )
    teacher = UnshardedModel(given.frozen()) if method.objective.needs_teacher else None
    return compose_learner(
        given.policy(), settings, steps=1 << 20, teacher=teacher, history=history
    )


@contextmanager
def update(
    given: Workload, make: Callable[[], Batch], method: Method, budget: int, layout: Layout
) -> Iterator[Work]:
    """Everything from given rollouts on."""
    learns, batch = learner(given, method, budget, layout), make()

    def work() -> Numbers:
        stats = method.learn(learns, batch)
        return {"loss": stats["loss"], "grad_norm": stats["grad_norm"]}

    yield work


@contextmanager
def opd_step(given: Workload, method: Method, budget: int, layout: Layout) -> Iterator[Work]:
    """Sampling as well, with the very weights that learn; each row has the tokens that it may take,
    and nothing else ends it.
    """
    learns, prompts, lengths = (
        learner(given, method, budget, layout),
        given.prompts(),
        given.lengths().tolist(),
    )
    sampler = LocalSampler(learns.policy, seed=0, shared=True)
    never = StopCriteria(frozenset(), (), learns.policy.tokenizer)

    def work() -> Numbers:
        speaking = TokenDecoding(learns.policy, Sampling(max_tokens=given.limit), never)
        begun = speaking.start(prompts, num=1, first_id=learns.weights().version * len(prompts))
        for row, length in zip(begun, lengths, strict=True):
            row.budget = length
        batch = collate(sampler.finish(begun, speaking), advantage=NoAdvantage())
        method.learn(learns, batch)
        sampler.load(learns.weights())
        return {"tokens": float(batch.totals().response_tokens)}

    yield work
