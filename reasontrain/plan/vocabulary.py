"""What `vocab` and the sampler hold that is as wide as the vocabulary, while a chunk is alive."""

from __future__ import annotations

from reasontrain.objectives.distill import Distill
from reasontrain.plan import shape as shapes
from reasontrain.plan.machine import Phase
from reasontrain.plan.roles import Job
from reasontrain.sampler.local import CHUNK_LOGITS
from reasontrain.vocab.chunks import BLOCK_FLOATS_CPU, CHUNK_FLOATS_CPU, CHUNK_FLOATS_GPU

SAMPLER_BYTES = 28
"""Of each: logits, log-probs and probabilities in float32, and their exact sum's two steps in 64 bits (`sampler.choose`)."""


def logits_of_sampler(vocab_size: int, rows: int) -> int:
    """Bytes while one token is chosen."""
    return min(rows, max(1, CHUNK_LOGITS // vocab_size)) * vocab_size * SAMPLER_BYTES


def chunks(job: Job, rows: int) -> dict[Phase, int]:
    """Bytes of the live chunk, when evidence is measured and at the loss.

    A chunk is projected once for each model, in memory of its own; its statistics take some blocks more, and a block on a GPU is
    the chunk itself. Beside it lies the head's weight as products take it, where that is not what is kept.
    """
    table = 4 * shapes.num_table(job.shape)
    extra = 0
    if job.mode == "autocast":
        extra = table // 2
    if job.recipe.model.dtype == "bfloat16" and not job.on_gpu:
        extra += table  # a CPU multiplies in float32
    observed = _live(job, rows if not job.observes_student else _response_rows(job), job.observes_teacher, 4) + extra
    looks = job.observes_student or job.reference is not None or job.history is not None
    compares = job.recipe.objective.teacher
    return {
        "observe": observed if looks else 0,
        "loss": _live(job, rows, compares, _temporaries(job)) + extra,
        "backward": extra,
    }


def _response_rows(job: Job) -> int:
    return job.work.rollouts_per_micro_batch * job.work.response_tokens


def _live(job: Job, rows: int, compares: bool, temporaries: int) -> int:
    """Projections of one chunk, by policy and teacher, and the tensors between logits and their gradient."""
    width = job.shape.vocab_size
    num_chunks = -(-rows // max(1, (CHUNK_FLOATS_GPU if job.on_gpu else CHUNK_FLOATS_CPU) // width))
    chunk = 4 * width * -(-rows // num_chunks)
    block = chunk if job.on_gpu else min(chunk, 4 * max(BLOCK_FLOATS_CPU, width))
    return chunk * (2 if compares else 1) + block * temporaries


def _temporaries(job: Job) -> int:
    """Tensors of a block's size beside the projections (`vocab.closed_form`): p and a sum's terms; for divergences q and more."""
    objective = job.recipe.objective
    if not isinstance(objective, Distill):
        return 2
    return {"reverse_kl": 2, "forward_kl": 4, "jsd": 5}[objective.divergence]
