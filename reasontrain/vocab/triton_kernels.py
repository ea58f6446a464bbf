"""Triton kernels: a row's statistics in one pass over student and teacher, and the gradient of its
logits in another.

Nothing is added atomically and each row is one program's, so a row's numbers depend on nothing but
the row. Sums are of float32, lane by lane, each relative to the largest logit that its lane has
seen; lanes are brought to the row's largest at the end.
"""

from typing import no_type_check

import triton
import triton.language as tl

INTERPRETED = triton.knobs.runtime.interpret
"""Whether kernels run on a CPU by Triton's interpreter, which has to be known before the first is
decorated.
"""
FLOOR = tl.constexpr(-1e30)
"""As in `closed_form`: differences of logits stop here, so that 0 * log 0 is 0."""
NOTHING = tl.constexpr(float("-inf"))


@no_type_check
@triton.jit
def _seen(x, largest):
    """How far x lies above the largest so far; 0 where both are -inf, which a weight of e^-inf
    takes back in the end.
    """
    return tl.where(x == largest, 0.0, x - largest)


@no_type_check
@triton.jit
def _weights(above):
    """What the sum so far and this logit weigh, relative to the larger of both: one exponential
    serves for the two.
    """
    small = tl.exp(-tl.abs(above))
    return tl.where(above > 0, small, 1.0), tl.where(above > 0, 1.0, small)


@no_type_check
@triton.jit
def _fall(difference):
    """A difference to something that is no smaller, above the floor."""
    return tl.maximum(tl.minimum(difference, 0.0), FLOOR)


@no_type_check
@triton.jit
def _log_softmax(x, largest, log_z):
    """log p in this order: beside a large logit its log z would be rounded away."""
    return tl.maximum((x - largest) - log_z, FLOOR)


@no_type_check
@triton.jit
def _mixture(logp, logq, log_student, log_teacher):
    """log m = log((1 - beta) p + beta q)."""
    left, right = logp + log_student, logq + log_teacher
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
    """Of x: the largest, log z, log p at the id, entropy; with a teacher y its largest and log z,
    and both divergences.

    With e = exp(x - max x): H = log z - sum e (x - max x) / z, and KL(p || q) = sum e ((x - max x)
    - (y - max y)) / z - log z + log z_y. Both divergences and the entropy are as rounding leaves
    them, which may be below 0.
    """
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * x_stride
    y_ptr += row * y_stride
    lane = tl.arange(0, TILE)
    x_max = tl.full((TILE,), NOTHING, tl.float32)
    x_z, x_sum, reverse = (
        tl.zeros((TILE,), tl.float32),
        tl.zeros((TILE,), tl.float32),
        tl.zeros((TILE,), tl.float32),
    )
    y_max = tl.full((TILE,), NOTHING, tl.float32)
    y_z, forward = tl.zeros((TILE,), tl.float32), tl.zeros((TILE,), tl.float32)
    for start in range(0, width, TILE):
        inside = start + lane < width
        x = tl.load(x_ptr + start + lane, mask=inside, other=NOTHING)
        above = _seen(x, x_max)
        old, new = _weights(above)
        x_here, x_moved = _fall(above), _fall(-above)
        x_sum = old * (x_sum + x_z * x_moved) + new * x_here
        if TEACHER:
            y = tl.load(y_ptr + start + lane, mask=inside, other=NOTHING)
            y_above = _seen(y, y_max)
            y_old, y_new = _weights(y_above)
            y_here, y_moved = _fall(y_above), _fall(-y_above)
            reverse = old * (reverse + x_z * (x_moved - y_moved)) + new * (x_here - y_here)
            forward = y_old * (forward + y_z * (y_moved - x_moved)) + y_new * (y_here - x_here)
            y_z = y_old * y_z + y_new
            y_max = tl.maximum(y_max, y)
        x_z = old * x_z + new
        x_max = tl.maximum(x_max, x)
    largest = tl.max(x_max, 0)
    x_moved, old = _fall(x_max - largest), tl.exp(x_max - largest)
    z = tl.sum(old * x_z, 0)
    log_z = tl.log(z)
    chosen = tl.load(x_ptr + tl.load(ids_ptr + row))
    tl.store(out_ptr + row, largest)
    tl.store(out_ptr + num_rows + row, log_z)
    tl.store(out_ptr + 2 * num_rows + row, _log_softmax(chosen, largest, log_z))
    tl.store(out_ptr + 3 * num_rows + row, log_z - tl.sum(old * (x_sum + x_z * x_moved), 0) / z)
    if TEACHER:
        y_largest = tl.max(y_max, 0)
        y_moved, y_old = _fall(y_max - y_largest), tl.exp(y_max - y_largest)
        q_z = tl.sum(y_old * y_z, 0)
        log_q_z = tl.log(q_z)
        apart = log_z - log_q_z
        tl.store(out_ptr + 4 * num_rows + row, y_largest)
        tl.store(out_ptr + 5 * num_rows + row, log_q_z)
        tl.store(
            out_ptr + 6 * num_rows + row,
            tl.sum(old * (reverse + x_z * (x_moved - y_moved)), 0) / z - apart,
        )
        tl.store(
            out_ptr + 7 * num_rows + row,
            tl.sum(y_old * (forward + y_z * (y_moved - x_moved)), 0) / q_z + apart,
        )


