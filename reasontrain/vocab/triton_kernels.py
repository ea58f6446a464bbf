"""Triton kernels: statistics of a position in one pass over the logits, their gradient in another.

The grid is (positions, tiles). `statistics` and `mixture` have one program per position, which
steps through the vocabulary in tiles of TILE ids; `gradient` has one program per position and tile.
There are no atomics and no sums across programs, so the result of a position depends on its logits
alone, whatever the batch.

All arithmetic is float32: probabilities of 1e5 ids are summed, and KL is a small difference of
large sums. Each lane of a tile keeps its own running maximum and sums relative to it (an online
softmax per lane); the lanes are rescaled to the common maximum once, at the end.
"""

from typing import no_type_check

import triton
import triton.language as tl

from reasontrain.vocab.analytic import LOGP_FLOOR

INTERPRETED = triton.knobs.runtime.interpret
"""True if Triton's interpreter runs the kernels on a CPU.

It must be set before the first `triton.jit`, which is why it is read at import.
"""
FLOOR = tl.constexpr(LOGP_FLOOR)
"""Differences of logits stop here, so that 0 * log 0 is 0."""
NEG_INF = tl.constexpr(float("-inf"))
"""Fill value of the masked lanes of the last tile: it has probability zero and moves no maximum."""


@no_type_check
@triton.jit
def _above(x, running_max):
    """x - running_max, and 0 where both are equal.

    -inf - -inf would be NaN. Its 0 counts as weight 1 until the end, where the lane's maximum is
    still -inf and the factor e^-inf removes it.
    """
    return tl.where(x == running_max, 0.0, x - running_max)


@no_type_check
@triton.jit
def _rescale(above):
    """Factors of the sum so far and of the new logit, relative to the larger of both maxima.

    One of the two is always 1, so one exponential serves both.
    """
    small = tl.exp(-tl.abs(above))
    return tl.where(above > 0, small, 1.0), tl.where(above > 0, 1.0, small)


@no_type_check
@triton.jit
def _clip_log(difference):
    """A difference of logs that is at most 0, clipped to [FLOOR, 0]."""
    return tl.maximum(tl.minimum(difference, 0.0), FLOOR)


@no_type_check
@triton.jit
def _log_softmax(x, largest, log_z):
    """log p as (x - max) - log z.

    In this order: max + log z would round log z away beside a large logit.
    """
    return tl.maximum((x - largest) - log_z, FLOOR)


@no_type_check
@triton.jit
def _log_mixture(logp, logq, log_student, log_teacher):
    """log m = log((1 - beta) p + beta q), given log(1 - beta) and log beta."""
    left = logp + log_student
    right = logq + log_teacher
    return tl.maximum(left, right) + tl.log(1.0 + tl.exp(-tl.abs(left - right)))


