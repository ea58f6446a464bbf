"""Everything as wide as the vocabulary: log-probabilities, entropy and divergences, in fp32 chunks,
never [B, T, V] at once.

`fused` evaluates a row objective and forms its gradient in the forward pass, because the
coefficients are known first; `logp` serves sum objectives and recomputes in backward; `measure`
gathers evidence without any gradient; `soft` is `fused` for the embeddings of a soft chain of
thought. All take hidden states and a `Head`, and what is rows x V does not outlive its chunk. A
head's `vocabulary` chooses by what: torch (`closed_form`), Triton (`tiled`, `kernels`), or `whole`,
the plain twin of both.
"""

from reasontrain.types import SoftScoring, Vocabulary
from reasontrain.vocab.backend import check_vocabulary
from reasontrain.vocab.contrast import contrast
from reasontrain.vocab.embedding_mixture import EmbeddingBasis, softmax_
from reasontrain.vocab.fused import Fused, TokenObjective, fused
from reasontrain.vocab.head import Head, Teacher
from reasontrain.vocab.logp import logp
from reasontrain.vocab.soft import HEALTH, SCORED, SOFT_STATISTICS, FedEmbeddings, soft
from reasontrain.vocab.statistics import measure

__all__ = [
    "HEALTH",
    "SCORED",
    "SOFT_STATISTICS",
    "EmbeddingBasis",
    "FedEmbeddings",
    "Fused",
    "Head",
    "SoftScoring",
    "Teacher",
    "TokenObjective",
    "Vocabulary",
    "check_vocabulary",
    "contrast",
    "fused",
    "logp",
    "measure",
    "soft",
    "softmax_",
]
