"""Computations as wide as the vocabulary: log-probabilities, entropy, divergences and gradients.

All run in fp32 (fp64 for fp64 inputs), chunk by chunk; logits of shape [B, T, V] never exist.

- `fused` evaluates a token objective and forms its gradient in the forward pass, because the loss
  weights are known beforehand.
- `logp` serves sequence objectives: differentiable log-probabilities, recomputed in backward.
- `measure` returns evidence without gradients, `contrast` the contrastive score of cDPO.
- `top_k` returns a model's likeliest ids; a `TopKTeacher` of such ids, or a `MixedTeacher` of many
  models, takes a `Teacher`'s place.
  A `SampledTeacher` knows the sampled token alone, from which the reverse KL is estimated.
- `soft` is `fused` for the embeddings of a soft chain of thought.

All take hidden states and a `Head`. The head's `vocabulary` selects the backend: torch in
cache-sized blocks (`analytic`), Triton kernels (`triton_backend`, `triton_kernels`), or
`full_logits`, the reference implementation that both are tested against.

Shapes: N token positions, C positions of a chunk, D hidden size, V vocabulary, U the teacher's
vocabulary, S ids that student and teacher share, K positions with a loss weight (in `top_k`: ids of
a position), C also categories of `top_k`.
"""

from reasontrain.types import SoftScoring, Tail, Vocabulary
from reasontrain.vocab.backend import check_vocabulary
from reasontrain.vocab.contrast import contrast
from reasontrain.vocab.embedding_mixture import EmbeddingBasis, softmax_
from reasontrain.vocab.fused import Fused, TokenObjective, fused
from reasontrain.vocab.head import Head, Teacher
from reasontrain.vocab.logp import logp
from reasontrain.vocab.mixture import AnyTeacher, MixedPart, MixedTeacher
from reasontrain.vocab.sampled import SampledTeacher
from reasontrain.vocab.soft import HEALTH, SCORED, SOFT_STATISTICS, FedEmbeddings, soft
from reasontrain.vocab.statistics import measure, top_k
from reasontrain.vocab.top_k import TopKTeacher

__all__ = [
    "HEALTH",
    "SCORED",
    "SOFT_STATISTICS",
    "AnyTeacher",
    "EmbeddingBasis",
    "FedEmbeddings",
    "Fused",
    "Head",
    "MixedPart",
    "MixedTeacher",
    "SampledTeacher",
    "SoftScoring",
    "Tail",
    "Teacher",
    "TokenObjective",
    "TopKTeacher",
    "Vocabulary",
    "check_vocabulary",
    "contrast",
    "fused",
    "logp",
    "measure",
    "soft",
    "softmax_",
    "top_k",
]