@no_type_check
@triton.jit
def statistics(
    x_ptr,
    y_ptr,
    ids_ptr,
    out_ptr,
    x_stride,
    y_stride,
    width,
    num_rows,
    TEACHER: tl.constexpr,
    TILE: tl.constexpr,
):
    """Statistics of one position.

    With e = exp(x - max x): H = log z - sum e (x - max x) / z, and KL(p || q) = sum e ((x - max x)
    - (y - max y)) / z - log z + log z_y. Entropy and divergences are not clamped: rounding may
    leave them below 0.

    Args:
        x_ptr: the student's logits [N, V], float32.
        y_ptr: the teacher's logits [N, V]; not read without TEACHER.
        ids_ptr: the token at each position [N].
        out_ptr: output [4, N], or [8, N] with TEACHER: max x, log z, log p(id), entropy, max y,
            log z_y, KL(p || q), KL(q || p), in nats.
        x_stride: elements from one position of x to the next.
        y_stride: the same for y.
        width: V.
        num_rows: N.
        TEACHER: compute the last four outputs.
        TILE: ids per step.
    """
    # 64-bit, because position * V can exceed 2^31.
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * x_stride
    y_ptr += row * y_stride
    lane = tl.arange(0, TILE)
    # Per lane, relative to its running maximum: z = sum e^x, sum = sum e^x x, and the numerators of
    # the divergences, reverse = sum e^x (x - y) and forward = sum e^y (y - x).
    x_max = tl.full((TILE,), NEG_INF, tl.float32)
    x_z = tl.zeros((TILE,), tl.float32)
    x_sum = tl.zeros((TILE,), tl.float32)
    reverse = tl.zeros((TILE,), tl.float32)
    y_max = tl.full((TILE,), NEG_INF, tl.float32)
    y_z = tl.zeros((TILE,), tl.float32)
    forward = tl.zeros((TILE,), tl.float32)
    for start in range(0, width, TILE):
        inside = start + lane < width
        x = tl.load(x_ptr + start + lane, mask=inside, other=NEG_INF)
        above = _above(x, x_max)
        old, new = _rescale(above)
        # The logit and the old maximum, each relative to the new maximum.
        x_logit = _clip_log(above)
        x_moved = _clip_log(-above)
        x_sum = old * (x_sum + x_z * x_moved) + new * x_logit
        if TEACHER:
            y = tl.load(y_ptr + start + lane, mask=inside, other=NEG_INF)
            y_above = _above(y, y_max)
            y_old, y_new = _rescale(y_above)
            y_logit = _clip_log(y_above)
            y_moved = _clip_log(-y_above)
            reverse = old * (reverse + x_z * (x_moved - y_moved)) + new * (x_logit - y_logit)
            forward = y_old * (forward + y_z * (y_moved - x_moved)) + y_new * (y_logit - x_logit)
            y_z = y_old * y_z + y_new
            y_max = tl.maximum(y_max, y)
        # Last, since the sums above are still relative to the old maximum and z.
        x_z = old * x_z + new
        x_max = tl.maximum(x_max, x)
    largest = tl.max(x_max, 0)
    x_moved = _clip_log(x_max - largest)
    old = tl.exp(x_max - largest)
    z = tl.sum(old * x_z, 0)
    log_z = tl.log(z)
    token_logit = tl.load(x_ptr + tl.load(ids_ptr + row))
    tl.store(out_ptr + row, largest)
    tl.store(out_ptr + num_rows + row, log_z)
    tl.store(out_ptr + 2 * num_rows + row, _log_softmax(token_logit, largest, log_z))
    tl.store(out_ptr + 3 * num_rows + row, log_z - tl.sum(old * (x_sum + x_z * x_moved), 0) / z)
    if TEACHER:
        y_largest = tl.max(y_max, 0)
        y_moved = _clip_log(y_max - y_largest)
        y_old = tl.exp(y_max - y_largest)
        q_z = tl.sum(y_old * y_z, 0)
        log_q_z = tl.log(q_z)
        log_z_ratio = log_z - log_q_z
        tl.store(out_ptr + 4 * num_rows + row, y_largest)
        tl.store(out_ptr + 5 * num_rows + row, log_q_z)
        tl.store(
            out_ptr + 6 * num_rows + row,
            tl.sum(old * (reverse + x_z * (x_moved - y_moved)), 0) / z - log_z_ratio,
        )
        tl.store(
            out_ptr + 7 * num_rows + row,
            tl.sum(y_old * (forward + y_z * (y_moved - x_moved)), 0) / q_z + log_z_ratio,
        )


@no_type_check
@triton.jit
def mixture(
    x_ptr,
    y_ptr,
    stats_ptr,
    out_ptr,
    x_stride,
    y_stride,
    width,
    num_rows,
    log_student,
    log_teacher,
    TILE: tl.constexpr,
):
    """KL(p || m) and KL(q || m) of one position, with m = (1 - beta) p + beta q.

    Args:
        x_ptr: the student's logits [N, V], float32.
        y_ptr: the teacher's logits [N, V], float32.
        stats_ptr: output of `statistics` with TEACHER, [8, N].
        out_ptr: output [2, N], in nats.
        x_stride: elements from one position of x to the next.
        y_stride: the same for y.
        width: V.
        num_rows: N.
        log_student: log(1 - beta).
        log_teacher: log beta.
        TILE: ids per step.
    """
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * x_stride
    y_ptr += row * y_stride
    largest = tl.load(stats_ptr + row)
    log_z = tl.load(stats_ptr + num_rows + row)
    y_largest = tl.load(stats_ptr + 4 * num_rows + row)
    log_q_z = tl.load(stats_ptr + 5 * num_rows + row)
    lane = tl.arange(0, TILE)
    student = tl.zeros((TILE,), tl.float32)
    teacher = tl.zeros((TILE,), tl.float32)
    for start in range(0, width, TILE):
        inside = start + lane < width
        x = tl.load(x_ptr + start + lane, mask=inside, other=NEG_INF)
        y = tl.load(y_ptr + start + lane, mask=inside, other=NEG_INF)
        logp = _log_softmax(x, largest, log_z)
        logq = _log_softmax(y, y_largest, log_q_z)
        logm = _log_mixture(logp, logq, log_student, log_teacher)
        student += tl.exp(logp) * (logp - logm)
        teacher += tl.exp(logq) * (logq - logm)
    tl.store(out_ptr + row, tl.sum(student, 0))
    tl.store(out_ptr + num_rows + row, tl.sum(teacher, 0))


