"""Alerts: what a run's numbers say against it, in sentences.

An alert compares the last fifth of the steps with the first fifth, and is raised where the change
is larger than the spread of the steps within these fifths explains. It is a reason to look, not a
verdict: long responses may be what a task needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reasontrain.metrics.rewards import ZERO_STD
from reasontrain.report.numbers import Number, duration, mean, percent, short
from reasontrain.report.run import RunRecord
from reasontrain.report.summary import headlines

MIN_STEPS = 20
"""Shorter runs raise alerts about their evaluations alone: a fifth is at least four steps."""
STANDARD_ERRORS = 4.0
"""Distance of two means that counts as a change, in standard errors of their difference."""
LONGER = 1.5
"""Growth of the response length that is inflation, unless the reward grows with it."""
MORE_TRUNCATED = 0.2
"""Growth of the truncated share that is reported."""
COLLAPSED = 0.25
"""Share of its first entropy below which a policy's entropy has collapsed."""
SATURATED = 0.8
"""Share of groups with equal rewards from which on a run learns from few rollouts."""
SLOWER = 1.5
"""Growth of the seconds per sampled token that is reported."""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """A reason to look at a run.

    Attributes:
        kind: `accuracy`, `length`, `truncation`, `entropy`, `reward` or `speed`.
        text: a sentence with the numbers, without a full stop.
    """

    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class _Change:
    """The means of a metric over the first and the last fifth of the steps."""

    first: float
    last: float
    error: float

    @property
    def is_clear(self) -> bool:
        """True if the means differ by more than the steps' spread explains."""
        return abs(self.last - self.first) > STANDARD_ERRORS * self.error

    @property
    def factor(self) -> float:
        """The last mean divided by the first; infinite if the first is 0."""
        return self.last / self.first if self.first else math.inf


def alerts(run: RunRecord) -> list[Alert]:
    """All alerts of a run, accuracy first; none for a run without steps and evaluations."""
    return [*_accuracy(run), *_length(run), *_entropy(run), *_reward(run), *_speed(run)]


def _accuracy(run: RunRecord) -> Iterator[Alert]:
    for line in headlines(run):
        if line.metric == "accuracy" and line.before and line.gain and line.gain.high < 0:
            yield Alert(
                kind="accuracy",
                text=f"{line.suite}: accuracy fell from {percent(line.before.value)} after "
                f"{line.before_step} steps to {percent(line.after.value)} after {line.after_step} "
                f"(95 % interval of the change: {100 * line.gain.low:+.1f} to "
                f"{100 * line.gain.high:+.1f} points)",
            )


def _length(run: RunRecord) -> Iterator[Alert]:
    tokens = _change(run.series("response_tokens_mean"))
    reward = _change(run.series("reward_mean"))
    is_earned = reward is not None and reward.is_clear and reward.last > reward.first
    if tokens and tokens.is_clear and tokens.factor >= LONGER and not is_earned:
        yield Alert(
            kind="length",
            text=f"responses grew from {short(tokens.first)} to {short(tokens.last)} tokens "
            "without a clear gain in reward",
        )
    cut = _change(run.series("truncated_share"))
    if cut and cut.is_clear and cut.last - cut.first >= MORE_TRUNCATED:
        yield Alert(
            kind="truncation",
            text=f"the share of truncated responses grew from {percent(cut.first)} to "
            f"{percent(cut.last)}; see sample.max_tokens",
        )


def _entropy(run: RunRecord) -> Iterator[Alert]:
    entropy = _change(run.series("entropy_mean"))
    if entropy and entropy.is_clear and entropy.factor <= COLLAPSED:
        yield Alert(
            kind="entropy",
            text=f"the policy's entropy fell from {entropy.first:.3g} to {entropy.last:.3g} nats "
            "per token, so that samples of a prompt hardly differ",
        )


def _reward(run: RunRecord) -> Iterator[Alert]:
    equal = _change(run.series(ZERO_STD))
    if equal and equal.last >= SATURATED:
        yield Alert(
            kind="reward",
            text=f"rewards were equal in {percent(equal.last)} of the groups of the last steps "
            f"({percent(equal.first)} of the first ones), from which nothing is learned",
        )


def _speed(run: RunRecord) -> Iterator[Alert]:
    tokens = dict(run.series("sampled_tokens"))
    # The first step pays for compilation and caches.
    paid = [
        (step, seconds / tokens[step])
        for step, seconds in run.series("time_step_s")[1:]
        if tokens.get(step)
    ]
    pace = _change(paid)
    if pace and pace.is_clear and pace.factor >= SLOWER:
        yield Alert(
            kind="speed",
            text=f"a sampled token took {duration(pace.first)} in the first steps and "
            f"{duration(pace.last)} in the last ones",
        )


def _change(series: Sequence[tuple[int, Number]]) -> _Change | None:
    """The change of a metric over the run; None if it was recorded for fewer than MIN_STEPS."""
    values = [float(value) for _, value in series if math.isfinite(value)]
    if len(values) < MIN_STEPS:
        return None
    fifth = len(values) // 5
    first = values[:fifth]
    last = values[-fifth:]
    return _Change(
        first=mean(first),
        last=mean(last),
        error=math.sqrt(_variance(first) / fifth + _variance(last) / fifth),
    )


def _variance(values: Sequence[float]) -> float:
    """The unbiased variance of at least two numbers."""
    centre = mean(values)
    return math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1)
