"""The loss at the head, from hidden states to gradients, compared with TRL's kernels.

Both contestants get the same tensors.
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

TRL_DIVERGENCE = "TRL ChunkedDivergenceFunction"
TRL_LOGP = "TRL ChunkedLogProbFunction"
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-2}
"""Allowed relative difference; in bfloat16, each contestant rounds gradients to three digits."""
_CPU = VocabSize(rows=1024, vocabulary=32_000, hidden=512, dtype=torch.float32)
_GPU = VocabSize(rows=8192, vocabulary=151_936, hidden=4096, dtype=torch.bfloat16)


@dataclass(frozen=True, kw_only=True)
class VocabSetup:
    """Size, goals and searched settings of TRL for the cases of one machine."""

    size: VocabSize
    make: Make
    distil: Sequence[Goal]
    tip: Goal
    chunks: Sequence[int]
    tiles: Sequence[Tiles]

    @classmethod
    def of(cls, machine: BenchMachine) -> VocabSetup:
        """The setup for a machine: the size of a large model on a GPU, of a small one on a CPU."""
        gpu = machine.device.type == "cuda"
        size = _GPU if gpu else _CPU
        rows, ids = ((4096, 8192), (32768, 65536)) if gpu else ((512, 1024), (1024, 2048, 8192))
        tiles = tuple(product(rows, ids))
        return cls(
            size=size,
            make=partial(work.Inputs.drawn, size, machine.device),
            distil=(_time(0.75), _memory(1.0), Goal(of="seconds", at_most=0.07))
            if gpu
            else (_time(0.35), _memory(1.0)),
            tip=_time(0.55 if gpu else 0.25),
            chunks=(32768 if gpu else 2048,) if machine.quick else (2048, 4096, 8192, 32768),
            tiles=tiles,
        )

    def row(
        self,
        name: str,
        description: str,
        *,
        subject: Setup,
        peer: Contestant,
        goals: Sequence[Goal],
        remark: str = "",
    ) -> BenchCase:
        """A case of this size, in which reasontrain has no settings to search.

        Args:
            name: name of the case.
            description: the work in words.
            subject: sets up the work of reasontrain.
            peer: the contestant that it is compared with.
            goals: goals of the case.
            remark: how to read the ratio.
        """
        return BenchCase(
            name=name,
            description=description,
            work=self.size.settings(),
            units=("rows", float(self.size.rows)),
            subject=Contestant(name="reasontrain", variants=(Variant(settings={}, setup=subject),)),
            peer=peer,
            tolerance=_TOLERANCE[self.size.dtype],
            goals=tuple(goals),
            remark=remark,
        )

    def beside_products(
        self, name: str, description: str, subject: Setup, products: Setup
    ) -> BenchCase:
        """A case compared with its matrix products alone, which compute no loss.

        Args:
            name: name of the case.
            description: the work in words.
            subject: sets up the work of reasontrain.
            products: sets up its matrix products.
        """
        return self.row(
            name,
            description,
            subject=partial(work.totals, subject, self.size.rows),
            peer=Contestant(
                name="its matrix products alone", variants=(Variant(settings={}, setup=products),)
            ),
            goals=(),
            remark="What is above 1 is added by softmax, divergence and gradient. The peer "
            "computes no loss, so only the numbers of rows must agree.",
        )


def rows(machine: BenchMachine) -> Sequence[BenchCase]:
    """The cases: distillation at all positions and at those that TIP keeps, log-probs, and memory.

    Memory is compared with a loss over full logits. A full run also shows the remaining potential,
    by comparison with TRL with patched constants, and with the matrix products alone.
    """
    setup = VocabSetup.of(machine)
    distil = (
        [_distil(setup)]
        if machine.quick
        else [_distil(setup), _distil_patched(setup), _distil_products(setup)]
    )
    tip = [_tip(setup)] if machine.quick else [_tip(setup), _tip_products(setup)]
    return [*distil, *tip, _logp_known(setup), _logp_later(setup), _tip_memory(setup)]


def _distil(setup: VocabSetup) -> BenchCase:
    return setup.row(
        "distil",
        "reverse KL of student to teacher at every row, forward and backward",
        subject=partial(work.distils, setup.make),
        peer=Contestant(name=TRL_DIVERGENCE, variants=(_shipped(setup, "loss"),)),
        goals=setup.distil,
        remark="TRL as it ships: no setting of it changes the size of its tiles.",
    )


def _distil_patched(setup: VocabSetup) -> BenchCase:
    names = ("TOKEN_CHUNK_SIZE", "VOCAB_CHUNK_SIZE")
    variants = (
        Variant(
            settings=dict(zip(names, tiles, strict=True)),
            setup=partial(work.trl_distils, setup.make, tiles, "loss"),
        )
        for tiles in setup.tiles
    )
    return setup.row(
        "distil_patched",
        "the same, with the best constants for TRL's module",
        subject=partial(work.distils, setup.make),
        peer=Contestant(name=f"{TRL_DIVERGENCE}, patched", variants=tuple(variants)),
        goals=(),
        remark="No setting of TRL reaches this. TRL computes six products where four are enough, "
        "which alone makes a ratio of 0.67.",
    )


def _distil_products(setup: VocabSetup) -> BenchCase:
    return setup.beside_products(
        "distil_products",
        "the same, beside the four matrix products that it needs",
        partial(work.distils, setup.make),
        partial(work.multiplies, setup.make, scored=False, keep=1.0),
    )


def _tip(setup: VocabSetup) -> BenchCase:
    return setup.row(
        "tip_20",
        "entropy and reverse KL of every row, then the reverse KL of the fifth that TIP "
        "keeps, forward and backward",
        subject=partial(work.selects, setup.make, 0.2, "scores"),
        peer=Contestant(
            name=f"{TRL_DIVERGENCE} at every row", variants=(_shipped(setup, "scores"),)
        ),
        goals=(setup.tip, _memory(1.0)),
        remark="The losses differ by design, so the sums of entropy and divergence over all "
        "positions must agree instead.",
    )


def _tip_products(setup: VocabSetup) -> BenchCase:
    return setup.beside_products(
        "tip_20_products",
        "the same, beside its matrix products: two at every row to score it, four at a "
        "fifth of the rows",
        partial(work.selects, setup.make, 0.2, "scores"),
        partial(work.multiplies, setup.make, scored=True, keep=0.2),
    )


def _logp_known(setup: VocabSetup) -> BenchCase:
    return setup.row(
        "logp_known",
        "log-probability of the token at every row and the entropy there, coefficients "
        "known beforehand, forward and backward",
        subject=partial(work.scores_known, setup.make),
        peer=_trl_logp(setup, entropy=True),
        goals=(_time(0.75),),
        remark="Three products where TRL computes four.",
    )


def _logp_later(setup: VocabSetup) -> BenchCase:
    return setup.row(
        "logp_later",
        "log-probability of the token at every row, coefficients known only afterwards, "
        "forward and backward",
        subject=partial(work.scores_later, setup.make),
        peer=_trl_logp(setup, entropy=False),
        goals=(_time(1.0),),
        remark="Four products in both.",
    )


def _tip_memory(setup: VocabSetup) -> BenchCase:
    return setup.row(
        "tip_50_memory",
        "entropy and reverse KL of every row, then the reverse KL of the half that TIP "
        "keeps, forward and backward",
        subject=partial(work.selects, setup.make, 0.5, "loss"),
        peer=Contestant(
            name="torch with all logits",
            variants=(Variant(settings={}, setup=partial(work.materialises, setup.make, 0.5)),),
        ),
        goals=(_memory(0.5),),
    )


def _shipped(setup: VocabSetup, gives: work.Gives) -> Variant:
    return Variant(settings={}, setup=partial(work.trl_distils, setup.make, None, gives))


def _trl_logp(setup: VocabSetup, *, entropy: bool) -> Contestant:
    variants = (
        Variant(
            settings={"chunk": chunk},
            setup=partial(work.trl_scores, setup.make, chunk, entropy=entropy),
        )
        for chunk in setup.chunks
    )
    return Contestant(name=TRL_LOGP, variants=tuple(variants))


def _time(at_most: float) -> Goal:
    return Goal(of="time", at_most=at_most)


def _memory(at_most: float) -> Goal:
    return Goal(of="memory", at_most=at_most)
