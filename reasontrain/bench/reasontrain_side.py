"""Our side of a step: what the loop does with rollouts, in its order, by the learner and the sampler of any run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from reasontrain.algo.advantages import NoCredit
from reasontrain.algo.loss_aggregation import AVERAGES, Average
from reasontrain.algo.objectives import Objective
from reasontrain.algo.token_selection import EveryRollout, Everything, Keep, Selector
from reasontrain.bench.case import Numbers, Work
from reasontrain.bench.workload import LEARNING_RATE, Given
from reasontrain.data.collate import collate
from reasontrain.data.micro_batches import Layout
from reasontrain.data.sampling import Sampling
from reasontrain.learner import Learner
from reasontrain.learner.history import History, Kept
from reasontrain.learner.local import LocalLearner
from reasontrain.learner.policy_module import WholeModel
from reasontrain.recipe import LearnSettings
from reasontrain.sampler.local import LocalSampler
from reasontrain.sampler.sequence import Ending
from reasontrain.sampler.token_decoding import Speaking
from reasontrain.types import Batch, Stats


@dataclass(frozen=True)
class Method:
    """How rollouts are learned from."""

    objective: Objective
    average: Average
    select: Selector = field(default_factory=Everything)
    keep: Keep = field(default_factory=EveryRollout)

    @property
    def needs(self) -> frozenset[str]:
        """The evidence that is read."""
        return self.select.needs | self.objective.needs

    def learn(self, learner: Learner, batch: Batch) -> Stats:
        """Keep, observe what is not there yet, select, learn: the verbs of the loop that follow credit."""
        batch = self.keep(batch)
        missing = self.needs - frozenset(batch.evidence)
        batch = learner.observe(batch, missing) if missing else batch
        return learner.step(batch, self.select(batch), self.objective, AVERAGES[self.average])


def learner(given: Given, method: Method, budget: int, layout: Layout) -> LocalLearner:
    """One that learns by this method, with the frozen models that the method asks for."""
    settings = LearnSettings(lr=LEARNING_RATE, rollouts_per_step=given.rollouts, micro_batch_tokens=budget, layout=layout)
    history = Kept(WholeModel(given.frozen())) if "history_logp" in method.needs else History()
    teacher = WholeModel(given.frozen()) if method.objective.teacher else None
    return LocalLearner(given.policy(), settings, steps=1 << 20, teacher=teacher, history=history)


@contextmanager
def update(given: Given, make: Callable[[], Batch], method: Method, budget: int, layout: Layout) -> Iterator[Work]:
    """Everything from given rollouts on."""
    learns, batch = learner(given, method, budget, layout), make()

    def work() -> Numbers:
        stats = method.learn(learns, batch)
        return {"loss": stats["loss"], "grad_norm": stats["grad_norm"]}

    yield work


@contextmanager
def opd_step(given: Given, method: Method, budget: int, layout: Layout) -> Iterator[Work]:
    """Sampling as well, with the very weights that learn; each row has the tokens that it may take, and nothing else ends it."""
    learns, prompts, lengths = learner(given, method, budget, layout), given.prompts(), given.lengths().tolist()
    sampler = LocalSampler(learns.policy, seed=0, shared=True)
    never = Ending(frozenset(), (), learns.policy.tokenizer)

    def work() -> Numbers:
        speaking = Speaking(learns.policy, Sampling(max_tokens=given.limit), never)
        begun = speaking.begin(prompts, num=1, first_id=learns.steps_done * len(prompts))
        for row, length in zip(begun, lengths, strict=True):
            row.budget = length
        batch = collate(sampler.finish(begun, speaking), credit=NoCredit())
        method.learn(learns, batch)
        sampler.load(learns.weights())
        return {"tokens": float(batch.counts().response_rows)}

    yield work
