"""The loss of a micro-batch with soft chains of thought: tokens by their log-probs, soft tokens by
their density.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jaxtyping import Float, Int
from torch import Tensor

from reasontrain import vocab
from reasontrain.algo.objectives import SoftReinforce, TokenObjective
from reasontrain.data.micro_batches import MicroBatch, token_fields_at
from reasontrain.types import Batch, Stats, TokenKind

LOSS, SOFT_ROWS = "loss", "number of soft rows"
LIMIT = 1.05
"""Where the health statistic alarms: its mean is 1 within sqrt(2 / (D n)) while replay repeats what
was sampled.
"""

Loss = Callable[[Float[Tensor, "N D"], vocab.Head], Mapping[str, Tensor]]


def soft_loss(
    batch: Batch,
    micro: MicroBatch,
    local_N: Int[Tensor, " N"],
    token_N: Int[Tensor, " N"],
    coefficient_N: Float[Tensor, " N"],
    objective: TokenObjective,
    basis: Callable[[], vocab.EmbeddingBasis],
    temperature: float,
) -> Loss:
    """What to do with the hidden states at these rows; `basis` is asked for where the weights are
    at hand.

    Every rank does the same, with rows of either kind or without.
    """
    assert isinstance(objective, SoftReinforce), (
        f"the recipe refuses {objective.kind} for soft thoughts"
    )
    assert micro.soft is not None, "a batch with soft thoughts has micro-batches with them"
    rollout_N = micro.index_K[local_N]
    is_soft_N = batch.kind_BT[rollout_N, token_N] == TokenKind.SOFT
    columns = token_fields_at(batch, rollout_N, token_N)
    value_ND = micro.soft.at((micro.start_K[local_N] + token_N)[is_soft_N])
    law = next(iter(batch.soft.values()))
    assert all((one.tau, one.sigma) == (law.tau, law.sigma) for one in batch.soft.values()), (
        "a batch has one law"
    )

    def loss(hidden_ND: Float[Tensor, "N D"], head: vocab.Head) -> Mapping[str, Tensor]:
        device = hidden_ND.device
        soft_N = is_soft_N.to(device)
        seen, coefficient = columns.to(device), coefficient_N.to(device)
        tokens = vocab.fused(
            hidden_ND[~soft_N],
            head,
            seen[~soft_N],
            coefficient[~soft_N],
            objective,
            temperature=temperature,
        )
        fed = vocab.FedEmbeddings(value_ND.to(device), law.tau, law.sigma)
        given = (seen[soft_N], coefficient[soft_N], objective, objective)
        thoughts = vocab.soft(hidden_ND[soft_N], head, basis(), fed, *given)
        return {LOSS: tokens.loss + thoughts.loss, SOFT_ROWS: soft_N.sum(), **thoughts.stats}

    return loss


def means(sums: Mapping[str, float], num_losses: float) -> Stats:
    """Means over the rows that a statistic is of."""
    num_soft = max(sums.get(SOFT_ROWS, 0.0), 1.0)
    return {
        name: value / (num_soft if name in vocab.SOFT_STATISTICS else num_losses)
        for name, value in sums.items()
        if name != SOFT_ROWS
    }


def alarm(stats: Stats) -> str | None:
    """What to say where replay no longer repeats what was sampled; None where all is well."""
    health = stats.get(vocab.HEALTH, 1.0)
    if health <= LIMIT:
        return None
    return (
        f"{vocab.HEALTH} is {health:.3f}, above {LIMIT}: the learner's mixtures are not "
        f"those that the sampler fed; compare the "
        "dtype and attention of both, and see that one step follows each batch"
    )
