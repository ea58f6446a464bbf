"""The canary is silent where trainer and sampler are one model, and stops the run where they are
not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from reasontrain.algo.advantages import NoAdvantage
from reasontrain.cluster.canary import METRIC, PROBE_TOKENS, ROLLOUTS, Canary
from reasontrain.data.collate import collate
from reasontrain.data.sampling import Sampling
from reasontrain.learner.factory import compose_learner
from reasontrain.recipe import LearnSettings
from reasontrain.sampler.local import LocalSampler
from reasontrain.types import Problem, Prompt, Rollout, RunError
from tests import tiny

PROMPTS = [Prompt(problem=Problem(id=str(i), prompt=""), ids=(5, 6, 7 + i)) for i in range(3)]
SAMPLING = Sampling(temperature=0.7, max_tokens=12)


class Noted(LocalSampler):
    """A sampler that keeps what it was asked for, and adds noise to its log-probs."""

    noise = 0.0

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        self.asked = (len(prompts), sampling)
        rollouts = super().sample(prompts, sampling, num=num, first_id=first_id)
        generator = torch.Generator().manual_seed(self.version)
        return [
            replace(
                r,
                sampled_logp=tuple(
                    logp + self.noise * float(torch.randn((), generator=generator))
                    for logp in r.sampled_logp
                ),
            )
            for r in rollouts
        ]


def canary(
    sampling: Sampling | None = SAMPLING,
    *,
    dtype: torch.dtype = torch.float32,
    ahead: bool = False,
    every: int = 1,
    baseline: float | None = None,
) -> Canary:
    """A learner and a sampler with one model of their own each, which are equal."""
    learner = compose_learner(
        tiny.policy(), LearnSettings(lr=1e-3, rollouts_per_step=1), steps=1, temperature=0.7
    )
    sampler = Noted(tiny.policy(), seed=0, max_num_seqs=8)
    return Canary(
        learner,
        sampler,
        sampling,
        temperature=0.7,
        every=every,
        limit=0.2,
        ratio=5.0,
        dtype=dtype,
        ahead=ahead,
        baseline=baseline,
    )


def check(canary: Canary, step: int) -> float:
    """The gap of a step, whose rollouts are sampled with the current weights."""
    gaps = canary.before(step, PROMPTS)
    rollouts = canary.sampler.sample(
        PROMPTS, canary.sampling or SAMPLING, num=4, first_id=12 * step
    )
    return (gaps | canary.after(step, PROMPTS, rollouts))[METRIC]


def move(canary: Canary, size: float) -> None:
    """Change the learner's head alone, as an update that never reaches the sampler."""
    head = canary.learner.policy.model.get_output_embeddings().weight
    with torch.no_grad():
        head += size * torch.randn(head.shape, generator=torch.Generator().manual_seed(1))


KINDS = [
    (SAMPLING, False),
    (SAMPLING, True),
    (replace(SAMPLING, top_p=0.5), False),
    (replace(SAMPLING, temperature=0.4), False),  # as distillation, whose learner scores at 1
    (replace(SAMPLING, temperature=0.0), False),
    (None, False),
]


@pytest.mark.parametrize(("sampling", "ahead"), KINDS)
def test_equal_weights_pass_and_others_do_not(sampling: Sampling | None, ahead: bool) -> None:
    sing = canary(sampling, ahead=ahead)
    assert check(sing, 0) == sing.baseline < 1e-5
    move(sing, 1e-6)
    assert check(sing, 1) < 1e-4
    move(sing, 1e-2)  # far too little for a limit in nats
    with pytest.raises(RunError) as error:
        check(sing, 2)
    text = str(error.value)
    assert text.startswith("at version 0 the sampler is not the model that learns: the log-probs")
    assert "see cluster.canary_ratio and canary_gap" in text