@no_type_check
@triton.jit
def gradient(
    x_ptr,
    y_ptr,
    ids_ptr,
    stats_ptr,
    mixture_ptr,
    grads_ptr,
    x_stride,
    y_stride,
    width,
    num_rows,
    log_student,
    log_teacher,
    LOGP: tl.constexpr,
    ENTROPY: tl.constexpr,
    REVERSE: tl.constexpr,
    FORWARD: tl.constexpr,
    JSD: tl.constexpr,
    TILE: tl.constexpr,
):
    """The gradient of one tile of logits, written over x.

    a (1[id] - p) - b p (log p + H) + c p (log p - log q - KL) + d (p - q)
    + e p (log p - log m - KL(p || m))

    A tile reads only its own logits, so overwriting them is safe. Factors without their flag are
    not read, nor is y if no flag needs it.

    Args:
        x_ptr: the student's logits [N, V], float32; the output.
        y_ptr: the teacher's logits [N, V], float32.
        ids_ptr: the token at each position [N].
        stats_ptr: output of `statistics`.
        mixture_ptr: output of `mixture`; only its first row, KL(p || m), is read.
        grads_ptr: d loss / d statistic [5, N]: a to d, and e with the factor 1 - beta in it.
        x_stride: elements from one position of x to the next.
        y_stride: the same for y.
        width: V.
        num_rows: N.
        log_student: log(1 - beta).
        log_teacher: log beta.
        LOGP: use a.
        ENTROPY: use b.
        REVERSE: use c.
        FORWARD: use d.
        JSD: use e.
        TILE: ids per program.
    """
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * x_stride
    y_ptr += row * y_stride
    at = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = at < width
    x = tl.load(x_ptr + at, mask=inside, other=NEG_INF)
    logp = _log_softmax(x, tl.load(stats_ptr + row), tl.load(stats_ptr + num_rows + row))
    p = tl.exp(logp)
    # Everything that is multiplied by p.
    bracket = tl.zeros((TILE,), tl.float32)
    if LOGP:
        bracket -= tl.load(grads_ptr + row)
    if ENTROPY:
        bracket -= tl.load(grads_ptr + num_rows + row) * (
            logp + tl.load(stats_ptr + 3 * num_rows + row)
        )
    if REVERSE or FORWARD or JSD:
        y = tl.load(y_ptr + at, mask=inside, other=NEG_INF)
        logq = _log_softmax(
            y, tl.load(stats_ptr + 4 * num_rows + row), tl.load(stats_ptr + 5 * num_rows + row)
        )
    if REVERSE:
        bracket += tl.load(grads_ptr + 2 * num_rows + row) * (
            logp - logq - tl.load(stats_ptr + 6 * num_rows + row)
        )
    if FORWARD:
        bracket += tl.load(grads_ptr + 3 * num_rows + row)
    if JSD:
        logm = _log_mixture(logp, logq, log_student, log_teacher)
        bracket += tl.load(grads_ptr + 4 * num_rows + row) * (
            logp - logm - tl.load(mixture_ptr + row)
        )
    total = bracket * p
    if FORWARD:
        total -= tl.load(grads_ptr + 3 * num_rows + row) * tl.exp(logq)
    if LOGP:
        total += tl.where(at == tl.load(ids_ptr + row), tl.load(grads_ptr + row), 0.0)
    tl.store(x_ptr + at, total, mask=inside)
