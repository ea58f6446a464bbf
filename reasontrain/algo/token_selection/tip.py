"""TIP: token selection for on-policy distillation by student entropy and teacher divergence.

arXiv 2604.14084 v4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jaxtyping import Float

from reasontrain.algo._draws import gumbel_BT
from reasontrain.algo._top_k import num_kept, top_rows, top_rows_per_rollout
from reasontrain.algo.token_selection.scores.normalise import Scope, Span, finite, span_of
from reasontrain.algo.token_selection.scores.soft_or import overconfidence, soft_or
from reasontrain.rng import Stream
from reasontrain.types import Batch, Ratio

if TYPE_CHECKING:
    from torch import Tensor

Mode = Literal[
    "soft_or",
    "q3",
    "entropy_sample",
    "entropy_topk",
    "divergence",
    "bottom",
    "teachability",
    "compatibility",
]

_NEEDS: Mapping[Mode, frozenset[str]] = {
    "soft_or": frozenset({"entropy", "kl_reverse"}),
    "bottom": frozenset({"entropy", "kl_reverse"}),
    "q3": frozenset({"entropy", "kl_forward"}),
    "entropy_sample": frozenset({"entropy"}),
    "entropy_topk": frozenset({"entropy"}),
    "divergence": frozenset({"kl_reverse"}),
    "teachability": frozenset({"disagreement", "compatibility"}),
    "compatibility": frozenset({"compatibility"}),
}
_NORMALISED: Mapping[Mode, frozenset[str]] = {
    "soft_or": frozenset({"entropy", "kl_reverse"}),
    "bottom": frozenset({"entropy", "kl_reverse"}),
    "q3": frozenset({"entropy"}),
    "teachability": frozenset({"disagreement", "compatibility"}),
}
_UNCLIPPED = " unclipped"
"""Suffix of the spans from minimum to maximum, which order tokens that clipping makes equal."""
_TAIL = 0.05
"""Share of the values that teachability clips at each end (arXiv 2605.26844)."""
_LEAST = 1e-300  # below every positive float32, and its logarithm is finite


@dataclass(frozen=True, kw_only=True)
class Tip:
    """Keep k = max(1, floor(keep_ratio * m)) of the m response tokens of each rollout by score.

    h^ is the student's entropy and d^ = KL(student || teacher), each clipped at a quantile and
    min-max normalised over the step. The score of each `mode`:

    - `soft_or`: h^ + d^ - h^ d^, the main method; `bottom` keeps the lowest soft-OR instead (the
      paper's Table 6)
    - `q3`: KL(teacher || student) (1 - h^), confident and wrong
    - `entropy_sample`: k draws without replacement in proportion to the entropy; tokens of entropy
      0 only if no others are left
    - `entropy_topk`: the entropy itself; `divergence`: KL(student || teacher)
    - `teachability`: disagreement x compatibility, each clipped at its 5th and 95th percentile and
      min-max normalised (arXiv 2605.26844). It is 0 at solved tokens, where the models agree, and
      where the student has no candidate that the teacher likes. That paper ranks the batch
      (`top_scope="step"`, keep_ratio 0.05 or 0.1) and keeps at least one token of each rollout
    - `compatibility`: the teacher's mass on the student's top candidates alone, an ablation there:
      near 1 at every solved token

    Tokens whose `soft_or` or `bottom` scores are equal, as of all clipped ones, are ranked by the
    score without clipping, and then the earlier token comes first.
    Departure: the paper clips the entropy only. A single outlier then compresses d^ and soft-OR
    becomes entropy top-k, so both are clipped; `delta_clip_quantile=1.0` is the paper's literal
    form. `stats_scope` is the scope of the normalisation and `top_scope` that of the ranking; with
    `top_scope="step"`, m counts the tokens of the step. Raises RunError if evidence is not finite
    at a response token.
    """

    kind: Literal["tip"] = "tip"
    mode: Mode = "soft_or"
    keep_ratio: Ratio = 0.5
    clip_quantile: Ratio = 0.98
    delta_clip_quantile: Ratio = 0.98
    stats_scope: Scope = "step"
    top_scope: Scope = "rollout"

    @property
    def required_evidence(self) -> frozenset[str]:
        """The evidence that the mode reads."""
        return _NEEDS[self.mode]

    def kept_share(self, progress: float) -> float:
        """Fraction of response tokens that get a weight, the same throughout the run."""
        return self.keep_ratio

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        return self.given(batch, self.spans(batch))

    def spans(self, batch: Batch) -> dict[str, Span]:
        """The normalisation of each kind of evidence that the mode normalises."""
        among_BT = batch.is_response_BT
        scope = self.stats_scope
        high = {"entropy": self.clip_quantile, "kl_reverse": self.delta_clip_quantile}
        spans = {}
        for name in sorted(_NORMALISED.get(self.mode, frozenset())):
            column_BT = _column(batch, name)
            spans[name] = span_of(
                column_BT,
                among_BT,
                clip_quantile=high.get(name, 1 - _TAIL),
                low_quantile=0.0 if name in high else _TAIL,
                scope=scope,
            )
            spans[name + _UNCLIPPED] = span_of(column_BT, among_BT, scope=scope)
        return spans

    def given(self, batch: Batch, spans: Mapping[str, Span]) -> Float[Tensor, "B T"]:
        """Weights of a subset of rollouts, from the spans of their whole step.

        If ranking is per rollout, the weights do not depend on how the step is divided.
        """
        among_BT = batch.is_response_BT
        score_BT = self.score(batch, spans)
        then_BT = self._unclipped_score(batch, spans)
        if self.top_scope == "rollout":
            return top_rows_per_rollout(
                score_BT,
                among_BT,
                num_kept(self.keep_ratio, among_BT.sum(1)),
                batch.token_order_BT,
                then_BT,
            )
        return top_rows(
            score_BT,
            among_BT,
            int(num_kept(self.keep_ratio, among_BT.sum().reshape(1))),
            batch.token_order_BT,
            then_BT,
        )

    def score(self, batch: Batch, spans: Mapping[str, Span]) -> Float[Tensor, "B T"]:
        """The score that ranks tokens, in float64; undefined outside the response."""
        share = {
            name: spans[name].normalise(_column(batch, name))
            for name in _NORMALISED.get(self.mode, frozenset())
        }
        match self.mode:
            case "soft_or":
                return soft_or(share["entropy"], share["kl_reverse"])
            case "bottom":
                return -soft_or(share["entropy"], share["kl_reverse"])
            case "q3":
                return overconfidence(_column(batch, "kl_forward"), share["entropy"])
            case "entropy_sample":
                return _column(batch, "entropy").clamp(min=_LEAST).log() + gumbel_BT(
                    batch, Stream.TIP_DRAWS
                )
            case "entropy_topk":
                return _column(batch, "entropy")
            case "divergence":
                return _column(batch, "kl_reverse")
            case "teachability":
                return share["disagreement"] * share["compatibility"]
            case "compatibility":
                return _column(batch, "compatibility")

    def _unclipped_score(
        self, batch: Batch, spans: Mapping[str, Span]
    ) -> Float[Tensor, "B T"] | None:
        """The score of `soft_or` and `bottom` from minimum to maximum; None for other modes."""
        if self.mode not in ("soft_or", "bottom"):
            return None
        entropy_BT, divergence_BT = (
            spans[name + _UNCLIPPED].normalise(_column(batch, name))
            for name in ("entropy", "kl_reverse")
        )
        score_BT = soft_or(entropy_BT, divergence_BT)
        return score_BT if self.mode == "soft_or" else -score_BT


def _column(batch: Batch, name: str) -> Float[Tensor, "B T"]:
    """One kind of evidence, finite at every response token and 0 elsewhere."""
    return finite(getattr(batch, f"{name}_BT"), batch.is_response_BT, name)
