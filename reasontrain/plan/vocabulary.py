"""Bytes of vocabulary-wide tensors, in `vocab` and in the sampler, while a chunk is alive."""

from __future__ import annotations

from reasontrain.algo.objectives import Distill, EntropyAwareDistill
from reasontrain.plan import shape as shapes
from reasontrain.plan.machine import Phase
from reasontrain.plan.roles import PlannedJob
from reasontrain.sampler.local import CHUNK_LOGITS
from reasontrain.vocab.chunks import BLOCK_FLOATS_CPU, chunk_spans

SAMPLER_BYTES = 28
"""Bytes per logit while a token is chosen (`sampler.choose`).

Logits, log-probs and probabilities in float32, and two steps of their exact sum in 64 bits.
"""


def logits_of_sampler(vocab_size: int, rows: int) -> int:
    """Bytes of the sampler's logits while one token per sequence is chosen."""
    return min(rows, max(1, CHUNK_LOGITS // vocab_size)) * vocab_size * SAMPLER_BYTES


def chunks(job: PlannedJob, rows: int) -> dict[Phase, int]:
    """Bytes of the live chunk, when evidence is measured and at the loss.

    A chunk is projected once for each model, into its own memory; its statistics need several
    blocks more, and on a GPU a block is the whole chunk. The head's weight in the dtype of the
    products is added if that differs. With `model.vocabulary: full_logits` all positions are
    projected at once, and autograd saves their intermediate results.
    """
    whole = job.recipe.model.vocabulary == "full_logits"
    table = 4 * shapes.num_table(job.shape)
    extra = 0
    if job.mode == "autocast":
        extra = table // 2
    if job.recipe.model.dtype == "bfloat16" and (whole or not job.on_gpu):
        extra += table  # the product is in float32
    compares = job.recipe.objective.needs_teacher
    observed_rows = _response_rows(job) if job.observes_student else rows
    if whole:
        observed = _whole_observed(job) * observed_rows
        loss = _whole_loss(job) * rows
        observed, loss = (round(4 * job.shape.vocab_size * number) for number in (observed, loss))
    else:
        observed = _live(job, observed_rows, job.observes_teacher, 4)
        loss = _live(job, rows, compares, _temporaries(job))
    looks = job.observes_student or job.reference is not None or job.history is not None
    return {
        "observe": observed + extra if looks else 0,
        "loss": loss + extra,
        "backward": extra,
    }


def _whole_loss(job: PlannedJob) -> int:
    """Number of [positions, V] tensors alive in forward and backward of `vocab.full_logits`.

    One of them is for a softcap.
    """
    objective = job.recipe.objective
    if isinstance(objective, EntropyAwareDistill):
        return 10
    if not isinstance(objective, Distill):
        return 5
    return {"reverse_kl": 8, "forward_kl": 8, "jsd": 15}[objective.divergence]


def _whole_observed(job: PlannedJob) -> float:
    """Number of [positions, V] float32 tensors alive in `vocab.measure`."""
    if "disagreement" in job.recipe.measured_evidence:
        return 8.25  # the union of candidates has a byte per id; each side is normalised on it
    return 6.0 if job.observes_teacher else 4.0


def _response_rows(job: PlannedJob) -> int:
    return job.work.micro_batch_responses


def _live(job: PlannedJob, rows: int, compares: bool, temporaries: int) -> int:
    """Bytes of one chunk: projections of policy and teacher, and temporaries of the gradient."""
    width = job.shape.vocab_size
    longest = next(chunk_spans(rows, width, gpu=job.on_gpu))
    chunk = 4 * width * (longest.stop - longest.start)
    block = chunk if job.on_gpu else min(chunk, 4 * max(BLOCK_FLOATS_CPU, width))
    if compares and len(job.teachers) > 1:
        temporaries += 2  # a mixture, and log q of the model that is added to it
    return chunk * (2 if compares else 1) + block * temporaries


def _temporaries(job: PlannedJob) -> int:
    """Number of block-sized tensors besides the projections (`vocab.analytic`).

    These are p and the terms of a sum; divergences add q and more.
    """
    objective = job.recipe.objective
    if isinstance(objective, EntropyAwareDistill):
        return 5
    if not isinstance(objective, Distill):
        return 2
    return {"reverse_kl": 2, "forward_kl": 4, "jsd": 5}[objective.divergence]
