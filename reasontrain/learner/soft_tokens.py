"""The loss of a micro-batch with soft thoughts: log-probs of tokens, densities of soft tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from reasontrain import vocab
from reasontrain.algo.objectives import SoftReinforce, TokenObjective
from reasontrain.data.micro_batches import MicroBatchTokens
from reasontrain.learner.losses import LOSS, NUM_LOSSES
from reasontrain.learner.policy_module import HeadComputation
from reasontrain.types import Batch, Stats, TokenKind

NUM_SOFT = "number of soft tokens"
LIMIT = 1.05
"""The alarm threshold of the health statistic.

Its mean is 1 within sqrt(2 / (D n)) while replay repeats what was sampled.
"""


def soft_loss(
    batch: Batch,
    tokens: MicroBatchTokens,
    loss_weight_N: Float[Tensor, " N"],
    objective: TokenObjective,
    basis: Callable[[], vocab.EmbeddingBasis],
    *,
    temperature: float,
) -> HeadComputation:
    """The loss of N tokens, soft ones among them.

    Every rank computes both kinds, with tokens of that kind or without, so that all run the same
    collectives.

    Args:
        batch: the rollouts of the step.
        tokens: the tokens of a micro-batch that have a loss.
        loss_weight_N: the factor of each loss in the step's sum.
        objective: SoftReinforce, the only one that scores embeddings.
        basis: the embedding table; called inside the forward, where the weights are whole.
        temperature: divides the logits of ordinary tokens.
    """
    assert isinstance(objective, SoftReinforce), (
        f"the recipe refuses {objective.kind} for soft thoughts"
    )
    soft_inputs = tokens.micro_batch.soft
    assert soft_inputs is not None, "a batch with soft thoughts has micro-batches with them"
    is_soft_N = tokens.of(batch.kind_BT) == TokenKind.SOFT
    # Found on the host: a boolean index on the device waits for it.
    soft_M = is_soft_N.nonzero()[:, 0]
    hard_K = (~is_soft_N).nonzero()[:, 0]
    fields = tokens.fields(batch)
    value_ND = soft_inputs.at(tokens.place_N[is_soft_N])
    law = next(iter(batch.soft.values()))
    assert all((soft.tau, soft.sigma) == (law.tau, law.sigma) for soft in batch.soft.values()), (
        "all soft thoughts of a batch are drawn with one tau and one sigma"
    )

    def compute(hidden_ND: Float[Tensor, "N D"], head: vocab.Head) -> Mapping[str, Tensor]:
        device = hidden_ND.device
        hard = vocab.fused(
            hidden_ND[hard_K.to(device, non_blocking=True)],
            head,
            fields[hard_K].to(device),
            loss_weight_N[hard_K].to(device, non_blocking=True),
            objective,
            temperature=temperature,
        )
        thought = vocab.soft(
            hidden_ND[soft_M.to(device, non_blocking=True)],
            head,
            basis(),
            vocab.FedEmbeddings(value_ND.to(device, non_blocking=True), law.tau, law.sigma),
            fields[soft_M].to(device),
            loss_weight_N[soft_M].to(device, non_blocking=True),
            objective,
            objective,
        )
        return {
            LOSS: hard.loss + thought.loss,
            NUM_LOSSES: torch.full((), len(loss_weight_N), device=device),
            NUM_SOFT: torch.full((), len(soft_M), device=device),
            **thought.stats,
        }

    return compute


def means(sums: Mapping[str, float], num_losses: float) -> Stats:
    """Means of statistics over their own tokens: soft ones, or all that have a loss."""
    num_soft = max(sums.get(NUM_SOFT, 0.0), 1.0)
    return {
        name: value / (num_soft if name in vocab.SOFT_STATISTICS else num_losses)
        for name, value in sums.items()
        if name != NUM_SOFT
    }


def alarm(stats: Stats) -> str | None:
    """A warning if replay no longer repeats what was sampled; None if it does."""
    health = stats.get(vocab.HEALTH, 1.0)
    if health <= LIMIT:
        return None
    return (
        f"{vocab.HEALTH} is {health:.3f}, above {LIMIT}: the learner's mixtures are not "
        f"those that the sampler fed; compare the "
        "dtype and attention of both, and see that one step follows each batch"
    )
