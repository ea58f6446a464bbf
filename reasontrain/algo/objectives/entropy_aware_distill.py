"""Entropy-aware distillation: forward KL where the teacher itself is uncertain.

arXiv 2603.07079.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from reasontrain.types import Losses, NotNegative, TokenFields, TokenStats


@dataclass(frozen=True, kw_only=True)
class EntropyAwareDistill:
    """Reverse KL at every token, and forward KL where the teacher's entropy is high.

    Entropy-aware on-policy distillation, arXiv 2603.07079: KL(p || q) of student p and teacher q
    seeks one mode, and KL(q || p) keeps the alternatives that an uncertain teacher has. A token is
    uncertain if H(q) is at least `threshold` nats. Sources differ in what happens there:
    `combine: add` adds `forward_weight` KL(q || p), as the authors' code does with a threshold of
    0.8; `switch` takes it in place of the reverse KL, as secondary descriptions say. Departures:
    that code's reverse term is the sampled-token policy gradient (`sampled_distill`), and its
    forward KL is over the teacher's 16 likeliest ids; here both are over the vocabulary.

    Attributes:
        threshold: entropy of the teacher in nats from which a token is uncertain.
        forward_weight: factor of the forward KL.
        combine: `add` adds it to the reverse KL, `switch` replaces that by it.
    """

    granularity: ClassVar[Literal["token"]] = "token"
    needs_teacher: ClassVar[bool] = True
    score_at_sampling_temperature: ClassVar[bool] = False
    required_evidence: ClassVar[frozenset[str]] = frozenset({"teacher_entropy"})
    kind: Literal["entropy_aware_distill"] = "entropy_aware_distill"
    threshold: NotNegative = 0.8
    forward_weight: NotNegative = 1.0
    combine: Literal["add", "switch"] = "add"

    def __call__(self, policy: TokenStats, batch: TokenFields) -> Losses:
        """One loss per token; metrics: both divergences, and the tokens with forward KL."""
        uncertain_N = batch.teacher_entropy_N >= self.threshold
        reverse_N = policy.kl_reverse_N
        forward_N = policy.kl_forward_N
        otherwise_N = reverse_N if self.combine == "add" else torch.zeros_like(reverse_N)
        loss_N = torch.where(uncertain_N, otherwise_N + self.forward_weight * forward_N, reverse_N)
        stats = {
            "divergence": reverse_N,
            "forward_divergence": forward_N,
            "forward_share": uncertain_N.to(reverse_N.dtype),
        }
        return Losses(loss=loss_N, stats=stats)
