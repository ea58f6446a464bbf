"""The table of per-token evidence: one row for each kind, with its unit, its source and its cost.

Evidence is one number per token; entry t of a `_BT` tensor belongs to token t, which is predicted
from t - 1. Selection rules and objectives list the evidence they read in `required_evidence`. Batch
attributes, the observer, plans, FLOP counts, validation, token files and report pages all derive
from this table, so a new kind of evidence is one row here plus the code that measures it. The
functions below read the table at call time and nothing copies it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Source = Literal[
    "sampler", "policy", "teacher", "reference", "history", "unconditional", "stored", "plugin"
]
"""Origin of the numbers.

- `sampler`: reported with each rollout.
- `policy`: one forward pass of the policy before the step.
- `teacher`: that pass and one forward pass of the teacher.
- `reference`, `history`: one forward pass of that model.
- `unconditional`: scored before the run by a reference that does not see the prompt or the image,
  and stored on disk.
- `stored`: read from a file that the recipe's `evidence` names.
- `plugin`: computed from other evidence by a class that the recipe's `evidence` names.
"""

Unit = Literal["nats", "probability", "share", "rank"]
"""Units of evidence."""
UNITS: tuple[Unit, ...] = get_args(Unit)

Model = Literal["policy", "teacher", "reference", "history"]
"""A model that may need an additional forward pass in a step."""

_FORWARD_PASSES: Mapping[Source, frozenset[Model]] = {
    "sampler": frozenset(),
    "policy": frozenset({"policy"}),
    "teacher": frozenset({"policy", "teacher"}),
    "reference": frozenset({"reference"}),
    "history": frozenset({"history"}),
    "unconditional": frozenset(),
    "stored": frozenset(),
    "plugin": frozenset(),
}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One kind of evidence.

    Attributes:
        name: key of `batch.evidence`; `batch.<name>_BT` and the metric `<name>_mean` follow it.
        description: the formula or definition in a few words.
        chart: title of the report's chart that shows it; evidence of the same unit may share a
            chart.
        label: its name within that chart and beside a token.
        unit: nats, a probability, a share of a whole, or a rank, of which 1 is the likeliest.
        bounds: least and greatest possible value, in that unit.
        source: where the numbers come from.
        statistic: name of the statistic of the source's next-token distribution that measures it,
            as `vocab.measure` takes it; None if it is measured in another way.
        soft: True if it is also defined at soft tokens, which are embeddings.
        needs_all_ids: True if it reads the teacher's probabilities of ids that the teacher's
            likeliest need not contain.
    """

    name: str
    description: str
    chart: str
    label: str
    unit: Unit
    bounds: tuple[float, float]
    source: Source
    statistic: str | None = None
    soft: bool = False
    needs_all_ids: bool = False

    @property
    def forward_passes(self) -> frozenset[Model]:
        """The models that need one additional forward pass to measure it."""
        return _FORWARD_PASSES[self.source]


_LOG_PROBABILITY = (-math.inf, 0.0)
_NOT_NEGATIVE = (0.0, math.inf)
_FRACTION = (0.0, 1.0)
_RANK = (1.0, math.inf)