@no_type_check
@triton.jit
def mixture(
    x_ptr,
    y_ptr,
    known_ptr,
    out_ptr,
    x_stride,
    y_stride,
    width,
    num_rows,
    log_student,
    log_teacher,
    TILE: tl.constexpr,
):
    """KL(p || m) and KL(q || m), from what `statistics` found."""
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * x_stride
    y_ptr += row * y_stride
    largest, log_z = tl.load(known_ptr + row), tl.load(known_ptr + num_rows + row)
    y_largest, log_q_z = (
        tl.load(known_ptr + 4 * num_rows + row),
        tl.load(known_ptr + 5 * num_rows + row),
    )
    lane = tl.arange(0, TILE)
    student, teacher = tl.zeros((TILE,), tl.float32), tl.zeros((TILE,), tl.float32)
    for start in range(0, width, TILE):
        inside = start + lane < width
        x = tl.load(x_ptr + start + lane, mask=inside, other=NOTHING)
        y = tl.load(y_ptr + start + lane, mask=inside, other=NOTHING)
        logp, logq = _log_softmax(x, largest, log_z), _log_softmax(y, y_largest, log_q_z)
        logm = _mixture(logp, logq, log_student, log_teacher)
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
    known_ptr,
    to_mixture_ptr,
    slopes_ptr,
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
    """a (1[id] - p) - b p (log p + H) + c p (log p - log q - KL) + d (p - q) + e p (log p - log m -
    KL(p || m)), over x itself.

    `stat_grads` are five rows: a to d, and e with 1 - beta in it. Only those that are flagged are
    read, and y where one needs it.
    """
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * x_stride
    y_ptr += row * y_stride
    at = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = at < width
    x = tl.load(x_ptr + at, mask=inside, other=NOTHING)
    logp = _log_softmax(x, tl.load(known_ptr + row), tl.load(known_ptr + num_rows + row))
    p = tl.exp(logp)
    bracket = tl.zeros((TILE,), tl.float32)
    if LOGP:
        bracket -= tl.load(slopes_ptr + row)
    if ENTROPY:
        bracket -= tl.load(slopes_ptr + num_rows + row) * (
            logp + tl.load(known_ptr + 3 * num_rows + row)
        )
    if REVERSE or FORWARD or JSD:
        y = tl.load(y_ptr + at, mask=inside, other=NOTHING)
        logq = _log_softmax(
            y, tl.load(known_ptr + 4 * num_rows + row), tl.load(known_ptr + 5 * num_rows + row)
        )
    if REVERSE:
        bracket += tl.load(slopes_ptr + 2 * num_rows + row) * (
            logp - logq - tl.load(known_ptr + 6 * num_rows + row)
        )
    if FORWARD:
        bracket += tl.load(slopes_ptr + 3 * num_rows + row)
    if JSD:
        logm = _mixture(logp, logq, log_student, log_teacher)
        bracket += tl.load(slopes_ptr + 4 * num_rows + row) * (
            logp - logm - tl.load(to_mixture_ptr + row)
        )
    total = bracket * p
    if FORWARD:
        total -= tl.load(slopes_ptr + 3 * num_rows + row) * tl.exp(logq)
    if LOGP:
        total += tl.where(at == tl.load(ids_ptr + row), tl.load(slopes_ptr + row), 0.0)
    tl.store(x_ptr + at, total, mask=inside)