@pytest.mark.parametrize("noise", [0.01, 0.03])
def test_rounding_is_no_alarm_and_five_times_as_much_is(noise: float) -> None:
    """In bfloat16 the gap of equal weights is of any size, by model and prompts."""
    sing = canary(dtype=torch.bfloat16)
    sing.sampler.noise = noise
    for step in range(6):
        sing.sampler.version = step
        assert noise / 3 < check(sing, step) < 2 * noise
    sing.sampler.noise = 8 * noise
    with pytest.raises(RunError, match=r"at version 5 .* differ by"):
        check(sing, 6)


def test_a_run_that_starts_with_other_weights_is_stopped_by_the_limit() -> None:
    sing = canary(dtype=torch.bfloat16)
    sing.sampler.noise = 0.4
    with pytest.raises(RunError, match=r"more than 0\.2 \(at the start 0\.3"):
        check(sing, 0)


def test_the_baseline_is_that_of_the_runs_first_step() -> None:
    sing = canary(dtype=torch.bfloat16, baseline=0.03)
    sing.sampler.noise = 0.1
    check(sing, 7)
    assert sing.baseline == 0.03


def test_a_value_that_is_no_number_stops_the_run() -> None:
    sing = canary()
    sing.sampler.noise = float("nan")
    with pytest.raises(RunError, match="differ by nan nats"):
        check(sing, 0)


@pytest.mark.parametrize(("sampling", "ahead"), KINDS)
def test_it_samples_for_itself_only_where_it_must(sampling: Sampling | None, ahead: bool) -> None:
    sing = canary(sampling, ahead=ahead)
    rollouts = sing.sampler.sample(PROMPTS, sampling or SAMPLING, num=4, first_id=0)
    assert len(rollouts) > ROLLOUTS
    if sampling is None:
        rollouts = [replace(rollout, sampled_logp=()) for rollout in rollouts]
    if sampling is not None and sampling.truncates:  # as vLLM reports them
        rollouts = [replace(rollout, sampled_logp=()) for rollout in rollouts]
    sing.sampler.asked = None
    assert set(sing.before(0, PROMPTS)) == ({METRIC} if ahead else set())
    assert set(sing.after(0, PROMPTS, rollouts)) == (set() if ahead else {METRIC})
    if (sampling, ahead) == (SAMPLING, False):
        assert sing.sampler.asked is None
    else:
        plain = Sampling(temperature=0.7, max_tokens=PROBE_TOKENS)
        assert sing.sampler.asked == (len(PROMPTS), plain)


def test_evidence_of_the_step_makes_the_check() -> None:
    """Log-probs that were measured for the batch are compared, all of them, in no further pass."""
    sing = canary()
    rollouts = sing.sampler.sample(PROMPTS, SAMPLING, num=4, first_id=0)
    assert sing.can_use(0, rollouts)
    assert not canary(ahead=True).can_use(0, rollouts)
    assert not canary(every=3).can_use(1, rollouts)
    assert not sing.can_use(0, [replace(rollouts[0], sampled_logp=()), *rollouts[1:]])
    batch = collate([replace(r, reward=0.0) for r in rollouts], advantage=NoAdvantage())
    logp = {"old_logp": batch.sampled_logp_BT + 1e-5 * batch.is_response_BT}
    assert sing.observed(batch.with_evidence(logp)) == {METRIC: pytest.approx(1e-5, rel=0.05)}
    last = torch.zeros_like(batch.sampled_logp_BT)
    last[-1] = 0.5 * batch.is_response_BT[-1]  # the gap is in one of twelve rollouts
    with pytest.raises(RunError, match=rf"of {int(batch.is_response_BT.sum())} tokens differ"):
        sing.observed(batch.with_evidence({"old_logp": batch.sampled_logp_BT + last}))


@pytest.mark.parametrize(
    ("every", "step", "sings"), [(0, 0, False), (3, 0, True), (3, 2, False), (3, 3, True)]
)
def test_it_sings_as_often_as_it_is_told(every: int, step: int, sings: bool) -> None:
    sing = canary(every=every)
    rollouts = sing.sampler.sample(PROMPTS, SAMPLING, num=1, first_id=0)
    assert bool(sing.after(step, PROMPTS, rollouts)) == sings