_ROWS = (
    Evidence(
        name="entropy",
        description="entropy of the policy's next-token distribution",
        chart="Entropy",
        label="entropy",
        unit="nats",
        bounds=_NOT_NEGATIVE,
        source="policy",
        statistic="entropy",
        soft=True,
    ),
    Evidence(
        name="kl_reverse",
        description="KL(student || teacher) over the vocabulary",
        chart="Divergence",
        label="student to teacher",
        unit="nats",
        bounds=_NOT_NEGATIVE,
        source="teacher",
        statistic="kl_reverse",
    ),
    Evidence(
        name="kl_forward",
        description="KL(teacher || student) over the vocabulary",
        chart="Divergence",
        label="teacher to student",
        unit="nats",
        bounds=_NOT_NEGATIVE,
        source="teacher",
        statistic="kl_forward",
    ),
    Evidence(
        name="compatibility",
        description="the teacher's probability mass on the student's 16 likeliest tokens",
        chart="Compatibility",
        label="compatibility",
        unit="probability",
        bounds=_FRACTION,
        source="teacher",
        statistic="compatibility",
        needs_all_ids=True,
    ),
    Evidence(
        name="disagreement",
        description="KL(teacher || student) over the union of both models' 16 likeliest tokens, "
        "each renormalised there",
        chart="Disagreement",
        label="disagreement",
        unit="nats",
        bounds=_NOT_NEGATIVE,
        source="teacher",
        statistic="disagreement",
        needs_all_ids=True,
    ),
    Evidence(
        name="teacher_entropy",
        description="entropy of the teacher's next-token distribution",
        chart="Entropy",
        label="teacher",
        unit="nats",
        bounds=_NOT_NEGATIVE,
        source="teacher",
        statistic="teacher_entropy",
        needs_all_ids=True,
    ),
    Evidence(
        name="teacher_logp",
        description="log-probability under the teacher",
        chart="Log-probability",
        label="teacher",
        unit="nats",
        bounds=_LOG_PROBABILITY,
        source="teacher",
        statistic="teacher_logp",
        needs_all_ids=True,
    ),
    Evidence(
        name="teacher_rank_of_argmax",
        description="rank of the student's likeliest token in the teacher's distribution: 1 more "
        "than the ids that the teacher finds likelier, and K + 1 if it is none of the K of "
        "`teacher.top_k`",
        chart="Rank",
        label="student's likeliest token, by the teacher",
        unit="rank",
        bounds=_RANK,
        source="teacher",
        statistic="teacher_rank_of_argmax",
    ),
    Evidence(
        name="sampled_rank",
        description="rank of the token in the policy's distribution: 1 more than the ids that are "
        "likelier",
        chart="Rank",
        label="token, by the policy",
        unit="rank",
        bounds=_RANK,
        source="policy",
        statistic="rank",
    ),
    Evidence(
        name="entropy_top20",
        description="entropy of the policy's 20 likeliest tokens, renormalised",
        chart="Entropy",
        label="20 likeliest",
        unit="nats",
        bounds=_NOT_NEGATIVE,
        source="policy",
        statistic="entropy_top20",
        soft=True,
    ),
    Evidence(
        name="attention",
        description="share of the token's attention that one layer pays to the prompt",
        chart="Attention",
        label="attention to the prompt",
        unit="share",
        bounds=_FRACTION,
        source="policy",
        soft=True,
    ),
    Evidence(
        name="sampled_logp",
        description="log-probability at the sampler's temperature, before truncation",
        chart="Log-probability",
        label="sampler",
        unit="nats",
        bounds=_LOG_PROBABILITY,
        source="sampler",
    ),
    Evidence(
        name="old_logp",
        description="log-probability under the policy before the step",
        chart="Log-probability",
        label="policy before the step",
        unit="nats",
        bounds=_LOG_PROBABILITY,
        source="policy",
        statistic="logp",
    ),
    Evidence(
        name="ref_logp",
        description="log-probability under the frozen reference",
        chart="Log-probability",
        label="reference",
        unit="nats",
        bounds=_LOG_PROBABILITY,
        source="reference",
        statistic="logp",
    ),
    Evidence(
        name="history_logp",
        description="log-probability under an earlier version of the policy",
        chart="Log-probability",
        label="history",
        unit="nats",
        bounds=_LOG_PROBABILITY,
        source="history",
        statistic="logp",
    ),
    Evidence(
        name="excess_noise",
        description="span of the rounding of `old_logp` - `history_logp` in a response: 1.1 times "
        "the 99th percentile over rollouts, measured once; 0 in float32",
        chart="Rounding of excess loss",
        label="rounding of excess loss",
        unit="nats",
        bounds=_NOT_NEGATIVE,
        source="history",
    ),
    Evidence(
        name="uncond_logp",
        description="log-probability under a reference that does not see the condition",
        chart="Log-probability",
        label="without the condition",
        unit="nats",
        bounds=_LOG_PROBABILITY,
        source="unconditional",
    ),
    Evidence(
        name="ce_logscore",
        description="log of cDPO's contrastive score of a positive and a negative model",
        chart="Contrastive score",
        label="log score",
        unit="nats",
        bounds=_LOG_PROBABILITY,
        source="stored",
    ),
    Evidence(
        name="log_ratio",
        description="log-probability under a positive model minus that under a negative one",
        chart="Contrast of two models",
        label="log ratio",
        unit="nats",
        bounds=(-math.inf, math.inf),
        source="stored",
    ),
)

_TABLE: dict[str, Evidence] = {row.name: row for row in _ROWS}
EVIDENCE: Mapping[str, Evidence] = _TABLE
"""The table: every kind of evidence by its name, with those of plug-ins in use."""


def declare(row: Evidence) -> None:
    """Add the row of a plug-in to the table of this process; a later one replaces it."""
    assert row.source == "plugin", "other rows are written above"
    assert row.name not in {built_in.name for built_in in _ROWS}, "the recipe refuses the name"
    _TABLE[row.name] = row


def from_sources(names: Iterable[str], *sources: Source) -> frozenset[str]:
    """The names of evidence that comes from one of the sources."""
    return frozenset(name for name in names if EVIDENCE[name].source in sources)


def forward_passes(names: Iterable[str]) -> frozenset[Model]:
    """The models that need one additional forward pass each to measure this evidence."""
    return frozenset().union(*(EVIDENCE[name].forward_passes for name in names))


def statistics(names: Iterable[str], *sources: Source) -> dict[str, str]:
    """The named evidence that is measured by a vocabulary statistic of one of the sources.

    Returns:
        Name of the evidence -> name of the statistic, as `vocab.measure` takes it.
    """
    return {
        row.name: row.statistic
        for row in (EVIDENCE[name] for name in sorted(names))
        if row.source in sources and row.statistic is not None
    }
