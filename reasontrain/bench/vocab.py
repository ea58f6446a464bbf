"""The loss at the head: hidden states in, loss and gradients out, beside TRL's own kernels on the
same tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch

from reasontrain.bench import vocab_work as work
from reasontrain.bench.case import BenchCase, BenchMachine, Contestant, Goal, Setup, Variant
from reasontrain.bench.vocab_work import Make, Tiles, VocabSize

TRL_DIVERGENCE, TRL_LOGP = "TRL ChunkedDivergenceFunction", "TRL ChunkedLogProbFunction"
_APART = {torch.float32: 1e-4, torch.bfloat16: 1e-2}
"""How far the sides may lie apart: bfloat16 gradients are rounded to three digits, and not at the
same places.
"""
_CPU = VocabSize(rows=1024, vocabulary=32_000, hidden=512, dtype=torch.float32)
_GPU = VocabSize(rows=8192, vocabulary=151_936, hidden=4096, dtype=torch.bfloat16)


@dataclass(frozen=True, kw_only=True)
class Kit:
    """What rows are made of on one machine: their size, its goals, and the settings of TRL to
    search.
    """

    size: VocabSize
    make: Make
    distil: Sequence[Goal]
    tip: Goal
    chunks: Sequence[int]
    tiles: Sequence[Tiles]

    @classmethod
    def of(cls, place: BenchMachine) -> Kit:
        """The size of a model on a GPU, or of a small one on a CPU."""
        gpu = place.device.type == "cuda"
        size = _GPU if gpu else _CPU
        rows, ids = ((4096, 8192), (32768, 65536)) if gpu else ((512, 1024), (1024, 2048, 8192))
        tiles = tuple(product(rows, ids))
        return cls(
            size=size,
            make=partial(work.Inputs.drawn, size, place.device),
            distil=(_time(0.75), _memory(1.0), Goal(of="seconds", at_most=0.07))
            if gpu
            else (_time(0.35), _memory(1.0)),
            tip=_time(0.55 if gpu else 0.25),
            chunks=(32768 if gpu else 2048,) if place.quick else (2048, 4096, 8192, 32768),
            tiles=tiles,
        )

    def row(
        self,
        name: str,
        what: str,
        *,
        ours: Variant,
        peer: Contestant,
        goals: Sequence[Goal],
        remark: str = "",
    ) -> BenchCase:
        """A row of this size; of our own work there is one way."""
        return BenchCase(
            name=name,
            what=what,
            work=self.size.settings(),
            units=("rows", float(self.size.rows)),
            ours=Contestant(name="reasontrain", ways=(ours,)),
            peer=peer,
            tolerance=_APART[self.size.dtype],
            goals=tuple(goals),
            remark=remark,
        )

    def beside_products(self, name: str, what: str, ours: Setup, products: Setup) -> BenchCase:
        """A row that shows what we add to the matrix products: they compute no loss, so the sides
        share only their rows.
        """
        return self.row(
            name,
            what,
            ours=Variant(settings={}, ready=partial(work.totals, ours, self.size.rows)),
            peer=Contestant(
                name="its matrix products alone", ways=(Variant(settings={}, ready=products),)
            ),
            goals=(),
            remark="Above 1 is what softmax, divergence and gradient add. The peer computes no "
            "loss, so only rows are compared.",
        )


def rows(place: BenchMachine) -> Sequence[BenchCase]:
    """Distillation at all rows and at those that TIP keeps, log-probabilities, and memory beside a
    loss with its logits whole.

    A full run also looks for what more there is to gain: beside TRL patched, and beside our own
    matrix products alone.
    """
    kit = Kit.of(place)
    distil = (
        [_distil(kit)]
        if place.quick
        else [_distil(kit), _distil_patched(kit), _distil_products(kit)]
    )
    tip = [_tip(kit)] if place.quick else [_tip(kit), _tip_products(kit)]
    return [*distil, *tip, _logp_known(kit), _logp_later(kit), _tip_memory(kit)]


def _distil(kit: Kit) -> BenchCase:
    return kit.row(
        "distil",
        "reverse KL of student to teacher at every row, forward and backward",
        ours=Variant(settings={}, ready=partial(work.distils, kit.make)),
        peer=Contestant(name=TRL_DIVERGENCE, ways=(_shipped(kit, "loss"),)),
        goals=kit.distil,
        remark="TRL as it ships: none of its settings reaches the size of its tiles.",
    )


def _distil_patched(kit: Kit) -> BenchCase:
    names = "TOKEN_CHUNK_SIZE", "VOCAB_CHUNK_SIZE"
    ways = (
        Variant(
            settings=dict(zip(names, tiles, strict=True)),
            ready=partial(work.trl_distils, kit.make, tiles, "loss"),
        )
        for tiles in kit.tiles
    )
    return kit.row(
        "distil_patched",
        "the same, with the constants of TRL's module replaced by the best that were found",
        ours=Variant(settings={}, ready=partial(work.distils, kit.make)),
        peer=Contestant(name=f"{TRL_DIVERGENCE}, patched", ways=tuple(ways)),
        goals=(),
        remark="Nobody gets this by a setting. TRL makes six products where four are enough: by "
        "them alone the ratio is 0.67.",
    )


def _distil_products(kit: Kit) -> BenchCase:
    return kit.beside_products(
        "distil_products",
        "the same, beside the four matrix products that it cannot do without",
        partial(work.distils, kit.make),
        partial(work.multiplies, kit.make, scored=False, keep=1.0),
    )


def _tip(kit: Kit) -> BenchCase:
    return kit.row(
        "tip_20",
        "entropy and reverse KL of every row, then the reverse KL of the fifth that TIP "
        "keeps, forward and backward",
        ours=Variant(settings={}, ready=partial(work.selects, kit.make, 0.2, "scores")),
        peer=Contestant(name=f"{TRL_DIVERGENCE} at every row", ways=(_shipped(kit, "scores"),)),
        goals=(kit.tip, _memory(1.0)),
        remark="The losses differ by design, so the sides are compared by the sums of entropy and "
        "divergence over all rows.",
    )


def _tip_products(kit: Kit) -> BenchCase:
    return kit.beside_products(
        "tip_20_products",
        "the same, beside its matrix products: two at every row to score it, four at a "
        "fifth of the rows",
        partial(work.selects, kit.make, 0.2, "scores"),
        partial(work.multiplies, kit.make, scored=True, keep=0.2),
    )


def _logp_known(kit: Kit) -> BenchCase:
    return kit.row(
        "logp_known",
        "log-probability of the token at every row and the entropy there, coefficients "
        "known beforehand, forward and backward",
        ours=Variant(settings={}, ready=partial(work.scores_known, kit.make)),
        peer=_trl_logp(kit, entropy=True),
        goals=(_time(0.75),),
        remark="Three products where TRL makes four.",
    )


def _logp_later(kit: Kit) -> BenchCase:
    return kit.row(
        "logp_later",
        "log-probability of the token at every row, coefficients known only afterwards, "
        "forward and backward",
        ours=Variant(settings={}, ready=partial(work.scores_later, kit.make)),
        peer=_trl_logp(kit, entropy=False),
        goals=(_time(1.0),),
        remark="Four products on both sides.",
    )


def _tip_memory(kit: Kit) -> BenchCase:
    return kit.row(
        "tip_50_memory",
        "entropy and reverse KL of every row, then the reverse KL of the half that TIP "
        "keeps, forward and backward",
        ours=Variant(settings={}, ready=partial(work.selects, kit.make, 0.5, "loss")),
        peer=Contestant(
            name="torch with all logits",
            ways=(Variant(settings={}, ready=partial(work.materialises, kit.make, 0.5)),),
        ),
        goals=(_memory(0.5),),
    )


def _shipped(kit: Kit, gives: work.Gives) -> Variant:
    return Variant(settings={}, ready=partial(work.trl_distils, kit.make, None, gives))


def _trl_logp(kit: Kit, *, entropy: bool) -> Contestant:
    ways = (
        Variant(
            settings={"chunk": chunk},
            ready=partial(work.trl_scores, kit.make, chunk, entropy=entropy),
        )
        for chunk in kit.chunks
    )
    return Contestant(name=TRL_LOGP, ways=tuple(ways))


def _time(at_most: float) -> Goal:
    return Goal(of="time", at_most=at_most)


def _memory(at_most: float) -> Goal:
    return Goal(of="memory", at_most=at_most)
